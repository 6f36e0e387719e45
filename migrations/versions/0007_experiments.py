"""Circuit experiments per partition."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade to this revision."""
    op.create_table(
        "experiment",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_hash", sa.String(64), nullable=False),
        sa.Column("code_version", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("wall_time", sa.Double(), nullable=False),
        sa.Column("partition_key", sa.Integer(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=True) for name in ("value", "standard_error", "control", "p_value")),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("experiment_sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["partition_key"], ["partition.key"], name="fk_experiment_partition_key", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["experiment_sha256"], ["artifact.sha256"], name="fk_experiment_experiment_sha256"),
        sa.PrimaryKeyConstraint("key", name="pk_experiment"),
        sa.UniqueConstraint("id", name="uq_experiment_id"),
        sa.UniqueConstraint("partition_key", "recipe_hash", name="uq_experiment_partition_key_recipe_hash"),
    )
    op.create_index("ix_experiment_experiment_sha256", "experiment", ["experiment_sha256"])


def downgrade() -> None:
    """Return to the revision before."""
    op.drop_table("experiment")
