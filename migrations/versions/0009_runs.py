"""Runs between models and checkpoints: every model gets one, with all its checkpoints and trackings."""

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_MODEL = sa.table(
    "model",
    *(sa.column(name) for name in ("key", "created", "name", "family")),
    sa.column("config", sa.JSON()),
)
_RUN = sa.table(
    "run",
    *(sa.column(name) for name in ("key", "id", "created", "model_key", "number", "family")),
    sa.column("config", sa.JSON()),
)


def upgrade() -> None:
    """Upgrade to this revision."""
    op.create_table(
        "run",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_key", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["model_key"], ["model.key"], name="fk_run_model_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name="pk_run"),
        sa.UniqueConstraint("id", name="uq_run_id"),
        sa.UniqueConstraint("model_key", "number", name="uq_run_model_key_number"),
        sa.UniqueConstraint("model_key", "label", name="uq_run_model_key_label"),
    )
    _make_runs()
    for name, column in (("checkpoint", "sha256"), ("tracking", "recipe_hash")):
        _move(name, column, "model", "run", f"SELECT run.key FROM run WHERE run.model_key = {name}.model_key")


def downgrade() -> None:
    """Return to the revision before; refused by the database where two runs of a model have the same file."""
    for name, column in (("tracking", "recipe_hash"), ("checkpoint", "sha256")):
        _move(name, column, "run", "model", f"SELECT run.model_key FROM run WHERE run.key = {name}.run_key")
    op.drop_table("run")


def _make_runs() -> None:
    connection = op.get_bind()
    taken: set[str] = set()
    for row in connection.execute(sa.select(_MODEL).order_by(_MODEL.c.key)).all():
        identifier = _identifier(row.name, taken)
        taken.add(identifier)
        values: dict[str, Any] = {"id": identifier, "created": row.created, "model_key": row.key, "number": 1}
        connection.execute(_RUN.insert().values(**values, family=row.family, config=row.config))


def _identifier(model: str, taken: set[str]) -> str:
    """Return the ID that the first run of a model with this name would have."""
    digest = hashlib.sha256(f"run\0{model}\0001".encode()).hexdigest()
    return next(f"r-{digest[:n]}" for n in range(8, 65) if f"r-{digest[:n]}" not in taken)


def _move(name: str, column: str, before: str, after: str, owner: str) -> None:
    """Let the rows of a table belong to another one: `owner` selects the key of the new owner of each row."""
    with op.batch_alter_table(name) as table:
        table.add_column(sa.Column(f"{after}_key", sa.Integer(), nullable=True))
    op.execute(f"UPDATE {name} SET {after}_key = ({owner})")
    with op.batch_alter_table(name) as table:
        table.alter_column(f"{after}_key", existing_type=sa.Integer(), nullable=False)
        table.drop_constraint(f"uq_{name}_{before}_key_{column}", type_="unique")
        table.drop_constraint(f"fk_{name}_{before}_key", type_="foreignkey")
        table.drop_column(f"{before}_key")
        table.create_unique_constraint(f"uq_{name}_{after}_key_{column}", [f"{after}_key", column])
        table.create_foreign_key(f"fk_{name}_{after}_key", after, [f"{after}_key"], ["key"], ondelete="CASCADE")
