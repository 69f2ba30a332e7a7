"""A network's logits become a reading by name, and what is no network of ours is refused before it is used."""

import math
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from protocol.labels import LABELS, Label
from training.model.preprocess import INPUT_PX
from training.model.reader import (
    Calibration,
    NotFiniteError,
    OnnxReader,
    OutOfMemoryError,
    UnreadableNetworkError,
    best_providers,
    verdict,
)

BATCH = "n"
INPUT_SHAPE = [BATCH, 1, INPUT_PX, INPUT_PX]
finite_logits = st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3).map(
    lambda row: np.array(row, np.float32)
)


def network(
    *,
    input_name: str = "slice",
    input_type: int = TensorProto.UINT8,
    input_shape: list[int | str] | None = None,
    output_name: str = "logits",
    classes: int = 3,
    bias: tuple[float, ...] = (0.0, 0.5, 1.0),
    scalar_logits: bool = False,
    features_name: str = "features",
    unlikeness: str = "",
) -> bytes:
    """Build a network whose logits are the slice's mean grey (0..1) times 1, 2, 3, plus a bias.

    unlikeness: "a number" gives the mean grey, "no number" NaN, "a column" another shape.
    """
    shape = input_shape or INPUT_SHAPE
    weights = np.arange(1, classes + 1, dtype=np.float32)[None]
    nodes = [
        helper.make_node("Cast", [input_name], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["grey", "white"], ["activation_map"]),
        helper.make_node("GlobalAveragePool", ["activation_map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [features_name]),
        helper.make_node("Gemm", [features_name, "weights", "bias"], ["classes"]),
        helper.make_node(
            "ReduceSum" if scalar_logits else "Identity",
            ["classes"],
            [output_name],
            **({"keepdims": 0} if scalar_logits else {}),
        ),
    ]
    if unlikeness == "a number":
        nodes.append(helper.make_node("Reshape", [features_name, "a_slice"], ["unlikeness"]))
    elif unlikeness == "no number":
        nodes.append(helper.make_node("Sub", [features_name, "white"], ["negative"]))
        nodes.append(helper.make_node("Sqrt", ["negative"], ["root"]))
        nodes.append(helper.make_node("Reshape", ["root", "a_slice"], ["unlikeness"]))
    elif unlikeness == "a column":
        nodes.append(helper.make_node("Identity", [features_name], ["unlikeness"]))
    constants = {
        "white": np.float32(255),
        "weights": weights,
        "bias": np.array(bias[:classes], np.float32),
        "a_slice": np.array([-1]),
    }
    outputs = {
        output_name: [] if scalar_logits else [BATCH, classes],
        features_name: [BATCH, 1],
        "activation_map": [BATCH, 1, INPUT_PX, INPUT_PX],
    }
    if unlikeness:
        outputs["unlikeness"] = [BATCH, 1] if unlikeness == "a column" else [BATCH]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(input_name, input_type, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def grey_slice(level: int) -> np.ndarray:
    return np.full((INPUT_PX, INPUT_PX), level, np.uint8)


@given(st.integers(0, 255))
def test_a_reading_has_a_probability_for_every_label(level: int) -> None:
    """The probabilities are by name, sum to 1, and the label is the likeliest."""
    reading = READER.read(grey_slice(level))
    assert set(reading.probabilities) == set(LABELS)
    assert sum(reading.probabilities.values()) == pytest.approx(1)
    assert reading.confidence == max(reading.probabilities.values())
    assert reading.label is Label.COVID_19


READER = OnnxReader(network(), Calibration())


def test_logits_come_for_many_slices_at_once() -> None:
    """A batch gives one row a slice, and each row is what the slice gives alone."""
    slices = np.stack([grey_slice(level) for level in (0, 51, 255)])
    logits = READER.logits(slices)
    assert logits.shape == (3, 3)
    assert logits.dtype == np.float32
    expected = np.array([0, 0.2, 1.0])[:, None] * [1, 2, 3] + [0, 0.5, 1]
    assert np.allclose(logits, expected, atol=1e-4)
    assert np.allclose(logits[1], READER.logits(slices[1:2])[0])


def test_unlikeness_is_read_where_the_network_tells_it() -> None:
    """Networks of earlier releases read as before; what is no number is as unlike as can be, and no lost reading."""
    grey = grey_slice(51)
    told = OnnxReader(network(unlikeness="a number"), Calibration()).read(grey)
    assert told.unlikeness == pytest.approx(0.2, abs=1e-3)
    assert READER.read(grey).unlikeness is None
    assert told.probabilities == READER.read(grey).probabilities
    assert OnnxReader(network(unlikeness="no number"), Calibration()).read(grey).unlikeness == math.inf


@given(finite_logits, st.floats(0.05, 20))
def test_probabilities_sum_to_one(logits: np.ndarray, temperature: float) -> None:
    """Any finite logits give finite probabilities that sum to 1, without overflow."""
    reading = verdict(logits, Calibration(temperature=temperature))
    assert sum(reading.probabilities.values()) == pytest.approx(1)
    assert all(0 <= p <= 1 for p in reading.probabilities.values())


@given(finite_logits, st.floats(0.05, 20), st.floats(1.01, 10))
def test_a_higher_temperature_softens(logits: np.ndarray, temperature: float, factor: float) -> None:
    """A higher temperature never raises the confidence and never changes the order of the labels."""
    sharp = verdict(logits, Calibration(temperature=temperature))
    soft = verdict(logits, Calibration(temperature=temperature * factor))
    assert soft.confidence <= sharp.confidence + 1e-9
    assert soft.label == sharp.label


@given(finite_logits, st.floats(0, 1))
def test_a_reading_below_the_threshold_is_uncertain(logits: np.ndarray, threshold: float) -> None:
    """Uncertain means exactly that the largest probability is below the threshold."""
    reading = verdict(logits, Calibration(uncertain_below=threshold))
    assert reading.uncertain == (reading.confidence < threshold)


def test_equal_logits_are_uncertain() -> None:
    """Where no label stands out, the default threshold says so."""
    assert verdict(np.zeros(3, np.float32), Calibration()).uncertain
    assert not verdict(np.array([0, 9, 0], np.float32), Calibration()).uncertain


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_logits_that_are_no_numbers_never_make_a_certain_reading(bad: float, place: int) -> None:
    """A network that answers NaN or infinity is refused by name: it must not read as Normal."""
    logits = np.zeros(3, np.float32)
    logits[place] = bad
    with pytest.raises(NotFiniteError):
        verdict(logits, Calibration())


@pytest.mark.parametrize("order", [LABELS, LABELS[::-1], (LABELS[1], LABELS[2], LABELS[0])])
def test_the_order_of_the_labels_is_the_networks(order: tuple[Label, ...]) -> None:
    """The calibration's order of labels binds: the same logits mean other labels under another order."""
    reading = verdict(np.array([0, 5, 1], np.float32), Calibration(labels=order))
    assert reading.label is order[1]
    assert list(reading.probabilities) == list(order)


@pytest.mark.parametrize(
    "garbage", [b"", b"not a network", bytes(1000), b"\x08\x08" * 50, network()[:-40], network()[:60]]
)
def test_bytes_that_are_no_network_are_refused(garbage: bytes) -> None:
    """Garbage and truncated files are refused when they are loaded."""
    with pytest.raises(UnreadableNetworkError):
        OnnxReader(garbage, Calibration())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_network_or_unreadable(garbage: bytes) -> None:
    """Arbitrary bytes raise `UnreadableNetworkError` and nothing else."""
    with pytest.raises(UnreadableNetworkError):
        OnnxReader(garbage, Calibration())


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        pytest.param(network(input_name="image"), "input 'slice'", id="other-input"),
        pytest.param(network(input_type=TensorProto.FLOAT), "uint8", id="float-input"),
        pytest.param(network(input_shape=[BATCH, 1, 224, 224]), "224", id="other-size"),
        pytest.param(network(input_shape=[BATCH, 3, INPUT_PX, INPUT_PX]), "3", id="colour"),
        pytest.param(network(input_shape=[BATCH, 1, "h", "w"]), "256", id="any-size"),
        pytest.param(network(input_shape=[1, 1, INPUT_PX, INPUT_PX]), "not .n, 1, 256", id="fixed-batch"),
        pytest.param(network(output_name="scores"), "logits", id="other-output"),
        pytest.param(network(features_name="pooled_cells"), "no 'features'", id="no-features"),
        pytest.param(network(unlikeness="a column"), "not one a slice", id="unlikeness-of-another-shape"),
        pytest.param(network(classes=2), "3 classes", id="two-classes"),
        pytest.param(network(classes=1), "3 classes", id="one-class"),
        pytest.param(network(scalar_logits=True), "logits", id="scalar-logits"),
    ],
)
def test_a_network_with_another_signature_is_refused(model: bytes, fault: str) -> None:
    """Another input, size, output or number of classes is named when the network is loaded, not at the first slice."""
    with pytest.raises(UnreadableNetworkError, match=fault):
        OnnxReader(model, Calibration())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Exception during loading: std::bad_alloc")])
def test_a_network_that_finds_no_memory_is_no_bad_network(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the runtime says it, a box that is short of memory is told apart from bytes that are no network."""
    monkeypatch.setattr("onnxruntime.InferenceSession", Mock(side_effect=error))
    with pytest.raises(OutOfMemoryError):
        OnnxReader(network(), Calibration())


def test_a_network_for_other_labels_is_refused() -> None:
    """A calibration with two labels does not fit a network of three classes."""
    with pytest.raises(UnreadableNetworkError, match="2 classes"):
        OnnxReader(network(), Calibration(labels=LABELS[:2]))


def test_the_processor_is_always_a_provider() -> None:
    """Whatever accelerator there is, the CPU is the last resort."""
    assert best_providers()[-1] == "CPUExecutionProvider"
