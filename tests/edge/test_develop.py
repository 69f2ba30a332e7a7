"""From a camera's frame to the slice that a network reads, on simulated frames that break a capture path."""

from collections.abc import Collection

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.develop import Developed, Development, DevelopmentSettings, PictureRefusedError
from edge_agent.inlet import load_intake
from edge_agent.refusal import Refusal
from protocol.labels import Label
from training.data.phantom import SITES, render_slice
from training.model.preprocess import INPUT_PX, prepare
from training.screen_camera import EmptyScene, Family, empty_scene, shoot
from training.screen_camera.named import NamedFrame, named_frame

SEED = 5
READ = frozenset({NamedFrame.ROUND_FIELD, NamedFrame.TWO_SLICES, NamedFrame.PACS_TEXT, NamedFrame.ROTATED})
REFUSED = {
    NamedFrame.GLARE_ACROSS_EDGE: {Refusal.GLARE},
    NamedFrame.CUT_BY_FRAME: {Refusal.CUT_BY_FRAME},
    NamedFrame.MIRRORED: {Refusal.MIRRORED},
    NamedFrame.NO_SLICE: {Refusal.NO_SLICE},
}


@pytest.fixture(scope="module")
def develop() -> Development:
    return Development(DevelopmentSettings(), None, load_intake(None))


def phantom(patient: int = SEED) -> NDArray[np.uint8]:
    return render_slice(seed=3, site=SITES["site-a"], label=Label.NORMAL, patient=patient, z=0.5)


def likeness(developed: Developed, slice_: NDArray[np.uint8]) -> float:
    """Return the correlation with what a network sees of the digital slice."""
    return float(np.corrcoef(developed.pixels.ravel(), prepare(slice_).ravel())[0, 1])


def overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the intersection over union of two convex outlines."""
    both, _ = cv2.intersectConvexConvex(first, second)
    return both / (cv2.contourArea(first) + cv2.contourArea(second) - both)


def why(develop: Development, frame: NDArray[np.generic]) -> Collection[Refusal]:
    with pytest.raises(PictureRefusedError) as caught:
        develop(frame)
    return caught.value.refusals


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("name", sorted(READ))
def test_slices_that_are_whole_come_out_as_the_digital_slice(
    develop: Development, name: NamedFrame, family: Family
) -> None:
    """A round field of view, the larger of two slices, text across it, a slice on its side: each comes out upright."""
    shot = named_frame(name, phantom(), seed=SEED, family=family)
    developed = develop(shot.frame)
    assert developed.pixels.shape == (INPUT_PX, INPUT_PX)
    assert overlap(developed.quad, shot.quad) > 0.95
    view = load_intake(None).look(developed.pixels)
    assert view.rotated(0) > 0.8
    assert view.mirrored < 0.2


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_must_not_be_read_is_refused_for_its_own_reason(
    develop: Development, name: NamedFrame, family: Family
) -> None:
    """Glare across an edge, a cut or mirrored slice, none at all: the reason names the trouble."""
    reasons = why(develop, named_frame(name, phantom(), seed=SEED, family=family).frame)
    assert reasons[0] in REFUSED[name]


@pytest.mark.parametrize("family", Family)
def test_a_black_slice_on_a_black_bezel_is_read_whole_or_not_at_all(develop: Development, family: Family) -> None:
    """Its outline cannot be seen: what is found holds all of it, black around it being cut off, or it is refused."""
    shot = named_frame(NamedFrame.BLACK_ON_BLACK, phantom(), seed=SEED, family=family)
    try:
        found = develop(shot.frame).quad
    except PictureRefusedError as error:
        assert error.refusals[0] in {Refusal.NO_SLICE, Refusal.UNSURE_OUTLINE}
    else:
        assert all(cv2.pointPolygonTest(found, corner.tolist(), measureDist=True) > -2 for corner in shot.quad)


@pytest.mark.parametrize("scene", EmptyScene)
def test_a_scene_without_a_slice_is_refused(develop: Development, scene: EmptyScene) -> None:
    """A desk, a face, a page of text, a window, an empty monitor."""
    assert why(develop, empty_scene(scene, severity=1, seed=SEED, family=Family.HELD_OUT))


def test_a_frame_out_of_focus_is_refused(develop: Development) -> None:
    """The outline may still be found where nothing can be read any more."""
    frame = shoot(phantom(1), severity=0.6, seed=1, family=Family.TRAINING).frame
    assert Refusal.NOT_SHARP in why(develop, cv2.GaussianBlur(frame, (0, 0), 6))


def test_stages_can_be_switched_off() -> None:
    """Without gate and intake a mirrored slice comes out mirrored; without photometry it looks as the camera saw it."""
    shot = named_frame(NamedFrame.MIRRORED, phantom(), seed=SEED, family=Family.TRAINING)
    bare = DevelopmentSettings(quality_gate=False, intake=False)
    mirrored = Development(bare, None, load_intake(None))(shot.frame)
    assert likeness(mirrored, np.ascontiguousarray(phantom()[:, ::-1])) > 0.85
    raw = Development(bare.model_copy(update={"photometry": False}))(shot.frame)
    assert likeness(raw, phantom()[:, ::-1]) < likeness(mirrored, phantom()[:, ::-1])


def test_every_stage_says_how_long_it_took(develop: Development) -> None:
    """The times are given by stage, also where the frame is refused."""
    developed = develop(shoot(phantom(1), severity=0.6, seed=1, family=Family.TRAINING).frame)
    assert list(developed.milliseconds) == ["locate", "rectify", "photometry", "quality", "intake"]
    with pytest.raises(PictureRefusedError) as caught:
        develop(empty_scene(EmptyScene.DESK, severity=1, seed=SEED, family=Family.HELD_OUT))
    assert list(caught.value.milliseconds) == ["locate"]
