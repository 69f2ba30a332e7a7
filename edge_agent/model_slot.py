"""Hold the network that reads slices now, on disk and in memory, so that it can be exchanged between two slices."""

import contextlib
import json
import math
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog
from pydantic import BaseModel, ConfigDict

from edge_agent.durable import write_durably
from edge_agent.golden import GoldenError, difference, read_golden
from protocol.chunks import ENTRIES_A_PIECE, ENTRY_BYTES, Chunk, check_file, read_index, sha256_of
from protocol.errors import TrustError
from protocol.manifest import GOLDEN_FILE, MODEL_FILE, EdgeFacts, Manifest, stored_manifest
from protocol.messages import ModelRef
from protocol.signing import TrustedKeys
from training.model.preprocess import PREPROCESSING_VERSION
from training.model.reader import Calibration, OnnxReader, UnreadableNetworkError

log = structlog.get_logger()

ENVELOPE_FILE = "manifest.dsse.json"
ACTIVE_FILE = "active.json"
COMPARISON_FILE = "comparison.json"
INDEX_SUFFIX = ".index"
"""Of the file that lists another one's chunks."""
KEPT_VERSIONS = 3

MAX_DEATHS_ON_PROBATION = 3
"""A model on probation under which the process ended so often in the midst of a slice may be what ends it."""
MAX_DEATHS_LOADING = 3
"""So often may the process end while it loads a new network: two may take more memory than the box has."""
MAX_REMEMBERED_FAILURES = 100


class SlotState(BaseModel):
    """What outlives a restart: which versions may run (newest first), and what is known of them."""

    model_config = ConfigDict(frozen=True)

    versions: tuple[int, ...] = ()
    on_probation: bool = False
    deaths_on_probation: int = 0
    loading: int = 0
    deaths_loading: int = 0
    highest_seen: int = 0
    failed: tuple[int, ...] = ()


class SelfTestError(ValueError):
    """A network does not give on its golden slices what its manifest promises."""


class LoadingDiedError(SelfTestError):
    """The process ended, again and again, while it loaded the network beside the one in use."""


@dataclass(frozen=True)
class ServedModel:
    """A verified network, ready to read."""

    manifest: Manifest
    reader: OnnxReader
    envelope: bytes = field(default=b"", repr=False)

    @property
    def ref(self) -> ModelRef:
        """Name the network as readings name it."""
        return self.manifest.model_ref


class ModelSlot:
    """The model in use and the one before it; `current` is read once per slice."""

    def __init__(
        self,
        folder: Path,
        trusted: Sequence[TrustedKeys],
        *,
        threads: int = 1,
        architectures: frozenset[str] = frozenset(),
        max_bytes: int = 2**63,
    ) -> None:
        """Remember where models are kept, whose signatures count or once counted, and what this edge is fit for."""
        self.folder = folder
        self.trusted = tuple(trusted)
        self._architectures, self._max_bytes = architectures, max_bytes
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
        """Tell whether the model in use has yet to read its first slices without a fault.

        In the midst of a swap it is the one before that is in use, and what it does says nothing of the next.
        """
        state = self._state
        return state.on_probation and state.versions[:1] == (self.running_version,)

    def load_active(self) -> None:
        """Load the model that ran before the restart, or its predecessor when it no longer verifies.

        A probation goes on; one in which the process died on too many slices ends in a roll back, which a full disk
        does not keep from happening: the next start does it again.
        """
        self._state = _read_state(self.folder)
        usable = self._usable(self._state.versions)
        self.current = next(usable, None)
        if self.current is None or self.current.manifest.version != self._state.versions[0]:
            self._state = self._state.model_copy(update={"on_probation": False})
        elif self._state.on_probation:
            self.previous = next(usable, None)
            if self._state.deaths_on_probation >= MAX_DEATHS_ON_PROBATION:
                reason = f"the process ended {self._state.deaths_on_probation} times while it read a slice"
                log.error("model rolled back", version=self.running_version, reason=reason)
                try:
                    # only suspected: where there is no other it may be taken again, or the edge would wait for ever
                    self.roll_back(for_good=self.previous is not None)
                except OSError as error:
                    log.error("roll back not remembered", reason=str(error), next="free some space before a restart")

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

    @property
    def facts(self) -> EdgeFacts:
        """Return what a release has to fit."""
        return EdgeFacts(
            PREPROCESSING_VERSION, self.running, self._state.highest_seen, self._architectures, self._max_bytes
        )

    @property
    def banned(self) -> tuple[int, ...]:
        """Return the versions that are not run here whatever is assigned."""
        return self._state.failed

    def ban(self, *versions: int) -> None:
        """Remember that releases failed here, or were withdrawn, so that they are not tried again."""
        self._remember(even_unwritten=True, failed=self._banned_with(versions))

    def prove(self) -> None:
        """End the probation: the model in use stays; the one before it stays on the disk alone.

        Raises `OSError` when the disk does not take it: then the probation is done again after a restart.
        """
        self.previous = None
        self._remember(even_unwritten=True, on_probation=False, deaths_on_probation=0)

    def holds(self, manifest: Manifest) -> bool:
        """Tell whether the files of a release are here, whole."""
        folder = self._version_folder(manifest.version)
        try:
            for name in manifest.fetched:
                check_file(name, manifest.files[name], (folder / name).read_bytes())
        except (OSError, TrustError):
            return False
        return True

    def store(
        self, manifest: Manifest, envelope: bytes, files: Mapping[str, bytes], indices: Mapping[str, bytes]
    ) -> Path:
        """Write a release so that it survives a crash; the envelope comes last and makes it complete.

        Returns the folder. What was stored of others before, and given up, is deleted first.
        """
        if not (self.folder / ACTIVE_FILE).exists():
            self._remember()  # else a start would take what was only stored, and not yet tried, for what read before
        self._forget_all_but({manifest.version, *self._state.versions})
        folder = self._version_folder(manifest.version)
        folder.mkdir(parents=True, exist_ok=True)
        listed = {name + INDEX_SUFFIX: index for name, index in indices.items()}
        for name, data in {**files, **listed, ENVELOPE_FILE: envelope}.items():
            write_durably(folder / name, data)
        return folder

    def load(self, version: int) -> ServedModel:
        """Verify a stored release again, load it, and test it on its golden slices.

        Raises `TrustError`, `UnreadableNetworkError`, `SelfTestError` or `OSError`. An expired release that is
        already on this edge stays usable: a box without a network must not stop reading.
        """
        folder = self._version_folder(version)
        envelope = (folder / ENVELOPE_FILE).read_bytes()
        manifest = self._manifest(envelope)
        files = {name: (folder / name).read_bytes() for name in (MODEL_FILE, GOLDEN_FILE)}
        for name, data in files.items():
            check_file(name, manifest.files[name], data)
        calibration = Calibration(manifest.labels, manifest.temperature, manifest.uncertain_below)
        reader = OnnxReader(files[MODEL_FILE], calibration, threads=self._threads)
        self_test(reader, files[GOLDEN_FILE], manifest.golden_tolerance)
        return ServedModel(manifest, reader, envelope)

    def load_new(self, version: int) -> ServedModel:
        """Load a stored release for the first time, remembering on disk that this is done: it may end the process.

        Raises `LoadingDiedError` when it did so too often, and what `load` raises.
        """
        deaths = self._state.deaths_loading if self._state.loading == version else 0
        if deaths >= MAX_DEATHS_LOADING:
            raise LoadingDiedError(
                f"the process ended {deaths} times while it loaded the network beside the one in use"
            )
        self._remember(loading=version, deaths_loading=deaths + 1)
        try:
            return self.load(version)
        finally:
            with contextlib.suppress(OSError):
                self._remember(even_unwritten=True, deaths_loading=deaths)

    def bases(self) -> dict[str, Path]:
        """Return the networks that are kept, by their SHA-256: what deltas may start from."""
        return {manifest.files[MODEL_FILE].sha256: folder / MODEL_FILE for folder, manifest in self._kept()}

    def chunks(self) -> Iterator[tuple[Path, tuple[Chunk, ...]]]:
        """Yield the files that are kept, their indices too, with the chunks of each."""
        for folder, manifest in self._kept():
            for name, file in manifest.files.items():
                index = folder / (name + INDEX_SUFFIX)
                with contextlib.suppress(OSError, TrustError):  # none, or damaged: it is fetched again
                    pieces = _pieces(index.read_bytes(), [*file.index])
                    yield folder / name, read_index(file, pieces)
                    yield index, tuple(Chunk(sha256_of(piece), len(piece)) for piece in pieces)

    def activate(self, model: ServedModel) -> None:
        """Swap the model in by one assignment, after remembering on disk that it and its predecessors may run.

        A signed rollback leads to a model that ran before: it has no probation, and what it leads away from is banned.
        """
        before, manifest = self.current, model.manifest
        banned = self._banned_with(manifest.returns_from)
        older = [v for v in self._state.versions if v != manifest.version and v not in banned]
        versions = (manifest.version, *older)[:KEPT_VERSIONS]
        returning = self.running_version in manifest.returns_from
        self._remember(
            versions=versions,
            on_probation=not returning,
            deaths_on_probation=0,
            highest_seen=max(manifest.version, self._state.highest_seen),
            failed=banned,
        )
        self.previous = None if returning else before
        self.current = model
        self._forget_all_but(set(versions))

    def roll_back(self, *, for_good: bool = True) -> None:
        """Return to the model before; without one the edge waits for the next release (or, not for good, for this one).

        Raises `OSError` when the disk does not take it: the failing model is out of use until the next start.
        """
        failed = self.running_version
        older = [version for version in self._state.versions if version != failed]
        before = self.previous or next(self._usable(older), None)
        self.previous, self.current = None, before
        self._remember(
            even_unwritten=True,
            versions=tuple(older if before else ()),
            on_probation=False,
            deaths_on_probation=0,
            failed=self._banned_with((failed,) if for_good else ()),
        )

    def note_comparison(self, version: int, known: str) -> None:
        """Remember what is known of a version's behaviour; raises `OSError`."""
        noted = {"version": version, "known": known}
        write_durably(self.folder / COMPARISON_FILE, json.dumps(noted).encode())

    def noted_comparison(self, version: int) -> str:
        """Return what was noted of this very version, or nothing."""
        try:
            noted = json.loads((self.folder / COMPARISON_FILE).read_bytes())
            return str(noted["known"]) if noted["version"] == version else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def forget(self, version: int) -> None:
        """Delete a release that failed its trial."""
        if version not in self._state.versions:
            shutil.rmtree(self._version_folder(version), ignore_errors=True)

    def _banned_with(self, versions: Sequence[int]) -> tuple[int, ...]:
        return tuple(dict.fromkeys((*self._state.failed, *versions)))[-MAX_REMEMBERED_FAILURES:]

    def _manifest(self, envelope: bytes) -> Manifest:
        """Verify a stored envelope by the newest keys, or by those that it was taken in with."""
        for trusted in self.trusted[:-1]:
            with contextlib.suppress(TrustError):
                return stored_manifest(envelope, trusted, PREPROCESSING_VERSION)
        return stored_manifest(envelope, self.trusted[-1], PREPROCESSING_VERSION)

    def _kept(self) -> Iterator[tuple[Path, Manifest]]:
        for version in self._state.versions:
            folder = self._version_folder(version)
            with contextlib.suppress(OSError, TrustError):
                yield folder, self._manifest((folder / ENVELOPE_FILE).read_bytes())

    def _count_deaths(self, versions: tuple[int, ...], deaths: int) -> None:
        """Write the count unless the other thread ended these versions' probation; a full disk stops no reading."""
        with self._writing, contextlib.suppress(OSError):
            if self._state.on_probation and self._state.versions == versions:
                self._remember(even_unwritten=True, deaths_on_probation=deaths)

    def _usable(self, versions: Iterable[int]) -> Iterator[ServedModel]:
        for version in versions:
            if (model := self._load_or_tell(version)) is not None:
                yield model

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
        promised = read_golden(golden)
        differs = difference(reader, promised)
    except GoldenError as error:
        raise SelfTestError(str(error)) from error
    if math.isinf(differs) and np.isfinite(promised.logits).all():
        raise SelfTestError("the network gives values on the golden slices that are not finite")
    if not differs <= tolerance:  # NaN is no promise either
        raise SelfTestError(f"logits on the golden slices differ by {differs:.4f}, allowed are {tolerance}")


def _pieces(index: bytes, hashes: Sequence[str]) -> list[bytes]:
    size = ENTRIES_A_PIECE * ENTRY_BYTES
    return [index[at * size : (at + 1) * size] for at in range(len(hashes))]


def _read_state(folder: Path) -> SlotState:
    path = folder / ACTIVE_FILE
    try:
        return SlotState.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        names = [each.parent.name for each in folder.glob(f"[0-9]*/{ENVELOPE_FILE}")]
        found = sorted(int(name) for name in names if name.isdecimal())  # a copy that a person made is none of ours
        if found or path.exists():
            log.error("active model unknown", path=str(path), reason=str(error), next="the oldest that is here is used")
        # the oldest has read longest; none older than the newest is taken, as if that had been in use
        return SlotState(versions=tuple(found), highest_seen=max(found, default=0))
