"""The trust folder: what edge and worker read from it, and what they refuse by name."""

from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from broker.trusted_keys import TrustedKeysError, load_key_set
from protocol.signing import generate_signer, public_key_json

RELEASE, SECOND, ASSIGN = generate_signer(), generate_signer(), generate_signer()


def put(folder: Path, *signers: CryptoSigner) -> Path:
    """Lay public keys into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for signer in signers:
        (folder / f"{signer.public_key.keyid[:16]}.pub.json").write_text(public_key_json(signer))
    return folder


def test_each_role_has_the_keys_of_its_folder(tmp_path: Path) -> None:
    """Release keys and the worker's keys are told apart by where they lie; the set is version 1."""
    put(tmp_path, RELEASE, SECOND)
    put(tmp_path / "assign", ASSIGN)
    keys = load_key_set(tmp_path, 2)
    assert {key.keyid for key in keys.release.keys} == {RELEASE.public_key.keyid, SECOND.public_key.keyid}
    assert [key.keyid for key in keys.assign.keys] == [ASSIGN.public_key.keyid]
    assert (keys.release.threshold, keys.assign.threshold, keys.version) == (2, 1, 1)


def test_too_few_release_keys_are_counted(tmp_path: Path) -> None:
    """A threshold that the keys cannot meet is refused before anything waits for it."""
    put(tmp_path, RELEASE)
    (tmp_path / "copy.pub.json").write_text(public_key_json(RELEASE))  # one key is not two, however often it lies there
    with pytest.raises(TrustedKeysError, match="holds 1 public keys, 2 are needed"):
        load_key_set(tmp_path, 2)


def test_a_folder_without_the_workers_key_is_refused(tmp_path: Path) -> None:
    """Without a key that assigns no release would ever be run: the message says what to copy."""
    put(tmp_path, RELEASE)
    with pytest.raises(TrustedKeysError, match=r"assign holds no public key of the worker: copy"):
        load_key_set(tmp_path, 1)


def test_a_key_in_both_roles_is_refused(tmp_path: Path) -> None:
    """The worker's key must not make releases: one key in both folders undoes that."""
    put(tmp_path, RELEASE, ASSIGN)
    put(tmp_path / "assign", ASSIGN)
    with pytest.raises(TrustedKeysError, match="must not release; remove it from one"):
        load_key_set(tmp_path, 1)


@pytest.mark.parametrize("content", [b"garbage", b"\xff\xfe", b"{}"])
def test_a_broken_key_file_is_named(tmp_path: Path, content: bytes) -> None:
    """Among many keys the one that cannot be read is named."""
    put(tmp_path, RELEASE)
    (tmp_path / "broken.pub.json").write_bytes(content)
    with pytest.raises(TrustedKeysError, match=r"broken\.pub\.json cannot be used .* copy it again, or remove it"):
        load_key_set(tmp_path, 1)
