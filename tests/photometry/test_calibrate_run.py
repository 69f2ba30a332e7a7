"""`sliceloop calibrate` from the page on disk to the calibration on disk."""

import cv2
import numpy as np
import pytest
from photometry_parts import simulated
from PIL import Image

from edge_agent.calibration import draw_page, parse_calibration
from edge_agent.calibration.errors import TagsNotFoundError
from sliceloop.calibrate_run import (
    UnknownPageFormatError,
    UnreadablePhotographError,
    show_page,
    solve_photograph,
)


@pytest.mark.parametrize(("name", "magic"), [("p.html", b"<!doctype"), ("p.png", b"\x89PNG"), ("p.PDF", b"%PDF")])
def test_the_page_is_written_as_its_name_says(tmp_path, name, magic):
    """The page comes as HTML for a full-screen browser, as PNG, or as PDF for a printer."""
    show_page(tmp_path / name, open_browser=False)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_another_format_is_named(tmp_path):
    """A page cannot be written as anything else, and the message says as what it can."""
    with pytest.raises(UnknownPageFormatError, match=r"\.html, \.png, \.pdf"):
        show_page(tmp_path / "page.docx", open_browser=False)


def test_a_page_that_was_shown_can_be_solved(tmp_path, capsys):
    """The page that `show` writes, photographed (simulated), becomes a calibration file and a summary."""
    show_page(tmp_path / "page.png", open_browser=False)
    page = cv2.imread(str(tmp_path / "page.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "photograph.png"), simulated(page, 1004).frame)
    solve_photograph(tmp_path / "photograph.png", tmp_path / "calibration.json")
    assert parse_calibration((tmp_path / "calibration.json").read_bytes()).frame_size == (720, 1280)
    said = capsys.readouterr().out
    assert "times as bright as black" in said
    assert "colour cast" in said


def test_a_photograph_without_the_page_leaves_no_file(tmp_path):
    """Nothing is written where the photograph does not show the page."""
    Image.fromarray(np.full((480, 640, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    with pytest.raises(TagsNotFoundError):
        solve_photograph(tmp_path / "wall.png", tmp_path / "calibration.json")
    assert not (tmp_path / "calibration.json").exists()


@pytest.mark.parametrize("how", ["text", "cut", "tiny", "wide"])
def test_no_photograph_is_named(tmp_path, how):
    """A file that is no picture, is cut off, or of an impossible size is refused with what to do."""
    file = tmp_path / "photograph.png"
    sizes = {"cut": (300, 300), "tiny": (20, 20), "wide": (8000, 6000)}
    if how == "text":
        file.write_text("a picture")
    else:
        Image.new("L", sizes[how], 128).save(file)
    if how == "cut":
        Image.fromarray(draw_page(300)).save(file)
        file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(UnreadablePhotographError, match=r"give|save|take"):
        solve_photograph(file, tmp_path / "calibration.json")
