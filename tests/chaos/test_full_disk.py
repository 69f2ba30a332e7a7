"""A disk that is full, where we may not mount one."""

import subprocess
import sys
from pathlib import Path

from sliceloop.chaos.full_disk import FileSizeLimit, through_a_pipe

WRITES = """
import sys
for line in sys.stdin:
    try:
        with open(sys.argv[1], "ab", buffering=0) as file:
            file.write(b"x" * 100)
        print("written", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


def test_a_running_process_cannot_write_files_for_a_while_but_can_still_speak(tmp_path: Path) -> None:
    """Its log goes through a pipe of the same process id; afterwards it writes again."""
    log, command = tmp_path / "log", through_a_pipe([sys.executable, "-c", WRITES, str(tmp_path / "file")])
    limit = FileSizeLimit()
    with log.open("wb") as output, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output) as process:
        said = []
        for change in (None, limit.fill, limit.empty):
            if change is not None:
                change(process.pid)
            process.stdin.write(b"go\n")
            process.stdin.flush()
            said.append(_next_line(log, len(said)))
    assert said == ["written", "File too large", "written"]


def _next_line(log: Path, known: int) -> str:
    for _ in range(2_000):
        lines = log.read_text().splitlines()
        if len(lines) > known:
            return lines[known]
        subprocess.run(["true"], check=True)  # lets time pass
    raise AssertionError("nothing said")
