"""What LLMs were asked, in calls and tokens.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = ("llm_calls", "prompt_tokens", "cached_tokens", "completion_tokens")


def upgrade() -> None:
    """Add the counts to results, and their sums to runs."""
    for name in _COLUMNS:
        op.add_column("results", sa.Column(name, sa.Integer(), nullable=True))
        op.add_column(
            "runs", sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        )
