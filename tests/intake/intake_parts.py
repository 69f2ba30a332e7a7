"""Pictures that the shipped intake network never learnt from."""

import numpy as np

from protocol.labels import LABELS
from training.data.phantom import SITES, render_slice
from training.intake.captured import scene_cuts
from training.model.preprocess import BlankFrameError, Frame, prepare
from training.screen_camera import Family

HELD_OUT_SEED = 987_001


def phantoms(count: int, *, low_z: float = 0.3, high_z: float = 0.72) -> list[Frame]:
    """Prepare phantoms of both sites, of patients of their own, spread over the chest."""
    return [
        prepare(
            render_slice(
                seed=HELD_OUT_SEED,
                site=SITES["site-a" if number % 2 else "site-b"],
                label=LABELS[number % len(LABELS)],
                patient=number,
                z=low_z + (high_z - low_z) * (number + 0.5) / count,
            )
        )
        for number in range(count)
    ]


def scenes(count: int) -> list[Frame]:
    """Prepare cuts out of simulated scenes without a slice, of the family that is held out."""
    pictures = []
    for number in range(count):
        (cut,) = scene_cuts(1, np.random.default_rng([HELD_OUT_SEED, number]), Family.HELD_OUT)
        try:
            pictures.append(prepare(cut))
        except BlankFrameError:
            continue
    return pictures


def lying(prepared: Frame, rotation_deg: int, *, mirrored: bool = False) -> Frame:
    """Mirror a slice left to right or not, then turn it clockwise."""
    start = prepared[:, ::-1] if mirrored else prepared
    return np.ascontiguousarray(np.rot90(start, -rotation_deg // 90))
