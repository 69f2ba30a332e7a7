"""Which release one edge shall run now, as the worker signs it: fresh or nothing, and never two at once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from protocol.chunks import FileName, sha256_of
from protocol.errors import (
    ConflictingAssignmentError,
    EnvelopeError,
    ForeignAssignmentError,
    FrozenError,
    ReplayedAssignmentError,
    UnassignedReleaseError,
)
from protocol.manifest import shown_manifest
from protocol.messages import Part, Sha256, ShortText, Url
from protocol.signed_payload import supported_fields
from protocol.signing import ASSIGNMENT_PAYLOAD_TYPE, TrustedKeys, payload_of, verify
from protocol.topics import TopicId

ASSIGNMENT_MAJOR = 1
MAX_URLS = 8


class Assignment(Part):
    """What the director of the fleet says (Uptane's word): it can choose among signed releases, and make none."""

    model_config = ConfigDict(hide_input_in_errors=True)  # it might be a URL

    type: Literal["sliceloop.assignment"] = "sliceloop.assignment"
    major: int = ASSIGNMENT_MAJOR
    site: TopicId
    edge: TopicId
    sequence: int = Field(ge=1)
    """Grows with each assignment of this edge."""
    version: int = Field(ge=1)
    manifest_sha256: Sha256
    """Of the signed payload: the release, whatever signatures it gathers."""
    ring: ShortText = ""
    issued_at: AwareDatetime
    expires_at: AwareDatetime
    urls: dict[FileName, Url] = Field(default_factory=dict, max_length=MAX_URLS, repr=False)
    """Where files may be fetched besides; presigned, so never logged."""


@dataclass(frozen=True)
class Seen:
    """The newest assignment that an edge has heard: its number, and the SHA-256 of what was signed."""

    sequence: int = 0
    sha256: str = ""


def trusted_assignment(
    envelope: bytes, trusted: TrustedKeys, *, site: str, edge: str, seen: Seen, now: datetime
) -> Assignment:
    """Return the assignment that an edge follows, or raise the `TrustError` that says why not.

    It does what TUF's timestamp role is for; the numbers are those of its client workflow (1.0.33, section 5).
    """
    payload = verify(envelope, trusted, ASSIGNMENT_PAYLOAD_TYPE)  # 5.4.2: the role's own keys
    assignment = _parse(payload)
    if (assignment.site, assignment.edge) != (site, edge):  # Uptane 5.4.4.2, 9: this ECU, and no other
        raise ForeignAssignmentError(f"the assignment is that of {assignment.site}/{assignment.edge}")
    version, digest = assignment.version, sha256_of(payload)
    if assignment.sequence < seen.sequence:  # 5.4.3: no replay of what was said before
        raise ReplayedAssignmentError(
            f"assignment {assignment.sequence} (of version {version}) is older than {seen.sequence}, heard before",
            version,
        )
    if assignment.sequence == seen.sequence and digest != seen.sha256:
        raise ConflictingAssignmentError(
            f"assignment {assignment.sequence} says version {version}, and said something else before", version
        )
    check_fresh(assignment, now)  # 5.4.4: no freeze
    return assignment


def check_fresh(assignment: Assignment, now: datetime) -> None:
    """Raise `FrozenError` when the assignment is no news any more."""
    if assignment.expires_at <= now:
        raise FrozenError(
            f"no fresh assignment since {assignment.issued_at.isoformat(timespec='seconds')} (version "
            f"{assignment.version}, valid until {assignment.expires_at.isoformat(timespec='seconds')}): news is kept "
            "away, the cloud is silent, or the clock is wrong",
            assignment.version,
        )


def check_assigned(envelope: bytes, assignment: Assignment) -> None:
    """Raise `UnassignedReleaseError` unless the envelope holds the very manifest that the assignment names (5.5.2)."""
    if sha256_of(payload_of(envelope)) != assignment.manifest_sha256:
        raise UnassignedReleaseError(f"another release is desired than version {assignment.version}, which is assigned")
    version = shown_manifest(envelope).version
    if version != assignment.version:  # 5.6.4: the number that was told is that of the release
        raise UnassignedReleaseError(f"version {version} is assigned as version {assignment.version}", version)


def seen_of(envelope: bytes, assignment: Assignment) -> Seen:
    """Return what to remember of an assignment that was accepted."""
    return Seen(assignment.sequence, sha256_of(payload_of(envelope)))


def _parse(payload: bytes) -> Assignment:
    supported_fields(payload, "assignment", frozenset({ASSIGNMENT_MAJOR}))
    try:
        return Assignment.model_validate_json(payload)
    except ValidationError as error:
        # The field alone: value, and key of a map, might be a presigned URL.
        (field, *_) = error.errors(include_url=False, include_input=False)[0]["loc"] or ("",)
        raise EnvelopeError(f"the signed payload is no assignment ({field})") from None
