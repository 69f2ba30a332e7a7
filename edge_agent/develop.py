"""Develop a camera's frame into the slice that a network reads, or say why it must not be read.

Locate the slice, rectify it with a strip of its surroundings, bring its greys back, judge its quality, and look whether
it is an upright chest CT. Each stage can be switched off, so that a benchmark can tell what it is worth.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edge_agent import intake as intake_rules
from edge_agent.calibration import Calibration
from edge_agent.intake import Intake, IntakeLimits
from edge_agent.locate import Location, as_bgr, locate
from edge_agent.photometry import MARGIN, Place, restore, with_margin
from edge_agent.photometry.margin import margin_px
from edge_agent.quality import QualityLimits, judge, measure
from edge_agent.rectify import fitting_size, rectify
from edge_agent.refusal import Refusal, Side, sentence
from training.model.preprocess import BlankFrameError, Box, Frame, NoBodyError, prepare

RECTIFIED_PX = 320
"""Side of the rectified picture with its margin: the slice in it has 284, a little more than networks see."""


class DevelopmentSettings(BaseModel):
    """How a camera's frames are developed, and from where they are refused; the switches are for benchmarks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    photometry: bool = True
    """Bring greys back to the digital slice's."""
    quality_gate: bool = True
    """Refuse pictures that are not good enough."""
    intake: bool = True
    """Refuse what is no upright chest CT; what surely lies on its side is turned."""
    unlikeness: float = Field(default=1.5, gt=0)
    """Above it a slice is refused as unlike what the network learnt from; 1 is the border, inf refuses none."""
    quality: QualityLimits = QualityLimits()
    orientation: IntakeLimits = IntakeLimits()


@dataclass(frozen=True)
class Developed:
    """The prepared slice uint8 [256, 256], its outline float32 [4, 2] in the frame, how sure that is, and the times."""

    pixels: Frame
    quad: NDArray[np.float32]
    score: float
    milliseconds: dict[str, float]
    """By stage, in their order."""


class PictureRefusedError(ValueError):
    """A frame that must not be read: `refusals` say why, the first one the person is told; `quad` is its outline."""

    def __init__(
        self,
        refusals: Sequence[Refusal],
        where: Side | None,
        quad: NDArray[np.float32] | None,
        milliseconds: dict[str, float],
    ) -> None:
        super().__init__(sentence(refusals[0], where))
        self.refusals = tuple(refusals)
        self.quad = quad
        self.milliseconds = milliseconds


class Development:
    """The stages with their settings; called with one frame after another, it keeps nothing of them."""

    def __init__(
        self,
        settings: DevelopmentSettings,
        calibration: Calibration | None = None,
        intake: Intake | None = None,
        find: Callable[[NDArray[np.uint8]], Location] = locate,
    ) -> None:
        """Remember the parts; without an intake network nothing is known of what a slice shows.

        `find` looks for the slice in a frame; who knows its outline already, tells that.
        """
        self._settings, self._calibration, self._find = settings, calibration, find
        self._intake = intake if settings.intake else None

    @property
    def most_unlike(self) -> float:
        """Return above which unlikeness a developed slice, once read, is refused after all."""
        return self._settings.unlikeness

    def __call__(self, frame: NDArray[np.generic]) -> Developed:
        """Develop a frame uint8 [height, width, 3] BGR (others are converted); raises `PictureRefusedError`."""
        watch = _Watch()
        with watch.of("locate"):
            picture = as_bgr(frame)
            found = self._find(picture)
        if found.quad is None:
            raise PictureRefusedError([_refusal(found.reason)], found.side, None, watch.milliseconds)
        with watch.of("rectify"):
            rectified = rectify(picture, with_margin(found.quad), RECTIFIED_PX, RECTIFIED_PX)
        with watch.of("photometry"):
            grey = self._grey(rectified, Place(found.quad, picture.shape[:2]))
        with watch.of("quality"):
            self._refuse_poor(picture, found.quad, found.score, rectified, watch)
        with watch.of("intake"):
            size = fitting_size(found.quad, picture.shape, len(grey))
            shown = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
            pixels = self._upright(_prepared(np.asarray(shown, np.uint8), found.quad, watch), found.quad, watch)
        return Developed(pixels, found.quad, found.score, watch.milliseconds)

    def _grey(self, rectified: NDArray[np.uint8], place: Place) -> Frame:
        if self._settings.photometry:
            return restore(rectified, self._calibration, margin=MARGIN, place=place)
        return restore_nothing(rectified)

    def _refuse_poor(
        self,
        picture: NDArray[np.uint8],
        quad: NDArray[np.float32],
        score: float,
        rectified: NDArray[np.uint8],
        watch: "_Watch",
    ) -> None:
        if not self._settings.quality_gate:
            return
        facts = measure(picture, quad, score, rectified, margin=MARGIN)
        refusals = judge(facts, self._settings.quality)
        if refusals:
            where = facts.slice_quality.glare_side if facts.slice_quality else None
            raise PictureRefusedError(refusals, where, quad, watch.milliseconds)

    def _upright(self, prepared: Frame, quad: NDArray[np.float32], watch: "_Watch") -> Frame:
        if self._intake is None:
            return prepared
        view = self._intake.look(prepared)
        refusal = intake_rules.judge(view, self._settings.orientation)
        if refusal is not None:
            raise PictureRefusedError([refusal], None, quad, watch.milliseconds)
        return intake_rules.upright(prepared, view, self._settings.orientation)


class _Watch:
    """How long each stage took, also one that ended in a refusal."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[stage] = (time.perf_counter() - started_s) * 1000


def restore_nothing(rectified: NDArray[np.uint8]) -> Frame:
    """Return the slice of a rectified picture [s, s, 3] as the camera saw it, without its margin."""
    edge = margin_px(len(rectified), MARGIN)
    return np.asarray(cv2.cvtColor(rectified[edge:-edge, edge:-edge], cv2.COLOR_BGR2GRAY), np.uint8)


def _prepared(grey: Frame, quad: NDArray[np.float32], watch: _Watch) -> Frame:
    """Crop to the body; a slice in which it cannot be told from what is around it is read whole."""
    try:
        return prepare(grey)
    except NoBodyError:
        return prepare(grey, Box(0, 0, *grey.shape))
    except BlankFrameError:
        raise PictureRefusedError([Refusal.NO_SLICE], None, quad, watch.milliseconds) from None


def _refusal(reason: str) -> Refusal:
    return Refusal(reason) if reason in set(Refusal) else Refusal.NO_SLICE
