"""From the results of single frames to figures: pure functions."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sliceloop.capture_bench.draws import Drawn, Judge, recovered
from sliceloop.capture_bench.figures import (
    Abstention,
    CaptureFigures,
    EmptyFigures,
    FactorFigures,
    Group,
    Localisation,
    Paper,
    Reading,
    SeverityFigures,
    Share,
    StageTime,
    Times,
    Variant,
)
from sliceloop.capture_bench.look import DECODE, FrameResult, Logits, Look
from training.evaluate import Estimate

GOOD_IOU, WRONG_IOU = 0.95, 0.9
GEOMETRY = ("locate", "rectify", "photometry")
PLAIN_NETWORK, PAPER_CROP = "our picture, network without the simulator", "the paper's crop, our network"
REFUSED = -1
"""Answer of a frame that is not read."""

Answers = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """What is true of each slice of a benchmark: label (index into LABELS), patient, source, and the digital answers.

    An answer is an index into LABELS; `answers` is None where no network was given, `plain_answers` where no plain one.
    """

    labels: NDArray[np.int64]
    patients: tuple[str, ...]
    sources: tuple[str, ...]
    answers: Answers | None
    plain_answers: Answers | None


@dataclass(frozen=True)
class Table:
    """Frames with slices, and of each what is true of its slice."""

    results: tuple[FrameResult, ...]
    truth: Truth

    @classmethod
    def of(cls, results: Sequence[FrameResult], truth: Truth) -> "Table":
        """Join the results with their slices."""
        at = np.array([result.case.at for result in results], np.intp)
        return cls(
            tuple(results),
            Truth(
                truth.labels[at],
                tuple(truth.patients[i] for i in at),
                tuple(truth.sources[i] for i in at),
                None if truth.answers is None else truth.answers[at],
                None if truth.plain_answers is None else truth.plain_answers[at],
            ),
        )

    def looks(self, of: Callable[[FrameResult], Look | None]) -> list[Look]:
        """Return one path's looks; each frame has one."""
        return [look for result in self.results if (look := of(result)) is not None]

    def where(self, chosen: Iterable[bool]) -> "Table":
        """Return the frames under a mask."""
        at = np.flatnonzero(np.fromiter(chosen, bool))
        rows = tuple(self.results[i] for i in at)
        truth = replace(
            self.truth,
            labels=self.truth.labels[at],
            patients=tuple(self.truth.patients[i] for i in at),
            sources=tuple(self.truth.sources[i] for i in at),
            answers=None if self.truth.answers is None else self.truth.answers[at],
            plain_answers=None if self.truth.plain_answers is None else self.truth.plain_answers[at],
        )
        return Table(rows, truth)


def figures_of(results: Sequence[FrameResult], truth: Truth, *, simulated: bool) -> CaptureFigures:
    """Return every figure that the frames allow."""
    slices = [result for result in results if result.case.kind == "slice"]
    severities = sorted({result.case.severity for result in slices})
    return CaptureFigures(
        simulated=simulated,
        severities=tuple(
            part_figures(Table.of([r for r in slices if r.case.severity == severity], truth), named(severity), severity)
            for severity in severities
        ),
        empty=_empty_figures(results),
        factors=_factor_figures(results, truth),
        times=times_of(slices),
    )


def named(severity: float) -> str:
    """Name the frames of a severity."""
    return f"severity {severity:g}"


def part_figures(table: Table, name: str, severity: float | None = None) -> SeverityFigures:
    """Return the figures of frames that belong together; at least one is needed."""
    judge = Judge.of(table.truth.labels, table.truth.patients)
    whole = table.looks(lambda result: result.whole)
    return SeverityFigures(
        name=name,
        severity=severity,
        n_frames=len(table.results),
        n_slices=len({result.case.at for result in table.results}),
        n_patients=len(set(table.truth.patients)),
        localisation=localisation(whole),
        abstention=abstention(whole),
        reading=_reading(whole, table, judge),
        paper=_paper(table, judge),
        crossed=_crossed(table, judge),
        without=_variants(table),
        by_source=_groups(table, table.truth.sources),
        by_page=_groups(table, [result.page for result in table.results]),
    )


def localisation(looks: Sequence[Look]) -> Localisation:
    """Return how well the outline was found in frames that have one."""
    known = [(look.iou, look) for look in looks if look.iou is not None]
    ious, accepted = np.array([iou for iou, _ in known]), np.array([look.accepted for _, look in known], bool)
    return Localisation(
        n=len(known),
        mean=round(float(ious.mean()), 4) if known else None,
        p5=_percentile(ious, 5),
        at_least_095=share(ious >= GOOD_IOU),
        found=share(look.quad is not None for _, look in known),
        accepted_wrong=share(ious[accepted] < WRONG_IOU),
    )


def abstention(looks: Sequence[Look]) -> Abstention:
    """Return how many frames were refused, and why."""
    reasons = Counter(reason for look in looks for reason in look.refusals)
    return Abstention(refused=share(not look.accepted for look in looks), by_reason=dict(reasons.most_common()))


def share(of: Iterable[bool] | NDArray[np.bool_]) -> Share:
    """Count what is true."""
    told = [bool(one) for one in of]
    return Share(count=sum(told), of=len(told))


def times_of(results: Sequence[FrameResult]) -> Times:
    """Return the stages' times over the accepted frames, which went through all of them."""
    rows = [result.milliseconds for result in results if result.whole.accepted]
    stages = {
        stage: _stage_time([row[stage] for row in rows if stage in row])
        for stage in dict.fromkeys(stage for row in rows for stage in row)
    }
    timed = [row for row in rows if all(stage in row for stage in (*GEOMETRY, DECODE))]
    geometry = [sum(row[stage] for stage in GEOMETRY) for row in timed]
    ratios = [spent / row[DECODE] for spent, row in zip(geometry, timed, strict=True)]
    return Times(
        stages=stages,
        geometry=_stage_time(geometry) if geometry else None,
        ratio_median=_percentile(ratios, 50),
        ratio_p95=_percentile(ratios, 95),
    )


def answer_of(logits: Logits | None) -> int:
    """Return the class that the network names, as an index into LABELS; `REFUSED` without logits."""
    return REFUSED if logits is None else int(np.argmax(logits))


def _reading(
    looks: Sequence[Look],
    table: Table,
    judge: Judge,
    logits: Callable[[Look], Logits | None] = lambda look: look.logits,
    digital: Answers | None = None,
) -> Reading | None:
    digital = table.truth.answers if digital is None else digital
    if digital is None:
        return None
    answers = np.array([answer_of(logits(look)) for look in looks], np.int64)
    answered, everything = answers != REFUSED, np.ones(len(answers), bool)
    captured = judge.balanced(answers, answered)
    return Reading(
        digital=judge.balanced(digital, everything).estimate(),
        captured=captured.estimate(),
        loss=(judge.balanced(digital, answered) - captured).estimate(),
        refused_wrong=judge.balanced(answers, everything).estimate(),
        agreement=share(answers[answered] == digital[answered]),
    )


def _paper(table: Table, judge: Judge) -> Paper | None:
    looks, digital, plain = table.looks(lambda result: result.paper), table.truth.answers, table.truth.plain_answers
    if digital is None or plain is None or len(looks) != len(table.results):
        return None
    reading = _reading(looks, table, judge, lambda look: look.plain_logits, plain)
    assert reading is not None, "there is a digital answer"
    return Paper(
        localisation=localisation(looks),
        reading=reading,
        recovered=_recovered(table, judge, refused_wrong=False),
        recovered_refused_wrong=_recovered(table, judge, refused_wrong=True),
    )


def _recovered(table: Table, judge: Judge, *, refused_wrong: bool) -> Estimate | None:
    digital, plain = table.truth.answers, table.truth.plain_answers
    assert digital is not None
    assert plain is not None
    everything = np.ones(len(digital), bool)
    ours = np.array([answer_of(look.logits) for look in table.looks(lambda result: result.whole)], np.int64)
    theirs = np.array([answer_of(look.plain_logits) for look in table.looks(lambda result: result.paper)], np.int64)
    counted = everything if refused_wrong else ours != REFUSED
    drawn: Drawn = recovered(
        judge.balanced(digital, counted),
        judge.balanced(ours, counted),
        judge.balanced(plain, everything),
        judge.balanced(theirs, everything),
    )
    return drawn.estimate()


def _crossed(table: Table, judge: Judge) -> dict[str, Reading]:
    """Return what each half of our path is worth with the other half of the paper's."""
    ours, paper = table.looks(lambda result: result.whole), table.looks(lambda result: result.paper)
    crossed = {}
    if table.truth.plain_answers is not None:
        crossed[PLAIN_NETWORK] = _reading(ours, table, judge, lambda look: look.plain_logits, table.truth.plain_answers)
    if len(paper) == len(ours):
        crossed[PAPER_CROP] = _reading(paper, table, judge)
    return {name: reading for name, reading in crossed.items() if reading is not None}


def _variants(table: Table) -> dict[str, Variant]:
    stages = sorted({stage for result in table.results for stage in result.without})
    variants = {}
    for stage in stages:
        part = table.where(stage in result.without for result in table.results)
        looks = [result.without[stage] for result in part.results]
        judge = Judge.of(part.truth.labels, part.truth.patients)
        variants[stage] = Variant(
            localisation=localisation(looks), abstention=abstention(looks), reading=_reading(looks, part, judge)
        )
    return variants


def _groups(table: Table, names: Sequence[str]) -> tuple[Group, ...]:
    groups = []
    for name in sorted(set(names)):
        part = table.where(one == name for one in names)
        looks = part.looks(lambda result: result.whole)
        judge = Judge.of(part.truth.labels, part.truth.patients)
        reading = _reading(looks, part, judge)
        groups.append(Group(name=name, localisation=localisation(looks), abstention=abstention(looks), reading=reading))
    return tuple(groups)


def _empty_figures(results: Sequence[FrameResult]) -> tuple[EmptyFigures, ...]:
    empty = [result for result in results if result.case.scene is not None]
    keys = sorted({(str(result.case.scene), result.case.severity) for result in empty})
    return tuple(
        EmptyFigures(
            scene=scene,
            severity=severity,
            accepted=share(r.whole.accepted for r in empty if (r.case.scene, r.case.severity) == (scene, severity)),
        )
        for scene, severity in keys
    )


def _factor_figures(results: Sequence[FrameResult], truth: Truth) -> tuple[FactorFigures, ...]:
    alone = [result for result in results if result.case.only is not None]
    keys = sorted({(str(result.case.only), result.case.severity) for result in alone})
    found = []
    for factor, severity in keys:
        part = Table.of([r for r in alone if (r.case.only, r.case.severity) == (factor, severity)], truth)
        looks = part.looks(lambda result: result.whole)
        found.append(
            FactorFigures(
                factor=factor,
                severity=severity,
                localisation=localisation(looks),
                abstention=abstention(looks),
                agreement=_agreement(looks, part.truth.answers),
            )
        )
    return tuple(found)


def _agreement(looks: Sequence[Look], digital: Answers | None) -> Share | None:
    if digital is None:
        return None
    return share(
        answer_of(look.logits) == answer for look, answer in zip(looks, digital, strict=True) if look.logits is not None
    )


def _stage_time(milliseconds: Sequence[float]) -> StageTime:
    median, p95 = np.percentile(milliseconds, (50, 95))
    return StageTime(n=len(milliseconds), median_ms=round(float(median), 3), p95_ms=round(float(p95), 3))


def _percentile(values: Sequence[float] | NDArray[np.float64], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 4) if len(values) else None
