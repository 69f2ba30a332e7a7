"""Bring the assigned release onto this edge: verify, fetch, try, watch it silently, swap, watch it in use, report."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from edge_agent.by_url import UrlFetch
from edge_agent.chunk_store import ChunkStore, DamagedChunkError
from edge_agent.download import Download, Way
from edge_agent.model_slot import ModelSlot, SelfTestError, ServedModel
from edge_agent.probation import Role
from edge_agent.reading import ReadSlice
from edge_agent.staging import Background, Trial, stage, stage_again
from edge_agent.structure import StructureError
from edge_agent.trust import EdgeTrust
from edge_agent.watch import Silently, Watch
from protocol.assignment import check_assigned, check_fresh
from protocol.chunks import sha256_of
from protocol.errors import (
    BannedVersionError,
    EndlessDataError,
    FrozenError,
    TrustError,
    UnassignedReleaseError,
)
from protocol.manifest import Manifest, trusted_manifest
from protocol.messages import ChunkRequest, ModelPhase, ModelReported
from training.model.reader import UnreadableNetworkError

log = structlog.get_logger()

MAX_REMEMBERED = 100
"""Refused envelopes that are not reported again when the broker repeats them."""
PROGRESS_S = 1.0
"""So often progress is told at most."""
MISMATCH_S = 10.0
"""Manifest and assignment come as two messages: so long they may differ."""
UNWATCHED = 10
"""Times the slices of a probation that a model must read without a fault where too few of them could be compared."""


@dataclass(frozen=True)
class Pace:
    """How many slices each phase takes, and how chunks are asked for."""

    shadow_slices: int
    probation_slices: int
    way: Way
    urls: bool = True


@dataclass(frozen=True)
class Voice:
    """How the updater speaks: reports, requests for chunks, and whether it wants to hear the chunks for all."""

    report: Callable[[ModelReported], None]
    request: Callable[[ChunkRequest], None]
    hear_shared: Callable[[bool], None]


@dataclass(frozen=True)
class Proving:
    """Where a network is tried before it reads, and how it is compared."""

    background: Background
    trial: Trial
    silently: Silently


@dataclass
class Staging:
    """A release that is put together and tried in the background."""

    envelope: bytes
    manifest: Manifest
    result: "Future[ServedModel | None]"
    download: Download | None = None
    """To go on with, when a delta led nowhere or a chunk was damaged."""
    dropped: bool = False


class Updater:
    """Follows the model-update topics; everything it was given is checked before it is used.

    All but `slice_was_read` is called in the thread that talks to the cloud.
    """

    def __init__(self, slot: ModelSlot, trust: EdgeTrust, pace: Pace, voice: Voice, proving: Proving) -> None:
        """Remember the parts."""
        self._slot, self._trust, self._pace, self._voice, self._proving = slot, trust, pace, voice, proving
        self._store = ChunkStore(slot.folder / "incoming")
        self._desired: bytes | None = None
        self._mismatch, self._mismatch_since_s = "", 0.0
        self._download: Download | None = None
        self._by_url: UrlFetch | None = None
        self._staging: Staging | None = None
        self._candidate: ServedModel | None = None
        self._watch: Watch | None = None
        self._judged: set[str] = set()
        self._clean_readings = 0
        self._readings_failed = ""
        self._frozen = ""
        self._next_progress_s = 0.0
        self._hears_shared = False
        self.reported = self._message(self._phase(), slot.running_version)

    # What is heard.

    def hear_keys(self, data: bytes, now: datetime) -> None:
        """Follow key rotations; what was signed by the new keys is looked at again."""
        try:
            if not self._trust.hear_keys(data):
                return
        except (TrustError, OSError) as error:
            self._refuse(data, error)
            return
        self._slot.trusted = self._trust.ever_trusted
        self._judged.clear()
        self._report(self._phase(), self._slot.running_version)
        self._consider(now)

    def hear_assignment(self, envelope: bytes, now: datetime) -> None:
        """Take which release this edge shall run."""
        try:
            if not self._trust.hear_assignment(envelope, now):
                return
        except (TrustError, OSError) as error:
            self._refuse(envelope, error)
            return
        self._consider(now)

    def offer(self, envelope: bytes, now: datetime) -> None:
        """Take what came on the model-update topic; a release that may not run here is reported with its reason."""
        self._desired = envelope
        self._consider(now)

    def chunk(self, sha256: str, data: bytes, now_s: float, *, shared: bool = False) -> None:
        """Keep a chunk that is missing; anything else is dropped."""
        if self._download is None:
            return
        try:
            self._download.take(sha256, data, now_s)
        except EndlessDataError as error:
            self._report(ModelPhase.DOWNLOADING, self._download.version, _named(error))
        except TrustError as error:  # chunks for all are no news: others missed them
            (log.debug if shared else log.warning)("chunk refused", sha256=sha256[:12], reason=_named(error))
        except OSError as error:
            log.error("chunk not kept", reason=str(error), next="it is asked for again; free some space")

    def line_was_cut(self) -> None:
        """Hear that a new connection begins."""
        if self._download is not None:
            self._download.line_was_cut()

    def slice_was_read(self, version: int, read: ReadSlice | None = None, *, fault: str = "") -> None:
        """Hear from the reading thread how the model did on a slice; an empty fault is a clean reading."""
        watch = self._watch
        if read is not None and watch is not None:
            watch.offer(read)
        if version != self._slot.running_version or not self._slot.on_probation:
            return
        if fault:
            self._readings_failed = fault
        else:
            self._clean_readings += 1

    # What is done.

    def step(self, now_s: float, now: datetime) -> None:
        """Do what is next: judge what is watched, ask for chunks, try what is complete, swap what was tried.

        A release waits for the end of a probation, so that there is always a proven model to return to.
        """
        self._tell_frozen(now)
        self._tell_mismatch(now_s)
        self._resume_watch()
        if self._watch is not None:
            self._watch.step(now_s)
        if self._slot.on_probation:
            self._judge_probation(now_s)
        elif self._candidate is not None:
            self._judge_shadow(self._candidate, now_s)
        if self._staging is not None:
            self._finish_staging(self._staging)
        if self._download is not None:
            self._fetch(self._download, now_s)
        self._hear_shared()

    def close(self) -> None:
        """Let go of threads; called once, at the end."""
        self._end_watch()
        if self._by_url is not None:
            self._by_url.close()

    # Trust.

    def _consider(self, now: datetime) -> None:
        """Look at the desired release in the light of the newest assignment."""
        envelope, assignment = self._desired, self._trust.assignment
        self._mismatch = ""
        if envelope is None or sha256_of(envelope) in self._judged or self._is_under_way(envelope):
            return
        try:
            manifest = trusted_manifest(envelope, self._trust.keys.release, self._slot.facts, now=now)
            if assignment is None:
                self._mismatch = f"version {manifest.version} is desired, and no assignment has come"
                return
            check_assigned(envelope, assignment)
            check_fresh(assignment, now)
            if manifest.version in self._slot.banned:
                raise BannedVersionError(
                    f"version {manifest.version} failed on this edge before, or was withdrawn; release a new one",
                    manifest.version,
                )
        except UnassignedReleaseError as error:
            self._mismatch = _named(error)
        except FrozenError as error:
            self._refuse(envelope, error)
        except TrustError as error:
            self._judge(envelope)
            self._report(ModelPhase.REJECTED, error.version, _named(error))
        else:
            self._begin(envelope, manifest)

    def _is_under_way(self, envelope: bytes) -> bool:
        staging, candidate = self._staging, self._candidate
        return (
            (self._download is not None and self._download.envelope == envelope)
            or (staging is not None and staging.envelope == envelope and not staging.dropped)
            or (candidate is not None and candidate.envelope == envelope)
        )

    def _begin(self, envelope: bytes, manifest: Manifest) -> None:
        """Go for a release: what was on its way to another one is given up."""
        self._give_up()
        if manifest.model_ref == self._slot.running:
            self._report(self._phase(), manifest.version)
            return
        log.info("release offered", version=manifest.version)
        if self._slot.holds(manifest):
            work = self._proving.background.submit(
                lambda: stage_again(envelope, manifest, self._slot, self._proving.trial)
            )
            self._stage(Staging(envelope, manifest, work))
            return
        try:
            self._store.open()
        except OSError as error:
            log.error(
                "chunks of before not taken up", reason=str(error), next="free some space; they are fetched again"
            )
        for path, chunks in self._slot.chunks():
            self._store.know(path, chunks)
        self._download = Download(envelope, manifest, self._store, self._slot.bases(), self._pace.way)

    def _give_up(self) -> None:
        """Drop what is on its way; chunks stay, since the next release may have them too."""
        self._download = None
        if self._by_url is not None:
            self._by_url.close()
            self._by_url = None
        if self._staging is not None:
            self._staging.dropped = True
        if self._candidate is not None:
            self._end_watch()
            self._candidate = None

    def _refuse(self, heard: bytes, error: TrustError | OSError) -> None:
        """Report what cannot be followed, once; it says nothing of a release."""
        if sha256_of(heard) not in self._judged:
            self._judge(heard)
            self._report(self._phase(), self._slot.running_version, _named(error))

    def _judge(self, heard: bytes) -> None:
        if len(self._judged) >= MAX_REMEMBERED:
            self._judged.clear()
        self._judged.add(sha256_of(heard))

    def _tell_frozen(self, now: datetime) -> None:
        frozen = self._trust.frozen(now)
        if frozen and not self._frozen:
            self._report(self._phase(), self._slot.running_version, frozen)
        self._frozen = frozen

    @property
    def trouble(self) -> str:
        """Say what stands between this edge and news of releases; empty when nothing does."""
        return self._frozen

    def _tell_mismatch(self, now_s: float) -> None:
        if not self._mismatch:
            self._mismatch_since_s = now_s
        elif now_s - self._mismatch_since_s >= MISMATCH_S:
            self._mismatch_since_s = float("inf")
            self._report(self._phase(), self._slot.running_version, self._mismatch)

    # Delivery.

    def _fetch(self, download: Download, now_s: float) -> None:
        self._take_from_url(download, now_s)
        try:
            complete = download.complete
        except TrustError as error:  # an index that does not make its file
            self._reject(download.manifest, error)
            return
        if not complete:
            if self._by_url is None and (request := download.request(now_s)) is not None:
                self._voice.request(request)
            if now_s >= self._next_progress_s:
                self._next_progress_s = now_s + PROGRESS_S
                done, total = download.progress
                self._report(ModelPhase.DOWNLOADING, download.version, chunks_done=done, chunks_total=total)
        elif self._staging is None and (not self._slot.on_probation or self._leads_away(download.manifest)):
            work = self._proving.background.submit(lambda: stage(download, self._slot, self._proving.trial))
            self._download = None
            self._stage(Staging(download.envelope, download.manifest, work, download))

    def _take_from_url(self, download: Download, now_s: float) -> None:
        if self._by_url is None:
            urls = self._trust.assignment.urls if self._trust.assignment and self._pace.urls else {}
            runs = download.runs(urls) if urls and not download.tried_url else None
            if runs:
                download.tried_url = True
                self._by_url = UrlFetch(runs, self._pace.way.max_bytes_per_s)
                self._by_url.start()
            return
        alive = self._by_url.alive
        while (came := self._by_url.take()) is not None:
            self.chunk(*came, now_s)
        if not alive:
            self._by_url = None

    def _hear_shared(self) -> None:
        wanted = self._download is not None and self._download.shared
        if wanted != self._hears_shared:
            self._hears_shared = wanted
            self._voice.hear_shared(wanted)

    def _leads_away(self, manifest: Manifest) -> bool:
        return self._slot.running_version in manifest.returns_from

    # Trial and swap.

    def _stage(self, staging: Staging) -> None:
        self._staging = staging
        self._report(ModelPhase.TESTING, staging.manifest.version)
        self._finish_staging(staging)  # where it was quick

    def _finish_staging(self, staging: Staging) -> None:
        if not staging.result.done():
            return
        self._staging = None
        manifest = staging.manifest
        try:
            model = staging.result.result()
        except DamagedChunkError as error:
            log.warning("release not put together", version=manifest.version, reason=str(error))
            model = None
        except (TrustError, StructureError, UnreadableNetworkError, SelfTestError) as error:
            if not staging.dropped:
                self._reject(manifest, error)
            return
        except OSError as error:  # a full disk is not the release's fault: it may be offered again
            if not staging.dropped:
                self._report(ModelPhase.REJECTED, manifest.version, f"cannot be stored ({error}); free some space")
            return
        if staging.dropped:
            return
        if model is None:
            self._download = staging.download
        else:
            self._store.clear()
            self._tried(model)

    def _tried(self, model: ServedModel) -> None:
        """Watch a model silently before the swap, where there is one to compare it with and to return to."""
        incumbent = self._slot.current
        if incumbent is None or not self._pace.shadow_slices or self._leads_away(model.manifest):
            self._swap(model)
            return
        self._candidate = model
        self._begin_watch(Watch(model, incumbent, Role.CANDIDATE, self._proving.silently))
        self._report(ModelPhase.SHADOW, model.manifest.version)

    def _swap(self, model: ServedModel) -> None:
        version = model.manifest.version
        self._end_watch()
        self._candidate = None
        self._clean_readings, self._readings_failed = 0, ""
        try:
            self._slot.activate(model)
        except OSError as error:
            self._report(ModelPhase.REJECTED, version, f"cannot be stored ({error}); free some space")
            return
        log.info("model swapped in", version=version)
        self._resume_watch()
        self._report(self._phase(), version)

    def _reject(self, manifest: Manifest, error: Exception) -> None:
        self._reject_for(manifest.version, _named(error))

    def _reject_for(self, version: int, reason: str) -> None:
        self._give_up()
        self._remembering(lambda: self._slot.ban(version))
        self._slot.forget(version)
        self._store.clear()
        self._report(ModelPhase.REJECTED, version, reason)

    # Watching.

    def _resume_watch(self) -> None:
        """Compare the model on probation with the one before it, also after a restart."""
        current, before = self._slot.current, self._slot.previous
        if self._watch is None and self._slot.on_probation and current is not None and before is not None:
            self._begin_watch(Watch(current, before, Role.INCUMBENT, self._proving.silently))

    def _begin_watch(self, watch: Watch) -> None:
        watch.start()
        self._watch = watch

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _judge_shadow(self, candidate: ServedModel, now_s: float) -> None:
        watch = self._watch
        if watch is None:
            return
        version = candidate.manifest.version
        against = watch.fault or watch.comparison.verdict()
        if against:
            self._reject_for(version, f"beside the model in use: {against}")
        elif watch.comparison.pairs >= self._pace.shadow_slices:
            self._swap(candidate)
        else:
            self._tell_compared(ModelPhase.SHADOW, version, now_s)

    def _judge_probation(self, now_s: float) -> None:
        version, watch = self._slot.running_version, self._watch
        against = self._readings_failed or (watch.comparison.verdict() if watch is not None else "")
        if against:
            self._roll_back(version, against)
        elif self._is_proven(watch):
            self._end_watch()
            self._remembering(self._slot.prove)
            self._report(ModelPhase.ACTIVE, version)
        else:
            self._tell_compared(ModelPhase.PROBATION, version, now_s)

    def _is_proven(self, watch: Watch | None) -> bool:
        enough = self._pace.probation_slices
        if self._clean_readings < enough:
            return False
        compared = watch is None or bool(watch.fault) or watch.comparison.pairs >= enough
        return compared or self._clean_readings >= UNWATCHED * enough

    def _roll_back(self, version: int, reason: str) -> None:
        self._end_watch()
        try:
            self._slot.roll_back()
        except OSError as error:
            log.error("roll back not remembered", reason=str(error), next="free some space before a restart")
        log.error("model rolled back", version=version, reason=reason)
        self._report(ModelPhase.ROLLED_BACK, version, reason)

    @staticmethod
    def _remembering(action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            log.error("not remembered", reason=str(error), next="free some space before a restart")

    # Reports.

    def _phase(self) -> ModelPhase:
        if self._slot.current is None:
            return ModelPhase.NONE
        return ModelPhase.PROBATION if self._slot.on_probation else ModelPhase.ACTIVE

    def _tell_compared(self, phase: ModelPhase, version: int, now_s: float) -> None:
        compared = self._watch.comparison.pairs if self._watch is not None else 0
        if compared != self.reported.compared and now_s >= self._next_progress_s:
            self._next_progress_s = now_s + PROGRESS_S
            self._report(phase, version)

    def _report(
        self, phase: ModelPhase, version: int, reason: str = "", *, chunks_done: int = 0, chunks_total: int = 0
    ) -> None:
        """Say how it stands with a version; 0 is one that nothing trustworthy names."""
        if reason:
            log.warning("model update", phase=phase, version=version, reason=reason)
        self.reported = self._message(phase, version, reason, chunks_done, chunks_total)
        self._voice.report(self.reported)

    def _message(
        self, phase: ModelPhase, version: int, reason: str = "", done: int = 0, total: int = 0
    ) -> ModelReported:
        assignment = self._trust.assignment
        return ModelReported(
            phase=phase,
            at=datetime.now(UTC),
            running=self._slot.running,
            desired_version=version,
            chunks_done=done,
            chunks_total=total,
            compared=self._watch.comparison.pairs if self._watch is not None else 0,
            assignment=assignment.sequence if assignment is not None else 0,
            keys_version=self._trust.keys.version,
            banned=self._slot.banned,
            reason=reason[:2000],
        )


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
