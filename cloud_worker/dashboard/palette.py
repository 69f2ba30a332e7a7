"""The dashboard's colours, signs and words: every colour comes with a sign or a word, for all eyes to read."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.text import Text

from cloud_worker.dashboard.rows import Reading
from protocol.labels import Label

BACKGROUND = "#0d1117"
INK = "#e6edf3"
QUIET = "#8b949e"
LINE = "#3b434d"
WARN = "#ffb000"
BAD = "#ff6b81"
GOOD = "#79c0ff"
PHANTOM = "bold #0d1117 on #c4a7ff"
NOTICE = "bold #ffd479 on #3a2a00"
OPEN_ROW = "on #2a2310"

NOBODY_KNOWS = "–"
SHORT_MINUTE_S = 60
SHORT_HOUR_S = 3600


@dataclass(frozen=True)
class Look:
    """How something is shown: a sign, a colour, a word."""

    sign: str
    colour: str
    word: str


# IBM's palette for colour-blind readers (blue, amber, magenta), lightened for a dark ground.
LABEL_LOOKS = {
    Label.NORMAL: Look("●", "#7aa2ff", "Normal"),
    Label.PNEUMONIA: Look("▲", "#ffb000", "Pneumonia"),
    Label.COVID_19: Look("◆", "#ff5fa2", "COVID-19"),
}
UNCERTAIN = Look("?", "#b6bec8", "uncertain")

EDGE_LOOKS = {
    "online": Look("●", "#7aa2ff", "online"),
    "silent": Look("◌", WARN, "silent"),
    "lost": Look("✗", BAD, "LOST"),
    "stopped": Look("■", QUIET, "stopped"),
    "unknown": Look("·", QUIET, "unknown"),
}


def look_of(reading: Reading) -> Look:
    """Return how a reading is shown: an uncertain one never as its label."""
    return UNCERTAIN if reading.uncertain else LABEL_LOOKS[reading.label]


def named(look: Look, style: str = "") -> Text:
    """Return the sign and the word in their colour."""
    return Text(f"{look.sign} {look.word}", style=f"{style} {look.colour}".strip())


def bar(fraction: float, width: int, colour: str) -> Text:
    """Return a bar of exactly `width` cells, in steps of half a cell; its rest is thinner, not only darker."""
    halves = round(min(max(fraction, 0.0), 1.0) * width * 2)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return Text.assemble((filled, colour), ("─" * (width - len(filled)), LINE))


def percent(fraction: float) -> str:
    """Return a share in whole percent; only what is 1 is 100 %."""
    return f"{min(round(fraction * 100), 99 if fraction < 1 else 100)} %"


def clock(at: datetime | None, now: datetime) -> str:
    """Return the time of day, in the zone of `now`."""
    if at is None:
        return NOBODY_KNOWS
    try:
        return f"{at.astimezone(now.tzinfo):%H:%M:%S}"
    except OverflowError:  # a sender's year 1 or 9999
        return NOBODY_KNOWS


def ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago something was, in one unit."""
    if at is None:
        return NOBODY_KNOWS
    seconds = max(now - at, timedelta(0)).total_seconds()
    if seconds < SHORT_MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / SHORT_MINUTE_S:.0f} min" if seconds < SHORT_HOUR_S else f"{seconds / SHORT_HOUR_S:.0f} h"


def version(number: int) -> str:
    """Return a model's version as it is spoken of."""
    return f"v{number}" if number else NOBODY_KNOWS
