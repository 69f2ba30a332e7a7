"""The network that is judged: a bundle's ONNX file, an int8 variant beside it, or weights from elsewhere, exported."""

from dataclasses import dataclass
from pathlib import Path

from protocol.manifest import MODEL_FILE
from training.bundle import BundleError, read_bundle
from training.durable import write_atomically
from training.judging.unseen import Learnt
from training.model.reader import Calibration, OnnxReader

ONNX_SUFFIX = ".onnx"
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")


class SubjectError(ValueError):
    """A path that names no network to judge; the message says what is needed."""


@dataclass(frozen=True)
class Subject:
    """An ONNX network and how to read it; `learnt` is None where we did not train it."""

    name: str
    architecture: str
    input_px: int
    path: Path
    model: bytes
    calibration: Calibration
    learnt: Learnt | None
    temperature_fitted: bool = False

    def reader(self, *, threads: int = 1) -> OnnxReader:
        """Load the network; raises `UnreadableNetworkError`."""
        return OnnxReader(self.model, self.calibration, threads=threads)


def open_subject(
    path: Path,
    out: Path,
    architecture: str | None = None,
    input_px: int | None = None,
    weights_labels: str | None = None,
    name: str | None = None,
) -> Subject:
    """Open a bundle's folder, an ONNX file in one, or a weights file of an architecture, exported to `out`.

    A checkpoint of ours and the paper's own files tell their architecture, a checkpoint also its side and whom it
    learnt from; other weights are read at 256 px unless `input_px` says otherwise. `name` is how tables and plots call
    it, by default after the folder or file; `weights_labels` names the classes in the order of a weights file's
    outputs. Raises `SubjectError`, `BundleError`, and for weights what loading and exporting them raise.
    """
    if path.is_dir():
        return _of_bundle(path, path / MODEL_FILE, name or path.resolve().name)
    if not path.is_file():
        raise SubjectError(f"{path} is not there: name a bundle's folder, an .onnx file in one, or a weights file")
    if path.suffix == ONNX_SUFFIX:
        return _of_bundle(path.parent, path, name or f"{path.resolve().parent.name}/{path.stem}")
    if path.suffix not in WEIGHT_SUFFIXES:
        raise SubjectError(f"{path} is neither a bundle's folder, an .onnx file nor {', '.join(WEIGHT_SUFFIXES)}")
    return _of_weights(path, out, architecture, input_px, weights_labels, name or path.stem)


def _of_bundle(folder: Path, file: Path, name: str) -> Subject:
    report = read_bundle(folder).report
    calibration = Calibration(report.labels, report.temperature, report.uncertain_below)
    return Subject(
        name, report.architecture, report.input_px, file, _read(file), calibration, report, temperature_fitted=True
    )


def _of_weights(
    path: Path, out: Path, architecture: str | None, input_px: int | None, weights_labels: str | None, name: str
) -> Subject:
    from training.judging.exported import export_weights, told_of  # take torch along, which a bundle does not need

    told = told_of(path)
    architecture, input_px = architecture or told.architecture, input_px or told.input_px
    if architecture is None:
        raise SubjectError(f"{path} holds weights alone: say of which network with --architecture")
    model = export_weights(path, architecture, input_px, weights_labels)
    write_atomically(out / MODEL_FILE, model)
    return Subject(name, architecture, input_px, out / MODEL_FILE, model, Calibration(), told.learnt)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error}); train it again with `sliceloop train`") from error
