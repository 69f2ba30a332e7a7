"""The search: every combination on its own fresh network, by Optuna, kept in one file after each."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.exceptions import StorageInternalError
from optuna.pruners import NopPruner, SuccessiveHalvingPruner
from optuna.samplers import GridSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial
from sqlalchemy.exc import OperationalError

from training.data.slices import SliceSet
from training.evaluate import Estimate, evaluate
from training.kept import OtherRunError, SearchStoppedError, run_identity
from training.plan import Progress, TrainSettings
from training.pulse import DeadRunError
from training.train import read_logits, train
from training.tune.space import SPACE, combination
from training.tune.table import TuneRow

Method = Literal["grid", "halving"]
TRIALS_FILE = "trials.sqlite"
_STUDY = "tune"
_ROW, _RUN = "row", "run"
REDUCTION = 2
"""Halving: of those that reached 1, 2, 4, ... epochs, the better half goes on."""
_TIE_NATS = 1e-3
"""A nat of validation loss weighs as little: it tells those apart that all give one answer to every slice."""


class TrialsFileError(RuntimeError):
    """The file of the finished combinations cannot be written or read; those in it stay."""


@dataclass(frozen=True)
class TunePlan:
    """How the space is searched; `settings.epochs` is for each combination, in halving for those that stay."""

    method: Method
    input_px: int
    settings: TrainSettings
    space: dict[str, tuple[str, ...]]

    @property
    def combinations(self) -> int:
        """Return how many there are."""
        return math.prod(len(values) for values in self.space.values())


def paper_plan(method: Method, input_px: int, settings: TrainSettings) -> TunePlan:
    """Return the search of all of SPACE."""
    return TunePlan(method, input_px, settings, SPACE)


def search(
    plan: TunePlan,
    train_slices: SliceSet,
    validation: SliceSet,
    folder: Path,
    *,
    on_row: Callable[[TuneRow, int, int], None] = lambda _row, _done, _total: None,
    stop: threading.Event | None = None,
    allow_leak: bool = False,
) -> tuple[TuneRow, ...]:
    """Train each combination from fresh weights and return a row for each, in the order of the search.

    Finished combinations are kept in the folder; one that a stop or a kill cut in the middle is run again. `on_row`
    hears of each finished one and how many of how many are done. Raises `OtherRunError` for a folder of another
    search, `LeakError`, `MissingClassError`, `TrialsFileError`, and `TrainingStoppedError` when stopped.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _named_faults(folder / TRIALS_FILE):
        return _search(plan, train_slices, validation, folder, on_row, stop, allow_leak)


def _search(
    plan: TunePlan,
    train_slices: SliceSet,
    validation: SliceSet,
    folder: Path,
    on_row: Callable[[TuneRow, int, int], None],
    stop: threading.Event | None,
    allow_leak: bool,
) -> tuple[TuneRow, ...]:
    study = _open(folder / TRIALS_FILE, plan, run_identity(plan, train_slices.sha256(), validation.sha256()))

    def objective(trial: Trial) -> float:
        if stop is not None and stop.is_set():
            raise SearchStoppedError(trial.number)
        return _TrialRun(trial, plan, train_slices, validation).run(stop, allow_leak)

    def tell(_study: Study, trial: FrozenTrial) -> None:
        on_row(_row_of(trial), trial.number + 1, plan.combinations)

    left = plan.combinations - len(study.trials)
    if left > 0:
        study.optimize(objective, n_trials=left, callbacks=[tell], catch=(DeadRunError,))
    return tuple(_row_of(trial) for trial in study.trials)


class _TrialRun:
    """One combination, trained from fresh weights; its row is left with Optuna's trial."""

    def __init__(self, trial: Trial, plan: TunePlan, train_slices: SliceSet, validation: SliceSet) -> None:
        self._trial, self._plan = trial, plan
        self._train, self._validation = train_slices, validation
        self._params = {name: str(trial.suggest_categorical(name, values)) for name, values in plan.space.items()}
        self._network = combination(self._params).network(plan.input_px, plan.settings.seed)
        self._history: list[Progress] = []
        self._started_s = time.monotonic()

    def run(self, stop: threading.Event | None, allow_leak: bool) -> float:
        """Return the score of the best epoch; raises `TrialPruned`, and what `train` raises."""
        settings = self._plan.settings.model_copy(update={"optimizer": combination(self._params).optimizer})
        try:
            trained = train(
                self._network,
                self._train,
                self._validation,
                settings,
                on_epoch=self._hear,
                stop=stop,
                allow_leak=allow_leak,
            )
        except DeadRunError as error:
            self._leave(fault=str(error))
            raise
        self._leave(figures=trained.best, balanced_accuracy=self._judge(trained.validation_logits))
        return _score(trained.best)

    def _hear(self, progress: Progress) -> None:
        self._history.append(progress)
        if self._plan.method == "grid" or progress.epoch == progress.epochs:
            return
        self._trial.report(_score(progress), progress.epoch)
        if self._trial.should_prune():
            logits = read_logits(self._network, self._validation.pixels)
            self._leave(figures=progress, balanced_accuracy=self._judge(logits), stopped=True)
            raise optuna.TrialPruned

    def _judge(self, logits: NDArray[np.float32]) -> Estimate:
        slices = self._validation
        return evaluate(logits, slices.labels, slices.patients, slices.sources).balanced_accuracy

    def _leave(self, **outcome: object) -> None:
        row = {
            "parameters": sum(parameter.numel() for parameter in self._network.parameters()),
            "epochs": len(self._history),
            "by_epoch": tuple(epoch.validation_balanced_accuracy for epoch in self._history),
            "seconds": time.monotonic() - self._started_s,
        }
        self._trial.set_user_attr(_ROW, TuneRow.model_validate(self._params | row | outcome).model_dump(mode="json"))


def _open(path: Path, plan: TunePlan, run: str) -> Study:
    """Open the file's study, without what was cut in the middle; raises `OtherRunError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with _storage(path) as storage:
            kept = optuna.load_study(study_name=_STUDY, storage=storage)
            known, trials = kept.user_attrs.get(_RUN), kept.trials
        if known != run:
            raise OtherRunError(
                f"{path} holds another search (data, space or settings differ): give another folder, or remove it"
            )
        _write_anew(path, run, [trial for trial in trials if _ROW in trial.user_attrs and trial.state.is_finished()])
    else:
        _write_anew(path, run, [])
    pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    return optuna.load_study(
        study_name=_STUDY,
        storage=RDBStorage(_url(path)),
        sampler=GridSampler(plan.space, seed=plan.settings.seed),
        pruner=pruner if plan.method == "halving" else NopPruner(),
    )


def _write_anew(path: Path, run: str, finished: list[FrozenTrial]) -> None:
    """Replace the file by one that holds the finished trials alone.

    They are numbered through, so that the grid goes on with the combination that was cut, and halving compares with
    nothing that an unharmed search would not have had.
    """
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with _storage(fresh) as storage:
        study = optuna.create_study(study_name=_STUDY, storage=storage, direction="maximize")
        study.set_user_attr(_RUN, run)
        study.add_trials(finished)
    fresh.replace(path)


@contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    """Name the file where SQLite cannot write it: Optuna lets its errors through as they are, or wraps them."""
    try:
        yield
    except (OperationalError, StorageInternalError) as error:
        reason = getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error
        raise TrialsFileError(
            f"{path} cannot be written ({reason}): free space there and check its rights; finished combinations stay"
        ) from error


@contextmanager
def _storage(path: Path) -> Iterator[RDBStorage]:
    storage = RDBStorage(_url(path))
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"


def _row_of(trial: FrozenTrial) -> TuneRow:
    return TuneRow.model_validate(trial.user_attrs[_ROW])


def _score(progress: Progress) -> float:
    return progress.validation_balanced_accuracy - _TIE_NATS * progress.validation_loss
