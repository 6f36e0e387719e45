"""Partitions say how far their numbers hold; those of before do not know."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade to this revision."""
    with op.batch_alter_table("partition") as table:
        table.add_column(sa.Column("remarks", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Return to the revision before."""
    with op.batch_alter_table("partition") as table:
        table.drop_column("remarks")
