"""Pictures through the simulated camera, cut out of their frames as the capture path does: slices, and all else."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.model.preprocess import Frame
from training.screen_camera import EmptyScene, Family, empty_scene, shoot

FRAME_SIZE = (360, 640)
"""Half of a webcam's: what is cut out of it is still larger than what the network sees."""
CUT_PX = 256
_MOST_JITTER = 0.02
"""Of the slice's side: how far a located corner may be off."""
_SEVERITY = (0.2, 1.5)


def captured(slice_: Frame, rng: Generator) -> Frame:
    """Return a slice as a camera sees it, cut along a slightly wrong quad: grey uint8, its longer side 256 pixels."""
    seed = int(rng.integers(2**31))
    shot = shoot(slice_, severity=rng.uniform(*_SEVERITY), seed=seed, family=Family.TRAINING, size=FRAME_SIZE)
    side = float(np.linalg.norm(shot.quad[1] - shot.quad[0]))
    quad = shot.quad + rng.uniform(-_MOST_JITTER, _MOST_JITTER, (4, 2)).astype(np.float32) * side
    height, width = (max(1, round(CUT_PX * length / max(slice_.shape))) for length in slice_.shape)
    return _restored(_cut(shot.frame, quad, (width, height)), rng)


def scene_cuts(count: int, rng: Generator, family: Family) -> list[Frame]:
    """Return random cuts, uint8 [256, 256] each, of one simulated scene that has no slice."""
    kind = list(EmptyScene)[rng.integers(len(EmptyScene))]
    seed = int(rng.integers(2**31))
    frame = empty_scene(kind, severity=rng.uniform(*_SEVERITY), seed=seed, family=family, size=FRAME_SIZE)
    return [_restored(_cut(frame, _any_quad(rng), (CUT_PX, CUT_PX)), rng) for _ in range(count)]


def _restored(cut: Frame, rng: Generator) -> Frame:
    """Take some of the veil off the black, and set the brightest somewhere, as photometry does more or less well."""
    black, white = np.percentile(cut, (1, 99.8))
    low = rng.choice([0.0, 1.0, rng.uniform()]) * black
    shown = (cut - low) * (rng.uniform(120, 255) / max(white - low, 16.0))
    return np.asarray(np.clip(shown, 0, 255), np.uint8)


def _any_quad(rng: Generator) -> NDArray[np.float32]:
    height, width = FRAME_SIZE
    side = rng.uniform(0.25, 1.0) * height
    middle = rng.uniform((side / 2, side / 2), (width - side / 2, height - side / 2))
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * side / 2
    return np.asarray(middle + square * rng.uniform(0.8, 1.1, (4, 2)), np.float32)


def _cut(frame: NDArray[np.uint8], quad: NDArray[np.float32], size: tuple[int, int]) -> Frame:
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32) * np.array(size, np.float32)
    matrix = cv2.getPerspectiveTransform(np.asarray(quad, np.float32), corners)
    cut = cv2.warpPerspective(frame, matrix, size, flags=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(cut, cv2.COLOR_BGR2GRAY), np.uint8)
