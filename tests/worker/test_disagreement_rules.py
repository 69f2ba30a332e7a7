"""Two readings need a person when they differ, when one is unsure, and now and then when they agree."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_parts import reading

from cloud_worker.disagreement import compare
from cloud_worker.settings import DisagreementSettings
from protocol.labels import Label
from protocol.messages import Disagreement

NEVER_AUDIT = DisagreementSettings(audit_share=0)
READINGS = st.builds(reading, st.sampled_from(Label), st.floats(0, 1), uncertain=st.booleans())


def test_confident_readers_of_two_minds_are_a_label_disagreement() -> None:
    """Two confident readings of different labels are of kind label, and the reason says who reads what."""
    found = compare("s", reading(Label.NORMAL, 0.9), reading(Label.COVID_19, 0.8), NEVER_AUDIT)
    assert found == Disagreement(kind="label", reasons=("edge reads Normal 0.90, second reader COVID-19 0.80",))


@pytest.mark.parametrize("second", [Label.NORMAL, Label.PNEUMONIA])
def test_an_uncertain_reader_makes_it_uncertain(second: Label) -> None:
    """Where a reader is uncertain the kind is uncertain, whatever the labels, and the reasons name the reader."""
    found = compare("s", reading(Label.NORMAL, 0.9), reading(second, 0.4, uncertain=True), NEVER_AUDIT)
    assert found is not None
    assert found.kind == "uncertain"
    assert any("second reader is uncertain" in reason for reason in found.reasons)
    assert any("edge reads Normal" in reason for reason in found.reasons) == (second is not Label.NORMAL)


def test_both_uncertain_gives_both_reasons() -> None:
    """Each uncertain reader is a reason of its own."""
    unsure = reading(Label.NORMAL, 0.4, uncertain=True)
    found = compare("s", unsure, unsure, NEVER_AUDIT)
    assert found is not None
    assert [reason.split(" is ")[0] for reason in found.reasons] == ["edge", "second reader"]


@pytest.mark.parametrize(("second", "kind"), [(0.5, "confidence"), (0.51, None), (0.9, None)])
def test_a_gap_in_confidence_counts_from_the_set_width_on(second: float, kind: str | None) -> None:
    """The same label with confidences as far apart as the setting says is of kind confidence; closer is agreement."""
    gap = DisagreementSettings(audit_share=0, confidence_gap=0.4)
    found = compare("s", reading(confidence=0.9), reading(confidence=second), gap)
    assert (found.kind if found else None) == kind
    assert found is None or "both read Normal" in found.reasons[0]


def test_the_audit_draws_its_share_and_always_the_same() -> None:
    """Of agreed slices about the set share is drawn, and the same slices again at every call."""
    share, n = 0.2, 2_000
    audit = DisagreementSettings(audit_share=share)
    drawn = [[compare(f"slice-{number}", reading(), reading(), audit) for number in range(n)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    kinds = [found.kind for found in drawn[0] if found]
    assert set(kinds) == {"audit"}
    assert abs(len(kinds) / n - share) < 4 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize(("share", "found"), [(0.0, False), (1.0, True)])
def test_the_audit_may_be_none_or_all(share: float, found: bool) -> None:
    """A share of 0 draws no agreed slice, and one of 1 draws each."""
    audit = DisagreementSettings(audit_share=share)
    assert all((compare(f"s-{n}", reading(), reading(), audit) is not None) == found for n in range(50))


@settings(deadline=None)
@given(first=READINGS, second=READINGS, slice_id=st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True))
def test_who_is_first_does_not_change_whether_and_of_which_kind(first, second, slice_id) -> None:
    """Readers may change places: kind and number of reasons stay; labels that differ are never agreement."""
    one, other = (compare(slice_id, *pair, DisagreementSettings()) for pair in ((first, second), (second, first)))
    assert (one.kind, len(one.reasons)) == (other.kind, len(other.reasons)) if one and other else one == other
    if first.label != second.label:
        assert one is not None
        assert one.kind in ("label", "uncertain")
    assert one is None or all(one.reasons)
