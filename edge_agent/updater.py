"""Bring the desired release onto this edge: verify, fetch chunks, stage, self-test, swap, watch, report."""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from edge_agent.model_slot import ModelSlot, SelfTestError, write_durably
from protocol.errors import HashMismatchError, LengthMismatchError, TrustError
from protocol.manifest import Manifest, check_chunk, check_file, sha256_of, trusted_manifest
from protocol.messages import ChunkRequest, ModelPhase, ModelReported
from training.model.preprocess import PREPROCESSING_VERSION
from training.model.reader import UnreadableNetworkError

log = structlog.get_logger()

CHUNK_WINDOW = 16
"""Chunks asked for at once: 1 MiB in flight."""
MAX_REMEMBERED = 100
"""Refused envelopes that are not reported again when the broker repeats them."""


@dataclass(frozen=True)
class Download:
    """A verified manifest on its way, and when each missing chunk was last asked for."""

    envelope: bytes
    manifest: Manifest
    asked_at_s: dict[str, float]

    def chunks(self) -> list[str]:
        """List the distinct chunks of all files, in order."""
        return list(dict.fromkeys(chunk for file in self.manifest.files.values() for chunk in file.chunks))


class Updater:
    """Follows the model-update topic; everything it was given is checked before it is used."""

    def __init__(
        self,
        slot: ModelSlot,
        *,
        probation_slices: int,
        chunk_timeout_s: float,
        report: Callable[[ModelReported], None],
        request: Callable[[ChunkRequest], None],
    ) -> None:
        """Remember the slot, and how to report and to ask for chunks."""
        self._slot = slot
        self._incoming = slot.folder / "incoming"
        self._probation_slices, self._chunk_timeout_s = probation_slices, chunk_timeout_s
        self._report_message, self._request = report, request
        self._download: Download | None = None
        self._judged: set[str] = set()
        self._clean_readings = 0
        self._readings_failed = ""
        self.reported = self._message(self._phase(), slot.running_version)

    def offer(self, envelope: bytes, now: datetime) -> None:
        """Take what came on the model-update topic; a release that may not run here is reported with its reason."""
        digest = sha256_of(envelope)
        if digest in self._judged or (self._download and self._download.envelope == envelope):
            return
        try:
            manifest = trusted_manifest(
                envelope,
                self._slot.trusted,
                now=now,
                running_version=max(self._slot.running_version - 1, 0),
                preprocessing_version=PREPROCESSING_VERSION,
            )
        except TrustError as error:
            self._judge(digest)
            self._report(ModelPhase.REJECTED, error.version, reason=f"{type(error).__name__}: {error}")
            return
        if manifest.model_ref == self._slot.running:
            self._report(self._phase(), manifest.version)
            return
        refusal = self._why_not(manifest)
        if refusal:
            self._judge(digest)
            self._report(ModelPhase.REJECTED, manifest.version, reason=refusal)
            return
        log.info("release offered", version=manifest.version)
        self._download = Download(envelope, manifest, {})
        self._forget_damaged(self._download)

    def chunk(self, sha256: str, data: bytes) -> None:
        """Keep a chunk that was asked for; anything else is dropped."""
        if self._download is None or sha256 not in self._download.chunks():
            return
        try:
            check_chunk(sha256, data)
        except (LengthMismatchError, HashMismatchError) as error:
            log.warning("chunk refused", sha256=sha256[:12], reason=str(error))
            return
        try:
            write_durably(self._incoming / sha256, data)
        except OSError as error:
            log.error("chunk not kept", reason=str(error), next="it is asked for again; free some space")
            return
        self._download.asked_at_s.pop(sha256, None)

    def step(self, now_s: float) -> None:
        """Do what is next: judge the probation, ask for chunks, stage what is complete.

        A release waits for the end of a probation, so that there is always a proven model to return to.
        """
        if self._slot.on_probation:
            self._judge_probation()
        if self._download is not None:
            missing = self._missing(self._download)
            if missing:
                self._ask(self._download, missing, now_s)
            elif not self._slot.on_probation:
                self._stage(self._download)

    def slice_was_read(self, version: int, fault: str = "") -> None:
        """Hear from the reading thread how the model did on a slice; an empty fault is a clean reading."""
        if version != self._slot.running_version or not self._slot.on_probation:
            return
        if fault:
            self._readings_failed = fault
        else:
            self._clean_readings += 1

    def _phase(self) -> ModelPhase:
        if self._slot.current is None:
            return ModelPhase.NONE
        return ModelPhase.PROBATION if self._slot.on_probation else ModelPhase.ACTIVE

    def _why_not(self, manifest: Manifest) -> str:
        if manifest.version == self._slot.running_version:
            return f"version {manifest.version} runs here with another network: a version is given once"
        if self._download is not None and manifest.version < self._download.manifest.version:
            return f"version {manifest.version} is older than {self._download.manifest.version}, which is on its way"
        return self._slot.why_not(manifest.version)

    def _judge(self, digest: str) -> None:
        if len(self._judged) >= MAX_REMEMBERED:
            self._judged.clear()
        self._judged.add(digest)

    def _forget_damaged(self, download: Download) -> None:
        """Drop chunks of an earlier life that are no longer what they were; those of this one were checked."""
        for chunk in download.chunks():
            path = self._incoming / chunk
            with contextlib.suppress(OSError):
                if sha256_of(path.read_bytes()) != chunk:
                    path.unlink()

    def _missing(self, download: Download) -> list[str]:
        return [chunk for chunk in download.chunks() if not (self._incoming / chunk).exists()]

    def _ask(self, download: Download, missing: list[str], now_s: float) -> None:
        asked = download.asked_at_s
        waiting = [chunk for chunk in missing if now_s - asked.get(chunk, -1e9) < self._chunk_timeout_s]
        due = [chunk for chunk in missing if chunk not in waiting][: CHUNK_WINDOW - len(waiting)]
        if not due:
            return
        asked.update(dict.fromkeys(due, now_s))
        version, total = download.manifest.version, len(download.chunks())
        self._request(ChunkRequest(version=version, chunks=tuple(due)))
        self._report(ModelPhase.DOWNLOADING, version, chunks_done=total - len(missing), chunks_total=total)

    def _stage(self, download: Download) -> None:
        version = download.manifest.version
        self._report(ModelPhase.TESTING, version)
        self._download = None
        try:
            files = {name: self._assemble(name, download.manifest) for name in download.manifest.files}
            self._slot.store(version, download.envelope, files)
            model = self._slot.load(version)
            self._clean_readings, self._readings_failed = 0, ""
            self._slot.activate(model)
        except (TrustError, UnreadableNetworkError, SelfTestError) as error:
            self._fail(version)
            self._report(ModelPhase.REJECTED, version, reason=f"{type(error).__name__}: {error}")
            return
        except OSError as error:  # a full disk is not the release's fault: it may be offered again
            self._report(ModelPhase.REJECTED, version, reason=f"cannot be stored ({error}); free some space")
            return
        finally:
            shutil.rmtree(self._incoming, ignore_errors=True)
        log.info("model swapped in", version=version)
        self._report(ModelPhase.PROBATION, version)

    def _assemble(self, name: str, manifest: Manifest) -> bytes:
        described = manifest.files[name]
        data = b"".join((self._incoming / chunk).read_bytes() for chunk in described.chunks)
        check_file(name, described, data)
        return data

    def _judge_probation(self) -> None:
        version = self._slot.running_version
        if self._readings_failed:
            try:
                self._slot.roll_back()
            except OSError as error:
                log.error("roll back not remembered", reason=str(error), next="free some space before a restart")
            log.error("model rolled back", version=version, reason=self._readings_failed)
            self._report(ModelPhase.ROLLED_BACK, version, reason=self._readings_failed)
        elif self._clean_readings >= self._probation_slices:
            self._prove()
            self._report(ModelPhase.ACTIVE, version)

    def _prove(self) -> None:
        try:
            self._slot.prove()
        except OSError as error:
            log.error("end of probation not remembered", reason=str(error), next="free some space before a restart")

    def _fail(self, version: int) -> None:
        try:
            self._slot.fail(version)
        except OSError as error:
            log.error("failed release not remembered", reason=str(error), next="free some space before a restart")

    def _report(
        self, phase: ModelPhase, version: int, *, reason: str = "", chunks_done: int = 0, chunks_total: int = 0
    ) -> None:
        """Say how it stands with a version; 0 is one that nothing trustworthy names."""
        if reason:
            log.warning("model update", phase=phase, version=version, reason=reason)
        self.reported = self._message(phase, version, reason, chunks_done, chunks_total)
        self._report_message(self.reported)

    def _message(
        self, phase: ModelPhase, version: int, reason: str = "", done: int = 0, total: int = 0
    ) -> ModelReported:
        return ModelReported(
            phase=phase,
            at=datetime.now(UTC),
            running=self._slot.running,
            desired_version=version,
            chunks_done=done,
            chunks_total=total,
            reason=reason[:2000],
        )
