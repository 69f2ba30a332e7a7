"""Hold the network that reads slices now, on disk and in memory, so that it can be exchanged between two slices."""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cbor2
import numpy as np
import structlog
from pydantic import BaseModel, ConfigDict

from protocol.errors import TrustError
from protocol.manifest import GOLDEN_FILE, MODEL_FILE, Manifest, check_file, trusted_manifest
from protocol.messages import ModelRef
from protocol.signing import TrustedKeys
from training.model.preprocess import INPUT_PX, PREPROCESSING_VERSION
from training.model.reader import Calibration, OnnxReader, UnreadableNetworkError

log = structlog.get_logger()

ENVELOPE_FILE = "manifest.dsse.json"
ACTIVE_FILE = "active.json"


MAX_DEATHS_ON_PROBATION = 3
"""A model on probation under which the process ended so often in the midst of a slice may be what ends it."""
MAX_REMEMBERED_FAILURES = 100


class SlotState(BaseModel):
    """What outlives a restart: which versions may run (newest first), and what is known of them."""

    model_config = ConfigDict(frozen=True)

    versions: tuple[int, ...] = ()
    on_probation: bool = False
    deaths_on_probation: int = 0
    highest_seen: int = 0
    failed: tuple[int, ...] = ()


class SelfTestError(ValueError):
    """A network does not give on its golden slices what its manifest promises."""


@dataclass(frozen=True)
class ServedModel:
    """A verified network, ready to read."""

    manifest: Manifest
    reader: OnnxReader

    @property
    def ref(self) -> ModelRef:
        """Name the network as readings name it."""
        return self.manifest.model_ref


class ModelSlot:
    """The model in use and the one before it; `current` is read once per slice."""

    def __init__(self, folder: Path, trusted: TrustedKeys, *, threads: int = 1) -> None:
        """Remember where models are kept and whose signatures count."""
        self.folder = folder
        self.trusted = trusted
        self._threads = threads
        self._state = SlotState()
        self._writing = threading.RLock()
        self.current: ServedModel | None = None
        self.previous: ServedModel | None = None

    @property
    def running_version(self) -> int:
        """Return the version in use, 0 when there is none."""
        return self.current.manifest.version if self.current else 0

    @property
    def running(self) -> ModelRef | None:
        """Name the network in use."""
        return self.current.ref if self.current else None

    @property
    def on_probation(self) -> bool:
        """Tell whether the model in use has yet to read its first slices without a fault."""
        return self._state.on_probation

    def load_active(self) -> None:
        """Load the model that ran before the restart, or its predecessor when it no longer verifies.

        A probation goes on; one in which the process died on too many slices ends in a roll back. Raises `OSError`
        when the disk is full.
        """
        self._state = _read_state(self.folder / ACTIVE_FILE)
        usable = [model for version in self._state.versions if (model := self._load_or_tell(version)) is not None]
        self.current = usable[0] if usable else None
        if self.current is None or self.current.manifest.version != self._state.versions[0]:
            self._state = self._state.model_copy(update={"on_probation": False})
        elif self._state.on_probation:
            self.previous = usable[1] if len(usable) > 1 else None
            if self._state.deaths_on_probation >= MAX_DEATHS_ON_PROBATION:
                reason = f"the process ended {self._state.deaths_on_probation} times while it read a slice"
                log.error("model rolled back", version=self.running_version, reason=reason)
                # only suspected: where there is no other it may be taken again, or the edge would wait for ever
                self.roll_back(for_good=self.previous is not None)

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """Remember on disk that the model on probation reads a slice, as long as it does: it may end the process."""
        tried = self._state
        if tried.on_probation:
            self._count_deaths(tried.versions, tried.deaths_on_probation + 1)
        try:
            yield
        finally:
            if tried.on_probation:
                self._count_deaths(tried.versions, tried.deaths_on_probation)

    def why_not(self, version: int) -> str:
        """Say why a release may not run here whatever its signature: it failed here, or is older than one seen here."""
        if version in self._state.failed:
            return f"version {version} failed on this edge before; release a new one"
        if version < self._state.highest_seen:
            return f"version {version} is older than {self._state.highest_seen}, which this edge has seen"
        return ""

    def fail(self, version: int) -> None:
        """Remember that a release failed here, so that it is not tried again."""
        self._remember(even_unwritten=True, failed=(*self._state.failed, version)[-MAX_REMEMBERED_FAILURES:])

    def prove(self) -> None:
        """End the probation: the model in use stays."""
        self._remember(on_probation=False, deaths_on_probation=0)

    def store(self, version: int, envelope: bytes, files: dict[str, bytes]) -> None:
        """Write a release's files so that they survive a crash; the envelope comes last and makes it complete."""
        folder = self._version_folder(version)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in {**files, ENVELOPE_FILE: envelope}.items():
            write_durably(folder / name, data)

    def load(self, version: int) -> ServedModel:
        """Verify a stored release again, load it, and test it on its golden slices.

        Raises `TrustError`, `UnreadableNetworkError`, `SelfTestError` or `OSError`. An expired release that is
        already on this edge stays usable: a box without a network must not stop reading.
        """
        folder = self._version_folder(version)
        envelope = (folder / ENVELOPE_FILE).read_bytes()
        manifest = _stored_manifest(envelope, self.trusted)
        files = {name: (folder / name).read_bytes() for name in (MODEL_FILE, GOLDEN_FILE)}
        for name, data in files.items():
            check_file(name, manifest.files[name], data)
        calibration = Calibration(manifest.labels, manifest.temperature, manifest.uncertain_below)
        reader = OnnxReader(files[MODEL_FILE], calibration, threads=self._threads)
        self_test(reader, files[GOLDEN_FILE], manifest.golden_tolerance)
        return ServedModel(manifest, reader)

    def activate(self, model: ServedModel) -> None:
        """Swap the model in by one assignment, after remembering on disk that it and its predecessor may run."""
        before = self.current
        version = model.manifest.version
        versions = (version, before.manifest.version) if before else (version,)
        self._remember(versions=versions, on_probation=True, deaths_on_probation=0, highest_seen=version)
        self.previous = before
        self.current = model
        self._forget_all_but(set(versions))

    def roll_back(self, *, for_good: bool = True) -> None:
        """Return to the model before; without one the edge waits for the next release (or, not for good, for this one).

        Raises `OSError` when the disk does not take it: the failing model is out of use until the next start.
        """
        failed, before = self.running_version, self.previous
        self.previous, self.current = None, before
        self._remember(
            even_unwritten=True,
            versions=(before.manifest.version,) if before else (),
            on_probation=False,
            deaths_on_probation=0,
            failed=(*self._state.failed, *((failed,) if for_good else ()))[-MAX_REMEMBERED_FAILURES:],
        )

    def _count_deaths(self, versions: tuple[int, ...], deaths: int) -> None:
        """Write the count unless the other thread ended these versions' probation; a full disk stops no reading."""
        with self._writing, contextlib.suppress(OSError):
            if self._state.on_probation and self._state.versions == versions:
                self._remember(even_unwritten=True, deaths_on_probation=deaths)

    def _load_or_tell(self, version: int) -> ServedModel | None:
        try:
            model = self.load(version)
        except (TrustError, UnreadableNetworkError, SelfTestError, OSError) as error:
            log.error("stored model not used", version=version, reason=str(error))
            return None
        log.info("model loaded", version=version)
        return model

    def _remember(self, *, even_unwritten: bool = False, **changes: object) -> None:
        with self._writing:
            state = self._state.model_copy(update=changes)
            if even_unwritten:
                self._state = state
            write_durably(self.folder / ACTIVE_FILE, state.model_dump_json().encode())
            self._state = state

    def _version_folder(self, version: int) -> Path:
        return self.folder / f"{version:08d}"

    def _forget_all_but(self, versions: set[int]) -> None:
        keep = {self._version_folder(version) for version in versions}
        for folder in self.folder.glob("[0-9]*"):
            if folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)


def self_test(reader: OnnxReader, golden: bytes, tolerance: float) -> None:
    """Read the golden slices and compare with the promised logits; raises `SelfTestError` naming the difference."""
    try:
        content = cbor2.loads(golden)
        slices = np.frombuffer(content["slices"], np.uint8).reshape(-1, INPUT_PX, INPUT_PX)
        expected = np.array(content["logits"], np.float32).reshape(len(slices), -1)
    except (cbor2.CBORDecodeError, KeyError, TypeError, ValueError) as error:
        raise SelfTestError(f"the golden slices cannot be read ({error})") from error
    if not len(slices):
        raise SelfTestError("the release has no golden slices")
    try:
        got = reader.logits(slices)
    except Exception as error:  # onnxruntime's error classes share no public base
        raise SelfTestError(f"the network fails on the golden slices ({str(error)[:200]})") from error
    if got.shape != expected.shape or not np.isfinite(got).all():
        raise SelfTestError(f"the network gives {got.shape} on the golden slices, or values that are not finite")
    difference = float(np.abs(got - expected).max())
    if not difference <= tolerance:  # NaN is no promise either
        raise SelfTestError(f"logits on the golden slices differ by {difference:.4f}, allowed are {tolerance}")


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that after a crash it is there whole, or the old one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _stored_manifest(envelope: bytes, trusted: TrustedKeys) -> Manifest:
    return trusted_manifest(
        envelope,
        trusted,
        now=datetime.min.replace(tzinfo=UTC),
        running_version=0,
        preprocessing_version=PREPROCESSING_VERSION,
    )


def _read_state(path: Path) -> SlotState:
    try:
        return SlotState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return SlotState()
    except (OSError, ValueError) as error:
        log.error("active model unknown", path=str(path), reason=str(error), next="the release is fetched again")
        return SlotState()
