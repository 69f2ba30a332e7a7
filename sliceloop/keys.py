"""Make the keys that sign releases and assignments, exchange them, and the key that encrypts an outbox."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from broker.trusted_keys import ASSIGN_FOLDER, TrustedKeysError, public_keys
from edge_agent.outbox.cipher import KEY_BYTES
from protocol.errors import KeyRotationError, SignatureError
from protocol.rotation import KeyRotation, KeySet, rotate, sign_rotation
from protocol.signing import ROTATION_PAYLOAD_TYPE, countersign, generate_signer, payload_of, public_key_json

SIGNING_FILE, ASSIGN_FILE, TRUSTED_FOLDER = "signing.pem", "assign.pem", "trusted"


class KeyExistsError(FileExistsError):
    """There is a key already; it is never overwritten."""


@dataclass(frozen=True)
class KeyFolder:
    """A folder of keys: `signing` makes releases, `assign` says which edge runs which, `trusted` goes to edges."""

    folder: Path

    @property
    def signing(self) -> Path:
        """Name the private key of releases."""
        return self.folder / SIGNING_FILE

    @property
    def assign(self) -> Path:
        """Name the worker's private key."""
        return self.folder / ASSIGN_FILE

    @property
    def trusted(self) -> Path:
        """Name the folder of public keys."""
        return self.folder / TRUSTED_FOLDER


def new_keys(folder: Path) -> KeyFolder:
    """Write signing.pem and assign.pem (mode 0600), and their public keys into trusted/ and trusted/assign/.

    Raises `KeyExistsError` when there is one of the private keys already.
    """
    keys = KeyFolder(folder)
    for path in (keys.signing, keys.assign):
        if path.exists():
            raise KeyExistsError(f"{path} exists: choose another folder, or move the old key away first")
    _write_pair(keys.signing, keys.trusted)
    _write_pair(keys.assign, keys.trusted / ASSIGN_FOLDER)
    return keys


def rotation(keys: KeySet, new: Path, threshold: int, now: datetime) -> KeyRotation:
    """Return the set of keys that lies in a folder's trusted/, as the one that follows; raises `TrustedKeysError`."""
    release, assign = public_keys(new / TRUSTED_FOLDER), public_keys(new / TRUSTED_FOLDER / ASSIGN_FOLDER)
    if len(release) < threshold or not assign:
        raise TrustedKeysError(
            f"{new / TRUSTED_FOLDER} holds {len(release)} release keys of {threshold}, and {len(assign)} keys of "
            f"workers in {ASSIGN_FOLDER}: put all public keys there that shall count from now on"
        )
    return KeyRotation(
        version=keys.version + 1,
        created_at=now,
        release_keys=tuple({"keyid": key.keyid, **key.to_dict()} for key in release),
        release_threshold=threshold,
        assign_keys=tuple({"keyid": key.keyid, **key.to_dict()} for key in assign),
    )


def signed_rotation(wanted: KeyRotation, begun: bytes | None, signers: Sequence[CryptoSigner]) -> bytes:
    """Sign a rotation, or add to the signatures that others began with; raises `KeyRotationError` for another one."""
    if not begun:
        return sign_rotation(wanted, signers, ())
    signed = countersign(begun, signers, ROTATION_PAYLOAD_TYPE)
    found = KeyRotation.model_validate_json(payload_of(begun))
    if found != wanted.model_copy(update={"created_at": found.created_at}):
        raise KeyRotationError("the file with signatures holds another rotation than the folder: begin with a new file")
    return signed


def missing_signatures(keys: KeySet, envelope: bytes) -> str:
    """Say which signatures a rotation waits for; nothing where it follows. Raises other faults as they are."""
    try:
        rotate(keys, envelope)
    except SignatureError as error:
        return str(error)
    return ""


def new_outbox_key(path: Path) -> None:
    """Write 32 random bytes in hexadecimal to a new file (mode 0600).

    Raises `KeyExistsError` when the file exists: with another key an outbox cannot be opened any more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyExistsError(f"{path} exists: choose another file; an outbox opens with its own key alone") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _write_pair(private: Path, trusted: Path) -> None:
    signer = generate_signer()
    trusted.mkdir(parents=True, exist_ok=True)
    try:
        private.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise KeyExistsError(f"{private} exists: choose another folder, or move the old key away first") from None
    private.write_bytes(signer.private_bytes)
    (trusted / f"{signer.public_key.keyid[:16]}.pub.json").write_text(public_key_json(signer))
