"""Labels of nodes and modules."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade to this revision."""
    op.create_table(
        "label",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("graph_key", sa.Integer(), nullable=False),
        sa.Column("partition", sa.String(80), nullable=True),
        sa.Column("cut", sa.Integer(), nullable=True),
        sa.Column("node", sa.Integer(), nullable=True),
        sa.Column("module", sa.Integer(), nullable=True),
        sa.Column("members", sa.JSON(), nullable=True),
        sa.Column("named_sha256", sa.String(64), nullable=False),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("origin", sa.String(), nullable=True),
        sa.Column("overlap", sa.Double(), nullable=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["graph_key"], ["graph.key"], name="fk_label_graph_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name="pk_label"),
    )
    op.create_index("ix_label_graph_key", "label", ["graph_key"])


def downgrade() -> None:
    """Return to the revision before."""
    op.drop_table("label")
