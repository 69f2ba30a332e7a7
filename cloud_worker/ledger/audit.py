"""What an audit asks of the ledger: of many rows the exceptions alone leave the database, one after the other."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal, select, type_coerce, union
from sqlalchemy.sql.selectable import Subquery

from cloud_worker.ledger.database import Database
from cloud_worker.ledger.records import Doubled, Missing, Period, StoredObject
from cloud_worker.ledger.tables import UtcDateTime, dead_letters, edges, frames, quarantined, slices
from protocol.ranges import Range, ranges_of
from protocol.topics import Kind

ROWS_AT_ONCE = 1_000
MAX_IDS = 5
"""Slice ids that are told of one doubling."""


class AuditRows(Database):
    """The part of the ledger that finds what is missing and what is there twice."""

    def numbered_edges(self) -> list[tuple[str, str]]:
        """Return site and edge of all that ever spoke."""
        each = union(*(select(table.c.site, table.c.edge).distinct() for table in (edges, slices, quarantined)))
        return [(row["site"], row["edge"]) for row in self.rows(select(each.subquery()).order_by("site", "edge"))]

    def stored_numbers(self, site: str, edge: str, period: Period) -> int:
        """Count the numbers of which there is a slice that was captured in the period."""
        of_edge = _of(site, edge)
        numbers = select(slices.c.sequence).where(of_edge, *_captured_in(period)).group_by(slices.c.sequence)
        return int(self.scalar(select(func.count()).select_from(numbers.subquery())))

    def highest_number(self, site: str, edge: str) -> tuple[int, datetime] | None:
        """Return an edge's highest stored number, and when that slice was captured."""
        query = select(slices.c.sequence, slices.c.captured_at).where(_of(site, edge))
        found = self.rows(query.order_by(slices.c.sequence.desc(), slices.c.captured_at).limit(1))
        return (found[0]["sequence"], found[0]["captured_at"]) if found else None

    def missing_numbers(self, site: str, edge: str) -> Iterator[Missing]:
        """Yield the numbers below the highest stored one of which there is no slice, ascending."""
        numbers = _numbers(site, edge)
        previous = func.lag(numbers.c.sequence).over(order_by=numbers.c.sequence)
        previous_at = func.lag(numbers.c.captured_at).over(order_by=numbers.c.sequence)
        pairs = select(
            numbers.c.sequence,
            numbers.c.captured_at,
            func.coalesce(previous, literal(0)).label("previous"),
            type_coerce(previous_at, UtcDateTime).label("previous_at"),
        ).subquery()
        query = select(pairs).where(pairs.c.sequence > pairs.c.previous + 1).order_by(pairs.c.sequence)
        for row in self._each(query):
            yield Missing(row["previous"] + 1, row["sequence"] - 1, row["previous_at"], row["captured_at"])

    def quarantined_numbers(self, site: str, edge: str, kind: Kind) -> Iterator[Range]:
        """Yield the numbers of which a message of this kind was quarantined, ascending."""
        of_kind = and_(quarantined.c.site == site, quarantined.c.edge == edge, quarantined.c.kind == kind)
        query = select(quarantined.c.sequence).where(of_kind).order_by(quarantined.c.sequence)
        return ranges_of(row["sequence"] for row in self._each(query))

    def numbers_without_original(self, site: str, edge: str, period: Period) -> Iterator[Range]:
        """Yield the numbers of slices that promise an original of which none came, ascending."""
        came = exists().where(frames.c.slice_id == slices.c.slice_id)
        promised = and_(_of(site, edge), slices.c.frame_omitted == "", *_captured_in(period))
        query = select(slices.c.sequence).where(promised, ~came).order_by(slices.c.sequence)
        return ranges_of(row["sequence"] for row in self._each(query))

    def doubled_numbers(self, site: str, edge: str, period: Period) -> Iterator[Doubled]:
        """Yield the numbers under which there are several slices."""
        query = _several(period).where(_of(site, edge)).group_by(slices.c.sequence).order_by(slices.c.sequence)
        for row in self._each(query):
            ids = select(slices.c.slice_id).where(_of(site, edge), slices.c.sequence == row["sequence"])
            yield self._doubled("number", row, ids)

    def doubled_captures(self, site: str, edge: str, period: Period) -> Iterator[Doubled]:
        """Yield the captures of which there are slices under several numbers."""
        capture = (slices.c.captured_at, slices.c.frame_sha256)
        several = _several(period).add_columns(slices.c.frame_sha256).where(_of(site, edge)).group_by(*capture)
        query = several.having(func.min(slices.c.sequence) < func.max(slices.c.sequence)).order_by(slices.c.captured_at)
        for row in self._each(query):
            same = (slices.c.captured_at == row["captured_at"], slices.c.frame_sha256 == row["frame_sha256"])
            yield self._doubled("capture", row, select(slices.c.slice_id).where(_of(site, edge), *same))

    def unnumbered_letters(self, site: str, edge: str, period: Period) -> int:
        """Count the quarantined slices that did not say their number, by when they came."""
        letter, at = dead_letters.c, _in_period(dead_letters.c.at, period)
        of_edge = (letter.site == site, letter.edge == edge, letter.kind == Kind.SLICE, letter.sequence.is_(None))
        query = select(func.count()).select_from(dead_letters).where(*of_edge, letter.state != "replayed", *at)
        return int(self.scalar(query))

    def count_objects(self, site: str, edge: str, period: Period) -> int:
        """Count what `stored_objects` yields."""
        parts = [select(func.count()).select_from(query.subquery()) for query in _objects(site, edge, period)]
        return sum(int(self.scalar(part)) for part in parts)

    def stored_objects(self, site: str, edge: str, period: Period) -> Iterator[StoredObject]:
        """Yield the objects of an edge's slices, and then those of their originals."""
        for query in _objects(site, edge, period):
            for row in self._each(query):
                yield StoredObject(row["key"], row["sha256"], row["slice_id"])

    def _each(self, query: Select[Any]) -> Iterator[dict[str, Any]]:
        with self.read() as connection:
            found = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query)
            for row in found.mappings():
                yield dict(row)

    def _doubled(self, what: Any, row: dict[str, Any], ids: Select[Any]) -> Doubled:
        some = self.rows(ids.order_by(slices.c.slice_id).limit(MAX_IDS))
        told = tuple(each["slice_id"] for each in some)
        return Doubled(what, row["sequence"], row["count"], told, row["captured_at"])


def _of(site: str, edge: str) -> ColumnElement[bool]:
    return and_(slices.c.site == site, slices.c.edge == edge)


def _numbers(site: str, edge: str) -> Subquery:
    """Return each number once, with the earliest time at which a slice of it was captured."""
    first_at = func.min(slices.c.captured_at).label("captured_at")
    return select(slices.c.sequence, first_at).where(_of(site, edge)).group_by(slices.c.sequence).subquery()


def _several(period: Period) -> Select[Any]:
    """Select groups of more than one slice of which one was captured in the period; the caller says what a group is."""
    first_at, last_at = func.min(slices.c.captured_at), func.max(slices.c.captured_at)
    counted = func.count().label("count")
    sequence = func.min(slices.c.sequence).label("sequence")
    query = select().add_columns(sequence, first_at.label("captured_at"), counted)
    bounds = []
    if period.since is not None:
        bounds.append(last_at >= period.since)
    if period.until is not None:
        bounds.append(first_at < period.until)
    return query.having(func.count() > 1, *bounds)


def _objects(site: str, edge: str, period: Period) -> tuple[Select[Any], Select[Any]]:
    chosen = (_of(site, edge), *_captured_in(period))
    images = select(slices.c.slice_id, slices.c.image_key.label("key"), slices.c.image_sha256.label("sha256"))
    originals = select(slices.c.slice_id, frames.c.frame_key.label("key"), frames.c.sha256)
    return (
        images.where(*chosen),
        originals.join(frames, frames.c.slice_id == slices.c.slice_id).where(*chosen),
    )


def _captured_in(period: Period) -> list[ColumnElement[bool]]:
    return _in_period(slices.c.captured_at, period)


def _in_period(column: Any, period: Period) -> list[ColumnElement[bool]]:
    bounds = []
    if period.since is not None:
        bounds.append(column >= period.since)
    if period.until is not None:
        bounds.append(column < period.until)
    return bounds
