"""`sliceloop bench capture-score`: what a real webcam makes of the slides of a page, from a recording of them."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import typer
from numpy.typing import NDArray

from edge_agent.capture.located import Locate
from edge_agent.capture.webcam_settings import WebcamSettings
from protocol.labels import LABELS
from sliceloop.capture_bench.cases import Case
from sliceloop.capture_bench.development import with_unlikeness
from sliceloop.capture_bench.draws import RESAMPLES
from sliceloop.capture_bench.feed import Arrived, arriving, camera_source
from sliceloop.capture_bench.figures import CaptureFigures
from sliceloop.capture_bench.look import FrameResult, decoded, look_at, refused_look
from sliceloop.capture_bench.measures import Table, Truth, part_figures, share, times_of
from sliceloop.capture_bench.measuring import one_core
from sliceloop.capture_bench.origin import FILMED, SIMULATED, CaptureRecord, DataFacts, RecordingFacts
from sliceloop.capture_bench.page import PageRecord, read_page
from sliceloop.capture_bench.path import Paths
from sliceloop.capture_bench.plots import draw_plots
from sliceloop.capture_bench.report import capture_page, summary
from sliceloop.capture_bench.run import DRAWN_PHANTOMS, PAGE_FILE, RECORD_FILE, STOPPED
from sliceloop.capture_bench.slices import BenchStoppedError, Networks, is_of_phantoms, read_logits
from sliceloop.capture_bench.slide import read_slide
from sliceloop.capture_bench.subjects import Subjects, network_facts, open_subjects
from sliceloop.progress import counted
from training.data.slices import LeakError
from training.durable import write_atomically
from training.judging.record import origin
from training.judging.subject import Subject
from training.judging.unseen import TRAINED_ON, LeakMark

Trigger = Literal["still", "interval"]

INTERVAL_S = 0.5
NEVER_TAKEN = "never-taken"
"""Reason of a slide that no picture was taken of, or whose tags could not be read."""
EACH_SLIDE, EVERY_PICTURE = "each slide", "every picture"


@dataclass(frozen=True)
class ScoreRequest:
    """What the user asked for; `simulated` says that the recording was rendered, and marks all outputs."""

    recording: Path
    page: Path
    out: Path
    model: Path | None
    plain_model: Path | None
    trigger: Trigger
    json: Path | None
    simulated: bool
    allow_leak: bool
    calibrated: bool = False


@dataclass(frozen=True)
class _Pictures:
    """The pictures that were taken: named by their tags, and how many of the others were accepted."""

    named: tuple[FrameResult, ...]
    others: tuple[FrameResult, ...]


def score_recording(request: ScoreRequest, paths: Paths, locate: Locate, stop: threading.Event) -> CaptureRecord:
    """Score, print, and write capture.json, capture.md and plots.

    Raises `PageError`, `FeedError`, `LeakError` and what opening networks raises; ends with 130 after a stop.
    """
    started_s = time.monotonic()
    page = read_page(request.page)
    subjects = open_subjects(request.model, request.plain_model, request.out)
    leaks = [_leak(page, one, allow_leak=request.allow_leak) for one in (subjects.served, subjects.plain)]
    networks = subjects.networks()
    paths = with_unlikeness(paths, networks.served)
    try:
        with one_core():
            pictures = _taken(request, page, paths, networks, locate, stop)
    except BenchStoppedError as error:
        typer.echo(str(error))
        raise typer.Exit(STOPPED) from None
    parts = {EACH_SLIDE: _each_slide(page, pictures.named), EVERY_PICTURE: list(pictures.named)}
    parts = {name: results for name, results in parts.items() if results}
    record = _record(request, page, subjects, leaks, networks, pictures, parts, time.monotonic() - started_s)
    drawn = draw_plots(request.out, record.figures, parts)
    json = record.model_dump_json(indent=2).encode()
    write_atomically(request.out / PAGE_FILE, capture_page(record, drawn).encode())
    write_atomically(request.out / RECORD_FILE, json)
    if request.json is not None:
        write_atomically(request.json, json)
    for line in summary(record):
        typer.echo(line)
    typer.echo(f"{RECORD_FILE}, {PAGE_FILE} and plots in {request.out}")
    return record


def as_the_edge(recording: Path, trigger: Trigger) -> WebcamSettings:
    """Return the edge's own settings for a recording, as fast as it is read."""
    return WebcamSettings(device=str(recording), trigger=trigger, interval_s=INTERVAL_S, pace="fast")


def _taken(
    request: ScoreRequest, page: PageRecord, paths: Paths, networks: Networks, locate: Locate, stop: threading.Event
) -> _Pictures:
    shapes = {number: (one.height, one.width) for number, one in enumerate(page.slices)}
    named: list[FrameResult] = []
    others: list[FrameResult] = []
    seen: set[int] = set()
    source = camera_source(as_the_edge(request.recording, request.trigger), locate)
    with source, counted("slides in the recording") as on_slide:
        for count, arrived in enumerate(arriving(source)):
            if stop.is_set():
                raise BenchStoppedError("stopped: nothing was written; the same command begins anew")
            result = _look(count, arrived, shapes, paths, networks)
            if not result.whole.accepted:
                source.take_again()
            (others if result.case.at < 0 else named).append(result)
            seen.add(result.case.at)
            on_slide(len(seen - {-1}), len(page.slices))
    return _Pictures(tuple(named), tuple(others))


def _look(
    count: int, arrived: Arrived, shapes: dict[int, tuple[int, int]], paths: Paths, networks: Networks
) -> FrameResult:
    if arrived.jpeg is None:
        return refused_look(_case(-1, count), "", None, arrived.refusal)
    slide = read_slide(decoded(arrived.jpeg), shapes)
    case = _case(-1 if slide is None else slide.number, count)
    return look_at(case, "", None if slide is None else slide.quad, arrived.jpeg, paths, networks)


def _case(number: int, count: int) -> Case:
    """Return the case of a filmed picture; its number stands in for a seed."""
    return Case(kind="slice", severity=0.0, seed=count, at=number)


def _each_slide(page: PageRecord, named: Sequence[FrameResult]) -> list[FrameResult]:
    """Return for each slide its first accepted picture, or its last refused one, or that it was never taken."""
    return list(_one_of_each(len(page.slices), named))


def _one_of_each(count: int, named: Sequence[FrameResult]) -> Iterator[FrameResult]:
    for number in range(count):
        pictures = [result for result in named if result.case.at == number]
        accepted = [result for result in pictures if result.whole.accepted]
        missing = refused_look(_case(number, -1), "", None, NEVER_TAKEN)
        yield accepted[0] if accepted else pictures[-1] if pictures else missing


def _record(
    request: ScoreRequest,
    page: PageRecord,
    subjects: Subjects,
    leaks: Sequence[LeakMark],
    networks: Networks,
    pictures: _Pictures,
    parts: dict[str, list[FrameResult]],
    seconds: float,
) -> CaptureRecord:
    truth = _truth(page, networks)
    served, plain = (
        None if subject is None else network_facts(subject, leak)
        for subject, leak in zip((subjects.served, subjects.plain), leaks, strict=True)
    )
    return CaptureRecord(
        what=SIMULATED if request.simulated else FILMED,
        data=DataFacts(
            split=page.split,
            n_slices=len(page.slices),
            n_patients=len({one.patient for one in page.slices}),
            sources=tuple(sorted({one.source for one in page.slices})),
            slices_sha256=page.sha256(),
            are_phantoms=is_of_phantoms(one.source for one in page.slices),
        ),
        network=served,
        plain_network=plain,
        plan=None,
        feed=f"a recording, trigger {request.trigger}",
        family=None,
        calibrated=request.calibrated,
        recording=RecordingFacts(
            trigger=request.trigger,
            slides_taken=share(result.whole.refusals != (NEVER_TAKEN,) for result in parts[EACH_SLIDE]),
            slides_read=share(result.whole.accepted for result in parts[EACH_SLIDE]),
            others_accepted=share(result.whole.accepted for result in pictures.others),
        ),
        figures=CaptureFigures(
            simulated=request.simulated,
            severities=tuple(part_figures(Table.of(results, truth), name) for name, results in parts.items()),
            empty=(),
            factors=(),
            times=times_of(pictures.named),
        ),
        targets=(),
        origin=origin(threads=1, resamples=RESAMPLES, seed=0, seconds=seconds),
    )


def _truth(page: PageRecord, networks: Networks) -> Truth:
    pixels = [one.pixels() for one in page.slices]

    def answers(plain: bool) -> NDArray[np.int64] | None:
        network = networks.plain if plain else networks.served
        if network is None:
            return None
        return np.array([int(read_logits(network, one).argmax()) for one in pixels], np.int64)

    return Truth(
        np.array([LABELS.index(one.label) for one in page.slices], np.int64),
        tuple(one.patient for one in page.slices),
        tuple(one.source for one in page.slices),
        answers(plain=False),
        answers(plain=True),
    )


def _leak(page: PageRecord, subject: Subject | None, *, allow_leak: bool) -> LeakMark:
    """Compare the page's patients with those that the network learnt from; raises `LeakError` unless allowed."""
    if page.are_drawn:
        return LeakMark(checked=DRAWN_PHANTOMS)
    keys = subject.learnt.train_patient_keys if subject is not None and subject.learnt is not None else ()
    if not keys:
        return LeakMark(checked="cannot be checked: the network's report lists no patients")
    shared = {one.patient for one in page.slices} & set(keys)
    if shared and not allow_leak:
        raise LeakError(shared, "the page and the network's training")
    reasons = (f"{len(shared)} {TRAINED_ON}",) if shared else ()
    return LeakMark(reasons=reasons, checked="listed in the model's report")
