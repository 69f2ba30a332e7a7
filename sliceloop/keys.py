"""Make the key pair that signs releases, and the key that encrypts an outbox."""

import os
import secrets
from pathlib import Path

from edge_agent.outbox.cipher import KEY_BYTES
from protocol.signing import generate_signer, public_key_json


class KeyExistsError(FileExistsError):
    """There is a key already; it is never overwritten."""


def new_keys(folder: Path) -> tuple[Path, Path]:
    """Write FOLDER/signing.pem (mode 0600) and FOLDER/trusted/KEYID.pub.json; return both paths.

    Raises `KeyExistsError` when there is a signing key already.
    """
    signer = generate_signer()
    private, trusted = folder / "signing.pem", folder / "trusted"
    trusted.mkdir(parents=True, exist_ok=True)
    try:
        private.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise KeyExistsError(f"{private} exists: choose another folder, or move the old key away first") from None
    private.write_bytes(signer.private_bytes)
    public = trusted / f"{signer.public_key.keyid[:16]}.pub.json"
    public.write_text(public_key_json(signer))
    return private, public


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
