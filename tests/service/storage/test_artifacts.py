"""Artifacts on local folders and on what fsspec reaches."""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interbasis.service.records.errors import ArtifactError, ReadOnlyError, StoreError
from interbasis.service.storage.artifacts import Blobs


@pytest.fixture(params=["folder", "file URL", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    folder = tmp_path / "deep" / "artifacts"
    return Blobs(
        {"folder": str(folder), "file URL": f"file://{folder}", "memory": f"memory://{uuid4()}"}[request.param]
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class TestEveryPlace:
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.binary(max_size=200))
    def test_bytes_come_back_under_their_hash(self, blobs: Blobs, data: bytes) -> None:
        sha256 = blobs.put(data)
        assert sha256 == hashlib.sha256(data).hexdigest()
        assert blobs.get(sha256) == data

    def test_list_and_exists(self, blobs: Blobs) -> None:
        assert list(blobs.list()) == list(blobs.partial()) == []
        names = [blobs.put(data) for data in (b"a", b"b", b"a")]
        assert list(blobs.list()) == sorted(set(names))
        assert blobs.exists(names[0])
        assert not blobs.exists("0" * 64)

    def test_file_that_is_swapped_while_it_is_read_is_not_kept(
        self, blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file, hashed = tmp_path / "file", hashlib.file_digest

        def swap(*given: Any) -> Any:
            digest = hashed(*given)
            file.write_bytes(b"second")
            return digest

        file.write_bytes(b"first")
        monkeypatch.setattr(hashlib, "file_digest", swap)
        with pytest.raises(ArtifactError, match="file changed while it was read: store it again"):
            blobs.put_file(file)
        assert list(blobs.list()) == list(blobs.partial()) == []
        sha256 = blobs.put_file(file)
        assert (sha256, blobs.get(sha256)) == (hashlib.sha256(b"second").hexdigest(), b"second")

    def test_missing(self, blobs: Blobs) -> None:
        with pytest.raises(ArtifactError, match=f"{'0' * 64} is missing.*INTERBASIS_ARTIFACTS.*--force"):
            blobs.get("0" * 64)

    def test_damage_is_seen_and_repaired_by_storing_again(self, blobs: Blobs) -> None:
        sha256 = blobs.put(b"content")
        blobs._fs.pipe_file(blobs._address(sha256), b"other")
        with pytest.raises(ArtifactError, match=rf"{sha256} is damaged, .*{hashlib.sha256(b'other').hexdigest()}"):
            blobs.get(sha256)
        assert blobs.get(blobs.put(b"content")) == b"content"

    @pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63])
    def test_names_that_are_no_hash(self, blobs: Blobs, name: str) -> None:
        for method in (blobs.get, blobs.exists):
            with pytest.raises(ArtifactError, match="expected 64"):
                method(name)


def test_layout_of_a_folder(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    sha256 = blobs.put(b"content")
    path = blobs.path(sha256)
    assert path == tmp_path / sha256[:2] / sha256
    assert path.read_bytes() == b"content"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Blobs("~/artifacts").put(b"content")
    assert len(files(tmp_path / "artifacts")) == 1


def test_objects_in_memory_have_no_path() -> None:
    assert Blobs("memory://none").path("0" * 64) is None


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs = Blobs(str(tmp_path))
    blobs.put(b"content")
    before = files(tmp_path)
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(ArtifactError, match=f"cannot write artifacts in {tmp_path} .No space left on device"):
        blobs.put(b"other")
    assert files(tmp_path) == before


def test_file_is_on_disk_before_its_name_and_its_name_before_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_fsync(handle)

    def replace(source: Any, target: Any) -> None:
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    Blobs(str(tmp_path / "new")).put(b"content")
    assert calls == ["folder", "folder", "file", "rename", "folder"]


def test_unfinished_file_is_no_artifact(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    sha256 = blobs.put(b"content")
    (tmp_path / sha256[:2] / ".0123-4567.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    assert list(blobs.list()) == [sha256]
    assert list(blobs.partial()) == [".0123-4567.tmp"]


def test_read_only_folder(open_folder: Path, request: pytest.FixtureRequest) -> None:
    open_folder.chmod(0o555)
    request.getfixturevalue("ordinary_user")
    with pytest.raises(ReadOnlyError, match=f"cannot write artifacts in {open_folder}.*permissions"):
        Blobs(str(open_folder)).put(b"content")
    assert files(open_folder) == []


def test_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write artifacts"):
        Blobs(str(tmp_path / "file")).put(b"content")


@pytest.mark.parametrize("url", ["nonsense://bucket/x", "dropbox://x"])
def test_storage_without_a_driver(url: str) -> None:
    with pytest.raises(StoreError, match=f"artifacts cannot be kept at {url}"):
        Blobs(url)
