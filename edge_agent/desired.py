"""Which release this edge shall run: the newest assignment and the manifest that it names, or why they are refused."""

import math
from collections import OrderedDict
from datetime import datetime

from edge_agent.model_slot import ModelSlot
from edge_agent.reports import Reports
from edge_agent.trust import EdgeTrust
from protocol.assignment import check_assigned, check_fresh
from protocol.chunks import sha256_of
from protocol.errors import BannedVersionError, ExpiredManifestError, FrozenError, TrustError, UnassignedReleaseError
from protocol.manifest import Manifest, trusted_manifest
from protocol.messages import ModelPhase

MAX_REMEMBERED = 100
"""Refused messages that are not reported again when the broker repeats them."""
MISMATCH_S = 10.0
"""Manifest and assignment come as two messages: so long they may differ."""


def named(error: Exception) -> str:
    """Say an error with its name, by which the attack table and the engineer know it."""
    return f"{type(error).__name__}: {error}"


class Desired:
    """Hears keys, assignments and manifests in any order; what is refused is reported once, by its error's name."""

    def __init__(self, slot: ModelSlot, trust: EdgeTrust, reports: Reports) -> None:
        """Remember against what it is verified, and who is told."""
        self._slot, self._trust, self._reports = slot, trust, reports
        self._envelope: bytes | None = None
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._mismatch, self._mismatch_since_s = "", 0.0
        self.frozen = ""
        """Since when there has been no fresh assignment; empty while there is one."""

    def hear_keys(self, data: bytes) -> None:
        """Follow key rotations; what the new keys signed was perhaps refused before, and is looked at again."""
        try:
            if self._trust.hear_keys(data):
                self._slot.trusted = self._trust.ever_trusted
                self._told.clear()
                self._reports.stand()
        except TrustError as error:
            self._refuse(data, error)

    def hear_assignment(self, envelope: bytes, now: datetime) -> None:
        """Take which release this edge shall run."""
        try:
            self._trust.hear_assignment(envelope, now)
        except TrustError as error:
            self._refuse(envelope, error)
        except OSError as error:  # it counts all the same
            if self._is_news(envelope, error):
                self._reports.stand(f"the assignment cannot be remembered ({named(error)}); free some space")

    def hear_manifest(self, envelope: bytes) -> None:
        """Take what came on the model-update topic."""
        self._envelope = envelope

    def release(self, now: datetime) -> tuple[bytes, Manifest] | None:
        """Return the release that is assigned, if it may run here; what speaks against it is reported once.

        It is looked at each time: a fresh assignment may have come, or a clock may have been set right.
        """
        envelope, self._mismatch = self._envelope, ""
        if envelope is None:
            return None
        try:
            manifest = trusted_manifest(envelope, self._trust.keys.release, self._slot.facts, now=now)
            self._check(envelope, manifest, now)
        except UnassignedReleaseError as error:
            self._mismatch = named(error)
        except FrozenError as error:
            self._refuse(envelope, error)
        except TrustError as error:
            runs_here = error.version == self._slot.running_version
            goes_on = runs_here and isinstance(error, ExpiredManifestError)  # what runs here goes on, though expired
            if self._is_news(envelope, error) and not goes_on and not self._is_told(error):
                self._reports.say(ModelPhase.REJECTED, error.version, named(error))
        else:
            return envelope, manifest
        return None

    def step(self, now_s: float, now: datetime) -> None:
        """Report when news stays away, or when assignment and manifest do not come together."""
        frozen = self._trust.frozen(now)
        if frozen and not self.frozen:
            self._reports.stand(frozen)
        self.frozen = frozen
        if not self._mismatch:
            self._mismatch_since_s = now_s
        elif now_s - self._mismatch_since_s >= MISMATCH_S:
            self._mismatch_since_s = math.inf  # said once
            self._reports.stand(self._mismatch)

    def _check(self, envelope: bytes, manifest: Manifest, now: datetime) -> None:
        assignment = self._trust.assignment
        if assignment is None:
            raise UnassignedReleaseError(f"version {manifest.version} is desired, and no assignment has come")
        check_assigned(envelope, assignment)
        check_fresh(assignment, now)
        if manifest.version in self._slot.banned:
            raise BannedVersionError(
                f"version {manifest.version} failed on this edge before, or was withdrawn; release a new one",
                manifest.version,
            )

    def _refuse(self, heard: bytes, error: TrustError) -> None:
        """Report what cannot be followed, once; it says nothing of a release."""
        if self._is_news(heard, error):
            self._reports.stand(named(error))

    def _is_told(self, error: TrustError) -> bool:
        """Tell whether the newest report says already why this version may not run here; the ban says less."""
        newest = self._reports.newest
        failed = newest.phase in (ModelPhase.REJECTED, ModelPhase.ROLLED_BACK)
        return isinstance(error, BannedVersionError) and failed and newest.desired_version == error.version

    def _is_news(self, heard: bytes, error: Exception) -> bool:
        """Tell whether this was not yet said of it, and count it as said."""
        known = sha256_of(heard), type(error).__name__
        if known in self._told:
            return False
        self._told[known] = None
        while len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        return True
