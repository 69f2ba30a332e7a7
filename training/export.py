"""Turn a trained network into the one ONNX file that is released, prove that it answers the same, and calibrate it."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from training.evaluate import Labels, Logits, log_loss
from training.grey_stem import with_grey_stem
from training.model.preprocess import INPUT_PX
from training.model.reader import ACTIVATION_MAP, FEATURES, INPUT_NAME, LOGITS
from training.networks import Network

OPSET = 20
"""Read by ONNX Runtime from 1.17 and TensorRT from 10.0 on."""
PARITY_TOLERANCE = 1e-3
"""In logits; float32 sums in another order differ by some 1e-5."""
TEMPERATURE_BOUNDS = (0.25, 10.0)
"""Beyond these the slices are too few or the network is broken; a clamped value is safer than what they ask for."""


class ParityError(ValueError):
    """The exported network answers otherwise than the trained one: `difference` in logits exceeds `tolerance`."""

    def __init__(self, difference: float, tolerance: float) -> None:
        super().__init__(
            f"ONNX and torch differ by {difference:.3g} in logits (allowed {tolerance:.3g}): do not release it"
        )
        self.difference = difference
        self.tolerance = tolerance


def export_onnx(network: Network) -> bytes:
    """Return the ONNX file: "slice" uint8 [n, 1, 256, 256] in; "logits", "features" and "activation_map" out."""
    example = torch.zeros(2, 1, INPUT_PX, INPUT_PX, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            with_grey_stem(network).cpu().eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[LOGITS, FEATURES, ACTIVATION_MAP],
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program although dynamo=True")
    return without_traces(program.model_proto)


def check_parity(
    network: Network, onnx_bytes: bytes, slices: NDArray[np.uint8], tolerance: float = PARITY_TOLERANCE
) -> float:
    """Return the largest difference in logits over slices uint8 [n, 256, 256]; raises `ParityError` if too large."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    (exported,) = session.run([LOGITS], {INPUT_NAME: slices[:, None]})
    with torch.inference_mode():
        trained = network.eval()(torch.from_numpy(slices[:, None]))[0].numpy()
    difference = float(np.abs(exported - trained).max())
    if not difference <= tolerance:
        raise ParityError(difference, tolerance)
    return difference


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature of least log loss on validation slices, within TEMPERATURE_BOUNDS (Guo et al. 2017)."""
    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
    fit = minimize_scalar(lambda log_t: log_loss(logits, labels, math.exp(log_t)), bounds=(low, high), method="bounded")
    return float(math.exp(fit.x))


def without_traces(model: onnx.ModelProto) -> bytes:
    """Drop the exporter's notes: they hold paths of the machine that trained, and would change the file's hash."""
    del model.metadata_props[:]
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about its own insides off the terminal; what goes wrong still raises."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
