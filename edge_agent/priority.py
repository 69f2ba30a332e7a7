"""Tell how urgent a slice's way to the cloud is: what a person may have to look at goes first."""

from protocol.labels import Label
from protocol.messages import NetworkReading

UNCERTAIN_POINTS = 40
"""The network does not stand by it: the second reader's word is the first one."""
DOUBT_POINTS = 30
"""At most, for a confidence that says nothing: readings near the boundary are those that the second reader contests."""
FINDING_POINTS = 20
"""A finding that waits costs a patient more than a Normal that waits."""
PROBATION_POINTS = 9
"""A new model's first readings tell whether it is to stay: the sooner they are compared the better."""


def priority(reading: NetworkReading, *, on_probation: bool = False) -> int:
    """Return 0..99, the most urgent the highest; a sure Normal of a proven model has 0."""
    chance = 1 / len(Label)
    doubt = min(1.0, (1 - reading.confidence) / (1 - chance))
    return (
        UNCERTAIN_POINTS * reading.uncertain
        + round(DOUBT_POINTS * doubt)
        + FINDING_POINTS * (reading.label is not Label.NORMAL)
        + PROBATION_POINTS * on_probation
    )
