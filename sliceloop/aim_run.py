"""`sliceloop aim`: the camera's live picture in the terminal, with the slice's outline and what to do next."""

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.align import Align
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.style import Style
from rich.text import Text

from cloud_worker.dashboard.palette import BAD, GOOD, INK, QUIET, WARN, bar
from cloud_worker.dashboard.picture import PIXELS_PER_CELL, half_blocks
from edge_agent.capture.connection import Connection
from edge_agent.capture.device import named
from edge_agent.capture.frame import SourceError
from edge_agent.capture.guidance import READY, Facts, facts_of, guide
from edge_agent.capture.located import Locate
from edge_agent.capture.opened import Grabbed
from edge_agent.capture.stillness import SettleLimits, Settling, exposure, way_share
from edge_agent.capture.webcam_settings import WebcamSettings

REFRESH_S = 0.15
LOOK_S = 0.01
"""Between two looks for a frame while exposure settles."""
LINES_AROUND = 6
"""Title, three bars, the sentence, and one to spare."""
BAR_WIDTH = 24
SHARPEST = 0.5
"""About what a sharp frame reaches; see `guidance.sharpness`."""


@dataclass(frozen=True)
class Aim:
    """One frame, what it shows, and the sentence for the person."""

    pixels: NDArray[np.uint8]
    facts: Facts
    guidance: str

    def as_dict(self, device: str) -> dict[str, object]:
        """Return it as plain values; the quad in pixels of the frame, brightness in 0..255, shares in 0..1."""
        facts = self.facts
        return {
            "device": device,
            "width": facts.width,
            "height": facts.height,
            "found": facts.quad is not None,
            "quad": facts.quad.astype(float).round(2).tolist() if facts.quad is not None else None,
            "score": round(facts.score, 3),
            "reason": facts.reason,
            "brightness": round(facts.brightness, 1),
            "clipped_share": round(facts.clipped_share, 4),
            "sharpness": round(facts.sharpness, 3),
            "guidance": self.guidance,
        }


def aim_at(pixels: NDArray[np.uint8], locate: Locate | None, before: Aim | None = None) -> Aim:
    """Look at a frame uint8 [height, width, 3]; the one before tells whether the slice moves."""
    location = locate(pixels) if locate is not None else None
    facts = facts_of(pixels, location)
    is_followed = before is not None and facts.quad is not None and before.facts.quad is not None
    moved = way_share(facts.quad, before.facts.quad) if is_followed and before is not None else 0.0
    return Aim(pixels, facts, guide(facts, moved))


def aim_once(settings: WebcamSettings, locate: Locate | None, stop: threading.Event) -> Aim:
    """Wait until exposure has settled (at most `settle_max_s`) and look once; raises `SourceError`."""
    settling = Settling(SettleLimits(settings.settle_frames, settings.settle_mean, settings.settle_spread))
    last, first_s = None, 0.0
    with Connection(settings, random.Random()) as connection:  # noqa: S311  it spreads retries, no secret
        while not stop.is_set():
            now_s = time.monotonic()
            item = connection.next(now_s)
            if isinstance(item, Grabbed):
                settling.add(exposure(item.pixels))
                first_s = now_s if last is None else first_s
                last = item.pixels
            is_over = connection.finished or settling.has_settled or now_s - first_s >= settings.settle_max_s
            if last is not None and is_over:
                return aim_at(last, locate)
            if item is None:
                stop.wait(LOOK_S)
    raise SourceError(f"{named(settings.device)}: stopped before a frame came")


def run_aim(
    settings: WebcamSettings,
    locate: Locate | None,
    stop: threading.Event,
    *,
    once: bool = False,
    console: Console | None = None,
) -> None:
    """Show the picture until the stop or a recording's end; elsewhere than on a terminal, say each new sentence.

    Raises `SourceError` with `once` where there is no camera; else it is shown and tried again.
    """
    console = console or Console()
    name = named(settings.device)
    if once:
        console.print_json(json.dumps(aim_once(settings, locate, stop).as_dict(name)))
        return
    show = _show_screen if console.is_terminal else _show_lines
    with Connection(settings, random.Random()) as connection:  # noqa: S311
        show(_states(connection, locate, stop), name, console)


def screen(state: Aim | str, name: str, width: int, height: int) -> RenderableType:
    """Draw a state, or the sentence that says why there is none, into so many cells."""
    if isinstance(state, str):
        return Group(_title(name, ""), Text(state, f"bold {BAD}"))
    facts = state.facts
    rows = max(1, height - LINES_AROUND)
    columns = max(1, min(width, round(PIXELS_PER_CELL * rows * facts.width / facts.height)))
    return Group(
        _title(name, f"{facts.width}x{facts.height}"),
        Align.center(picture(state.pixels, facts.quad, columns)),
        _measure("brightness", facts.brightness / 255, f"{facts.brightness:.0f} of 255"),
        _measure("sharpness", facts.sharpness / SHARPEST, f"{facts.sharpness:.2f}"),
        _measure("outline", facts.score, f"{facts.score:.2f} {facts.reason}".strip()),
        Text(state.guidance, f"bold {GOOD if state.guidance == READY else WARN}"),
    )


def picture(pixels: NDArray[np.uint8], quad: NDArray[np.float32] | None, columns: int) -> Text:
    """Return a frame uint8 [height, width, 3] as half blocks, with the quad's outline in colour."""
    shown = half_blocks(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8), columns)
    if quad is None:
        return shown
    rows = shown.plain.count("\n") + 1
    line = np.zeros((rows * PIXELS_PER_CELL, columns), np.uint8)
    scale = np.array((columns / pixels.shape[1], rows * PIXELS_PER_CELL / pixels.shape[0]))
    cv2.polylines(line, [np.round(quad * scale - 0.5).astype(np.int32)], isClosed=True, color=(1,))
    for row, column in np.argwhere(line):
        at = int(row // PIXELS_PER_CELL * (columns + 1) + column)  # each row of cells ends in a line break
        shown.stylize(Style(bgcolor=GOOD) if row % PIXELS_PER_CELL else Style(color=GOOD), at, at + 1)
    return shown


def _states(connection: Connection, locate: Locate | None, stop: threading.Event) -> Iterator[Aim | str]:
    """Give what is to be shown, at the pace of a screen."""
    last: Aim | None = None
    while not stop.is_set() and not connection.finished:
        try:
            item = connection.next(time.monotonic())
        except SourceError as error:
            last = None
            yield str(error)
        else:
            if isinstance(item, Grabbed):
                last = aim_at(item.pixels, locate, last)
                yield last
            elif item is not None:
                yield item.reason
        stop.wait(REFRESH_S)


def _show_screen(states: Iterator[Aim | str], name: str, console: Console) -> None:
    with (
        _drivers_silenced(),
        Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
    ):
        for state in states:
            live.update(screen(state, name, console.width, console.height), refresh=True)


def _show_lines(states: Iterator[Aim | str], name: str, console: Console) -> None:
    said = ""
    for state in states:
        sentence = state if isinstance(state, str) else state.guidance
        if sentence != said:
            console.print(f"{name}: {sentence}", highlight=False, markup=False, soft_wrap=True)
        said = sentence


@contextmanager
def _drivers_silenced() -> Iterator[None]:
    """Keep what OpenCV and FFmpeg write on the standard error past Python off the screen."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _title(name: str, size: str) -> Text:
    return Text.assemble(("aim  ", f"bold {INK}"), (f"{name}  {size}", QUIET), no_wrap=True, overflow="ellipsis")


def _measure(name: str, share: float, value: str) -> Text:
    return Text.assemble((f"{name:<11}", QUIET), bar(share, BAR_WIDTH, INK), (f"  {value}", INK), no_wrap=True)
