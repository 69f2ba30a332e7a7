"""Look at a prepared picture before it is read: is it an axial chest slice, and which way round does it lie?"""

import json
from importlib.resources import files

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_agent.intake.view import ORIENTATIONS, View
from training.model.preprocess import INPUT_PX

INPUT_NAME, LOGITS = "slice", "logits"
CLASSES_KEY = "classes"
"""In the file's metadata: the names of the logits as a JSON list. Names, for an order is told by nothing."""
NO_CHEST = "no-chest"
SHIPPED_FILE = "intake.onnx"


class UnreadableIntakeError(ValueError):
    """The bytes are no intake network; the message says what is missing."""


class NotFiniteIntakeError(UnreadableIntakeError):
    """The intake network answered a picture with NaN or infinity."""


class Intake:
    """One loaded intake network; creating it loads the graph, so that a broken file is found before the first slice."""

    def __init__(self, model: bytes) -> None:
        """Load the ONNX bytes, to run on one core; raises `UnreadableIntakeError`."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            # The processor alone: so small a network would only wait for a graphics card, and TensorRT builds for
            # minutes at the start.
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's error classes share no public base
            raise UnreadableIntakeError(f"no readable intake network: {str(error)[:200]}; train it anew") from error
        self._names = _class_names(self._session)
        _check_signature(self._session, len(self._names))

    def look(self, prepared: NDArray[np.uint8]) -> View:
        """Look at one prepared picture uint8 [256, 256]; raises `NotFiniteIntakeError`."""
        (logits,) = self._session.run([LOGITS], {INPUT_NAME: prepared[None, None]})
        if not np.isfinite(logits).all():
            raise NotFiniteIntakeError(f"the intake network's logits are {logits[0].tolist()}; train it anew")
        odds = np.exp(logits[0].astype(np.float64) - logits.max())
        said = dict(zip(self._names, (odds / odds.sum()).tolist(), strict=True))
        return View({one: said[one.name] for one in ORIENTATIONS}, said[NO_CHEST])


def shipped_network() -> bytes:
    """Return the network that comes with the program; it learnt from phantoms alone."""
    return files("edge_agent.intake").joinpath(SHIPPED_FILE).read_bytes()


def _class_names(session: ort.InferenceSession) -> list[str]:
    text = session.get_modelmeta().custom_metadata_map.get(CLASSES_KEY, "")
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        names = None
    wanted = sorted([*(one.name for one in ORIENTATIONS), NO_CHEST])
    if not isinstance(names, list) or sorted(map(str, names)) != wanted:
        raise UnreadableIntakeError(
            f"no intake network: its classes are {text[:200]!r}, not {', '.join(wanted)}; train it anew"
        )
    return names


def _check_signature(session: ort.InferenceSession, classes: int) -> None:
    inputs = {node.name: (node.type, node.shape[1:]) for node in session.get_inputs()}
    outputs = {node.name: (node.type, node.shape[1:]) for node in session.get_outputs()}
    if inputs != {INPUT_NAME: ("tensor(uint8)", [1, INPUT_PX, INPUT_PX])}:
        raise UnreadableIntakeError(
            f"no intake network: it reads {inputs}, not uint8 [n, 1, {INPUT_PX}, {INPUT_PX}] as '{INPUT_NAME}'"
        )
    if outputs.get(LOGITS) != ("tensor(float)", [classes]):
        raise UnreadableIntakeError(f"no intake network: it has no output '{LOGITS}' of {classes} classes")
