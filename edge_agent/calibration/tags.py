"""Tags: find the calibration page in a frame by the tags in its corners, and how the lens bends it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.calibration.errors import PageMirroredError, TagsNotFoundError
from edge_agent.calibration.page import CORNERS, TAG_DICTIONARY, tag_corners
from edge_agent.light import Picture

Points = NDArray[np.float64]
Matrix = NDArray[np.float64]

_TAG_SIZES = (0.95, 0.99, 1.03)
"""White spreads into black in a photograph, so that tags look smaller: their size is fitted along with the lens."""
_DISTORTIONS = tuple(np.linspace(-0.12, 0.12, 25))
_MIRRORED = "the page is mirrored: switch off mirroring in the camera or the viewer, and show one page only"
_LARGER = 2
"""Small or blurred tags are found in an enlarged frame."""


@dataclass(frozen=True)
class PageView:
    """How the page is seen: homography from shares of its side to ideal pixels, and the lens's distortion."""

    homography: Matrix
    distortion: float
    frame_size: tuple[int, int]

    def into_frame(self, points: Points) -> Points:
        """Return the frame's pixels of points [n, 2] of the page, as shares of its side."""
        ideal = cv2.perspectiveTransform(points[None], self.homography)[0]
        return distorted(np.asarray(ideal, np.float64), self.distortion, self.frame_size)


def find_page(frame: Picture) -> PageView:
    """Find the page in a frame uint8 [height, width, 3].

    Raises `TagsNotFoundError`, or `PageMirroredError` where they are found in the mirrored frame or in a wrong order.
    """
    grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)
    found = _detected(grey, 1)
    if len(found) < len(CORNERS):
        found = _detected(grey, _LARGER) | found
    if len(found) < len(CORNERS):
        if len(_detected(np.ascontiguousarray(grey[:, ::-1]), 1)) > len(found):
            raise PageMirroredError(_MIRRORED)
        raise TagsNotFoundError(tuple(name for tag, name in enumerate(CORNERS) if tag not in found))
    seen = np.stack([found[tag] for tag in range(len(CORNERS))])
    if not _is_clockwise(seen.mean(1)):
        raise PageMirroredError(_MIRRORED)
    return _fitted(seen, frame.shape[:2])


def ideal(points: Points, distortion: float, frame_size: tuple[int, int]) -> Points:
    """Return where a lens without distortion would show points [n, 2] of the frame (height, width)."""
    centre, reach = _centre(frame_size), np.hypot(*frame_size) / 2
    offset = (points - centre) / reach
    return np.asarray(centre + reach * offset * (1 + distortion * np.square(offset).sum(-1, keepdims=True)), np.float64)


def distorted(points: Points, distortion: float, frame_size: tuple[int, int]) -> Points:
    """Return where this lens shows ideal points; the inverse of `ideal`."""
    centre, reach = _centre(frame_size), np.hypot(*frame_size) / 2
    target = (points - centre) / reach
    offset = target
    for _ in range(20):
        offset = target / (1 + distortion * np.square(offset).sum(-1, keepdims=True))
    return np.asarray(centre + reach * offset, np.float64)


def _detected(grey: NDArray[np.uint8], scale: int) -> dict[int, Points]:
    """Return the four corners [4, 2] of each of the page's tags that a frame shows, enlarged by `scale`.

    Of several the largest counts: a viewer shows small pictures of the page besides.
    """
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    detector = cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(TAG_DICTIONARY), parameters)
    enlarged = grey if scale == 1 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    corners, tags, _ = detector.detectMarkers(enlarged)
    if tags is None:
        return {}
    found = zip((int(tag) for tag in tags.ravel()), (np.reshape(quad, (4, 2)) for quad in corners), strict=True)
    by_size = sorted(found, key=lambda tag_and_quad: float(cv2.contourArea(tag_and_quad[1])))
    return {tag: (np.asarray(quad, np.float64) + 0.5) / scale - 0.5 for tag, quad in by_size if tag < len(CORNERS)}


def _is_clockwise(corners: Points) -> bool:
    """Tell whether the page's corners [4, 2] go around clockwise, as seen, at each of them."""
    before, after = np.roll(corners, 1, axis=0) - corners, np.roll(corners, -1, axis=0) - corners
    return bool((after[:, 0] * before[:, 1] - after[:, 1] * before[:, 0] > 0).all())


def _fitted(seen: Points, frame_size: tuple[int, int]) -> PageView:
    """Fit the view to the tags' corners [4, 4, 2]: distortion, the tags' size, and the homography of the rest."""
    squares = [_rest(seen, bend, frame_size)[1] for bend in _DISTORTIONS]
    near = int(np.clip(np.argmin(squares), 1, len(squares) - 2))
    bend = _lowest(_DISTORTIONS[near - 1 : near + 2], squares[near - 1 : near + 2])
    size, _ = _rest(seen, bend, frame_size)
    return PageView(_homography(seen, bend, size, frame_size)[0], bend, frame_size)


def _rest(seen: Points, bend: float, frame_size: tuple[int, int]) -> tuple[float, float]:
    """Return the tags' size under which this distortion fits best, and the mean squared distance that is left."""
    size = _lowest(_TAG_SIZES, [_homography(seen, bend, size, frame_size)[1] for size in _TAG_SIZES])
    return size, _homography(seen, bend, size, frame_size)[1]


def _lowest(at: Sequence[float], heights: Sequence[float]) -> float:
    """Return where the parabola through three points is lowest, within them."""
    curved, slope, _ = np.polyfit(at, heights, 2)
    lowest = -slope / (2 * curved) if curved > 0 else at[int(np.argmin(heights))]
    return float(np.clip(lowest, min(at), max(at)))


def _homography(seen: Points, bend: float, size: float, frame_size: tuple[int, int]) -> tuple[Matrix, float]:
    """Return the best homography from the page to ideal pixels, and the mean squared distance in pixels."""
    drawn = tag_corners()
    centres = drawn.mean(1, keepdims=True)
    page = (centres + (drawn - centres) * size).reshape(-1, 2)
    straight = ideal(seen.reshape(-1, 2), bend, frame_size)
    matrix = np.asarray(cv2.findHomography(page, straight)[0], np.float64)
    apart = cv2.perspectiveTransform(page[None], matrix)[0] - straight
    return matrix, float(np.mean(np.square(apart)))


def _centre(frame_size: tuple[int, int]) -> Points:
    return np.array([frame_size[1] - 1, frame_size[0] - 1]) / 2
