"""Comparisons of divisions."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade to this revision."""
    counts = ("n_nodes", "only_first", "only_second", "left_out")
    numbers = ("ami", "ari", "ami_by_chance", "ari_by_chance", "p_value", "ari_p_value")
    op.create_table(
        "comparison",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_hash", sa.String(64), nullable=False),
        sa.Column("code_version", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("wall_time", sa.Double(), nullable=False),
        sa.Column("partition_key", sa.Integer(), nullable=False),
        sa.Column("other_key", sa.Integer(), nullable=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("name", "matched_by")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        *(sa.Column(name, sa.Double(), nullable=False) for name in numbers),
        sa.Column("z", sa.Double(), nullable=True),
        sa.Column("n_permutations", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("verdict", "reason")),
        sa.Column("matches", sa.JSON(), nullable=False),
        sa.Column("comparison_sha256", sa.String(64), nullable=False),
        *(
            sa.ForeignKeyConstraint([name], ["partition.key"], name=f"fk_comparison_{name}", ondelete="CASCADE")
            for name in ("partition_key", "other_key")
        ),
        sa.ForeignKeyConstraint(["comparison_sha256"], ["artifact.sha256"], name="fk_comparison_comparison_sha256"),
        sa.PrimaryKeyConstraint("key", name="pk_comparison"),
        sa.UniqueConstraint("id", name="uq_comparison_id"),
        sa.UniqueConstraint("partition_key", "recipe_hash", name="uq_comparison_partition_key_recipe_hash"),
    )
    op.create_index("ix_comparison_comparison_sha256", "comparison", ["comparison_sha256"])
    op.create_index("ix_comparison_other_key", "comparison", ["other_key"])


def downgrade() -> None:
    """Return to the revision before."""
    op.drop_table("comparison")
