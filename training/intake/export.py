"""The intake network as a file: ONNX with the names of its classes, and the story of how it came about beside it."""

import hashlib
import json
import platform
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

from training.export import OPSET, PARITY_TOLERANCE, ParityError, without_traces
from training.intake.network import CLASS_NAMES, IntakeNetwork
from training.model.preprocess import INPUT_PX, PREPROCESSING_VERSION

NETWORK_FILE, STORY_FILE = "intake.onnx", "intake.json"
INPUT_NAME, LOGITS, CLASSES_KEY = "slice", "logits", "classes"
"""As the edge asks for them."""


def export_intake(network: IntakeNetwork) -> bytes:
    """Return the ONNX file: "slice" uint8 [n, 1, 256, 256] in, "logits" [n, 9] out, their names in its metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes about its own insides
        program = torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 1, INPUT_PX, INPUT_PX, dtype=torch.uint8),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[LOGITS],
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program although dynamo=True")
    model = onnx.load_from_string(without_traces(program.model_proto))
    model.metadata_props.add(key=CLASSES_KEY, value=json.dumps(CLASS_NAMES))
    return bytes(model.SerializeToString(deterministic=True))


def check_intake_parity(network: IntakeNetwork, model: bytes, slices: NDArray[np.uint8]) -> float:
    """Return the largest difference in logits over slices uint8 [n, 256, 256]; raises `ParityError` if too large."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (exported,) = session.run([LOGITS], {INPUT_NAME: slices[:, None]})
    with torch.inference_mode():
        trained = network(torch.from_numpy(slices[:, None])).numpy()
    difference = float(np.abs(exported - trained).max())
    if not difference <= PARITY_TOLERANCE:
        raise ParityError(difference, PARITY_TOLERANCE)
    return difference


def story(model: bytes, facts: Mapping[str, JsonValue]) -> str:
    """Return the JSON text that goes beside a network's file: its hash, and the facts of its training."""
    told = {
        "sha256": hashlib.sha256(model).hexdigest(),
        "bytes": len(model),
        "classes": list(CLASS_NAMES),
        "preprocessing_version": PREPROCESSING_VERSION,
        **facts,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    return json.dumps(told, indent=1) + "\n"
