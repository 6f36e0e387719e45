"""Descriptions: the cards of nodes and modules."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade to this revision."""
    op.create_table(
        "description",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_hash", sa.String(64), nullable=False),
        sa.Column("code_version", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("wall_time", sa.Double(), nullable=False),
        sa.Column("partition_key", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("n", "n_cards", "n_nodes")),
        sa.Column("modules", sa.JSON(), nullable=False),
        sa.Column("description_sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["partition_key"], ["partition.key"], name="fk_description_partition_key", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["description_sha256"], ["artifact.sha256"], name="fk_description_description_sha256"),
        sa.PrimaryKeyConstraint("key", name="pk_description"),
        sa.UniqueConstraint("id", name="uq_description_id"),
        sa.UniqueConstraint("partition_key", "recipe_hash", name="uq_description_partition_key_recipe_hash"),
    )
    op.create_index("ix_description_description_sha256", "description", ["description_sha256"])


def downgrade() -> None:
    """Return to the revision before."""
    op.drop_table("description")
