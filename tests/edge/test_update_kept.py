"""A candidate meets kept slices of each label before the swap: a bad one shows also at a site where all is Normal."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from edge_parts import (
    TRUSTED,
    AtOnce,
    TalkingUpdater,
    dark_slice,
    filled_slot,
    network,
    reading_of,
    release,
    slice_file,
    wait_until,
)
from probation_parts import Said

from edge_agent.kept import KeptSlices
from edge_agent.model_slot import ModelSlot
from edge_agent.probation import Comparison, Role
from edge_agent.watch import Known, Silently, in_a_thread
from protocol.labels import Label
from protocol.messages import ModelPhase
from training.model.decode import decode_image
from training.model.preprocess import prepare

BY_GREY = (0.5, 0.0, 0.0)
"""With this bias the tiny network calls dark slices Normal and bright ones COVID-19."""
ALIKE = (0.6, 0.1, 0.1)
NEVER_COVID = (0.5, 0.0, -50.0)
SHADOW_SLICES = 4
PROBATION_SLICES = 8
FINDINGS = 20
EACH = 64


@pytest.fixture
def kept(tmp_path: Path) -> KeptSlices:
    """What weeks have left: a Normal slice, and findings of several patients."""
    kept = KeptSlices(tmp_path / "kept", EACH)
    kept.offer(prepare(decode_image(dark_slice())), Said(Label.NORMAL), "a patient")
    for patient in range(FINDINGS):
        pixels = prepare(decode_image(slice_file(patient)))
        kept.offer(pixels, Said(Label.COVID_19), f"patient {patient}")
    return kept


def edge_on(folder: Path, kept: KeptSlices | None, silently: Silently = AtOnce) -> TalkingUpdater:
    """Start on the folder, which at the first start gets a model."""
    if (folder / "models").exists():
        slot = ModelSlot(folder / "models", [TRUSTED])
        slot.load_active()
    else:
        slot = filled_slot(folder / "models", release(1, network(BY_GREY)))
    return TalkingUpdater(
        slot, shadow_slices=SHADOW_SLICES, probation_slices=PROBATION_SLICES, silently=silently, kept=kept
    )


def read_normal(edge: TalkingUpdater, count: int = 1) -> None:
    """Read slices that are all Normal, a second apart."""
    for seed in range(count):
        model = edge.slot.current
        assert model is not None
        edge.updater.slice_was_read(model.manifest.version, reading_of(model, seed, dark=True))
        edge.step(edge.now_s + 1)


def noted(edge: TalkingUpdater, version: int = 2) -> Comparison:
    """Return what is noted on disk of a version."""
    comparison = Known.model_validate_json(edge.slot.noted_comparison(version)).comparison
    assert comparison is not None
    return comparison


def files(kept: KeptSlices) -> int:
    return len(list(kept.slices()))


# What it is for.


def test_without_kept_slices_a_network_that_never_says_covid_passes_where_all_is_normal(tmp_path: Path) -> None:
    """The live slices cannot tell: this is what kept ones are for."""
    edge = edge_on(tmp_path, None)
    edge.bring(release(2, network(NEVER_COVID)))
    read_normal(edge, SHADOW_SLICES + PROBATION_SLICES)
    assert edge.last.phase is ModelPhase.ACTIVE


@pytest.mark.parametrize("silently", [AtOnce, in_a_thread])
def test_a_network_that_never_says_covid_is_refused_in_the_shadow_where_all_is_normal(
    tmp_path: Path, kept: KeptSlices, silently: Silently
) -> None:
    """Findings of weeks give it away before it has read anything; no live slice is needed."""
    edge = edge_on(tmp_path, kept, silently)
    edge.bring(release(2, network(NEVER_COVID)))
    wait_until(partial(is_reported, edge, ModelPhase.REJECTED), "the refusal")
    edge.updater.close()
    assert edge.last.reason.startswith("beside the model in use: ")
    assert "kept" in edge.last.reason
    assert "release 1" in edge.last.reason
    assert edge.last.banned == (2,)
    assert edge.slot.running_version == 1


def is_reported(edge: TalkingUpdater, phase: ModelPhase) -> bool:
    """Step, and tell whether it is."""
    edge.step(edge.now_s + 1)
    return edge.last.phase is phase


def test_a_good_network_is_swapped_in_when_all_kept_slices_and_enough_live_ones_are_compared(
    tmp_path: Path, kept: KeptSlices
) -> None:
    """Neither alone is enough; kept ones are no live pairs, and on probation none are read."""
    edge = edge_on(tmp_path, kept)
    edge.bring(release(2, network(ALIKE)))
    read_normal(edge, SHADOW_SLICES)
    assert edge.last.compared == SHADOW_SLICES
    assert edge.slot.running_version == 1
    wait_until(partial(is_reported, edge, ModelPhase.PROBATION), "the swap")
    read_normal(edge, PROBATION_SLICES)
    assert edge.last.phase is ModelPhase.ACTIVE
    assert noted(edge).kept_pairs == files(kept)
    assert edge.last.compared == SHADOW_SLICES + PROBATION_SLICES


def test_kept_slices_alone_swap_nothing_in(tmp_path: Path, kept: KeptSlices) -> None:
    """Where no slice comes, a candidate waits for live ones."""
    edge = edge_on(tmp_path, kept)
    edge.bring(release(2, network(ALIKE)))
    for _ in range(3 * FINDINGS):
        edge.step(edge.now_s + 1)
    assert noted(edge).kept_pairs == files(kept)
    assert edge.last.phase is ModelPhase.SHADOW


# No slice twice.


def test_after_a_restart_no_kept_slice_counts_twice(tmp_path: Path, kept: KeptSlices) -> None:
    """The next life goes on behind the last one that was noted, though other slices were kept meanwhile."""
    edge = edge_on(tmp_path, kept)
    made = release(2, network(ALIKE))
    edge.bring(made)
    there = files(kept)
    while not edge.slot.noted_comparison(2) or noted(edge).kept_pairs < there // 2:
        edge.step(edge.now_s + 1)
    before = noted(edge).kept_pairs
    for patient in range(EACH):  # new ones before and behind it
        kept.offer(prepare(decode_image(slice_file(patient))), Said(Label.COVID_19), f"another {patient}")
    behind = len(list(kept.slices(after=Known.model_validate_json(edge.slot.noted_comparison(2)).kept_until)))
    again = edge_on(tmp_path, kept)
    again.bring(made)
    read_normal(again, SHADOW_SLICES)
    wait_until(partial(is_reported, again, ModelPhase.PROBATION), "the swap")
    read_normal(again, 2)
    assert noted(again).kept_pairs == before + behind
    assert before + behind < files(kept)


@pytest.mark.parametrize(("incumbent", "compared"), [(1, 31), (7, 1)])
def test_a_note_counts_beside_the_same_incumbent(
    tmp_path: Path, kept: KeptSlices, incumbent: int, compared: int
) -> None:
    """After an update of the agent a comparison goes on; beside another model than before it begins anew."""
    edge = edge_on(tmp_path, kept)
    made = release(2, network(ALIKE))
    edge.bring(made)
    known = Known(incumbent=incumbent, comparison=Comparison.begin(made.manifest.probation), phase=Role.CANDIDATE)
    told = json.loads(known.model_dump_json())
    told["comparison"] = {"bounds": told["comparison"]["bounds"], "incumbent": "release 1", "pairs": 30}
    edge.slot.note_comparison(2, json.dumps(told))
    again = edge_on(tmp_path, kept)
    again.bring(made)
    read_normal(again)
    assert again.last.compared == compared
    assert noted(again).kept_pairs > 0


# What is kept.


def test_slices_are_kept_of_a_proven_model_that_reads_alone(tmp_path: Path) -> None:
    """While two are compared none is, or it would be compared twice; none of a model on probation."""
    kept = KeptSlices(tmp_path / "kept", EACH)
    edge = edge_on(tmp_path, kept)
    edge.bring(release(2, network(ALIKE)))
    read_normal(edge, SHADOW_SLICES + PROBATION_SLICES - 1)
    assert edge.last.phase is ModelPhase.PROBATION
    assert files(kept) == 0
    read_normal(edge, 2)
    assert edge.last.phase is ModelPhase.ACTIVE
    assert [name.rsplit("-", 1)[0] for name, _ in kept.slices()] == ["Normal"]


def remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def spoil_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:1000])


def put_a_file_there(folder: Path) -> None:
    remove(folder)
    folder.write_text("no folder")


@pytest.mark.parametrize("harm", [remove, spoil_all, put_a_file_there])
def test_kept_slices_that_cannot_be_read_hold_nobody_up(
    tmp_path: Path, kept: KeptSlices, harm: Callable[[Path], None]
) -> None:
    """Gone, damaged or no folder at all: the live slices decide."""
    harm(tmp_path / "kept")
    edge = edge_on(tmp_path, kept)
    edge.bring(release(2, network(ALIKE)))
    read_normal(edge, SHADOW_SLICES + 1)
    assert edge.slot.running_version == 2


def test_a_candidate_that_fails_on_a_kept_slice_never_reads(tmp_path: Path, kept: KeptSlices) -> None:
    """As on a live one."""
    edge = edge_on(tmp_path, kept, in_a_thread)
    edge.bring(release(2, network(BY_GREY, fault="dark")))
    wait_until(partial(is_reported, edge, ModelPhase.REJECTED), "the refusal")
    edge.updater.close()
    assert "NotFiniteError" in edge.last.reason
