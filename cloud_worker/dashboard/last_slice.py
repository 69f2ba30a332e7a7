"""The last slice as a picture, with its reading beneath."""

from datetime import datetime
from functools import lru_cache

from rich.align import Align
from rich.console import Group, RenderableType
from rich.text import Text

from cloud_worker.dashboard.frame import Size, line, panel, waiting
from cloud_worker.dashboard.palette import (
    INK,
    LABEL_LOOKS,
    PHANTOM,
    QUIET,
    bar,
    clock,
    look_of,
    named,
    percent,
    version,
)
from cloud_worker.dashboard.picture import half_blocks
from cloud_worker.dashboard.rows import Reading, SliceRow
from cloud_worker.dashboard.slice_table import second_reading
from cloud_worker.dashboard.state import DashboardState
from protocol.labels import LABELS
from training.model.decode import ImageError, decode_image

MAX_PIXELS = 4_000_000
ROOMY_HEIGHT = 24
BAR_ROOM = 18


def picture_panel(state: DashboardState, now: datetime, size: Size) -> RenderableType:
    """Return the last slice with its reading beneath."""
    last = state.last_slice
    row = state.slices.get(last.key) if last else None
    if last is None or row is None or row.reading is None:
        return waiting("last slice", "no picture yet", size)
    caption = _caption(row, row.reading, now, size)
    height = max(1, size.inner_height - len(caption))
    picture = Align.center(_picture(last.image, size.inner_width, height), height=height)
    title = Text.assemble(("last slice", f"bold {INK}"), (" ", ""), (" PHANTOM " if row.phantom else "", PHANTOM))
    return panel(title, Group(picture, *caption), size)


def _caption(row: SliceRow, reading: Reading, now: datetime, size: Size) -> list[Text]:
    facts = (str(row.key.edge), clock(row.captured_at, now), version(reading.version), f"{reading.latency_ms:.0f} ms")
    detail = line((" · ".join(facts), QUIET))
    lines = [_headline(row, reading), *(_chances(reading, size) if size.inner_height >= ROOMY_HEIGHT else []), detail]
    for text in lines:
        text.justify = "center"
    return lines


def _headline(row: SliceRow, reading: Reading) -> Text:
    """Say the reading; an uncertain one only ever leans."""
    look = look_of(reading)
    share = percent(reading.confidence)
    told = (f" leans to {reading.label}, {share}", QUIET) if reading.uncertain else (f" {share}", f"bold {INK}")
    second = line(("   ", ""), second_reading(row)) if row.judged else Text()
    return line(named(look, "bold"), told, second)


def _chances(reading: Reading, size: Size) -> list[Text]:
    """Return a bar a class, so that a close call looks like one."""
    width = max(1, size.inner_width - BAR_ROOM)
    return [
        line(
            (f"{LABEL_LOOKS[label].sign} {LABEL_LOOKS[label].word:<10}", QUIET),
            bar(probability, width, LABEL_LOOKS[label].colour),
            (f"{percent(probability):>6}", INK),
        )
        for label, probability in zip(LABELS, reading.probabilities, strict=True)
    ]


@lru_cache(maxsize=4)
def _picture(image: bytes, width: int, height: int) -> Text:
    """Return the largest picture that keeps its proportions in so many cells."""
    try:
        pixels = decode_image(image, max_pixels=MAX_PIXELS)
    except ImageError:
        return Text("the picture cannot be read", QUIET)
    return half_blocks(pixels, max(1, min(width, round(2 * height * pixels.shape[1] / pixels.shape[0]))))
