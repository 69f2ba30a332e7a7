"""Seal what lies in the outbox, so that a stolen box or disk tells nothing without the key file."""

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge_agent.outbox.errors import OutboxKeyError

KEY_BYTES = 32
NONCE_BYTES = 12
DIGEST_BYTES = 16
"""Of a frame's key; two of a million frames share one with a probability of 10**-27."""
CHECKED = b"sliceloop outbox"
"""Sealed into the database, it tells the right key from a wrong one."""


class Cipher(Protocol):
    """Turns bytes into what is written, and back."""

    def seal(self, plain: bytes, name: str) -> bytes:
        """Return what is written; it can be opened under the same name alone."""

    def open(self, sealed: bytes, name: str) -> bytes:
        """Return what was sealed; raises `TamperedError` when it is not what was written under this name."""

    def digest(self, digest: bytes) -> bytes:
        """Return under what a frame is remembered: what `frame_digest` gave may be found by trying names."""


class TamperedError(ValueError):
    """What lies in the outbox is not what was sealed under this name, or not with this key."""


class Plain:
    """No encryption."""

    def seal(self, plain: bytes, name: str) -> bytes:  # noqa: ARG002
        """Return the bytes."""
        return plain

    def open(self, sealed: bytes, name: str) -> bytes:  # noqa: ARG002
        """Return the bytes."""
        return sealed

    def digest(self, digest: bytes) -> bytes:
        """Return the digest."""
        return digest


class Sealed:
    """ChaCha20-Poly1305 with a random nonce, the name as associated data; frames are remembered by HMAC-SHA-256.

    ChaCha20 and not AES: boxes without AES instructions exist. One key may seal 2**32 messages.
    """

    def __init__(self, key: bytes) -> None:
        """Derive the two keys from the one of the file."""
        self._aead = ChaCha20Poly1305(_derived(key, b"messages"))
        self._digest_key = _derived(key, b"frames")

    def seal(self, plain: bytes, name: str) -> bytes:
        """Return nonce and ciphertext with its tag."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Decrypt and authenticate; raises `TamperedError`."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise TamperedError(name) from None

    def digest(self, digest: bytes) -> bytes:
        """Return the HMAC of the digest."""
        return hmac.digest(self._digest_key, digest, "sha256")[:DIGEST_BYTES]


def cipher_of(key_file: Path | None) -> Cipher:
    """Return what seals with the key of a file, or nothing without one; raises `OutboxKeyError`."""
    return Sealed(read_key(key_file)) if key_file else Plain()


def frame_digest(key: str) -> bytes:
    """Return a frame's key as a digest of fixed size."""
    return hashlib.sha256(key.encode()).digest()[:DIGEST_BYTES]


def read_key(path: Path) -> bytes:
    """Read 32 bytes in hexadecimal from a file of mode 0600; raises `OutboxKeyError`."""
    try:
        text, mode = path.read_text("ascii").strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise OutboxKeyError(
            f"outbox key {path} cannot be read ({error}); make one by `sliceloop keys outbox FILE`"
        ) from error
    if mode & 0o077:
        raise OutboxKeyError(f"outbox key {path} may be read by others (mode {mode & 0o777:04o}); chmod 600 {path}")
    if not re.fullmatch(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}", text):
        raise OutboxKeyError(f"outbox key {path} is not {2 * KEY_BYTES} hexadecimal digits; restore it from its copy")
    return bytes.fromhex(text)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"sliceloop outbox " + purpose).derive(key)
