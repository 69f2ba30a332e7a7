"""An edge's disk that can be filled: a small tmpfs and ballast for root, a limit on file sizes for others."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

CHUNK = bytes(1 << 16)
BALLAST = "ballast"


class SmallDisk:
    """A tmpfs on the edge's data folder: full is ENOSPC, as on any disk."""

    words = "ENOSPC of a small tmpfs"

    def __init__(self, folder: Path) -> None:
        """Remember the folder."""
        self._folder = folder

    def mount(self, size_bytes: int) -> bool:
        """Mount it; False where we may not."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return False
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "sliceloop-chaos", str(self._folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def unmount(self) -> None:
        """Take it away, a copy of what is on it left beside; a process that still uses it does not stand in the way."""
        kept = self._folder.with_name(f"{self._folder.name}-kept")
        shutil.rmtree(kept, ignore_errors=True)
        with contextlib.suppress(shutil.Error, OSError):  # a file may go meanwhile
            shutil.copytree(self._folder, kept, ignore=shutil.ignore_patterns(BALLAST))
        subprocess.run(["umount", "--lazy", str(self._folder)], check=False, capture_output=True)

    def fill(self, _: int) -> None:
        """Leave no byte free."""
        with (self._folder / BALLAST).open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(CHUNK)
                except OSError:
                    return

    def empty(self, _: int) -> None:
        """Give the space back."""
        (self._folder / BALLAST).unlink(missing_ok=True)


class FileSizeLimit:
    """RLIMIT_FSIZE of the running process: every write to a file is EFBIG (its log is a pipe)."""

    words = "EFBIG of RLIMIT_FSIZE (a real ENOSPC needs root, for its tmpfs)"

    def fill(self, pid: int) -> None:
        """Let no write through."""
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]))

    def empty(self, pid: int) -> None:
        """Let them through again."""
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


Fillable = SmallDisk | FileSizeLimit


def through_a_pipe(command: list[str]) -> list[str]:
    """Return a command whose output goes through a pipe, which no limit on file sizes reaches; its pid is the same."""
    return ["bash", "-c", 'exec "$@" > >(exec cat) 2>&1', "bash", *command]


def on_small_disk(folder: Path, size_bytes: int, at_end: Callable[[Callable[[], None]], object]) -> Fillable:
    """Put a folder on a small disk where we may, to be unmounted at the end; otherwise limit files."""
    disk = SmallDisk(folder)
    if disk.mount(size_bytes):
        at_end(disk.unmount)
        return disk
    return FileSizeLimit()
