"""A release is trusted only when it is newer, unexpired, readable here, and its files are exactly those it names."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.errors import (
    EnvelopeError,
    ExpiredManifestError,
    HashMismatchError,
    LengthMismatchError,
    OldVersionError,
    SignatureError,
    UnsupportedManifestError,
)
from protocol.labels import LABELS
from protocol.manifest import (
    GOLDEN_FILE,
    MAX_MODEL_BYTES,
    MODEL_FILE,
    Manifest,
    ManifestFile,
    check_chunk,
    check_file,
    cut,
    describe_file,
    sha256_of,
    trusted_manifest,
)
from protocol.messages import MAX_CHUNK_BYTES
from protocol.signing import MAX_ENVELOPE_BYTES, TrustedKeys, generate_signer, sign

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SIGNER, STRANGER = generate_signer(), generate_signer()
TRUSTED = TrustedKeys((SIGNER.public_key,))


def fields(**changes: Any) -> dict[str, Any]:
    """Say what a good manifest of version 7 says, with these changes; a value of None leaves the field out."""
    files = {MODEL_FILE: describe_file(b"network"), GOLDEN_FILE: describe_file(b"golden")}
    good = {
        "type": "sliceloop.manifest",
        "major": 1,
        "name": "squeezenet",
        "version": 7,
        "architecture": "squeezenet1_1",
        "created_at": NOW.isoformat(),
        "expires_at": (NOW + timedelta(days=30)).isoformat(),
        "labels": [str(label) for label in LABELS],
        "preprocessing_version": 1,
        "temperature": 1.3,
        "uncertain_below": 0.5,
        "golden_tolerance": 0.01,
        "files": {name: file.model_dump(mode="json") for name, file in files.items()},
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def released(signer: Any = SIGNER, **changes: Any) -> bytes:
    return sign(json.dumps(fields(**changes)).encode(), [signer])


def trusted(envelope: bytes, *, now: datetime = NOW, running: int = 6, preprocessing: int = 1) -> Manifest:
    return trusted_manifest(envelope, TRUSTED, now=now, running_version=running, preprocessing_version=preprocessing)


def test_a_good_release_is_trusted() -> None:
    """A newer, unexpired, signed manifest comes back with all that it says."""
    manifest = trusted(released())
    assert (manifest.version, manifest.labels, manifest.temperature) == (7, LABELS, 1.3)
    assert manifest.model_ref.sha256 == sha256_of(b"network")
    assert (manifest.model_ref.name, manifest.model_ref.version) == ("squeezenet", 7)


def test_fields_of_a_newer_release_are_kept() -> None:
    """A manifest of the same major may say more than we know."""
    manifest = trusted(released(licence="Apache-2.0"))
    assert json.loads(manifest.model_dump_json())["licence"] == "Apache-2.0"


def test_a_release_by_a_stranger_is_refused() -> None:
    """A perfect manifest by an untrusted key is refused."""
    with pytest.raises(SignatureError):
        trusted(released(STRANGER))


def test_the_signature_is_checked_before_anything_is_parsed() -> None:
    """An unsigned payload is refused for its signature, whatever nonsense it holds."""
    with pytest.raises(SignatureError):
        trusted(sign(b"\xff not a manifest", [STRANGER]))


@pytest.mark.parametrize("running", [7, 8, 2**63])
def test_a_release_that_is_not_newer_is_refused(running: int) -> None:
    """The version that runs already, and any older one, is refused: versions only grow."""
    with pytest.raises(OldVersionError, match="7 is not newer"):
        trusted(released(), running=running)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(microseconds=1), timedelta(days=4000)])
def test_an_expired_release_is_refused(late: timedelta) -> None:
    """From the moment of its expiry on, a release is refused; just before, it is trusted."""
    expires = NOW + timedelta(days=30)
    assert trusted(released(), now=expires - timedelta(microseconds=1))
    with pytest.raises(ExpiredManifestError, match="expired"):
        trusted(released(), now=expires + late)


@pytest.mark.parametrize("preprocessing", [2, 99])
def test_a_release_for_another_preprocessing_is_refused(preprocessing: int) -> None:
    """A network that was trained on other pixels is refused, and the message says what to update."""
    with pytest.raises(UnsupportedManifestError, match="preprocessing"):
        trusted(released(preprocessing_version=preprocessing))
    with pytest.raises(UnsupportedManifestError, match="preprocessing"):
        trusted(released(), preprocessing=preprocessing)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="same-fields"),
        pytest.param({"labels": None, "classes": ["Normal"]}, id="renamed-field"),
        pytest.param({"temperature": "per class"}, id="retyped-field"),
    ],
)
def test_an_unknown_major_is_refused_by_name(changes: dict[str, Any]) -> None:
    """A manifest of another major is refused as such, however much its fields have changed."""
    with pytest.raises(UnsupportedManifestError, match="major 2"):
        trusted(released(major=2, **changes))


@pytest.mark.parametrize(
    "labels",
    [
        [],
        ["Normal", "Pneumonia"],
        ["Normal", "Pneumonia", "COVID-19", "Normal"],
        ["Normal", "Normal", "Normal"],
        ["Normal", "Pneumonia", "Tuberculosis"],
        ["Normal", "Pneumonia", "COVID-19", "Tuberculosis"],
        ["normal", "pneumonia", "covid-19"],
        [0, 1, 2],
    ],
)
def test_a_release_with_other_labels_is_refused(labels: list[Any]) -> None:
    """Labels that are not exactly our three, by name, need newer software and are refused as unsupported."""
    with pytest.raises(UnsupportedManifestError):
        trusted(released(labels=labels))


def test_a_release_may_order_the_labels_as_its_network_does() -> None:
    """The manifest's order of labels binds, so another order than ours is kept as it is."""
    assert trusted(released(labels=["COVID-19", "Normal", "Pneumonia"])).labels == (LABELS[2], LABELS[0], LABELS[1])


@pytest.mark.parametrize("missing", [MODEL_FILE, GOLDEN_FILE])
def test_a_release_without_its_files_is_refused(missing: str) -> None:
    """A release must bring the network and the golden slices to test it with."""
    files = {name: file for name, file in fields()["files"].items() if name != missing}
    with pytest.raises(EnvelopeError, match="lists"):
        trusted(released(files=files))


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", ".hidden", "", "MODEL.ONNX", "a" * 65, "a\n"])
def test_a_file_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    """File names are plain names: no path, no dot file, nothing that a file system could take otherwise."""
    files = fields()["files"]
    with pytest.raises(EnvelopeError):
        trusted(released(files={**files, name: files[MODEL_FILE]}))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "other.manifest"},
        {"version": 0},
        {"version": None},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"golden_tolerance": float("inf")},
        {"uncertain_below": 1.5},
        {"expires_at": "2026-03-01T00:00:00"},
        {"expires_at": None},
        {"files": []},
        {"metrics": {"accuracy": float("nan")}},
        {"version": 2**63},
    ],
)
def test_a_manifest_with_a_senseless_value_is_refused(changes: dict[str, Any]) -> None:
    """A temperature of zero, a naive expiry, NaN: what no release can mean is no manifest."""
    with pytest.raises(EnvelopeError):
        trusted(released(**changes))


def test_a_file_whose_chunks_do_not_cover_it_is_refused() -> None:
    """Too few or too many chunks for the stated size are refused before any is fetched."""
    files = fields()["files"]
    for chunks in ([], files[MODEL_FILE]["chunks"] * 2):
        with pytest.raises(EnvelopeError):
            trusted(released(files={**files, MODEL_FILE: {**files[MODEL_FILE], "chunks": chunks}}))


@pytest.mark.parametrize(
    "changes", [{"size": 0}, {"size": 2**40}, {"chunk_bytes": 0}, {"chunk_bytes": MAX_CHUNK_BYTES + 1}]
)
def test_a_file_of_a_senseless_size_is_refused(changes: dict[str, int]) -> None:
    """Empty and endless files and chunks are refused."""
    with pytest.raises(ValidationError):
        ManifestFile.model_validate({**describe_file(b"network").model_dump(), **changes})


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 700))
def test_a_file_recombines_from_its_chunks(data: bytes, chunk_bytes: int) -> None:
    """For any file and chunk size, the chunks pass one by one and together make the file that was described."""
    described = describe_file(data, chunk_bytes)
    chunks = list(cut(data, chunk_bytes))
    assert len(chunks) == len(described.chunks)
    for sha256, chunk in zip(described.chunks, chunks, strict=True):
        check_chunk(sha256, chunk, chunk_bytes)
    check_file(MODEL_FILE, described, b"".join(chunks))


@given(st.integers(-2, 2), st.integers(1, 4))
def test_a_file_recombines_at_the_border_of_a_chunk(off: int, count: int) -> None:
    """Sizes just below, at and just above whole 64 KiB chunks are cut and recombined without loss."""
    data = bytes(count * MAX_CHUNK_BYTES + off)
    described = describe_file(data)
    assert b"".join(cut(data, described.chunk_bytes)) == data
    assert len(described.chunks) == -(-len(data) // MAX_CHUNK_BYTES)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_changed_chunk_or_file_is_refused(data: bytes, draws: st.DataObject) -> None:
    """A flipped bit is a wrong hash, a missing or extra byte of a file is a wrong length."""
    place, bit = draws.draw(st.integers(0, len(data) - 1)), draws.draw(st.integers(0, 7))
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    described = describe_file(data)
    with pytest.raises(HashMismatchError):
        check_chunk(described.chunks[0], bytes(changed))
    with pytest.raises(HashMismatchError, match=MODEL_FILE):
        check_file(MODEL_FILE, described, bytes(changed))
    for other in (data[:-1], data + b"x"):
        with pytest.raises(LengthMismatchError, match=MODEL_FILE):
            check_file(MODEL_FILE, described, other)


def test_an_empty_or_oversized_chunk_is_refused_by_its_length() -> None:
    """A chunk of no byte or of more than 64 KiB is refused, even with the right hash."""
    for data in (b"", bytes(MAX_CHUNK_BYTES + 1)):
        with pytest.raises(LengthMismatchError):
            check_chunk(sha256_of(data), data)
    check_chunk(sha256_of(bytes(MAX_CHUNK_BYTES)), bytes(MAX_CHUNK_BYTES))


@pytest.mark.parametrize("size", [44_800_000, MAX_MODEL_BYTES], ids=["resnet-18", "largest"])
def test_the_envelope_of_the_largest_network_fits_one_message(size: int) -> None:
    """The manifest of a ResNet-18, and of the largest allowed, signed by three keys, fits AWS IoT Core's 128 KiB."""
    chunks = ["f" * 64] * -(-size // MAX_CHUNK_BYTES)
    file = {"sha256": "f" * 64, "size": size, "chunk_bytes": MAX_CHUNK_BYTES, "chunks": chunks}
    payload = json.dumps(fields(files={**fields()["files"], MODEL_FILE: file})).encode()
    envelope = sign(payload, [SIGNER, STRANGER, generate_signer()])
    assert len(envelope) <= MAX_ENVELOPE_BYTES
    assert trusted(envelope).files[MODEL_FILE].size == size
