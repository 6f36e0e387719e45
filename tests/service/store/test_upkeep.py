"""What is removed, renamed and relocated, on both databases and through the client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_store import (
    graph_values,
    partition_parts,
    partition_values,
    provenance,
    register,
    save_experiment,
    save_graph,
    save_ledger,
    save_llc,
    save_partition,
    save_tracking,
    sha,
)
from cases_transformers import transformer

from interbasis.analysis.recipe import LedgerRecipe
from interbasis.service.api.app import create_app
from interbasis.service.api.guard import Limits
from interbasis.service.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.records import (
    CHECKPOINT,
    EXPERIMENT,
    GRAPH,
    KINDS,
    MODEL,
    PARTITION,
    RUN,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    StoreError,
)
from interbasis.service.store.store import Store
from interbasis.service.tasks import estimates
from interbasis.service.tasks.checkout import checked_out


@pytest.fixture
def filled(store: Store) -> Store:
    """Two runs of one model, the first with a result of every kind, the second with a graph and its partition."""
    graph = save_graph(store)
    save_experiment(store, save_partition(store, graph.id).id)
    save_ledger(store)
    save_llc(store)
    save_tracking(store, [graph.id])
    other = store.add_checkpoint("digits", sha256=sha(7), step=100, config={"b": 1})
    values = {"provenance": provenance(), "values": graph_values(), "blobs": {"graph": b"other"}}
    second = store.save_graph(other.id, graph.dataset, **values)
    save_partition(store, second.id)
    return store


@pytest.fixture
def client(filled: Store, tmp_path: Path) -> Iterator[Client]:
    with Client("http://127.0.0.1", transport=InProcess(create_app(filled, Limits(roots=(tmp_path,))))) as opened:
        yield opened


def counts(store: Store) -> dict[str, int]:
    return {name: n for name in KINDS if (n := len(getattr(store, f"{name}s")().items))}


ALL = {"model": 1, "run": 2, "checkpoint": 2, "dataset": 1, "graph": 2, "partition": 2}
ALL |= {"ledger": 1, "llc": 1, "experiment": 1, "tracking": 1}


@pytest.mark.parametrize(
    ("kind", "ref", "along", "left"),
    [
        ("model", "digits", {"runs": 2, "checkpoints": 2, "graphs": 2, "partitions": 2}, {"dataset": 1}),
        ("run", "digits#2", {"checkpoints": 1, "graphs": 1, "partitions": 1}, None),
        ("checkpoint", "digits#2@100", {"graphs": 1, "partitions": 1}, None),
        ("graph", "digits#1@100", {"partitions": 1, "experiments": 1, "trackings": 1}, None),
        ("partition", "digits#1@100", {"experiments": 1}, None),
        ("experiment", "last", {}, None),
        ("tracking", "digits#1@last", {}, None),
        ("dataset", "last", {"graphs": 2, "partitions": 2}, {"model": 1, "run": 2, "checkpoint": 2}),
    ],
)
def test_all_that_belongs_to_it_goes(filled: Store, kind: str, ref: str, along: Any, left: Any) -> None:
    if left is not None:
        along = along | dict.fromkeys(("ledgers", "llc", "experiments", "trackings"), 1)
    assert counts(filled) == ALL
    planned = filled.removal(KINDS[kind], ref)
    assert (planned.kind, planned.id, planned.along) == (kind, filled.get(KINDS[kind], ref).id, along)
    assert counts(filled) == ALL, "a look removes nothing"
    assert filled.remove(KINDS[kind], ref) == planned
    gone = {kind: 1} | {one.name: along.get(one.plural, 0) for one in KINDS.values() if one.name != kind}
    expected = {name: n - gone[name] for name, n in ALL.items() if n > gone[name]}
    assert counts(filled) == expected
    assert left in (None, expected)
    with pytest.raises(NotFoundError):
        filled.removal(KINDS[kind], planned.id)
    assert filled.check().ok


def test_files_that_nothing_refers_to_are_collected(filled: Store) -> None:
    kept = save_partition(filled, filled.get_graph("digits@100").id)
    before = filled.check()
    assert before.uncollected == ()
    filled.remove(RUN, "digits#1")
    gone = filled.check()
    assert (gone.ok, len(gone.uncollected)) == (True, before.n_artifacts - gone.n_artifacts)
    assert len(filled.collect(0).files) == len(gone.uncollected) == 7
    assert filled.partition_bytes(kept.id)
    assert filled.check().ok


def test_names_of_what_is_removed_and_the_config_of_the_run_that_is_left(filled: Store) -> None:
    names = [filled.removal(kind, "digits#2@100").name for kind in (CHECKPOINT, GRAPH, PARTITION)]
    assert names == ["digits#2@100"] * 3
    assert [filled.removal(kind, "digits").name for kind in (MODEL, RUN)] == ["digits", "digits#2"]
    assert filled.get_model("digits").config == {"b": 1}
    filled.remove(RUN, "digits")
    assert filled.get_model("digits").config == {"widths": [3, 4, 2]}
    filled.remove(CHECKPOINT, "digits@100")
    assert filled.add_checkpoint("digits", sha256=sha(8), step=100).run == filled.get_run("digits#1").id


def test_what_a_job_works_on_stays(filled: Store) -> None:
    graph = filled.get_graph("digits#1@100").id
    job = filled.submit("partition", graph, {"k": 2})
    for kind, ref in ((MODEL, "digits"), (RUN, "digits#1"), (CHECKPOINT, "digits#1@100"), (GRAPH, graph)):
        with pytest.raises(ConflictError, match=f"the job {job.id} .partition {graph}. waits.*interbasis cancel"):
            filled.remove(kind, ref)
    filled.begin_job(job.id, 1, "w")
    with pytest.raises(ConflictError, match=f"{job.id} .* is running"):
        filled.rename_model("digits", "other")
    filled.remove(RUN, "digits#2")
    filled.remove(EXPERIMENT, "last")
    filled.end_job(job.id, 1, "w", "succeeded")
    tracking = filled.submit("track", "digits#1")
    with pytest.raises(ConflictError, match=tracking.id):
        filled.remove(GRAPH, graph)
    filled.cancel_job(tracking.id)
    filled.remove(MODEL, "digits")
    assert [row.id for row in filled.jobs().items] == [job.id, tracking.id], "what was done is still said"


def test_schedules_that_follow_it_go_along(filled: Store, client: Client) -> None:
    filled.register_model("letters", "mlp", {})
    by_name, by_id, other = (
        filled.add_schedule("track", ref, cron="0 2 * * *").id
        for ref in ("digits", filled.get_model("digits").id, "letters")
    )
    assert filled.removal(MODEL, "digits").schedules == (by_name, by_id)
    assert filled.removal(CHECKPOINT, "digits@100").schedules == ()
    assert client.removal(RUN, "digits#2").schedules == client.remove(RUN, "digits#2").schedules == ()
    assert filled.remove(MODEL, "digits").schedules == (by_name, by_id)
    assert [row.id for row in filled.schedules().items] == [other]


def test_tracking_of_before_does_not_keep_a_run(filled: Store) -> None:
    """Neither a job that has ended, nor one of another run."""
    job = filled.submit("track", "digits#1")
    filled.remove(RUN, "digits#2")
    filled.begin_job(job.id, 1, "w")
    filled.end_job(job.id, 1, "w", "failed", error="no")
    assert filled.remove(RUN, "digits#1").along["trackings"] == 1
    assert filled.get_job(job.id).target_name is None


def test_work_whose_result_was_removed_is_done_again_when_asked_for(filled: Store) -> None:
    graph = filled.get_graph("digits@100").id
    job = filled.submit("partition", graph, {"k": 2})
    filled.begin_job(job.id, 1, "w")
    given = {"provenance": provenance(9), "values": partition_values(), **partition_parts()}
    made = filled.save_partition(graph, **given, blobs={"partition": b"by the job"})
    filled.end_job(job.id, 1, "w", "succeeded", results=[{"kind": "partition", "id": made.id}])
    assert filled.submit("partition", graph, {"k": 2}).state == "succeeded"
    filled.remove(PARTITION, made.id)
    assert filled.submit("partition", graph, {"k": 2}, again=False).state == "succeeded", "as schedules ask"
    again = filled.submit("partition", graph, {"k": 2})
    assert (again.id, again.state, again.run) == (job.id, "queued", 2)


def test_a_model_gets_another_name(store: Store, tmp_path: Path) -> None:
    store.register_checkpoint(save_mlp(tmp_path / "a.safetensors", model="net", step=1))
    follows, watches = (store.add_schedule("ledger", "net", folder=folder).id for folder in (None, tmp_path))
    row = store.rename_model("net", "wide net")
    assert (row.name, row.id) == ("wide net", store.get_checkpoint("wide net@1").about and row.id)
    assert store.get_checkpoint("wide net@1").about == store.get_checkpoint("wide net@1").about | {"model": "wide net"}
    assert (store.get_schedule(follows).model, store.get_schedule(watches).model) == ("wide net", "net")
    with pytest.raises(NotFoundError, match="no model 'net'"):
        store.get_model("net")
    register(store)
    with pytest.raises(ConflictError, match=f"{row.id} is called 'wide net' already"):
        store.rename_model("digits", "wide net")
    with pytest.raises(StoreError, match="a model cannot be called"):
        store.rename_model("digits", "a@b")
    assert store.rename_model("digits", "digits").name == "digits"
    again = store.register_checkpoint(tmp_path / "a.safetensors")
    assert (again.model, again.id == store.get_checkpoint("wide net@1").id) == ("net", False)


def test_a_checkpoint_whose_file_has_moved(store: Store, tmp_path: Path) -> None:
    """Jobs find it again; another file is refused."""
    save_inputs(tmp_path / "x.npz")
    file = save_mlp(tmp_path / "a.safetensors", model="net", step=1)
    row = store.register_checkpoint(file)
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved" / "b.safetensors")
    other = save_mlp(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(StoreError, match=f"other.safetensors is not the file of {row.id}: it has SHA-256"):
        store.relocate_checkpoint("net@1", other)
    with pytest.raises(StoreError, match="cannot read"):
        store.relocate_checkpoint("net@1", file)
    assert store.relocate_checkpoint("net@1", moved).path == str(moved)
    with Client("http://127.0.0.1", transport=InProcess(create_app(store))) as client:
        kept = client.relocate_checkpoint("net@1", moved)  # no folder that the service may read: it is uploaded
        assert (kept.file_sha256, kept.path) == (row.sha256, str(moved))
    file.with_suffix(".json").rename(moved.with_suffix(".json"))
    assert estimates.ledger(store, moved, LedgerRecipe(), data=tmp_path / "x.npz").checkpoint == row.id


@pytest.mark.parametrize("size", ["1GB", "4KB"])
def test_a_folder_of_save_pretrained_that_has_moved(size: str, store: Store, tmp_path: Path) -> None:
    """Weights in one file are uploaded where the service may not read them, those in several are refused."""
    transformer("gpt2").save_pretrained(tmp_path / "tiny" / "checkpoint-7", max_shard_size=size)
    row = store.register_checkpoint(tmp_path / "tiny" / "checkpoint-7")
    moved = (tmp_path / "tiny").rename(tmp_path / "elsewhere") / "checkpoint-7"
    name = "model.safetensors" if size == "1GB" else "model.safetensors.index.json"
    assert store.relocate_checkpoint(row.id, moved).path == str(moved / name)
    with checked_out(store, row.id) as (_, file):
        assert file.name == name
    transformer("gpt2", seed=1).save_pretrained(tmp_path / "other", max_shard_size=size)
    with pytest.raises(StoreError, match=f"other is not the file of {row.id}"):
        store.relocate_checkpoint(row.id, tmp_path / "other")
    with pytest.raises(StoreError, match=r"is a folder without config\.json"):
        store.relocate_checkpoint(row.id, tmp_path)
    with Client("http://127.0.0.1", transport=InProcess(create_app(store))) as client:
        if size == "1GB":
            assert client.relocate_checkpoint(row.id, moved).file_sha256 == row.sha256
            return
        with pytest.raises(StoreError, match="weights are in several files, which are not uploaded: write them as one"):
            client.relocate_checkpoint(row.id, moved)


def test_through_the_service(filled: Store, client: Client, tmp_path: Path) -> None:
    planned = client.removal(RUN, "digits#2")
    assert planned == filled.removal(RUN, "digits#2")
    assert client.remove(RUN, "digits#2") == planned
    with pytest.raises(NotFoundError, match="no model or run 'digits#2'"):
        client.remove(RUN, "digits#2")
    assert client.rename_model("digits", "letters") == filled.get_model("letters")
    row = client.register_checkpoint(save_mlp(tmp_path / "a.safetensors", model="net", step=1))
    moved = (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    assert client.relocate_checkpoint(row.id, moved).path == str(moved)
    token = filled.new_token("me", "submit").token
    with Client("http://127.0.0.1", token, transport=InProcess(create_app(filled))) as stranger:
        with pytest.raises(ForbiddenError, match="a token of scope admin"):
            stranger.remove(MODEL, "letters")
        assert stranger.removal(MODEL, "letters").along["runs"] == 1
