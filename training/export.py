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
from training.likeness import Likeness
from training.model.preprocess import INPUT_PX
from training.model.reader import ACTIVATION_MAP, FEATURES, INPUT_NAME, LOGITS, UNLIKENESS
from training.networks import Network

OPSET = 20
"""Read by ONNX Runtime from 1.17 and TensorRT from 10.0 on."""
PARITY_TOLERANCE = 1e-3
"""In logits; float32 sums in another order differ by some 1e-5."""
UNLIKENESS_TOLERANCE = 0.02
"""Of the border; where a few slices were learnt, small differences in features count for much."""
TEMPERATURE_BOUNDS = (0.25, 100.0)
"""A network that learnt from few slices has logits in the tens, and so is its temperature; beyond, it is broken."""
TEMPERATURE_SPREAD = math.log(2)
"""How far from 1 a temperature is expected: a factor of 2. A few dozen slices that ask for more get a part of it."""


class ParityError(ValueError):
    """The exported network answers otherwise than the trained one: `difference` in an output exceeds `tolerance`."""

    def __init__(self, difference: float, tolerance: float, output: str = LOGITS) -> None:
        super().__init__(
            f"ONNX and torch differ by {difference:.3g} in {output} (allowed {tolerance:.3g}): do not release it"
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
    network: Network,
    onnx_bytes: bytes,
    slices: NDArray[np.uint8],
    tolerance: float = PARITY_TOLERANCE,
    *,
    likeness: Likeness | None = None,
) -> float:
    """Return the largest difference in logits over slices uint8 [n, 256, 256]; raises `ParityError` if too large.

    With the likeness that was written into the file, the unlikeness must differ by UNLIKENESS_TOLERANCE at most.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        logits, features, _ = (output.numpy() for output in network.eval()(torch.from_numpy(slices[:, None])))
    trained = {LOGITS: logits} | ({} if likeness is None else {UNLIKENESS: likeness.unlikeness(features)})
    exported = session.run(list(trained), {INPUT_NAME: slices[:, None]})
    differences = {
        name: float(np.abs(ours - theirs).max()) for (name, ours), theirs in zip(trained.items(), exported, strict=True)
    }
    allowed = {LOGITS: tolerance, UNLIKENESS: UNLIKENESS_TOLERANCE}
    for name, difference in differences.items():
        if not difference <= allowed[name]:
            raise ParityError(difference, allowed[name], name)
    return differences[LOGITS]


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the most probable temperature, within TEMPERATURE_BOUNDS (Guo et al. 2017, with a prior).

    Its logarithm is expected about 0, normally distributed by TEMPERATURE_SPREAD: on a few slices least log loss alone
    runs away, and every reading becomes uncertain; on many the prior does not count.
    """

    def improbability(log_t: float) -> float:
        return len(labels) * log_loss(logits, labels, math.exp(log_t)) + (log_t / TEMPERATURE_SPREAD) ** 2 / 2

    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
    return float(math.exp(minimize_scalar(improbability, bounds=(low, high), method="bounded").x))


def is_at_bound(temperature: float) -> bool:
    """Tell whether a fitted temperature stopped at a bound, and the probabilities mean little."""
    return any(math.isclose(temperature, bound, rel_tol=0.01) for bound in TEMPERATURE_BOUNDS)


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
