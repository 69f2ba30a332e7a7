"""The public keys in a trust folder: *.pub.json sign releases, assign/*.pub.json say which edge runs which of them."""

from pathlib import Path

from securesystemslib.signer import SSlibKey

from protocol.rotation import KeySet
from protocol.signing import TrustedKeys, load_public_key

ASSIGN_FOLDER = "assign"
"""In the trust folder: the worker's keys, which can choose among releases, and make none."""
PUBLIC_KEYS = "*.pub.json"


class TrustedKeysError(RuntimeError):
    """The trust folder cannot be used; the message says which file to mend."""


def load_key_set(folder: Path, threshold: int) -> KeySet:
    """Read the keys from which a chain of rotations starts; raises `TrustedKeysError`."""
    release, assign = public_keys(folder), public_keys(folder / ASSIGN_FOLDER)
    if len(release) < threshold:
        raise TrustedKeysError(
            f"{folder} holds {len(release)} public keys, {threshold} are needed: copy the *.pub.json files there "
            "that `sliceloop keys new` made"
        )
    if not assign:
        raise TrustedKeysError(
            f"{folder / ASSIGN_FOLDER} holds no public key of the worker: copy the folder trusted/{ASSIGN_FOLDER} "
            "there that `sliceloop keys new` made"
        )
    both = {key.keyid for key in release} & {key.keyid for key in assign}
    if both:
        raise TrustedKeysError(
            f"key {min(both)[:16]} lies in {folder} and in its folder {ASSIGN_FOLDER}: a worker that assigns must not "
            "release; remove it from one of them"
        )
    return KeySet(TrustedKeys(release, threshold), TrustedKeys(assign))


def public_keys(folder: Path) -> tuple[SSlibKey, ...]:
    """Read the public keys of a folder, by name, each once; raises `TrustedKeysError` for one that is none."""
    found = [_public_key(path) for path in sorted(folder.glob(PUBLIC_KEYS))]
    return tuple({key.keyid: key for key in found}.values())


def _public_key(path: Path) -> SSlibKey:
    try:
        return load_public_key(path.read_text())
    except (OSError, ValueError) as error:
        raise TrustedKeysError(f"{path} cannot be used ({error}); copy it again, or remove it") from error
