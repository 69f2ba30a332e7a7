"""One evaluation from the network's answers to the folder of outputs."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from protocol.labels import LABELS, Label
from training.durable import write_atomically
from training.judging.cost import count
from training.judging.figures import RESAMPLES, judge
from training.judging.page import REPORT_FILE, evaluation_page
from training.judging.plots import draw_plots
from training.judging.predictions import PREDICTIONS_FILE, Predictions, by_patient, write_predictions
from training.judging.record import DataFacts, ModelFacts, Record, origin, write_record
from training.judging.subject import Subject
from training.judging.unseen import LeakMark


@dataclass(frozen=True)
class Circumstances:
    """How the answers came about: what was left out, how long it took, and what the intervals are drawn with."""

    excluded_sources: Sequence[str] = ()
    threads: int = 1
    seconds: float = 0.0
    resamples: int = RESAMPLES
    seed: int = 0


def write_evaluation(
    out: Path, subject: Subject, predictions: Predictions, leak: LeakMark, circumstances: Circumstances
) -> Record:
    """Judge the answers by slice and by patient, and write predictions, plots, report and, last, evaluation.json."""
    resamples, seed = circumstances.resamples, circumstances.seed
    temperature, threshold = subject.calibration.temperature, subject.calibration.uncertain_below
    by_slice = judge(predictions, "slice", temperature, threshold, resamples, seed)
    patients = by_patient(predictions, temperature)
    of_patients = judge(patients, "patient", 1.0, threshold, resamples, seed)
    record = Record(
        leaked=leak.leaked,
        leak=leak,
        model=_model_facts(subject, out),
        data=DataFacts(
            split=predictions.split,
            n_slices=len(predictions),
            n_patients=by_slice.figures.evaluation.n_patients,
            sources=tuple(sorted(set(predictions.sources))),
            excluded_sources=tuple(circumstances.excluded_sources),
            patients=_patients(predictions),
            slices_sha256=predictions.slices_sha256(),
        ),
        by_slice=by_slice.figures,
        by_patient=of_patients.figures,
        origin=origin(circumstances.threads, resamples, seed, circumstances.seconds),
    )
    write_predictions(out / PREDICTIONS_FILE, replace(predictions, leaked=leak.leaked))
    plots = draw_plots(out, (by_slice, of_patients), record.model.name, leak)
    write_atomically(out / REPORT_FILE, evaluation_page(record, plots).encode())
    write_record(out, record)
    return record


def _patients(predictions: Predictions) -> dict[str, dict[Label, int]]:
    by_source: dict[str, dict[Label, set[str]]] = {}
    for source, label, patient in zip(predictions.sources, predictions.labels, predictions.patients, strict=True):
        by_source.setdefault(source, {}).setdefault(LABELS[label], set()).add(patient)
    return {
        source: {label: len(classes[label]) for label in LABELS if label in classes}
        for source, classes in sorted(by_source.items())
    }


def _model_facts(subject: Subject, out: Path) -> ModelFacts:
    learnt = subject.learnt
    return ModelFacts(
        name=subject.name,
        architecture=subject.architecture,
        input_px=subject.input_px,
        file=Path(os.path.relpath(subject.path.resolve(), out.resolve())).as_posix(),
        sha256=hashlib.sha256(subject.model).hexdigest(),
        cost=count(subject.model),
        labels=LABELS,
        temperature=subject.calibration.temperature,
        temperature_fitted=subject.temperature_fitted,
        uncertain_below=subject.calibration.uncertain_below,
        n_train_slices=learnt and learnt.n_train_slices,
        n_train_patients=learnt and learnt.n_train_patients,
        train_sources=learnt.train_sources if learnt else (),
        split_sha256=learnt and learnt.split_sha256,
    )
