"""Make a release of a trained network: golden slices, manifest, signature."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from numpy.typing import NDArray
from securesystemslib.signer import CryptoSigner

from cloud_worker.settings import ReleaseSettings
from protocol.labels import LABELS
from protocol.manifest import GOLDEN_FILE, MODEL_FILE, Manifest, describe_file
from protocol.messages import Sha256
from protocol.signing import sign
from training.data.phantom import SITES, render_slice
from training.model.preprocess import PREPROCESSING_VERSION, prepare
from training.model.reader import Calibration, OnnxReader

GOLDEN_SEED = 20_211
GOLDEN_Z = 0.5


class SigningKeyError(RuntimeError):
    """The signing key cannot be used; the message says what to do."""


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
    """A signed release and the files that it names."""

    manifest: Manifest
    envelope: bytes
    files: dict[str, bytes]


def make_release(
    network: Releasable, version: int, settings: ReleaseSettings, signer: CryptoSigner, now: datetime
) -> Release:
    """Sign a manifest over the network and its golden slices; raises `UnreadableNetworkError` for a broken network."""
    files = {MODEL_FILE: network.model, GOLDEN_FILE: golden(network.model)}
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
        files={name: describe_file(data) for name, data in files.items()},
        training_data_sha256=network.training_data_sha256,
        split_sha256=network.split_sha256,
        metrics=network.metrics,
    )
    return Release(manifest, sign(manifest.model_dump_json().encode(), [signer]), files)


def golden(model: bytes) -> bytes:
    """Return the golden slices and the network's logits on them, as CBOR.

    They are phantoms: a release goes to every edge, and a patient's slice must not.
    """
    slices = _golden_slices()
    logits = OnnxReader(model, Calibration()).logits(slices)
    return cbor2.dumps({"slices": slices.tobytes(), "logits": [[float(x) for x in row] for row in logits]})


def load_signer(path: Path | None) -> CryptoSigner:
    """Read the private key; raises `SigningKeyError`."""
    if path is None:
        raise SigningKeyError("worker.release.signing_key_file is not set; make a key with `sliceloop keys new FOLDER`")
    try:
        return signer_from_pem(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # a key with a password: TypeError
        raise SigningKeyError(
            f"{path} is no usable signing key ({error}); make one with `sliceloop keys new`"
        ) from error


def signer_from_pem(pem: bytes) -> CryptoSigner:
    """Return the signer of an Ed25519 private key in PKCS8 PEM; raises `ValueError`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return CryptoSigner(key)


def _golden_slices() -> NDArray[np.uint8]:
    """Render one phantom of each class and site: uint8 [n, 256, 256]."""
    return np.stack(
        [
            prepare(render_slice(seed=GOLDEN_SEED, site=site, label=label, patient=patient, z=GOLDEN_Z))
            for site in SITES.values()
            for patient, label in enumerate(LABELS)
        ]
    )
