"""Bytes moved to an edge by each kind of update, in both layouts, by chunks and by an exact delta."""

from dataclasses import asdict

import cbor2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue
from rich.table import Table

from protocol.manifest import GOLDEN_FILE, MODEL_FILE
from sliceloop.update_bench.moved import Files, Moved, moved
from sliceloop.update_bench.update_pairs import BASE, INT8, INT8_BASE, UpdatePlan
from training.half import with_half_weights
from training.layout import segments_between
from training.model.delta import apply_delta, make_delta
from training.model.preprocess import INPUT_PX
from training.model.reader import Calibration, OnnxReader
from training.provenance import code_commit, machine, versions

FULL, CHUNKS, DELTA = "full", "chunks", "delta"
FLOAT32, FLOAT16 = "float32", "float16"
_GOLDEN_SLICES = 6


class BytesMoved(BaseModel):
    """One update: what the model's file takes, and what an edge that holds the base fetches of the release."""

    model_config = ConfigDict(frozen=True)
    update: str
    layout: str
    way: str
    model_bytes: int
    chunks: int
    chunk_bytes: int
    index_bytes: int
    manifest_bytes: int
    moved_bytes: int
    share_of_float32: float
    """Of the file of the base with float32 weights."""
    share_of_float16: float


class UpdateBytes(BaseModel):
    """All updates, and how their networks were made."""

    model_config = ConfigDict(frozen=True)
    plan: dict[str, JsonValue]
    float32_bytes: int
    float16_bytes: int
    rows: tuple[BytesMoved, ...]
    hardware: dict[str, JsonValue]
    versions: dict[str, str]
    commit: str | None

    def find(self, update: str, layout: str, way: str) -> BytesMoved:
        """Return one row."""
        return next(row for row in self.rows if (row.update, row.layout, row.way) == (update, layout, way))


def count_bytes(networks: dict[str, bytes], plan: UpdatePlan) -> UpdateBytes:
    """Count what each update of the networks that a plan made moves; the deltas take a while."""
    layouts = {FLOAT32: networks, FLOAT16: {**networks, **{n: with_half_weights(m) for n, m in _floats(networks)}}}
    sizes = {layout: len(models[BASE]) for layout, models in layouts.items()}
    return UpdateBytes(
        plan=asdict(plan),
        float32_bytes=sizes[FLOAT32],
        float16_bytes=sizes[FLOAT16],
        rows=tuple(
            _row(update, layout, way, release, fetched, sizes)
            for layout, models in layouts.items()
            for update, way, release, fetched in _updates(models)
        ),
        hardware=machine(),
        versions=versions("onnx", "onnxruntime", "torch", "zstandard"),
        commit=code_commit(),
    )


def table(result: UpdateBytes) -> Table:
    """Show the updates, one a line."""
    shown = Table(
        title=f"Bytes moved, {result.plan['architecture']}: {result.float32_bytes:,} bytes as float32, "
        f"{result.float16_bytes:,} as float16"
    )
    shown.add_column("update")
    shown.add_column("weights")
    shown.add_column("way")
    for name in ("model MB", "chunks", "moved MB", "of float32", "of float16"):
        shown.add_column(name, justify="right")
    for row in result.rows:
        shown.add_row(
            row.update,
            row.layout,
            row.way,
            f"{row.model_bytes / 1e6:.2f}",
            f"{row.chunks:,}",
            f"{row.moved_bytes / 1e6:.3f}",
            f"{row.share_of_float32:.2%}",
            f"{row.share_of_float16:.2%}",
        )
    return shown


def _floats(networks: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [(name, model) for name, model in networks.items() if name not in (INT8, INT8_BASE)]


def _updates(models: dict[str, bytes]) -> list[tuple[str, str, bytes, Moved]]:
    """List each update with its ways: everything, what the base lacks, and a delta instead of the model.

    int8 shares nothing with float weights: it is subtracted from int8.
    """
    base = _files(models[BASE])
    found = [(BASE, FULL, models[BASE], moved({}, base))]
    for name, model in models.items():
        if name in (BASE, INT8_BASE):
            continue
        release, subtracted = _files(model), models[INT8_BASE if name == INT8 else BASE]
        found.append((name, CHUNKS, model, moved(base, release)))
        found.append((name, DELTA, model, moved(_files(subtracted), _with_delta(subtracted, release))))
    return found


def _with_delta(base: bytes, release: Files) -> Files:
    return {GOLDEN_FILE: release[GOLDEN_FILE], "delta.sld": exact_delta(base, release[MODEL_FILE])}


def exact_delta(base: bytes, target: bytes) -> bytes:
    """Return the delta between two networks, after it has made the one of the other."""
    delta = make_delta(base, target, segments_between(base, target))
    if apply_delta(base, delta, target_size=len(target)) != target:
        raise AssertionError("a delta does not make its target")
    return delta


def _files(model: bytes) -> Files:
    slices = _golden_slices()
    logits = OnnxReader(model, Calibration()).logits(slices)
    return {MODEL_FILE: model, GOLDEN_FILE: cbor2.dumps({"slices": slices.tobytes(), "logits": logits.tolist()})}


def _golden_slices() -> NDArray[np.uint8]:
    shape = (_GOLDEN_SLICES, INPUT_PX, INPUT_PX)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _row(update: str, layout: str, way: str, model: bytes, fetched: Moved, sizes: dict[str, int]) -> BytesMoved:
    return BytesMoved(
        update=update,
        layout=layout,
        way=way,
        model_bytes=len(model),
        **asdict(fetched),
        moved_bytes=fetched.bytes,
        share_of_float32=fetched.bytes / sizes[FLOAT32],
        share_of_float16=fetched.bytes / sizes[FLOAT16],
    )
