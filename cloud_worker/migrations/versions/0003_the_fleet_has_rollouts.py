"""The fleet has rollouts, signed rollbacks, pins and assignments; trusted keys are exchanged."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; releases of before have no rollout, and edges that run one go on."""
    op.create_table(
        "rollouts",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("ring", sa.Integer(), nullable=False),
        sa.Column("ring_started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["releases.version"], name=op.f("fk_rollouts_version_releases")),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_rollouts")),
    )
    op.create_table(
        "rollbacks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("returns_from", sa.JSON(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["releases.version"], name=op.f("fk_rollbacks_version_releases")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollbacks")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "pins",
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["releases.version"], name=op.f("fk_pins_version_releases")),
        sa.PrimaryKeyConstraint("site", "edge", name=op.f("pk_pins")),
    )
    op.create_table(
        "assignments",
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("ring", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.Column("progress_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("site", "edge", name=op.f("pk_assignments")),
    )
    op.create_table(
        "key_rotations",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_key_rotations")),
    )


def downgrade() -> None:
    """Drop them, with what they say."""
    op.drop_table("key_rotations")
    op.drop_table("assignments")
    op.drop_table("pins")
    op.drop_table("rollbacks")
    op.drop_table("rollouts")
