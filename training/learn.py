"""From labelled slices to a bundle: train, calibrate, judge, export, and prove that the export answers the same."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from training.bundle import Bundle, Report
from training.checkpoint import Provenance, dumps
from training.data.slices import SliceSet, split_sha256
from training.evaluate import evaluate
from training.export import check_parity, export_onnx, fit_temperature
from training.networks import Network
from training.plan import Progress, TrainSettings
from training.train import train

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
) -> Bundle:
    """Train the network in place and return it as a bundle; raises what `train` and `check_parity` raise."""
    started_s = time.monotonic()
    trained = train(
        network, train_slices, validation, settings, on_epoch=on_epoch, stop=stop, resume_folder=resume_folder
    )
    logits = trained.validation_logits
    temperature = fit_temperature(logits, validation.labels)
    model = export_onnx(trained.network)
    check_parity(trained.network, model, validation.pixels[:PARITY_SLICES])
    split = split_sha256(train_slices, validation)
    report = Report(
        architecture=trained.network.architecture,
        input_px=trained.network.input_px,
        temperature=temperature,
        training_data_sha256=train_slices.sha256(),
        split_sha256=split,
        seed=settings.seed,
        n_train_slices=len(train_slices),
        n_train_patients=len(set(train_slices.patients)),
        train_sources=tuple(sorted(set(train_slices.sources))),
        validation=evaluate(logits, validation.labels, validation.patients, validation.sources, temperature),
        seconds=time.monotonic() - started_s,
    )
    provenance = Provenance(seed=settings.seed, data_sha256=report.training_data_sha256, split_sha256=split)
    return Bundle(model, dumps(trained.network, provenance), report)
