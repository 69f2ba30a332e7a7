"""Results that took long, kept one file each, so that a stopped or killed search goes on where it was."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from training.durable import write_atomically
from training.train import TrainingStoppedError

Result = TypeVar("Result", bound=BaseModel)
_RUN_FILE = "run.sha256"


class OtherRunError(ValueError):
    """A folder that holds the results of another run; the message says what to do."""


class SearchStoppedError(TrainingStoppedError):
    """The stop event was set between two results; the same call goes on."""

    def __init__(self, done: int) -> None:
        RuntimeError.__init__(self, f"stopped with {done} result(s); they are kept, and the same call goes on")
        self.epoch = 0


def run_identity(*story: object) -> str:
    """Return the hash of all that decides how a run ends."""
    return hashlib.sha256("\0".join(map(str, story)).encode()).hexdigest()


@dataclass(frozen=True)
class KeptResults:
    """A folder of results of one run."""

    folder: Path

    def open(self, identity: str) -> "KeptResults":
        """Make the folder this run's; raises `OtherRunError` when it is another one's."""
        path = self.folder / _RUN_FILE
        if path.exists() and path.read_text() != identity:
            raise OtherRunError(
                f"{self.folder} holds results of another run (data, weights or settings differ): give another folder"
            )
        write_atomically(path, identity.encode())
        return self

    def get(self, name: str, kind: type[Result], make: Callable[[], Result]) -> Result:
        """Return the kept result, or make and keep it; one that cannot be read is made again."""
        path = self.folder / f"{quote(name, safe='')}.json"
        try:
            return kind.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            result = make()
            write_atomically(path, result.model_dump_json(indent=1).encode())
            return result
