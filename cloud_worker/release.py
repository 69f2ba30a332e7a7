"""Make a release of a trained network: golden slices, deltas, manifest, signatures."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray
from securesystemslib.signer import CryptoSigner

from cloud_worker.expected_changes import ExpectedChanges, allowing
from cloud_worker.release_settings import ReleaseSettings
from protocol.chunks import Described, describe, sha256_of
from protocol.labels import LABELS
from protocol.manifest import GOLDEN_FILE, MODEL_FILE, Delta, Manifest, TrialBounds
from protocol.messages import Sha256
from protocol.signing import sign
from training.data.phantom import SITES, render_slice
from training.layout import cut_points, golden_cut_points, segments_between
from training.model.delta import make_delta
from training.model.preprocess import PREPROCESSING_VERSION, prepare
from training.model.reader import Calibration, OnnxReader

GOLDEN_SEED = 20_211
GOLDEN_Z = 0.5
DELTA_DIGITS = 16
"""Of the base's SHA-256 in a delta's name."""


class LeakedModelError(ValueError):
    """A network that was judged on patients it learnt from: what its figures say is not known."""


@dataclass(frozen=True)
class Releasable:
    """A network that passed the gate (or is the first), and what is said of it."""

    model: bytes
    architecture: str
    temperature: float
    training_data_sha256: Sha256 | None
    split_sha256: Sha256 | None
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Release:
    """A signed release, the files that it names, and the pieces of each one's index."""

    manifest: Manifest
    envelope: bytes
    files: dict[str, bytes]
    indices: dict[str, tuple[bytes, ...]]


def make_release(
    network: Releasable,
    version: int,
    settings: ReleaseSettings,
    signers: Sequence[CryptoSigner],
    now: datetime,
    bases: Sequence[bytes] = (),
    changes: ExpectedChanges | None = None,
) -> Release:
    """Sign a manifest over the network, its golden slices, and deltas against earlier networks where they save bytes.

    `changes` is what the gate saw the network answer otherwise: the bounds of its probation leave room for it.

    Raises `UnreadableNetworkError` for a broken network.
    """
    golden_slices = golden(network.model)
    described = {
        MODEL_FILE: describe(network.model, cut_points(network.model)),
        GOLDEN_FILE: describe(golden_slices, golden_cut_points(golden_slices)),
    }
    files, deltas = {MODEL_FILE: network.model, GOLDEN_FILE: golden_slices}, []
    for base in bases:
        delta = _saving_delta(base, network.model, described[MODEL_FILE])
        if delta is not None:
            name = f"delta-{sha256_of(base)[:DELTA_DIGITS]}.sld"
            files[name], described[name] = delta, describe(delta)
            deltas.append(Delta(file=name, base_sha256=sha256_of(base)))
    manifest = Manifest(
        name=settings.name,
        version=version,
        architecture=network.architecture,
        created_at=now,
        expires_at=now + timedelta(days=settings.valid_days),
        labels=LABELS,
        preprocessing_version=PREPROCESSING_VERSION,
        temperature=network.temperature,
        uncertain_below=settings.uncertain_below,
        golden_tolerance=settings.golden_tolerance,
        trial=TrialBounds(latency_ms=settings.latency_bound_ms, memory_mb=settings.memory_bound_mb),
        probation=allowing(settings.probation.bounds(), changes),
        files={name: each.file for name, each in described.items()},
        deltas=tuple(deltas),
        training_data_sha256=network.training_data_sha256,
        split_sha256=network.split_sha256,
        metrics=network.metrics,
    )
    envelope = sign(manifest.model_dump_json().encode(), signers)
    return Release(manifest, envelope, files, {name: each.pieces for name, each in described.items()})


def returning(manifest: Manifest, withdrawn: Sequence[int], settings: ReleaseSettings, now: datetime) -> Manifest:
    """Return a release's manifest as a signed rollback says it: the way back from these versions, valid from now on."""
    expires_at = max(manifest.expires_at, now + timedelta(days=settings.valid_days))
    return manifest.model_copy(update={"returns_from": tuple(sorted(withdrawn)), "expires_at": expires_at})


def golden(model: bytes) -> bytes:
    """Return the golden slices and the network's logits on them, as CBOR.

    They are phantoms: a release goes to every edge, and a patient's slice must not.
    """
    slices = _golden_slices()
    logits = OnnxReader(model, Calibration()).logits(slices)
    return cbor2.dumps({"slices": slices.tobytes(), "logits": [[float(x) for x in row] for row in logits]})


def _saving_delta(base: bytes, model: bytes, described: Described) -> bytes | None:
    """Return the delta where it is less than what an edge with the base would fetch otherwise: what differs."""
    here = describe(base, cut_points(base))
    known = {chunk.sha256 for chunk in here.chunks}
    differing = {chunk.sha256: chunk.size for chunk in described.chunks if chunk.sha256 not in known}
    pieces = sum(len(piece) for piece in set(described.pieces) - set(here.pieces))
    if base == model or not differing:
        return None
    delta = make_delta(base, model, segments_between(base, model))
    cost = len(delta) + sum(len(piece) for piece in describe(delta).pieces)
    return delta if cost < sum(differing.values()) + pieces else None


def _golden_slices() -> NDArray[np.uint8]:
    """Render one phantom of each class and site: uint8 [n, 256, 256]."""
    return np.stack(
        [
            prepare(render_slice(seed=GOLDEN_SEED, site=site, label=label, patient=patient, z=GOLDEN_Z))
            for site in SITES.values()
            for patient, label in enumerate(LABELS)
        ]
    )
