"""How urgent a slice's way to the cloud is."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.outbox.schema import FRAMES_LAST
from edge_agent.priority import priority
from protocol.labels import Label
from protocol.messages import ModelRef, NetworkReading

MODEL = ModelRef(name="m", version=1, sha256="0" * 64)
labels, confidences = st.sampled_from(Label), st.floats(0, 1)


def reading(label: Label = Label.NORMAL, confidence: float = 1.0, uncertain: bool = False) -> NetworkReading:
    rest = dict.fromkeys(Label, (1 - confidence) / (len(Label) - 1))
    return NetworkReading(
        label=label, uncertain=uncertain, probabilities={**rest, label: confidence}, model=MODEL, latency_ms=1
    )


def test_a_sure_normal_waits_for_all_others() -> None:
    """Doubt, a finding and probation each make a slice more urgent than a sure Normal of a proven model."""
    assert priority(reading()) == 0
    assert priority(reading(Label.COVID_19)) > 0
    assert priority(reading(confidence=0.6)) > 0
    assert priority(reading(uncertain=True)) > priority(reading(Label.PNEUMONIA))
    assert priority(reading(), on_probation=True) > 0


@given(labels, confidences, confidences, st.booleans(), st.booleans())
def test_doubt_never_makes_less_urgent(label: Label, one: float, two: float, uncertain: bool, probation: bool) -> None:
    """Of two readings that differ in confidence alone the less confident is not less urgent; 0..99 always."""
    low, high = sorted([one, two])
    more = priority(reading(label, low, uncertain), on_probation=probation)
    less = priority(reading(label, high, uncertain), on_probation=probation)
    assert 0 <= less <= more < min(100, FRAMES_LAST)
