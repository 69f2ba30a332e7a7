"""`sliceloop quantize`: a bundle's network as int8, calibrated on training slices, refused where it reads worse."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from protocol.labels import LABELS
from sliceloop.progress import counted
from training.bundle import Bundle, BundleError, Report, patient_keys, read_bundle, write_bundle
from training.checkpoint import loads
from training.data.check import missing_classes
from training.data.dataset import DataSet, load_split, open_dataset
from training.data.slices import LabelledSlice, LeakError, Pixels, SliceSet
from training.evaluate import evaluate
from training.export import PARITY_TOLERANCE, check_parity, fit_temperature
from training.figures import LEAKED_TEXT
from training.half import TOLERANCE as HALF_TOLERANCE
from training.judging.cost import processor, time_in_turns
from training.judging.unseen import TRAINED_ON
from training.likeness import LEARNT_SLICES, likeness_of, with_unlikeness
from training.model.reader import Calibration, OnnxReader
from training.quantize import (
    CALIBRATION_SLICES,
    Agreement,
    agreement,
    calibration_rows,
    quantize,
    refuse_fall,
    refuse_quantized,
)

_BATCH = 16
_PARITY_SLICES = 16


class MissingSplitError(ValueError):
    """The data set has no slices to calibrate on, or none of a class to judge by."""


def quantize_bundle(
    folder: Path,
    data: Path,
    out: Path,
    cache: Path | None,
    patient_rule: str | None = None,
    *,
    allow_leak: bool = False,
) -> None:
    """Write a bundle whose model.onnx is int8, and say what it costs and saves.

    Only sources that the network learnt from are used, where the data set has them. Raises `AccuracyFallError`, a
    `LeakError` unless it is allowed, and what reading the bundle and the data set raises; then nothing is written.
    """
    if out.resolve() == folder.resolve():
        raise BundleError(f"{out} is the bundle itself: give --out another folder, so that the float network stays")
    bundle = read_bundle(folder)
    refuse_quantized(bundle.model)
    opened = open_dataset(data, allow_leak=allow_leak, patient_rule=patient_rule)
    dataset = _of_known_sources(opened, bundle.report.train_sources)
    leaked = _leaked_patients(bundle.report, dataset, allow_leak=allow_leak)
    if leaked:
        typer.echo(LEAKED_TEXT.format(leaked))
    absent = [one.label for one in missing_classes(dataset.rows) if one.split == "val"]
    if 0 < len(absent) < len(LABELS):
        raise MissingSplitError(
            f"{dataset.folder} has no val slice of {', '.join(absent)}: whether int8 misses them cannot be told; "
            "add patients with it there"
        )
    learnt = _split(_with_rows(dataset, calibration_rows(_rows(dataset, "train"), LEARNT_SLICES)), "train", cache)
    calibration = learnt.select(range(min(len(learnt), CALIBRATION_SLICES)))
    validation = _split(dataset, "val", cache)
    float_difference = _float_parity(bundle, validation.pixels)
    typer.echo(f"quantizing, calibrated on {len(calibration)} training slices ...")
    model = quantize(bundle.model, calibration.pixels[:])
    model = with_unlikeness(model, likeness_of(model, learnt, validation))
    before, after = (
        _answers(name, one, validation.pixels) for name, one in (("float32", bundle.model), ("int8", model))
    )
    alike = agreement(before, after)
    typer.echo(f"float32 ONNX against torch: logits differ by up to {float_difference:.2g}")
    typer.echo(f"int8 against float32: {alike}")
    refuse_fall(before, after, validation.labels)
    report = _report(bundle, len(calibration), alike, after, validation)
    report = report.model_copy(update={"leaked_patients": leaked, "parity_difference": float_difference})
    write_bundle(out, Bundle(model, bundle.checkpoint, report))
    _summarise(bundle, Bundle(model, bundle.checkpoint, report), before, validation, out)


def _of_known_sources(dataset: DataSet, known: Sequence[str]) -> DataSet:
    """Leave out sources that the network never saw; all stay where none is known (another data set)."""
    rows = [row for row in dataset.rows if row.source in known]
    return _with_rows(dataset, rows) if rows else dataset


def _leaked_patients(report: Report, dataset: DataSet, *, allow_leak: bool) -> int:
    """Count the leak of the network's training and of this data set; raises `LeakError` unless it is allowed."""
    known = set(report.train_patient_keys)
    seen = {row.patient_id for row in _rows(dataset, "val") if known.intersection(patient_keys([row.patient_id]))}
    if seen and not allow_leak:
        raise LeakError(seen, TRAINED_ON)
    return max(report.leaked_patients, len(seen.union(dataset.leaked)))


def _with_rows(dataset: DataSet, rows: Sequence[LabelledSlice]) -> DataSet:
    return replace(dataset, rows=tuple(rows))


def _rows(dataset: DataSet, split: str) -> list[LabelledSlice]:
    return [row for row in dataset.rows if row.split == split]


def _split(dataset: DataSet, split: str, cache: Path | None) -> SliceSet:
    if not _rows(dataset, split):
        raise MissingSplitError(
            f"{dataset.folder} has no {split} slice: int8 is calibrated on train and judged on val; add patients there"
        )
    with counted(f"reading {split} slices") as on_slice:
        return load_split(dataset, split, cache=cache, on_slice=on_slice)


def _float_parity(bundle: Bundle, pixels: Pixels) -> float:
    network, _ = loads(bundle.checkpoint, architecture=bundle.report.architecture)
    tolerance = HALF_TOLERANCE if (bundle.report.settings or {}).get("half") else PARITY_TOLERANCE
    return check_parity(network, bundle.model, pixels[:_PARITY_SLICES], tolerance)


def _answers(name: str, model: bytes, pixels: Pixels) -> NDArray[np.float32]:
    reader = OnnxReader(model, Calibration())
    answers = []
    with counted(f"{name} reads validation slices") as on_slice:
        for start in range(0, len(pixels), _BATCH):
            answers.append(reader.logits(pixels[start : start + _BATCH]))
            on_slice(min(start + _BATCH, len(pixels)), len(pixels))
    return np.concatenate(answers)


def _report(
    bundle: Bundle, n_calibration: int, alike: Agreement, logits: NDArray[np.float32], validation: SliceSet
) -> Report:
    """Return the bundle's report with what the int8 network is worth, and what it was made of."""
    temperature = fit_temperature(logits, validation.labels)
    judged = evaluate(logits, validation.labels, validation.patients, validation.sources, temperature)
    return bundle.report.model_copy(
        update={
            "temperature": temperature,
            "validation": judged,
            "quantization": {
                "float_model_sha256": hashlib.sha256(bundle.model).hexdigest(),
                "n_calibration_slices": n_calibration,
                "agreement": alike.model_dump(),
            },
        }
    )


def _summarise(was: Bundle, is_now: Bundle, before: NDArray[np.float32], validation: SliceSet, out: Path) -> None:
    latency = time_in_turns({"float32": was.reader(), "int8": is_now.reader()})
    float_judged = evaluate(before, validation.labels, validation.patients, validation.sources)
    for name, bundle, judged in (("float32", was, float_judged), ("int8", is_now, is_now.report.validation)):
        typer.echo(
            f"{name:8} {len(bundle.model) / 1e6:6.2f} MB  {latency[name].median_ms:6.1f} ms a slice  "
            f"balanced accuracy {judged.balanced_accuracy}"
        )
    typer.echo(
        f"{len(validation)} validation slices of {len(set(validation.patients))} patients; median of "
        f"{latency['int8'].n} turns on one thread of {processor()}; in {out}"
    )
