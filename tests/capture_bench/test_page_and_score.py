"""A page of slides with tags, and the score of a (simulated) recording of it."""

import base64
import json
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench_parts import filmed, filmed_page, find, stand_in, written
from network_parts import tiny_bundle

from sliceloop.capture_bench.feed import FeedError
from sliceloop.capture_bench.look import iou_of
from sliceloop.capture_bench.origin import CaptureRecord
from sliceloop.capture_bench.page import PageError, PageRequest, read_page, write_page
from sliceloop.capture_bench.path import Paths
from sliceloop.capture_bench.score import NEVER_TAKEN, ScoreRequest, score_recording
from sliceloop.capture_bench.slide import draw_slide, read_slide
from training.data.slices import LeakError

FPS = 10
SLIDES, SHOWN = 4, 3
PATHS = Paths(stand_in, {})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page of phantom slices; return its truth."""
    html = tmp_path_factory.mktemp("page") / "page.html"
    write_page(PageRequest(None, True, html, "test", SLIDES, 5, 4.0))
    return html.with_suffix(".json")


@pytest.fixture(scope="module")
def recording(page: Path) -> Path:
    """Film all slides of the page but the last, as a browser shows them."""
    return written(page.with_name("filmed.avi"), filmed(Shown(page).pictures[:SHOWN]), FPS)


@pytest.fixture(scope="module")
def scored(page: Path, recording: Path) -> tuple[ScoreRequest, CaptureRecord]:
    """Score the recording once, as the edge takes its pictures."""
    folder = page.parent
    asked = ScoreRequest(
        recording=recording,
        page=page,
        out=folder / "out",
        model=tiny_bundle(folder / "model", seed=1),
        plain_model=tiny_bundle(folder / "plain", seed=2),
        trigger="still",
        json=folder / "copy.json",
        simulated=True,
        allow_leak=False,
    )
    return asked, score_recording(asked, PATHS, find, threading.Event())


class Shown(HTMLParser):
    """What a browser would show of a page: its slides, and what it would fetch for that."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.pictures: list[np.ndarray] = []
        self.fetched: list[str] = []
        self.feed(page.with_suffix(".html").read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        sources = [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.fetched += [source for source in sources if not source.startswith("data:")]
        for source in sources:
            png = np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8)
            self.pictures.append(np.asarray(cv2.imdecode(png, cv2.IMREAD_GRAYSCALE), np.uint8))


def test_the_page_holds_every_slide_and_fetches_nothing(page):
    """It is one file: all slides are inside, in the order of their tags."""
    shown = Shown(page)
    assert shown.fetched == []
    assert len(shown.pictures) == SLIDES
    assert "url(" not in page.with_suffix(".html").read_text()
    shapes = {number: (one.height, one.width) for number, one in enumerate(read_page(page).slices)}
    named = [read_slide(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), shapes) for picture in shown.pictures]
    assert [one.number for one in named if one is not None] == list(range(SLIDES))


def test_the_slides_are_drawn_evenly_over_the_classes_and_by_seed(page, tmp_path):
    """The same seed draws the same slides; four of three classes are two, one and one."""
    write_page(PageRequest(None, True, tmp_path / "again.html", "test", SLIDES, 5, 4.0))
    assert read_page(tmp_path / "again.json") == read_page(page)
    labels = [one.label for one in read_page(page).slices]
    assert sorted(labels.count(label) for label in set(labels)) == [1, 1, 2]


@pytest.mark.parametrize("shape", [(512, 512), (400, 512), (512, 300), (96, 90)])
def test_tags_tell_which_slide_a_photograph_shows_and_where_its_slice_lies(shape):
    """At an angle, blurred and noisy, all four tags are read, and the slice's outline follows from them."""
    slice_ = np.random.default_rng(0).integers(40, 120, shape).astype(np.uint8)
    slide = draw_slide(slice_, 17)
    frame, true_quad = filmed_page(slide.picture, slide.quad, seed=3, severity=0.8)
    named = read_slide(frame, {17: shape})
    assert named is not None
    assert named.number == 17
    assert named.quad is not None
    assert iou_of(named.quad, true_quad) > 0.985


def test_a_frame_that_shows_parts_of_two_slides_is_neither():
    """While the screen changes, no picture is given to the wrong slice."""
    slices = np.full((256, 256), 90, np.uint8)
    one, other = (cv2.cvtColor(draw_slide(slices, number).picture, cv2.COLOR_GRAY2BGR) for number in (1, 2))
    torn = np.vstack([one[: len(one) // 2], other[len(one) // 2 :]])
    shapes = dict.fromkeys((1, 2), slices.shape)
    assert read_slide(one, shapes) is not None
    assert read_slide(torn, shapes) is None
    assert read_slide(np.full_like(one, 255), shapes) is None


def test_a_slide_with_a_hidden_tag_is_named_without_an_outline():
    """Two tags are enough for the name; for where the slice lies all four are needed."""
    slices = np.full((256, 256), 90, np.uint8)
    picture = cv2.cvtColor(draw_slide(slices, 1).picture, cv2.COLOR_GRAY2BGR)
    picture[: len(picture) // 2, : picture.shape[1] // 5] = 128
    named = read_slide(picture, {1: slices.shape})
    assert named is not None
    assert (named.number, named.quad) == (1, None)


def test_each_slide_of_a_recording_is_taken_once_and_named(scored):
    """The edge's own trigger takes one picture of each still slide; the slide that was not filmed is missing."""
    _, record = scored
    each, every = record.figures.severities
    assert record.recording is not None
    assert str(record.recording.slides_taken) == "75.0 % (3 of 4)"
    assert (each.name, each.n_frames) == ("each slide", SLIDES)
    assert every.n_frames == SHOWN
    assert each.abstention.by_reason == {NEVER_TAKEN: 1}


def test_pictures_are_judged_against_the_digital_slices_of_the_page(scored):
    """Outline, accuracy, agreement and the paper's path are told as in the benchmark."""
    _, record = scored
    each = record.figures.severities[0]
    assert each.localisation.n == SHOWN
    assert each.localisation.mean is not None
    assert each.localisation.mean > 0.9
    assert each.reading is not None
    assert each.reading.agreement.of == SHOWN
    assert each.paper is not None


def test_a_rendered_recording_marks_all_outputs(scored):
    """Whoever scores a simulated recording says so, and every output then does."""
    asked, _ = scored
    assert (asked.out / "capture.md").read_text().startswith("**SIMULATED")
    assert json.loads(asked.json.read_text())["figures"]["simulated"] is True


def test_a_filmed_recording_does_not_say_that_it_is_simulated(scored, tmp_path):
    """Without that word of the user the outputs say that it was filmed; every half second gives a picture."""
    asked, _ = scored
    filmed_one = replace(asked, simulated=False, out=tmp_path, json=None, trigger="interval")
    record = score_recording(filmed_one, PATHS, find, threading.Event())
    assert record.figures.simulated is False
    assert "SIMULATED" not in (tmp_path / "capture.md").read_text()
    assert record.figures.severities[1].n_frames > SHOWN


def test_patients_of_the_training_on_the_page_are_refused(scored, tmp_path):
    """The page's keys are compared with those in the network's report, unless its phantoms were drawn for it."""
    asked, _ = scored
    page = read_page(asked.page)
    ids = [f"phantom-{site}-{number:04d}" for site in ("site-a", "site-b") for number in range(6)]
    leaking = replace(asked, model=tiny_bundle(tmp_path / "known", trained_on=tuple(ids)), out=tmp_path / "out")
    assert score_recording(leaking, PATHS, find, threading.Event()).network.leak.leaked is False

    (tmp_path / "page.json").write_text(page.model_copy(update={"are_drawn": False}).model_dump_json())
    with pytest.raises(LeakError):
        score_recording(replace(leaking, page=tmp_path / "page.json"), PATHS, find, threading.Event())


def test_what_is_no_page_or_no_recording_is_named(scored, tmp_path):
    """The message names the file and what to do."""
    asked, _ = scored
    (tmp_path / "page.html").write_text("<html>")
    for path in (tmp_path / "missing.json", tmp_path / "page.html"):
        with pytest.raises(PageError, match=path.name):
            score_recording(replace(asked, page=path), PATHS, find, threading.Event())
    with pytest.raises(FeedError, match=r"missing\.avi"):
        score_recording(replace(asked, recording=tmp_path / "missing.avi"), PATHS, find, threading.Event())


def test_more_slides_than_tags_are_refused(tmp_path):
    """The tags name 250 slides."""
    with pytest.raises(PageError, match="250"):
        write_page(PageRequest(None, True, tmp_path / "page.html", "test", 251, 0, 4.0))
