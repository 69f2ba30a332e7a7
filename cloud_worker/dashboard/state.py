"""What the dashboard knows: messages go in, in any order and any number of times, rows and counts come out."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeVar

from cloud_worker.dashboard.announcement import Announcement
from cloud_worker.dashboard.rows import (
    AUDIT,
    MAX_REASON,
    EdgeId,
    EdgeRow,
    LastSlice,
    Refusal,
    ReviewRow,
    SliceKey,
    SliceRow,
    TrainingRow,
    VersionRow,
    bounded,
    plain,
    small_reading,
)
from protocol.labels import Label
from protocol.messages import (
    Diagnosis,
    Message,
    ModelPhase,
    ModelRef,
    ModelReported,
    RetrainResult,
    RetrainStatus,
    Review,
    SliceRead,
    Status,
    Verdict,
)
from protocol.topics import Address

Count = Label | Literal["read", "uncertain", "second", "disagreement", "open", "reviewed", "retrain"]
RowKey = TypeVar("RowKey")
Row = TypeVar("Row")


@dataclass(frozen=True)
class Bounds:
    """How much is remembered; what is older is forgotten, and would be counted again if it came again."""

    slices: int = 4000
    edges: int = 256
    versions: int = 64
    trainings: int = 32


class DashboardState:
    """A reducer: `apply` is all that changes what is known of the slices, edges, trainings and models.

    Slices are in the order in which they were first heard of. It reads no clock: times come in.
    """

    def __init__(self, broker: str = "", bounds: Bounds | None = None) -> None:
        self.broker = broker
        self.bounds = bounds or Bounds()
        self.slices: dict[SliceKey, SliceRow] = {}
        self.edges: dict[EdgeId, EdgeRow] = {}
        self.trainings: dict[str, TrainingRow] = {}
        self.versions: dict[int, VersionRow] = {}
        self.counts: Counter[Count] = Counter()
        self.last_slice: LastSlice | None = None
        self.connected = False
        self.was_connected = False
        self.trouble = ""
        self.disconnected_since: datetime | None = None
        self.unreadable = 0

    def apply(
        self, address: Address, message: Message | Announcement, received_at: datetime, *, retained: bool = False
    ) -> None:
        """Take in one message; a type that the dashboard does not show changes nothing."""
        edge = EdgeId(address.site, address.edge)
        match message:
            case Diagnosis() | SliceRead():
                self._read(edge, message, received_at)
            case Verdict():
                self._judge(edge, message, received_at)
            case Status():
                self._status(edge, message, received_at, retained)
            case ModelReported():
                self._reported(edge, message, received_at, retained)
            case Announcement():
                self._announced(message, received_at)
            case RetrainStatus() | RetrainResult():
                self._train(message, received_at)

    def set_connected(self, connected: bool, now: datetime, trouble: str = "") -> None:
        """Remember whether the broker is reached, since when it is not, and what stands in the way."""
        self.trouble = plain(trouble, MAX_REASON)
        self.was_connected = self.was_connected or connected
        if connected:
            self.disconnected_since = None
        elif self.connected or self.disconnected_since is None:
            self.disconnected_since = now
        self.connected = connected

    def count_unreadable(self) -> None:
        """Remember that something arrived which is no message of ours."""
        self.unreadable += 1

    def newest_slices(self, limit: int) -> list[SliceRow]:
        """Return the last slices that were read, newest first; one of which only a verdict came is not among them."""
        found: list[SliceRow] = []
        for row in reversed(self.slices.values()):
            if len(found) == limit:
                break
            if row.captured_at is not None:
                found.append(row)
        return found

    def name_of(self, id: EdgeId) -> str:
        """Name an edge as briefly as is clear: without its site where all are of one site."""
        return id.edge if len({known.site for known in self.edges}) <= 1 else str(id)

    def newest_training(self) -> TrainingRow | None:
        """Return the retraining that was heard of last."""
        return next(reversed(self.trainings.values()), None)

    def newest_versions(self) -> list[VersionRow]:
        """Return the model versions, highest first."""
        return sorted(self.versions.values(), key=lambda row: row.version, reverse=True)

    def _read(self, edge: EdgeId, message: Diagnosis | SliceRead, received_at: datetime) -> None:
        key = SliceKey(edge, message.slice_id)
        row = self.slices.get(key) or SliceRow(key, received_at)
        if row.captured_at is None:
            # A verdict came first: the slice is new on the screen now.
            self._count(self.slices.pop(key, None), -1)
            reading = small_reading(message.reading)
            source = plain(message.source)
            row = replace(row, received_at=received_at, captured_at=message.captured_at, source=source, reading=reading)
            self._count(row, +1)
            self._remember(self.slices, key, row, self.bounds.slices)
        if isinstance(message, SliceRead):
            self._picture(row, message)
        self._heard(edge, message, received_at)

    def _picture(self, row: SliceRow, message: SliceRead) -> None:
        if not row.pictured:
            self.last_slice = LastSlice(row.key, message.image)
            self.slices[row.key] = replace(row, pictured=True)

    def _heard(self, id: EdgeId, message: Diagnosis | SliceRead, received_at: datetime) -> None:
        edge = self._edge(id)
        sequence = message.sequence if isinstance(message, SliceRead) else 0
        edge = replace(edge, last_seen=received_at, last_sequence=max(edge.last_sequence, bounded(sequence)))
        self._keep(edge)

    def _judge(self, edge: EdgeId, verdict: Verdict, received_at: datetime) -> None:
        key = SliceKey(edge, verdict.slice_id)
        known = self.slices.get(key)
        row = known or SliceRow(key, received_at, reading=small_reading(verdict.first))
        row = replace(
            row,
            judged=True,
            second=small_reading(verdict.second) if verdict.second else row.second,
            disagreement=verdict.disagreement.kind if verdict.disagreement else row.disagreement,
            review=_later(row.review, verdict.review),
        )
        self._count(known, -1)
        self._count(row, +1)
        self._remember(self.slices, key, row, self.bounds.slices)

    def _count(self, row: SliceRow | None, step: int) -> None:
        for mark in _marks(row):
            self.counts[mark] += step

    def _status(self, id: EdgeId, status: Status, received_at: datetime, retained: bool) -> None:
        edge = self._edge(id)
        if _is_will_of_an_earlier_boot(status, edge):
            return
        said_at = min(status.at, received_at) if retained else received_at
        same_boot = edge.boot_id == status.boot_id
        edge = replace(
            edge,
            state=status.state,
            since=edge.since if same_boot and edge.state == status.state else said_at,
            boot_id=status.boot_id,
            status_at=status.at,
            outbox_depth=bounded(status.outbox_depth),
            outbox_fullness=status.outbox_fullness,
            last_sequence=max(edge.last_sequence if same_boot else 0, bounded(status.last_sequence)),
            problem=plain(status.problem, MAX_REASON),
            guidance=plain(status.guidance, MAX_REASON),
            refusals=tuple(
                (plain(code, MAX_REASON), bounded(count))
                for code, count in sorted(status.refusals.items(), key=lambda item: (-item[1], item[0]))
            ),
            # The broker speaks a will, not the edge: it tells nothing of when the edge was last there.
            last_seen=edge.last_seen if status.state == "lost" else _latest(edge.last_seen, said_at),
        )
        self._keep(edge)
        if status.state == "online":
            self._runs(id, status.model, status.at)

    def _reported(self, id: EdgeId, report: ModelReported, received_at: datetime, retained: bool) -> None:
        edge = self._edge(id)
        if edge.phase_at is not None and report.at < edge.phase_at:
            return
        edge = replace(
            edge,
            phase=report.phase,
            phase_at=report.at,
            desired_version=bounded(report.desired_version),
            chunks_done=bounded(report.chunks_done),
            chunks_total=bounded(report.chunks_total),
            compared=bounded(report.compared),
            last_seen=_latest(edge.last_seen, min(report.at, received_at) if retained else received_at),
        )
        self._keep(edge)
        self._runs(id, report.running, report.at)
        if report.desired_version or report.phase in _REFUSALS:
            self._desired(id, report)

    def _runs(self, id: EdgeId, model: ModelRef | None, at: datetime) -> None:
        edge = self.edges[id]
        if model is None or (edge.running_at is not None and at < edge.running_at):
            return
        version = bounded(model.version)
        self.edges[id] = replace(edge, running_version=version, running_at=at)
        row = self.versions.get(version) or VersionRow(version, at)
        since = _put(row.running_since, id, row.running_since.get(id, at), self.bounds.edges)
        row = replace(row, seen_at=min(row.seen_at, at), name=plain(model.name), running_since=since)
        self._remember(self.versions, version, row, self.bounds.versions)

    def _desired(self, id: EdgeId, report: ModelReported) -> None:
        version = bounded(report.desired_version)
        row = self.versions.get(version) or VersionRow(version, report.at)
        if report.phase in _REFUSALS:
            refusal = Refusal(report.phase, plain(report.reason), report.at)
            row = replace(row, refusals=_put(row.refusals, id, refusal, self.bounds.edges))
        elif report.phase is ModelPhase.ACTIVE:
            row = replace(row, refusals={other: why for other, why in row.refusals.items() if other != id})
        self._remember(self.versions, version, row, self.bounds.versions)

    def _announced(self, announcement: Announcement, received_at: datetime) -> None:
        version = bounded(announcement.version)
        row = self.versions.get(version) or VersionRow(version, received_at, name=plain(announcement.name))
        if row.announced_at is None:
            row = replace(row, announced_at=received_at)
        self._remember(self.versions, version, row, self.bounds.versions)

    def _train(self, message: RetrainStatus | RetrainResult, received_at: datetime) -> None:
        known = self.trainings.get(message.request_id)
        if known is None:
            self.counts["retrain"] += 1
        row = known or TrainingRow(message.request_id, received_at)
        self._remember(self.trainings, message.request_id, _advance(row, message), self.bounds.trainings)

    def _edge(self, id: EdgeId) -> EdgeRow:
        return self.edges.get(id) or EdgeRow(id)

    def _keep(self, edge: EdgeRow) -> None:
        """Keep the edge as the one that was heard last, so that the most silent one is forgotten first."""
        self.edges.pop(edge.id, None)
        self._remember(self.edges, edge.id, edge, self.bounds.edges)

    @staticmethod
    def _remember(rows: dict[RowKey, Row], key: RowKey, row: Row, limit: int) -> None:
        rows[key] = row
        if len(rows) > limit:
            del rows[next(iter(rows))]


_REFUSALS = frozenset({ModelPhase.REJECTED, ModelPhase.ROLLED_BACK})


def _marks(row: SliceRow | None) -> Iterator[Count]:
    """Name what one slice adds to the counts; an uncertain reading counts for no label."""
    if row is None:
        return
    if row.captured_at is not None and row.reading is not None:
        yield "read"
        yield "uncertain" if row.reading.uncertain else row.reading.label
    if row.second is not None:
        yield "second"
    if row.disagreement and row.disagreement != AUDIT:
        yield "disagreement"
    if row.open:
        yield "open"
    if row.review is not None:
        yield "reviewed"


def _is_will_of_an_earlier_boot(status: Status, edge: EdgeRow) -> bool:
    """Say whether the broker speaks for a connection that a later boot of the edge has replaced."""
    replaced = edge.state == "online" and edge.boot_id != status.boot_id
    return status.state == "lost" and replaced and edge.status_at is not None and status.at <= edge.status_at


def _advance(row: TrainingRow, message: RetrainStatus | RetrainResult) -> TrainingRow:
    """Take in a training message unless a later one was there before; the gate's verdict is the last word."""
    if isinstance(message, RetrainResult) and message.verdict:  # whatever the worker's clock says against the trainer's
        return replace(
            row,
            at=message.at,
            outcome=message.outcome,
            outcome_reason=plain(message.reason, MAX_REASON),
            verdict=plain(message.verdict),
            released_version=bounded(message.released_version),
        )
    if row.verdict or (row.at is not None and message.at < row.at):
        return row
    if isinstance(message, RetrainResult):
        reason, seconds = plain(message.reason, MAX_REASON), message.seconds
        return replace(row, at=message.at, outcome=message.outcome, outcome_reason=reason, seconds=seconds)
    return replace(
        row,
        at=message.at,
        phase=message.phase,
        epoch=bounded(message.epoch) or row.epoch,  # exporting has no epoch: the last one stands
        epochs=bounded(message.epochs) or row.epochs,
        fraction=message.fraction,
        loss=message.loss if message.loss is not None else row.loss,
        balanced_accuracy=_known(message.validation_balanced_accuracy, row.balanced_accuracy),
        outcome="",
        outcome_reason="",
    )


def _later(known: ReviewRow | None, new: Review | None) -> ReviewRow | None:
    if new is None or (known is not None and new.at < known.at):
        return known
    return ReviewRow(new.label, plain(new.reviewer), new.at)


def _latest(known: datetime | None, new: datetime) -> datetime:
    return new if known is None else max(known, new)


def _known(new: float | None, old: float | None) -> float | None:
    return old if new is None else new


def _put(rows: Mapping[EdgeId, Row], key: EdgeId, row: Row, limit: int) -> dict[EdgeId, Row]:
    return dict(rows) if key not in rows and len(rows) >= limit else {**rows, key: row}
