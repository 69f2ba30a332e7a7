"""The shortcut audit: what a simple classifier reads from each view, judged on patients that it did not learn from."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from protocol.labels import LABELS
from training.data.lungs import Region
from training.evaluate import Estimate
from training.explore.views import WITHOUT_LUNGS, View, Views

FOLDS = 5
"""Each patient is judged once, by a classifier that learned from the patients of the four other folds."""
LEAST_PATIENTS = FOLDS
"""A class or source with fewer patients cannot be in every fold, and is left out of the rows that need it."""
COMPONENTS = 64
"""A view of more numbers than these is reduced to its main components, fitted on the fold's training patients."""
RESAMPLES = 1000
_ITERATIONS = 500
_INTERVAL = (2.5, 97.5)

Features = NDArray[np.float32]
Names = NDArray[np.str_]


class Row(BaseModel):
    """How well `target` (class or source) is told from `view` on the `slices` of a population."""

    model_config = ConfigDict(frozen=True)
    target: str
    population: str
    view: View
    answers: tuple[str, ...]
    """What there was to choose from."""
    n_slices: int
    n_patients: int
    balanced_accuracy: Estimate
    chance: float
    recall: dict[str, float]
    holds_lung: bool
    """Whether lung tissue can be in the view; a border of slices that are lungs only is the lungs' own rim."""

    @property
    def skill(self) -> float:
        """Return how far it stands between guessing (0) and always right (1)."""
        return (self.balanced_accuracy.value - self.chance) / (1 - self.chance)

    @property
    def beats_guessing(self) -> bool:
        """Tell whether the whole interval lies above chance."""
        return self.balanced_accuracy.low > self.chance


class Audit(BaseModel):
    """All rows; `left_out` says in sentences what could not be asked, and why."""

    model_config = ConfigDict(frozen=True)
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]

    def rows_of(self, target: str, population: str) -> tuple[Row, ...]:
        """Return one block of rows, in the order of the views."""
        return tuple(row for row in self.rows if (row.target, row.population) == (target, population))

    def best_without_lungs(self, target: str, population: str) -> Row | None:
        """Return the row of a block that tells most without any lung; None where there is none."""
        rows = [row for row in self.rows_of(target, population) if not row.holds_lung]
        return max(rows, key=lambda row: row.skill, default=None)

    def blocks(self) -> tuple[tuple[str, str], ...]:
        """Return target and population of each block, in order."""
        return tuple(dict.fromkeys((row.target, row.population) for row in self.rows))


CLASS, SOURCE = "class", "source"
ALL_SLICES, WHOLE_BODIES = "all slices", "whole bodies"


@dataclass(frozen=True)
class _Question:
    """A block of rows: what to tell (`truth`, a name for each slice), on which slices, from which views."""

    target: str
    population: str
    views: tuple[View, ...]
    slices: Views
    truth: Names


def audit(views: Views, seed: int, on_row: Callable[[int, int], None]) -> Audit:
    """Ask every question; `on_row` hears how many of how many rows are done."""
    left_out: list[str] = []
    questions = [_only_frequent(question, left_out) for question in _questions(views)]
    asked = [(question, view) for question in questions if question is not None for view in question.views]
    rows: list[Row] = []
    with threadpool_limits(1):  # sums in one order, so that the same seed gives the same numbers
        for question, view in asked:
            rows.append(_row(question, view, seed))
            on_row(len(rows), len(asked))
    return Audit(rows=tuple(rows), left_out=tuple(left_out))


def answers_out_of_fold(features: Features, truth: Names, strata: Names, patients: Sequence[str], seed: int) -> Names:
    """Return the classifier's answer for each slice, from the folds that its patient is not in."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    answers = np.empty_like(truth)
    with warnings.catch_warnings():
        # A source's class of three slices cannot be in five folds; that it is in three is all that is wanted of it.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = list(folds.split(features, strata, np.asarray(patients)))
    for learned, judged in parts:
        answers[judged] = (
            _classifier(features[learned], seed).fit(features[learned], truth[learned]).predict(features[judged])
        )
    return answers


def balanced_accuracy(answers: Names, truth: Names, patients: Sequence[str], seed: int) -> Estimate:
    """Return the mean recall over the names in `truth`, its interval from patients drawn within each name.

    As `training.evaluate` does it for the three classes, for any number of names.
    """
    names, index = np.unique(truth, return_inverse=True)
    people, person = np.unique(np.asarray(patients), return_inverse=True)
    cell = person * len(names) + index
    size = len(people) * len(names)
    hits = np.bincount(cell, answers == truth, size).reshape(len(people), -1)
    slices = np.bincount(cell, minlength=size).reshape(len(people), -1)
    times = _draws(slices.argmax(1), seed)
    drawn = ((times @ hits) / np.maximum(times @ slices, 1)).mean(1)
    low, high = np.percentile(drawn, _INTERVAL)
    return Estimate(value=float((hits.sum(0) / slices.sum(0)).mean()), low=float(low), high=float(high))


def _draws(stratum: NDArray[np.intp], seed: int) -> NDArray[np.float64]:
    """Return how often each patient is drawn [resamples, patients], with replacement within the strata."""
    random = np.random.default_rng(seed)
    times = np.zeros((RESAMPLES, len(stratum)))
    for one in np.unique(stratum):
        members = np.flatnonzero(stratum == one)
        times[:, members] = random.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES)
    return times


def _questions(views: Views) -> list[_Question]:
    """Return class and source on all slices and on whole bodies, then class within each source."""
    whole = np.array([region is Region.WHOLE_BODY for region in views.regions])
    populations = [(ALL_SLICES, views, _views_of_all(views, whole))]
    if whole.any() and not whole.all():
        populations.append((WHOLE_BODIES, views.select(whole), _VIEWS_OF_WHOLE_BODIES))
    questions = []
    for target in (CLASS, SOURCE):
        for population, slices, asked in populations:
            known = (View.SOURCE,) if target == CLASS and len(set(slices.sources)) > 1 else ()
            questions.append(_Question(target, population, known + asked, slices, _truth(slices, target)))
    return questions + [_within(views, source, whole) for source in sorted(set(views.sources))]


_VIEWS_OF_WHOLE_BODIES = (View.BORDER, View.NO_LUNGS, View.HISTOGRAM, View.LUNGS, View.WHOLE)
_VIEWS_OF_ANY = (View.BORDER, View.HISTOGRAM, View.WHOLE)


def _views_of_all(views: Views, whole: NDArray[np.bool_]) -> tuple[View, ...]:
    if whole.all():
        return _VIEWS_OF_WHOLE_BODIES
    cut_out = (View.CUT_OUT,) if len(np.unique(views.of(View.CUT_OUT))) > 1 else ()
    return cut_out + _VIEWS_OF_ANY


def _within(views: Views, source: str, whole: NDArray[np.bool_]) -> _Question:
    """Ask for the class inside a source: of its whole bodies where they are its most, of all its slices elsewhere."""
    inside = np.array([name == source for name in views.sources])
    has_bodies = whole[inside].mean() > 0.5
    slices = views.select(inside & whole if has_bodies else inside)
    asked = _VIEWS_OF_WHOLE_BODIES if has_bodies else _VIEWS_OF_ANY
    return _Question(CLASS, source, asked, slices, _truth(slices, CLASS))


def _truth(slices: Views, target: str) -> Names:
    names = slices.sources if target == SOURCE else tuple(LABELS[label].value for label in slices.labels)
    return np.array(names, dtype=np.str_)


def _only_frequent(question: _Question, left_out: list[str]) -> _Question | None:
    """Leave out what too few patients have, and the whole question where fewer than two answers remain; say so."""
    people = {
        str(name): len({question.slices.patients[at] for at in np.flatnonzero(question.truth == name)})
        for name in np.unique(question.truth)
    }
    rare = [name for name, n in people.items() if n < LEAST_PATIENTS]
    where = f"{question.target} of {question.population}"
    if len(people) - len(rare) < 2:
        had = ", ".join(f"{name}: {n}" for name, n in people.items())
        left_out.append(f"{where}: not asked, it takes two answers with {LEAST_PATIENTS} patients each ({had})")
        return None
    if not rare:
        return question
    left_out.append(f"{where}: without {', '.join(rare)} (fewer than {LEAST_PATIENTS} patients)")
    kept = ~np.isin(question.truth, rare)
    return _Question(
        question.target, question.population, question.views, question.slices.select(kept), question.truth[kept]
    )


def _row(question: _Question, view: View, seed: int) -> Row:
    slices, truth = question.slices, question.truth
    strata = np.char.add(_truth(slices, SOURCE), _truth(slices, CLASS))
    answers = answers_out_of_fold(slices.of(view), truth, strata, slices.patients, seed)
    names = [str(name) for name in np.unique(truth)]
    return Row(
        target=question.target,
        population=question.population,
        view=view,
        answers=tuple(names),
        n_slices=len(truth),
        n_patients=len(set(slices.patients)),
        balanced_accuracy=balanced_accuracy(answers, truth, slices.patients, seed),
        chance=1 / len(names),
        recall={name: float((answers[truth == name] == name).mean()) for name in names},
        holds_lung=_holds_lung(view, slices.regions),
    )


def _holds_lung(view: View, regions: Sequence[Region]) -> bool:
    return view not in WITHOUT_LUNGS or (view is View.BORDER and any(one is not Region.WHOLE_BODY for one in regions))


def _classifier(features: Features, seed: int) -> Pipeline:
    """Build standardised main components and a logistic regression in which every answer weighs the same."""
    components = min(COMPONENTS, len(features) - 1)
    reduce = [PCA(components, svd_solver="randomized", random_state=seed)] if features.shape[1] > COMPONENTS else []
    regression = LogisticRegression(class_weight="balanced", max_iter=_ITERATIONS)
    return make_pipeline(*reduce, StandardScaler(), regression)
