"""A slice: one patient, cut at one height, as one site's picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.labels import Label
from training.data.phantom.anatomy import Body
from training.data.phantom.canvas import WHITE, Canvas, empty_canvas
from training.data.phantom.cavity import cavity_outline
from training.data.phantom.diaphragm import paint_domes
from training.data.phantom.errors import PhantomError
from training.data.phantom.grid import FloatImage, Paint, Points, boxed
from training.data.phantom.lung import lung_hu
from training.data.phantom.materials import AIR
from training.data.phantom.mediastinum import paint_airways, paint_mediastinum
from training.data.phantom.scanner import scan
from training.data.phantom.seeds import rng_for, slice_key
from training.data.phantom.sites import PhantomSite
from training.data.phantom.skeleton import paint_spine
from training.data.phantom.strokes import FULL, draw_strokes
from training.data.phantom.subject import Subject, draw_subject
from training.data.phantom.table import paint_table
from training.data.phantom.wall import paint_wall

INSIDE = 1.01  # the lungs' inside is cut so much larger than their outline, so that their edge blends


def render_slice(*, seed: int, site: PhantomSite, label: Label, patient: int, z: float) -> NDArray[np.uint8]:
    """Return the grey slice [512, 512] of a patient at z (0 apex to 1 base; 0.25 to 0.75 looks like a chest).

    The label changes the disease alone: anatomy, harmless findings and noise stay those of the patient.
    Raises PhantomError when z is outside 0..1 or a number is negative.
    """
    if not 0.0 <= z <= 1.0:
        raise PhantomError(f"z is {z}: it must lie in 0..1")
    if seed < 0 or patient < 0:
        raise PhantomError(f"seed {seed}, patient {patient}: neither may be negative")
    return render(draw_subject(seed, site, label, patient), site, z)


def render(subject: Subject, site: PhantomSite, z: float) -> Paint:
    """Return the grey slice [512, 512] of a subject that is drawn already."""
    canvas = empty_canvas(subject.anatomy.framing)
    inside, lung = _paint_chest(canvas, subject.anatomy.body, site, z)
    hu = canvas.hu()
    _fill_lungs(hu, subject, canvas, site, inside, lung, z)
    return scan(hu, site, rng_for(*subject.key, "noise", slice_key(z)))


def _paint_chest(canvas: Canvas, body: Body, site: PhantomSite, z: float) -> tuple[Paint, Paint]:
    """Paint all but the lungs' inside; return the cavity, and how much of each pixel is lung (0 to 255)."""
    cavity = cavity_outline(body, z)
    paint_wall(canvas, body, cavity, z)
    paint_table(canvas, body, site.curved_table)
    inside = _paint_cavity(canvas, body, cavity, z)
    paint_spine(canvas, body)
    lung = np.minimum(canvas.airiness(), inside)
    paint_airways(canvas, z)
    return inside, lung


def _paint_cavity(canvas: Canvas, body: Body, cavity: Points, z: float) -> Paint:
    """Paint empty lungs, the heart and great vessels between them, the domes; return the inside, 0 or not."""
    inside = canvas.blank()
    inside.fill(cavity * INSIDE, WHITE)
    canvas.fill(cavity, AIR)
    paint_mediastinum(canvas, body, z)
    paint_domes(canvas, body, cavity, z)
    return inside.pixels


def _fill_lungs(
    hu: FloatImage, subject: Subject, canvas: Canvas, site: PhantomSite, inside: Paint, lung: Paint, z: float
) -> None:
    """Put the lungs' inside where the chest's HU say air."""
    box = cv2.boundingRect(inside)
    strokes = draw_strokes(subject, canvas, site.slab_mm, z)
    filling = lung_hu(subject, canvas, lung, strokes, z, box) - np.float32(AIR)
    boxed(hu, box)[:] += boxed(lung, box) * np.float32(1 / FULL) * filling
