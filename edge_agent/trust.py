"""Whose word counts on this edge, and the newest assignment that it heard; remembered beside the models."""

from datetime import UTC, datetime
from pathlib import Path

import structlog

from edge_agent.durable import write_durably
from protocol.assignment import Assignment, Seen, check_fresh, seen_of, trusted_assignment
from protocol.errors import FrozenError, MessageTooLargeError, TrustError
from protocol.rotation import KeySet, bundle, follow, unbundle
from protocol.signing import ASSIGNMENT_PAYLOAD_TYPE, TrustedKeys, verify

log = structlog.get_logger()

KEYS_FILE = "keys.json"
ASSIGNED_FILE = "assigned.dsse.json"
LONG_AGO = datetime.min.replace(tzinfo=UTC)


class EdgeTrust:
    """The chain of key sets from the settings' on, and the assignment in force; what is heard is verified first."""

    def __init__(self, folder: Path, settings_keys: KeySet, *, site: str, edge: str) -> None:
        """Remember where it is kept, and the keys that the technician put on the box."""
        self._folder, self._site, self._edge = folder, site, edge
        self._chain = [settings_keys]
        self._rotations: list[bytes] = []
        self._kept = 0
        self._seen = self._kept_seen = Seen()
        self._envelope = b""
        self._expected_by: datetime | None = None
        """Of an assignment that went with its key: by then another one has come."""
        self.assignment: Assignment | None = None

    @property
    def keys(self) -> KeySet:
        """Return the newest set of keys."""
        return self._chain[-1]

    @property
    def ever_trusted(self) -> tuple[TrustedKeys, ...]:
        """Return the release keys of every set, the newest first: a model that was verified once may go on reading."""
        return tuple(keys.release for keys in reversed(self._chain))

    def load(self) -> None:
        """Take up what an earlier life heard; what no longer verifies is left out, and heard again."""
        try:
            self._follow(unbundle((self._folder / KEYS_FILE).read_bytes()))
            self._kept = self.keys.version
        except FileNotFoundError:
            pass
        except (OSError, TrustError) as error:
            log.error("key rotations not taken up", reason=str(error), next="they are heard again from the broker")
        try:
            self._assign((self._folder / ASSIGNED_FILE).read_bytes(), LONG_AGO)
            self._kept_seen = self._seen
        except FileNotFoundError:
            pass
        except (OSError, TrustError) as error:
            log.error("assignment not taken up", reason=str(error), next="it is heard again from the broker")

    def hear_keys(self, data: bytes) -> bool:
        """Follow a chain of key rotations; say whether there is anything new. Raises `TrustError`."""
        before = self.keys.version
        self._follow(unbundle(data))
        self._keep_rotations()
        if self.keys.version == before:
            return False
        log.warning("trusted keys exchanged", keys_version=self.keys.version)
        return True

    def hear_assignment(self, envelope: bytes, now: datetime) -> None:
        """Take an assignment, and write it if it is not written. Raises `TrustError`, or `OSError`: it counts then."""
        self._assign(envelope, now)
        if self._kept_seen != self._seen:
            write_durably(self._folder / ASSIGNED_FILE, envelope)
            self._kept_seen = self._seen

    def frozen(self, now: datetime) -> str:
        """Say since when there has been no fresh assignment; empty while there is one, or never was any."""
        try:
            if self.assignment is None:
                return self._long_awaited(now)
            check_fresh(self.assignment, now)
        except FrozenError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _long_awaited(self, now: datetime) -> str:
        if self._expected_by is None or now < self._expected_by:
            return ""
        raise FrozenError(
            f"no assignment has come since the keys were exchanged, and {self._expected_by:%F %T} UTC is past"
        )

    def _follow(self, envelopes: tuple[bytes, ...]) -> None:
        """Follow a chain to its end, or not at all: nothing that is appended to it leaves the edge half-way."""
        followed: list[tuple[KeySet, bytes]] = []
        keys = self.keys
        for envelope in envelopes:
            before, keys = keys, follow(keys, [envelope])
            if keys.version > before.version:
                followed.append((keys, envelope))
        for keys, envelope in followed:
            if not self._still_signed_by(keys):  # TUF 5.3.11: what a key that went said, binds nobody any more
                self._expected_by = self.assignment.expires_at if self.assignment is not None else None
                self._seen, self.assignment, self._envelope = Seen(), None, b""
            self._chain.append(keys)
            self._rotations.append(envelope)

    def _still_signed_by(self, keys: KeySet) -> bool:
        try:
            verify(self._envelope, keys.assign, ASSIGNMENT_PAYLOAD_TYPE)
        except TrustError:
            return False
        return True

    def _keep_rotations(self) -> None:
        """Write the chain, if it is not written; where that cannot be done, the keys count all the same."""
        if self._rotations and self._kept < self.keys.version:
            try:
                write_durably(self._folder / KEYS_FILE, bundle(self._rotations))
                self._kept = self.keys.version
            except (OSError, MessageTooLargeError) as error:
                log.error("trusted keys not remembered", reason=str(error), next="free some space before a restart")

    def _assign(self, envelope: bytes, now: datetime) -> None:
        assignment = trusted_assignment(
            envelope, self.keys.assign, site=self._site, edge=self._edge, seen=self._seen, now=now
        )
        self._seen, self.assignment, self._envelope = seen_of(envelope, assignment), assignment, envelope
