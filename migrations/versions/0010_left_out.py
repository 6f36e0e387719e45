"""Graphs name the modules that are at no cut; those of before do not know."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade to this revision."""
    with op.batch_alter_table("graph") as table:
        table.add_column(sa.Column("left_out", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Return to the revision before."""
    with op.batch_alter_table("graph") as table:
        table.drop_column("left_out")
