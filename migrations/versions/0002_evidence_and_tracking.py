"""Evidence for partitions, the nodes through which modules interact, and modules over training."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# null in partitions that an older version stored
_EVIDENCE: tuple[tuple[str, Any], ...] = (
    ("epsilons", sa.JSON()),
    ("epsilon_source", sa.String()),
    ("z", sa.Double()),
    ("variation_of_information", sa.Double()),
    ("polished", sa.Boolean()),
    ("warning", sa.String()),
)


def upgrade() -> None:
    """Upgrade to this revision."""
    for name, kind in _EVIDENCE:
        op.add_column("partition", sa.Column(name, kind, nullable=True))
    op.add_column("node_assignment", sa.Column("confidence", sa.Double(), nullable=True))
    _mediator()
    _tracking()


def downgrade() -> None:
    """Return to the revision before."""
    for table in ("tracking_checkpoint", "tracking", "mediator"):
        op.drop_table(table)
    op.drop_column("node_assignment", "confidence")
    for name, _ in _EVIDENCE:
        op.drop_column("partition", name)


def _mediator() -> None:
    """Make the table of nodes of one module that feed another."""
    op.create_table(
        "mediator",
        sa.Column("partition_key", sa.Integer(), nullable=False),
        sa.Column("earlier", sa.Integer(), nullable=False),
        sa.Column("later", sa.Integer(), nullable=False),
        sa.Column("cut", sa.Integer(), nullable=False),
        sa.Column("coordinate", sa.Integer(), nullable=False),
        sa.Column("strength", sa.Double(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sa.Column("gamma", sa.Double(), nullable=True),
        *(
            sa.ForeignKeyConstraint(
                ["partition_key", end],
                ["module.partition_key", "module.index"],
                name=f"fk_mediator_{end}",
                ondelete="CASCADE",
            )
            for end in ("earlier", "later")
        ),
        sa.PrimaryKeyConstraint("partition_key", "earlier", "later", "cut", "coordinate", name="pk_mediator"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_mediator_partition_key_later", "mediator", ["partition_key", "later"])


def _tracking() -> None:
    """Make the tables of modules matched over the checkpoints of a model."""
    op.create_table(
        "tracking",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_hash", sa.String(64), nullable=False),
        sa.Column("code_version", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("wall_time", sa.Double(), nullable=False),
        sa.Column("model_key", sa.Integer(), nullable=False),
        sa.Column("n_checkpoints", sa.Integer(), nullable=False),
        sa.Column("n_tracks", sa.Integer(), nullable=False),
        sa.Column("churn", sa.Double(), nullable=True),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("tracking_sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["model_key"], ["model.key"], name="fk_tracking_model_key", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tracking_sha256"], ["artifact.sha256"], name="fk_tracking_tracking_sha256"),
        sa.PrimaryKeyConstraint("key", name="pk_tracking"),
        sa.UniqueConstraint("id", name="uq_tracking_id"),
        sa.UniqueConstraint("model_key", "recipe_hash", name="uq_tracking_model_key_recipe_hash"),
    )
    op.create_index("ix_tracking_tracking_sha256", "tracking", ["tracking_sha256"])
    op.create_table(
        "tracking_checkpoint",
        sa.Column("tracking_key", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("graph_key", sa.Integer(), nullable=False),
        sa.Column("tracks", sa.JSON(), nullable=False),
        sa.Column("sizes", sa.JSON(), nullable=False),
        sa.Column("churn", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tracking_key"], ["tracking.key"], name="fk_tracking_checkpoint_tracking_key", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["graph_key"], ["graph.key"], name="fk_tracking_checkpoint_graph_key", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tracking_key", "position", name="pk_tracking_checkpoint"),
    )
    op.create_index("ix_tracking_checkpoint_graph_key", "tracking_checkpoint", ["graph_key"])
