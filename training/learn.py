"""From labelled slices to a bundle: train, calibrate, judge, export, and prove that the export answers the same."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import torch

from training.bundle import Bundle, CapturedFigure, Report, SimulatedViews, patient_keys
from training.captured import Views
from training.checkpoint import Provenance, dumps
from training.data.slices import SliceSet, split_sha256
from training.device import pick_device
from training.evaluate import evaluate
from training.export import PARITY_TOLERANCE, check_parity, export_onnx, fit_temperature
from training.half import TOLERANCE as HALF_TOLERANCE
from training.half import with_half_weights
from training.likeness import likeness_of, with_unlikeness
from training.networks import Network
from training.parallel import ALONE, Team
from training.plan import Progress, TrainSettings
from training.provenance import code_commit, hardware
from training.train import Trained, train
from training.weights import UNTRAINED, StartWeights

PARITY_SLICES = 8


def learn(
    network: Network,
    train_slices: SliceSet,
    validation: SliceSet,
    settings: TrainSettings,
    *,
    on_epoch: Callable[[Progress], None],
    stop: threading.Event | None = None,
    resume_folder: Path | None = None,
    start: StartWeights = UNTRAINED,
) -> Bundle:
    """Train the network in place, from the weights that it has, and return it as a bundle.

    `start` is what is known of those weights. Raises `LeakedWeightsError`, `TaughtBeforeError`, and what `train` and
    `check_parity` raise.
    """
    started_s = time.monotonic()
    start.refuse_leaked()
    start.refuse_judging(validation.patients)
    trained = train(
        network, train_slices, validation, settings, on_epoch=on_epoch, stop=stop, resume_folder=resume_folder
    )
    return bundle_of(trained, train_slices, validation, settings, started_s, start=start)


def bundle_of(
    trained: Trained,
    train_slices: SliceSet,
    validation: SliceSet,
    settings: TrainSettings,
    started_s: float,
    *,
    views: Views | None = None,
    leaked: Collection[str] = (),
    start: StartWeights = UNTRAINED,
    team: Team = ALONE,
) -> Bundle:
    """Calibrate, judge and export a trained network; raises what `check_parity` raises.

    `started_s` is the monotonic time at which training began; `leaked` are patients known to stand on two sides of the
    data set's split, to which those on these two sides are added, and those judged who taught the weights at the start.
    """
    logits = trained.validation_logits
    temperature = fit_temperature(logits, validation.labels)
    exported = with_half_weights(export_onnx(trained.network)) if settings.half else export_onnx(trained.network)
    likeness = likeness_of(exported, train_slices, validation, threads=settings.threads)
    model = with_unlikeness(exported, likeness)
    tolerance = HALF_TOLERANCE if settings.half else PARITY_TOLERANCE
    parity = check_parity(trained.network, model, validation.pixels[:PARITY_SLICES], tolerance, likeness=likeness)
    shared = set(leaked) | (set(train_slices.patients) & set(validation.patients))
    shared |= start.taught_by(validation.patients)
    report = Report(
        architecture=trained.network.architecture,
        input_px=trained.network.input_px,
        temperature=temperature,
        training_data_sha256=train_slices.sha256(),
        split_sha256=split_sha256(train_slices, validation),
        seed=settings.seed,
        n_train_slices=len(train_slices),
        n_train_patients=len(set(train_slices.patients)),
        train_sources=tuple(sorted(set(train_slices.sources))),
        n_train_by_source=dict(sorted(Counter(train_slices.sources).items())),
        train_patient_keys=tuple(sorted(start.patient_keys.union(patient_keys(train_slices.patients)))),
        leaked_patients=max(len(shared), start.leaked_patients),
        start_weights=start.name,
        start_patients_known=start.patients_known,
        parity_difference=parity,
        validation=evaluate(logits, validation.labels, validation.patients, validation.sources, temperature),
        seconds=time.monotonic() - started_s,
        settings=trained.settings,
        history=trained.history,
        simulated_views=None if views is None else _simulated(trained, validation, views),
    )
    return Bundle(model, dumps(trained.network, _provenance(report, settings, team)), report)


def _simulated(trained: Trained, validation: SliceSet, views: Views) -> SimulatedViews:
    """Tell what the views are, and judge each view of validation's slices by itself."""
    digital = trained.validation_logits.argmax(1)
    figures = []
    for severity, logits in zip(views.validation.story.severities, trained.captured_logits, strict=True):
        judged = evaluate(logits, validation.labels, validation.patients, validation.sources)
        figures.append(
            CapturedFigure(
                severity=severity,
                n_slices=judged.n_slices,
                n_patients=judged.n_patients,
                balanced_accuracy=judged.balanced_accuracy,
                same_answer=float((logits.argmax(1) == digital).mean()),
            )
        )
    return SimulatedViews(
        train=views.train.story.made(), validation=views.validation.story.made(), figures=tuple(figures)
    )


def _provenance(report: Report, settings: TrainSettings, team: Team) -> Provenance:
    device: torch.device = pick_device(settings.device, team.local_rank)
    return Provenance(
        seed=settings.seed,
        data_sha256=report.training_data_sha256,
        split_sha256=report.split_sha256,
        commit=code_commit(),
        hardware=hardware(device, settings.threads, team.size),
        settings=report.settings or {},
        n_train_slices=report.n_train_slices,
        n_train_patients=report.n_train_patients,
        train_sources=report.train_sources,
        train_patient_keys=report.train_patient_keys,
        leaked_patients=report.leaked_patients,
        start_weights=report.start_weights,
        start_patients_known=report.start_patients_known,
    )
