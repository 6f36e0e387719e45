"""The schema of the database: create, upgrade and compare it."""

from __future__ import annotations

import sqlite3
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

from ..records.errors import NewerSchemaError, OldSchemaError, ReadOnlyError, StoreError
from ..records.maintenance import Upgrade
from .connection import _BUSY_SECONDS, connect, translated
from .location import Location
from .tables import SCHEMA_REVISION, VERSION_TABLE, Base

__all__ = [
    "current_revision",
    "include_name",
    "migration_config",
    "migration_options",
    "prepare",
    "schema_differences",
    "upgrade",
]

_LOCK = 0x1B3A5E5  # of PostgreSQL, held while the schema changes


def prepare(location: Location, engine: Engine) -> None:
    """Make sure that the database has the schema of this version.

    Create a missing SQLite file, and upgrade an older one; never change a server.

    Raises:
        NewerSchemaError: the database was written by a newer version.
        OldSchemaError: the database on the server is empty or older.
        ReadOnlyError: the file cannot be created or upgraded.
    """
    if location.file is not None:
        _make_file(location.file)
        _use_write_ahead_log(engine)
    with engine.connect() as connection:
        found = current_revision(connection)
    if found == SCHEMA_REVISION:
        return
    if location.file is not None:
        upgrade(location)
        return
    _refuse_newer(location, found)
    state = "is empty" if found is None else f"has schema {found}, this version needs {SCHEMA_REVISION}"
    raise OldSchemaError(f"{location} {state}: run `interbasis db upgrade` first")


def _make_file(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.touch()
    except OSError as error:
        raise ReadOnlyError(f"cannot make the store {file} ({error.strerror}): name another --store") from error


def _use_write_ahead_log(engine: Engine) -> None:
    """Switch a SQLite file to its write-ahead log, once; SQLite does not wait for other processes here."""
    deadline = time.monotonic() + _BUSY_SECONDS
    raw = engine.raw_connection()
    try:
        while True:
            try:
                if raw.cursor().execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    raw.cursor().execute("PRAGMA journal_mode = WAL").fetchone()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)
    finally:
        raw.close()


def current_revision(connection: Connection) -> str | None:
    """Return the schema revision of a database; None where interbasis has not used it yet.

    Raises:
        StoreError: another program has made a table with one of our names.
    """
    names = set(inspect(connection).get_table_names())
    if VERSION_TABLE in names:
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()
        if found is not None:
            return str(found)
    if foreign := names & set(Base.metadata.tables):
        raise StoreError(
            f"the database has tables {', '.join(sorted(foreign))} that interbasis did not make: "
            "name another database with --store"
        )
    return None


def upgrade(location: Location) -> Upgrade:
    """Upgrade the schema to this version, in one transaction; other processes wait for it.

    Raises:
        NewerSchemaError: the database was written by a newer version.
    """
    from alembic import command

    if location.file is not None:
        _make_file(location.file)
    engine = connect(location, foreign_keys=False, pooled=False)
    try:
        with translated(location), engine.execution_options(write=True).begin() as connection:
            if location.file is None:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            before = current_revision(connection)
            _refuse_newer(location, before)
            if before != SCHEMA_REVISION:
                command.upgrade(migration_config(connection), "head")
                _require_foreign_keys(location, connection)
    finally:
        engine.dispose()
    return Upgrade(before=before, after=SCHEMA_REVISION)


def _require_foreign_keys(location: Location, connection: Connection) -> None:
    """Refuse an upgrade that breaks references; SQLite does not check them while it rebuilds tables."""
    if location.file is not None and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise StoreError(f"{location}: the upgrade would break references between rows; nothing was changed")


def _refuse_newer(location: Location, found: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = [revision.revision for revision in ScriptDirectory.from_config(migration_config()).walk_revisions()]
    if found is not None and found not in known:
        raise NewerSchemaError(
            f"{location} has schema {found}, which interbasis {version('interbasis')} does not know (it knows up "
            f"to {SCHEMA_REVISION}): it was written by a newer version, upgrade interbasis; nothing was changed"
        )


def migration_config(connection: Connection | None = None) -> Any:
    """Return Alembic's configuration (`alembic.config.Config`) for the migrations in the installed package."""
    from alembic.config import Config

    from ... import migrations

    config = Config()
    config.set_main_option("script_location", str(Path(str(migrations.__file__)).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Return whether Alembic may look at a table: it may see only ours, never those of other programs.

    >>> include_name("graph", "table", {}), include_name("workflow_status", "table", {})
    (True, False)
    """
    if kind == "schema":
        return name is None
    return kind != "table" or name in Base.metadata.tables


def migration_options() -> dict[str, Any]:
    """Return options for an Alembic context, the same for migrating and for comparing."""
    return {
        "target_metadata": Base.metadata,
        "version_table": VERSION_TABLE,
        "include_name": include_name,
        "compare_type": True,
        "compare_server_default": True,
        "render_as_batch": True,
        "transactional_ddl": True,
    }


def schema_differences(connection: Connection) -> tuple[str, ...]:
    """Return the changes Alembic would make to match the models in `tables`; empty where they agree."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts=migration_options())
    return tuple(str(difference) for difference in compare_metadata(context, Base.metadata))
