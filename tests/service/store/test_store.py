"""The contract of the store, kept on SQLite and on PostgreSQL by the same tests."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from interbasis.service.records.base import Provenance
from interbasis.service.records.errors import AmbiguousError, ArtifactError, NotFoundError, StoreError
from interbasis.service.records.graphs import GraphValues
from interbasis.service.records.partitions import PartitionValues
from interbasis.service.store import store as module
from interbasis.service.store.store import Store

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(texts, json_values, max_size=4)
given_values = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def artifact_file(store: Store, sha256: str) -> Path:
    path = store.blobs.path(sha256)
    assert path is not None
    return path


class TestStore:
    def test_model_comes_back_by_id_name_and_start_of_id(self, store: Store) -> None:
        model = store.register_model("digits", "mlp", {"widths": [3, 4]})
        assert (model.name, model.family, model.config) == ("digits", "mlp", {"widths": [3, 4]})
        assert model.created.tzinfo is UTC
        assert abs((datetime.now(UTC) - model.created).total_seconds()) < 60
        assert [store.get_model(ref) for ref in (model.id, "digits", model.id[:5])] == [model] * 3

    def test_registering_again_returns_the_stored_one(self, store: Store) -> None:
        first = [store.register_model("digits", "mlp", {"a": 1}), store.add_dataset(sha(2), "first")]
        first.append(store.add_checkpoint("digits", sha256=sha(1), step=3))
        again = [store.register_model("digits", "mlp", {"a": 1}), store.add_dataset(sha(2), "second")]
        again.append(store.add_checkpoint(first[0].id, sha256=sha(1)))
        assert first == again
        assert [len(page.items) for page in (store.models(), store.datasets(), store.checkpoints())] == [1, 1, 1]

    def test_a_name_belongs_to_one_model(self, store: Store) -> None:
        model = store.register_model("digits", "mlp", {"a": 1})
        assert store.register_model("digits", "other", {"a": 2}) == model

    @pytest.mark.parametrize("name", ["", " ", "a@b", "a\nb", "x" * 201, "last", "a#2", "d-2", "p-12ab"])
    def test_what_cannot_be_a_name(self, store: Store, name: str) -> None:
        with pytest.raises(StoreError, match="a model cannot be called"):
            store.register_model(name, "mlp", {})

    def test_checkpoint_takes_family_and_config_of_the_newest_run(self, store: Store) -> None:
        store.register_model("digits", "mlp", {"a": 1})
        inherited = store.add_checkpoint("digits", sha256=sha(2), path="/x")
        own = store.add_checkpoint("digits", sha256=sha(1), family="other", config={"b": 2})
        assert (own.family, own.config) == ("other", {"b": 2})
        assert (inherited.family, inherited.config) == ("mlp", {"a": 1})
        assert store.add_checkpoint("digits", sha256=sha(3), step=1).family == "other"
        assert (inherited.model, inherited.step, inherited.label, inherited.path) == ("digits", None, None, "/x")

    def test_checkpoint_comes_back_by_label_step_and_hash(self, store: Store) -> None:
        store.register_model("a", "mlp", {})
        store.register_model("b", "mlp", {})
        early = store.add_checkpoint("a", sha256=sha(1), step=10, label="early")
        late = store.add_checkpoint("a", sha256=sha(2), step=20, label="late")
        other = store.add_checkpoint("b", sha256=sha(3), step=20, label="early")
        refs = ["a@early", "a@10", sha(1), "late", "a@20", "b@20", "b@early"]
        assert [store.get_checkpoint(ref) for ref in refs] == [early, early, early, late, late, other, other]
        with pytest.raises(AmbiguousError, match=f"'early' could be any of the checkpoints.*{early.id}"):
            store.get_checkpoint("early")

    def test_same_file_may_belong_to_two_models(self, store: Store) -> None:
        ids = set()
        for name in ("a", "b"):
            store.register_model(name, "mlp", {})
            ids.add(store.add_checkpoint(name, sha256=sha(1)).id)
        assert len(ids) == 2

    def test_reference_that_names_nothing(self, store: Store) -> None:
        save_partition(store, save_graph(store).id)
        for ref in ("", "g-", "nothing", "g-00000000", "a\0b", "%", "_______"):
            for get in (store.get_model, store.get_checkpoint, store.get_dataset, store.get_graph, store.get_partition):
                with pytest.raises(NotFoundError, match="interbasis ls"):
                    get(ref)

    def test_ids_are_stable_and_grow_where_they_collide(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        assert register(store) == ("c-f9c493c5", "d-5aa2d73c")
        monkeypatch.setattr("interbasis.service.storage.references._SHORT", 1)
        ids = [store.add_dataset(sha(100 + i), "").id for i in range(40)]
        assert len(set(ids)) == 40
        assert {len(identifier) for identifier in ids} >= {3, 4}

    def test_graph_round_trip(self, store: Store) -> None:
        checkpoint, dataset = register(store)
        blobs = {"graph": b"graph", "bases": b"bases"}
        how, values = provenance(3), graph_values()
        graph = store.save_graph(checkpoint, dataset, provenance=how, values=values, blobs=blobs)
        for field in fields(GraphValues):
            assert getattr(graph, field.name) == getattr(values, field.name)
        for field in fields(Provenance):
            assert getattr(graph, field.name) == getattr(how, field.name)
        assert (graph.model, graph.checkpoint, graph.dataset) == ("digits", checkpoint, dataset)
        assert store.get_graph(graph.id) == store.find_graph("digits@100", sha(2), sha(3)) == graph
        assert (store.graph_bytes(graph.id), store.bases_bytes(graph.id[:6])) == (b"graph", b"bases")
        path = store.graph_path(graph.id)
        assert path is not None
        assert path.read_bytes() == b"graph"
        assert store.find_graph(checkpoint, dataset, sha(4)) is None

    def test_bases_need_not_be_kept(self, store: Store) -> None:
        checkpoint, dataset = register(store)
        graph = store.save_graph(
            checkpoint, dataset, provenance=provenance(), values=graph_values(), blobs={"graph": b"g"}
        )
        assert graph.bases_sha256 is None
        with pytest.raises(NotFoundError, match="were not kept"):
            store.bases_bytes(graph.id)
        assert store.check().ok

    def test_partition_round_trip(self, store: Store) -> None:
        graph = save_graph(store)
        partition = save_partition(store, graph.id, 5)
        parts = partition_parts()
        for field in fields(PartitionValues):
            assert getattr(partition, field.name) == getattr(partition_values(), field.name)
        assert (list(partition.modules), list(partition.links)) == (parts["modules"], parts["links"])
        assert (partition.model, partition.checkpoint, partition.graph) == ("digits", graph.checkpoint, graph.id)
        assert store.get_partition(partition.id) == store.find_partition(graph.id, sha(5)) == partition
        assert store.partition_bytes(partition.id) == f"partition {graph.id} 5".encode()

    def test_module_that_holds_a_node(self, store: Store) -> None:
        partition = save_partition(store, save_graph(store).id).id
        labels = partition_parts()["labels"]
        for cut, cut_labels in enumerate(labels):
            found = [store.module_of(partition, cut, i) for i in range(len(cut_labels))]
            assert found == [label if label >= 0 else None for label in cut_labels]
        assert store.module_of(partition, "layers.1", 3) == 1
        for cut, coordinate in ((0, 3), (3, 0), (-1, 0), ("layers.9", 0), (0, -1)):
            with pytest.raises(NotFoundError, match="its cuts"):
                store.module_of(partition, cut, coordinate)

    def test_nodes_of_a_module(self, store: Store) -> None:
        partition = save_partition(store, save_graph(store).id).id
        nodes = store.nodes(partition)
        assert [(node.cut, node.coordinate) for node in nodes] == [
            (c, i) for c, w in enumerate((3, 4, 2)) for i in range(w)
        ]
        assert nodes[2].importance == pytest.approx(1 / 3)
        assert store.nodes(partition, module=1) == tuple(node for node in nodes if node.module == 1)

    def test_confidence_of_nodes_in_modules(self, store: Store) -> None:
        nodes = store.nodes(save_partition(store, save_graph(store).id).id)
        assert [node.confidence for node in nodes] == [0.5] * 8 + [None]

    def test_interaction_surface_by_pair_of_modules_strongest_first(self, store: Store) -> None:
        partition = save_partition(store, save_graph(store).id).id
        found = store.mediators(partition)
        assert [(node.coordinate, node.strength) for node in found] == [(0, 8.0), (2, pytest.approx(8 / 3))]
        assert store.mediators(partition, earlier=0, later=1) == found
        assert store.mediators(partition, earlier=1) == ()

    def test_tracking_round_trip(self, store: Store) -> None:
        graphs = [save_graph(store, number).id for number in (0, 1)]
        tracking = save_tracking(store, graphs, 3)
        assert [step.graph for step in tracking.steps] == graphs
        assert [(step.step, step.label, step.churn) for step in tracking.steps] == [
            (100, "final", 0.0),
            (100, "final", 0.25),
        ]
        assert [step.tracks for step in tracking.steps] == [(0, 0), (0, 1)]
        assert tracking.events == ({"kind": "split", "at": 1, "earlier": [0], "later": [0, 1]},)
        assert store.get_tracking(tracking.id) == store.find_tracking("digits", sha(3)) == tracking
        assert store.tracking_bytes(tracking.id[:5]) == b"tracking 3"
        assert [row.id for row in store.trackings(model="digits").items] == [tracking.id]
        assert save_tracking(store, graphs[:1], 3) == tracking, "stored already"
        replaced = save_tracking(store, graphs[:1], 3, force=True)
        assert (replaced.id, len(replaced.steps)) == (tracking.id, 1)
        assert store.check().ok

    def test_tracking_goes_when_one_of_its_graphs_is_replaced(self, store: Store) -> None:
        graphs = [save_graph(store, number).id for number in (0, 1)]
        save_tracking(store, graphs)
        save_graph(store, 1, content=b"other", force=True)
        assert store.trackings().items == ()
        assert store.check().ok

    def test_tracking_that_does_not_fit_is_refused_whole(self, store: Store) -> None:
        graph = save_graph(store).id
        for wrong in ([graph, "g-none"], ["g-none"]):
            with pytest.raises(NotFoundError):
                save_tracking(store, wrong)
        assert store.trackings().items == ()

    def test_ledger_round_trip(self, store: Store) -> None:
        ledger = save_ledger(store, 3)
        assert (ledger.nominal, ledger.effective, ledger.unexplained, ledger.method) == (26, 15, 1, "exact")
        assert ledger.layers[0]["kronecker"] == {"error": 0.25, "cosine": None}
        assert (ledger.epsilon, ledger.warning, ledger.model) == (None, None, "digits")
        assert store.get_ledger(ledger.id) == store.find_ledger(ledger.checkpoint, ledger.dataset, sha(3)) == ledger
        assert store.ledger_bytes(ledger.id[:5]) == b"ledger 3"
        other = save_ledger(store, 4, epsilon=1e-3, soft=14.5)
        assert [row.id for row in store.ledgers(model="digits").items] == [ledger.id, other.id]
        assert [row.soft for row in store.ledgers(checkpoint=ledger.checkpoint).items] == [None, 14.5]
        assert save_ledger(store, 3, effective=7) == ledger, "stored already"
        replaced = save_ledger(store, 3, effective=7, force=True)
        assert (replaced.id, replaced.effective) == (ledger.id, 7)
        assert json.loads(json.dumps(replaced.to_json()))["layers"][0]["name"] == "layers.0.linear"
        assert store.check().ok

    def test_experiment_round_trip(self, store: Store) -> None:
        graph = save_graph(store, 0)
        partition = save_partition(store, graph.id, 0)
        row = save_experiment(store, partition.id, 3)
        assert (row.model, row.checkpoint, row.graph, row.partition) == (
            graph.model,
            graph.checkpoint,
            graph.id,
            partition.id,
        )
        assert (row.value, row.p_value, row.held_out, row.summary) == (-0.25, None, True, {"rows": [], "n_modules": 2})
        assert store.get_experiment(row.id[:5]) == row
        assert store.find_experiment(partition.id, row.recipe_hash) == row
        assert store.find_experiment(partition.id, sha(9)) is None
        assert store.experiment_bytes(row.id).startswith(b"experiment p-")
        assert save_experiment(store, partition.id, 3) == row
        other = save_experiment(store, save_partition(store, graph.id, 1).id)
        assert store.experiments(partition=partition.id).items == (row,)
        for options in ({}, {"model": row.model}, {"checkpoint": row.checkpoint}):
            assert store.experiments(**options).items == (row, other)
        forced = save_experiment(store, partition.id, 3, force=True, value=0.5)
        assert (forced.id, forced.value) == (row.id, 0.5)
        assert artifact_file(store, row.experiment_sha256).is_file()
        assert store.check().uncollected == (f"file without a row {row.experiment_sha256}",)

    def test_experiments_go_with_what_they_are_about(self, store: Store) -> None:
        graph = save_graph(store, 0)
        partition = save_partition(store, graph.id, 0)
        row = save_experiment(store, partition.id)
        save_partition(store, graph.id, 0, force=True)  # the same to the last bit
        assert store.experiments().items == (row,)
        values = {"provenance": provenance(0), "values": partition_values(), **partition_parts()}
        store.save_partition(graph.id, **values, blobs={"partition": b"another"}, force=True)
        assert store.experiments().items == ()
        save_experiment(store, partition.id)
        save_graph(store, 0, force=True, content=b"another graph")
        assert store.experiments().items == store.partitions().items == ()
        report = store.check()
        assert report.ok
        assert f"file without a row {row.experiment_sha256}" in report.uncollected

    def test_llc_round_trip(self, store: Store) -> None:
        llc = save_llc(store, 3)
        assert (llc.mode, llc.value, llc.n_effective, llc.verdict, llc.model) == (
            *("point", 4.5, 9.0, "reliable"),
            "digits",
        )
        assert llc.points[0]["diagnostics"] == {"r_hat": 1.01, "acceptance": None}
        assert llc.to_json()["n_effective"] == 9.0
        assert store.get_llc(llc.id) == store.find_llc(llc.checkpoint, llc.dataset, sha(3)) == llc
        assert store.find_llc(llc.checkpoint, llc.dataset, sha(5)) is None
        assert store.llc_bytes(llc.id[:5]) == b"llc 3"
        other = save_llc(store, 4, mode="curve")
        assert [row.id for row in store.llcs(model="digits").items] == [llc.id, other.id]
        assert [row.mode for row in store.llcs(checkpoint=llc.checkpoint).items] == ["point", "curve"]
        assert save_llc(store, 3, value=7.0) == llc, "stored already"
        replaced = save_llc(store, 3, value=7.0, force=True)
        assert (replaced.id, replaced.value) == (llc.id, 7.0)
        assert store.check().ok

    def test_llc_without_numbers_has_null_instead(self, store: Store) -> None:
        names = ("value", "standard_error", "lower", "upper", "epsilon", "r_hat", "ess")
        llc = save_llc(store, **dict.fromkeys(names), verdict="failed")
        assert {getattr(store.get_llc(llc.id), name) for name in (*names, "n_effective")} == {None}
        with pytest.raises(StoreError, match="standard_error: a value to be stored is nan"):
            save_llc(store, 1, standard_error=float("nan"))
        assert len(store.llcs().items) == 1

    def test_llc_whose_file_is_lost_is_stored_again(self, store: Store) -> None:
        llc = save_llc(store)
        path = store.blobs.path(llc.llc_sha256)
        assert path is not None
        path.unlink()
        assert llc.id in store.check().artifacts[0]
        assert save_llc(store, value=5.0).value == 5.0
        assert store.check().ok

    def test_ledger_with_nan_is_refused_whole(self, store: Store) -> None:
        with pytest.raises(StoreError, match=r"soft: .*nan"):
            save_ledger(store, soft=float("nan"))
        assert store.ledgers().items == ()

    def test_saving_again_returns_the_stored_one(self, store: Store) -> None:
        graph = save_graph(store, content=b"first")
        partition = save_partition(store, graph.id)
        assert save_graph(store, content=b"second") == graph
        assert save_partition(store, graph.id) == partition
        assert store.graph_bytes(graph.id) == b"first"
        assert len(store.graphs().items) == len(store.partitions().items) == 1
        assert store.check().uncollected == ()

    def test_force_replaces_and_the_old_file_becomes_garbage(self, store: Store) -> None:
        old = save_graph(store, content=b"first")
        save_partition(store, old.id)
        new = save_graph(store, content=b"second", force=True)
        assert (new.id, store.graph_bytes(old.id)) == (old.id, b"second")
        assert new.created > old.created
        assert store.partitions().items == (), "a partition of the graph that is gone"
        report = store.check()
        assert report.ok
        assert len(report.uncollected) == 2
        assert old.graph_sha256 in " ".join(report.uncollected)

    def test_force_with_the_same_graph_keeps_its_partitions(self, store: Store) -> None:
        graph = save_graph(store)
        partition = save_partition(store, graph.id)
        assert replace(save_graph(store, force=True), created=graph.created) == graph
        assert store.get_partition(partition.id) == partition
        assert store.check().uncollected == ()

    def test_force_replaces_a_partition_with_all_its_rows(self, store: Store) -> None:
        graph = save_graph(store)
        old = save_partition(store, graph.id)
        parts = partition_parts() | {"labels": [[0] * 3, [0] * 4, [-1, -1]], "links": [], "mediators": []}
        parts["modules"] = parts["modules"][:1]
        new = store.save_partition(
            graph.id,
            provenance=provenance(),
            values=partition_values(n_modules=1),
            **parts,
            blobs={"partition": b"new"},
            force=True,
        )
        assert (new.id, len(new.modules), new.links) == (old.id, 1, ())
        assert [node.module for node in store.nodes(new.id)] == [0] * 7 + [None, None]
        assert store.mediators(new.id) == ()
        assert store.check().ok

    def test_coefficients_of_modules_go_with_a_partition_that_is_replaced(self, store: Store) -> None:
        """Or those of the modules before would be taken for those of the new ones."""
        graph = save_graph(store)
        first, second = save_partition(store, graph.id), save_partition(store, graph.id, 1)
        kept = [save_llc(store, 1), save_llc(store, 2, modules=second.id, mode="modules")]
        save_llc(store, 3, modules=first.id, mode="modules")
        save_partition(store, graph.id, force=True)
        assert len(store.llcs().items) == 3, "the same partition"
        given = {"provenance": provenance(), "values": partition_values(), **partition_parts()}
        store.save_partition(graph.id, **given, blobs={"partition": b"new"}, force=True)
        assert {row.id for row in store.llcs().items} == {row.id for row in kept}
        save_graph(store, content=b"another", force=True)
        assert [row.id for row in store.llcs().items] == [kept[0].id]
        assert store.check().ok

    def test_result_whose_file_is_gone_is_saved_again(self, store: Store) -> None:
        graph = save_graph(store, content=b"first")
        artifact_file(store, graph.graph_sha256).unlink()
        again = save_graph(store, content=b"second")
        assert (again.id, store.graph_bytes(graph.id)) == (graph.id, b"second")

    def test_labels_that_do_not_fit_are_refused_whole(self, store: Store) -> None:
        graph = save_graph(store)
        good = {"provenance": provenance(), "values": partition_values(), "blobs": {"partition": b"p"}}
        for wrong, message in (
            ({"labels": [[0], [0]], "importance": [[1.0], [1.0]], "confidence": ()}, "nodes per cut"),
            ({"labels": [[0, 0, 0], [0] * 4, [0]]}, "differ in length"),
            ({"labels": [[0, 0, 7], [0] * 4, [0, 0]]}, r"name the modules \[7\]"),
            ({"modules": []}, "one row per module"),
            ({"values": partition_values(quality=float("nan"))}, "quality: .* nan: expected a finite"),
            ({"blobs": {}}, "expected 'partition'"),
        ):
            with pytest.raises(StoreError, match=message):
                store.save_partition(graph.id, **(good | partition_parts() | wrong))
        assert store.partitions().items == ()
        assert store.check().uncollected == ()

    def test_error_within_the_transaction_leaves_nothing(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        graph = save_graph(store)

        def fail(*_: Any) -> None:
            raise RuntimeError("power cut")

        monkeypatch.setattr(module, "drop_unreferenced", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            save_partition(store, graph.id)
        monkeypatch.undo()
        report = store.check()
        assert report.ok
        assert len(report.uncollected) == 1
        assert store.partitions().items == ()
        save_partition(store, graph.id)
        assert store.check().uncollected == ()

    def test_numpy_values_are_stored_as_numbers(self, store: Store) -> None:
        graph = save_graph(store)
        parts = partition_parts()
        for name in ("labels", "importance"):
            parts[name] = [np.array(cut) for cut in parts[name]]
        parts["modules"] = [replace(m, size=np.int64(m.size), inner_cost=np.float64(2)) for m in parts["modules"]]
        values = partition_values(quality=np.float32(0.5), epsilon=np.float64(0.1))
        saved = store.save_partition(
            graph.id, provenance=provenance(seed=np.int64(7)), values=values, **parts, blobs={"partition": b"p"}
        )
        assert saved == store.get_partition(saved.id)
        assert (saved.seed, saved.quality, saved.modules[0].inner_cost) == (7, 0.5, 2.0)
        assert [type(value) for value in (saved.seed, saved.quality, saved.modules[0].size)] == [int, float, int]
        assert store.module_of(saved.id, 0, 1) == 1

    def test_list_in_pages(self, store: Store) -> None:
        names = [store.register_model(f"model {i}", "mlp", {}).name for i in range(7)]
        for newest_first, expected in ((False, names), (True, names[::-1])):
            seen, cursor = [], None
            for size in (3, 3, 1):
                page = store.models(limit=3, cursor=cursor, newest_first=newest_first)
                assert len(page.items) == size
                seen += [model.name for model in page.items]
                cursor = page.next_cursor
            assert (seen, cursor) == (expected, None)
        assert store.models(limit=7).next_cursor is None

    @pytest.mark.parametrize("cursor", ["", "x", "AAAA", "ü", "MjAyNi0wMS0wMSAx"])
    def test_unknown_cursor(self, store: Store, cursor: str) -> None:
        with pytest.raises(StoreError, match="unknown cursor"):
            store.models(cursor=cursor)

    @pytest.mark.parametrize("limit", [0, -1, 1001])
    def test_limit_out_of_range(self, store: Store, limit: int) -> None:
        with pytest.raises(StoreError, match=f"limit is {limit}"):
            store.graphs(limit=limit)

    def test_filters(self, store: Store) -> None:
        graphs = [save_graph(store, number) for number in range(2)]
        partition = save_partition(store, graphs[1].id)
        store.register_model("empty", "mlp", {})
        for filters in ({"model": "digits"}, {"checkpoint": "final"}, {"dataset": sha(2)}, {}):
            assert store.graphs(**filters).items == tuple(graphs)
        for filters in ({"model": "digits"}, {"checkpoint": "final"}, {"graph": graphs[1].id}, {}):
            assert [found.id for found in store.partitions(**filters).items] == [partition.id]
        assert store.partitions(graph=graphs[0].id).items == store.graphs(model="empty").items == ()
        assert store.partitions(model="empty").items == store.checkpoints(model="empty").items == ()
        with pytest.raises(NotFoundError, match="no model 'nobody'"):
            store.graphs(model="nobody")

    def test_values_are_frozen_and_become_json(self, store: Store) -> None:
        partition = save_partition(store, save_graph(store).id)
        with pytest.raises(FrozenInstanceError):
            partition.id = "other"  # type: ignore[misc]
        document = partition.to_json()
        assert document["modules"][0]["sizes"] == [2, 2, 1]
        assert document["created"] == partition.created.isoformat()
        assert store.partitions().to_json()["items"][0]["recipe"] == partition.recipe

    def test_check_names_what_is_damaged(self, store: Store) -> None:
        graph, whole = save_graph(store, 1), save_graph(store, 2)
        partition = save_partition(store, graph.id)
        artifact_file(store, graph.graph_sha256).write_bytes(b"damaged")
        artifact_file(store, partition.partition_sha256).unlink()
        report = store.check()
        assert not report.ok
        assert sorted(line.partition(":")[0] for line in report.problems) == sorted([graph.id, partition.id])
        assert report.n_artifacts == 5
        with pytest.raises(ArtifactError, match=f"{graph.graph_sha256} is damaged.*--force"):
            store.graph_bytes(graph.id)
        with pytest.raises(ArtifactError, match=r"is missing.*INTERBASIS_ARTIFACTS"):
            store.partition_bytes(partition.id)
        assert len(store.graph_bytes(whole.id)) > 0

    @given_values
    @given(recipe=configs, text=texts, number=finite, seed=st.integers(-(2**63), 2**63 - 1), blob=st.binary())
    def test_any_value_comes_back(
        self, store: Store, recipe: dict[str, Any], text: str, number: float, seed: int, blob: bytes
    ) -> None:
        checkpoint, dataset = register(store)
        how = provenance(recipe=recipe, code_version=text, seed=seed, wall_time=number)
        saved = store.save_graph(
            checkpoint, dataset, provenance=how, values=graph_values(basis=text), blobs={"graph": blob}, force=True
        )
        read = store.get_graph(saved.id)
        assert read == saved
        assert (read.recipe, read.code_version, read.seed, read.wall_time) == (recipe, text, seed, number)
        assert store.graph_bytes(saved.id) == blob

    def test_what_no_database_takes_is_refused(self, store: Store) -> None:
        wrong_values: tuple[dict[str, Any], ...] = (
            {"seed": 2**63},
            {"recipe": {"a": float("inf")}},
            {"recipe": {"a": object()}},
            {"wall_time": float("nan")},
            {"code_version": "\ud800"},
        )
        for wrong in wrong_values:
            with pytest.raises(StoreError):
                store.save_graph(
                    *register(store), provenance=provenance(**wrong), values=graph_values(), blobs={"graph": b""}
                )
        assert store.graphs().items == ()

    def test_ten_thousand_nodes_are_saved_in_few_statements(self, store: Store) -> None:
        widths = (4000, 3000, 3000)
        graph = store.save_graph(
            *register(store), provenance=provenance(), values=graph_values(widths), blobs={"graph": b"large"}
        )
        statements = []

        def count(*given: Any) -> None:
            statements.append(given[2])

        event.listen(store._engine, "before_cursor_execute", count)
        partition = store.save_partition(
            graph.id,
            provenance=provenance(),
            values=partition_values(),
            **partition_parts(widths),
            blobs={"partition": b"large"},
        )
        event.remove(store._engine, "before_cursor_execute", count)
        assert len(statements) < 100, "nodes are not saved one by one"
        assert len(store.nodes(partition.id)) == 10_000

    def test_threads_that_save_the_same_result(self, store: Store) -> None:
        register(store)
        together, found, errors = threading.Barrier(4), [], []

        def work(number: int) -> None:
            try:
                together.wait()
                graph = save_graph(store, content=f"by {number}".encode(), force=number % 2 == 0)
                found.append(graph.id)
            except Exception as error:  # shown by the assertion below
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(found) == 4
        assert len(store.graphs().items) == len(set(found)) == 1
        assert store.check().ok

    def test_processes_that_save_the_same_results(
        self, place: Any, store: Store, saver: Callable[..., subprocess.Popen[str]]
    ) -> None:
        count = 8
        processes = [saver(place, 0, count) for _ in range(3)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], outputs
        assert len({ids for ids, _ in outputs}) == 1
        assert len(store.graphs().items) == len(store.partitions().items) == count
        report = store.check()
        assert (report.ok, report.uncollected) == (True, ())


class TestPostgres:
    def test_server_that_does_not_answer(self, tmp_path: Path) -> None:
        url = f"postgresql://user:secret@/db?host={tmp_path}"
        with pytest.raises(StoreError, match=r"postgresql\+psycopg://user:\*\*\*@.*connection") as caught:
            Store.open(url, str(tmp_path))
        assert "secret" not in str(caught.value)


def test_store_needs_neither_torch_nor_numpy_nor_the_analysis() -> None:
    unwanted = "torch", "numpy", "scipy", "alembic", "interbasis.analysis"
    code = f"import interbasis.service.store, sys; print([m for m in {unwanted} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_what_is_public_exists() -> None:
    assert module.__all__ == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
