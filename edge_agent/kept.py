"""Keep some slices of each label on the edge, so that a candidate meets findings also where most slices are Normal."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from edge_agent.crop import encode_png
from edge_agent.durable import write_whole
from edge_agent.outbox.cipher import Cipher, Plain, TamperedError
from edge_agent.probation import Answer, KeptSlice
from protocol.labels import LABELS, Label
from training.model.decode import ImageError, decode_image
from training.model.preprocess import INPUT_PX

log = structlog.get_logger()

REWRITTEN_AFTER_S = 24 * 3600.0
"""Flash wears out: a slot that is filled is not written again before."""
MAX_FILE_BYTES = 2 * INPUT_PX * INPUT_PX
"""What is longer is none of ours, and is read no further."""
SUFFIXES = {True: ".png", False: ".sealed"}
"""Of files that are plain, and of those that need the key."""


class KeptSlices:
    """A folder with so many slots for each label; a patient fills one of a label's, and is not named."""

    def __init__(
        self, folder: Path, each: int, cipher: Cipher | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Remember where, how many of each label, and what seals them; the clock is that of file times."""
        self._folder, self._each, self._cipher, self._clock = folder, each, cipher or Plain(), clock
        self._suffix = SUFFIXES[isinstance(self._cipher, Plain)]
        self._names = frozenset(slot_name(label, slot) + self._suffix for label in LABELS for slot in range(each))
        self._failing = False

    def tidy(self) -> None:
        """Delete what is in no slot, at the start: half written, foreign, plain though there is a key now, too many."""
        try:
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                if path.name not in self._names:
                    path.unlink()
        except OSError as error:
            log.error("kept slices not tidied", reason=error.strerror, next="look into the data folder's kept/")

    def offer(self, pixels: NDArray[np.uint8], answer: Answer, patient_key: str) -> None:
        """Keep a slice uint8 [256, 256] that the model in use is certain of, where its patient's slot is due.

        An unknown patient's key is empty: then each picture counts as a patient. Called in the reading thread: it does
        not wait for the disk, and raises nothing for a full one.
        """
        if answer.uncertain or not self._each:
            return
        name = slot_name(answer.label, slot_of(patient_key.encode() or pixels.tobytes(), self._each)) + self._suffix
        try:
            if is_due(self._age_s(name)):
                self._write(name, pixels)
                self._failing = False
        except OSError as error:
            if not self._failing:
                log.error("slice not kept", reason=error.strerror, next="free some space; reading goes on")
            self._failing = True

    def slices(self, after: str = "") -> Iterator[KeptSlice]:
        """Yield each slot's name and pixels uint8 [256, 256] by name, those after the given name; one is read a time.

        What cannot be read is deleted.
        """
        for name in self._listed():
            if name > after and (pixels := self._read(name)) is not None:
                yield name, pixels

    def _age_s(self, name: str) -> float | None:
        try:
            return self._clock() - (self._folder / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def _write(self, name: str, pixels: NDArray[np.uint8]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._folder / name, self._cipher.seal(encode_png(pixels), name), mode=0o600)

    def _listed(self) -> list[str]:
        try:
            return sorted(path.name for path in self._folder.iterdir() if path.name in self._names)
        except FileNotFoundError:  # nothing was kept yet
            return []
        except OSError as error:
            log.error("kept slices not read", reason=error.strerror, next="look into the data folder's kept/")
            return []

    def _read(self, name: str) -> NDArray[np.uint8] | None:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES)
            return _decoded(self._cipher.open(data, name))
        except (OSError, TamperedError, ImageError) as error:
            log.warning("kept slice deleted", name=name, reason=f"{type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                path.unlink()
            return None


def slot_of(whose: bytes, each: int) -> int:
    """Return the slot of a patient, of so many; two may share one."""
    return int.from_bytes(hashlib.sha256(whose).digest()) % each


def slot_name(label: Label, slot: int) -> str:
    """Name a slot: nothing of the patient is in it."""
    return f"{label}-{slot:04d}"


def is_due(age_s: float | None) -> bool:
    """Tell whether a slot is to be written, given its file's age (None: there is none); the future is long ago."""
    return age_s is None or not 0 <= age_s < REWRITTEN_AFTER_S


def _decoded(png: bytes) -> NDArray[np.uint8]:
    pixels = decode_image(png, max_pixels=INPUT_PX * INPUT_PX)
    if pixels.shape != (INPUT_PX, INPUT_PX):
        raise ImageError(f"{pixels.shape} is no prepared slice")
    return pixels
