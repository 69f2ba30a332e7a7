"""`sliceloop keys rotate`: sign the next set of keys by the old and the new ones, and enter it in the ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from broker.trusted_keys import TrustedKeysError, load_key_set
from cloud_worker.ledger import Ledger
from cloud_worker.settings import WorkerSettings
from protocol.errors import TooFewSignaturesError, TrustError
from protocol.rotation import KeySet, follow, rotate
from protocol.signing import countersign, verify
from sliceloop.keys import missing_signatures, rotation, signed_rotation


def rotate_keys(
    worker: WorkerSettings,
    new: Path,
    old_signers: Sequence[CryptoSigner],
    new_signers: Sequence[CryptoSigner],
    threshold: int | None,
    gathered: Path | None,
) -> str:
    """Enter the rotation when enough keys have signed, else keep what was gathered; return what to do next."""
    if worker.trusted_keys_dir is None:
        raise TrustedKeysError("worker.trusted_keys_dir is not set: give the trust folder from which the chain begins")
    start = load_key_set(worker.trusted_keys_dir, worker.trusted_threshold)
    with Ledger(worker.ledger_url) as ledger:
        keys = follow(start, ledger.key_rotations())
        begun = gathered.read_bytes() if gathered and gathered.exists() else None
        now = datetime.now(UTC)
        needed = threshold or keys.release.threshold
        envelope = signed_rotation(rotation(keys, new, needed, now), begun, [*old_signers, *new_signers])
        if missing := missing_signatures(keys, envelope):
            return _keep(gathered, envelope, missing)
        following = rotate(keys, envelope)
        _countersign_all(ledger, keys, new_signers)
        ledger.add_key_rotation(following.version, envelope, now)
    return _said(following, new)


def _keep(gathered: Path | None, envelope: bytes, missing: str) -> str:
    if gathered is None:
        raise TooFewSignaturesError(f"{missing}; give further keys, or a file by --envelope where they are gathered")
    gathered.write_bytes(envelope)
    return f"{gathered}: {missing}; the next one signs by the same command with its own --key or --new-key"


def _countersign_all(ledger: Ledger, old: KeySet, signers: Sequence[CryptoSigner]) -> None:
    """Sign what the old keys released by the new ones too: by the old ones alone it would not be trusted any more."""
    for release in ledger.releases():
        if _trusted(release.envelope, old):
            ledger.replace_release_envelope(release.version, release.envelope, countersign(release.envelope, signers))
    for rollback in ledger.rollbacks():
        if _trusted(rollback.envelope, old):
            ledger.replace_rollback_envelope(rollback.id, rollback.envelope, countersign(rollback.envelope, signers))


def _trusted(envelope: bytes, keys: KeySet) -> bool:
    try:
        verify(envelope, keys.release)
    except TrustError:
        return False
    return True


def _said(keys: KeySet, new: Path) -> str:
    return (
        f"keys of version {keys.version} are in the ledger: give the worker {new}/assign.pem and start it again; edges "
        "follow by themselves. Leave the trust folders as they are: the chain begins there"
    )
