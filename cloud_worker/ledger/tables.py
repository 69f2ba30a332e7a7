"""The tables of the ledger, as the newest migration leaves them."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

from cloud_worker.ledger.errors import NaiveTimeError


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC, in and out: SQLite drops the time zone, PostgreSQL answers in that of its session."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Refuse naive values, whose meaning would depend on the machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise NaiveTimeError(value)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Say UTC where the database does not."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

JsonOrNull = JSON(none_as_null=True)

slices = Table(
    "slices",
    metadata,
    Column("slice_id", String(64), primary_key=True),
    Column("message_id", String(64), nullable=False, unique=True),
    Column("site", String(64), nullable=False),
    Column("edge", String(64), nullable=False),
    Column("boot_id", String(64), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("captured_at", UtcDateTime, nullable=False),
    Column("received_at", UtcDateTime, nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("patient_key", String(64), nullable=False),
    Column("preprocessing_version", Integer, nullable=False),
    Column("image_key", Text, nullable=False),
    Column("image_sha256", String(64), nullable=False),
    Column("frame_sha256", String(64), nullable=False),
    Column("frame_omitted", Text, nullable=False),
    # not unique: an edge whose data folder was lost begins anew, and refusing its slices would lose them; audits tell
    Index(None, "site", "edge", "sequence"),
)

frames = Table(
    "frames",
    metadata,
    Column("message_id", String(64), primary_key=True),
    # no foreign key: a frame may come before its slice, or without it
    Column("slice_id", String(64), nullable=False, index=True),
    Column("sha256", String(64), nullable=False),
    Column("frame_key", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
)

readings = Table(
    "readings",
    metadata,
    Column("slice_id", ForeignKey("slices.slice_id"), nullable=False),
    Column("reader", String(16), nullable=False),
    Column("label", String(32), nullable=False),
    Column("uncertain", Boolean, nullable=False),
    Column("probabilities", JSON, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Integer, nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("slice_id", "reader"),
)

disagreements = Table(
    "disagreements",
    metadata,
    Column("slice_id", ForeignKey("slices.slice_id"), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
)

labels = Table(
    "labels",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("slice_id", ForeignKey("slices.slice_id"), nullable=False, index=True),
    Column("label", String(32), nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("published_at", UtcDateTime),
    sqlite_autoincrement=True,
)

retrain_decisions = Table(
    "retrain_decisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("fired", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("new_labels", Integer, nullable=False),
    sqlite_autoincrement=True,
)

retrain_requests = Table(
    "retrain_requests",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("last_published_at", UtcDateTime),
    Column("last_heard_at", UtcDateTime),
    Column("reason", Text, nullable=False),
    Column("base_version", Integer, nullable=False),
    Column("dataset_sha256", String(64), nullable=False),
    Column("dataset_key", Text, nullable=False),
    Column("labels_used", Integer, nullable=False),
    Column("message", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("closed_at", UtcDateTime),
)
# one at a time, whatever two workers decide in the same moment
Index(
    "uq_retrain_requests_open",
    retrain_requests.c.state,
    unique=True,
    sqlite_where=text("state = 'open'"),
    postgresql_where=text("state = 'open'"),
)

candidates = Table(
    "candidates",
    metadata,
    Column("request_id", ForeignKey("retrain_requests.request_id"), primary_key=True),
    Column("received_at", UtcDateTime, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("temperature", Float, nullable=False),
    Column("files", JSON, nullable=False),
    Column("validation", JSON, nullable=False),
    Column("training_data_sha256", String(64)),
    Column("split_sha256", String(64)),
    Column("gate", JsonOrNull),
    Column("verdict", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_at", UtcDateTime),
)

releases = Table(
    "releases",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("architecture", Text, nullable=False),
    Column("released_at", UtcDateTime, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("files", JSON, nullable=False),
    Column("checkpoint_key", Text, nullable=False),
    Column("checkpoint_sha256", String(64), nullable=False),
    # the first release has no request; a second release from one request would be a mistake
    Column("request_id", ForeignKey("retrain_requests.request_id"), unique=True),
    Column("gate", JsonOrNull),
)

edges = Table(
    "edges",
    metadata,
    Column("site", String(64), nullable=False),
    Column("edge", String(64), nullable=False),
    Column("status", JsonOrNull),
    Column("status_at", UtcDateTime),
    Column("reported", JsonOrNull),
    Column("reported_at", UtcDateTime),
    PrimaryKeyConstraint("site", "edge"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    # what topic and user properties say, where they say it
    Column("site", String(64)),
    Column("edge", String(64)),
    Column("kind", String(32)),
    Column("message_id", String(64)),
    Column("sequence", BigInteger),
    Column("user_properties", JSON, nullable=False, server_default="[]"),
    Column("state", String(16), nullable=False, server_default="open"),
    Column("tries", Integer, nullable=False, server_default="1"),
    Column("why", Text, nullable=False, server_default=""),
    Column("closed_at", UtcDateTime),
    sqlite_autoincrement=True,
)

# Which numbers were quarantined, for good: the dead letters themselves are bounded, and an audit must not call lost
# what lies in the object store. Unlike those of slices, its numbers are few.
quarantined = Table(
    "quarantined",
    metadata,
    Column("site", String(64), nullable=False),
    Column("edge", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("message_id", String(64)),
    Column("sha256", String(64), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("site", "edge", "kind", "sequence"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("version", ForeignKey("releases.version"), primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("ring", Integer, nullable=False),
    Column("ring_started_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
)

# Manifests of a release that take edges back to it; those of before stay, and the newest one counts.
rollbacks = Table(
    "rollbacks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", ForeignKey("releases.version"), nullable=False),
    Column("returns_from", JSON, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

pins = Table(
    "pins",
    metadata,
    Column("site", String(64), nullable=False),
    Column("edge", String(64), nullable=False),
    Column("version", ForeignKey("releases.version"), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("site", "edge"),
)

# The newest of each edge. Version 0, without an envelope: nothing is assigned any more; the sequence goes on.
assignments = Table(
    "assignments",
    metadata,
    Column("site", String(64), nullable=False),
    Column("edge", String(64), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("ring", Text, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("issued_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("told_at", UtcDateTime, nullable=False),
    # what the edge last reported of its way there, and since when it reports that
    Column("progress", Text, nullable=False),
    Column("progress_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("site", "edge"),
)

key_rotations = Table(
    "key_rotations",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)
