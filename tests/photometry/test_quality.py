"""Frames that are good enough are judged so, spoiled ones are refused with the reason that fits."""

import cv2
import numpy as np
import pytest
from photometry_parts import FRAME_SIZE, SLICE_PX, Camera, as_picture, phantom, rectified, simulated
from pydantic import ValidationError

from edge_agent.light import code_of, light_of
from edge_agent.photometry import MARGIN
from edge_agent.quality import QualityLimits, blur_of_edges, glare_mask, judge, measure, side_of
from edge_agent.refusal import Refusal, Side

LIMITS = QualityLimits()
QUAD = np.array([[400, 120], [880, 120], [880, 600], [400, 600]], np.float32)
FRAME = np.full((*FRAME_SIZE, 3), 200, np.uint8)


def judged(picture, *, quad=QUAD, score=1.0, frame=FRAME, limits=LIMITS):
    """Return the refusals of a slice [256, 256, 3] that was seen at the quad."""
    return judge(measure(frame, quad, score, picture), limits)


@pytest.fixture(scope="module", params=["site-a", "site-b"])
def slice_(request):
    return phantom(request.param)


def test_a_good_slice_is_not_refused(slice_):
    """A sharp, well lit, large slice with a sure outline may be read."""
    assert judged(as_picture(slice_)) == ()


@pytest.mark.parametrize("sigma", [1.5, 2.5, 3.5])
@pytest.mark.parametrize("noise", [0, 5])
def test_blur_is_measured_in_pixels(slice_, sigma, noise):
    """The measured blur is that of the lens, and noise changes little of it."""
    blurred = cv2.GaussianBlur(slice_, (0, 0), sigma).astype(np.float32)
    noisy = blurred + np.random.default_rng(0).normal(0, noise, blurred.shape)
    seen = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    assert blur_of_edges(seen) == pytest.approx(np.hypot(sigma, 0.7), rel=0.3)


def test_a_blurred_slice_is_not_sharp(slice_):
    """Out of focus is refused, and not taken for glare as well."""
    assert judged(as_picture(cv2.GaussianBlur(slice_, (0, 0), 4))) == (Refusal.NOT_SHARP,)


@pytest.mark.parametrize("turned", [False, True])
def test_motion_in_one_direction_is_not_sharp(slice_, turned):
    """A camera that moved across the edges of one direction is refused, though the other edges are sharp."""
    moved = cv2.blur(slice_, (1, 13) if turned else (13, 1))
    assert Refusal.NOT_SHARP in judged(as_picture(moved))


def test_what_has_no_edges_is_not_sharp():
    """A picture without any edge counts as blurred, whatever it is."""
    assert Refusal.NOT_SHARP in judged(np.full((SLICE_PX, SLICE_PX, 3), 120, np.uint8))


def glared(slice_, x, y, peak=1.0, size=0.17):
    """Return the slice under a round glare whose middle is at x, y, of -1 to 1."""
    rows, columns = np.mgrid[-1 : 1 : SLICE_PX * 1j, -1 : 1 : SLICE_PX * 1j]
    light = peak * np.exp(-(np.square(columns - x) + np.square(rows - y)) / (2 * (2 * size) ** 2))
    return np.rint(code_of(light_of(as_picture(slice_)) + light[..., None])).astype(np.uint8)


@pytest.mark.parametrize(
    ("x", "y", "side"),
    [
        (-0.6, 0, Side.LEFT),
        (0.6, 0.1, Side.RIGHT),
        (0, -0.6, Side.TOP),
        (0.1, 0.6, Side.BOTTOM),
        (0, 0, Side.MIDDLE),
    ],
)
def test_glare_is_refused_with_its_place(slice_, x, y, side):
    """A reflection over the slice is refused, and the person hears where it is."""
    seen = glared(slice_, x, y)
    facts = measure(FRAME, QUAD, 1.0, seen)
    assert Refusal.GLARE in judge(facts, LIMITS)
    assert facts.slice_quality is not None
    assert facts.slice_quality.glare_side == side


def test_bright_tissue_is_no_glare():
    """Bone, vessels and consolidations have edges: on digital slices of any patient no glare is seen."""
    for patient in range(6):
        for label in ("COVID-19", "Pneumonia", "Normal"):
            assert glare_mask(phantom("site-a", patient, label)).mean() < LIMITS.max_glare_share
    assert side_of(np.zeros((SLICE_PX, SLICE_PX), np.bool_), phantom("site-a")) is None


def test_a_weak_reflection_may_stay(slice_):
    """Light that lifts the slice a little is for photometry and the network, not for a refusal."""
    assert judged(glared(slice_, 0.3, 0.2, peak=0.1)) == ()


def test_overexposure_is_clipped(slice_):
    """Where much of the tissue has become white the frame is refused."""
    assert Refusal.CLIPPED in judged(Camera(gains=(20.0, 20.0, 20.0)).sees(as_picture(slice_)))


def test_underexposure_is_too_dark(slice_):
    """A slice without a bright grey is refused."""
    assert Refusal.TOO_DARK in judged(Camera(gains=(0.02, 0.02, 0.02)).sees(as_picture(slice_)))


def test_a_small_slice_is_refused(slice_):
    """A slice of few pixels in the frame is refused, wherever it lies and however it is turned."""
    small = (QUAD - QUAD.mean(0)) * 0.25 + np.array([300, 500], np.float32)
    turned = (small - small.mean(0)) @ np.array([[0.8, 0.6], [-0.6, 0.8]], np.float32) + small.mean(0)
    assert judged(as_picture(slice_), quad=small) == (Refusal.TOO_SMALL,)
    assert judged(as_picture(slice_), quad=turned.astype(np.float32)) == (Refusal.TOO_SMALL,)


@pytest.mark.parametrize("shift", [(-400, 0), (400, 0), (0, -121), (0, 120)])
def test_a_slice_at_the_frames_border_is_cut(slice_, shift):
    """A slice whose outline touches or leaves the frame is refused."""
    moved = QUAD + np.array(shift, np.float32)
    assert judged(as_picture(slice_), quad=moved) == (Refusal.CUT_BY_FRAME,)


def test_an_unsure_outline_is_refused(slice_):
    """Below its limit of confidence an outline is not used, and the limit is a setting."""
    assert judged(as_picture(slice_), score=0.3) == (Refusal.UNSURE_OUTLINE,)
    assert judged(as_picture(slice_), score=0.3, limits=QualityLimits(min_outline_score=0.2)) == ()


def test_a_frame_without_a_slice():
    """Without a slice the person is asked to show one, and a black frame says that the camera is covered."""
    assert judge(measure(FRAME, None, 0.0, None), LIMITS) == (Refusal.NO_SLICE,)
    assert judge(measure(FRAME // 20, None, 0.0, None), LIMITS) == (Refusal.BLACK_FRAME,)


def test_several_reasons_come_in_order(slice_):
    """The reason that the person should heed first comes first: where the slice is, before how it looks."""
    refusals = judged(as_picture(cv2.GaussianBlur(slice_, (0, 0), 5)), quad=QUAD - np.float32(400), score=0.1)
    assert refusals == (Refusal.CUT_BY_FRAME, Refusal.UNSURE_OUTLINE, Refusal.NOT_SHARP)


@pytest.mark.parametrize("wrong", [{"max_blur": 0}, {"max_glare_share": 1.5}, {"max_blurr": 2}, {"min_side_px": -1}])
def test_impossible_limits_are_refused(wrong):
    """A limit outside its range, or one that does not exist, is named by the settings."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        QualityLimits(**wrong)


def test_careful_simulated_frames_are_accepted():
    """Of simulated frames at severity 1, hardly one is refused; blurred by seven pixels, all are."""
    refused, blurred = [], []
    for seed in range(12):
        shot = simulated(phantom("site-b", seed), 700 + seed)
        soft = cv2.GaussianBlur(shot.frame, (0, 0), 7)
        for frame, kept in ((shot.frame, refused), (soft, blurred)):
            seen = rectified(frame, shot.quad)
            kept.append(judge(measure(frame, shot.quad, 1.0, seen, margin=MARGIN), LIMITS))
    assert sum(bool(refusals) for refusals in refused) <= 1
    assert all(Refusal.NOT_SHARP in refusals for refusals in blurred)
