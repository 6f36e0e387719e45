"""Transactions that save results: files before rows, one transaction, repeated after a conflict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from ..storage import connection as connections
from ..storage.artifacts import Blobs
from ..storage.location import Location
from ..storage.references import new_id, resolve
from ..storage.tables import Checkpoint, Dataset
from .reading import Reader, ResultT, result_query
from .saving import Files, check_names, drop_unreferenced, fill

__all__ = ["ResultKind", "Writer"]

T = TypeVar("T")

_ATTEMPTS = 8  # at a transaction that conflicts with another one

_CONFLICTS = ("40001", "40P01")  # PostgreSQL: serialisation failure, deadlock


@dataclass(frozen=True)
class ResultKind(Generic[ResultT, T]):
    """How one kind of result that belongs to a checkpoint and a dataset is stored.

    Attributes:
        table: table of the result.
        files: names of its files, as in the columns NAME_sha256; the first is required.
        convert: turns a row into a frozen value.
        forget: called before a row is replaced, with the hash of the new first file; deletes what depends on the row
            and returns the artifacts no longer needed. None where nothing depends on it.
    """

    table: type[ResultT]
    files: tuple[str, ...]
    convert: Callable[[ResultT], T]
    forget: Callable[[Session, ResultT, str], list[str | None]] | None = None

    def artifacts(self, row: ResultT) -> list[str | None]:
        """Return the hashes of a row's files; None for a file that was not kept."""
        return [getattr(row, f"{name}_sha256") for name in self.files]


class Writer(Reader):
    """Transactions and files, on which `Store` builds its saving methods."""

    def __init__(self, location: Location, engine: Engine, blobs: Blobs) -> None:
        """Keep the connections that `Store.open` made."""
        super().__init__(location, engine, blobs)
        self._writer = engine.execution_options(write=True)

    def _save(
        self,
        kind: ResultKind[ResultT, T],
        checkpoint: str,
        dataset: str,
        columns: Mapping[str, Any],
        blobs: Mapping[str, bytes],
        force: bool,
    ) -> T:
        """Store a result of a checkpoint on a dataset, or return a complete stored one of the same recipe."""
        check_names(blobs, needed=kind.files[0], known=kind.files)
        recipe_hash = columns["recipe_hash"]
        with self._read() as session:
            found = session.scalar(result_query(session, kind.table, checkpoint, dataset, recipe_hash))
            if found is not None and not force and self._whole(*kind.artifacts(found)):
                return kind.convert(found)
        replace = force or found is not None
        files = self._put(blobs)
        references = {f"{name}_sha256": files[name][0] if name in files else None for name in kind.files}

        def save(session: Session) -> T:
            query = result_query(session, kind.table, checkpoint, dataset, recipe_hash)
            row = session.scalar(query.with_for_update(of=kind.table))
            if row is not None and not replace:
                return kind.convert(row)
            garbage: list[str | None] = []
            if row is None:
                owner, data = resolve(session, Checkpoint, checkpoint), resolve(session, Dataset, dataset)
                identifier = new_id(session, kind.table, owner.id, data.id, recipe_hash)
                row = kind.table(id=identifier, checkpoint=owner, dataset=data)
            elif kind.forget is None:
                garbage = kind.artifacts(row)
            else:
                garbage = kind.forget(session, row, files[kind.files[0]][0])
            fill(session, row, {**columns, **references}, files)
            drop_unreferenced(session, garbage)
            return kind.convert(row)

        return self._write(save)

    def _whole(self, *artifacts: str | None) -> bool:
        """Return whether all files of a stored result exist."""
        return all(self.blobs.exists(sha256) for sha256 in artifacts if sha256 is not None)

    def _put(self, blobs: Mapping[str, bytes]) -> Files:
        """Write files, but none where the rows could not be written afterwards."""
        connections.require_writable(self.location)
        return {name: (self.blobs.put(data), len(data)) for name, data in blobs.items()}

    def _once(self, find: Callable[[Session], T | None], make: Callable[[Session], T]) -> T:
        """Return what `find` finds, else what `make` makes; safe when another process makes the same."""
        with self._read() as session:
            found = find(session)
        return found if found is not None else self._write(lambda session: find(session) or make(session))

    def _write(self, work: Callable[[Session], T]) -> T:
        """Do the work in one transaction; repeat it where another transaction wrote the same row meanwhile."""
        with connections.translated(self.location):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._attempt(work)
                except DBAPIError as error:
                    state = getattr(error.orig, "sqlstate", None)
                    if not isinstance(error, IntegrityError) and state not in _CONFLICTS:
                        raise
            return self._attempt(work)

    def _attempt(self, work: Callable[[Session], T]) -> T:
        with Session(self._writer) as session, session.begin():
            return work(session)
