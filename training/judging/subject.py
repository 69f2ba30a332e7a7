"""The network that is judged: a bundle's ONNX file, an int8 variant beside it, or weights from elsewhere, exported."""

from dataclasses import dataclass
from pathlib import Path

from protocol.manifest import MODEL_FILE
from training.bundle import BundleError, Report, read_bundle
from training.judging.durable import write_atomically
from training.model.preprocess import INPUT_PX
from training.model.reader import Calibration, OnnxReader

ONNX_SUFFIX = ".onnx"
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")


class SubjectError(ValueError):
    """A path that names no network to judge; the message says what is needed."""


@dataclass(frozen=True)
class Subject:
    """An ONNX network and how to read it; `report` is None where we did not train it."""

    name: str
    architecture: str
    input_px: int
    path: Path
    model: bytes
    calibration: Calibration
    report: Report | None

    def reader(self, *, threads: int = 1) -> OnnxReader:
        """Load the network; raises `UnreadableNetworkError`."""
        return OnnxReader(self.model, self.calibration, threads=threads)


def open_subject(
    path: Path,
    out: Path,
    architecture: str | None = None,
    input_px: int = INPUT_PX,
    weights_labels: str | None = None,
    name: str | None = None,
) -> Subject:
    """Open a bundle's folder, an ONNX file in one, or a weights file of an architecture, exported to `out`.

    `name` is how tables and plots call it, by default after the folder or file; `weights_labels` names the classes in
    the order of a weights file's outputs. Raises `SubjectError`, `BundleError`, and for weights what loading and
    exporting them raise.
    """
    if path.is_dir():
        return _of_bundle(path, path / MODEL_FILE, name or path.resolve().name)
    if not path.is_file():
        raise SubjectError(f"{path} is not there: name a bundle's folder, an .onnx file in one, or a weights file")
    if path.suffix == ONNX_SUFFIX:
        return _of_bundle(path.parent, path, name or f"{path.resolve().parent.name}/{path.stem}")
    if path.suffix not in WEIGHT_SUFFIXES:
        raise SubjectError(f"{path} is neither a bundle's folder, an .onnx file nor {', '.join(WEIGHT_SUFFIXES)}")
    if architecture is None:
        raise SubjectError(f"{path} holds weights alone: say of which network with --architecture")
    model = _exported(path, architecture, input_px, weights_labels)
    write_atomically(out / MODEL_FILE, model)
    return Subject(name or path.stem, architecture, input_px, out / MODEL_FILE, model, Calibration(), None)


def _of_bundle(folder: Path, file: Path, name: str) -> Subject:
    report = read_bundle(folder).report
    calibration = Calibration(report.labels, report.temperature, report.uncertain_below)
    return Subject(name, report.architecture, report.input_px, file, _read(file), calibration, report)


def _exported(path: Path, architecture: str, input_px: int, weights_labels: str | None) -> bytes:
    from training.judging.exported import export_weights  # takes torch along, which a bundle does not need

    return export_weights(path, architecture, input_px, weights_labels)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error}); train it again with `sliceloop train`") from error
