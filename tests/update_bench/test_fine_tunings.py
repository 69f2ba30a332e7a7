"""Deltas of whole fine-tunings: what they are measured on, and how they are shown."""

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from sliceloop.update_bench.aims import of_fine_tunings
from sliceloop.update_bench.figures import draw
from sliceloop.update_bench.fine_tunings import FineTuningPlan, FineTunings, measure_fine_tunings, table, taught_by
from sliceloop.update_bench.result import UpdateResult
from training.data.phantom import Cohort, write_phantoms

PLAN = FineTuningPlan("squeezenet1_1_bn", 64, base_epochs=1, batch=8, sgd_rates=(0.001,), sgd_epochs=(1,))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> FineTunings:
    folder: Path = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, [Cohort("site-a", "train", 6, 1), Cohort("site-a", "val", 2, 1)], seed=3)
    return measure_fine_tunings(taught_by(folder), PLAN)


def test_the_first_network_learns_from_fewer_patients(tuned: FineTunings) -> None:
    """What follows it learns from all; validation is neither's."""
    first, both, validation = tuned.slices
    assert 0 < first < both == 18
    assert validation == 6


def test_small_steps_make_a_small_delta(tuned: FineTunings) -> None:
    """Three steps of SGD at 0.001 cost less than AdamW, and less than the file."""
    sgd, adamw = tuned.rows
    assert (sgd.optimizer, sgd.steps, adamw.optimizer) == ("sgd", 3, "adamw")
    assert sgd.delta_bytes < adamw.delta_bytes < tuned.float16_bytes
    assert sgd.share == pytest.approx(sgd.delta_bytes / tuned.float16_bytes, rel=0.01)


def test_the_largest_delta_of_sgd_is_judged(tuned: FineTunings) -> None:
    """Not AdamW's, which has no aim; a quarter of the file is allowed."""
    (aim,) = of_fine_tunings(tuned)
    assert aim.met == (tuned.rows[0].share <= 0.25)
    large = tuned.rows[0].model_copy(update={"share": 0.26, "steps": 4})
    (aim,) = of_fine_tunings(tuned.model_copy(update={"rows": (*tuned.rows, large)}))
    assert not aim.met
    assert "4 steps at 0.001" in aim.what


def test_fine_tunings_are_shown_and_drawn(tuned: FineTunings) -> None:
    """A line in the table for each, and a panel on the page."""
    printed = io.StringIO()
    Console(file=printed, width=200).print(table(tuned))
    assert all(f"{row.share:.1%}" in printed.getvalue() for row in tuned.rows)
    result = UpdateResult(
        architecture="x", seed=1, machine={"cpu": "none", "cores": 2}, versions={}, commit=None, fine_tunings=tuned
    )
    with Image.open(io.BytesIO(draw(result, "png"))) as page:
        assert page.format == "PNG"
    assert UpdateResult.model_validate_json(result.model_dump_json()) == result
