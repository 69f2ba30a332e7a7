"""What the cloud remembers: slices, readings, disagreements, labels, retrainings, releases, rollouts and edges."""

from cloud_worker.ledger.audit import AuditRows
from cloud_worker.ledger.batches import BatchRows, Entry, ReportEntry, SliceEntry
from cloud_worker.ledger.database import Database
from cloud_worker.ledger.dead_letters import DeadLetterRows
from cloud_worker.ledger.edges import EdgeRows
from cloud_worker.ledger.errors import (
    AmbiguousSliceError,
    DeadLetterClosedError,
    LedgerError,
    LedgerTooNewError,
    LedgerUnavailableError,
    NaiveTimeError,
    RefusedByLedgerError,
    UnknownDeadLetterError,
    UnknownReleaseError,
    UnknownRequestError,
    UnknownSliceError,
    VersionTakenError,
)
from cloud_worker.ledger.fleet import FleetRows
from cloud_worker.ledger.lineage import LineageRows
from cloud_worker.ledger.records import (
    Candidate,
    DeadLetter,
    DeadLetterState,
    Doubled,
    EdgeRecord,
    Gap,
    LabelledSlice,
    Missing,
    OpenDisagreement,
    Period,
    Pin,
    Release,
    RetrainDecision,
    Rollback,
    Rollout,
    StoredAssignment,
    StoredFrame,
    StoredLabel,
    StoredObject,
    StoredRequest,
    StoredSlice,
    Teacher,
    VerdictParts,
)
from cloud_worker.ledger.retraining import RetrainingRows
from cloud_worker.ledger.review import ReviewRows
from cloud_worker.ledger.slices import SliceRows

__all__ = [
    "AmbiguousSliceError",
    "Candidate",
    "DeadLetter",
    "DeadLetterClosedError",
    "DeadLetterState",
    "Doubled",
    "EdgeRecord",
    "Entry",
    "Gap",
    "LabelledSlice",
    "Ledger",
    "LedgerError",
    "LedgerTooNewError",
    "LedgerUnavailableError",
    "Missing",
    "NaiveTimeError",
    "OpenDisagreement",
    "Period",
    "Pin",
    "RefusedByLedgerError",
    "Release",
    "ReportEntry",
    "RetrainDecision",
    "Rollback",
    "Rollout",
    "SliceEntry",
    "StoredAssignment",
    "StoredFrame",
    "StoredLabel",
    "StoredObject",
    "StoredRequest",
    "StoredSlice",
    "Teacher",
    "UnknownDeadLetterError",
    "UnknownReleaseError",
    "UnknownRequestError",
    "UnknownSliceError",
    "VerdictParts",
    "VersionTakenError",
]


class Ledger(
    BatchRows,
    SliceRows,
    DeadLetterRows,
    ReviewRows,
    RetrainingRows,
    EdgeRows,
    FleetRows,
    LineageRows,
    AuditRows,
    Database,
):
    """The ledger: `with Ledger(url) as ledger` opens it and migrates it to the newest revision.

    Each method is one short transaction; when a write returns, it is on the disk. Times come in as arguments, aware.
    """
