"""A release is trusted only when it is newer, unexpired, readable here, made for this edge, and can be fetched."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signed_documents import (
    ASSIGNER,
    NOW,
    RELEASE_KEYS,
    RELEASER,
    STRANGER,
    assigned,
    file_fields,
    manifest_fields,
    released,
    rotated,
    trust,
)

from protocol.chunks import MAX_MODEL_BYTES, sha256_of
from protocol.errors import (
    EnvelopeError,
    ExpiredManifestError,
    OldVersionError,
    OtherArchitectureError,
    OtherPreprocessingError,
    OversizeError,
    TamperedError,
    TooFewSignaturesError,
    TrustError,
    UnsafeNameError,
    UnsupportedManifestError,
    VersionTakenTwiceError,
    WrongKeyError,
)
from protocol.labels import LABELS
from protocol.manifest import (
    GOLDEN_FILE,
    MAX_DELTAS,
    MODEL_FILE,
    EdgeFacts,
    Manifest,
    manifest_digest,
    shown_manifest,
    stored_manifest,
    trusted_manifest,
)
from protocol.messages import MAX_CHUNK_BYTES, MAX_CHUNKS, ModelRef
from protocol.signing import MAX_ENVELOPE_BYTES, TrustedKeys, countersign, generate_signer, sign

DELTA = "delta-0123456789abcdef.sld"
FILES = manifest_fields()["files"]
OTHER_NAMES = [
    "../model.onnx",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".hidden",
    "",
    "MODEL.ONNX",
    "a" * 65,
    "a\n",
    "a\0",
    "model.onnx ",
    "-rf",
    "c:model",
    "m\u043edel.onnx",
    "%2e%2e",
]


def runs(version: int, data: bytes = b"other network", name: str = "squeezenet") -> ModelRef:
    return ModelRef(name=name, version=version, sha256=sha256_of(data))


def an_edge(version: int = 6, **facts: Any) -> EdgeFacts:
    """Describe an edge that runs this version and has seen none newer."""
    return EdgeFacts(**{"preprocessing_version": 1, "running": runs(version), **facts})


def trusted(
    envelope: bytes, facts: EdgeFacts | None = None, *, keys: TrustedKeys = RELEASE_KEYS, now: datetime = NOW
) -> Manifest:
    return trusted_manifest(envelope, keys, facts or an_edge(), now=now)


def refused(error: type[TrustError], envelope: bytes, *args: Any, **more: Any) -> TrustError:
    """Demand this very error, and no subclass, so that what is reported names the fault."""
    with pytest.raises(error) as caught:
        trusted(envelope, *args, **more)
    assert caught.type is error
    return caught.value


def test_a_good_release_is_trusted() -> None:
    """A newer, unexpired, signed manifest comes back with all that it says."""
    manifest = trusted(released())
    assert (manifest.version, manifest.labels, manifest.temperature) == (7, LABELS, 1.3)
    assert manifest.model_ref == ModelRef(name="squeezenet", version=7, sha256=sha256_of(b"network"))
    assert manifest.fetched == (MODEL_FILE, GOLDEN_FILE)


def test_the_first_release_of_an_edge_is_trusted() -> None:
    """An edge that runs nothing takes any version."""
    assert trusted(released(version=1), EdgeFacts(preprocessing_version=1)).version == 1


def test_fields_of_a_newer_release_are_kept() -> None:
    """A manifest of the same major may say more than we know."""
    manifest = trusted(released(licence="Apache-2.0"))
    assert json.loads(manifest.model_dump_json())["licence"] == "Apache-2.0"


# Who signs.


def test_a_release_by_a_stranger_is_refused() -> None:
    """A perfect manifest by an untrusted key is refused, and so is one that nobody signed."""
    refused(WrongKeyError, released(STRANGER))
    refused(WrongKeyError, sign(json.dumps(manifest_fields()).encode(), []))


def test_the_key_that_assigns_cannot_release() -> None:
    """The worker's key makes no release, whatever it signs as one."""
    refused(WrongKeyError, released(ASSIGNER))


def test_another_document_of_a_trusted_key_is_no_release() -> None:
    """An assignment or a key rotation is not taken for a manifest, not even when a release key has signed it."""
    refused(EnvelopeError, assigned(RELEASER))
    refused(EnvelopeError, rotated(2, [RELEASER], [RELEASER]))


def test_the_signature_is_checked_before_anything_is_parsed() -> None:
    """An unsigned payload is refused for its signature, whatever nonsense it holds."""
    refused(WrongKeyError, sign(b"\xff not a manifest", [STRANGER]))


def test_a_release_that_was_tampered_with_is_refused() -> None:
    """A threshold that was lowered, or a hash exchanged, under a trusted key's signature is refused."""
    envelope = json.loads(released())
    for changes in ({"uncertain_below": 0.0}, {"version": 8}, {"files": {**FILES, MODEL_FILE: file_fields(b"mine")}}):
        forged = json.loads(sign(json.dumps(manifest_fields(**changes)).encode(), []))["payload"]
        refused(TamperedError, json.dumps({**envelope, "payload": forged}).encode())


def test_too_few_signatures_are_refused_and_gathered_ones_counted() -> None:
    """With a threshold of 2 a release waits for its second signature, which may be added later."""
    keys = trust(RELEASER, STRANGER, threshold=2)
    envelope = released()
    refused(TooFewSignaturesError, envelope, keys=keys)
    refused(TooFewSignaturesError, countersign(envelope, [RELEASER]), keys=keys)
    assert trusted(countersign(envelope, [STRANGER]), keys=keys).version == 7


# Never backwards.


@pytest.mark.parametrize("facts", [an_edge(8), an_edge(6, highest_version=8), an_edge(8, highest_version=2)])
def test_an_older_release_is_refused(facts: EdgeFacts) -> None:
    """A version below the one that runs, or below any that was seen, is refused: versions only grow."""
    assert refused(OldVersionError, released(), facts).version == 7


@given(st.integers(1, 2**62), st.integers(0, 2**62), st.integers(1, 2**62))
def test_versions_only_grow(running: int, seen: int, offered: int) -> None:
    """Whatever was seen, no lower version is taken without a signed rollback, but the one that runs stays welcome."""
    facts = an_edge(running, highest_version=seen, running=runs(running, b"network"))
    if offered < max(running, seen) and offered != running:
        refused(OldVersionError, released(version=offered), facts)
    else:
        assert trusted(released(version=offered), facts).version == offered


def test_the_release_that_runs_is_trusted_after_a_return() -> None:
    """An edge that went back is told again and again to run what it runs; that is no step backwards."""
    assert trusted(released(), an_edge(running=runs(7, b"network"), highest_version=9)).version == 7


def test_a_version_that_runs_with_another_network_is_refused() -> None:
    """One version, two networks: refused, whether the other network has other bytes or another name."""
    for other in (runs(7), runs(7, b"network", "resnet18")):
        refused(VersionTakenTwiceError, released(), an_edge(running=other))


def test_a_signed_rollback_goes_back() -> None:
    """A lower version that names the newest one seen is taken by an edge that has seen no newer."""
    back = released(returns_from=[8, 9])
    for facts in (an_edge(8), an_edge(9), an_edge(8, highest_version=9), an_edge(6, highest_version=9)):
        assert trusted(back, facts).returns_from == (8, 9)


@pytest.mark.parametrize("newest", [8, 10, 11])
def test_a_signed_rollback_goes_back_from_nowhere_else(newest: int) -> None:
    """Replayed to an edge that has gone on since, or has never been there, a signed rollback is an old version."""
    refused(OldVersionError, released(returns_from=[9]), an_edge(newest))
    refused(OldVersionError, released(returns_from=[9]), an_edge(6, highest_version=newest))


def test_a_signed_rollback_goes_back_from_what_runs() -> None:
    """A later version that failed here does not keep an edge on a withdrawn one; nor does it lead away from another."""
    assert trusted(released(returns_from=[9]), an_edge(9, highest_version=10)).returns_from == (9,)
    refused(OldVersionError, released(returns_from=[10]), an_edge(9, highest_version=10))


def test_a_rollback_that_was_not_signed_is_refused() -> None:
    """Nobody adds versions to return from without the release's keys."""
    envelope = json.loads(released())
    forged = json.loads(sign(json.dumps(manifest_fields(returns_from=[9])).encode(), []))["payload"]
    refused(TamperedError, json.dumps({**envelope, "payload": forged}).encode(), an_edge(9))


@pytest.mark.parametrize("versions", [[7], [6], [9, 7], [0], [-9], [8.5], ["nine"], list(range(8, 109)), 8])
def test_a_release_returns_from_later_versions_alone(versions: Any) -> None:
    """A release that would ban itself, or what came before it, is no release."""
    refused(EnvelopeError, released(returns_from=versions))


# Not expired.


@pytest.mark.parametrize("late", [timedelta(0), timedelta(microseconds=1), timedelta(days=4000)])
def test_an_expired_release_is_refused(late: timedelta) -> None:
    """From the moment of its expiry on, a release is refused; just before, it is trusted."""
    expires = NOW + timedelta(days=30)
    assert trusted(released(), now=expires - timedelta(microseconds=1))
    assert refused(ExpiredManifestError, released(), now=expires + late).version == 7


def test_an_old_release_is_named_old_even_when_it_expired() -> None:
    """Rollback is looked for before expiry, as TUF does: a clock that is wrong hides no attack."""
    refused(OldVersionError, released(), an_edge(9), now=NOW + timedelta(days=4000))


# For this edge.


@pytest.mark.parametrize("preprocessing", [2, 99])
def test_a_release_for_another_preprocessing_is_refused(preprocessing: int) -> None:
    """A network that was trained on other pixels is refused, and the message says what to update."""
    for said, here in ((preprocessing, 1), (1, preprocessing)):
        error = refused(
            OtherPreprocessingError, released(preprocessing_version=said), an_edge(preprocessing_version=here)
        )
        assert "update" in str(error)
        assert error.version == 7
        with pytest.raises(OtherPreprocessingError):
            stored_manifest(released(preprocessing_version=said), RELEASE_KEYS, here)


def test_a_release_of_another_architecture_is_refused() -> None:
    """An edge that is fit for some architectures takes no other; one that names none takes any."""
    facts = an_edge(architectures=frozenset({"resnet18", "squeezenet1_1"}))
    assert trusted(released(), facts)
    assert refused(OtherArchitectureError, released(architecture="vit_h_14"), facts).version == 7
    assert trusted(released(architecture="vit_h_14"))


@pytest.mark.parametrize("major", [0, 3, -1, 10**12, 2.5, "two", "2", None, True, [], {}, [2]])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="same-fields"),
        pytest.param({"labels": None, "classes": ["Normal"]}, id="renamed-field"),
        pytest.param({"temperature": "per class", "files": ["model.onnx"]}, id="retyped-field"),
    ],
)
def test_an_unknown_major_is_refused_by_name(major: Any, changes: dict[str, Any]) -> None:
    """A manifest of another major is refused as such, however much its fields have changed, and whatever it is."""
    payload = json.dumps({**manifest_fields(**changes), "major": major}).encode()
    error = refused(UnsupportedManifestError, sign(payload, [RELEASER]))
    assert "update" in str(error)


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
    refused(UnsupportedManifestError, released(labels=labels))


def test_a_release_may_order_the_labels_as_its_network_does() -> None:
    """The manifest's order of labels binds, so another order than ours is kept as it is."""
    assert trusted(released(labels=["COVID-19", "Normal", "Pneumonia"])).labels == (LABELS[2], LABELS[0], LABELS[1])


# What it is made of.


@pytest.mark.parametrize("missing", [MODEL_FILE, GOLDEN_FILE])
def test_a_release_without_its_files_is_refused(missing: str) -> None:
    """A release must bring the network and the golden slices to test it with."""
    error = refused(EnvelopeError, released(files={name: file for name, file in FILES.items() if name != missing}))
    assert "lists" in str(error)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_file_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    """File names are plain names: no path, no dot file, nothing that a file system could take otherwise."""
    refused(UnsafeNameError, released(files={**FILES, name: FILES[MODEL_FILE]}))
    refused(UnsafeNameError, released(files={name: FILES[MODEL_FILE]}))
    with pytest.raises(UnsafeNameError):
        stored_manifest(released(files={**FILES, name: FILES[MODEL_FILE]}), RELEASE_KEYS, 1)


@pytest.mark.parametrize("name", [*OTHER_NAMES, MODEL_FILE, GOLDEN_FILE, "elsewhere.sld"])
def test_a_delta_is_one_of_the_further_files(name: str) -> None:
    """A delta in a file that the release does not list, or in one that it needs itself, is refused."""
    files = {**FILES, DELTA: file_fields(b"delta")}
    base = "b" * 64
    assert trusted(released(files=files, deltas=[{"file": DELTA, "base_sha256": base}])).deltas[0].base_sha256 == base
    refused(EnvelopeError, released(files=files, deltas=[{"file": name, "base_sha256": base}]))


@pytest.mark.parametrize("size", [MAX_MODEL_BYTES + 1, 2**40, 2**62, 1e12])
def test_a_file_that_claims_too_much_is_refused(size: float) -> None:
    """A size that no edge takes is refused by name before anything is fetched, on whatever file it stands."""
    for name in (MODEL_FILE, GOLDEN_FILE, DELTA):
        refused(OversizeError, released(files={**FILES, name: file_fields(b"network", size=size)}))


def test_a_release_larger_than_this_edge_takes_is_refused() -> None:
    """All files of a release together must fit in what the edge's settings allow, to the byte."""
    size = len(b"network") + len(b"golden")
    assert trusted(released(), an_edge(max_bytes=size))
    assert refused(OversizeError, released(), an_edge(max_bytes=size - 1)).version == 7


@pytest.mark.parametrize("changes", [{"index": []}, {"chunk_count": 300}, {"size": 1}, {"size": 0}, {"size": "much"}])
def test_a_file_whose_chunks_cannot_make_it_is_refused(changes: dict[str, Any]) -> None:
    """Too few or too many chunks or pieces for the stated size are refused before any is fetched."""
    file = file_fields(bytes(3 * MAX_CHUNK_BYTES), **changes)
    refused(EnvelopeError, released(files={**FILES, MODEL_FILE: file}))


def test_more_files_or_deltas_than_a_release_has_are_refused() -> None:
    """A release has its two files and four deltas at most."""
    names = [f"delta-{number}.sld" for number in range(MAX_DELTAS + 1)]
    deltas = [{"file": name, "base_sha256": "b" * 64} for name in names]
    files = {**FILES, **dict.fromkeys(names, file_fields(b"delta"))}
    refused(EnvelopeError, released(files=files))
    del files[names[-1]]
    assert len(trusted(released(files=files, deltas=deltas[:-1])).deltas) == MAX_DELTAS
    refused(EnvelopeError, released(files=files, deltas=[*deltas[:-1], deltas[0]]))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "other.manifest"},
        {"version": 0},
        {"version": None},
        {"version": 7.5},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"golden_tolerance": float("inf")},
        {"uncertain_below": 1.5},
        {"expires_at": "2026-03-01T00:00:00"},
        {"expires_at": None},
        {"files": []},
        {"files": {MODEL_FILE: [], GOLDEN_FILE: "x"}},
        {"metrics": {"accuracy": float("nan")}},
        {"version": 2**63},
        {"trial": {"latency_ms": 0}},
        {"trial": {"memory_mb": -1}},
        {"probation": {"max_disagreement": 1.5}},
        {"probation": {"max_contradiction": -0.1}},
        {"probation": {"alpha": 0}},
        {"probation": {"max_latency_ratio": 1}},
    ],
)
def test_a_manifest_with_a_senseless_value_is_refused(changes: dict[str, Any]) -> None:
    """A temperature of zero, a naive expiry, NaN: what no release can mean is no manifest."""
    refused(EnvelopeError, released(**changes))


# What is here already.


def test_a_release_from_before_contradictions_had_a_bound_means_one_by_both() -> None:
    """What was signed as allowed then stays allowed."""
    signed = stored_manifest(released(probation={"max_disagreement": 0.4}), RELEASE_KEYS, 1).probation
    assert signed.max_contradiction == 0.4


def test_a_release_that_is_here_goes_on_whatever_its_age() -> None:
    """A stored release is read with its signature and its fit alone: no clock, no version, no size."""
    envelope = released(version=1, expires_at="2020-01-01T00:00:00Z")
    assert stored_manifest(envelope, RELEASE_KEYS, 1).version == 1


@pytest.mark.parametrize(
    ("error", "make"),
    [
        (WrongKeyError, lambda: released(STRANGER)),
        (EnvelopeError, lambda: b"\0" * 512),
        (EnvelopeError, lambda: released()[:-40]),
        (UnsupportedManifestError, lambda: released(major=3)),
    ],
)
def test_a_stored_release_that_was_exchanged_is_refused(error: type[TrustError], make: Callable[[], bytes]) -> None:
    """What lies on the disk is trusted by its signature too: somebody may have put it there, or torn it."""
    with pytest.raises(error):
        stored_manifest(make(), RELEASE_KEYS, 1)


MAJOR_1_FILES = {
    name: {"sha256": sha256_of(data), "size": len(data), "chunk_bytes": MAX_CHUNK_BYTES, "chunks": [sha256_of(data)]}
    for name, data in ((MODEL_FILE, b"network"), (GOLDEN_FILE, b"golden"))
}


@pytest.mark.parametrize("major", [1, 2])
def test_a_release_without_indices_runs_on_and_is_not_fetched(major: int) -> None:
    """A release of major 1 goes on where it runs; elsewhere it is refused, since nothing says where its chunks are."""
    envelope = released(major=major, files=MAJOR_1_FILES)
    assert stored_manifest(envelope, RELEASE_KEYS, 1).version == 7
    assert trusted(envelope, an_edge(running=runs(7, b"network"))).version == 7
    refused(UnsupportedManifestError, envelope)


def test_what_is_shown_is_what_is_signed_and_no_more_is_said_of_it() -> None:
    """A manifest can be looked at without trust, and named by a hash that further signatures do not change."""
    envelope = released(STRANGER)
    assert shown_manifest(envelope).version == 7
    assert manifest_digest(countersign(envelope, [RELEASER])) == manifest_digest(envelope)
    assert manifest_digest(released(temperature=1.4)) != manifest_digest(envelope)


def test_the_envelope_of_the_largest_release_fits_one_message() -> None:
    """Six files of as many chunks as there may be, signed by three keys, fit in AWS IoT Core's 128 KiB."""
    listed = {"chunk_count": MAX_CHUNKS, "index": ["f" * 64] * 145, "size": MAX_MODEL_BYTES, "sha256": "f" * 64}
    names = [f"delta-{number:016x}.sld" for number in range(MAX_DELTAS)]
    files = dict.fromkeys([MODEL_FILE, GOLDEN_FILE, *names], listed)
    payload = json.dumps(
        manifest_fields(files=files, deltas=[{"file": name, "base_sha256": "b" * 64} for name in names])
    )
    envelope = sign(payload.encode(), [RELEASER, STRANGER, generate_signer()])
    assert len(envelope) <= MAX_ENVELOPE_BYTES
    assert trusted(envelope).files[MODEL_FILE].size == MAX_MODEL_BYTES
