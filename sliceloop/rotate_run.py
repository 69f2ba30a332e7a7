"""`sliceloop keys rotate`: sign the next set of keys by the old and the new ones, and enter it in the ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from broker.trusted_keys import TrustedKeysError, load_key_set
from cloud_worker.ledger import Ledger
from cloud_worker.releasing import SigningRaceError
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
        waiting = _waiting(ledger, keys, following)
    return _said(following, new, waiting)


def _keep(gathered: Path | None, envelope: bytes, missing: str) -> str:
    if gathered is None:
        raise TooFewSignaturesError(f"{missing}; give further keys, or a file by --envelope where they are gathered")
    gathered.write_bytes(envelope)
    return f"{gathered}: {missing}; the next one signs by the same command with its own --key or --new-key"


def _countersign_all(ledger: Ledger, old: KeySet, signers: Sequence[CryptoSigner]) -> None:
    """Sign what the old keys released by the new ones too: by the old ones alone it would not be trusted any more."""
    for each in ledger.releases():
        if _trusted(each.envelope, old):
            signed = countersign(each.envelope, signers)
            _check_stored(each.version, ledger.replace_release_envelope(each.version, each.envelope, signed))
    for back in ledger.rollbacks():
        if _trusted(back.envelope, old):
            signed = countersign(back.envelope, signers)
            _check_stored(back.version, ledger.replace_rollback_envelope(back.id, back.envelope, signed))


def _check_stored(version: int, stored: bool) -> None:
    if not stored:
        raise SigningRaceError(
            f"somebody else signed version {version} at this moment: no key was exchanged, try again"
        )


def _waiting(ledger: Ledger, old: KeySet, new: KeySet) -> list[int]:
    """Return the versions that counted until now, and need further signatures by the new keys."""
    envelopes = [(each.version, each.envelope) for each in ledger.releases()]
    envelopes += [(each.version, each.envelope) for each in ledger.rollbacks()]
    return sorted({version for version, each in envelopes if _trusted(each, old) and not _trusted(each, new)})


def _trusted(envelope: bytes, keys: KeySet) -> bool:
    try:
        verify(envelope, keys.release)
    except TrustError:
        return False
    return True


def _said(keys: KeySet, new: Path, waiting: Sequence[int]) -> str:
    said = (
        f"keys of version {keys.version} are in the ledger: give the worker {new}/assign.pem and start it again; edges "
        "follow by themselves. Leave the trust folders as they are: the chain begins there"
    )
    if not waiting:
        return said
    versions = ", ".join(map(str, waiting))
    return (
        f"{said}\ntoo few of the new keys have signed version {versions}, which no edge is told until then: the others "
        "sign each by `sliceloop sign VERSION`; a rollout that paused meanwhile goes on by `sliceloop resume VERSION`"
    )
