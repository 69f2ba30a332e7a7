"""Retrain decisions, requests, candidates and releases."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, insert, select, update

from cloud_worker.ledger.database import Database, insert_once
from cloud_worker.ledger.errors import UnknownReleaseError, UnknownRequestError, VersionTakenError
from cloud_worker.ledger.records import Candidate, Release, RetrainDecision, StoredRequest
from cloud_worker.ledger.tables import candidates, releases, retrain_decisions, retrain_requests, rollouts
from protocol.messages import RetrainRequest, RetrainResult, UploadedFile


class RetrainingRows(Database):
    """The part of the ledger that the retrain policy, the gate and the release write."""

    def record_decision(self, at: datetime, fired: bool, reason: str, new_labels: int) -> bool:
        """Record why the policy fired or did not, when that changed; return whether it did."""
        newest = select(retrain_decisions).order_by(retrain_decisions.c.id.desc()).limit(1)
        with self.write() as connection:
            last = connection.execute(newest).one_or_none()
            if last is not None and (last.fired, last.reason) == (fired, reason):
                return False
            row = {"at": at, "fired": fired, "reason": reason, "new_labels": new_labels}
            connection.execute(insert(retrain_decisions).values(row))
            return True

    def decisions(self, limit: int | None = None) -> list[RetrainDecision]:
        """Return the decisions, oldest first; the newest ones when there is a limit."""
        query = select(retrain_decisions).order_by(retrain_decisions.c.id.desc()).limit(limit)
        return [RetrainDecision(**row) for row in reversed(self.rows(query))]

    def open_request(self, request: RetrainRequest, *, dataset_key: str, labels_used: int) -> bool:
        """Store a request before it is published; return False when one is open already: one at a time."""
        row = {
            "request_id": request.request_id,
            "requested_at": request.requested_at,
            "reason": request.reason,
            "base_version": request.base_version,
            "dataset_sha256": request.dataset_sha256,
            "dataset_key": dataset_key,
            "labels_used": labels_used,
            "message": request.model_dump(mode="json"),
            "state": "open",
        }
        with self.write() as connection:
            return insert_once(connection, retrain_requests, row)

    def request(self, request_id: str) -> StoredRequest:
        """Return the request of this id; raises `UnknownRequestError`."""
        found = self.rows(select(retrain_requests).where(retrain_requests.c.request_id == request_id))
        if not found:
            raise UnknownRequestError(request_id)
        return _request(found[0])

    def requests(self) -> list[StoredRequest]:
        """Return all requests, oldest first."""
        return [_request(row) for row in self.rows(select(retrain_requests).order_by(retrain_requests.c.requested_at))]

    def requests_open(self) -> list[StoredRequest]:
        """Return the requests that have neither a candidate nor failed."""
        return [request for request in self.requests() if request.state == "open"]

    def last_request_at(self) -> datetime | None:
        """Return when retraining was last asked for, whatever came of it."""
        query = select(retrain_requests.c.requested_at).order_by(retrain_requests.c.requested_at.desc()).limit(1)
        asked_at: datetime | None = self.scalar(query)
        return asked_at

    def touch_request(
        self,
        request_id: str,
        *,
        published_at: datetime | None = None,
        heard_at: datetime | None = None,
        message: RetrainRequest | None = None,
    ) -> None:
        """Remember that a request was published (again, with fresh URLs) or that its trainer was heard."""
        given = {
            "last_published_at": published_at,
            "last_heard_at": heard_at,
            "message": message.model_dump(mode="json") if message else None,
        }
        self._update_request(request_id, {name: value for name, value in given.items() if value is not None})

    def close_request(self, request_id: str, state: Literal["candidate", "failed"], at: datetime) -> bool:
        """Close an open request; return False when it is closed already."""
        return self._update_request(request_id, {"state": state, "closed_at": at}, only_open=True)

    def add_candidate(self, result: RetrainResult, received_at: datetime) -> bool:
        """Store a candidate and close its request; return False when it came before. Raises `UnknownRequestError`."""
        with self.write() as connection:
            asked = retrain_requests.c.request_id == result.request_id
            if connection.execute(select(retrain_requests.c.request_id).where(asked)).first() is None:
                raise UnknownRequestError(result.request_id)
            new = insert_once(connection, candidates, _candidate_row(result, received_at))
            if new:
                closed = {"state": "candidate", "closed_at": received_at, "last_heard_at": received_at}
                connection.execute(update(retrain_requests).where(asked).values(closed))
            return new

    def decide_candidate(
        self,
        request_id: str,
        verdict: Literal["accepted", "refused"],
        reason: str,
        gate: Mapping[str, Any] | None,
        at: datetime,
    ) -> bool:
        """Record what the gate said of a pending candidate; return False when it is decided already."""
        pending = (candidates.c.request_id == request_id) & (candidates.c.verdict == "pending")
        values = {"verdict": verdict, "reason": reason, "gate": dict(gate) if gate else None, "decided_at": at}
        with self.write() as connection:
            return connection.execute(update(candidates).where(pending).values(values)).rowcount == 1

    def refuse_accepted(self, request_id: str, reason: str, at: datetime) -> bool:
        """Record that an accepted candidate is not released after all; return False when it is not accepted."""
        accepted = (candidates.c.request_id == request_id) & (candidates.c.verdict == "accepted")
        values = {"verdict": "refused", "reason": reason, "decided_at": at}
        with self.write() as connection:
            return connection.execute(update(candidates).where(accepted).values(values)).rowcount == 1

    def candidates(self) -> list[Candidate]:
        """Return all candidates, oldest first."""
        query = select(candidates).order_by(candidates.c.received_at)
        return [_candidate(row) for row in self.rows(query)]

    def pending_candidates(self) -> list[Candidate]:
        """Return the candidates on which the gate has not decided, oldest first."""
        return [candidate for candidate in self.candidates() if candidate.verdict == "pending"]

    def accepted_unreleased(self) -> list[Candidate]:
        """Return the candidates that the gate accepted and that no release came of, oldest first."""
        released = {release.request_id for release in self.releases()}
        return [each for each in self.candidates() if each.verdict == "accepted" and each.request_id not in released]

    def add_release(self, release: Release) -> None:
        """Store a release; raises `VersionTakenError`, also when its request is released already."""
        row = asdict(release)
        with self.write() as connection:
            if not insert_once(connection, releases, row):
                raise VersionTakenError(release.version)

    def releases(self) -> list[Release]:
        """Return all releases, oldest first."""
        return [Release(**row) for row in self.rows(select(releases).order_by(releases.c.version))]

    def release(self, version: int) -> Release:
        """Return the release of this version; raises `UnknownReleaseError`."""
        rows = self.rows(select(releases).where(releases.c.version == version))
        if not rows:
            raise UnknownReleaseError(version)
        return Release(**rows[0])

    def standing_release(self) -> Release | None:
        """Return the release of the highest version that was neither withdrawn nor aborted."""
        fallen = select(rollouts.c.version).where(rollouts.c.state.in_(("withdrawn", "aborted")))
        query = select(releases).where(releases.c.version.not_in(fallen))
        rows = self.rows(query.order_by(releases.c.version.desc()).limit(1))
        return Release(**rows[0]) if rows else None

    def latest_release(self) -> Release | None:
        """Return the release of the highest version."""
        rows = self.rows(select(releases).order_by(releases.c.version.desc()).limit(1))
        return Release(**rows[0]) if rows else None

    def next_version(self) -> int:
        """Return the version that the next release takes: versions only grow."""
        return int(self.scalar(select(func.coalesce(func.max(releases.c.version), 0)))) + 1

    def _update_request(self, request_id: str, values: dict[str, Any], only_open: bool = False) -> bool:
        change = update(retrain_requests).where(retrain_requests.c.request_id == request_id)
        if only_open:
            change = change.where(retrain_requests.c.state == "open")
        with self.write() as connection:
            return connection.execute(change.values(values)).rowcount == 1


def _request(row: dict[str, Any]) -> StoredRequest:
    return StoredRequest(**{**row, "message": RetrainRequest.model_validate(row["message"])})


def _candidate_row(result: RetrainResult, received_at: datetime) -> dict[str, Any]:
    return {
        "request_id": result.request_id,
        "received_at": received_at,
        "architecture": result.architecture,
        "temperature": result.temperature,
        "files": {name: file.model_dump(mode="json") for name, file in result.files.items()},
        "validation": dict(result.validation),
        "training_data_sha256": result.training_data_sha256,
        "split_sha256": result.split_sha256,
        "verdict": "pending",
        "reason": result.reason,
    }


def _candidate(row: dict[str, Any]) -> Candidate:
    files = {name: UploadedFile.model_validate(file) for name, file in row["files"].items()}
    return Candidate(**{**row, "files": files})
