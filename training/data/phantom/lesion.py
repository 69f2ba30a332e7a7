"""A lesion: an ellipsoid of denser lung with an irregular edge."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.phantom.anatomy import LUNG_HEIGHT_MM
from training.data.phantom.cavity import fissure_y
from training.data.phantom.grid import FloatImage

RAGGEDNESS = 0.3  # how far noise moves the edge, as a part of the radius
UNREST = 0.25  # how uneven the faintest lesion is; a solid one is even
MOST_OPAQUE = 0.98
FISSURE_BLUR_MM = 5


class Place(NamedTuple):
    """The lung of a slice on the coarse grid [128, 128], and the slice's z."""

    x: FloatImage
    y: FloatImage
    depth_mm: FloatImage  # from the pleura
    cloud: FloatImage  # the patient's noise here
    z: float


@dataclass(frozen=True)
class Lesion:
    """What a disease does to one place of the lung."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    angle: float  # of the first radius, radians
    opacity: float  # 0 lung to 1 soft tissue
    edge: float  # softness as a part of the radius
    rim_mm: float = 0  # how deep from the pleura it reaches; 0 = any depth
    mesh: float = 0  # crazy paving
    wedge: float = 0  # how much wider it is outside than towards the hilum
    lobe: int = 0  # +1 ends at the fissure towards the front, -1 towards the back, 0 does not care

    def meets(self, z: float) -> bool:
        """Tell whether the slice at z cuts it."""
        return abs(self.center[2] - z * LUNG_HEIGHT_MM) < self.radii[2]

    def opacity_at(self, place: Place) -> FloatImage:
        """Return how opaque it makes each place of a slice that it meets."""
        t = np.clip((1 - self._distance(place) + RAGGEDNESS * place.cloud) / self.edge, 0, 1)
        unrest = UNREST * (1 - self.opacity)
        own_side = place.x * np.sign(self.center[0]) > 0
        opacity = self.opacity * t * t * (3 - 2 * t) * np.clip(1 + unrest * place.cloud, 0.5, 1.3) * own_side
        if self.rim_mm:
            opacity *= np.exp(-((place.depth_mm / self.rim_mm) ** 2))
        if self.lobe:
            beyond = self.lobe * (place.y - fissure_y(np.abs(place.x), place.z))
            opacity *= np.clip(0.5 + beyond / FISSURE_BLUR_MM, 0, 1)
        return np.asarray(np.clip(opacity, 0, MOST_OPAQUE), np.float32)

    def _distance(self, place: Place) -> NDArray[np.floating]:
        """Return the distance from the middle, 1 on the edge of the ellipse that the slice cuts out."""
        cx, cy, cz = self.center
        shrink = np.sqrt(1 - ((place.z * LUNG_HEIGHT_MM - cz) / self.radii[2]) ** 2)
        c, s = np.cos(self.angle), np.sin(self.angle)
        u = (c * (place.x - cx) + s * (place.y - cy)) / (self.radii[0] * shrink)
        v = (c * (place.y - cy) - s * (place.x - cx)) / (self.radii[1] * shrink)
        v = v / np.clip(1 + self.wedge * np.sign(cx) * u, 0.4, 1.6)
        return np.asarray(np.sqrt(u * u + v * v))
