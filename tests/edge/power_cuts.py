"""Kill an edge with -9 at every step of an update and at random moments; after each it must read, and finish it.

A program of its own, since it forks: `python power_cuts.py FOLDER SEED MOMENTS REAL_TRIALS` prints a `Tally` as JSON.
It runs no network before it forks, so that a life begins in milliseconds.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from edge_parts import (
    CHUNK_TIMEOUT_S,
    DEADLINE_S,
    NOW,
    TRUSTED,
    TalkingUpdater,
    TinyRelease,
    assigned,
    filled_slot,
    golden,
    golden_slices,
    network,
    reading_of,
    release,
    untried,
)
from numpy.typing import NDArray
from probation_parts import Said

from edge_agent.kept import KeptSlices
from edge_agent.model_slot import ModelSlot
from edge_agent.staging import Trial
from edge_agent.trial import TrialBounds, try_model
from edge_agent.watch import Known
from protocol.labels import LABELS
from protocol.manifest import Manifest
from protocol.messages import ModelPhase
from training.model.reader import Calibration

SLICES = 2
"""Of shadow and of probation each."""
KEPT = 2
"""Of each label."""
MAX_ROUNDS = 60
MOST_FAULTS = 10
"""After so many the rest says nothing new."""
STEPS_SHARE = 0.5
"""Of the random moments that are file operations; the others are times, which fall between them."""
UNSYNCED_SHARE = 0.5
SHORTENED_SHARE = 0.3
TRIAL_S = 1.5
"""What a process that tries a network takes."""
MOST_CUTS_AN_UPDATE = 2
"""A third one in the midst of a slice on probation counts against the model."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir"})
FINISHED, FAULTY = 0, 3


@dataclass
class Tally:
    """What was done, and what went wrong."""

    steps: int = 0
    """File operations of one update; the edge was killed before each of them."""
    moments: int = 0
    """Random ones at which it was killed."""
    real_trials: int = 0
    """Of these, in updates that try the network in a process apart."""
    updates: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """When the power goes: before a file operation, after a time, or not."""

    before_step: int | None = None
    after_s: float | None = None


class Steps:
    """Counts a process's own changes to a folder (PEP 578), and kills it before the given one."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self.count, self._folder, self._last = 0, str(folder), last
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in CHANGES and not (event == "open" and _writes(arguments)):
            return
        if str(arguments[0]).startswith(self._folder):
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & WRITES)


# Releases.


def tiny(version: int) -> TinyRelease:
    """Return a release whose golden logits are computed by hand: no network runs here."""
    low, middle, high = _bias(version)
    return release(version, network((low, middle, high)), golden(_logits(version), _slices()))


def _bias(version: int) -> tuple[float, float, float]:
    """Tell versions apart by what is added to all logits alike: their labels are the same."""
    return (version / 100, version / 100 + 0.5, version / 100)


@cache
def _slices() -> NDArray[np.uint8]:
    """Draw the golden slices once, for all the lives that are forked."""
    return golden_slices()


def _logits(version: int) -> NDArray[np.float64]:
    grey = _slices().mean((1, 2), dtype=np.float64) / 255
    return grey[:, None] * np.array([1, 2, 3]) + np.array(_bias(version))


# One life of an edge, in a process of its own.


def live(folder: Path, made: TinyRelease, sequence: int, trial: Trial) -> str:
    """Start on the folder, take the update, and read; return what is wrong, or nothing."""
    slot = ModelSlot(folder / "models", [TRUSTED])
    slot.load_active()
    old, new = made.manifest.version - 1, made.manifest.version
    if wrong := _wrong_reading(slot, (old, new)):
        return f"at the start: {wrong}"
    kept = KeptSlices(folder / "kept", KEPT)
    kept.tidy()
    edge = TalkingUpdater(slot, shadow_slices=SLICES, probation_slices=SLICES, trial=trial, kept=kept)
    edge.updater.hear_assignment(assigned(made, sequence), NOW)
    edge.updater.offer(made.envelope, NOW)
    for _ in range(MAX_ROUNDS):
        edge.give_wanted(made, edge.now_s + CHUNK_TIMEOUT_S)
        with slot.trying():
            if wrong := _wrong_reading(slot, (old, new)):
                return wrong
        edge.read_slices(1)
        if slot.running_version == new and not slot.on_probation:
            if edge.updater.reported.phase is not ModelPhase.ACTIVE:
                return "not reported as active"
            return _read_twice(slot, new)
    return f"not finished in {MAX_ROUNDS} rounds: {edge.updater.reported.phase} {edge.updater.reported.reason}"


def _read_twice(slot: ModelSlot, version: int) -> str:
    """Say so when more kept slices were compared than there are."""
    text = slot.noted_comparison(version)
    comparison = Known.model_validate_json(text).comparison if text else None
    compared = comparison.kept_pairs if comparison is not None else 0
    return f"{compared} kept slices were compared" if compared > KEPT * len(LABELS) else ""


def _fill(folder: Path) -> str:
    """Make an edge that reads with version 1, and has kept slices; return what is wrong."""
    filled_slot(folder / "models", tiny(1))
    kept = KeptSlices(folder / "kept", KEPT)
    for patient in range(10):
        for label in LABELS:
            kept.offer(_slices()[0], Said(label), f"patient {patient}")
    return "" if len(list(kept.slices())) == KEPT * len(LABELS) else "a slot is empty"


def _wrong_reading(slot: ModelSlot, versions: tuple[int, int]) -> str:
    """Read a slice, and say what is wrong with it: no model, another version, or answers that are another one's."""
    model = slot.current
    if model is None:
        return "no model"
    said = reading_of(model).diagnosis.reading.model.version
    if said != model.manifest.version or said not in versions:
        return f"version {said} reads"
    if not np.allclose(model.reader.logits(_slices()), _logits(said), atol=0.004):
        return f"version {said} answers as another one"
    return ""


def real_trial(folder: Path, manifest: Manifest) -> None:
    """Try a network as the agent does."""
    bounds = TrialBounds(manifest.golden_tolerance, 5_000, 2_000, DEADLINE_S)
    try_model(folder, bounds, Calibration(manifest.labels, manifest.temperature, manifest.uncertain_below))


# Outside of it.


def run(work: Callable[[], str], folder: Path, cut: Cut | None = None) -> tuple[bool, str, int]:
    """Run work in a forked process; return whether it was killed, what was wrong, and how many steps it counted."""
    cut, said = cut or Cut(), folder / "said.json"
    said.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _be_a_life(work, folder, said, cut)
    if cut.after_s is not None:
        time.sleep(cut.after_s)  # the moment itself, not a wait for something
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True, "", 0
    told = json.loads(said.read_text())
    return False, told["wrong"], told["steps"]


def _be_a_life(work: Callable[[], str], folder: Path, said: Path, cut: Cut) -> None:
    """Never return."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    steps = Steps(folder / "models", cut.before_step)
    try:
        wrong = work()
    except BaseException as error:  # noqa: BLE001  told to the parent
        wrong = f"{type(error).__name__}: {error}"
    said.write_text(json.dumps({"wrong": wrong, "steps": steps.count}))
    os._exit(FINISHED if not wrong else FAULTY)


def lose_unsynced(folder: Path, chance: random.Random) -> None:
    """Do to files that were not synced what a power cut may: shorten some of them."""
    unsynced = [*folder.glob("models/incoming/*"), *folder.glob("kept/*"), *folder.rglob("*.part")]
    for path in unsynced:
        if path.is_file() and chance.random() < SHORTENED_SHARE:
            os.truncate(path, chance.randrange(path.stat().st_size + 1))


class PowerCuts:
    """Kills updates, and looks at what comes after."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._edge, self._chance = folder, folder / "edge", random.Random(seed)
        self._steps, self._lasts_s = 1, 0.0
        self.tally = Tally()

    def at_every_step(self) -> None:
        """Kill one update before each of its file operations, each time on a fresh edge."""
        work = self._update(tiny(2), untried)
        self._fresh()
        started_s = time.monotonic()
        _, wrong, self._steps = run(work, self._edge)
        self._lasts_s = time.monotonic() - started_s
        self._note("without a cut", wrong)
        for step in range(1, self._steps + 1):
            self._fresh()
            killed, wrong, _ = run(work, self._edge, Cut(before_step=step))
            self.tally.steps += killed
            self._note(f"before step {step}", wrong)
            self._finish(work, f"after a cut before step {step}")

    def at_random(self, moments: int, trial: Trial, trial_s: float) -> int:
        """Kill updates of one edge, one after another, at so many moments or one more; return how many."""
        version, count = 1, 0
        self._fresh()
        while count < moments:
            version += 1
            work = self._update(tiny(version), trial)
            for _ in range(self._chance.randint(1, MOST_CUTS_AN_UPDATE)):
                cut = self._moment(self._lasts_s + trial_s)
                killed, wrong, _ = run(work, self._edge, cut)
                self._note(f"version {version}, {cut}", wrong)
                if not killed:  # it was done before
                    break
                count += 1
                if self._chance.random() < UNSYNCED_SHARE:
                    lose_unsynced(self._edge, self._chance)
            self._finish(work, f"version {version}")
        return count

    def _update(self, made: TinyRelease, trial: Trial) -> Callable[[], str]:
        return lambda: live(self._edge, made, made.manifest.version, trial)

    def _finish(self, work: Callable[[], str], when: str) -> None:
        """Live once more, to the end of the update."""
        _, wrong, _ = run(work, self._edge)
        self._note(when, wrong)
        self.tally.updates += not wrong
        if len(self.tally.faults) > MOST_FAULTS:
            raise SystemExit("\n".join(self.tally.faults))

    def _moment(self, longest_s: float) -> Cut:
        if self._chance.random() < STEPS_SHARE:
            return Cut(before_step=self._chance.randint(1, self._steps))
        return Cut(after_s=self._chance.uniform(0, longest_s))

    def _note(self, when: str, wrong: str) -> None:
        if wrong:
            self.tally.faults.append(f"{when}: {wrong}")

    def _fresh(self) -> None:
        """Make an edge that reads with version 1."""
        template = self._folder / "template"
        if not template.exists():
            template.mkdir(parents=True)
            _, wrong, _ = run(lambda: _fill(template), template)
            self._note("template", wrong)
        shutil.rmtree(self._edge, ignore_errors=True)
        shutil.copytree(template, self._edge)


def main(folder: Path, seed: int, moments: int, real_trials: int) -> Tally:
    """Kill at every step, then at random moments, then at some while a network is really tried."""
    cuts = PowerCuts(folder, seed)
    cuts.at_every_step()
    fast = cuts.at_random(moments, untried, 0.0)
    cuts.tally.real_trials = cuts.at_random(real_trials, real_trial, TRIAL_S)
    cuts.tally.moments = fast + cuts.tally.real_trials
    return cuts.tally


if __name__ == "__main__":
    print(json.dumps(asdict(main(Path(sys.argv[1]), *map(int, sys.argv[2:5])))))
