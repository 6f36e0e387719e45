"""Parameter ledgers per checkpoint."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COUNTS = ("nominal", "activations", "jacobians", "gating", "synchronised", "tied", "unexplained", "effective")


def upgrade() -> None:
    """Upgrade to this revision."""
    op.create_table(
        "ledger",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_hash", sa.String(64), nullable=False),
        sa.Column("code_version", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("wall_time", sa.Double(), nullable=False),
        sa.Column("checkpoint_key", sa.Integer(), nullable=False),
        sa.Column("dataset_key", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("lower", sa.BigInteger(), nullable=False),
        sa.Column("upper", sa.BigInteger(), nullable=False),
        sa.Column("soft", sa.Double(), nullable=True),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("tolerance", sa.Double(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("warning", sa.String(), nullable=True),
        sa.Column("layers", sa.JSON(), nullable=False),
        sa.Column("ledger_sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_key"], ["checkpoint.key"], name="fk_ledger_checkpoint_key", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["dataset_key"], ["dataset.key"], name="fk_ledger_dataset_key", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["ledger_sha256"], ["artifact.sha256"], name="fk_ledger_ledger_sha256"),
        sa.PrimaryKeyConstraint("key", name="pk_ledger"),
        sa.UniqueConstraint("id", name="uq_ledger_id"),
        sa.UniqueConstraint(
            "checkpoint_key", "dataset_key", "recipe_hash", name="uq_ledger_checkpoint_key_dataset_key_recipe_hash"
        ),
    )
    op.create_index("ix_ledger_dataset_key", "ledger", ["dataset_key"])
    op.create_index("ix_ledger_ledger_sha256", "ledger", ["ledger_sha256"])


def downgrade() -> None:
    """Return to the revision before."""
    op.drop_table("ledger")
