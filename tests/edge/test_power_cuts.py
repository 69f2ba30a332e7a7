"""Whatever moment the power goes in an update, the edge comes back with a good model and finishes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
LIMIT_S = 280


def power_cuts(folder: Path, seed: int, moments: int, real_trials: int, limit_s: float) -> dict[str, object]:
    """Run the program beside this file, and return its tally."""
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent), *filter(None, sys.path)))
    done = subprocess.run(
        [sys.executable, str(TESTS / "power_cuts.py"), str(folder), str(seed), str(moments), str(real_trials)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    tally: dict[str, object] = json.loads(done.stdout)
    return tally


def test_an_edge_that_is_killed_at_any_step_of_an_update_finishes_it(tmp_path: Path) -> None:
    """Killed with -9 before each of its own file operations, and at some random moments; some unsynced files shrink.

    After each it starts with one of two good models, which answers as it should, and takes the update to its end.
    """
    tally = power_cuts(tmp_path, seed=0, moments=20, real_trials=2, limit_s=LIMIT_S)
    assert tally["faults"] == []
    assert tally["steps"] > 40
    assert tally["moments"] >= 20


@pytest.mark.chaos
@pytest.mark.timeout(2 * 3600)
def test_500_random_moments(tmp_path: Path) -> None:
    """The same at 500 random moments, 25 of them while networks are tried in a process apart."""
    tally = power_cuts(tmp_path, seed=1, moments=475, real_trials=25, limit_s=3600)
    assert tally["faults"] == []
    assert tally["moments"] >= 500
