"""The connections of a store, and its transactions: files before rows, one transaction, repeated after a conflict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from ..storage import connection as connections
from ..storage.artifacts import Blobs
from ..storage.location import Location
from .saving import Files

__all__ = ["Transactions"]

T = TypeVar("T")

_ATTEMPTS = 8  # at a transaction that conflicts with another one

_CONFLICTS = ("40001", "40P01")  # PostgreSQL: serialisation failure, deadlock

_PAUSE = 0.5  # seconds before a transaction is repeated whose connection broke


class Transactions:
    """Transactions and files, on which the parts of `Store` build their methods."""

    def __init__(self, location: Location, engine: Engine, blobs: Blobs, *, patience: float = 0.0) -> None:
        """Keep the connections that `Store.open` made; for `patience` seconds repeat what a lost connection broke."""
        self.location = location
        self.blobs = blobs
        self._patience = patience
        self._engine = engine
        self._writer = engine.execution_options(write=True)

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with connections.translated(self.location), Session(self._engine) as session:
            yield session

    def _whole(self, *artifacts: str | None) -> bool:
        """Return whether all files of a stored result exist."""
        return all(self.blobs.exists(sha256) for sha256 in artifacts if sha256 is not None)

    def _put(self, blobs: Mapping[str, bytes]) -> Files:
        """Write files, but none where the rows could not be written afterwards."""
        connections.require_writable(self.location)
        return {name: (self.blobs.put(data), len(data)) for name, data in blobs.items()}

    def _once(self, find: Callable[[Session], T | None], make: Callable[[Session], T]) -> T:
        """Return what `find` finds, else what `make` makes; safe when another process makes the same."""
        found = self._find(find)
        return found if found is not None else self._write(lambda session: find(session) or make(session))

    def _find(self, find: Callable[[Session], T]) -> T:
        """Read in one transaction, before something is saved."""

        def look() -> T:
            with Session(self._engine) as session:
                return find(session)

        with connections.translated(self.location):
            return self._repeated(look)

    def _write(self, work: Callable[[Session], T]) -> T:
        """Do the work in one transaction; repeat it where another transaction wrote the same row meanwhile."""
        with connections.translated(self.location):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._repeated(lambda: self._attempt(work))
                except DBAPIError as error:
                    state = getattr(error.orig, "sqlstate", None)
                    if not isinstance(error, IntegrityError) and state not in _CONFLICTS:
                        raise
            return self._attempt(work)

    def _repeated(self, work: Callable[[], T]) -> T:
        """Do the work, again where its connection breaks meanwhile: `patience` alone waits only for new connections."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return work()
            except DBAPIError as error:
                if not error.connection_invalidated or time.monotonic() >= deadline:
                    raise
            time.sleep(_PAUSE)

    def _attempt(self, work: Callable[[Session], T]) -> T:
        with Session(self._writer) as session, session.begin():
            return work(session)
