"""Chest-CT-like phantom slices, so that tests and the demo need no patient.

A patient is random numbers only (subject); a slice is painted from them (slice): soft tissue and bone as polygons, lung
as texture, vessel trees cut by the slice, opacities; last, the scanner. Lengths are millimetres, densities Hounsfield
units (HU). x points to the image's right (the patient's left), y to the back, z runs from the lungs' apex (0) to their
base (1). Sizes and places are an adult's by the anatomy books, then moved until the pictures looked right beside real
slices: a bare number in a painter or in a random range is of that kind, and is named by what it is passed to.
"""

from training.data.labelled import COLUMNS, SPLITS
from training.data.phantom.cohort import Cohort
from training.data.phantom.errors import PhantomError
from training.data.phantom.files import DESCRIPTION, RECIPE_VERSION, write_phantoms
from training.data.phantom.grid import SIDE_PX
from training.data.phantom.sites import SITES, PhantomSite
from training.data.phantom.slice import render_slice

__all__ = [
    "COLUMNS",
    "DESCRIPTION",
    "RECIPE_VERSION",
    "SIDE_PX",
    "SITES",
    "SPLITS",
    "Cohort",
    "PhantomError",
    "PhantomSite",
    "render_slice",
    "write_phantoms",
]
