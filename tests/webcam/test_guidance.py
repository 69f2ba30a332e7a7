"""The person with the camera is told the one thing to do next."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from webcam_parts import QUAD, SIDE, TOP, Frame, Place, phantom, scene

from edge_agent.capture.guidance import CUT, CUT_TWICE, MOVING, READY, STRAIGHT, Facts, facts_of, glare_at, guide
from edge_agent.refusal import Refusal, Side, sentence

GOOD = Facts(
    1280, 720, np.float32([[400, 100], [900, 100], [900, 600], [400, 600]]), True, 0.98, "", 110, 0.1, 0.45, None
)


def at(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return an upright quad."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


ASKEW = np.float32([[400, 100], [900, 200], [900, 500], [400, 600]])


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, READY),
        ({"quad": at(500, 200, 700, 400)}, sentence(Refusal.TOO_SMALL)),
        ({"quad": at(400, 0, 900, 500)}, CUT[Side.TOP]),
        ({"quad": at(400, 210, 900, 719)}, CUT[Side.BOTTOM]),
        ({"quad": at(-5, 100, 500, 600)}, CUT[Side.LEFT]),
        ({"quad": at(780, 100, 1278, 600)}, CUT[Side.RIGHT]),
        ({"quad": at(300, 0, 1020, 720)}, CUT_TWICE),
        ({"quad": ASKEW}, STRAIGHT),
        ({"glare": Side.LEFT}, sentence(Refusal.GLARE, Side.LEFT)),
        ({"brightness": 20.0}, sentence(Refusal.TOO_DARK)),
        ({"clipped_share": 0.7}, sentence(Refusal.CLIPPED)),
        ({"sharpness": 0.2}, sentence(Refusal.NOT_SHARP)),
        ({"quad": None, "reason": "no-slice"}, sentence(Refusal.NO_SLICE)),
        ({"quad": None, "reason": "cut-by-frame"}, sentence(Refusal.CUT_BY_FRAME)),
        ({"quad": None, "reason": "glare", "glare": Side.TOP}, sentence(Refusal.GLARE, Side.TOP)),
        ({"quad": None, "reason": "a code of tomorrow"}, sentence(Refusal.NO_SLICE)),
        ({"quad": None, "brightness": 10.0}, sentence(Refusal.TOO_DARK)),
        ({"quad": None, "is_located": False}, READY),
    ],
)
def test_the_first_thing_in_the_way_is_said(facts: dict[str, object], words: str) -> None:
    """Each fault has its sentence, with what to do; without a fault the person is told that it is good."""
    assert guide(replace(GOOD, **facts)) == words


def test_a_slice_that_moves_is_to_be_held_still() -> None:
    """Motion is named after what stillness would not mend, and before blur, which it explains."""
    assert guide(GOOD, moved_share=0.1) == MOVING
    assert guide(replace(GOOD, sharpness=0.1), moved_share=0.1) == MOVING
    assert guide(replace(GOOD, quad=at(500, 200, 700, 400)), moved_share=0.1) == sentence(Refusal.TOO_SMALL)


def test_sentences_say_which_way_to_go() -> None:
    """The words of the brief: closer, still, glare on the left, cut at the top."""
    said = " ".join([sentence(Refusal.TOO_SMALL), MOVING, sentence(Refusal.GLARE, Side.LEFT), CUT[Side.TOP]])
    for words in ("closer", "still", "on the left", "cut at the top: move the camera up"):
        assert words in said


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_blur_is_told_from_noise(noise: float) -> None:
    """Sharpness falls with each step of blur, whether the sensor adds noise or not."""
    sharpness = [facts_of(scene(blurred(sigma), noise=noise), Place(QUAD)).sharpness for sigma in (0.0, 1.0, 2.0, 4.0)]
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] > 0.35
    assert sharpness[-1] < 0.25


def blurred(sigma: float) -> Frame:
    """Return a phantom slice, blurred."""
    return np.asarray(cv2.GaussianBlur(phantom(0), (0, 0), sigma), np.uint8) if sigma else phantom(0)


def test_a_mirrored_lamp_is_glare_and_white_tissue_is_none() -> None:
    """A soft white spot over a lung is mostly found, and on its side; a chest without one is never glare."""
    told = []
    for patient in range(4):
        shown = phantom(patient, 0.45)
        assert glare_at(shown) is None
        assert glare_at(np.clip(shown * 1.15, 0, 255).astype(np.uint8)) is None
        told += [(glare_at(lit(shown, x)), side) for x, side in ((0.28, Side.LEFT), (0.72, Side.RIGHT))]
    assert all(found in (None, side) for found, side in told)
    assert sum(found is not None for found, _ in told) >= len(told) / 2


def lit(shown: Frame, x: float) -> Frame:
    """Add a lamp's reflection, gaussian, at this share of the width, over the lungs' height."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    lamp = 320 * np.exp(-((columns - x) ** 2 + (rows - 0.45) ** 2) / (2 * 0.1**2))
    return np.clip(shown + lamp, 0, 255).astype(np.uint8)


def test_facts_are_those_of_the_slice() -> None:
    """With an outline brightness is measured within it: a dark slice on a bright page is dark."""
    frame = np.full((360, 640, 3), 220, np.uint8)
    frame[TOP : TOP + SIDE, 180 : 180 + SIDE] = 20
    facts = facts_of(frame, Place(QUAD, 0.9))
    assert facts.brightness == pytest.approx(20, abs=1)
    assert (facts.width, facts.height, facts.score, facts.is_located) == (640, 360, 0.9, True)
    assert facts_of(frame, None).brightness > 100


def test_an_outline_that_is_nearly_nothing_is_borne() -> None:
    """A quad of no area, or outside the frame, leads to facts and a sentence all the same."""
    for quad in (at(10, 10, 10, 10), at(-90, -90, -10, -10)):
        assert guide(facts_of(scene(), Place(quad)))
