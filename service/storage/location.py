"""Find the store: from options, the environment, or defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_dir
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..records.errors import StoreError

__all__ = ["Location", "Settings", "default_file", "locate"]


class Settings(BaseSettings):
    """Settings from the environment, all optional: `INTERBASIS_STORE`, `INTERBASIS_ARTIFACTS`, `INTERBASIS_TOKEN`."""

    model_config = SettingsConfigDict(env_prefix="INTERBASIS_", env_ignore_empty=True, extra="ignore")

    store: str | None = None
    artifacts: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Location:
    """A database and the place of its artifacts.

    Attributes:
        url: URL of the database, with its driver.
        artifacts: folder or fsspec URL; None where none was given and there is no default.
    """

    url: URL
    artifacts: str | None

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a database server."""
        return Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None

    def __str__(self) -> str:
        return str(self.file or self.url.render_as_string(hide_password=True))


def default_file() -> Path:
    """Return the SQLite file to use where no other store is named.

    >>> default_file().name
    'interbasis.sqlite'
    """
    return Path(user_data_dir("interbasis", appauthor=False)) / "interbasis.sqlite"


def locate(store: str | None = None, artifacts: str | None = None, *, need_artifacts: bool = True) -> Location:
    """Find the store: the one given, else that of the environment, else the default.

    Args:
        store: path of a SQLite file, `sqlite:///...` or `postgresql://...`.
        artifacts: folder or fsspec URL; default for SQLite: the folder `<file stem>.artifacts` beside the file.
        need_artifacts: whether to refuse a database server without a place for artifacts.

    Raises:
        StoreError: the URL cannot be used, or PostgreSQL has no artifacts.

    >>> str(locate("runs/today.sqlite")).endswith("runs/today.sqlite")
    True
    """
    settings = Settings()
    named = store or settings.store
    url = _url(named) if named else _sqlite(default_file())
    place = artifacts or settings.artifacts
    if place is None and url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        place = str(file.with_name(f"{file.stem}.artifacts"))
    location = Location(url, place)
    if place is None and need_artifacts:
        raise StoreError(
            f"{location} has no place for artifacts: give --artifacts or INTERBASIS_ARTIFACTS, "
            "a folder or object store that every user of the database can reach"
        )
    return location


def _url(named: str) -> URL:
    """Return the database URL for a path or URL."""
    if "://" not in named:
        return _sqlite(Path(named))
    try:
        url = make_url(named)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError) as error:
        raise StoreError(f"the store URL cannot be read ({error}): expected {_EXPECTED}") from error
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreError(f"a store cannot be a {backend} database: expected {_EXPECTED}")
    if url.database in (None, "", ":memory:") or url.query:
        raise StoreError("a SQLite store has to be a file, without options: expected sqlite:///path/to/file.sqlite")
    return _sqlite(Path(str(url.database)))


_EXPECTED = "the path of a SQLite file, sqlite:///path or postgresql://user@host/database"


def _sqlite(file: Path) -> URL:
    """Return the URL of a SQLite file, its path made absolute."""
    path = file.expanduser().absolute()
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file in it, for example {path / 'interbasis.sqlite'}")
    return URL.create("sqlite", database=str(path))
