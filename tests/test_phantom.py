"""The phantom's slices: reproducible, split by patient, told apart by their disease, and marked as phantoms."""

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from protocol.labels import LABELS, Label
from training.data.phantom import COLUMNS, DESCRIPTION, SITES, Cohort, PhantomError, render_slice, write_phantoms

SEED = 11
ZS = (0.4, 0.5, 0.6)
VISIBLE_GREY = 12  # a step that an eye sees in the noise
MIDLINE_PX = 40  # columns around the middle that belong to neither side

TWO_SITES = (Cohort("site-a", "train", 2, 2), Cohort("site-b", "train", 1, 2), Cohort("site-a", "test", 1, 2))


def draw(label: Label, patient: int = 0, z: float = 0.5, site: str = "site-a", seed: int = SEED) -> NDArray[np.uint8]:
    return render_slice(seed=seed, site=SITES[site], label=label, patient=patient, z=z)


def visible_on_each_side(label: Label, patient: int) -> tuple[int, int]:
    """Count the pixels that the disease made visibly brighter, in the left and the right half, over three slices."""
    left = right = 0
    for z in ZS:
        brighter = draw(label, patient, z).astype(int) - draw(Label.NORMAL, patient, z) > VISIBLE_GREY
        left += int(brighter[:, : 256 - MIDLINE_PX].sum())
        right += int(brighter[:, 256 + MIDLINE_PX :].sum())
    return left, right


def rows_of(labels_csv: Path) -> list[dict[str, str]]:
    with labels_csv.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of phantoms, written once; tests only read it."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), TWO_SITES, SEED)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("site", SITES)
def test_a_slice_is_512_by_512_grey(site: str, label: Label) -> None:
    """Every site draws every class as 512x512 bytes that use the grey scale."""
    pixels = draw(label, site=site)
    assert pixels.shape == (512, 512)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 30


def test_same_seed_same_bits() -> None:
    """The same seed, site, label, patient and z give the same bits."""
    assert np.array_equal(draw(Label.COVID_19), draw(Label.COVID_19))


def test_seed_patient_and_slice_each_change_the_picture() -> None:
    """Another seed, another patient and another z each give another picture."""
    pictures = [
        draw(Label.NORMAL),
        draw(Label.NORMAL, seed=SEED + 1),
        draw(Label.NORMAL, 1),
        draw(Label.NORMAL, z=0.51),
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_neighbouring_slices_resemble_each_other_more_than_patients_do() -> None:
    """Anatomy moves smoothly through z: the next slice of a patient is nearer than another patient's."""
    here = draw(Label.NORMAL, z=0.5).astype(float)
    step = np.abs(here - draw(Label.NORMAL, z=0.505)).mean()
    stranger = np.abs(here - draw(Label.NORMAL, patient=1, z=0.5)).mean()
    assert step < stranger / 2


def test_pneumonia_whitens_one_lung() -> None:
    """Pneumonia is one-sided in each patient, and seen in most."""
    sides = [visible_on_each_side(Label.PNEUMONIA, patient) for patient in range(6)]
    assert all(min(pair) == 0 for pair in sides)
    assert sum(max(pair) > 1000 for pair in sides) >= 4


def test_covid_19_whitens_both_lungs() -> None:
    """COVID-19 shows in both lungs of obvious cases."""
    sides = [visible_on_each_side(Label.COVID_19, patient) for patient in range(6)]
    assert sum(min(pair) > 500 for pair in sides) >= 2


def test_consolidation_is_denser_than_ground_glass() -> None:
    """The brightest change of pneumonia exceeds that of COVID-19 in the median patient."""
    gains = {
        label: [float(np.quantile(draw(label, p).astype(int) - draw(Label.NORMAL, p), 0.995)) for p in range(6)]
        for label in (Label.PNEUMONIA, Label.COVID_19)
    }
    assert np.median(gains[Label.PNEUMONIA]) > np.median(gains[Label.COVID_19])


def test_the_two_sites_differ_in_window_and_noise() -> None:
    """The mean grey of air and its noise tell the two sites apart."""
    air = {site: np.stack([draw(Label.NORMAL, p, site=site)[20:40, 230:280] for p in range(3)]) for site in SITES}
    assert abs(air["site-a"].mean() - air["site-b"].mean()) > 3
    assert air["site-b"].std() > 1.3 * air["site-a"].std()


@pytest.mark.parametrize("z", [-0.1, 1.1, float("nan")])
def test_a_slice_outside_the_chest_is_refused(z: float) -> None:
    """A z outside 0..1 is refused by name."""
    with pytest.raises(PhantomError, match=r"0\.\.1"):
        draw(Label.NORMAL, z=z)


def test_labels_csv_lists_every_slice(written: Path) -> None:
    """labels.csv has all columns, and every file in it exists and decodes to 512x512 grey bytes."""
    rows = rows_of(written)
    assert len(rows) == 3 * (2 * 2 + 1 * 2 + 1 * 2)
    assert all(tuple(row) == COLUMNS for row in rows)
    for row in rows:
        with Image.open(written.parent / row["file"]) as image:
            assert (image.mode, image.size) == ("L", (512, 512))


def test_classes_are_balanced_in_every_cohort(written: Path) -> None:
    """Each cohort holds as many slices of each class as was asked for."""
    for cohort in TWO_SITES:
        rows = [r for r in rows_of(written) if (r["source"], r["split"]) == (f"phantom-{cohort.site}", cohort.split)]
        counts = [sum(row["label"] == label for row in rows) for label in LABELS]
        assert counts == [cohort.patients_per_class * cohort.slices_per_patient] * 3


def test_no_patient_is_in_two_splits(written: Path) -> None:
    """A patient has one split and one label, also where two cohorts share a site."""
    facts = {(row["patient_id"], row["split"], row["label"]) for row in rows_of(written)}
    assert len({patient for patient, _, _ in facts}) == len(facts) == 3 * (2 + 1 + 1)


def test_a_png_says_that_it_is_a_phantom(written: Path) -> None:
    """Each PNG's text says that it is no patient."""
    for path in written.parent.rglob("*.png"):
        with Image.open(path) as image:
            assert image.info["Description"] == DESCRIPTION
            assert "phantom" in DESCRIPTION


def test_nothing_in_a_file_names_its_class(written: Path) -> None:
    """Neither a file's name nor its text tells the class, and patients' numbers are not sorted by class."""
    for path in written.parent.rglob("*.png"):
        with Image.open(path) as image:
            told = f"{path.name} {image.info}".lower()
        assert not any(label.value.lower() in told for label in LABELS)
    labels = [row["label"] for row in rows_of(written) if row["split"] == "train" and row["source"] == "phantom-site-a"]
    assert labels != sorted(labels, key=[label.value for label in LABELS].index)


def test_an_interrupted_writing_resumes(tmp_path: Path, written: Path) -> None:
    """What was complete is kept, what was cut short or missing is drawn anew, and the result is the same."""

    def interrupt(done: int, _total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path, TWO_SITES, SEED, interrupt)
    assert not (tmp_path / "labels.csv").exists()
    *damaged, kept_a, kept_b = sorted(tmp_path.rglob("*.png"))
    for path, size in zip(damaged, (0, 20, 170, 5000, -1), strict=True):
        path.write_bytes(path.read_bytes()[:size])
    times = {path: path.stat().st_mtime_ns for path in (kept_a, kept_b)}
    write_phantoms(tmp_path, TWO_SITES, SEED)
    assert {path: path.stat().st_mtime_ns for path in (kept_a, kept_b)} == times
    assert files_of(tmp_path) == files_of(written.parent)


def test_another_seed_does_not_keep_old_pictures(tmp_path: Path) -> None:
    """A file that an earlier run drew from another seed is drawn anew."""
    cohort = [Cohort("site-a", "train", 1, 1)]
    write_phantoms(tmp_path, cohort, SEED)
    before = files_of(tmp_path)
    write_phantoms(tmp_path, cohort, SEED + 1)
    after = files_of(tmp_path)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before if name.endswith(".png"))


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    """Progress is told after each slice, and ends at the total."""
    told: list[tuple[int, int]] = []
    write_phantoms(tmp_path, [Cohort("site-b", "val", 1, 1)], SEED, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("cohort", "fault"),
    [
        (Cohort("site-z", "train", 1, 1), "unknown site 'site-z'"),
        (Cohort("site-a", "exam", 1, 1), "unknown split 'exam'"),
        (Cohort("site-a", "train", 1, 0), "at least one slice"),
    ],
)
def test_an_impossible_cohort_is_refused_before_anything_is_written(tmp_path: Path, cohort: Cohort, fault: str) -> None:
    """An unknown site or split, or no slices, is refused by name and leaves the folder empty."""
    with pytest.raises(PhantomError, match=fault):
        write_phantoms(tmp_path, [TWO_SITES[0], cohort], SEED)
    assert not files_of(tmp_path)
