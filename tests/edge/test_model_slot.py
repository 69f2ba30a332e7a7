"""The slot holds a verified network, on disk and in memory, and never loses one for another that is worse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edge_parts import (
    NOW,
    TRUSTED,
    TinyRelease,
    die_loading,
    die_reading,
    filled_slot,
    golden,
    golden_slices,
    network,
    release,
)

from edge_agent.durable import write_durably
from edge_agent.model_slot import (
    ACTIVE_FILE,
    ENVELOPE_FILE,
    MAX_DEATHS_LOADING,
    MAX_DEATHS_ON_PROBATION,
    LoadingDiedError,
    ModelSlot,
    SelfTestError,
    self_test,
)
from protocol.errors import HashMismatchError, SignatureError, TrustError
from protocol.manifest import GOLDEN_FILE, MODEL_FILE
from protocol.signing import TrustedKeys, generate_signer
from training.model.reader import Calibration, OnnxReader, UnreadableNetworkError


def restarted(folder: Path, trusted: TrustedKeys = TRUSTED) -> ModelSlot:
    slot = ModelSlot(folder, [trusted])
    slot.load_active()
    return slot


def test_a_new_edge_has_no_model(tmp_path: Path) -> None:
    """A slot without a release is empty, and says so by version 0."""
    slot = restarted(tmp_path / "models")
    assert slot.current is None
    assert (slot.running, slot.running_version) == (None, 0)


def test_the_active_model_is_there_after_a_restart(tmp_path: Path) -> None:
    """A restart loads what ran, and reads as before."""
    before = filled_slot(tmp_path, release(1), release(2)).current
    after = restarted(tmp_path).current
    assert before is not None
    assert after is not None
    assert after.ref == before.ref
    assert (after.reader.logits(golden_slices()) == before.reader.logits(golden_slices())).all()


def test_an_expired_model_stays_in_use(tmp_path: Path) -> None:
    """A release that expired after it came still reads: a box without a network must not stop."""
    filled_slot(tmp_path, release(1, created_at=NOW.replace(year=2020), expires_at=NOW.replace(year=2021)))
    assert restarted(tmp_path).running_version == 1


@pytest.mark.parametrize("file", [MODEL_FILE, GOLDEN_FILE, ENVELOPE_FILE])
@pytest.mark.parametrize("how", ["changed", "cut off", "gone"])
def test_a_model_that_was_tampered_with_is_not_used(tmp_path: Path, file: str, how: str) -> None:
    """Whatever was done to a stored release, a restart verifies it again and takes its predecessor instead."""
    filled_slot(tmp_path, release(1), release(2))
    path = tmp_path / "00000002" / file
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(changed if how == "changed" else content[:middle])
    assert restarted(tmp_path).running_version == 1


def test_a_model_whose_key_is_no_longer_trusted_is_not_used(tmp_path: Path) -> None:
    """A restart with other keys refuses what the old ones signed."""
    filled_slot(tmp_path)
    assert restarted(tmp_path, TrustedKeys((generate_signer().public_key,))).current is None


def test_when_no_stored_model_verifies_the_slot_is_empty(tmp_path: Path) -> None:
    """With both tampered with the edge waits for a release instead of reading with either."""
    filled_slot(tmp_path, release(1), release(2))
    for version in ("00000001", "00000002"):
        (tmp_path / version / MODEL_FILE).write_bytes(network((9, 9, 9)))
    assert restarted(tmp_path).current is None


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\xff\xfe", b"{}", b"5", b"null", b'{"a": 1}', b"[null]", b'["x"]', b"[-1]", b"[1e999]"],
)
def test_a_damaged_active_file_is_no_reason_to_fail(tmp_path: Path, content: bytes) -> None:
    """Whatever active.json holds, the edge starts, and a release can be activated again."""
    filled_slot(tmp_path)
    (tmp_path / ACTIVE_FILE).write_bytes(content)
    slot = restarted(tmp_path)
    slot.activate(slot.load(1))
    assert restarted(tmp_path).running_version == 1


def test_without_its_active_file_an_edge_reads_with_the_oldest_model(tmp_path: Path) -> None:
    """Damage to active.json costs no reading: what has read longest goes on, and versions still only grow."""
    filled_slot(tmp_path, release(1), release(2), release(3))
    (tmp_path / ACTIVE_FILE).write_bytes(b"garbage")
    shutil.copytree(tmp_path / "00000001", tmp_path / "00000001.bak")  # a person's copy
    slot = restarted(tmp_path)
    assert slot.running_version == 1
    assert slot.facts.highest_version == 3


def test_what_was_stored_and_not_activated_does_not_read(tmp_path: Path) -> None:
    """When the power goes while the first release of an edge is tried, it is tried again before it reads."""
    slot, first = ModelSlot(tmp_path, [TRUSTED]), release(1)
    slot.store(first.manifest, first.envelope, first.files, {})
    again = restarted(tmp_path)
    assert again.current is None
    assert again.facts.highest_version == 0
    assert again.holds(first.manifest)


def test_active_file_may_name_what_is_not_there(tmp_path: Path) -> None:
    """Versions without a folder are passed over."""
    filled_slot(tmp_path)
    (tmp_path / ACTIVE_FILE).write_text('{"versions": [7, 1]}')
    assert restarted(tmp_path).running_version == 1


def test_activating_keeps_the_last_three_and_forgets_the_rest(tmp_path: Path) -> None:
    """Three releases stay on disk: the one in use, and two to return to."""
    slot = filled_slot(tmp_path, release(1), release(2), release(3), release(4))
    assert sorted(path.name for path in tmp_path.glob("0*")) == ["00000002", "00000003", "00000004"]
    assert json.loads((tmp_path / ACTIVE_FILE).read_text())["versions"] == [4, 3, 2]
    slot.roll_back()
    assert slot.running_version == 3
    assert restarted(tmp_path).running_version == 3


def test_rolling_back_the_first_model_leaves_none(tmp_path: Path) -> None:
    """The first release has no predecessor: after rolling it back, also after a restart, the edge waits."""
    slot = filled_slot(tmp_path)
    slot.roll_back()
    assert slot.current is None
    assert restarted(tmp_path).current is None


def on_probation(folder: Path, *before: TinyRelease) -> ModelSlot:
    """Return a slot with release 2 on probation, after these."""
    slot, second = ModelSlot(folder, [TRUSTED]), release(2)
    for each in (*before, second):
        slot.store(each.manifest, each.envelope, each.files, {})
        slot.activate(slot.load(each.manifest.version))
    return slot


def test_a_probation_goes_on_after_a_restart(tmp_path: Path) -> None:
    """A model that was on probation is so again after a restart, with its predecessor to return to."""
    on_probation(tmp_path, release(1))
    again = restarted(tmp_path)
    assert again.on_probation
    again.roll_back()
    assert again.running_version == 1


def test_a_model_under_which_the_process_dies_is_rolled_back(tmp_path: Path) -> None:
    """A model whose process ends again and again in the midst of a slice makes room for its predecessor."""
    on_probation(tmp_path, release(1))
    for _ in range(MAX_DEATHS_ON_PROBATION):
        slot = restarted(tmp_path)
        assert slot.running_version == 2
        with slot.trying():
            pass  # the first slice goes well, the second does not
        die_reading(slot)
    assert restarted(tmp_path).running_version == 1
    assert restarted(tmp_path).banned == (2,)


@pytest.mark.parametrize("before", [[release(1)], []], ids=["with a predecessor", "the first model"])
@pytest.mark.parametrize("slices", [0, 1])
def test_restarts_alone_roll_nothing_back(tmp_path: Path, before: list[TinyRelease], slices: int) -> None:
    """However often an edge is started before its model is proven, without slices or after good ones: it stays."""
    on_probation(tmp_path, *before)
    for _ in range(3 * MAX_DEATHS_ON_PROBATION):
        slot = restarted(tmp_path)
        for _ in range(slices):
            with slot.trying():
                pass
    assert restarted(tmp_path).running_version == 2


def test_a_first_model_under_which_the_process_dies_may_be_taken_again(tmp_path: Path) -> None:
    """Without a predecessor the edge goes on without a model, but bans none: the fault may be another's."""
    on_probation(tmp_path)
    for _ in range(MAX_DEATHS_ON_PROBATION):
        die_reading(restarted(tmp_path))
    slot = restarted(tmp_path)
    assert slot.current is None
    assert slot.banned == ()


def test_a_death_on_a_proven_model_does_not_count(tmp_path: Path) -> None:
    """What read its slices well is not suspected when a process ends."""
    on_probation(tmp_path, release(1)).prove()
    for _ in range(2 * MAX_DEATHS_ON_PROBATION):
        die_reading(restarted(tmp_path))
    assert restarted(tmp_path).running_version == 2


def test_a_network_under_whose_loading_the_process_dies_is_refused_in_the_end(tmp_path: Path) -> None:
    """A box that cannot hold two networks is not started again and again: after some deaths it keeps the one it has."""
    slot, second = filled_slot(tmp_path), release(2)
    slot.store(second.manifest, second.envelope, second.files, {})
    for _ in range(MAX_DEATHS_LOADING):
        die_loading(restarted(tmp_path), 2)
    with pytest.raises(LoadingDiedError):
        restarted(tmp_path).load_new(2)
    assert restarted(tmp_path).running_version == 1


def test_a_network_that_is_loaded_at_last_is_not_suspected_any_more(tmp_path: Path) -> None:
    """Deaths count for one release alone: the power may have gone."""
    slot, second, third = filled_slot(tmp_path), release(2), release(3)
    slot.store(second.manifest, second.envelope, second.files, {})
    for _ in range(MAX_DEATHS_LOADING - 1):
        die_loading(restarted(tmp_path), 2)
    slot = restarted(tmp_path)
    slot.activate(slot.load_new(2))
    slot.store(third.manifest, third.envelope, third.files, {})
    die_loading(restarted(tmp_path), 3)
    assert restarted(tmp_path).load_new(3).manifest.version == 3


def test_a_probation_that_ends_while_a_slice_is_read_stays_ended(tmp_path: Path) -> None:
    """The count of the reading thread does not undo what the link's thread has done meanwhile."""
    slot, third = on_probation(tmp_path, release(1)), release(3)
    die_reading(slot)
    slot = restarted(tmp_path)
    with slot.trying():
        slot.prove()
        slot.store(third.manifest, third.envelope, third.files, {})
        slot.activate(slot.load(3))
    for _ in range(MAX_DEATHS_ON_PROBATION - 1):
        die_reading(restarted(tmp_path))
    assert restarted(tmp_path).running_version == 3
    assert restarted(tmp_path).on_probation


def test_what_failed_or_is_old_stays_refused_after_a_restart(tmp_path: Path) -> None:
    """An edge remembers on disk which releases failed on it, and the highest version that it has seen."""
    slot = filled_slot(tmp_path, release(1), release(3))
    slot.roll_back()
    again = restarted(tmp_path)
    assert again.banned == (3,)
    assert again.facts.highest_version == 3


def test_a_swap_that_cannot_be_written_leaves_the_model_in_use(tmp_path: Path) -> None:
    """When active.json cannot be written the old model goes on, in memory and over a restart."""
    slot = filled_slot(tmp_path)
    second = release(2)
    slot.store(second.manifest, second.envelope, second.files, {})
    model = slot.load(2)
    (tmp_path / f"{ACTIVE_FILE}.part").mkdir()  # the place of the temporary file is taken
    with pytest.raises(OSError):
        slot.activate(model)
    assert slot.running_version == 1
    assert restarted(tmp_path).running_version == 1


def test_a_roll_back_that_cannot_be_written_still_happens(tmp_path: Path) -> None:
    """When active.json cannot be written the failing model is out of use all the same."""
    slot = filled_slot(tmp_path, release(1), release(2))
    (tmp_path / f"{ACTIVE_FILE}.part").mkdir()
    with pytest.raises(OSError):
        slot.roll_back()
    assert slot.running_version == 1


def test_a_full_disk_keeps_no_edge_from_starting(tmp_path: Path) -> None:
    """A model under which the process died is out of use from the start on, though that cannot be written."""
    on_probation(tmp_path, release(1))
    for _ in range(MAX_DEATHS_ON_PROBATION):
        die_reading(restarted(tmp_path))
    (tmp_path / f"{ACTIVE_FILE}.part").mkdir()
    assert restarted(tmp_path).running_version == 1
    assert restarted(tmp_path).banned == (2,)


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (lambda: release(1, signer=generate_signer()), SignatureError),
        (lambda: release(1, described={MODEL_FILE: b"other"}), HashMismatchError),
        (lambda: release(1, described={GOLDEN_FILE: b"other"}), HashMismatchError),
        (lambda: release(1, golden_file=golden([[0, 0, 9]] * 3, golden_slices())), SelfTestError),
        (
            lambda: release(1, model=b"no network", golden_file=golden([[0, 0, 0]] * 3, golden_slices())),
            UnreadableNetworkError,
        ),
        (lambda: release(1, preprocessing_version=2), TrustError),
    ],
)
def test_a_stored_release_that_must_not_run_is_not_loaded(
    tmp_path: Path, made: Callable[[], TinyRelease], error: type[Exception]
) -> None:
    """Signature, hashes, network and golden slices are each checked when a release is loaded."""
    slot, bad = ModelSlot(tmp_path, [TRUSTED]), made()
    slot.store(bad.manifest, bad.envelope, bad.files, {})
    with pytest.raises(error):
        slot.load(1)


SLICES = golden_slices()
READER = OnnxReader(network(), Calibration())
PROMISED = READER.logits(SLICES)


def test_the_self_test_allows_the_tolerance_and_no_more() -> None:
    """Logits within the tolerance pass; beyond it the message names the difference."""
    self_test(READER, golden(PROMISED + 0.04, SLICES), 0.05)
    with pytest.raises(SelfTestError, match=r"differ by 0\.06.., allowed are 0\.05"):
        self_test(READER, golden(PROMISED + 0.06, SLICES), 0.05)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"garbage", "cannot be read"),
        (golden(PROMISED, SLICES[:0]), "no golden slices|cannot be read"),
        (golden([], SLICES[:0]), "no golden slices|cannot be read"),
        (golden(PROMISED, SLICES)[:-50], "cannot be read"),
        (golden(PROMISED[:, :2], SLICES), "gives"),
        (golden(PROMISED[:2], SLICES), "cannot be read|gives"),
        (golden(np.full_like(PROMISED, np.nan), SLICES), "differ by nan"),
        (golden(np.full_like(PROMISED, np.inf), SLICES), "differ by inf"),
    ],
)
def test_golden_slices_that_prove_nothing_are_refused(content: bytes, fault: str) -> None:
    """Golden slices that are missing, cut off, of another shape or not finite never pass a network."""
    with pytest.raises(SelfTestError, match=fault):
        self_test(READER, content, 0.05)


def test_a_network_that_is_not_finite_fails_the_self_test() -> None:
    """NaN on a golden slice is a failure, whatever was promised."""
    dark = np.zeros_like(SLICES)
    with pytest.raises(SelfTestError, match="not finite"):
        self_test(OnnxReader(network(fault="dark"), Calibration()), golden(PROMISED, dark), 0.05)


def test_a_network_that_fails_while_it_reads_fails_the_self_test() -> None:
    """A graph that loads but cannot be run is found before the swap, under our own error."""
    with pytest.raises(SelfTestError, match="fails on the golden slices"):
        self_test(OnnxReader(network(fault="index"), Calibration()), golden(PROMISED, SLICES), 0.05)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A write that fails leaves the old content."""
    path = tmp_path / "new" / "file"
    write_durably(path, b"old")
    (tmp_path / "new" / "file.part").mkdir()
    with pytest.raises(OSError):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
