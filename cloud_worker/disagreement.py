"""Decide whether two readings of a slice need a person, and say why: a pure function."""

import hashlib

from cloud_worker.settings import DisagreementSettings
from protocol.messages import Disagreement, NetworkReading


def compare(
    slice_id: str, first: NetworkReading, second: NetworkReading, settings: DisagreementSettings
) -> Disagreement | None:
    """Return the strongest ground for a review, or None when both readers agree with confidence."""
    reasons = _reasons(first, second, settings)
    if first.label != second.label and not (first.uncertain or second.uncertain):
        return Disagreement(kind="label", reasons=reasons)
    if first.uncertain or second.uncertain:
        return Disagreement(kind="uncertain", reasons=reasons)
    if reasons:
        return Disagreement(kind="confidence", reasons=reasons)
    if _share_of(slice_id) < settings.audit_share:
        return Disagreement(kind="audit", reasons=("both readers agree; drawn at random for review",))
    return None


def _reasons(first: NetworkReading, second: NetworkReading, settings: DisagreementSettings) -> tuple[str, ...]:
    reasons = []
    if first.label != second.label:
        reasons.append(f"edge reads {_words(first)}, second reader {_words(second)}")
    for who, reading in (("edge", first), ("second reader", second)):
        if reading.uncertain:
            reasons.append(f"{who} is uncertain ({_words(reading)})")
    gap = abs(first.confidence - second.confidence)
    if first.label == second.label and gap >= settings.confidence_gap:
        reasons.append(f"both read {first.label}, with {first.confidence:.2f} and {second.confidence:.2f}")
    return tuple(reasons)


def _words(reading: NetworkReading) -> str:
    return f"{reading.label} {reading.confidence:.2f}"


def _share_of(slice_id: str) -> float:
    """Map an id to 0..1, evenly and always the same."""
    return int.from_bytes(hashlib.sha256(slice_id.encode()).digest()[:8]) / 2**64
