"""Files that the client sends: data, checkpoints, and those of jobs and schedules."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cases_rows as rows
import httpx
import numpy as np
import pytest
from cases_checkpoints import save_mlp
from cases_client import answer, connected, problem
from safetensors.numpy import load

from interbasis.service.api.app import create_app
from interbasis.service.api.guard import Limits
from interbasis.service.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.records.checkpoints import FileRow, file_sha256
from interbasis.service.records.errors import ArtifactError, ForbiddenError, StoreError, UnavailableError
from interbasis.service.store.store import Store

FILE = FileRow(sha256="ab" * 32, uri=f"sha256:{'ab' * 32}", bytes=3, created=rows.THEN)
STORED = answer(FILE.to_json(), 201)
ABOUT = {"family": "mlp", "config": {"widths": [2, 3]}, "label": "a", "model": "run"}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in seconds; none takes time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


@pytest.fixture
def store(sqlite_place: Any) -> Iterator[Store]:
    with sqlite_place.open() as opened:
        yield opened


@pytest.fixture
def connect(store: Store) -> Iterator[Callable[..., Client]]:
    """Clients of an application on the store, in this process."""
    made: list[Client] = []

    def client(**limits: Any) -> Client:
        made.append(Client("http://127.0.0.1", transport=InProcess(create_app(store, Limits(**limits)))))
        return made[-1]

    yield client
    for each in made:
        each.close()


def sent(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, as they arrive."""
    client, service = connected(STORED)
    assert client.upload(file) == FILE
    (request,) = service.asked
    assert request.headers["content-length"] == str(len(request.content))
    return load(request.content)


# What is sent


def test_archive_of_arrays_is_sent_as_safetensors(tmp_path: Path) -> None:
    arrays = {"inputs": np.arange(6.0).reshape(2, 3), "targets": np.array([0, 1]), "mask": np.array([True, False])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = sent(tmp_path / "x.npz")
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),  # columns first
        np.arange(6.0).reshape(2, 3)[:, ::-1],
        np.arange(3, dtype=">f8"),  # of a machine with the other order of bytes
        np.float16(1.5),
        np.zeros((0, 4)),
    ],
    ids=["rows first", "columns first", "backwards", "big endian", "scalar", "empty"],
)
def test_array_is_sent_as_inputs_with_its_values(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "x.npy", array)
    found = sent(tmp_path / "x.npy")
    assert list(found) == ["inputs"]
    assert np.array_equal(found["inputs"].reshape(np.shape(array)), array)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.bin", "x"])
def test_other_files_are_sent_as_they_are(tmp_path: Path, name: str) -> None:
    content = np.random.default_rng(0).bytes(3_000_000)  # in several parts
    (tmp_path / name).write_bytes(content)
    client, service = connected(STORED)
    assert client.upload(str(tmp_path / name)) == FILE
    assert service.asked[0].content == content
    assert service.asked[0].headers["content-length"] == "3000000"
    assert service.paths == ["POST files"]


@pytest.mark.parametrize(
    "fault", [httpx.WriteError("reset"), httpx.ConnectError("refused"), problem(503), problem(429)]
)
def test_upload_that_breaks_begins_again_at_the_first_byte(tmp_path: Path, fault: Any) -> None:
    content = np.random.default_rng(0).bytes(2_500_000)
    (tmp_path / "x.safetensors").write_bytes(content)
    client, service = connected(fault, fault, STORED)
    assert client.upload(tmp_path / "x.safetensors") == FILE
    assert [each.content == content for each in service.asked] == [True] * 3


def test_upload_that_broke_in_the_middle_begins_again_too(tmp_path: Path) -> None:
    """The first attempt reads one part only."""
    content = np.random.default_rng(0).bytes(2_500_000)
    (tmp_path / "x.safetensors").write_bytes(content)
    parts: list[bytes] = []

    class Breaking(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            stream: Any = request.stream
            if not parts:
                parts.append(next(iter(stream)))
                raise httpx.WriteError("reset")
            parts.append(b"".join(stream))
            return STORED()

    assert Client(transport=Breaking()).upload(tmp_path / "x.safetensors") == FILE
    assert 0 < len(parts[0]) < len(content)
    assert content.startswith(parts[0])
    assert parts[1] == content


def test_service_that_stays_away_is_told_after_all_attempts(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    client, service = connected(httpx.ConnectError("refused"))
    with pytest.raises(UnavailableError, match="cannot reach"):
        client.upload(tmp_path / "x.npy")
    assert len({each.content for each in service.asked}) == 1
    assert len(service.asked) == 6


@pytest.mark.parametrize(
    ("refusal", "kind", "said"),
    [
        (problem(413, "the body is larger than 10 bytes"), StoreError, "larger than 10 bytes"),
        (problem(403, "a token of scope submit is needed", code="forbidden"), ForbiddenError, "scope submit"),
        (problem(500, "none could be written", code="artifact-failed"), ArtifactError, "none could be written"),
        (answer(b"<html>"), StoreError, "expected JSON"),
        (answer({"sha256": "ab"}), StoreError, "no FileRow"),
    ],
)
def test_upload_that_is_refused(tmp_path: Path, refusal: Any, kind: type[StoreError], said: str) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    client, service = connected(refusal)
    with pytest.raises(kind, match=said):
        client.upload(tmp_path / "x")
    assert len(service.asked) == 1


# Files that cannot be sent


def test_files_that_cannot_be_read_are_errors_of_ours_and_nothing_is_sent(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=np.zeros((20, 3)))
    whole = (tmp_path / "whole.npz").read_bytes()
    contents = {
        "empty.npz": b"",
        "empty.npy": b"",
        "text.npy": b"1, 2, 3",
        "begun.npz": b"PK\x03\x04 and nothing more",
        "half.npz": whole[: len(whole) // 2],
        "damaged.npz": whole[:100] + b"\xff" * 100 + whole[200:],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    client, service = connected(STORED)
    for name in (*contents, "folder.npz", "folder.safetensors", "missing.npz", "missing.safetensors"):
        with pytest.raises(StoreError, match=rf"^cannot read .*/{name}: "):
            client.upload(tmp_path / name)
    assert service.asked == []


def test_damage_in_a_compressed_archive_is_an_error_of_ours(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal(1000))
    whole = (tmp_path / "x.npz").read_bytes()
    for start in range(60, len(whole) - 400, 1000):
        (tmp_path / "x.npz").write_bytes(whole[:start] + b"\x55" * 40 + whole[start + 40 :])
        with pytest.raises(StoreError, match=r"^cannot read .*/x\.npz: "):
            connected(STORED)[0].upload(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array(["a", "b"]), "x has dtype <U1; expected numbers"),
        (np.array([1, 2], dtype="datetime64[s]"), r"x has dtype datetime64\[s\]; expected numbers"),
        (np.zeros(2, complex), "x has dtype complex128; expected numbers"),
        (np.array([{}, []], dtype=object), "Object arrays cannot be loaded"),
    ],
)
def test_arrays_of_no_numbers_are_named_with_their_dtype(tmp_path: Path, array: Any, said: str) -> None:
    np.savez(tmp_path / "x.npz", x=array)
    client, service = connected(STORED)
    with pytest.raises(StoreError, match=said):
        client.upload(tmp_path / "x.npz")
    assert service.asked == []


# The service itself


def test_uploads_arrive_in_the_store_and_twice_the_same_is_one(
    store: Store, connect: Callable[..., Client], tmp_path: Path
) -> None:
    client, path = connect(), save_mlp(tmp_path / "x.safetensors")
    row = client.upload(path)
    assert (row.sha256, row.uri, row.bytes) == (file_sha256(path), f"sha256:{row.sha256}", path.stat().st_size)
    assert store.blobs.get(row.sha256) == path.read_bytes()
    assert client.upload(path).sha256 == row.sha256
    np.savez(tmp_path / "x.npz", inputs=np.eye(3))
    arrived = store.blobs.get(client.upload(tmp_path / "x.npz").sha256)
    assert np.array_equal(load(arrived)["inputs"], np.eye(3))


def test_checkpoint_that_was_uploaded_is_registered_by_its_hash(connect: Callable[..., Client], tmp_path: Path) -> None:
    client, path = connect(), save_mlp(tmp_path / "a.safetensors", step=3, model="run")
    uri = client.upload(path).uri
    row = client.register_checkpoint(uri, about={**ABOUT, "step": 3})
    assert (row.sha256, row.step, row.label, row.path) == (file_sha256(path), 3, "a", None)
    assert client.get_checkpoint("run@3") == row
    with pytest.raises(StoreError, match='has no "family"'):
        client.register_checkpoint(uri)


# Checkpoints, jobs and schedules


def test_checkpoint_that_the_service_may_not_read_is_uploaded(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "a.safetensors", step=3, model="run", label="a")
    forbidden, row = problem(403, "in none of the folders", code="forbidden"), answer(rows.checkpoint().to_json(), 201)
    client, service = connected(forbidden, STORED, row)
    assert client.register_checkpoint(path) == rows.checkpoint()
    assert service.paths == ["POST checkpoints", "POST files", "POST checkpoints"]
    by_path, _, by_hash = (each.content for each in service.asked)
    about = json.loads(path.with_suffix(".json").read_text())
    assert json.loads(by_path) == {"path": str(path), "sha256": file_sha256(path), "about": about}
    assert json.loads(by_hash) == {"uri": FILE.uri, "about": about}
    assert service.asked[1].content == path.read_bytes()


def test_checkpoint_that_is_refused_for_another_reason_is_not_uploaded(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "a.safetensors", model="run")
    client, service = connected(problem(409, "another config", code="conflict"))
    with pytest.raises(StoreError, match="another config"):
        client.register_checkpoint(path)
    assert service.paths == ["POST checkpoints"]


def test_json_of_a_checkpoint_is_beside_it_or_given(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "a.safetensors", model="run")
    client, service = connected(answer(rows.checkpoint().to_json(), 201))
    client.register_checkpoint(path, about={"family": "mlp"})
    assert json.loads(service.asked[0].content)["about"] == {
        **{"config": {}, "family": "mlp", "label": "a", "model": "a"},
    }
    path.with_suffix(".json").unlink()
    with pytest.raises(StoreError, match=r"there is no .*a\.json"):
        client.register_checkpoint(path)
    with pytest.raises(StoreError, match=r"cannot read .*b\.safetensors"):
        client.register_checkpoint(tmp_path / "b.safetensors", about=ABOUT)
    assert len(service.asked) == 1


def test_files_of_a_job_are_sent_before_it(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "a.safetensors", model="run")
    np.savez(tmp_path / "x.npz", inputs=np.eye(2))
    row = answer(rows.checkpoint(id="c-1").to_json(), 201)
    client, service = connected(row, STORED, answer(rows.job().to_json(), 202))
    client.submit("analyze", path, {"data": tmp_path / "x.npz", "cuts": ("a", "b"), "seed": np.int64(3), "k": None})
    assert service.paths == ["POST checkpoints", "POST files", "POST jobs"]
    body = json.loads(service.asked[-1].content)
    assert body["target"] == "c-1"
    assert body["choices"] == {"data": FILE.uri, "cuts": ["a", "b"], "seed": 3}


@pytest.mark.parametrize(
    ("task", "target", "data"),
    [("ledger", "c-1", FILE.uri), ("track", "run.safetensors", None), ("analyze", "c-1", None)],
)
def test_references_are_passed_on_and_nothing_is_sent(task: str, target: str, data: str | None) -> None:
    """A model may be named like a file; only targets that are checkpoints are read."""
    client, service = connected(answer(rows.job().to_json(), 202))
    client.submit(task, target, {"data": data})
    assert service.paths == ["POST jobs"]
    body = json.loads(service.asked[0].content)
    assert (body["target"], body["choices"]) == (target, {} if data is None else {"data": data})


def test_data_of_a_schedule_are_sent_and_its_folder_is_a_path_there(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(2))
    client, service = connected(STORED, answer(rows.schedule().to_json(), 201))
    options = {"folder": Path("/there/new"), "cron": None, "queue": "night"}
    assert client.add_schedule("analyze", "run", {"data": tmp_path / "x.npy"}, **options) == rows.schedule()
    assert service.paths == ["POST files", "POST schedules"]
    assert json.loads(service.asked[1].content) == {
        **{"task": "analyze", "model": "run", "choices": {"data": FILE.uri}},
        **{"folder": "/there/new", "cron": None, "queue": "night"},
    }


def test_job_whose_data_cannot_be_read_is_not_submitted(tmp_path: Path) -> None:
    client, service = connected(answer(rows.job().to_json(), 202))
    with pytest.raises(StoreError, match=r"cannot read .*none\.npz"):
        client.submit("ledger", "c-1", {"data": tmp_path / "none.npz"})
    assert service.asked == []
