"""The private keys that sign: those of releases, kept by a person, and the worker's that assigns."""

from collections.abc import Sequence
from pathlib import Path

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

log = structlog.get_logger()

OTHERS = 0o077
"""Rights of a file that are not its owner's."""


class SigningKeyError(RuntimeError):
    """The signing key cannot be used; the message says what to do."""


def load_signers(paths: Sequence[Path]) -> tuple[CryptoSigner, ...]:
    """Read the private keys that sign releases; raises `SigningKeyError`, also when there is none."""
    if not paths:
        raise SigningKeyError("release.signing_key_files is not set; make a key with `sliceloop keys new FOLDER`")
    return tuple(load_signer(path) for path in paths)


def load_signer(path: Path) -> CryptoSigner:
    """Read a private key, and warn of one that others can read; raises `SigningKeyError`."""
    try:
        if path.stat().st_mode & OTHERS:
            log.warning("signing key readable by others", path=str(path), next=f"chmod 600 {path}")
        return signer_from_pem(path.read_bytes())
    except OSError as error:
        raise SigningKeyError(
            f"{path} cannot be read ({error.strerror}): correct the path or its rights, or make a key with "
            "`sliceloop keys new`"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # a key with a password: TypeError
        raise SigningKeyError(
            f"{path} is no usable signing key ({error}); make one with `sliceloop keys new`"
        ) from error


def signer_from_pem(pem: bytes) -> CryptoSigner:
    """Return the signer of an Ed25519 private key in PKCS8 PEM; raises `ValueError`."""
    key = load_pem_private_key(pem, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return CryptoSigner(key)
