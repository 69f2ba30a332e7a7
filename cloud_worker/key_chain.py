"""Whose signatures count for this worker: the trust folder's, and the rotations that the ledger holds since."""

import structlog

from cloud_worker.ledger import Ledger
from protocol.errors import TrustError
from protocol.rotation import KeySet, bundle, rotate

log = structlog.get_logger()


class KeyChain:
    """Follows the rotations as the edges do; one that does not follow ends the chain, and is named."""

    def __init__(self, keys: KeySet, ledger: Ledger) -> None:
        """Remember where the chain begins."""
        self.keys = keys
        self._ledger = ledger
        self._followed: list[bytes] = []
        self._heard = 0

    def follow(self) -> KeySet:
        """Return the set of keys that counts now."""
        envelopes = self._ledger.key_rotations()
        for envelope in envelopes[self._heard :]:
            self._heard += 1
            try:
                self.keys = rotate(self.keys, envelope)
            except TrustError as error:
                log.error("key rotation refused", reason=str(error), keys_version=self.keys.version)
                continue
            self._followed.append(envelope)
            log.info("keys rotated", keys_version=self.keys.version)
        return self.keys

    def message(self) -> bytes:
        """Return what the fleet is told; empty where no key was ever exchanged."""
        return bundle(self._followed) if self._followed else b""
