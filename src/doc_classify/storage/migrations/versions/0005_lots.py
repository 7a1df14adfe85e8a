"""Lots of a cascade with their samples, and the students that were trained on them.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "students",
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_students")),
    )
    op.create_table(
        "lots",
        sa.Column("id", _Id, nullable=False),
        sa.Column("fingerprint", sa.String(length=16), nullable=False),
        sa.Column("teacher_fingerprint", sa.String(length=16), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("seed", sa.LargeBinary(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("population", sa.BigInteger(), nullable=False),
        sa.Column("known", sa.BigInteger(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("journal", sa.JSON(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lots")),
    )
    op.create_index(op.f("ix_lots_fingerprint_state"), "lots", ["fingerprint", "state"])
    op.create_table(
        "lot_documents",
        sa.Column("lot_id", _Id, nullable=False),
        sa.Column("document_id", _Id, nullable=False),
        sa.Column("file_id", _Id, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=True),
        sa.Column("stage", sa.Integer(), nullable=True),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("guess", sa.Text(), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("again", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["lot_id"], ["lots.id"], name=op.f("fk_lot_documents_lot_id")),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_lot_documents_document_id")
        ),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_lot_documents_file_id")),
        sa.PrimaryKeyConstraint("lot_id", "document_id", name=op.f("pk_lot_documents")),
    )
    op.create_index(
        op.f("ix_lot_documents_lot_id_role_stage"), "lot_documents", ["lot_id", "role", "stage"]
    )
    op.add_column("chunks", sa.Column("job", sa.String(length=16), nullable=True))
    op.create_table(
        "answered_texts",
        sa.Column("fingerprint", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.Column("document_id", _Id, nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_answered_texts_document_id")
        ),
        sa.PrimaryKeyConstraint("fingerprint", "digest", name=op.f("pk_answered_texts")),
    )
