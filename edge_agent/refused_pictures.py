"""Keep the pictures that were refused, within a budget, so that somebody can look at what the camera saw."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from edge_agent.capture.frame import CapturedFrame
from edge_agent.durable import write_durably

log = structlog.get_logger()

SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png"}


class RefusedPictures:
    """A folder of pictures with their reasons beside them, never sent and never read; the oldest give way."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Remember where and how much."""
        self._folder, self._max_bytes = folder, max_bytes

    def add(self, frame: CapturedFrame, codes: Sequence[str], reason: str) -> None:
        """Keep a picture with its reasons, where the disk and the budget allow it; names sort by time."""
        stem = f"{frame.captured_at:%Y%m%dT%H%M%S.%f}-{codes[0]}"
        said = {"codes": list(codes), "reason": reason}
        try:
            write_durably(self._folder / f"{stem}{SUFFIXES[frame.media_type]}", frame.data)
            write_durably(self._folder / f"{stem}.json", json.dumps(said).encode())
            self._make_room()
        except OSError as error:  # a full disk must not stop the reading of good pictures
            log.error("refused picture not kept", reason=error.strerror, next="free some space")

    def _make_room(self) -> None:
        files = sorted(path for path in self._folder.iterdir() if path.is_file())
        sizes = [path.stat().st_size for path in files]
        excess = sum(sizes) - self._max_bytes
        for path, size in zip(files, sizes, strict=True):
            if excess <= 0:
                return
            path.unlink()
            excess -= size


def kept_pictures(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the pictures that are kept, the oldest first, each with the reason that the person was told."""
    for picture in sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES.values()):
        try:
            reason = str(json.loads(picture.with_suffix(".json").read_bytes())["reason"])
        except (OSError, ValueError, KeyError):  # the power went between the two files
            reason = "its reason was not kept"
        yield picture, reason
