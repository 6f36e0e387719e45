"""Schedules: at times and for new checkpoints, caught up once, paused, resumed, run now; with real workers."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_store import graph_values, provenance, save_graph, save_partition
from cases_transformers import transformer

from interbasis.service.records.errors import NotFoundError, StoreError
from interbasis.service.store import registry, schedules
from interbasis.service.store.store import Store


class Clock:
    """What the store takes for this moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moment = datetime.now(UTC)
        monkeypatch.setattr(schedules, "now", lambda: self.moment)

    def go(self, **span: float) -> None:
        self.moment += timedelta(**span)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def checkpoint(folder: Path, step: int, model: str = "run") -> Path:
    """A checkpoint that was written some time ago."""
    path = save_mlp(folder / f"step{step}.safetensors", seed=step, step=step, model=model)
    for file in (path, path.with_suffix(".json")):
        os.utime(file, (time.time() - 60, time.time() - 60))
    return path


def tasks(store: Store) -> list[tuple[str, str]]:
    """What was asked for."""
    return [(job.task, store.get_checkpoint(job.target).label or "") for job in store.jobs().items]


def test_every_new_checkpoint_is_asked_for_once(store: Store, tmp_path: Path) -> None:
    store.register_checkpoint(checkpoint(tmp_path, 1))
    added = store.add_schedule("ledger", "run", {"epsilon": 0.1}, priority=4)
    store.look_after_schedules()
    assert tasks(store) == []  # it was there before
    store.register_checkpoint(checkpoint(tmp_path, 2))
    store.register_checkpoint(checkpoint(tmp_path, 3, model="another"))
    for _ in range(3):
        store.look_after_schedules()
    assert tasks(store) == [("ledger", "step2")]
    (job,) = store.jobs().items
    assert (job.choices, job.priority) == ({"epsilon": 0.1}, 4)
    seen = store.get_schedule(added.id)
    assert (seen.jobs, seen.error, seen.next_run) == ((job.id,), None, None)
    assert seen.last_run is not None
    store.register_checkpoint(checkpoint(tmp_path, 4))
    Store.look_after_schedules(store)
    assert len(store.jobs().items) == 2


def test_two_lookers_ask_once(store: Store, place: Any, tmp_path: Path) -> None:
    store.add_schedule("ledger", "run")
    store.register_checkpoint(checkpoint(tmp_path, 1))
    with place.open() as other:
        for looker in (store, other, store, other):
            looker.look_after_schedules()
    assert len(store.jobs().items) == 1


def test_failed_job_is_not_asked_for_again(store: Store, place: Any, tmp_path: Path) -> None:
    store.add_schedule("ledger", "run")
    store.register_checkpoint(checkpoint(tmp_path, 1))
    store.look_after_schedules()
    (job,) = store.jobs().items
    store.cancel_job(job.id)
    with place.open() as other:
        other.look_after_schedules()
    assert store.get_job(job.id).state == "cancelled"


def test_times_that_were_missed_are_caught_up_once(store: Store, clock: Clock, tmp_path: Path) -> None:
    clock.moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    graph = save_graph(store)
    added = store.add_schedule("partition", "digits", {"k": 2}, cron="0 * * * *")
    assert added.next_run == datetime(2026, 1, 1, 13, tzinfo=UTC)
    store.look_after_schedules()
    assert store.jobs().items == ()
    clock.go(hours=49, minutes=7)
    store.look_after_schedules()
    store.look_after_schedules()
    (job,) = store.jobs().items
    assert (job.task, job.target, job.choices) == ("partition", graph.id, {"k": 2})
    after = store.get_schedule(added.id)
    assert (after.last_run, after.next_run) == (clock.moment, datetime(2026, 1, 3, 14, tzinfo=UTC))


def test_paused_resumed_and_run_now(store: Store, clock: Clock) -> None:
    clock.moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    save_graph(store)
    added = store.add_schedule("partition", "digits", cron="0 2 * * *")
    assert store.pause_schedule(added.id).paused
    clock.go(days=3)
    store.look_after_schedules()
    assert store.jobs().items == ()
    assert store.resume_schedule(added.id).next_run == datetime(2026, 1, 5, 2, tzinfo=UTC)
    store.look_after_schedules()
    assert store.jobs().items == ()
    store.pause_schedule(added.id)
    store.run_schedule(added.id)
    store.look_after_schedules()
    assert len(store.jobs().items) == 1
    left = store.get_schedule(added.id)
    assert (left.paused, left.next_run) == (True, None)


def test_run_now_asks_for_what_was_there_before(store: Store, tmp_path: Path) -> None:
    store.register_checkpoint(checkpoint(tmp_path, 1))
    added = store.add_schedule("ledger", "run")
    store.run_schedule(added.id)
    store.look_after_schedules()
    store.look_after_schedules()
    assert tasks(store) == [("ledger", "step1")]
    assert store.get_schedule(added.id).next_run is None


def test_checkpoints_that_came_during_a_pause_are_taken(store: Store, tmp_path: Path) -> None:
    added = store.add_schedule("ledger", "run")
    store.pause_schedule(added.id)
    store.register_checkpoint(checkpoint(tmp_path, 1))
    store.look_after_schedules()
    assert tasks(store) == []
    store.resume_schedule(added.id)
    store.look_after_schedules()
    assert tasks(store) == [("ledger", "step1")]


def test_folder_is_watched(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    added = store.add_schedule("ledger", "run", folder=folder)
    checkpoint(folder, 1)
    save_mlp(folder / "step2.safetensors", seed=2, step=2, model="run")  # is still being written
    save_mlp(folder / "step3.safetensors", seed=3, step=3, model="run").with_suffix(".json").unlink()
    store.look_after_schedules()
    assert tasks(store) == [("ledger", "step1")]
    checkpoint(folder, 2)
    (folder / "broken.safetensors").write_bytes(b"?")
    (folder / "broken.json").write_text("{")
    os.utime(folder / "broken.safetensors", (1, 1))
    os.utime(folder / "broken.json", (1, 1))
    store.look_after_schedules()
    assert tasks(store) == [("ledger", "step1"), ("ledger", "step2")]
    assert "broken.json" in (store.get_schedule(added.id).error or "")
    (folder / "broken.safetensors").unlink()
    store.look_after_schedules()
    assert store.get_schedule(added.id).error is None


def test_files_that_a_folder_gets_at_once_are_one_training(store: Store, tmp_path: Path) -> None:
    store.add_schedule("ledger", "run", folder=tmp_path)
    for steps, number in (((1, 3), 1), ((2, 3), 2)):
        for step in steps:
            checkpoint(tmp_path, step)
        if number == 2:  # step 3 of another training, and a step that the run before lacks
            other = save_mlp(tmp_path / "step3.safetensors", seed=33, step=3, model="run")
            for file in (other, other.with_suffix(".json")):
                os.utime(file, (time.time() - 30, time.time() - 30))
        store.look_after_schedules()
        assert [row.step for row in store.checkpoints(run=f"run#{number}").items] == list(steps)


def test_watched_file_is_read_again_when_it_was_written_again(
    store: Store, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    hashed = registry.checkpoint_sha256
    monkeypatch.setattr(registry, "checkpoint_sha256", lambda file: read.append(file.name) or hashed(file))
    store.add_schedule("ledger", "run", folder=tmp_path)
    latest, copy, broken = checkpoint(tmp_path, 1), tmp_path / "z-copy.safetensors", tmp_path / "broken.safetensors"
    for name in (copy, broken):
        name.write_bytes(latest.read_bytes())
        name.with_suffix(".json").write_bytes(latest.with_suffix(".json").read_bytes() if name == copy else b"{}")
        for file in (name, name.with_suffix(".json")):
            os.utime(file, (time.time() - 60, time.time() - 60))
    for _ in range(3):
        store.look_after_schedules()
    assert sorted(read) == ["broken.safetensors", "step1.safetensors", "z-copy.safetensors"]
    assert 'has no "family"' in (store.schedules().items[0].error or "")
    assert len(store.checkpoints().items) == 1
    with place.open() as other:  # knows from the database what is there
        other.look_after_schedules()
    assert read.count("z-copy.safetensors") == 1
    (tmp_path / "elsewhere").mkdir()
    latest.write_bytes(checkpoint(tmp_path / "elsewhere", 2).read_bytes())
    os.utime(latest, (time.time() - 30, time.time() - 30))
    store.look_after_schedules()
    assert len(store.checkpoints().items) == len(store.jobs().items) == 2


def test_checkpoint_that_cannot_be_taken_does_not_stop_the_others(store: Store, clock: Clock, tmp_path: Path) -> None:
    model = store.register_checkpoint(checkpoint(tmp_path, 2)).model
    store.add_checkpoint(model, sha256="0" * 64, step=1)  # without its file
    store.register_checkpoint(checkpoint(tmp_path, 3))
    store.add_schedule("ledger", model, cron="0 * * * *")
    clock.go(hours=2)
    store.look_after_schedules()
    assert "stored without its file" in (store.schedules().items[0].error or "")
    assert sorted(tasks(store)) == [("ledger", "step2"), ("ledger", "step3")]


def test_tracking_at_times(store: Store, clock: Clock) -> None:
    save_graph(store)
    store.add_schedule("track", "digits", cron="*/5 * * * *")
    clock.go(minutes=6)
    store.look_after_schedules()
    (job,) = store.jobs().items
    assert (job.task, job.target) == ("track", store.get_run("digits").id)


def test_experiments_at_times(store: Store, clock: Clock) -> None:
    """One for every partition of the model, those of others left alone; what is there is not asked for again."""
    graph = save_graph(store)
    partitions = [save_partition(store, graph.id, n).id for n in (1, 2)]
    store.register_model("another", "mlp", {})
    checkpoint = store.add_checkpoint("another", sha256="e" * 64)
    given = {"provenance": provenance(), "values": graph_values(), "blobs": {"graph": b"g"}}
    save_partition(store, store.save_graph(checkpoint.id, graph.dataset, **given).id)
    added = store.add_schedule("experiment", "digits", {"kind": "modules", "draws": 3}, cron="0 2 * * *", queue="gpu")
    store.look_after_schedules()
    assert store.jobs().items == ()
    store.run_schedule(added.id)
    store.look_after_schedules()
    jobs = store.jobs().items
    assert [job.target for job in jobs] == partitions
    assert {(job.task, job.queue, job.choices["kind"], job.choices["draws"]) for job in jobs} == {
        ("experiment", "gpu", "modules", 3)
    }
    assert store.get_schedule(added.id).jobs == tuple(job.id for job in jobs)
    third = save_partition(store, graph.id, 3).id
    clock.go(days=1, minutes=1)
    store.look_after_schedules()
    assert [job.target for job in store.jobs().items] == [*partitions, third]
    assert store.get_schedule(added.id).error is None


def test_model_may_come_later_and_removed_schedule_is_gone(store: Store, tmp_path: Path) -> None:
    added = store.add_schedule("ledger", "run")
    store.look_after_schedules()
    assert store.get_schedule(added.id).error is None
    store.remove_schedule(added.id)
    store.register_checkpoint(checkpoint(tmp_path, 1))
    store.look_after_schedules()
    assert store.jobs().items == ()
    with pytest.raises(NotFoundError, match="no schedule"):
        store.get_schedule(added.id)


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("fly", {}, "no task 'fly'"),
        ("ledger", {"choices": {"wings": 2}}, "no choice wings"),
        ("ledger", {"cron": "every day"}, "cannot read the time 'every day'"),
        ("ledger", {"cron": "* * * * * *"}, "five fields"),
        ("ledger", {"cron": "0 0 30 2 *"}, "never comes"),
        ("track", {}, "does not run on one checkpoint"),
        ("ledger", {"folder": "/nowhere"}, "not a folder"),
        ("ledger", {"timeout": -1}, "timeout is -1"),
        ("experiment", {}, "does not run on one checkpoint"),
        ("ledger", {"queue": "a b"}, "queue is 'a b'"),
        ("ledger", {"queue": ""}, "queue is ''"),
        ("ledger", {"priority": -1001}, "priority is -1001: expected -1000 to 1000"),
    ],
)
def test_senseless_schedules_are_refused(sqlite_place: Any, task: str, options: dict[str, Any], said: str) -> None:
    with sqlite_place.open() as store, pytest.raises(StoreError, match=said):
        store.add_schedule(task, "run", **options)


@pytest.mark.parametrize("name", ["run#2", "run@3", "last", " "])
def test_schedules_of_what_cannot_be_a_model_are_refused(sqlite_place: Any, name: str) -> None:
    with sqlite_place.open() as store, pytest.raises(StoreError, match="a model cannot be called"):
        store.add_schedule("track", name, cron="0 * * * *")


def test_worker_looks_after_schedules(store: Store, place: Any, start_worker: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    save_inputs(tmp_path / "x.npz")
    store.add_schedule("ledger", "run", {"data": str(tmp_path / "x.npz")}, folder=folder)
    start_worker()
    checkpoint(folder, 1)
    deadline = time.monotonic() + 300
    while not store.ledgers().items:
        assert time.monotonic() < deadline, store.jobs()
        time.sleep(0.2)
    assert store.get_checkpoint(store.ledgers().items[0].checkpoint).step == 1


def saved(folder: Path, step: int, size: str = "1GB") -> Path:
    """A folder of `save_pretrained` that was written some time ago."""
    place = folder / f"checkpoint-{step}"
    transformer("gpt2", seed=step).save_pretrained(place, max_shard_size=size)
    for file in place.iterdir():
        os.utime(file, (time.time() - 60, time.time() - 60))
    return place


def test_folders_of_save_pretrained_are_watched(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    added = store.add_schedule("ledger", "tiny", folder=folder)
    saved(folder, 1000)
    saved(folder, 200, "4KB")
    (folder / "checkpoint-last").mkdir()
    (folder / "checkpoint-3000").mkdir()  # nothing in it yet
    transformer("gpt2", seed=4).save_pretrained(folder / "checkpoint-4000")  # is still being written
    for _ in range(2):
        store.look_after_schedules()
    assert tasks(store) == [("ledger", "tiny checkpoint-200"), ("ledger", "tiny checkpoint-1000")]
    assert [row.step for row in store.checkpoints(model="tiny").items] == [200, 1000]
    assert store.get_schedule(added.id).error is None
    part = next((folder / "checkpoint-200").glob("model-00002-*"))
    part.rename(tmp_path / "moved")
    store.look_after_schedules()
    assert "lacks model-00002" in (store.get_schedule(added.id).error or "")
    (tmp_path / "moved").rename(part)
    os.utime(part, (time.time() - 30, time.time() - 30))
    (folder / "checkpoint-5000").symlink_to(tmp_path)
    outside = saved(tmp_path, 6000)
    (folder / "checkpoint-6000").symlink_to(outside)
    store.look_after_schedules()
    assert "leads out of" in (store.get_schedule(added.id).error or "")
    assert len(tasks(store)) == 2


def test_what_was_registered_before_is_not_read_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for step, size in ((10, "1GB"), (20, "4KB")):
        store.register_checkpoint(saved(folder, step, size))
    store.add_schedule("ledger", "tiny", folder=folder)
    monkeypatch.setattr(registry, "checkpoint_sha256", None)
    store.look_after_schedules()
    assert tasks(store) == []
