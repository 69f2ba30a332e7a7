"""A network of a few numbers as a bundle: it answers by how sixteen parts of a slice differ in brightness."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.bundle import Bundle, Report, write_bundle
from training.evaluate import evaluate

TRAINED_ON = tuple(f"train-{number}" for number in range(6))


def tiny_bundle(folder: Path, seed: int = 0, trained_on: tuple[str, ...] = TRAINED_ON) -> Path:
    """Write a bundle whose report names the patients that it learnt from."""
    labels = np.arange(6) % 3
    report = Report(
        architecture="tiny",
        input_px=256,
        temperature=1.0,
        training_data_sha256="0" * 64,
        split_sha256="0" * 64,
        seed=seed,
        n_train_slices=6,
        n_train_patients=6,
        train_sources=("toy",),
        validation=evaluate(np.eye(3)[labels], labels, TRAINED_ON, ["toy"] * 6, resamples=5),
        seconds=1.0,
        train_patient_keys=tuple(hashlib.sha256(name.encode()).hexdigest()[:12] for name in trained_on),
    )
    write_bundle(folder, Bundle(_onnx(seed), b"no checkpoint", report))
    return folder


def _onnx(seed: int) -> bytes:
    """Return the network: means over 64x64 pixels, and a linear layer of them."""
    random = np.random.default_rng(seed)
    weight = random.normal(0, 30, (16, 3))
    stored = {
        "white": np.array(255, np.float32),
        "weight": (weight - weight.mean(0)).astype(np.float32),
        "bias": np.zeros(3, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["slice"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["grey", "white"], ["scaled"]),
        helper.make_node("AveragePool", ["scaled"], ["activation_map"], kernel_shape=[64, 64], strides=[64, 64]),
        helper.make_node("Flatten", ["activation_map"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["logits"]),
    ]
    shapes: dict[str, list[str | int]] = {"logits": ["n", 3], "features": ["n", 16], "activation_map": ["n", 1, 4, 4]}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("slice", TensorProto.UINT8, ["n", 1, 256, 256])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())
