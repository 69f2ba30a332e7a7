"""Real CT slices from every source decode, show a body, and become 256x256."""

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from training.model.decode import decode_image
from training.model.preprocess import content_box, prepare

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SAMPLES_A_SOURCE = 4
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="real slices are not here: ../shared/data is missing"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def samples() -> Iterator[pytest.ParameterSet]:
    """Yield a few files, evenly spread, of every source and class."""
    for collection in ("chest-ct", "chest-ct-dicom"):
        listing = DATA / collection / "labels.csv"
        if not listing.is_file():
            continue
        with listing.open(newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: (row["source"], row["label"], row["file"]))
        for _, group in groupby(rows, key=lambda row: (row["source"], row["label"])):
            files = [row["file"] for row in group]
            for name in files[:: max(1, len(files) // SAMPLES_A_SOURCE)][:SAMPLES_A_SOURCE]:
                yield pytest.param(DATA / collection / name, id=f"{collection}/{name}")


@pytest.mark.parametrize("path", list(samples()))
def test_a_real_slice_is_decoded_boxed_and_prepared(path: Path) -> None:
    """A real file gives a grey frame in which a body-sized box is found and made 256x256, neither black nor white."""
    frame = decode_image(path.read_bytes())
    box = content_box(frame)
    assert box.cut(frame).size >= 0.1 * frame.size
    prepared = prepare(frame, box)
    assert prepared.shape == (256, 256)
    assert prepared.dtype == np.uint8
    assert prepared.std() > 8


@pytest.mark.parametrize("path", list(samples()))
def test_a_black_page_around_a_real_slice_changes_little(path: Path) -> None:
    """The same slice on the black page of a viewer is prepared almost as it is alone."""
    frame = decode_image(path.read_bytes())
    change = np.abs(prepare(np.pad(frame, 60)).astype(int) - prepare(frame))
    assert change.mean() < 8, f"changed by {change.mean():.0f} grey levels on average"
