"""The golden slices of a release: what a network must answer on any edge, and how far it is from that."""

from dataclasses import dataclass

import cbor2
import numpy as np
from numpy.typing import NDArray

from training.model.preprocess import INPUT_PX
from training.model.reader import OnnxReader


class GoldenError(ValueError):
    """The golden slices cannot be read, or the network fails on them."""


@dataclass(frozen=True)
class Golden:
    """Slices uint8 [n, 256, 256], at least one, and the logits float32 [n, classes] that are expected of them."""

    slices: NDArray[np.uint8]
    logits: NDArray[np.float32]


def read_golden(golden: bytes) -> Golden:
    """Parse a golden.cbor; raises `GoldenError`."""
    try:
        content = cbor2.loads(golden)
        slices = np.frombuffer(content["slices"], np.uint8).reshape(-1, INPUT_PX, INPUT_PX)
        expected = np.array(content["logits"], np.float32).reshape(len(slices), -1)
    except (cbor2.CBORDecodeError, KeyError, TypeError, ValueError) as error:
        raise GoldenError(f"the golden slices cannot be read ({error})") from error
    if not len(slices):
        raise GoldenError("the release has no golden slices")
    return Golden(slices, expected)


def difference(reader: OnnxReader, golden: Golden) -> float:
    """Return by how much the logits differ at most, read one by one; infinity where they are not finite.

    Raises `GoldenError` where the network fails, or answers in another shape.
    """
    try:
        logits = np.concatenate([reader.logits(one[None]) for one in golden.slices])
    except Exception as error:  # onnxruntime's error classes share no public base
        raise GoldenError(f"the network fails on the golden slices ({str(error)[:200]})") from error
    if logits.shape != golden.logits.shape:
        raise GoldenError(f"the network gives {logits.shape} on the golden slices, not {golden.logits.shape}")
    return float(np.abs(logits - golden.logits).max()) if np.isfinite(logits).all() else float("inf")
