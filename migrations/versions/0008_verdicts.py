"""Verdicts of partitions and experiments; existing jobs keep the defaults that applied when they were submitted."""

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
    *(sa.column(name) for name in ("key", "n_modules", "p_value", "warning", "verdict", "reason")),
)
_JOB = sa.table(
    "job", *(sa.column(name) for name in ("key", "task", "target", "digest")), sa.column("choices", sa.JSON())
)
_SCHEDULE = sa.table("schedule", sa.column("key"), sa.column("task"), sa.column("choices", sa.JSON()))
_CONTENT = {
    "analyze": (sa.table("checkpoint", sa.column("id"), sa.column("sha256")), "sha256"),
    "partition": (sa.table("graph", sa.column("id"), sa.column("graph_sha256")), "graph_sha256"),
    "experiment": (sa.table("partition", sa.column("id"), sa.column("partition_sha256")), "partition_sha256"),
}
_MEANT: dict[str, dict[str, Any]] = {  # defaults that changed
    "analyze": {"output": "pca", "chains": "count", "control": False},
    "partition": {"chains": "count"},
    "track": {"chains": "count"},
    "experiment": {"kind": "isolate"},
}


def upgrade() -> None:
    """Upgrade to this revision."""
    for name in ("partition", "experiment"):
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("verdict", sa.String(), nullable=True))
            table.add_column(sa.Column("reason", sa.String(), nullable=True))
    _judge()
    for task, meant in _MEANT.items():
        _name_defaults(task, meant)


def downgrade() -> None:
    """Return to the revision before; choices that name an old default stay as they are."""
    for name in ("experiment", "partition"):
        with op.batch_alter_table(name) as table:
            table.drop_column("reason")
            table.drop_column("verdict")


def _judge() -> None:
    """Set the verdicts of partitions, the same that their files give."""
    connection = op.get_bind()
    for row in connection.execute(sa.select(_PARTITION)).all():
        verdict, reason = _verdict(row)
        values = {"verdict": verdict, "reason": reason}
        connection.execute(_PARTITION.update().where(_PARTITION.c.key == row.key).values(**values))


def _verdict(row: Any) -> tuple[str, str]:
    """Return verdict and reason; version 0.6 and before counted chains in null graphs as modules: untested."""
    warning = row.warning or ""
    if row.n_modules == 1:
        return "one module", warning.removeprefix("one module: ") or "no division was asked for"
    if row.p_value is None:
        return "untested", "no null graph was searched for this division"
    if warning.startswith("no more modular"):
        return "not told apart from chance", "null graphs divide as well"
    return "untested", "found by a version that took one-to-one chains for evidence: divide the graph again"


def _name_defaults(task: str, meant: dict[str, Any]) -> None:
    """Name the old defaults in jobs and schedules that did not choose: they meant these when submitted.

    Jobs that have ended change too: they may be retried, and the same choices, given now, mean other work.
    """
    connection = op.get_bind()
    for row in connection.execute(sa.select(_SCHEDULE).where(_SCHEDULE.c.task == task)).all():
        if _lacks(meant, row.choices):
            chosen = {**meant, **row.choices}
            connection.execute(_SCHEDULE.update().where(_SCHEDULE.c.key == row.key).values(choices=chosen))
    hashes: dict[str, str] = {}
    if task in _CONTENT:
        table, column = _CONTENT[task]
        hashes = dict(connection.execute(sa.select(table.c.id, table.c[column])).all())
    taken = set(connection.scalars(sa.select(_JOB.c.digest)))
    for row in connection.execute(sa.select(_JOB).where(_JOB.c.task == task).order_by(_JOB.c.key)).all():
        if _lacks(meant, row.choices):
            chosen = {**meant, **row.choices}
            digest = _digest(row, chosen, hashes.get(row.target))
            if digest in taken:  # another job named the default: each keeps a digest of its own
                digest = _of_its_own(row.digest, digest)
            taken.add(digest)
            connection.execute(_JOB.update().where(_JOB.c.key == row.key).values(choices=chosen, digest=digest))


def _lacks(meant: dict[str, Any], choices: dict[str, Any]) -> bool:
    """Return whether choices leave a default open; given labels leave none of a search open."""
    return bool(set(meant) - set(choices)) and "labels" not in choices


def _digest(row: Any, chosen: dict[str, Any], sha256: str | None) -> str:
    """Return the hash that identifies the job when the same is submitted again; a unique one for unknown data."""
    data = row.choices.get("data")
    content: list[Any] = [data.removeprefix("sha256:")] if isinstance(data, str) and data.startswith("sha256:") else []
    content += [row.target, sha256]
    before, after = (
        hashlib.sha256(json.dumps([row.task, content, choices], sort_keys=True).encode()).hexdigest()
        for choices in (row.choices, chosen)
    )
    return after if before == row.digest else _of_its_own(row.digest, after)


def _of_its_own(before: str, after: str) -> str:
    return hashlib.sha256(f"{before} {after}".encode()).hexdigest()
