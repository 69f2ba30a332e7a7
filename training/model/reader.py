"""Read prepared slices with one ONNX network: logits in, temperature and threshold applied, a reading out."""

import math
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from protocol.labels import LABELS, Label
from training.model.preprocess import INPUT_PX

INPUT_NAME = "slice"
LOGITS, FEATURES, ACTIVATION_MAP = "logits", "features", "activation_map"
UNLIKENESS = "unlikeness"
"""Networks of earlier releases do not have it."""
NO_MEMORY = "std::bad_alloc"
"""So says onnxruntime what Python calls a `MemoryError`."""


class UnreadableNetworkError(ValueError):
    """The bytes are no ONNX network of ours; the message says what is missing."""


class OutOfMemoryError(UnreadableNetworkError):
    """The machine lacks the memory to load the network just now: that says little of it."""


class NotFiniteError(UnreadableNetworkError):
    """The network answered a slice with NaN or infinity: that is no reading."""


@dataclass(frozen=True)
class Reading:
    """What a network says of one slice; `uncertain` when the largest probability is below the threshold."""

    label: Label
    uncertain: bool
    probabilities: dict[Label, float]
    unlikeness: float | None = None
    """From 0; 1 is the border that nearly all validation slices stay below. None where the network does not tell."""

    @property
    def confidence(self) -> float:
        """Return the probability of the label, 0..1."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Calibration:
    """How logits become a verdict: divide by the temperature, and call it uncertain below the threshold (0..1)."""

    labels: tuple[Label, ...] = LABELS
    temperature: float = 1.0
    uncertain_below: float = 0.5


class OnnxReader:
    """One loaded network; creating it loads the graph, so that a broken one is found before it is swapped in."""

    def __init__(self, model: bytes, calibration: Calibration, *, threads: int = 1) -> None:
        """Load the ONNX bytes on the best provider; raises `UnreadableNetworkError`, of which one is no memory."""
        self.calibration = calibration
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=best_providers())
        except Exception as error:  # onnxruntime's error classes share no public base
            if isinstance(error, MemoryError) or NO_MEMORY in str(error):
                raise OutOfMemoryError(f"no memory to load the network: {str(error)[:200]}") from error
            raise UnreadableNetworkError(f"not a readable ONNX network: {str(error)[:200]}") from error
        _check_signature(self._session, len(calibration.labels))
        self.tells_unlikeness = UNLIKENESS in {node.name for node in self._session.get_outputs()}

    def logits(self, slices: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits float32 [n, classes] for prepared slices uint8 [n, 256, 256]."""
        (logits,) = self._session.run([LOGITS], {INPUT_NAME: slices[:, None]})
        return np.asarray(logits, dtype=np.float32)

    def features(self, slices: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what the last layer sees, float32 [n, f], of prepared slices uint8 [n, 256, 256]."""
        (features,) = self._session.run([FEATURES], {INPUT_NAME: slices[:, None]})
        return np.asarray(features, dtype=np.float32)

    def read(self, prepared: NDArray[np.uint8]) -> Reading:
        """Read one prepared slice uint8 [256, 256]; raises `NotFiniteError`."""
        if not self.tells_unlikeness:
            return verdict(self.logits(prepared[None])[0], self.calibration)
        logits, unlikeness = self._session.run([LOGITS, UNLIKENESS], {INPUT_NAME: prepared[None, None]})
        reading = verdict(np.asarray(logits[0], dtype=np.float32), self.calibration)
        return replace(reading, unlikeness=_or_infinite(float(unlikeness[0])))


def verdict(logits: NDArray[np.float32], calibration: Calibration) -> Reading:
    """Turn the logits float32 [classes] of one slice into a reading; raises `NotFiniteError`."""
    if not np.isfinite(logits).all():
        raise NotFiniteError(f"the logits are {logits.tolist()}; no label can be read from them")
    scaled = logits.astype(np.float64) / calibration.temperature
    odds = np.exp(scaled - scaled.max())
    probabilities = odds / odds.sum()
    best = int(probabilities.argmax())
    return Reading(
        label=calibration.labels[best],
        uncertain=bool(probabilities[best] < calibration.uncertain_below),
        probabilities={label: float(p) for label, p in zip(calibration.labels, probabilities, strict=True)},
    )


def best_providers() -> list[str]:
    """List onnxruntime's execution providers in the order to try: TensorRT, CUDA, CPU (a Jetson has all three)."""
    wanted = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in ort.get_available_providers()]


def _or_infinite(unlikeness: float) -> float:
    """Take what is no number for as unlike as can be: NaN would lie above no limit."""
    return math.inf if math.isnan(unlikeness) else unlikeness


def _check_signature(session: ort.InferenceSession, classes: int) -> None:
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if INPUT_NAME not in inputs or inputs[INPUT_NAME].type != "tensor(uint8)":
        raise UnreadableNetworkError(f"the network has no uint8 input '{INPUT_NAME}' (it has {sorted(inputs)})")
    batch, *shape = inputs[INPUT_NAME].shape
    if isinstance(batch, int) or shape != [1, INPUT_PX, INPUT_PX]:
        raise UnreadableNetworkError(f"the network reads {[batch, *shape]}, not [n, 1, {INPUT_PX}, {INPUT_PX}]")
    if LOGITS not in outputs or outputs[LOGITS].shape[1:] != [classes]:
        raise UnreadableNetworkError(f"the network has no output '{LOGITS}' of {classes} classes")
    if not {FEATURES, ACTIVATION_MAP} <= set(outputs):
        raise UnreadableNetworkError(
            f"the network has no '{FEATURES}' and '{ACTIVATION_MAP}' (it has {sorted(outputs)})"
        )
    if UNLIKENESS in outputs and len(outputs[UNLIKENESS].shape) != 1:
        raise UnreadableNetworkError(f"the network's '{UNLIKENESS}' is {outputs[UNLIKENESS].shape}, not one a slice")
