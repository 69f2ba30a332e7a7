"""Slices for a real edge process: a folder that never runs empty, of few pictures under ever new names."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from training.data.phantom import Cohort, write_phantoms

AHEAD = 200
"""Files that wait to be read: the edge is never idle."""
LOOK_S = 0.1
PATIENTS = 4


def draw(folder: Path, seed: int) -> list[Path]:
    """Draw some phantoms of each class, and return their files."""
    write_phantoms(folder, [Cohort("site-a", "test", PATIENTS, 1)], seed)
    return sorted(folder.rglob("*.png"))


class Feed:
    """Keeps an inbox full from `with` on; `taken` tells how many the edge has read, by what the caller counts."""

    def __init__(self, inbox: Path, pictures: list[Path]) -> None:
        """Remember what to give, and where."""
        self._inbox, self._pictures = inbox, pictures
        self._stop = threading.Event()
        self._read, self._wanted = 0, AHEAD
        self.given = 0
        self._thread = threading.Thread(target=self._run, name="bench-feed", daemon=True)

    def __enter__(self) -> Self:
        """Start to give."""
        self._inbox.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give no more."""
        self.end()

    def end(self) -> None:
        """Give no more; what was given is still read."""
        self._stop.set()
        self._thread.join()

    def was_read(self, count: int) -> None:
        """Hear how many slices the edge has read: their files are deleted, and new ones take their place."""
        for number in range(self._read, max(self._read, count - AHEAD // 2)):
            (self._inbox / f"{number:08d}.png").unlink(missing_ok=True)
        self._read = max(self._read, count - AHEAD // 2)
        self._wanted = count + AHEAD

    def _run(self) -> None:
        while not self._stop.is_set():
            while self.given < self._wanted:
                picture = self._pictures[self.given % len(self._pictures)]
                part = self._inbox / f".{self.given:08d}"
                part.write_bytes(picture.read_bytes())
                part.replace(self._inbox / f"{self.given:08d}.png")
                self.given += 1
            self._stop.wait(LOOK_S)
