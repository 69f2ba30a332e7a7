"""`sliceloop locate`: what it prints for files that hold a slice, for others, and for what is no image."""

import json

import cv2
import numpy as np
import pytest
from locate_scenes import phantom, shown, tilted, white_page

from sliceloop.locate_run import run_locate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write a photograph of a slice, an empty one, a text file, and a PNG of 16 bits."""
    folder = tmp_path_factory.mktemp("frames")
    scene = shown(white_page(phantom()), tilted())
    cv2.imwrite(str(folder / "slice.jpg"), scene.frame)
    cv2.imwrite(str(folder / "empty.png"), np.full((720, 1280, 3), 90, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    cv2.imwrite(str(folder / "deep.png"), scene.frame.astype(np.uint16) << 8)
    return folder


def rows(capsys, *paths) -> list[dict]:
    """Run the command with --json and return what it prints."""
    run_locate(paths, as_json=True)
    return json.loads(capsys.readouterr().out)


def test_the_json_is_a_list_with_a_row_a_file(files, capsys):
    """Each row names file, found, quad and score; a reason stands where nothing was found."""
    found, empty = rows(capsys, files / "slice.jpg", files / "empty.png")
    assert found == {"file": str(files / "slice.jpg"), "found": True, "quad": found["quad"], "score": found["score"]}
    assert np.abs(np.array(found["quad"]) - tilted()).max() < 3
    assert empty == {
        "file": str(files / "empty.png"), "found": False, "quad": None, "score": 0.0, "reason": "no-slice"
    }  # fmt: skip


def test_a_file_that_is_no_image_has_a_row_too(files, capsys):
    """One bad file does not keep the others from being located."""
    bad, deep, missing = rows(capsys, files / "notes.txt", files / "deep.png", files / "none.png")
    assert not bad["found"]
    assert "is no image" in bad["reason"]
    assert deep["found"]
    assert "No such file" in missing["reason"]


def test_a_person_reads_a_sentence(files, capsys):
    """Without --json each file has a line that says what to do, and the count of those without a slice is returned."""
    assert run_locate([files / "slice.jpg", files / "empty.png"], as_json=False) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{files / 'slice.jpg'}: slice at [[")
    assert "point the camera at the CT slice" in second
