"""Make the key pair that signs releases."""

from pathlib import Path

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
