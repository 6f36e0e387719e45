"""What partitions and experiments show, in words; analyses that were asked for keep the output basis they meant."""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_PARTITION = sa.table(
    "partition",
    *(sa.column(name) for name in ("n_modules", "p_value", "verdict", "reason")),
)
_JOB = sa.table(
    "job", *(sa.column(name) for name in ("key", "task", "target", "digest")), sa.column("choices", sa.JSON())
)
_SCHEDULE = sa.table("schedule", sa.column("key"), sa.column("task"), sa.column("choices", sa.JSON()))
_CHECKPOINT = sa.table("checkpoint", sa.column("id"), sa.column("sha256"))


def upgrade() -> None:
    """To this revision."""
    for name in ("partition", "experiment"):
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("verdict", sa.String(), nullable=True))
            table.add_column(sa.Column("reason", sa.String(), nullable=True))
    _judge()
    _name_output()


def downgrade() -> None:
    """Back to the revision before; choices that name what was meant stay as they are."""
    for name in ("experiment", "partition"):
        with op.batch_alter_table(name) as table:
            table.drop_column("reason")
            table.drop_column("verdict")


def _judge() -> None:
    """The verdicts that are sure from what is stored; others stay unknown."""
    one = _PARTITION.c.n_modules == 1
    said = {"verdict": "one module", "reason": "all nodes are in one module"}
    op.execute(_PARTITION.update().where(one).values(**said))
    said = {"verdict": "untested", "reason": "it was not compared with divisions of random graphs"}
    op.execute(_PARTITION.update().where(~one, _PARTITION.c.p_value.is_(None)).values(**said))


def _name_output() -> None:
    """Analyses that name no output basis meant "pca", the default when they were asked for.

    Jobs that have ended change too: they may be retried, and the same choices, given now, are other work.
    """
    connection = op.get_bind()
    for row in connection.execute(sa.select(_SCHEDULE).where(_SCHEDULE.c.task == "analyze")).all():
        if row.choices.get("output") is None:
            chosen = {**row.choices, "output": "pca"}
            connection.execute(_SCHEDULE.update().where(_SCHEDULE.c.key == row.key).values(choices=chosen))
    hashes = dict(connection.execute(sa.select(_CHECKPOINT.c.id, _CHECKPOINT.c.sha256)).all())
    for row in connection.execute(sa.select(_JOB).where(_JOB.c.task == "analyze")).all():
        if row.choices.get("output") is None:
            chosen = {**row.choices, "output": "pca"}
            values = {"choices": chosen, "digest": _digest(row, chosen, hashes.get(row.target))}
            connection.execute(_JOB.update().where(_JOB.c.key == row.key).values(**values))


def _digest(row: Any, chosen: dict[str, Any], sha256: str | None) -> str:
    """What the job is known by when the same is asked for again; where its data cannot be known, a hash of its own."""
    data = row.choices.get("data")
    content: list[Any] = [data.removeprefix("sha256:")] if isinstance(data, str) and data.startswith("sha256:") else []
    content += [row.target, sha256]
    before, after = (
        hashlib.sha256(json.dumps([row.task, content, choices], sort_keys=True).encode()).hexdigest()
        for choices in (row.choices, chosen)
    )
    return after if before == row.digest else hashlib.sha256(f"{row.digest} pca".encode()).hexdigest()
