"""However a demo is ended while its first networks learn, it leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from protocol.labels import LABELS

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc and PR_SET_PDEATHSIG are Linux's"),
]

DEADLINE_S = 90.0
POLL_S = 0.1
MARK = "SLICELOOP_TEST_MARK"
ROLES = ("broker.embedded", "mini", "first", "second")
"""What stands in the command lines of the broker, the S3 server and the two trainings."""


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGKILL, -9),
    ],
)
def test_an_ended_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C, kill, a closed terminal and kill -9 end the servers and the trainings with the demo."""
    write_noise(tmp_path / "noise")
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "sliceloop", "demo", "--headless", "--images", "noise", "--slices", "4"]
    with (tmp_path / "demo.out").open("w") as out:
        demo = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=hear_signals,
        )
    try:
        wait(lambda: demo.poll() is not None or started(tmp_path, mark), "servers and trainings run")
        assert demo.poll() is None, (tmp_path / "demo.out").read_text()
        demo.send_signal(number)
        assert demo.wait(DEADLINE_S) == code, (tmp_path / "demo.out").read_text()
        wait(lambda: not marked(mark), "nothing is left")
    finally:
        demo.kill()
        for process in marked(mark):
            os.kill(process, signal.SIGKILL)


def hear_signals() -> None:
    """Undo what nohup or a shell's background set for these tests, and what the demo would respect."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def started(folder: Path, mark: str) -> bool:
    """Tell whether servers and trainings run, and the first training has shown an epoch."""
    lines = list(marked(mark).values())
    learnt = [log for log in folder.glob("demo-data/run-*/logs/train-first.log") if "epoch" in log.read_text()]
    return bool(learnt) and all(any(role in line for line in lines) for role in ROLES)


def marked(mark: str) -> dict[int, str]:
    """Return the command lines of all processes with this mark in their environment, by process id."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended, or is another user's
            continue
    return found


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(POLL_S)


def write_noise(folder: Path) -> None:
    """Write enough patients of grey noise for every role of a demo."""
    random = np.random.default_rng(0)
    rows = ["file,label,patient_id,source,split"]
    folder.mkdir()
    for split, patients in (("train", 40), ("test", 2)):
        for label in LABELS:
            for patient in range(patients):
                name = f"{split}-{label}-{patient}"
                cv2.imwrite(str(folder / f"{name}.png"), random.integers(0, 256, (64, 64), dtype=np.uint8))
                rows.append(f"{name}.png,{label},{name},noise,{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
