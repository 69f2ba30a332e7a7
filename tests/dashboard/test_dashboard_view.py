"""What a person sees."""

import re
from io import StringIO
from pathlib import Path

import pytest
from dashboard_said import (
    REFUSED,
    RELEASED,
    at,
    diagnosis,
    progress,
    reading,
    reported,
    result,
    slice_read,
    status,
    to,
    verdict,
)
from rich.console import Console

from cloud_worker.dashboard.announcement import Announcement
from cloud_worker.dashboard.app import save_svg
from cloud_worker.dashboard.palette import BAD, WARN
from cloud_worker.dashboard.state import DashboardState
from cloud_worker.dashboard.summary import summary
from cloud_worker.dashboard.view import render
from protocol.labels import LABELS, Label
from protocol.messages import ModelPhase, RetrainResult
from protocol.topics import Address, Kind

SIZES = [(80, 24), (120, 36), (160, 45), (300, 90), (80, 50), (40, 12), (20, 5)]


def seen(state: DashboardState, width: int = 120, height: int = 36) -> list[str]:
    """Return the screen's lines as text."""
    console = Console(
        file=StringIO(), width=width, height=height, force_terminal=True, color_system="truecolor", record=True
    )
    console.print(render(state, at(300), width, height))
    return console.export_text().splitlines()


def busy() -> DashboardState:
    """Return a state in which everything has happened."""
    state = DashboardState("broker.example:1883")
    state.set_connected(True, at(0))
    for number in range(60):
        label = LABELS[number % 3]
        first = reading(label, 0.5 + number / 130, uncertain=number % 7 == 0)
        edge = f"ct-{number % 2 + 1}"
        state.apply(to(Kind.SLICE, edge), slice_read(f"s{number}", first, sequence=number + 1), at(number))
        second = verdict(f"s{number}", reading(Label.NORMAL), "label" if number % 3 else "", "lee" * (number % 2))
        state.apply(to(Kind.VERDICT, edge), second, at(number))
    state.apply(to(Kind.STATUS, "ct-1"), status(), at(299))
    state.apply(to(Kind.STATUS, "ct-3"), status("lost", outbox=12), at(260))
    state.apply(Address(Kind.RETRAIN_STATUS), progress(0.61), at(51))
    state.apply(Address(Kind.MODEL_DESIRED), Announcement("squeezenet", 3), at(52))
    rejected = reported(ModelPhase.REJECTED, 1, 2, at(53), "not signed by a trusted key")
    state.apply(to(Kind.MODEL_REPORTED, "ct-2"), rejected, at(53))
    state.apply(to(Kind.MODEL_REPORTED, "ct-1"), reported(ModelPhase.DOWNLOADING, 1, 2, at(54)), at(54))
    return state


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("state", [DashboardState("b:1"), busy()], ids=["nothing yet", "busy"])
def test_it_fits_and_always_says_research_use_only(state: DashboardState, width: int, height: int) -> None:
    """At every size the screen is filled exactly, and the notice is visible."""
    lines = seen(state, width, height)
    assert len(lines) == height
    assert {len(line) for line in lines} <= {width}
    assert "research use only" in "\n".join(lines).lower()


@pytest.mark.parametrize("width", [1, 7, 60, 72, 99, 100, 101, 133])
@pytest.mark.parametrize("height", [1, 2, 3, 6, 15, 16, 27, 28, 31, 32])
def test_no_size_breaks_it(width: int, height: int) -> None:
    """No line is ever wider than the console."""
    assert all(len(line) <= width for line in seen(busy(), width, height))


def test_it_waits_for_the_first_slice() -> None:
    """An empty dashboard says what it waits for."""
    assert any("waiting for the first slice" in line for line in seen(DashboardState(), 80, 24))


def test_an_uncertain_reading_is_not_shown_as_a_diagnosis() -> None:
    """A row of an uncertain reading says uncertain, and not the label that it leans to."""
    state = DashboardState()
    state.apply(to(Kind.DIAGNOSIS), diagnosis(first=reading(Label.COVID_19, 0.5, uncertain=True)), at(0))
    (row,) = [line for line in seen(state) if "12:00:00" in line]
    assert "? uncertain" in row
    assert "COVID-19" not in row


def test_a_picture_of_an_uncertain_reading_only_leans() -> None:
    """Beneath the picture an uncertain reading is called uncertain before anything else is said of it."""
    state = DashboardState()
    state.apply(to(Kind.SLICE), slice_read(first=reading(Label.COVID_19, 0.5, uncertain=True)), at(0))
    assert any("? uncertain leans to COVID-19, 50 %" in line for line in seen(state))


def test_a_lost_edge_is_shown_as_lost() -> None:
    """A lost edge stands first among the edges and says since when, in words."""
    edges = [line for line in seen(busy()) if "ct-" in line and ("LOST" in line or "online" in line)]
    assert "LOST" in edges[0]
    assert "40 s ago" in edges[0]
    assert "ct-3" in edges[0]


@pytest.mark.parametrize(
    ("full", "words", "colour"),
    [
        (0.5, "", WARN),
        (0.85, "outbox 85 % full", WARN),
        (0.999, "outbox 99 % full", WARN),
        (1.0, "outbox 100 % full", BAD),
    ],
)
@pytest.mark.parametrize("width", [80, 160])
def test_an_outbox_that_fills_is_told_in_words_and_colour(full: float, words: str, colour: str, width: int) -> None:
    """From 80 % on in yellow, and in red where it takes no more."""
    state = DashboardState()
    state.apply(to(Kind.STATUS), status(outbox=8_500, full=full), at(299))
    console = Console(
        file=StringIO(), width=width, height=36, force_terminal=True, color_system="truecolor", record=True
    )
    console.print(render(state, at(300), width, 36))
    shown = console.export_html(inline_styles=True)
    assert (words in shown) if words else ("full" not in shown)
    assert re.search(f"color: {colour}[^>]*>[^<]*{words or '8,500'}", shown)


def test_an_edge_that_says_nothing_more_is_shown_as_silent() -> None:
    """An edge that is online by its last word, but has not spoken for minutes, is not shown as online."""
    state = DashboardState()
    state.apply(to(Kind.STATUS), status(), at(0))
    screen = "\n".join(seen(state))
    assert "silent" in screen
    assert "online" not in screen


def test_a_rejected_model_shows_its_reason() -> None:
    """The time-line says who rejected a version, and why."""
    screen = "\n".join(seen(busy()))
    assert "rejected by ct-2" in screen
    assert "not signed by a trusted key" in screen


def test_an_announced_model_is_not_called_verified() -> None:
    """A release that was only announced is shown as announced and unverified."""
    (line,) = [line for line in seen(busy()) if "◌ v3" in line]
    assert "announced, unverified" in line


def test_phantoms_are_called_phantoms() -> None:
    """Drawn slices are announced on top and at the picture; scanned ones are not, and a mixture is called one."""
    phantoms = "\n".join(seen(busy()))
    assert "PHANTOM — NO PATIENTS" in phantoms
    state = DashboardState()
    state.apply(to(Kind.SLICE), slice_read(source="webcam-1"), at(0))
    assert "PHANTOM" not in "\n".join(seen(state))
    state.apply(to(Kind.SLICE), slice_read("s2"), at(1))
    assert "PHANTOM — AND OTHER SLICES, MIXED" in "\n".join(seen(state))


def test_it_says_that_it_reconnects() -> None:
    """A dashboard that lost the broker says so, and for how long."""
    state = busy()
    state.set_connected(False, at(288))
    assert any("RECONNECTING broker.example:1883 · 12 s" in line for line in seen(state))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 45)])
def test_it_says_why_it_is_not_connected(width: int, height: int) -> None:
    """Beneath the header stands the whole reason, on lines of its own; the broker's address and the time stay."""
    state = DashboardState("broker.example:1883")
    reason = "the broker refused the connection: Not authorized: check the client certificate or user name, and more"
    state.set_connected(False, at(288), reason)
    lines = seen(state, width, height)
    assert len(lines) == height
    assert reason in " ".join(" ".join(lines[2:4]).replace("!", "").split())
    assert "CONNECTING broker.example:1883 · 12 s" in lines[0]
    assert "12:05:00 UTC" in lines[0]
    state.set_connected(True, at(300))
    assert "refused" not in "\n".join(seen(state, width, height))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (result("failed", at(52), **REFUSED), "✗ refused by the gate: balanced accuracy 0.7 is not above 0.8"),
        (result(said=at(52), **RELEASED), "✓ released as v3"),
    ],
    ids=["refused", "released"],
)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 45)])
def test_the_gates_verdict_is_shown(verdict: RetrainResult, words: str, width: int, height: int) -> None:
    """Where a candidate stood, the panel says what the gate made of it, with the reason of a refusal."""
    state = busy()
    state.apply(Address(Kind.RETRAIN_RESULT), result(said=at(51), seconds=24), at(51))
    assert "candidate after 24 s" in "\n".join(seen(state, width, height))
    state.apply(Address(Kind.RETRAIN_RESULT), verdict, at(52))
    screen = seen(state, width, height)
    assert words in " ".join("".join(training_column(screen)).split())
    assert "candidate after" not in "\n".join(screen)


def training_column(screen: list[str]) -> list[str]:
    """Return what stands inside the training panel, a line each."""
    top = next(number for number, line in enumerate(screen) if "─ training ─" in line)
    left = screen[top].index("─ training ─") - 1
    right = screen[top].index("╮", left)
    return [line[left + 1 : right] for line in screen[top + 1 :] if line[left] == "│"]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 45)])
def test_an_edges_problem_can_be_read(width: int, height: int) -> None:
    """Where there is room, an edge's problem stands in full beneath the edge; a long one is cut with an ellipsis."""
    problem = "folder images does not exist; give edge.replay.folder a folder that is there"
    state = DashboardState()
    state.apply(to(Kind.STATUS, "ct-1"), status(said=at(299)).model_copy(update={"problem": problem}), at(299))
    state.apply(to(Kind.STATUS, "ct-2"), status(said=at(299)), at(299))
    screen = seen(state, width, height)
    (first,) = [number for number, line in enumerate(screen) if "online  ct-1" in line]
    (second,) = [number for number, line in enumerate(screen) if "online  ct-2" in line]
    below = " ".join(line.split("│")[1] for line in screen[first + 1 : second])
    assert " ".join(below.split()) == f"! {problem}"
    long = status(said=at(299)).model_copy(update={"problem": problem * 9})
    state.apply(to(Kind.STATUS, "ct-1"), long, at(299))
    assert "ct-2" in "\n".join(seen(state, width, height))
    assert any("…" in line.split("│")[1] for line in seen(state, width, height) if line.startswith("│"))


@pytest.mark.parametrize("slices", [5, 500, 9_999, 999_999])
def test_80_columns_hold_every_count(slices: int) -> None:
    """The counts' one line has all nine tallies, whatever has been counted."""
    state = DashboardState()
    state.counts.update(dict.fromkeys(("read", *LABELS, "uncertain", "second", "disagreement", "open"), slices))
    state.counts.update({"reviewed": slices, "retrain": slices})
    (counted,) = [line for line in seen(state, 80, 24) if "2nd" in line]
    assert re.search(r"✓ ?[0-9,k]+ +↻ ?[0-9,k]+ *$", counted)
    assert "…" not in counted


def test_a_release_that_could_not_be_verified_has_no_version() -> None:
    """A rejection of what nobody trusted signed is shown without a number, not as one of the version that runs."""
    state = DashboardState("b:1")
    rejected = reported(ModelPhase.REJECTED, 2, 0, at(299), "SignatureError")
    state.apply(to(Kind.STATUS, "ct-1"), status(), at(298))
    state.apply(to(Kind.STATUS, "ct-2"), status().model_copy(update={"model": None}), at(298))
    state.apply(to(Kind.MODEL_REPORTED, "ct-1"), rejected, at(299))
    text = "\n".join(seen(state, 160, 48))
    assert re.search(r"online +ct-1 .* ✗ rejected  ", text)
    assert re.search(r"● v2 .* runs on ct-1(.|\n)*◌ .* unverified release(.|\n)*✗ rejected by ct-1", text)
    assert text.count("runs on") == 1


def test_what_a_message_says_cannot_command_the_terminal() -> None:
    """Escape sequences, line breaks and direction marks in a message's text are not printed."""
    state = DashboardState()
    reason = "bad\x1b[2J\x1b]0;owned\x07\r\n\u202edesrever"
    state.apply(to(Kind.MODEL_REPORTED), reported(ModelPhase.REJECTED, 1, 2, reason=reason), at(0))
    console = Console(file=StringIO(), width=120, height=36, color_system=None, force_terminal=True)
    console.print(render(state, at(1), 120, 36))
    assert isinstance(console.file, StringIO)
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(console.file.getvalue())


def test_the_line_for_logs_says_research_use_only() -> None:
    """Where there is no terminal, one line says the counts and the notice."""
    line = summary(busy(), at(300))
    assert "60 slices" in line
    assert "research use only" in line
    assert "phantom" in line


def test_the_picture_for_documents_is_an_svg(tmp_path: Path) -> None:
    """The screen can be saved as an SVG that carries the notice."""
    path = tmp_path / "dashboard.svg"
    save_svg(busy(), path, at(300))
    svg = path.read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "research use only" in svg.replace("&#160;", " ").lower()
