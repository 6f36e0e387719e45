"""The conversion of .pt files, called in this process and as a process of its own."""

import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from interbasis.service.api import convert_pt
from interbasis.service.api.convert_pt import check_archive, convert
from interbasis.service.records.errors import StoreError


def save_pt(folder: Path, found: Any, **options: Any) -> str:
    torch.save(found, folder / "given.pt", **options)
    return str(folder / "given.pt")


def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "interbasis.service.api.convert_pt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("nested", [None, "state_dict", "model_state_dict", "model"])
def test_tensors_are_written_by_name(archive: bool, nested: str | None, tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"w": shared, "transposed": shared.t(), "row": shared[1], "n": torch.tensor(7)}
    given = {nested: tensors, "epoch": 3, "optimizer": {"state": {}}} if nested else tensors
    source = save_pt(tmp_path, given, _use_new_zipfile_serialization=archive)
    assert convert(source, str(tmp_path / "made.safetensors"), most=1000) == nested
    found = load_file(tmp_path / "made.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize("given", [{"w": 1}, {1: torch.ones(2)}, [torch.ones(2)], torch.ones(2), {"state_dict": None}])
def test_something_else_than_tensors_by_name_is_refused(given: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^expected tensors by name, or these as state_dict, model_state_dict, model"):
        convert(save_pt(tmp_path, given), str(tmp_path / "made.safetensors"), most=1000)
    assert not (tmp_path / "made.safetensors").exists()


def test_tensors_may_have_so_many_bytes_and_no_more(tmp_path: Path) -> None:
    """One stored number that stands for 400, as `expand` has it: 4 bytes in the file, 1600 once written."""
    source, target = save_pt(tmp_path, {"w": torch.zeros(1).expand(400)}), str(tmp_path / "made.safetensors")
    with pytest.raises(StoreError, match=r"^its tensors have 1600 bytes, expected at most 1599$"):
        convert(source, target, most=1599)
    convert(source, target, most=1600)
    assert load_file(target)["w"].shape == (400,)


def archive_of(file: Path, kind: int, *members: bytes) -> str:
    with zipfile.ZipFile(file, "w", kind) as made:
        for number, content in enumerate(members):
            made.writestr(f"archive/{number}", content)
    return str(file)


def test_archives_are_measured_before_they_are_read(tmp_path: Path) -> None:
    stored = archive_of(tmp_path / "a.pt", zipfile.ZIP_STORED, bytes(60), bytes(40))
    check_archive(stored, 100)
    with pytest.raises(StoreError, match=r"^its members have 100 bytes, expected at most 99$"):
        check_archive(stored, 99)
    with pytest.raises(StoreError, match="are compressed"):
        check_archive(archive_of(tmp_path / "b.pt", zipfile.ZIP_DEFLATED, bytes(60)), 100)
    (tmp_path / "c.pt").write_bytes(b"PK" + bytes(100))
    with pytest.raises(StoreError, match="not a zip archive: File is not a zip file"):
        check_archive(str(tmp_path / "c.pt"), 1000)
    (tmp_path / "d.pt").write_bytes(b"no zip at first" + (tmp_path / "b.pt").read_bytes())  # is read all the same
    with pytest.raises(StoreError, match="are compressed"):
        check_archive(str(tmp_path / "d.pt"), 1000)
    (tmp_path / "e.pt").write_bytes(b"\x80\x02 a pickle")
    check_archive(str(tmp_path / "e.pt"), 0)


def test_limit_of_memory_stands_on_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {}
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: limits.update({kind: limit}))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    convert_pt.limit_memory(1 << 40)
    soft, hard = limits[resource.RLIMIT_AS]
    assert soft == hard
    assert soft - (1 << 40) == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.01)
    assert limits[resource.RLIMIT_CORE] == (0, 0)


def test_process_converts_or_says_why_in_its_last_line(tmp_path: Path, python: str) -> None:
    source, target = save_pt(tmp_path, {"w": torch.ones(3)}), str(tmp_path / "made.safetensors")
    done = run(sys.executable, source, target, str(256 << 20), "1000")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert load_file(target)["w"].tolist() == [1, 1, 1]
    done = run(python, source, target, str(256 << 20), "10")
    assert done.returncode == 1
    assert "bytes, expected at most 10" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_process_has_the_memory_that_it_was_given(tmp_path: Path) -> None:
    source = save_pt(tmp_path, {"w": torch.zeros(50_000_000)})
    done = run(sys.executable, source, str(tmp_path / "made.safetensors"), str(64 << 20), str(10**9))
    assert done.returncode == 1
    assert "memory" in done.stderr.splitlines()[-1]
