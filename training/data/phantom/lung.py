"""The lung's inside: aired tissue, opacities, and what is stroked into it, as HU."""

from collections.abc import Sequence

import cv2
import numpy as np

from training.data.phantom.anatomy import Anatomy
from training.data.phantom.canvas import Canvas
from training.data.phantom.clouds import drift, grain
from training.data.phantom.grid import COARSE_PX, SIDE_PX, FloatImage, Paint, boxed, enlarge
from training.data.phantom.lesion import Place
from training.data.phantom.materials import BLOOD, BRONCHIAL_AIR
from training.data.phantom.seeds import rng_for, slice_key
from training.data.phantom.strokes import FULL, Strokes
from training.data.phantom.subject import Subject

MEDIUM_CLOUD, SMALL_CLOUD = 0.85, 0.6  # strengths in the noise that shapes opacities
BRONCHOGRAM_CONTRAST, BRONCHOGRAM_FROM = 2.5, 1  # seen from an opacity of 1/2.5, in full from 2/2.5
DEPENDENT_FROM, DEPENDENT_STEEPNESS = 0.5, 9  # collapse begins at this part of the half depth
DEPENDENT_TILT_MM = 40


def lung_hu(
    subject: Subject, canvas: Canvas, lung: Paint, strokes: Strokes, z: float, box: Sequence[int]
) -> FloatImage:
    """Return the HU of aired lung, opacities, vessels and bronchi in the box; meaningful inside the lungs alone."""
    place = _place(subject, canvas, lung, z)
    opacity, mesh = _opacity(subject, place)
    rng = rng_for(*subject.key, "texture", slice_key(z))
    hu, dense, fine = (
        boxed(picture, box).copy()
        for picture in (enlarge(_aired_hu(subject, place)), enlarge(opacity), grain(rng, mesh))
    )
    dense += dense * (1 - dense) * fine
    solid, lumen, bronchogram = (boxed(layer, box) * np.float32(1 / FULL) for layer in strokes)
    air = np.maximum(lumen, bronchogram * np.clip(BRONCHOGRAM_CONTRAST * dense - BRONCHOGRAM_FROM, 0, 1))
    for part, material in ((dense, BLOOD), (solid, BLOOD), (air, BRONCHIAL_AIR)):
        hu += part * (np.float32(material) - hu)
    return np.asarray(hu, np.float32)


def _place(subject: Subject, canvas: Canvas, lung: Paint, z: float) -> Place:
    x, y = canvas.coarse_grid()
    clouds = subject.clouds
    cloud = np.float32(MEDIUM_CLOUD) * drift(clouds.medium, z) + np.float32(SMALL_CLOUD) * drift(clouds.small, z)
    return Place(x, y, _depth_mm(lung, canvas.px_per_mm), cloud, z)


def _depth_mm(lung: Paint, px_per_mm: float) -> FloatImage:
    """Return the distance to the lung's edge on the coarse grid."""
    coarse = cv2.resize(lung, (COARSE_PX, COARSE_PX), interpolation=cv2.INTER_AREA)
    distance = cv2.distanceTransform((coarse > FULL // 2).astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(distance * (SIDE_PX / COARSE_PX / px_per_mm), np.float32)


def _opacity(subject: Subject, place: Place) -> tuple[FloatImage, float]:
    """Return how dense the lung is (0 air-filled to 1 solid, coarse grid), and how strong its mesh is."""
    clear = 1 - _dependent(subject.anatomy, place)
    mesh = 0.0
    for lesion in subject.lesions:
        if lesion.meets(place.z):
            clear *= 1 - lesion.opacity_at(place)
            mesh = max(mesh, lesion.mesh)
    return (1 - clear).astype(np.float32), mesh


def _dependent(anatomy: Anatomy, place: Place) -> FloatImage:
    """Return the opacity of lung collapsed by its own weight: a thin seam along the back of both lungs."""
    strength, reach_mm = anatomy.tissue.dependent
    half_width, half_depth = anatomy.body.cavity_mm
    depth = (place.y + anatomy.tissue.dependent_tilt * place.x / half_width * DEPENDENT_TILT_MM) / half_depth
    lower = 1 / (1 + np.exp(-(depth - DEPENDENT_FROM) * DEPENDENT_STEEPNESS))
    uneven = np.clip(1 + 0.5 * place.cloud, 0, 1.6)
    return np.asarray(strength * lower * np.exp(-place.depth_mm / reach_mm) * uneven, np.float32)


def _aired_hu(subject: Subject, place: Place) -> FloatImage:
    """Return the HU of healthy lung on the coarse grid: denser towards the back, uneven."""
    body, tissue = subject.anatomy.body, subject.anatomy.tissue
    gravity = tissue.gravity_hu * (place.y / (2 * body.cavity_mm[1]))
    mottle = tissue.mottle_hu * drift(subject.clouds.large, place.z)
    return np.asarray(tissue.lung_hu + gravity + mottle, np.float32)
