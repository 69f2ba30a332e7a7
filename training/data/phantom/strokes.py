"""Strokes: what is too sharp for the coarse grid, drawn as lines: vessels, bronchi, fissures, scars and nodules."""

from typing import NamedTuple

import cv2
import numpy as np

from training.data.phantom.anatomy import LUNG_HEIGHT_MM, Body, Findings
from training.data.phantom.canvas import Canvas
from training.data.phantom.cavity import cavity_scale, fissure_y
from training.data.phantom.grid import Paint, Points
from training.data.phantom.shapes import ellipse
from training.data.phantom.subject import Subject
from training.data.phantom.vessels import Vessels

FULL = 255  # a pixel wholly covered
WALLED_MM = 1.25  # bronchi beside thinner arteries are too thin for their walls to be seen
LUMEN = 0.62  # of a bronchus's radius
WALL_STRENGTH, LUMEN_STRENGTH, BRONCHOGRAM_STRENGTH = 0.4, 0.85, 0.9
BRONCHOGRAM_WIDTH = 1.5  # by the artery's
FISSURE_PAINT, SCAR_PAINT, NODULE_PAINT = 30, 150, 230
SCAR_REACH_Z = 0.05


class Strokes(NamedTuple):
    """What is drawn sharply into the lungs, 0 to 255 as 0 to 1 of a pixel, [512, 512] each."""

    solid: Paint  # vessels, walls of bronchi, fissures, scars, nodules
    lumen: Paint  # air of bronchi that any lung shows
    bronchogram: Paint  # air of small bronchi that only dense lung shows


def draw_strokes(subject: Subject, canvas: Canvas, slab_mm: float, z: float) -> Strokes:
    """Draw all that crosses the slab at z; breathing doubles it."""
    solid, lumen, bronchogram = canvas.blank(), canvas.blank(), canvas.blank()
    anatomy, cut = subject.anatomy, subject.vessels.cut(z * LUNG_HEIGHT_MM, slab_mm)
    _stroke_fissures(solid, anatomy.body, z)
    _stroke_vessels(solid, cut, np.minimum(1, 2 * cut.radius / slab_mm + 0.35))  # the slab dilutes thin ones
    _stroke_scars(solid, anatomy.body, anatomy.findings, z)
    _fill_nodules(solid, anatomy.body, anatomy.findings, z)
    _stroke_bronchi(solid, lumen, bronchogram, cut)
    return Strokes(_doubled(solid, anatomy.tissue.motion_mm), lumen.pixels, bronchogram.pixels)


def _stroke_fissures(solid: Canvas, body: Body, z: float) -> None:
    x = np.linspace(22, body.cavity_mm[0], 12)
    for side in (-1, 1):
        y = fissure_y(x, z + 0.03 * side) + 3 * np.sin(x / 20)
        solid.stroke_paint(np.column_stack([side * x, y]), FISSURE_PAINT, 1)


def _stroke_vessels(canvas: Canvas, pieces: Vessels, strength: Points) -> None:
    """Draw each piece as a line of its width, thick ones last; finer than a pixel, it is a pixel wide but paler."""
    order = np.argsort(pieces.radius)
    width = 2 * pieces.radius * canvas.px_per_mm
    whole = np.maximum(1, np.ceil(width - 0.25)).astype(int)
    paint = (FULL * strength * np.minimum(1, width / whole)).astype(int)
    canvas.stroke_pieces(pieces.start[order, :2], pieces.end[order, :2], paint[order], whole[order])


def _stroke_scars(solid: Canvas, body: Body, findings: Findings, z: float) -> None:
    scale = np.array(body.cavity_mm) * cavity_scale(z)
    for x, y, where, angle, length in findings.bands:
        if abs(where - z) < SCAR_REACH_Z:
            middle = np.array([x, y]) * scale
            half = np.array([np.cos(angle), np.sin(angle)]) * length / 2
            solid.stroke_paint(np.stack([middle - half, middle + half]), SCAR_PAINT, 2)


def _fill_nodules(solid: Canvas, body: Body, findings: Findings, z: float) -> None:
    """Fill the circle that the slice cuts out of each nodule."""
    scale = np.array(body.cavity_mm) * cavity_scale(z)
    for x, y, where, radius in findings.nodules:
        squared = radius**2 - ((where - z) * LUNG_HEIGHT_MM) ** 2
        if squared > 0:
            r = float(np.sqrt(squared))
            solid.fill_paint(ellipse(x * scale[0], y * scale[1], r, r), NODULE_PAINT)


def _stroke_bronchi(solid: Canvas, lumen: Canvas, bronchogram: Canvas, cut: Vessels) -> None:
    """Draw a bronchus beside each artery; large ones have a wall and air, of small ones only the air matters."""
    tubes = _beside(cut.pick(cut.carries_air))
    large, small = tubes.pick(tubes.radius > WALLED_MM), tubes.pick(tubes.radius <= WALLED_MM)
    inner = large._replace(radius=LUMEN * large.radius)
    _stroke_vessels(solid, large, np.full(len(large.radius), WALL_STRENGTH))
    _stroke_vessels(solid, inner, np.zeros(len(large.radius)))
    _stroke_vessels(lumen, inner, np.full(len(large.radius), LUMEN_STRENGTH))
    small = small._replace(radius=BRONCHOGRAM_WIDTH * small.radius)
    _stroke_vessels(bronchogram, small, np.full(len(small.radius), BRONCHOGRAM_STRENGTH))


def _beside(arteries: Vessels) -> Vessels:
    """Return the arteries' places moved to their bronchi's."""
    away = np.column_stack([0.9 * arteries.radius, 1.5 * arteries.radius, 0 * arteries.radius])
    return arteries._replace(start=arteries.start + away, end=arteries.end + away)


def _doubled(solid: Canvas, motion_mm: float) -> Paint:
    """Blend the strokes with themselves moved, as when the patient breathes during the scan."""
    shift = round(motion_mm * solid.px_per_mm)
    if not shift:
        return solid.pixels
    return np.asarray(cv2.addWeighted(solid.pixels, 0.5, np.roll(solid.pixels, shift, axis=0), 0.5, 0), np.uint8)
