"""Give the PNG, JPEG and DICOM files of a folder one after another, at a given pace."""

import csv
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from edge_agent.capture.frame import CapturedFrame, FrameRefusedError, SourceError
from edge_agent.settings import ReplaySettings
from training.model.decode import dicom_patient, is_dicom

log = structlog.get_logger()

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".dcm": "application/dicom",
}
LABELS_FILE = "labels.csv"
UNNAMED_SOURCE = "replay"
"""Without labels.csv: a folder's name would be nearer, but it may be a patient's."""
RESCAN_S = 0.05
SCAN_REST = 20
"""An exhausted folder is looked at again after this time."""


@dataclass(frozen=True)
class FileOrigin:
    """What labels.csv says of a file, besides the label (which the edge does not read)."""

    patient_id: str
    source: str
    patient_known: bool = True


class ReplaySource:
    """Reads a folder in the order of names, skipping what was captured before; new files are found while it runs."""

    def __init__(
        self, settings: ReplaySettings, is_captured: Callable[[str], bool], *, max_file_bytes: int = 64 * 1024 * 1024
    ) -> None:
        """Remember the folder and how to ask whether a file's key was captured in an earlier life."""
        self._settings = settings
        self._is_captured = is_captured
        self._max_file_bytes = max_file_bytes
        self._waiting: list[Path] = []
        self._seen: set[str] = set()
        self._origins: dict[str, FileOrigin] = {}
        self._next_due_s = 0.0
        self._next_scan_s = 0.0
        self._given = ""
        self._said_unlisted = False
        self.finished = False

    def step(self, now_s: float) -> CapturedFrame | None:
        """Return the next file when its time has come.

        Raises `SourceError` when the folder is missing, `FrameRefusedError` for a file that cannot be read.
        """
        if now_s < self._next_due_s:
            return None
        if not self._waiting and now_s >= self._next_scan_s:
            self._scan(now_s)
        return self._read(self._waiting[0]) if self._waiting else None

    def taken(self, key: str, now_s: float) -> None:
        """Pass on to the next file; a late one does not make the following ones hurry."""
        self._seen.add(key)
        if self._waiting and self._given == key:
            self._waiting.pop(0)
        self._next_due_s = max(self._next_due_s + self._settings.interval_s, now_s)

    def _scan(self, now_s: float) -> None:
        folder = self._settings.folder
        started_s = time.monotonic()
        try:
            self._look(folder)
        finally:  # a large folder is looked at less often, so that looking takes a small part of the time
            self._next_scan_s = now_s + max(RESCAN_S, SCAN_REST * (time.monotonic() - started_s))

    def _look(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(f"folder {folder} does not exist; create it or set edge.replay.folder")
        if self.finished:
            return
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MEDIA_TYPES and path.is_file())
        self._origins = read_origins(folder)
        if not self._said_unlisted and (folder / LABELS_FILE).exists():
            self._say_unlisted(files)
        self._waiting = [path for path in files if self._is_new(self._key(path))]
        if not files:
            raise SourceError(f"folder {folder} holds no PNG, JPEG or DICOM file yet; put some there")
        self.finished = not self._settings.follow and not self._waiting

    def _say_unlisted(self, files: list[Path]) -> None:
        """Say once how many files labels.csv leaves out, perhaps by naming them otherwise; names may be patients'."""
        unlisted = sum(self._name(path) not in self._origins for path in files)
        if unlisted:
            self._said_unlisted = True
            log.warning(
                "files not in labels.csv",
                files=unlisted,
                of=len(files),
                next="they are read, each folder's as one patient; column file is the path below edge.replay.folder",
            )

    def _is_new(self, key: str) -> bool:
        if key in self._seen:
            return False
        if self._is_captured(key):
            self._seen.add(key)
            return False
        return True

    def _read(self, path: Path) -> CapturedFrame | None:
        key = self._given = self._key(path)
        try:
            size = path.stat().st_size
            if size > self._max_file_bytes:
                raise FrameRefusedError(key, f"{size:,} bytes exceed edge.max_file_bytes ({self._max_file_bytes:,})")
            data = path.read_bytes()
        except FileNotFoundError:
            self._waiting.pop(0)  # not marked: should it come back, it is captured
            return None
        except OSError as error:
            raise FrameRefusedError(key, f"cannot be read ({error.strerror}); check its permissions") from error
        origin = self._origins.get(self._name(path)) or _origin_of(path, data)
        return CapturedFrame(
            key=key,
            data=data,
            media_type=MEDIA_TYPES[path.suffix.lower()],
            source=origin.source[:200],
            patient_id=origin.patient_id,
            captured_at=datetime.now(UTC),
            patient_known=origin.patient_known,
        )

    def _key(self, path: Path) -> str:
        """Name a file with its size and time: one that was still being copied, or is replaced, is another one."""
        try:
            state = path.stat()
        except OSError:  # gone, or not to be looked at: reading it will say so
            return self._name(path)
        return f"{self._name(path)} ({state.st_size} bytes, {state.st_mtime_ns})"

    def _name(self, path: Path) -> str:
        return _text(path.relative_to(self._settings.folder).as_posix())


def read_origins(folder: Path) -> dict[str, FileOrigin]:
    """Read labels.csv (columns file, patient_id, source; others are ignored); without one the dict is empty.

    Raises `SourceError` naming the missing column.
    """
    try:
        text = (folder / LABELS_FILE).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{folder / LABELS_FILE} cannot be read ({error}); save it as UTF-8") from error
    try:
        reader = csv.DictReader(io.StringIO(text))
        rows = list(reader)
    except csv.Error as error:
        raise SourceError(f"{folder / LABELS_FILE} is no CSV ({error}); mend it or remove the file") from error
    missing = {"file", "patient_id", "source"} - set(reader.fieldnames or ())
    if missing:
        raise SourceError(
            f"{folder / LABELS_FILE} has no column {', '.join(sorted(missing))}; add it or remove the file"
        )
    return {
        row["file"]: FileOrigin(row["patient_id"], row["source"] or "")  # None in a row that ends early
        for row in rows
        if row["file"] and row["patient_id"]
    }


def _origin_of(path: Path, data: bytes) -> FileOrigin:
    """Without labels.csv a DICOM file names its patient; other files count as one patient a folder, the safe side."""
    patient = dicom_patient(data) if is_dicom(data) else ""
    return FileOrigin(patient or _text(f"folder:{path.parent}"), UNNAMED_SOURCE, patient_known=bool(patient))


def _text(path: str) -> str:
    """Spell a path as text that can be stored: of a name in another encoding, the bytes."""
    return os.fsencode(path).decode(errors="backslashreplace")
