"""Is the store whole: rows against files, tables against models, references, the database's own check."""

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
    """Read every artifact, compare it with its hash, and look through the database; nothing is changed."""
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
    """Remove files to which no row refers and that are older than `grace` seconds.

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
    """IDs of the results that use an artifact."""
    users: dict[str, list[str]] = {}
    for column in ARTIFACT_COLUMNS:
        identifier = column.class_.id
        for result, sha256 in connection.execute(select(identifier, column).where(column.is_not(None))):
            users.setdefault(str(sha256), []).append(str(result))
    return users


def _damaged(blobs: Blobs, known: set[str], users: dict[str, list[str]]) -> Iterator[str]:
    """One line per artifact that is not whole."""
    for sha256 in sorted(known):
        try:
            if blobs.verified_path(sha256) is None:  # read in pieces where it is a local file
                blobs.get(sha256)
        except ArtifactError as error:
            yield f"{', '.join(users.get(sha256, ['no result']))}: {error}"


def _foreign_keys(connection: Connection) -> Iterator[str]:
    """One line per SQLite row that refers to nothing."""
    for table, row, parent, _number in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a {parent} that does not exist"


def _integrity(connection: Connection) -> Iterator[str]:
    """What SQLite itself finds wrong with its file."""
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if line != "ok":
            yield str(line)
