"""First schema: models, checkpoints, datasets, artifacts, graphs, partitions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    "model",
    "dataset",
    "artifact",
    "checkpoint",
    "graph",
    "partition",
    "module",
    "module_link",
    "node_assignment",
)


def _identity(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    """Make the columns of every table whose rows have an ID."""
    return (
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=f"pk_{table}"),
        sa.UniqueConstraint("id", name=f"uq_{table}_id"),
    )


def _provenance() -> tuple[sa.Column[Any], ...]:
    """Make the columns of every result."""
    return (
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_hash", sa.String(64), nullable=False),
        sa.Column("code_version", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("wall_time", sa.Double(), nullable=False),
    )


def _reference(table: str, column: str, target: str, ondelete: str | None = "CASCADE") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=f"fk_{table}_{column}", ondelete=ondelete)


def _module(table: str, column: str) -> sa.ForeignKeyConstraint:
    """Make a reference to a module of the same partition."""
    return sa.ForeignKeyConstraint(
        ["partition_key", column],
        ["module.partition_key", "module.index"],
        name=f"fk_{table}_{column}",
        ondelete="CASCADE",
    )


def upgrade() -> None:
    """Upgrade to this revision."""
    _sources()
    _graph()
    _partition()
    _modules()


def downgrade() -> None:
    """Return to an empty database."""
    for table in reversed(_TABLES):
        op.drop_table(table)


def _sources() -> None:
    """Make the tables of models, checkpoints, datasets and artifacts."""
    op.create_table(
        "model",
        *_identity("model"),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.UniqueConstraint("name", name="uq_model_name"),
    )
    op.create_table(
        "dataset",
        *_identity("dataset"),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.UniqueConstraint("sha256", name="uq_dataset_sha256"),
    )
    op.create_table(
        "artifact",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_artifact"),
    )
    op.create_table(
        "checkpoint",
        *_identity("checkpoint"),
        sa.Column("model_key", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("path", sa.String(), nullable=True),
        _reference("checkpoint", "model_key", "model.key"),
        sa.UniqueConstraint("model_key", "sha256", name="uq_checkpoint_model_key_sha256"),
    )


def _graph() -> None:
    """Make the table of interaction graphs."""
    op.create_table(
        "graph",
        *_identity("graph"),
        *_provenance(),
        sa.Column("checkpoint_key", sa.Integer(), nullable=False),
        sa.Column("dataset_key", sa.Integer(), nullable=False),
        sa.Column("cuts", sa.JSON(), nullable=False),
        sa.Column("widths", sa.JSON(), nullable=False),
        sa.Column("basis", sa.String(), nullable=False),
        sa.Column("strengths", sa.String(), nullable=False),
        sa.Column("n_nodes", sa.BigInteger(), nullable=False),
        sa.Column("n_edges", sa.BigInteger(), nullable=False),
        sa.Column("graph_sha256", sa.String(64), nullable=False),
        sa.Column("bases_sha256", sa.String(64), nullable=True),
        _reference("graph", "checkpoint_key", "checkpoint.key"),
        _reference("graph", "dataset_key", "dataset.key"),
        _reference("graph", "graph_sha256", "artifact.sha256", ondelete=None),
        _reference("graph", "bases_sha256", "artifact.sha256", ondelete=None),
        sa.UniqueConstraint(
            "checkpoint_key",
            "dataset_key",
            "recipe_hash",
            name="uq_graph_checkpoint_key_dataset_key_recipe_hash",
        ),
    )
    for column in ("dataset_key", "graph_sha256", "bases_sha256"):
        op.create_index(f"ix_graph_{column}", "graph", [column])


def _partition() -> None:
    """Make the table of partitions."""
    op.create_table(
        "partition",
        *_identity("partition"),
        *_provenance(),
        sa.Column("graph_key", sa.Integer(), nullable=False),
        sa.Column("n_modules", sa.Integer(), nullable=False),
        sa.Column("edge_cost", sa.Double(), nullable=False),
        sa.Column("mediator_cost", sa.Double(), nullable=False),
        sa.Column("normalised_cost", sa.Double(), nullable=True),
        sa.Column("quality", sa.Double(), nullable=False),
        sa.Column("objective", sa.String(), nullable=False),
        sa.Column("resolution", sa.Double(), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("contrast", sa.Double(), nullable=False),
        sa.Column("description_length", sa.Double(), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("stability", sa.Double(), nullable=True),
        sa.Column("partition_sha256", sa.String(64), nullable=False),
        _reference("partition", "graph_key", "graph.key"),
        _reference("partition", "partition_sha256", "artifact.sha256", ondelete=None),
        sa.UniqueConstraint("graph_key", "recipe_hash", name="uq_partition_graph_key_recipe_hash"),
    )
    op.create_index("ix_partition_partition_sha256", "partition", ["partition_sha256"])


def _modules() -> None:
    """Make the tables of modules, the links between them, and their nodes."""
    op.create_table(
        "module",
        sa.Column("partition_key", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("cuts", sa.JSON(), nullable=False),
        sa.Column("sizes", sa.JSON(), nullable=False),
        sa.Column("inner_cost", sa.Double(), nullable=False),
        sa.Column("outer_cost", sa.Double(), nullable=False),
        _reference("module", "partition_key", "partition.key"),
        sa.PrimaryKeyConstraint("partition_key", "index", name="pk_module"),
    )
    op.create_table(
        "module_link",
        sa.Column("partition_key", sa.Integer(), nullable=False),
        sa.Column("earlier", sa.Integer(), nullable=False),
        sa.Column("later", sa.Integer(), nullable=False),
        sa.Column("n_edges", sa.BigInteger(), nullable=False),
        sa.Column("edge_cost", sa.Double(), nullable=False),
        sa.Column("mediator_cost", sa.Double(), nullable=False),
        _module("module_link", "earlier"),
        _module("module_link", "later"),
        sa.PrimaryKeyConstraint("partition_key", "earlier", "later", name="pk_module_link"),
    )
    op.create_index("ix_module_link_partition_key_later", "module_link", ["partition_key", "later"])
    op.create_table(
        "node_assignment",
        sa.Column("partition_key", sa.Integer(), nullable=False),
        sa.Column("cut", sa.Integer(), nullable=False),
        sa.Column("coordinate", sa.Integer(), nullable=False),
        sa.Column("module", sa.Integer(), nullable=True),
        sa.Column("importance", sa.Double(), nullable=False),
        _reference("node_assignment", "partition_key", "partition.key"),
        _module("node_assignment", "module"),
        sa.PrimaryKeyConstraint("partition_key", "cut", "coordinate", name="pk_node_assignment"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_node_assignment_partition_key_module", "node_assignment", ["partition_key", "module"])
