"""Files: a folder of phantom PNGs and its labels.csv, which an interrupted run can go on writing."""

import csv
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from training.data.labelled import COLUMNS, LABELS_FILE
from training.data.phantom.cohort import Cohort, Plan, check_cohort, plan_patients
from training.data.phantom.grid import Paint
from training.data.phantom.slice import render
from training.data.phantom.subject import Subject, draw_subject

DESCRIPTION = "sliceloop phantom: not a patient"
RECIPE_VERSION = 2  # raise it when the pictures change, so that old files are drawn anew
TEXT_BYTES = 1024  # our PNG texts lie before the pixels, within these first bytes
PNG_END = b"IEND\xaeB`\x82"  # the last chunk's name and CRC-32 (PNG specification 11.2.5)


def write_phantoms(
    out: Path, cohorts: Sequence[Cohort], seed: int, on_slice: Callable[[int, int], None] | None = None
) -> Path:
    """Write out/images/<source>/<file>.png and, last, out/labels.csv; return the path of labels.csv.

    What an interrupted run wrote is kept. on_slice(done, total) is called after each slice.
    Raises PhantomError for a cohort that names an unknown site or split.
    """
    for cohort in cohorts:
        check_cohort(cohort)
    plans = list(plan_patients(cohorts, seed))
    total = sum(len(plan.zs) for plan in plans)
    rows: list[tuple[str, ...]] = []
    for plan in plans:
        for row in _write_patient(out, plan, seed):
            rows.append(row)
            if on_slice is not None:
                on_slice(len(rows), total)
    return _write_labels(out / LABELS_FILE, rows)


def _write_patient(out: Path, plan: Plan, seed: int) -> Iterator[tuple[str, ...]]:
    """Write the patient's missing slices; yield a row of labels.csv for each slice."""
    subject: Subject | None = None
    for index, z in enumerate(plan.zs):
        file = f"images/{plan.source}/{plan.patient_id}-{index:02d}.png"
        recipe = _recipe(plan, seed, z)
        if not _is_complete(out / file, recipe):
            subject = subject or draw_subject(seed, plan.site, plan.label, plan.patient)
            _write_png(out / file, render(subject, plan.site, z), recipe)
        yield file, plan.label.value, plan.patient_id, plan.source, plan.split


def _recipe(plan: Plan, seed: int, z: float) -> str:
    """Return a hash of all that the picture depends on; a hash, so that the file does not tell its class."""
    facts = (RECIPE_VERSION, seed, plan.site, plan.label.value, plan.patient, z)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _is_complete(path: Path, recipe: str) -> bool:
    """Tell whether the file is this very picture and ends as a PNG does."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return recipe.encode() in content[:TEXT_BYTES] and content.endswith(PNG_END)


def _write_png(path: Path, pixels: Paint, recipe: str) -> None:
    info = PngInfo()
    info.add_text("Description", DESCRIPTION)
    info.add_text("Recipe", recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    # Noise has no repeats for zlib to find: looking for runs alone is faster, and smaller than level 1.
    Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info, compress_type=zlib.Z_RLE)
    temporary.replace(path)


def _write_labels(path: Path, rows: Sequence[tuple[str, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    temporary.replace(path)
    return path
