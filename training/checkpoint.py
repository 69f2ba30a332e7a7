"""Resumable weights as safetensors with their story as JSON in the header; nothing is ever unpickled."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as format_tensors
from torch import Tensor

from protocol.labels import LABELS, Label
from training.durable import write_atomically
from training.networks import Network, UnknownArchitectureError, build

FORMAT = 1
"""Grows when an older reader would misread the file."""
_HEADER_KEY = "sliceloop"
_LENGTH_BYTES = 8
"""A safetensors file begins with its header's length as a little-endian 64-bit integer."""


class CheckpointError(ValueError):
    """Bytes that are no usable checkpoint of ours; the message says why and what to do."""


class Provenance(BaseModel):
    """Where weights come from; unknown is None, further fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")
    seed: int | None = None
    data_sha256: str | None = None
    split_sha256: str | None = None
    commit: str | None = None
    """Of our code; None outside its repository."""
    hardware: dict[str, JsonValue] = {}
    settings: dict[str, JsonValue] = {}
    n_train_slices: int | None = None
    n_train_patients: int | None = None
    train_sources: tuple[str, ...] = ()
    train_patient_keys: tuple[str, ...] = ()
    """See `training.bundle.Report`, as the next three: what these weights hand on to those that start from them."""
    leaked_patients: int = 0
    start_weights: str = ""
    start_patients_known: bool = True


class Metadata(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(frozen=True)
    format: int
    architecture: str
    input_px: int
    labels: tuple[Label, ...]
    versions: dict[str, str]
    provenance: Provenance


def save_checkpoint(path: Path, network: Network, provenance: Provenance | None = None) -> None:
    """Write the network's weights durably, and their story as JSON beside them; readers see whole files only."""
    data = dumps(network, provenance)
    write_atomically(path, data)
    write_atomically(path.with_suffix(".json"), story(data))


def story(data: bytes) -> bytes:
    """Return what a checkpoint says of itself, and its hash, as JSON for people; raises `CheckpointError`."""
    told = metadata_of(data).model_dump(mode="json") | {"sha256": hashlib.sha256(data).hexdigest()}
    return json.dumps(told, indent=2).encode()


def metadata_of(data: bytes) -> Metadata:
    """Return what a checkpoint says of itself; raises `CheckpointError`."""
    return _parse_metadata(unpack(data)[1])


def load_checkpoint(path: Path, *, architecture: str | None = None) -> tuple[Network, Metadata]:
    """Read a network; see `loads`."""
    return loads(read_bytes(path), architecture=architecture)


def dumps(network: Network, provenance: Provenance | None = None) -> bytes:
    """Return the checkpoint's bytes; the same network and provenance give the same bytes."""
    metadata = Metadata(
        format=FORMAT,
        architecture=network.architecture,
        input_px=network.input_px,
        labels=LABELS,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
        },
        provenance=provenance or Provenance(),
    )
    return pack(network.state_dict(), metadata.model_dump(mode="json"))


def loads(data: bytes, *, architecture: str | None = None) -> tuple[Network, Metadata]:
    """Return the network, in evaluation mode, and what its checkpoint says; with `architecture`, refuse any other one.

    Raises `CheckpointError`, and nothing else, for bytes that are no usable checkpoint.
    """
    tensors, header = unpack(data)
    metadata = _parse_metadata(header)
    if architecture not in (None, metadata.architecture):
        raise CheckpointError(
            f"the checkpoint is a {metadata.architecture}, not a {architecture}: ask for its own, or train a new one"
        )
    try:
        network = build(metadata.architecture, metadata.input_px)
        network.load_state_dict(tensors)
    except UnknownArchitectureError as error:
        raise CheckpointError(f"{error}: read it with the version that wrote it") from error
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the weights do not fit a {metadata.architecture} ({str(error)[:200]}): fetch the checkpoint again"
        ) from error
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(f"the weights hold NaN or infinity (first in {broken[0]}): use an earlier checkpoint")
    return network.eval(), metadata


def pack(tensors: dict[str, Tensor], header: dict[str, JsonValue]) -> bytes:
    """Return tensors and a JSON header as one safetensors file."""
    story = json.dumps(header, sort_keys=True)
    return format_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, {_HEADER_KEY: story})


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, JsonValue]]:
    """Return what `pack` was given; raises `CheckpointError`."""
    try:
        tensors = parse_tensors(data)
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
        story = json.loads(data[_LENGTH_BYTES:end])["__metadata__"][_HEADER_KEY]
        header = json.loads(story)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{len(data)} bytes are no checkpoint of ours ({error}): cut off or another format; fetch or train it again"
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError("the checkpoint's header is not a JSON object: fetch or train it again")
    return tensors, header


def read_bytes(path: Path) -> bytes:
    """Read a checkpoint file; raises `CheckpointError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"the checkpoint cannot be read ({error}): check the path") from error


def _parse_metadata(header: dict[str, JsonValue]) -> Metadata:
    try:
        metadata = Metadata.model_validate(header)
    except ValidationError as error:
        raise CheckpointError(
            f"the checkpoint's header is not ours ({error.error_count()} faults): train it again"
        ) from error
    if metadata.format > FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {metadata.format}, this version reads up to {FORMAT}: update first"
        )
    if metadata.labels != LABELS:
        raise CheckpointError(
            f"the checkpoint answers {metadata.labels}, not {LABELS}: its logits would be misread; train it again"
        )
    return metadata
