"""What only a SQLite file can do, or fail to do: move, be read-only, locked, or something else."""

import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases_store import register, save_graph

from interbasis.service.records.errors import ReadOnlyError, StoreError
from interbasis.service.store.store import Store


class TestSqlite:
    def test_processes_that_open_an_empty_file_at_once(
        self, sqlite_place: Any, saver: Callable[..., subprocess.Popen[str]]
    ) -> None:
        processes = [saver(sqlite_place, 10 * number, 2) for number in range(4)]
        outputs = [process.communicate("go\n", timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0] * 4, outputs
        with sqlite_place.open() as store:
            assert len(store.graphs().items) == 8
            assert store.check().ok

    def test_commits_survive_a_power_cut(self, sqlite_place: Any) -> None:
        with sqlite_place.open() as store, store._engine.connect() as connection:
            pragmas = ("journal_mode", "synchronous", "foreign_keys")
            values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
            assert values == ["wal", 2, 1]

    def test_folder_and_artifacts_can_be_moved(self, tmp_path: Path) -> None:
        with Store.open(str(tmp_path / "here" / "a.sqlite")) as store:
            graph = save_graph(store, content=b"content")
        (tmp_path / "here").rename(tmp_path / "there")
        with Store.open(str(tmp_path / "there" / "a.sqlite")) as store:
            assert store.graph_bytes(graph.id) == b"content"

    def test_new_store_in_a_folder_that_cannot_be_written(self, open_folder: Path, ordinary_user: None) -> None:
        if os.geteuid() == os.stat(open_folder).st_uid:
            open_folder.chmod(0o555)
        with pytest.raises(ReadOnlyError, match=r"cannot make the store .*name another --store"):
            Store.open(str(open_folder / "new" / "a.sqlite"))

    @pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o755), (0o444, 0o777), (0o666, 0o755)])
    def test_read_only_store_is_left_as_it_was(
        self, open_folder: Path, request: pytest.FixtureRequest, file_mode: int, folder_mode: int
    ) -> None:
        file, artifacts = open_folder / "a.sqlite", open_folder / "artifacts"
        with Store.open(str(file), str(artifacts)) as store:
            register(store)
        artifacts.mkdir(exist_ok=True)
        artifacts.chmod(0o777)
        file.chmod(file_mode)
        open_folder.chmod(folder_mode if os.geteuid() == 0 or folder_mode == 0o777 else 0o555)
        request.getfixturevalue("ordinary_user")
        with pytest.raises(ReadOnlyError, match=str(open_folder)), Store.open(str(file), str(artifacts)) as store:
            save_graph(store)
        assert list(artifacts.rglob("*")) == []

    def test_read_only_artifacts_leave_no_row(self, open_folder: Path, request: pytest.FixtureRequest) -> None:
        file, artifacts = open_folder / "a.sqlite", open_folder / "artifacts"
        with Store.open(str(file), str(artifacts)) as store:
            register(store)
        artifacts.mkdir(exist_ok=True)
        artifacts.chmod(0o555)
        file.chmod(0o666)
        open_folder.chmod(0o777)
        request.getfixturevalue("ordinary_user")
        with Store.open(str(file), str(artifacts)) as store:
            with pytest.raises(ReadOnlyError, match=f"cannot write artifacts in {artifacts}"):
                save_graph(store)
            assert store.graphs().items == ()

    def test_locked_store_says_so(self, sqlite_place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("interbasis.service.storage.connection._BUSY_SECONDS", 0.05)
        with sqlite_place.open() as store:
            blocker = sqlite3.connect(sqlite_place.url, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match=r"locked.*try again"):
                store.register_model("a", "mlp", {})
            blocker.close()
            store.register_model("a", "mlp", {})

    def test_file_that_is_no_database(self, sqlite_place: Any) -> None:
        Path(sqlite_place.url).write_bytes(b"no database, but long enough to be looked at" * 40)
        with pytest.raises(StoreError, match=r"is not a SQLite database .*: name another one"):
            sqlite_place.open()
