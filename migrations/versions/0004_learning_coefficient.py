"""Learning coefficients per checkpoint."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NUMBERS = ("value", "standard_error", "lower", "upper", "epsilon", "temperature")


def upgrade() -> None:
    """Upgrade to this revision."""
    op.create_table(
        "llc_estimate",
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
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("loss", sa.String(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=True) for name in _NUMBERS),
        sa.Column("n_parameters", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("r_hat", sa.Double(), nullable=True),
        sa.Column("ess", sa.Double(), nullable=True),
        sa.Column("kernel", sa.String(), nullable=False),
        sa.Column("preconditioner", sa.String(), nullable=False),
        sa.Column("points", sa.JSON(), nullable=False),
        sa.Column("llc_sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_key"], ["checkpoint.key"], name="fk_llc_estimate_checkpoint_key", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["dataset_key"], ["dataset.key"], name="fk_llc_estimate_dataset_key", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["llc_sha256"], ["artifact.sha256"], name="fk_llc_estimate_llc_sha256"),
        sa.PrimaryKeyConstraint("key", name="pk_llc_estimate"),
        sa.UniqueConstraint("id", name="uq_llc_estimate_id"),
        sa.UniqueConstraint(
            "checkpoint_key",
            "dataset_key",
            "recipe_hash",
            name="uq_llc_estimate_checkpoint_key_dataset_key_recipe_hash",
        ),
    )
    op.create_index("ix_llc_estimate_dataset_key", "llc_estimate", ["dataset_key"])
    op.create_index("ix_llc_estimate_llc_sha256", "llc_estimate", ["llc_sha256"])


def downgrade() -> None:
    """Return to the revision before."""
    op.drop_table("llc_estimate")
