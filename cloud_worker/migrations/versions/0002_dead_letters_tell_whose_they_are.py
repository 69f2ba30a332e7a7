"""Dead letters tell whose they are and what became of them; quarantined numbers are kept for good."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and table; letters of before are open, and say nothing of themselves."""
    for column in _added():
        op.add_column("dead_letters", column)
    op.create_table(
        "quarantined",
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.String(length=64), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("site", "edge", "kind", "sequence", name=op.f("pk_quarantined")),
    )


def downgrade() -> None:
    """Drop them, with what they say."""
    op.drop_table("quarantined")
    with op.batch_alter_table("dead_letters") as table:
        for column in _added():
            table.drop_column(column.name)


def _added() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("site", sa.String(length=64), nullable=True),
        sa.Column("edge", sa.String(length=64), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=True),
        sa.Column("message_id", sa.String(length=64), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("user_properties", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("state", sa.String(length=16), nullable=False, server_default="open"),
        sa.Column("tries", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("why", sa.Text(), nullable=False, server_default=""),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
    )
