"""Runs: which training a checkpoint belongs to, on both databases."""

from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_mlp
from cases_store import graph_values, provenance, sha

from interbasis.service.api.app import create_app
from interbasis.service.api.guard import Limits
from interbasis.service.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.records.checkpoints import RUN, CheckpointRow
from interbasis.service.records.errors import ConflictError, NotFoundError, StoreError
from interbasis.service.store.store import Store


def added(store: Store, number: int, step: int | None = None, **about: Any) -> CheckpointRow:
    return store.add_checkpoint("digits", **{"sha256": sha(number), "step": step, **about})


def analysed(store: Store, checkpoint: CheckpointRow, number: int = 0) -> str:
    data = store.add_dataset(sha(99), "data").id
    given = {"values": graph_values(), "blobs": {"graph": f"{checkpoint.id} {number}".encode()}}
    return store.save_graph(checkpoint.id, data, provenance=provenance(number), **given).id


@pytest.fixture
def store(store: Store) -> Store:
    store.register_model("digits", "mlp", {"a": 1})
    return store


def numbers(store: Store, *rows: CheckpointRow) -> list[int]:
    return [store.get_run(row.run).number for row in rows]


def test_checkpoints_join_the_newest_run_until_a_step_is_taken(store: Store) -> None:
    rows = [added(store, 1, 0), added(store, 2, 100), added(store, 3, 0), added(store, 4, 100), added(store, 5, 200)]
    assert numbers(store, *rows) == [1, 1, 2, 2, 2]
    assert added(store, 2, 100) == rows[1], "the same file again is the same checkpoint"
    first, second = store.runs(model="digits").items
    assert (first.created < second.created, first.id != second.id) == (True, True)
    assert store.get_run("digits") == store.get_run("digits#2") == store.get_run(second.id[:7]) == second
    assert store.checkpoints(run="digits#1").items == tuple(rows[:2])
    assert store.checkpoints(model="digits").items == tuple(rows)


def test_without_a_step_the_label_tells_moments_apart(store: Store) -> None:
    rows = [added(store, 1, label="best"), added(store, 2, label="last"), added(store, 3, label="best")]
    assert numbers(store, *rows, added(store, 4), added(store, 5)) == [1, 1, 2, 2, 2]


def test_another_family_or_config_is_another_run(store: Store) -> None:
    rows = [added(store, 1, 0), added(store, 2, 0, config={"a": 2}), added(store, 3, 100, config={"a": 1})]
    assert numbers(store, *rows) == [1, 2, 1], "each joins the newest run of its own config"
    other = added(store, 1, 0, config={"a": 2}, family="other")
    assert numbers(store, other) == [3], "the same weights in another network"
    assert other.id != rows[0].id
    assert (store.get_model("digits").family, store.get_model("digits").config) == ("other", {"a": 2})


def test_a_named_run_is_kept_to(store: Store) -> None:
    rows = [added(store, n, n % 2, run="ab"[n // 2]) for n in (0, 2, 1, 3)]
    assert numbers(store, *rows) == [1, 2, 1, 2]
    assert [run.label for run in store.runs().items] == ["a", "b"]
    assert store.get_run("digits#b").number == 2
    assert numbers(store, added(store, 0, 0, run="b")) == [2], "the same file may belong to two runs"
    assert added(store, 0, 0) == rows[0]
    assert added(store, 9, 5, run=rows[0].run).run == rows[0].run, "named by its ID"
    with pytest.raises(ConflictError, match="the run 'a' of model 'digits' has family 'mlp' and config"):
        added(store, 7, 7, run="a", config={"a": 2})
    for wrong in ("", "a@b", "a\nb", "x" * 201):
        with pytest.raises(StoreError, match="a run cannot be called"):
            added(store, 8, 8, run=wrong)


def test_files_that_are_overwritten_and_trained_again(store: Store, tmp_path: Path) -> None:
    """The life of a folder: training, training again with another seed, then with another width."""
    rows = []
    for seed, widths in ((0, (4, 3)), (1, (4, 3)), (1, (4, 5, 3))):
        for step in (0, 10):
            path = save_mlp(tmp_path / f"step{step}.safetensors", widths, seed=seed + step, step=step, model="net")
            rows.append(store.register_checkpoint(path))
    assert numbers(store, *rows) == [1, 1, 2, 2, 3, 3]
    named = save_mlp(tmp_path / "step10.safetensors", (4, 3), seed=10, step=10, model="net", run="seed 0")
    assert store.get_run(store.register_checkpoint(named).run).label == "seed 0"
    assert store.get_checkpoint("net#2@10") == rows[3]


@pytest.mark.parametrize("through", ["store", "client"])
def test_files_registered_together_are_one_training(store: Store, tmp_path: Path, through: str) -> None:
    """Steps that the run before lacks come first, and would join it one by one."""

    def registered(**seeds: int) -> list[int]:
        """Register, in this order, a file of each step, trained from a seed; return the numbers of their runs."""
        files = [save(int(step[1:]), seed) for step, seed in seeds.items()]
        with (
            InProcess(create_app(store, Limits(roots=(tmp_path,)))) as transport,
            Client(transport=transport) as client,
        ):
            source = store if through == "store" else client
            with source.together(files):
                return numbers(store, *(source.register_checkpoint(file) for file in files))

    def save(step: int, seed: int) -> Path:
        file = tmp_path / f"step{step}.safetensors"
        return save_mlp(file, (4, 3), seed=1000 * seed + step, step=step, model="net")

    assert registered(_0=1, _100=1) == [1, 1]
    assert registered(_0=1, _50=1, _100=1, _200=1) == [1, 1, 1, 1], "no other content: the same training goes on"
    assert registered(_10=2, _30=2, _100=2) == [2, 2, 2]
    assert registered(_100=1, _10=3, _30=2, _60=3) == [1, 3, 2, 3], "what is stored stays where it is"
    assert registered(_70=4) == [3], "alone, it joins"
    with store.together([save(10, 5)]), store.together([]):
        pass
    assert numbers(store, store.register_checkpoint(save(80, 5))) == [3], "a call ends"


def test_named_runs_and_files_that_cannot_be_read_do_not_decide(store: Store, tmp_path: Path) -> None:
    files = [save_mlp(tmp_path / f"{n}.safetensors", (4, 3), seed=n, step=n % 2, model="net") for n in range(4)]
    named = save_mlp(tmp_path / "named.safetensors", (4, 3), seed=9, step=0, model="net", run="a")
    (tmp_path / "broken.json").write_text("no JSON")
    assert numbers(store, *map(store.register_checkpoint, files[:2])) == [1, 1]
    with store.together([named, tmp_path / "broken.safetensors", tmp_path / "gone.safetensors"]):
        rows = [store.register_checkpoint(named), added(store, 1)]
    assert (numbers(store, rows[0]), store.get_run(rows[0].run).label) == ([2], "a")


def test_numbers_of_removed_runs_are_not_used_again(store: Store) -> None:
    rows = [added(store, number, 0) for number in (1, 2, 3)]
    assert numbers(store, *rows) == [1, 2, 3]
    store.remove(RUN, "digits#3")
    store.remove(RUN, "digits#1")
    assert numbers(store, added(store, 4, 0)) == [4]
    store.remove(RUN, "digits#2")
    store.remove(RUN, "digits#4")
    again = added(store, 4, 0)
    assert (numbers(store, again), again.run not in {row.run for row in rows}) == ([5], True)


def test_what_the_newest_run_lacks_is_named_with_the_run_that_has_it(store: Store) -> None:
    rows = [added(store, number, 0) for number in (1, 2, 3)]
    graph = analysed(store, rows[1])
    hint = "no checkpoint of digits#3 has a graph yet; digits#2 has: digits#2@last"
    with pytest.raises(NotFoundError, match=hint):
        store.get_graph("digits@last")
    assert store.get_graph("digits#2@last").id == graph
    with pytest.raises(NotFoundError, match=r"no checkpoint of digits#3 has a partition yet$"):
        store.get_partition("digits@last")


def test_tracking_follows_the_newest_run_with_two_analysed_checkpoints(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no model or run 'nobody'"):
        store.followed_run("nobody")
    rows = [added(store, n, step) for n, step in enumerate((0, 100, 0, 100, 0))]
    graphs = [analysed(store, row) for row in rows[:3]]
    assert store.followed_run("digits").number == 1
    analysed(store, rows[3], 1)
    assert store.followed_run("digits").number == 1, "two checkpoints of run 2, but by two recipes"
    analysed(store, rows[3])
    assert store.followed_run("digits").number == 2
    assert store.followed_run("digits", like=graphs[0]).number == 1
    assert store.followed_run("digits#1").number == 1
    assert store.followed_run("digits#3").number == 3
    assert [graph.id for graph in store.graphs(run="digits#1").items] == graphs[:2]
    assert len(store.graphs(run="digits#2").items) == 3
    assert store.submit("track", "digits").target == store.get_run("digits#2").id
