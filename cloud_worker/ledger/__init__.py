"""What the cloud remembers of every slice, reading, disagreement, label, retraining, release and edge."""

from cloud_worker.ledger.batches import BatchRows, Entry, FrameEntry, ReportEntry, SliceEntry
from cloud_worker.ledger.database import Database
from cloud_worker.ledger.edges import EdgeRows
from cloud_worker.ledger.errors import (
    AmbiguousSliceError,
    LedgerError,
    LedgerTooNewError,
    LedgerUnavailableError,
    NaiveTimeError,
    RefusedByLedgerError,
    UnknownRequestError,
    UnknownSliceError,
    VersionTakenError,
)
from cloud_worker.ledger.records import (
    Candidate,
    DeadLetter,
    EdgeRecord,
    Gap,
    LabelledSlice,
    OpenDisagreement,
    Release,
    RetrainDecision,
    StoredFrame,
    StoredLabel,
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
    "EdgeRecord",
    "Entry",
    "FrameEntry",
    "Gap",
    "LabelledSlice",
    "Ledger",
    "LedgerError",
    "LedgerTooNewError",
    "LedgerUnavailableError",
    "NaiveTimeError",
    "OpenDisagreement",
    "RefusedByLedgerError",
    "Release",
    "ReportEntry",
    "RetrainDecision",
    "SliceEntry",
    "StoredFrame",
    "StoredLabel",
    "StoredRequest",
    "StoredSlice",
    "UnknownRequestError",
    "UnknownSliceError",
    "VerdictParts",
    "VersionTakenError",
]


class Ledger(BatchRows, SliceRows, ReviewRows, RetrainingRows, EdgeRows, Database):
    """The ledger: `with Ledger(url) as ledger` opens it and migrates it to the newest revision.

    Each method is one short transaction; when a write returns, it is on the disk. Times come in as arguments, aware.
    """
