"""Connections to SQLite and PostgreSQL, and their errors turned into errors of the store."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from ..records.errors import DatabaseError, ReadOnlyError, StoreError, UnavailableError
from .location import Location

__all__ = ["connect", "require_writable", "translated"]

_BUSY_SECONDS = 60.0

_CONNECT_SECONDS = 10

_PAUSE = 0.5  # seconds between attempts to reach a server


def connect(location: Location, *, foreign_keys: bool = True, pooled: bool = True, patience: float = 0.0) -> Engine:
    """Make an engine with the transaction behaviour that the store expects.

    SQLite: foreign keys on, synchronous FULL (a commit survives a power cut), transactions begin exactly where
    they begin, and those of `execution_options(write=True)` take the write lock at once.
    PostgreSQL: a server that cannot be reached is tried again for `patience` seconds.
    """
    options: dict[str, Any] = {"json_serializer": _to_json, "poolclass": None if pooled else NullPool}
    if location.file is None:
        options["pool_pre_ping"] = pooled
        if "connect_timeout" not in location.url.query:
            options["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
    engine = create_engine(location.url, **options)
    if location.file is None and patience:
        event.listen(engine, "do_connect", _keep_trying(patience))
    if location.file is not None:
        event.listen(engine, "connect", _configure_sqlite(foreign_keys))
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _to_json(value: Any) -> str:
    """Encode JSON as both databases accept it; refuse NaN and infinity."""
    return json.dumps(value, allow_nan=False)


def _keep_trying(patience: float) -> Callable[..., Any]:
    def connect(dialect: Any, _record: Any, args: Any, options: Any) -> Any:
        deadline = time.monotonic() + patience
        while True:
            try:
                return dialect.connect(*args, **options)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    return connect


def _configure_sqlite(foreign_keys: bool) -> Callable[[Any, Any], None]:
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the module shall not begin transactions of its own
        connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    return configure


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def translated(location: Location) -> Iterator[None]:
    """Turn database errors into errors of the store; an interrupted transaction leaves nothing behind."""
    try:
        yield
    except StoreError:
        raise
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _translation(location, error) from error
    except (OverflowError, UnicodeError) as error:
        raise StoreError(f"a value cannot be stored ({error}); nothing was changed") from error
    except ValueError as error:
        if not _met_in_reading(error):
            raise
        raise _damaged(location, str(error)) from error


def _met_in_reading(error: Exception) -> bool:
    """Return whether the error comes from a stored value that cannot be read, and not from a bug."""
    frames = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    return frames[-1].startswith("sqlalchemy.") or isinstance(error, json.JSONDecodeError)


def _damaged(location: Location, what: str) -> StoreError:
    return _error(DatabaseError, f"{location}: {what}", "the store is damaged", _RESTORE)


def _error(kind: type[StoreError], where: str, said: str, advice: str) -> StoreError:
    """Make an error with one message for local users and another one for clients of a service."""
    error = kind(f"{said} ({where}): {advice}")
    error.public = said
    return error


def _translation(location: Location, error: Exception) -> StoreError:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    what = " ".join(str(cause).split())
    if isinstance(error, DataError):
        return StoreError(f"a value cannot be stored ({what}); nothing was changed")
    away = isinstance(error, OperationalError | InterfaceError | PoolTimeoutError)
    found: tuple[type[StoreError], str, str] = (
        (UnavailableError, "the database cannot be used at the moment", "try again later")
        if away
        else (DatabaseError, "the database failed", f"check it with `interbasis db check --store {location}`")
    )
    for sign, *known in _SQLITE_ERRORS if location.file is not None else ():
        if sign in what:
            found = tuple(known)  # type: ignore[assignment]
            break
    kind, said, advice = found
    return _error(kind, f"{location}: {what}", said, advice)


_RESTORE = "restore it from a backup, or name another one with --store"

_SQLITE_ERRORS: tuple[tuple[str, type[StoreError], str, str], ...] = (
    (
        "readonly database",
        ReadOnlyError,
        "the store cannot be written",
        "nothing was changed; make the file and its folder writable",
    ),
    (
        "unable to open",
        ReadOnlyError,
        "the store cannot be opened",
        "the file must be readable, and its folder writable, for the log beside it",
    ),
    (
        "locked",
        UnavailableError,
        "the store is busy",
        f"another process kept it locked for {_BUSY_SECONDS:.0f} s; nothing was changed, try again",
    ),
    ("disk is full", UnavailableError, "the disk is full", "nothing was changed; free some space"),
    (
        "disk I/O error",
        UnavailableError,
        "the disk failed",
        "nothing was changed; check the disk and its free space",
    ),
    ("not a database", DatabaseError, "the file is not a SQLite database", "name another one with --store"),
    *(
        (sign, DatabaseError, "the store is damaged", _RESTORE)
        for sign in ("malformed", "UTF-8", "missing from index", "no such table", "no such column", "damaged")
    ),
)

"""Part of a message, its meaning, and what to do."""


def require_writable(location: Location) -> None:
    """Refuse a SQLite store that cannot be written, before anything is written beside it.

    Raises:
        ReadOnlyError: the file cannot be written, or its folder, which holds the write-ahead log.
    """
    file = location.file
    for place in () if file is None else (file, file.parent):
        if not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise ReadOnlyError(f"{place} is read-only: nothing was saved; make it writable or name another --store")
