"""What the intake network learns from: pictures of upright chests, and pictures of anything else."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.slices import Pixels
from training.intake.chests import chest_pictures
from training.intake.others import other_pictures
from training.model.preprocess import Frame

STORED_PX = 128
"""Twice what the network reads, so that varying does not blur."""
PEOPLE_PER_OTHERS = 2
"""For every second person a handful of pictures without a chest is drawn, which makes more than half of all."""


class IntakeStoppedError(Exception):
    """Training was asked to stop; nothing is kept, for it takes minutes."""

    def __init__(self) -> None:
        super().__init__("intake training stopped; nothing was written, start it again")


@dataclass(frozen=True)
class Examples:
    """Pictures uint8 [n, 128, 128], and which of them are upright chests: bool [n]."""

    pictures: NDArray[np.uint8]
    is_chest: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.is_chest)

    def concat(self, other: "Examples") -> "Examples":
        """Return the examples of both."""
        return Examples(
            np.concatenate([self.pictures, other.pictures]), np.concatenate([self.is_chest, other.is_chest])
        )


def drawn_examples(
    people: int,
    seed: int,
    on_person: Callable[[int, int], None] = lambda _, __: None,
    stop: threading.Event | None = None,
) -> Examples:
    """Draw so many phantoms and what is no chest; no patient is in it, and the same arguments give the same bits.

    `on_person` hears how many of how many are drawn. Raises `IntakeStoppedError`.
    """
    pictures: list[Frame] = []
    is_chest: list[bool] = []
    for number in range(people):
        if stop is not None and stop.is_set():
            raise IntakeStoppedError
        chests = chest_pictures(seed, number)
        scrambled = chests[number // PEOPLE_PER_OTHERS % len(chests)]
        others = other_pictures(seed, number, scrambled) if number % PEOPLE_PER_OTHERS == 0 else []
        pictures += [_stored(picture) for picture in (*chests, *others)]
        is_chest += [True] * len(chests) + [False] * len(others)
        on_person(number + 1, people)
    return Examples(np.stack(pictures), np.array(is_chest))


def real_examples(slices: Pixels) -> Examples:
    """Take prepared slices uint8 [n, 256, 256] that are known to lie upright, as chests."""
    stored = [_stored(slices[np.array([at])][0]) for at in range(len(slices))]
    return Examples(np.stack(stored), np.ones(len(stored), np.bool_))


def _stored(picture: Frame) -> Frame:
    return np.asarray(cv2.resize(picture, (STORED_PX, STORED_PX), interpolation=cv2.INTER_AREA), np.uint8)
