"""What follows from a view: refused, turned, or read as it is."""

import numpy as np
import pytest
from intake_parts import lying

from edge_agent.intake import ORIENTATIONS, UPRIGHT, IntakeLimits, Orientation, View, judge, upright
from edge_agent.refusal import Refusal

LIMITS = IntakeLimits()
PICTURE = np.random.default_rng(9).integers(0, 256, (256, 256), np.uint8)


def view(no_chest: float = 0.0, **shares: float) -> View:
    """Return a view in which the named orientations have these probabilities, and the others none."""
    named = {name.replace("_", "-"): share for name, share in shares.items()}
    return View({one: named.get(one.name, 0.0) for one in ORIENTATIONS}, no_chest)


def test_what_is_surely_no_chest_is_refused() -> None:
    """A picture that is no chest is refused as that, whatever way round it might be."""
    assert judge(view(no_chest=0.99, rotated_90_mirrored=0.01), LIMITS) is Refusal.NOT_A_CHEST_CT


def test_surely_mirrored_slice_is_refused() -> None:
    """A mirrored slice is refused however it is turned, and is never turned."""
    for rotation in (0, 90, 180, 270):
        seen = View({one: float(one == Orientation(rotation, mirrored=True)) for one in ORIENTATIONS}, 0.0)
        assert judge(seen, LIMITS) is Refusal.MIRRORED
        assert upright(PICTURE, seen, LIMITS) is PICTURE


def test_doubt_about_left_and_right_refuses_nothing() -> None:
    """A slice that may be mirrored or not is read: many lungs do not tell."""
    seen = view(rotated_0=0.4, rotated_0_mirrored=0.6)
    assert judge(seen, LIMITS) is None
    assert upright(PICTURE, seen, LIMITS) is PICTURE


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_surely_turned_slice_is_turned_back(rotation_deg: int) -> None:
    """A slice that is surely turned is not refused but turned, even where left and right are in doubt."""
    turned = lying(PICTURE, rotation_deg)
    plain, mirrored = Orientation(rotation_deg, mirrored=False), Orientation(rotation_deg, mirrored=True)
    seen = View({one: {plain: 0.8, mirrored: 0.19, UPRIGHT: 0.01}.get(one, 0.0) for one in ORIENTATIONS}, 0.0)
    assert judge(seen, LIMITS) is None
    np.testing.assert_array_equal(upright(turned, seen, LIMITS), PICTURE)


def test_likely_turned_slice_is_refused() -> None:
    """A slice that is likely turned, but not surely, is neither read nor turned."""
    likely = (LIMITS.rotated + LIMITS.sure_rotation) / 2
    seen = view(rotated_0=1 - likely, rotated_180=likely)
    assert judge(seen, LIMITS) is Refusal.ROTATED
    assert upright(PICTURE, seen, LIMITS) is PICTURE


def test_doubt_about_the_rotation_refuses_nothing() -> None:
    """A slice of which two ways round are about as likely is read as it is."""
    seen = view(rotated_0=0.45, rotated_180=0.55)
    assert judge(seen, LIMITS) is None
    assert upright(PICTURE, seen, LIMITS) is PICTURE


def test_limits_of_one_refuse_and_turn_nothing() -> None:
    """Each of the checks can be switched off by a limit of 1."""
    off = IntakeLimits(no_chest=1, mirrored=1, rotated=1, sure_rotation=1)
    for seen in (view(no_chest=1.0), view(rotated_0_mirrored=1.0), view(rotated_90=1.0)):
        assert judge(seen, off) is None
        assert upright(PICTURE, seen, off) is PICTURE


def test_turning_can_be_switched_off() -> None:
    """Where nothing shall be turned, a turned slice is refused."""
    assert judge(view(rotated_90=1.0), IntakeLimits(sure_rotation=1)) is Refusal.ROTATED
