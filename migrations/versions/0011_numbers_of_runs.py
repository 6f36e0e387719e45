"""Models keep the largest number that one of their runs has had, so that numbers of removed runs are not used again."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade to this revision."""
    with op.batch_alter_table("model") as table:
        table.add_column(sa.Column("n_runs", sa.Integer(), nullable=True))
    op.execute("UPDATE model SET n_runs = (SELECT coalesce(max(number), 0) FROM run WHERE run.model_key = model.key)")
    with op.batch_alter_table("model") as table:
        table.alter_column("n_runs", existing_type=sa.Integer(), nullable=False)


def downgrade() -> None:
    """Return to the revision before."""
    with op.batch_alter_table("model") as table:
        table.drop_column("n_runs")
