"""Chunks of files that distributed workers claim, and their counts in the run.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table of chunks."""
    op.create_table(
        "chunks",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("entries", sa.Text(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=True),
        sa.Column("sent_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_chunks_run_id")),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_chunks")),
    )
    op.create_index(
        op.f("ix_chunks_state_lease_until"), "chunks", ["state", "lease_until"], unique=False
    )
    for name, kind in (
        ("submitted", sa.BigInteger()),
        ("chunks", sa.Integer()),
        ("chunks_done", sa.Integer()),
    ):
        op.add_column("runs", sa.Column(name, kind, nullable=False, server_default=sa.text("0")))
