"""The schema: made, compared, upgraded, refused."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from cases_store import (
    register,
    save_comparison,
    save_description,
    save_experiment,
    save_graph,
    save_ledger,
    save_llc,
    save_partition,
    save_tracking,
)
from sqlalchemy import Connection, inspect, text

from interbasis.service.records.checkpoints import RUN
from interbasis.service.records.errors import NewerSchemaError, OldSchemaError, StoreError
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.maintenance import Upgrade
from interbasis.service.records.partitions import PARTITION
from interbasis.service.storage import connection as connections
from interbasis.service.storage import schema
from interbasis.service.storage.location import locate
from interbasis.service.storage.tables import SCHEMA_REVISION, VERSION_TABLE, Base
from interbasis.service.store.store import Store

OURS = {*Base.metadata.tables, VERSION_TABLE}


@pytest.fixture
def connection(place: Any) -> Iterator[Connection]:
    """A writing connection to the empty database, committed by the test itself; set up as for an upgrade."""
    location = locate(place.url, place.artifacts)
    if location.file is not None:
        location.file.parent.mkdir(parents=True, exist_ok=True)
    engine = connections.connect(location, foreign_keys=False, pooled=False)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


@pytest.fixture
def upgraded(connection: Connection) -> Connection:
    """Such a connection to a database with the tables of now, which are copied: to make them takes longer."""
    return connection


def tables(connection: Connection) -> set[str]:
    found = set(inspect(connection).get_table_names())
    connection.rollback()
    return found


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.execute(text(statement))
    connection.commit()


def test_empty_database_gets_the_tables_of_the_models(place: Any, connection: Connection) -> None:
    assert Store.upgrade(place.url) == Upgrade(before=None, after=SCHEMA_REVISION)
    assert schema.schema_differences(connection) == ()
    assert tables(connection) == OURS
    assert Store.upgrade(place.url) == Upgrade(before=SCHEMA_REVISION, after=SCHEMA_REVISION)


def test_differences_are_seen(place: Any, upgraded: Connection) -> None:
    run(upgraded, "ALTER TABLE dataset ADD COLUMN extra INTEGER", "DROP INDEX ix_graph_dataset_key")
    found = " ".join(schema.schema_differences(upgraded))
    upgraded.rollback()
    assert "extra" in found
    assert "ix_graph_dataset_key" in found
    with place.open() as store:
        assert not store.check().ok


def test_names_of_constraints_are_those_of_the_models(place: Any, upgraded: Connection) -> None:
    inspector = inspect(upgraded)
    for table in Base.metadata.sorted_tables:
        named = {item["name"] for item in inspector.get_foreign_keys(table.name)}
        named |= {item["name"] for item in inspector.get_unique_constraints(table.name)}
        named.add(inspector.get_pk_constraint(table.name)["name"])
        assert named == {constraint.name for constraint in table.constraints}
    for table in Base.metadata.sorted_tables:
        rules = {key.name: key.ondelete for key in table.foreign_key_constraints}
        found = {key["name"]: key["options"].get("ondelete") for key in inspector.get_foreign_keys(table.name)}
        assert found == rules


def test_head_is_the_revision_that_the_code_expects() -> None:
    script = ScriptDirectory.from_config(schema.migration_config())
    assert script.get_heads() == [SCHEMA_REVISION]


def test_back_to_nothing_and_up_again(place: Any, upgraded: Connection) -> None:
    command.downgrade(schema.migration_config(upgraded), "base")
    upgraded.commit()
    assert tables(upgraded) == {VERSION_TABLE}
    assert Store.upgrade(place.url).before is None
    with place.open() as store:
        save_partition(store, save_graph(store).id)
        assert store.check().ok


def test_results_of_the_first_schema_are_kept(place: Any, upgraded: Connection) -> None:
    """A partition stored by version 0.1 is there after the upgrade, with nothing made up for what it lacks."""
    command.downgrade(schema.migration_config(upgraded), "0001")
    upgraded.commit()
    moment = "2026-01-01 00:00:00+00:00" if place.kind == "postgresql" else "2026-01-01 00:00:00.000000"
    origin = f"'{{}}', '{'a' * 64}', '0.1.0', 0, 1.5, '{moment}'"
    names = "recipe, recipe_hash, code_version, seed, wall_time, created"
    run(
        upgraded,
        f"INSERT INTO model VALUES (1, 'm-1', '{moment}', 'net', 'mlp', '{{}}')",
        f"INSERT INTO dataset VALUES (1, 'd-1', '{moment}', '{'b' * 64}', 'data')",
        f"INSERT INTO artifact VALUES ('{'c' * 64}', 'cc/c', 3, '{moment}')",
        "INSERT INTO checkpoint (key, id, created, model_key, sha256, step, family, config) "
        f"VALUES (1, 'c-1', '{moment}', 1, '{'d' * 64}', 7, 'mlp', '{{}}')",
        f"INSERT INTO graph (key, id, {names}, checkpoint_key, dataset_key, cuts, widths, basis, strengths, n_nodes, "
        f"n_edges, graph_sha256) VALUES (1, 'g-1', {origin}, 1, 1, '[\"a\", \"b\"]', '[1, 1]', 'global', "
        f"'jacobian', 2, 1, '{'c' * 64}')",
        f"INSERT INTO partition (key, id, {names}, graph_key, n_modules, edge_cost, mediator_cost, quality, objective, "
        f"resolution, epsilon, contrast, partition_sha256) VALUES (1, 'p-1', {origin}, 1, 1, 0.5, 0.25, 1.0, "
        f"'layered_cpm', 1.0, 0.01, 0.9, '{'c' * 64}')",
        "INSERT INTO module VALUES (1, 0, 2, '[\"a\", \"b\"]', '[1, 1]', 0.5, 0.0)",
        "INSERT INTO node_assignment VALUES (1, 0, 0, 0, 1.0), (1, 1, 0, 0, 2.0)",
    )
    assert Store.upgrade(place.url) == Upgrade(before="0001", after=SCHEMA_REVISION)
    with place.open() as store:
        partition = store.get_partition("p-1")
        assert (partition.n_modules, partition.edge_cost, partition.model) == (1, 0.5, "net")
        assert (partition.epsilons, partition.z, partition.warning, partition.polished) == (None,) * 4
        assert [(node.importance, node.confidence) for node in store.nodes("p-1")] == [(1.0, None), (2.0, None)]
        assert store.mediators("p-1") == ()
        assert store.check().schema == ()


def test_results_of_the_second_schema_are_kept(place: Any, upgraded: Connection) -> None:
    """Graphs, partitions with mediators, and trackings, in tables that later revisions rebuilt and refer to."""
    with place.open() as store:
        graphs = [save_graph(store, n) for n in (0, 1)]
        partition = save_partition(store, graphs[0].id)
        tracking = save_tracking(store, [graph.id for graph in graphs])
        nodes, mediators = store.nodes(partition.id), store.mediators(partition.id)
        checkpoint = store.get_checkpoint(graphs[0].checkpoint)
    command.downgrade(schema.migration_config(upgraded), "0002")
    upgraded.commit()
    later = {
        "ledger",
        "llc_estimate",
        "experiment",
        "job",
        "worker",
        "schedule",
        "token",
        "run",
        "label",
        "description",
        "comparison",
    }
    assert tables(upgraded) == OURS - later
    assert Store.upgrade(place.url) == Upgrade(before="0002", after=SCHEMA_REVISION)
    with place.open() as store:
        assert store.graphs().items == tuple(graphs)
        assert replace(store.get_partition(partition.id), verdict=None, reason=None) == partition
        assert (store.nodes(partition.id), store.mediators(partition.id)) == (nodes, mediators)
        assert (len(nodes), len(mediators)) == (9, 2)
        assert store.get_tracking(tracking.id) == tracking
        assert store.get_checkpoint(checkpoint.id) == checkpoint
        assert store.graph_bytes(graphs[1].id)
        assert save_ledger(store).checkpoint == checkpoint.id
        assert save_experiment(store, partition.id).partition == partition.id
        assert store.check().ok


def test_ledgers_are_kept_and_learning_coefficients_added(place: Any, upgraded: Connection) -> None:
    with place.open() as store:
        ledger = save_ledger(store)
    command.downgrade(schema.migration_config(upgraded), "0003")
    upgraded.commit()
    assert tables(upgraded) == OURS - {
        "comparison",
        "description",
        "experiment",
        "llc_estimate",
        "job",
        "worker",
        "schedule",
        "token",
        "run",
        "label",
    }
    assert Store.upgrade(place.url) == Upgrade(before="0003", after=SCHEMA_REVISION)
    with place.open() as store:
        assert store.get_ledger(ledger.id) == ledger
        assert store.llcs().items == ()
        assert save_llc(store).checkpoint == ledger.checkpoint
        assert store.check().ok


def test_learning_coefficients_are_kept_and_jobs_added(place: Any, upgraded: Connection) -> None:
    with place.open() as store:
        estimate = save_llc(store)
    command.downgrade(schema.migration_config(upgraded), "0004")
    upgraded.commit()
    assert Store.upgrade(place.url) == Upgrade(before="0004", after=SCHEMA_REVISION)
    with place.open() as store:
        assert store.get_llc(estimate.id) == estimate
        assert store.jobs().items == ()
        assert store.check().ok


def test_results_are_kept_and_experiments_added(place: Any, upgraded: Connection) -> None:
    with place.open() as store:
        partition = save_partition(store, save_graph(store).id)
        token = store.new_token("me")
        schedules = [
            store.add_schedule("partition", "digits", {"k": 2}, cron="0 2 * * *", queue="gpu", priority=-3),
            store.add_schedule("ledger", "digits", {"epsilon": 0.1}, timeout=60.0),
        ]
        waiting, running, done, failed = (store.submit("partition", partition.graph, {"k": k}) for k in (2, 3, 4, 5))
        for job in (running, done, failed):
            store.begin_job(job.id, 1, "w")
        store.report_job(running.id, "w", step="partition", fraction=0.5, message="half", remaining=2.0)
        store.end_job(done.id, 1, "w", "succeeded", results=[{"kind": "partition", "id": partition.id}])
        store.end_job(failed.id, 1, "w", "failed", error="no")
        store.beat("w")
        jobs = store.jobs()
    command.downgrade(schema.migration_config(upgraded), "0006")
    upgraded.commit()
    assert "experiment" not in tables(upgraded)
    assert Store.upgrade(place.url) == Upgrade(before="0006", after=SCHEMA_REVISION)
    with place.open() as store:
        assert replace(store.get_partition(partition.id), verdict=None, reason=None) == partition
        assert store.scope_of(token.token) == "read"
        meant = {"chains": "count"}  # the default when they were asked for
        schedules[0] = replace(schedules[0], choices={"k": 2, **meant})
        assert store.schedules().items == tuple(schedules)
        assert store.jobs().items == tuple(replace(job, choices={**job.choices, **meant}) for job in jobs.items)
        assert [job.state for job in jobs.items] == ["queued", "running", "succeeded", "failed"]
        assert [job.id for job in store.waiting_jobs()] == [waiting.id]
        assert store.submit("partition", partition.graph, {"k": 4, **meant}) == store.get_job(done.id)
        assert [row.id for row in store.workers()] == ["w"]
        assert save_experiment(store, partition.id).partition == partition.id
        assert store.check().ok


def test_jobs_and_checkpoints_are_kept_and_the_service_added(place: Any, upgraded: Connection, tmp_path: Path) -> None:
    """A job that waits is still there, and so is what the new columns hold back to before and up again."""
    with place.open() as store:
        graph = save_graph(store)
        job = store.submit("partition", graph.id, {"k": 2}, priority=3)
        store.new_token("me")
        store.add_schedule("track", "net", cron="0 2 * * *")
    command.downgrade(schema.migration_config(upgraded), "0005")
    upgraded.commit()
    assert {"schedule", "token"} & tables(upgraded) == set()
    run(upgraded, f"UPDATE job SET target = '{tmp_path / 'a.safetensors'}', choices = '{{\"k\": 2}}'")
    assert Store.upgrade(place.url) == Upgrade(before="0005", after=SCHEMA_REVISION)
    with place.open() as store:
        kept = store.get_job(job.id)
        assert (kept.target, kept.queue, kept.version) == (str(tmp_path / "a.safetensors"), "default", 1)
        assert (kept.choices, kept.priority, kept.state) == ({"k": 2, "chains": "count"}, 3, "queued")
        assert store.get_graph(graph.id) == graph
        assert store.get_checkpoint(graph.checkpoint).about is None
        assert (store.needs_token(), store.schedules().items) == (False, ())
        assert store.check().ok


def test_opening_upgrades_sqlite_and_refuses_postgresql(place: Any) -> None:
    if place.kind == "sqlite":
        with place.open() as store:
            assert store.check().ok
    else:
        with pytest.raises(OldSchemaError, match="is empty: run `interbasis db upgrade`"):
            place.open()


def test_newer_schema_is_refused_and_left_alone(place: Any, upgraded: Connection) -> None:
    run(upgraded, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for attempt in (place.open, lambda: Store.upgrade(place.url)):
        with pytest.raises(NewerSchemaError, match=r"has schema 9999.*upgrade interbasis"):
            attempt()
    assert upgraded.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == "9999"


def test_tables_of_others_are_not_touched(place: Any, connection: Connection) -> None:
    run(connection, "CREATE TABLE workflow_status (id INTEGER PRIMARY KEY)", "INSERT INTO workflow_status VALUES (7)")
    Store.upgrade(place.url)
    assert schema.schema_differences(connection) == ()
    connection.rollback()
    command.downgrade(schema.migration_config(connection), "base")
    connection.commit()
    assert tables(connection) == {VERSION_TABLE, "workflow_status"}
    assert connection.execute(text("SELECT id FROM workflow_status")).scalar() == 7


def test_database_of_someone_else_is_refused(place: Any, connection: Connection) -> None:
    run(connection, "CREATE TABLE model (id INTEGER PRIMARY KEY)")
    for attempt in (place.open, lambda: Store.upgrade(place.url)):
        with pytest.raises(StoreError, match="tables model that interbasis did not make"):
            attempt()
    assert tables(connection) == {"model"}


def test_failing_upgrade_changes_nothing(place: Any, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StoreError("halfway")

    monkeypatch.setattr(schema, "_require_foreign_keys", fail)
    with pytest.raises(StoreError, match="halfway"):
        Store.upgrade(place.url)
    assert tables(connection) == set()


def test_processes_that_upgrade_at_once(place: Any, python: str) -> None:
    code = f"from interbasis.service.store import Store; Store.upgrade({place.url!r})"
    processes = [subprocess.Popen([python, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert errors == ["", "", ""]
    with place.open() as store:
        assert store.check().ok


def test_alembic_alone_is_refused() -> None:
    with pytest.raises(SystemExit, match="interbasis db upgrade"):
        command.upgrade(schema.migration_config(), "head")


def test_partitions_get_the_verdicts_of_their_files(place: Any, upgraded: Connection) -> None:
    with place.open() as store:
        graph = save_graph(store).id
        tested, untested, one, told, chance = (save_partition(store, graph, n).id for n in range(5))
        experiment = save_experiment(store, tested).id
    command.downgrade(schema.migration_config(upgraded), "0007")
    upgraded.commit()
    run(
        upgraded,
        f"UPDATE partition SET p_value = NULL WHERE id IN ('{untested}', '{one}')",
        f"UPDATE partition SET n_modules = 1 WHERE id IN ('{one}', '{told}')",
        f"UPDATE partition SET warning = 'one module: entangled' WHERE id = '{told}'",
        f"UPDATE partition SET warning = 'no more modular than chance' WHERE id = '{chance}'",
    )
    assert Store.upgrade(place.url) == Upgrade(before="0007", after=SCHEMA_REVISION)
    with place.open() as store:
        found = {row.id: (row.verdict, row.reason) for row in store.partitions().items}
        assert [found[name][0] for name in (tested, untested, one, told, chance)] == [
            *("untested", "untested", "one module", "one module", "not told apart from chance")
        ]
        assert (found[one][1], found[told][1]) == ("no division was asked for", "entangled")
        assert all(reason for _, reason in found.values())
        assert store.get_experiment(experiment).verdict is None
        assert store.check().ok


def test_every_model_gets_a_run(place: Any, upgraded: Connection) -> None:
    """With its family and config, its checkpoints and its trackings; the same rows as from the beginning."""
    with place.open() as store:
        graphs = [save_graph(store, n).id for n in (0, 1)]
        tracking = save_tracking(store, graphs)
        store.register_model("empty", "mlp", {"widths": [1]})
        checkpoint, run = store.get_checkpoint("digits@100"), store.get_run("digits")
        models = store.models()
    command.downgrade(schema.migration_config(upgraded), "0008")
    upgraded.commit()
    assert "run" not in tables(upgraded)
    assert Store.upgrade(place.url) == Upgrade(before="0008", after=SCHEMA_REVISION)
    with place.open() as store:
        assert store.models() == models
        first, other = store.runs().items
        assert first == replace(run, created=models.items[0].created)
        assert (other.model, other.number, other.config) == ("empty", 1, {"widths": [1]})
        assert (first.number, first.label, first.family, first.config) == (1, None, "mlp", {"widths": [3, 4, 2]})
        assert store.checkpoints(run="digits").items == (checkpoint,)
        assert store.get_tracking(tracking.id) == tracking
        assert store.add_checkpoint("digits", sha256="f" * 64, step=200).run == first.id
        assert store.add_checkpoint("empty", sha256="f" * 64, step=200).run == other.id
        assert store.check().ok


def test_models_know_the_largest_number_of_their_runs(place: Any, upgraded: Connection) -> None:
    """Of a store of before: that of its runs, which stay as they are."""
    with place.open() as store:
        for name in ("net", "empty"):
            store.register_model(name, "mlp", {})
        for number in "abc":
            store.add_checkpoint("net", sha256=number * 64, step=0)
        store.remove(RUN, "net#2")
        models, runs = store.models(), store.runs()
    command.downgrade(schema.migration_config(upgraded), "0010")
    upgraded.commit()
    assert "n_runs" not in {column["name"] for column in inspect(upgraded).get_columns("model")}
    upgraded.rollback()
    assert Store.upgrade(place.url) == Upgrade(before="0010", after=SCHEMA_REVISION)
    with place.open() as store:
        assert (store.models(), store.runs()) == (models, runs)
        made = [store.add_checkpoint(name, sha256="d" * 64, step=0).run for name in ("net", "empty")]
        assert [store.get_run(run).number for run in made] == [4, 1]
        assert store.check().ok


def test_results_are_kept_and_labels_added(place: Any, upgraded: Connection) -> None:
    with place.open() as store:
        partition = save_partition(store, save_graph(store).id)
        store.put_labels(PARTITION, partition.id, [NewLabel(text="left", author="ada", module=0)])
    command.downgrade(schema.migration_config(upgraded), "0012")
    upgraded.commit()
    assert tables(upgraded) == OURS - {"label", "description", "comparison"}
    assert Store.upgrade(place.url) == Upgrade(before="0012", after=SCHEMA_REVISION)
    with place.open() as store:
        assert store.get_partition(partition.id) == partition
        assert store.labels(PARTITION, partition.id) == ()
        store.put_labels(PARTITION, partition.id, [NewLabel(text="left", author="ada", module=0)])
        assert [label.text for label in store.labels(PARTITION, partition.id)] == ["left"]
        assert store.check().ok


def test_results_are_kept_and_descriptions_added(place: Any, upgraded: Connection) -> None:
    with place.open() as store:
        partition = save_partition(store, save_graph(store).id)
        save_description(store, partition.id)
    command.downgrade(schema.migration_config(upgraded), "0013")
    upgraded.commit()
    assert tables(upgraded) == OURS - {"description", "comparison"}
    assert Store.upgrade(place.url) == Upgrade(before="0013", after=SCHEMA_REVISION)
    with place.open() as store:
        assert store.get_partition(partition.id) == partition
        assert store.descriptions().items == ()
        assert save_description(store, partition.id).partition == partition.id
        assert store.check().ok


def test_results_are_kept_and_comparisons_added(place: Any, upgraded: Connection) -> None:
    with place.open() as store:
        partition = save_partition(store, save_graph(store).id)
        save_comparison(store, partition.id, partition.id)
    command.downgrade(schema.migration_config(upgraded), "0014")
    upgraded.commit()
    assert tables(upgraded) == OURS - {"comparison"}
    assert Store.upgrade(place.url) == Upgrade(before="0014", after=SCHEMA_REVISION)
    with place.open() as store:
        assert store.get_partition(partition.id) == partition
        assert store.comparisons().items == ()
        assert save_comparison(store, partition.id).other is None
        assert store.check().ok


def test_jobs_and_schedules_keep_the_defaults_that_they_meant(place: Any, upgraded: Connection) -> None:
    """Whatever the default is by now, for waiting and running jobs, for those tried again, and for schedules."""
    with place.open() as store:
        register(store)
        plain = {"basis": "local"}
        schedules = [store.add_schedule(task, "digits", {}).id for task in ("analyze", "ledger")]
        schedules.append(store.add_schedule("analyze", "digits", {"output": "neuron"}).id)
        schedules.append(store.add_schedule("experiment", "digits", {"draws": 3}, cron="0 2 * * *").id)
        partition = save_partition(store, save_graph(store).id).id
        experiment = store.submit("experiment", partition)
        asked = [store.submit("analyze", "digits@100", given) for given in (plain, {"output": "neuron"}, {})]
        ledger = store.submit("ledger", "digits@100")
        for job, state in zip(asked[1:], ("failed", "succeeded"), strict=True):
            store.begin_job(job.id, 1, "w")
            store.end_job(job.id, 1, "w", state)
    command.downgrade(schema.migration_config(upgraded), "0007")
    upgraded.commit()
    Store.upgrade(place.url)
    with place.open() as store:
        old = {"chains": "count", "control": False}
        meant = [
            {"output": "pca", **old},
            {},
            {"output": "neuron", **old},
            {"draws": 3, "kind": "isolate"},
        ]
        assert [store.get_schedule(ref).choices for ref in schedules] == meant
        assert store.get_job(experiment.id).choices == {"kind": "isolate"}
        assert store.submit("experiment", partition, {"kind": "isolate"}).id == experiment.id
        assert store.get_job(asked[0].id).choices == {"basis": "local", "output": "pca", **old}
        assert store.get_job(asked[1].id) == replace(store.get_job(asked[1].id), choices={"output": "neuron", **old})
        assert store.get_job(ledger.id).choices == {}
        assert store.submit("analyze", "digits@100", {"output": "pca", **old}).id == asked[2].id
        assert store.submit("analyze", "digits@100").id not in [job.id for job in asked]


def test_jobs_that_named_a_default_and_that_did_not_stay_two(place: Any, upgraded: Connection) -> None:
    """Their choices become the same: the digest, which is unique, goes to the one that named it."""
    with place.open() as store:
        partition = save_partition(store, save_graph(store).id).id
        open_, named = (store.submit("experiment", partition, given) for given in ({}, {"kind": "isolate"}))
    command.downgrade(schema.migration_config(upgraded), "0007")
    upgraded.commit()
    assert Store.upgrade(place.url) == Upgrade(before="0007", after=SCHEMA_REVISION)
    with place.open() as store:
        assert [store.get_job(job.id).choices for job in (open_, named)] == [{"kind": "isolate"}] * 2
        assert store.submit("experiment", partition, {"kind": "isolate"}).id == named.id
