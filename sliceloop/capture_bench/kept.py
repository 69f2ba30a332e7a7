"""Results so far: a line of JSON a frame, in a file named after all that decides them; a stopped run goes on."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue, ValidationError

from sliceloop.capture_bench.cases import Case
from sliceloop.capture_bench.look import FrameResult

_HASH_DIGITS = 12
_CODE = Path(__file__).resolve().parents[2]
_DECIDING = ("edge_agent", "training/screen_camera", "training/model", "sliceloop/capture_bench")
"""Folders of code that a frame's result depends on."""


def recipe_hash(story: dict[str, JsonValue]) -> str:
    """Return the hash of what a run's results depend on, the code of simulator, capture and benchmark included."""
    text = json.dumps({**story, "code_sha256": _code_sha256()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


class KeptFrames:
    """The results of one recipe in a folder; every part is on the disk before the next one begins."""

    def __init__(self, folder: Path, recipe: str) -> None:
        """Remember where they are."""
        self.path = folder / f"frames-{recipe}.jsonl"

    def read(self) -> dict[Case, FrameResult]:
        """Return what is kept; a last line that a kill cut short is dropped."""
        return {result.case: result for result in self._lines()}

    def add(self, results: Sequence[FrameResult]) -> None:
        """Keep more results; raises `OSError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        begin = "" if self._ends_well() else "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(begin + "".join(result.model_dump_json() + "\n" for result in results))
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> Iterator[FrameResult]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            try:
                yield FrameResult.model_validate_json(line)
            except ValidationError:
                continue  # cut short by a kill: its frame is taken again

    def _ends_well(self) -> bool:
        if not self.path.exists() or not self.path.stat().st_size:
            return True
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() == b"\n"


def _code_sha256() -> str:
    digest = hashlib.sha256()
    for folder in _DECIDING:
        for file in sorted((_CODE / folder).rglob("*.py")):
            digest.update(file.relative_to(_CODE).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()
