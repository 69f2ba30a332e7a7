"""A network of 29 parameters as ONNX, made without torch, and bundles and data sets around it."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from protocol.labels import LABELS
from training.bundle import Bundle, Report, write_bundle
from training.data.labelled import COLUMNS
from training.evaluate import evaluate

PARAMETERS = 2 * 1 * 3 * 3 + 2 + 2 * 3 + 3
"""A convolution of 2 maps with biases, and 3 classes of 2 features with biases."""
MACS = (2 * 4 * 4) * (1 * 3 * 3) + 2 * 3
"""32 outputs of 9 products each, and 3 of 2; the activation map is not on the way to the logits."""


def tiny_onnx(seed: int = 0, *, quantised: bool = False) -> bytes:
    """Return the network: mean over 64x64 pixels, convolution, ReLU, mean, linear; an activation map beside it."""
    random = np.random.default_rng(seed)
    kernel = random.normal(0, 1, (2, 1, 3, 3)).astype(np.float32)
    stored = {
        "white": np.array(255, np.float32),
        "convolution.bias": random.normal(0, 0.1, 2).astype(np.float32),
        "linear.weight": random.normal(0, 3, (2, 3)).astype(np.float32),
        "linear.bias": random.normal(0, 0.1, 3).astype(np.float32),
        "map.weight": random.normal(0, 1, (3, 2, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["slice"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["grey", "white"], ["scaled"]),
        helper.make_node("AveragePool", ["scaled"], ["small"], kernel_shape=[64, 64], strides=[64, 64]),
        helper.make_node("Conv", ["small", "kernel", "convolution.bias"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("ReduceMean", ["active", "axes"], ["features"], keepdims=0),
        helper.make_node("Gemm", ["features", "linear.weight", "linear.bias"], ["logits"]),
        helper.make_node("Conv", ["active", "map.weight"], ["activation_map"]),
    ]
    stored["axes"] = np.array([2, 3], np.int64)
    if quantised:
        nodes.insert(0, helper.make_node("DequantizeLinear", ["kernel.int8", "scale", "zero"], ["kernel"]))
        stored |= {
            "kernel.int8": np.clip(np.round(kernel * 40), -127, 127).astype(np.int8),
            "scale": np.array(1 / 40, np.float32),
            "zero": np.array(0, np.int8),
        }
    else:
        stored["kernel"] = kernel
    return graph_bytes(nodes, stored, {"logits": ["n", 3], "features": ["n", 2], "activation_map": ["n", 3, 4, 4]})


def graph_bytes(
    nodes: list[onnx.NodeProto],
    stored: dict[str, NDArray[np.generic]],
    outputs: dict[str, list[str | int]],
    shape: tuple[str | int, ...] = ("n", 1, 256, 256),
) -> bytes:
    """Return an ONNX file that reads "slice"."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("slice", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def tiny_report(**fields: object) -> Report:
    """Return a report of a training on 6 slices of patients train-0 to train-5."""
    labels = np.arange(6) % 3
    patients = [f"train-{i}" for i in range(6)]
    said = {
        "architecture": "tiny",
        "input_px": 64,
        "temperature": 1.5,
        "training_data_sha256": "0" * 64,
        "split_sha256": "0" * 64,
        "seed": 0,
        "n_train_slices": 6,
        "n_train_patients": 6,
        "train_sources": ("toy",),
        "validation": evaluate(np.eye(3)[labels], labels, patients, ["toy"] * 6, resamples=5),
        "seconds": 1.0,
        "train_patient_keys": tuple(hashlib.sha256(name.encode()).hexdigest()[:12] for name in patients),
    }
    return Report.model_validate(said | fields)


def tiny_bundle(folder: Path, seed: int = 0, **fields: object) -> Path:
    """Write a bundle; `fields` change its report."""
    write_bundle(folder, Bundle(tiny_onnx(seed), b"no checkpoint", tiny_report(**fields)))
    return folder


def tiny_data(folder: Path, patients: int = 12, slices_each: int = 2, prefix: str = "test") -> Path:
    """Write a data set: patients of the classes in turn in the test split, one of each class in train and val."""
    rows = [(f"{side}-{i}", i % 3, side, 1) for side in ("train", "val") for i in range(3)]
    rows += [(f"{prefix}-{i}", i % 3, "test", slices_each) for i in range(patients)]
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for patient, label, split, count in rows:
            for index in range(count):
                name = f"{patient}-{index}.png"
                Image.fromarray(_disc(random, label)).save(folder / name)
                writer.writerow((name, LABELS[label], patient, "ab"[label > 0], split))
    return folder


def _disc(random: np.random.Generator, label: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:96, :96]
    disc = (rows - 25 - 20 * label) ** 2 + (columns - 48) ** 2 < 15**2
    return np.clip(70 + 110 * disc + random.normal(0, 10, disc.shape), 0, 255).astype(np.uint8)
