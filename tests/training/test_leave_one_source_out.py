"""One source left out: it teaches nothing, is judged on all it has, and what cannot be learnt without it is named."""

import csv
import hashlib
import threading

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sliceloop.cli import app
from training.bundle import patient_keys
from training.checkpoint import Provenance, save_checkpoint
from training.data.dataset import open_dataset
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import SliceSet
from training.kept import KeptResults
from training.networks import build
from training.pool import Pool
from training.sources import NoSourceError, SourcesPlan, leave_each_source_out, summary_rows
from training.train import TrainingStoppedError
from training.weights import TaughtBeforeError


def of_source(slices: SliceSet, source: str) -> SliceSet:
    return SliceSet(slices.pixels, slices.labels, slices.patients, (source,) * len(slices))


@pytest.fixture(scope="module")
def pool(toy):
    """Sources a and b have all classes in train and val, c has Pneumonia's two others in test alone."""
    parts = [
        (of_source(toy(6, name=f"{source}-{split}-", seed=seed), source), split)
        for seed, (source, split) in enumerate((source, split) for source in "ab" for split in ("train", "val"))
    ]
    only = toy(6, name="c-test-", seed=9)
    parts.append((of_source(only.select(only.labels != 1), "c"), "test"))
    slices = parts[0][0]
    for part, _ in parts[1:]:
        slices = slices.concat(part)
    return Pool(slices, tuple(split for part, split in parts for _ in range(len(part))))


class KnowsWhatItSaw:
    """A learner that answers rightly for the sources that taught it, and Normal for the others."""

    same_each_time = True

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.calls = 0

    def read_after(self, learn_from, validate_on, judge, seed):
        self.calls += 1
        taught, judged = self.pool.slices.select(learn_from), self.pool.slices.select(judge)
        assert set(self.pool.slices.select(validate_on).sources) <= set(taught.sources)
        assert not set(taught.patients) & set(judged.patients)
        known = np.isin(judged.sources, taught.sources)
        return np.eye(3, dtype=np.float32)[np.where(known, judged.labels, 0)]


def test_left_out_source_teaches_nothing_and_is_judged_on_all_it_has(pool, tmp_path):
    """Unseen it is read by chance, seen rightly; test slices are judged only where the test split is asked for."""
    results = leave_each_source_out(pool, KnowsWhatItSaw(pool), SourcesPlan("val"), KeptResults(tmp_path / "val"))
    a, b, c = results
    for result in (a, b):
        assert result.unseen_all.balanced_accuracy.value == pytest.approx(1 / 3)
        assert (result.unseen_all.n_slices, result.unseen.n_slices, result.seen.n_slices) == (24, 12, 12)
        assert result.seen.balanced_accuracy.value == 1
    assert c.unseen_all is None and "no slice of c in train, val" in c.skipped
    tested = leave_each_source_out(pool, KnowsWhatItSaw(pool), SourcesPlan("test"), KeptResults(tmp_path / "test"))
    assert tested[2].unseen_all.n_slices == 8 and tested[2].unseen_all == tested[2].unseen
    assert tested[0].unseen is None and tested[0].unseen_all.n_slices == 24


def test_class_that_no_other_source_has_is_named(pool, tmp_path):
    """Without the only source of a class nothing is learnt; the row says which class, and the others go on."""
    slices = pool.slices
    keep = (slices.labels != 1) | (np.array(slices.sources) == "a")
    thin = Pool(slices.select(keep), tuple(np.array(pool.splits)[keep].tolist()))
    a, b, _ = leave_each_source_out(thin, KnowsWhatItSaw(thin), SourcesPlan("val"), KeptResults(tmp_path))
    assert a.skipped == "without a no training slice of Pneumonia is left"
    assert a.unseen_all is None and a.seen is not None
    assert b.unseen_all is not None and not b.skipped
    assert [row["skipped"] for row in summary_rows((a, b))] == [a.skipped, ""]


def test_stopped_run_goes_on(pool, tmp_path):
    """After a stop only the sources that are left are learnt."""
    stop, learner = threading.Event(), KnowsWhatItSaw(pool)
    with pytest.raises(TrainingStoppedError):
        leave_each_source_out(
            pool, learner, SourcesPlan("val"), KeptResults(tmp_path), on_source=lambda *_: stop.set(), stop=stop
        )
    assert learner.calls == 2
    leave_each_source_out(pool, learner, SourcesPlan("val"), KeptResults(tmp_path))
    assert learner.calls == 3


def test_data_set_of_one_source_is_refused(pool, tmp_path):
    """Where there is nothing to leave out, the message says so."""
    with pytest.raises(NoSourceError, match="no source but a"):
        leave_each_source_out(pool, KnowsWhatItSaw(pool), SourcesPlan("val", 0, ("b", "c")), KeptResults(tmp_path))


def test_command_writes_table_page_and_picture(tmp_path):
    """`sliceloop sources` leaves a row a source, a page and a plot."""
    cohorts = [Cohort(site, split, 2, 1) for site in ("site-a", "site-b") for split in ("train", "val")]
    write_phantoms(tmp_path / "data", cohorts, 0)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "begun.safetensors", build("baseline_cnn", 32))
    options = ["--architecture", "baseline_cnn", "--input-px", "32", "--weights", str(tmp_path / "begun.safetensors")]
    said = CliRunner().invoke(app, ["sources", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *options])
    assert said.exit_code == 0, said.output
    rows = list(csv.DictReader((tmp_path / "out" / "sources.csv").open()))
    assert len(rows) == 2 and all(row["unseen_all_slices"] == "12" and row["leaked"] == "no" for row in rows)
    assert (tmp_path / "out" / "sources.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "sources.md").read_text()
    assert "left out" in page
    digest = hashlib.sha256((tmp_path / "begun.safetensors").read_bytes()).hexdigest()[:8]
    assert f"begun.safetensors ({digest})" in page


def test_source_that_taught_the_start_weights_is_not_left_out(tmp_path):
    """A left-out source whose training patients taught the weights before is no unseen one."""
    write_phantoms(tmp_path / "data", [Cohort(site, "train", 1, 1) for site in ("site-a", "site-b")], 0)
    taught = [row.patient_id for row in open_dataset(tmp_path / "data").rows if row.source.endswith("site-b")]
    save_checkpoint(
        tmp_path / "seen.safetensors", build("baseline_cnn", 32), Provenance(train_patient_keys=patient_keys(taught))
    )
    options = ["--architecture", "baseline_cnn", "--input-px", "32", "--weights", str(tmp_path / "seen.safetensors")]
    said = CliRunner().invoke(app, ["sources", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *options])
    assert isinstance(said.exception, TaughtBeforeError)
    assert said.exception.patients == tuple(sorted(taught))
