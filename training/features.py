"""Features of a frozen network, computed once and mapped from a file: what a head learns from in seconds."""

import hashlib
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.checkpoint import pack
from training.data.slices import Pixels
from training.durable import write_atomically
from training.memory import keep_freed_memory
from training.networks import Network
from training.train import TrainingStoppedError

Features = NDArray[np.float32]
"""float32 [n, d], in memory or mapped from the cache's file."""
Told = Callable[[int, int], None]
"""Hears how many of how many are done."""

ORIGINAL = "original"
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {ORIGINAL: lambda grey: grey, "mirrored": lambda grey: grey.flip(3)}
"""Fixed changes of reduced slices float [n, 1, px, px]: what augmentation is to an epoch, these are to a cache."""

_VERSION = 1
"""Grows when the same network, slices and view would give other features."""
_CHUNK = 128
"""As many slices are kept at once; so many at most are computed again after a kill."""
_BATCH = 32


class FeaturesStoppedError(TrainingStoppedError):
    """The stop event was set; what was computed is kept, and the same call goes on."""

    def __init__(self, done: int, total: int) -> None:
        RuntimeError.__init__(self, f"stopped after the features of {done} of {total} slices; the same call goes on")
        self.epoch = 0


class FeatureCacheError(OSError):
    """The cache's folder cannot be written or read; the message says what to do."""


def features_of(
    network: Network,
    pixels: Pixels,
    view: str = ORIGINAL,
    *,
    cache_folder: Path | None = None,
    on_progress: Told = lambda _done, _total: None,
    stop: threading.Event | None = None,
) -> Features:
    """Return the features float32 [n, d] that the network's last layer sees of slices uint8 [n, 256, 256].

    With a folder they are kept there, keyed by all weights but the last layer's, the input side, the pixels and the
    view, and mapped from there the next time; after a stop or a kill the same call computes only what is missing.
    Raises `FeaturesStoppedError`, `FeatureCacheError`.
    """
    if cache_folder is None:
        return np.concatenate([chunk for _, chunk in _computed(network, pixels, view, None, on_progress, stop)])
    path = cache_folder / f"features-{features_key(network, pixels, view)}.npy"
    try:
        if not path.exists():
            parts = path.with_suffix(".parts")
            for at, chunk in _computed(network, pixels, view, parts, on_progress, stop):
                write_atomically(parts / f"{at:09d}.npy", _as_npy(chunk))
            _join(parts, path)
        mapped: Features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FeatureCacheError(
            f"the features cannot be kept in {cache_folder} ({error}): free space there, remove {path.name}*, "
            "or give another folder"
        ) from error
    on_progress(len(pixels), len(pixels))
    return mapped


def features_key(network: Network, pixels: Pixels, view: str) -> str:
    """Return the hash of all that decides the features."""
    head = {id(parameter) for parameter in network.head.parameters()}
    body = {name: tensor for name, tensor in network.state_dict(keep_vars=True).items() if id(tensor) not in head}
    digest = hashlib.sha256(f"{_VERSION} {network.architecture} {network.input_px} {view} {len(pixels)}".encode())
    digest.update(pack({name: tensor.detach() for name, tensor in body.items()}, {}))
    for at in range(0, len(pixels), _CHUNK):
        digest.update(np.ascontiguousarray(pixels[at : at + _CHUNK]).tobytes())
    return digest.hexdigest()[:32]


def _computed(
    network: Network, pixels: Pixels, view: str, parts: Path | None, on_progress: Told, stop: threading.Event | None
) -> Iterator[tuple[int, Features]]:
    """Yield the chunks that are not yet among the parts, and where each begins."""
    keep_freed_memory()
    network.eval()
    for at in range(0, len(pixels), _CHUNK):
        if stop is not None and stop.is_set():
            raise FeaturesStoppedError(at, len(pixels))
        if parts is None or not (parts / f"{at:09d}.npy").exists():
            yield at, _read(network, pixels[at : at + _CHUNK], view)
        on_progress(min(at + _CHUNK, len(pixels)), len(pixels))


def _read(network: Network, pixels: NDArray[np.uint8], view: str) -> Features:
    with torch.inference_mode():
        slices = torch.from_numpy(np.ascontiguousarray(pixels)).unsqueeze(1)
        batches = (slices[at : at + _BATCH] for at in range(0, len(slices), _BATCH))
        return np.concatenate([network.read(VIEWS[view](network.reduce(batch)))[1].numpy() for batch in batches])


def _join(parts: Path, path: Path) -> None:
    chunks = [np.load(part, mmap_mode="r", allow_pickle=False) for part in sorted(parts.glob("*.npy"))]
    joined = path.with_suffix(".joining")
    shape = (sum(len(chunk) for chunk in chunks), chunks[0].shape[1])
    mapped = np.lib.format.open_memmap(joined, mode="w+", dtype=np.float32, shape=shape)
    np.concatenate(chunks, out=mapped)
    mapped.flush()
    joined.replace(path)
    shutil.rmtree(parts)


def _as_npy(chunk: Features) -> bytes:
    file = io.BytesIO()
    np.save(file, chunk, allow_pickle=False)
    return file.getvalue()
