"""What the cloud remembers of every slice, reading, disagreement, label, retraining, release and edge."""

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
    UnknownRequestError,
    UnknownSliceError,
    VersionTakenError,
)
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
    Release,
    RetrainDecision,
    StoredFrame,
    StoredLabel,
    StoredObject,
    StoredRequest,
    StoredSlice,
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
    "RefusedByLedgerError",
    "Release",
    "ReportEntry",
    "RetrainDecision",
    "SliceEntry",
    "StoredFrame",
    "StoredLabel",
    "StoredObject",
    "StoredRequest",
    "StoredSlice",
    "UnknownDeadLetterError",
    "UnknownRequestError",
    "UnknownSliceError",
    "VerdictParts",
    "VersionTakenError",
]


class Ledger(BatchRows, SliceRows, DeadLetterRows, ReviewRows, RetrainingRows, EdgeRows, AuditRows, Database):
    """The ledger: `with Ledger(url) as ledger` opens it and migrates it to the newest revision.

    Each method is one short transaction; when a write returns, it is on the disk. Times come in as arguments, aware.
    """
