"""Checks of the store (rows against files, tables against models, references) and removal of unused files."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, Engine, select

from ..records.errors import ArtifactError
from ..records.maintenance import CheckReport, Collected
from .artifacts import Blobs
from .location import Location
from .schema import schema_differences
from .tables import ARTIFACT_COLUMNS, Artifact

__all__ = ["audit", "collect"]


def audit(location: Location, engine: Engine, blobs: Blobs) -> CheckReport:
    """Check the hash of every artifact, the schema and the database; change nothing."""
    partial = [f"unfinished file {name}" for name in blobs.partial()]
    files = list(blobs.list())  # before the rows: a result saved meanwhile is then no file without a row
    with engine.connect() as connection:
        users = _users(connection)
        known = set(connection.scalars(select(Artifact.sha256)))
        schema = schema_differences(connection)
        on_sqlite = location.file is not None
        foreign_keys = tuple(_foreign_keys(connection)) if on_sqlite else ()
        integrity = tuple(_integrity(connection)) if on_sqlite else ()
    return CheckReport(
        artifacts=tuple(_damaged(blobs, known, users)),
        schema=schema,
        foreign_keys=foreign_keys,
        integrity=integrity,
        uncollected=tuple([f"file without a row {name}" for name in files if name not in known] + partial),
        n_artifacts=len(known),
    )


def collect(engine: Engine, blobs: Blobs, grace: float) -> Collected:
    """Remove files that no row refers to and that are older than `grace` seconds.

    Jobs write files before the row that refers to them, so a grace of a day leaves those of running jobs alone.
    """

    def unwanted(name: str, age: float) -> bool:
        if age < grace:
            return False
        with engine.connect() as connection:
            return connection.scalar(select(Artifact.sha256).where(Artifact.sha256 == name)) is None

    gone = tuple(blobs.remove(unwanted))
    return Collected(files=tuple(name for name, _ in gone), bytes=sum(size for _, size in gone))


def _users(connection: Connection) -> dict[str, list[str]]:
    """Return, per artifact, the IDs of the results that use it."""
    users: dict[str, list[str]] = {}
    for column in ARTIFACT_COLUMNS:
        identifier = column.class_.id
        for result, sha256 in connection.execute(select(identifier, column).where(column.is_not(None))):
            users.setdefault(str(sha256), []).append(str(result))
    return users


def _damaged(blobs: Blobs, known: set[str], users: dict[str, list[str]]) -> Iterator[str]:
    """Yield one line per artifact that is missing or damaged."""
    for sha256 in sorted(known):
        try:
            if blobs.verified_path(sha256) is None:  # read in pieces where it is a local file
                blobs.get(sha256)
        except ArtifactError as error:
            yield f"{', '.join(users.get(sha256, ['no result']))}: {error}"


def _foreign_keys(connection: Connection) -> Iterator[str]:
    """Yield one line per SQLite row whose reference points to no row."""
    for table, row, parent, _number in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a {parent} that does not exist"


def _integrity(connection: Connection) -> Iterator[str]:
    """Yield one line per fault that SQLite finds in its file."""
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if line != "ok":
            yield str(line)
