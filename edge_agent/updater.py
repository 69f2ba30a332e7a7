"""Bring the assigned release onto this edge: verify, fetch, try, watch it silently, swap, watch it in use, report."""

import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

import structlog

from edge_agent.chunk_store import DamagedChunkError
from edge_agent.delivery import Delivery
from edge_agent.desired import Desired, named
from edge_agent.download import Download, Way
from edge_agent.kept import KeptSlices
from edge_agent.model_slot import ModelSlot, SelfTestError, ServedModel
from edge_agent.probation import Role
from edge_agent.reading import ReadSlice
from edge_agent.reports import Reports
from edge_agent.staging import Background, Trial, stage, stage_again
from edge_agent.structure import StructureError
from edge_agent.trial import TrialDiedError, TrialStoppedError, TrialTimeoutError
from edge_agent.trust import EdgeTrust
from edge_agent.watch import Known, Silently, Watch
from protocol.errors import EndlessDataError, TrustError
from protocol.manifest import Manifest, manifest_digest
from protocol.messages import ChunkRequest, ModelPhase, ModelReported
from training.model.reader import OutOfMemoryError, UnreadableNetworkError

log = structlog.get_logger()

RETRY_S = 60.0
"""After the box did not take a release (a full disk, no memory, no time), it is tried again."""
TRIALS = 3
"""So often may a network's trial end without an answer: a busy box, or one that is short of memory, may be why."""


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
    kept: KeptSlices | None = None
    """On which it is compared besides the live ones, before it reads."""


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
        self._slot, self._trust, self._pace, self._proving = slot, trust, pace, proving
        self._reports = Reports(slot, trust, voice.report)
        self._desired = Desired(slot, trust, self._reports)
        self._delivery = Delivery(slot, pace.way, voice.request, voice.hear_shared)
        self._staging: Staging | None = None
        self._candidate: ServedModel | None = None
        self._watch: Watch | None = None
        self._noted = self._known_of(slot.running_version) if slot.on_probation else Known()
        self._clean_readings = self._noted.clean
        self._readings_failed = ""
        self._unanswered: Counter[int] = Counter()
        self._now_s, self._next_try_s = 0.0, math.inf

    # What is heard.

    def hear_keys(self, data: bytes, now: datetime) -> None:
        """Follow key rotations."""
        self._desired.hear_keys(data)
        self._consider(now)

    def hear_assignment(self, envelope: bytes, now: datetime) -> None:
        """Take which release this edge shall run."""
        self._desired.hear_assignment(envelope, now)
        self._consider(now)

    def offer(self, envelope: bytes, now: datetime) -> None:
        """Take what came on the model-update topic; a release that may not run here is reported with its reason."""
        self._desired.hear_manifest(envelope)
        self._consider(now)

    def chunk(self, sha256: str, data: bytes, now_s: float, *, shared: bool = False) -> None:
        """Keep a chunk that is missing; anything else is dropped."""
        try:
            self._delivery.chunk(sha256, data, now_s, shared=shared)
        except EndlessDataError as error:
            self._reports.say(ModelPhase.DOWNLOADING, error.version, named(error))

    def line_was_cut(self) -> None:
        """Hear that a new connection begins."""
        self._delivery.line_was_cut()

    def slice_was_read(self, version: int, read: ReadSlice | None = None, *, fault: str = "") -> None:
        """Hear from the reading thread how the model did on a slice; an empty fault is a clean reading."""
        watch = self._watch
        if read is not None and watch is not None:
            watch.offer(read)
        elif read is not None:
            self._keep(read)
        if version != self._slot.running_version or not self._slot.on_probation:
            return
        if fault:
            self._readings_failed = fault
        else:
            self._clean_readings += 1

    def _keep(self, read: ReadSlice) -> None:
        """Keep a slice of a proven model; while one is watched none is, so that no slice is compared twice."""
        if self._proving.kept is not None and not self._slot.on_probation:
            self._proving.kept.offer(read.pixels, read.diagnosis.reading, read.patient_key)

    # What is done.

    def step(self, now_s: float, now: datetime) -> None:
        """Do what is next: judge what is watched, ask for chunks, try what is complete, swap what was tried.

        A release waits for the end of a probation, so that there is always a proven model to return to.
        """
        was_frozen = self._desired.frozen
        self._desired.step(now_s, now)
        if self._desired.frozen:
            self._give_up()  # by old news nothing comes in; what is here already stays for a fresh word
        elif was_frozen or now_s >= self._next_try_s:
            self._next_try_s = math.inf
            self._consider(now)
        self._now_s = now_s
        self._watch_in_use()
        if self._watch is not None:
            self._watch.step(now_s)
        if self._slot.on_probation:
            self._judge_probation(now_s)
        elif self._candidate is not None:
            self._judge_shadow(self._candidate, now_s)
        if self._staging is not None:
            self._finish_staging(self._staging)
        if self._delivery.download is not None:
            self._fetch(self._delivery.download, now_s)
        self._delivery.settle()

    @property
    def reported(self) -> ModelReported:
        """Return the newest report, said or not."""
        return self._reports.newest

    @property
    def trouble(self) -> str:
        """Say what stands between this edge and news of releases; empty when nothing does."""
        return self._desired.frozen

    def close(self) -> None:
        """Let go of threads; called once, at the end."""
        self._end_watch()
        self._delivery.close()

    # Which release.

    def _consider(self, now: datetime) -> None:
        """Go for the release that is assigned, unless it runs here or is under way."""
        if not all(map(self._is_assigned, self._under_way())):
            self._give_up()  # though nothing may have come yet of what is assigned now
        found = self._desired.release(now)
        if found is not None and found[0] not in self._under_way():
            self._begin(*found)

    def _under_way(self) -> list[bytes]:
        """Return the envelope of what is fetched, tried, or watched before it reads."""
        staging = self._staging if self._staging is not None and not self._staging.dropped else None
        return [each.envelope for each in (self._delivery.download, staging, self._candidate) if each is not None]

    def _is_assigned(self, envelope: bytes) -> bool:
        assignment = self._trust.assignment
        return assignment is not None and assignment.manifest_sha256 == manifest_digest(envelope)

    def _begin(self, envelope: bytes, manifest: Manifest) -> None:
        """Go for a release: what was on its way to another one is given up."""
        self._give_up()
        self._reports.compared = 0
        if manifest.model_ref == self._slot.running:
            self._stay(manifest)
            return
        log.info("release offered", version=manifest.version)
        if self._slot.holds(manifest):
            work = self._proving.background.submit(
                lambda: stage_again(envelope, manifest, self._slot, self._proving.trial)
            )
            self._stage(Staging(envelope, manifest, work))
            return
        self._delivery.begin(envelope, manifest)

    def _stay(self, manifest: Manifest) -> None:
        """Read on with what runs; from where a signed rollback leads back to it, this edge does not go any more."""
        if not set(manifest.returns_from) <= set(self._slot.banned):
            self._remembering(lambda: self._slot.ban(*manifest.returns_from))
        self._reports.say(self._reports.phase, manifest.version)

    def _give_up(self) -> None:
        """Drop what is on its way."""
        self._delivery.give_up()
        if self._staging is not None:
            self._staging.dropped = True
        if self._candidate is not None:
            self._end_watch()
            self._candidate = None

    # Delivery.

    def _fetch(self, download: Download, now_s: float) -> None:
        urls = self._trust.assignment.urls if self._trust.assignment is not None and self._pace.urls else {}
        try:
            complete = self._delivery.step(now_s, urls)
        except EndlessDataError as error:  # whoever sends it, it is nothing against the release
            self._reports.say(ModelPhase.DOWNLOADING, error.version, named(error))
            return
        except TrustError as error:  # an index that does not make its file
            self._reject(download.manifest, error)
            return
        if not complete:
            if self._reports.progress_is_due(now_s):
                self._reports.say(ModelPhase.DOWNLOADING, download.version, chunks=download.progress)
        elif self._staging is None and (not self._slot.on_probation or self._leads_away(download.manifest)):
            self._delivery.give_up()
            work = self._proving.background.submit(lambda: stage(download, self._slot, self._proving.trial))
            self._stage(Staging(download.envelope, download.manifest, work, download))

    def _leads_away(self, manifest: Manifest) -> bool:
        return self._slot.running_version in manifest.returns_from

    # Trial and swap.

    def _stage(self, staging: Staging) -> None:
        self._staging = staging
        self._reports.say(ModelPhase.TESTING, staging.manifest.version)
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
        except TrialStoppedError:  # nothing was found out: the next life tries it again
            return
        except (TrialTimeoutError, TrialDiedError) as error:
            if not staging.dropped:
                self._no_answer(manifest, error)
            return
        except (
            OSError,
            MemoryError,
            OutOfMemoryError,
        ) as error:  # a full box is not the release's fault: it may be offered again
            if not staging.dropped:
                self._box_refused(manifest.version, error)
            return
        except (TrustError, StructureError, UnreadableNetworkError, SelfTestError) as error:
            if not staging.dropped:
                self._reject(manifest, error)
            return
        except Exception as error:  # whatever a release brings about, the agent goes on
            log.exception("release not tried", version=manifest.version)
            if not staging.dropped:
                self._reject(manifest, error)
            return
        if staging.dropped:
            return
        if model is None:
            self._delivery.go_on(staging.download)
        else:
            self._delivery.clear()
            self._tried(model)

    def _tried(self, model: ServedModel) -> None:
        """Watch a model silently before the swap, where there is one to compare it with and to return to."""
        incumbent = self._slot.current
        if model.ref == self._slot.running:  # the edge went back to it by itself meanwhile
            self._stay(model.manifest)
            return
        if incumbent is None or not self._pace.shadow_slices or self._leads_away(model.manifest):
            self._swap(model)
            return
        self._candidate = model
        known = self._known_of(model.manifest.version)
        proving = self._proving
        self._begin_watch(Watch(model, incumbent, Role.CANDIDATE, proving.silently, known, proving.kept))
        self._reports.say(ModelPhase.SHADOW, model.manifest.version)

    def _swap(self, model: ServedModel) -> None:
        version = model.manifest.version
        known = self._known_now()
        self._end_watch()
        self._candidate = None
        self._clean_readings, self._readings_failed = 0, ""
        try:
            self._slot.activate(model)
        except OSError as error:
            self._box_refused(version, error)
            return
        log.info("model swapped in", version=version)
        self._watch_in_use(known)
        self._reports.say(self._reports.phase, version)

    def _no_answer(self, manifest: Manifest, error: Exception) -> None:
        """Believe that it is the network's fault, and not the box's, only when it happens again and again."""
        self._unanswered[manifest.version] += 1
        if self._unanswered[manifest.version] >= TRIALS:
            self._reject(manifest, error)
        else:
            self._try_later(manifest.version, named(error))

    def _box_refused(self, version: int, error: Exception) -> None:
        self._try_later(version, f"cannot be stored or tried here ({named(error)}); free some disk or memory")

    def _try_later(self, version: int, reason: str) -> None:
        """Say why it takes so long: not as a rejection, which would count against the release in its rollout."""
        self._next_try_s = self._now_s + RETRY_S
        self._reports.say(ModelPhase.TESTING, version, reason)

    def _reject(self, manifest: Manifest, error: Exception) -> None:
        self._reject_for(manifest.version, named(error))

    def _reject_for(self, version: int, reason: str) -> None:
        self._give_up()
        self._remembering(lambda: self._slot.ban(version))
        self._slot.forget(version)
        self._delivery.clear()
        self._reports.say(ModelPhase.REJECTED, version, reason)

    # Watching.

    def _watch_in_use(self, known: Known | None = None) -> None:
        """Compare the model on probation with the one before it, also after a restart."""
        current, before = self._slot.current, self._slot.previous
        if self._watch is None and self._slot.on_probation and current is not None and before is not None:
            known = known or self._known_of(current.manifest.version)
            self._begin_watch(Watch(current, before, Role.INCUMBENT, self._proving.silently, known))

    def _known_of(self, version: int) -> Known:
        """Take up what an earlier life found out: an edge that restarts often would else never know."""
        try:
            return Known.model_validate_json(self._slot.noted_comparison(version))
        except ValueError:
            return Known()

    def _known_now(self) -> Known:
        known = self._watch.known if self._watch is not None else Known()
        return known.model_copy(update={"clean": self._clean_readings if self._slot.on_probation else 0})

    def _begin_watch(self, watch: Watch) -> None:
        watch.start()
        self._watch, self._noted = watch, self._known_now()

    def _end_watch(self) -> None:
        self._count_compared()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _tell_compared(self, phase: ModelPhase, version: int, now_s: float) -> None:
        counted, known = self._count_compared(), self._known_now()
        if known == self._noted or not self._reports.progress_is_due(now_s):
            return
        if counted:
            self._reports.say(phase, version)
        self._noted = known
        self._remembering(lambda: self._slot.note_comparison(version, known.model_dump_json()))

    def _count_compared(self) -> bool:
        before, watch = self._reports.newest.compared, self._watch
        if watch is not None:
            self._reports.compared = watch.comparison.pairs
        return self._reports.compared != before

    def _judge_shadow(self, candidate: ServedModel, now_s: float) -> None:
        watch = self._watch
        if watch is None:
            return
        version = candidate.manifest.version
        against = watch.fault or watch.comparison.verdict()
        if against:
            self._reject_for(version, f"beside the model in use: {against}")
        elif watch.pairs >= self._pace.shadow_slices and watch.kept_done:
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
            self._reports.say(ModelPhase.ACTIVE, version)
        else:
            self._tell_compared(ModelPhase.PROBATION, version, now_s)

    def _is_proven(self, watch: Watch | None) -> bool:
        """Tell whether enough was read, and compared where there is something to compare with."""
        read = self._clean_readings if watch is None or watch.fault else watch.pairs
        return read >= self._pace.probation_slices

    def _roll_back(self, version: int, reason: str) -> None:
        self._end_watch()
        try:
            self._slot.roll_back()
        except OSError as error:
            log.error("roll back not remembered", reason=str(error), next="free some space before a restart")
        log.error("model rolled back", version=version, reason=reason)
        self._reports.say(ModelPhase.ROLLED_BACK, version, reason)

    @staticmethod
    def _remembering(action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            log.error("not remembered", reason=str(error), next="free some space before a restart")
