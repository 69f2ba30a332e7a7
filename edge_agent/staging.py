"""Make of a download a model that is ready to read: put it together, store it, try it in a process apart, load it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edge_agent.download import Download
from edge_agent.model_slot import ModelSlot, ServedModel
from protocol.manifest import Manifest
from training.model.delta import apply_delta

Trial = Callable[[Path, Manifest], None]
"""Runs the network of a folder on its golden slices; raises what says why it must not read."""


class Background(Protocol):
    """Where staging runs, since it takes seconds: the conversation with the cloud goes on meanwhile."""

    def submit(self, work: Callable[[], ServedModel | None], /) -> "Future[ServedModel | None]":
        """Run it, now or soon."""


class StagingThread:
    """One thread that stages; at the end it is not waited for, since a trial has its own time limit."""

    def __init__(self) -> None:
        """Make the pool; its thread starts with the first work."""
        self._pool = ThreadPoolExecutor(1, "edge-staging")

    def submit(self, work: Callable[[], ServedModel | None], /) -> "Future[ServedModel | None]":
        """Run it as soon as the work before it is done."""
        return self._pool.submit(work)

    def __enter__(self) -> Self:
        """Do nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def stage(download: Download, slot: ModelSlot, trial: Trial) -> ServedModel | None:
    """Return the model of a complete download, stored and tried; None when its delta led nowhere.

    Raises `DamagedChunkError`, `TrustError`, `StructureError`, `UnreadableNetworkError`, `SelfTestError` or `OSError`.
    """
    manifest = download.manifest
    files = download.files(_apply)
    if not files:
        return None
    folder = slot.store(manifest, download.envelope, files, download.indices())
    trial(folder, manifest)
    return slot.load_new(manifest.version)


def stage_again(envelope: bytes, manifest: Manifest, slot: ModelSlot, trial: Trial) -> ServedModel:
    """Return a model whose files are here already: an earlier one, or one that a crash kept from being swapped in."""
    folder = slot.store(manifest, envelope, {}, {})
    trial(folder, manifest)
    return slot.load_new(manifest.version)


def _apply(base: bytes, delta: bytes, size: int) -> bytes:
    return apply_delta(base, delta, target_size=size)
