"""Labels that move to another graph or partition: by hand, and along the training of a network that is permuted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_checkpoints import save_inputs, save_mlp
from cases_labels import of_module, of_node
from cases_store import save_graph, save_partition
from safetensors.torch import load_file, save_file

from interbasis.service.labels.moving import Divided, moved_labels
from interbasis.service.records.errors import NotFoundError
from interbasis.service.records.graphs import GRAPH
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store
from interbasis.service.tasks.analyze import analyze
from interbasis.service.tasks.tracking import aligned


def divided(store: Store, partition: str) -> Divided:
    found = store.get_partition(partition)
    return Divided(store.get_graph(found.graph), found)


def never(*_: Any) -> Any:
    raise AssertionError("nodes of one graph need no alignment")


def test_to_another_partition_of_the_same_graph(sqlite_store: Store) -> None:
    """Modules by their nodes, however few: here the same ones; what has a label keeps it."""
    graph = save_graph(sqlite_store).id
    first, second = (divided(sqlite_store, save_partition(sqlite_store, graph, n).id) for n in (1, 2))
    given = [of_module("left", 0), of_module("right", 1, confidence=0.5), of_node("edge")]
    assert first.partition is not None
    assert second.partition is not None
    sqlite_store.put_labels(PARTITION, first.partition.id, given)
    labels, left = moved_labels(sqlite_store, first, second, never)
    assert labels == []  # they are shown there by themselves
    assert left == [
        f"module {m}, moved to module {m}, which has a label of source human: {text}"
        for m, text in enumerate(("left", "right"))
    ]
    sqlite_store.remove_label(PARTITION, second.partition.id, module=1, author="bob")
    (moved,), _ = moved_labels(sqlite_store, first, second, never)
    assert moved == of_module("right", 1, confidence=0.5, origin=f"{first.partition.id} module 1", overlap=1.0)


def test_to_another_graph_by_the_alignment_of_its_nodes(sqlite_store: Store) -> None:
    old, new = (divided(sqlite_store, save_partition(sqlite_store, save_graph(sqlite_store, n).id).id) for n in (0, 1))
    given = [of_module("even", 0), of_module("odd", 1), of_node("a"), of_node("b", node=0), of_node("c", node=2)]
    sqlite_store.put_labels(PARTITION, str(old.partition and old.partition.id), given)
    sqlite_store.put_labels(GRAPH, new.graph.id, [of_node("taken", node=2)])
    matches = {(0, 1): ((0, 0), 0.9), (0, 0): ((0, 2), 0.8), (1, 1): ((1, 1), 1.0), (1, 3): ((1, 3), 1.0)}
    labels, left = moved_labels(sqlite_store, old, new, lambda *_: matches)
    assert labels == [
        of_node("a", node=0, origin=f"{old.graph.id} layers.0/1", overlap=0.9),
        # of the odd nodes 0/1, 1/1, 1/3, 2/1 (in no module): here 0/0, 1/1 and 1/3; the module has 0/1, 1/1, 1/3
        of_module("odd", 1, origin=f"{old.partition and old.partition.id} module 1", overlap=2 / 4),
        of_module("even", 0, origin=f"{old.partition and old.partition.id} module 0", overlap=1 / 9),
    ]
    assert left == [
        "layers.0/0, moved to layers.0/2, which has a label of source human: b",
        "layers.0/2 has no counterpart: c",
    ]
    sqlite_store.put_labels(PARTITION, str(new.partition and new.partition.id), labels)
    assert moved_labels(sqlite_store, old, new, lambda *_: matches)[0] == []


@pytest.fixture
def trained(sqlite_store: Store, tmp_path: Path) -> tuple[Any, Any, list[int]]:
    """Two checkpoints of a run, the second with its hidden units in another order, analysed; and that order."""
    data = save_inputs(tmp_path / "x.npz", 8)
    files = [save_mlp(tmp_path / f"{step}.safetensors", blocks=2, model="pair", step=step) for step in (1, 2)]
    tensors = load_file(files[1])
    order = torch.randperm(len(tensors["layers.0.bias"]), generator=torch.Generator().manual_seed(0))
    for name in ("layers.0.weight", "layers.0.bias"):
        tensors[name] = tensors[name][order].contiguous()
    tensors["layers.1.weight"] = tensors["layers.1.weight"][:, order].contiguous()
    save_file(tensors, files[1])
    choices = {"basis": "neuron", "output": "neuron", "resolution": 1.0}
    first, second = (analyze(sqlite_store, file, choices, data=data) for file in files)
    return first, second, order.tolist()


def test_labels_follow_the_units_of_a_network_that_are_in_another_order(
    sqlite_store: Store, trained: Any, tmp_path: Path
) -> None:
    first, second, order = trained
    data = tmp_path / "x.npz"
    width = dict(zip(first.graph.cuts, first.graph.widths, strict=True))["layers.0"]
    given: list[NewLabel] = [of_node(f"unit {i}", node=i) for i in range(width)]
    given += [of_module(f"module {m.index}", m.index) for m in first.partition.modules]
    sqlite_store.put_labels(PARTITION, first.partition.id, given)
    old, new = (divided(sqlite_store, each.partition.id) for each in (first, second))
    labels, left = moved_labels(sqlite_store, old, new, lambda *ids: aligned(sqlite_store, *ids, data=data))
    assert {label.text: label.node for label in labels if label.module is None} == {
        f"unit {i}": j for j, i in enumerate(order) if any(label.text == f"unit {i}" for label in labels)
    }
    moved = [label for label in labels if label.module is None]
    assert len(moved) + len([line for line in left if "no counterpart" in line]) == width
    assert len(moved) > width // 2
    assert all(np.isclose(float(label.overlap or 0), 1.0) for label in moved)
    members: dict[int | None, set[tuple[int, int]]] = {
        m.index: {(n.cut, n.coordinate) for n in sqlite_store.nodes(second.partition.id, module=m.index)}
        for m in second.partition.modules
    }
    for label in labels:
        if label.module is not None:
            before = {
                (n.cut, order.index(n.coordinate) if first.graph.cuts[n.cut] == "layers.0" else n.coordinate)
                for n in sqlite_store.nodes(first.partition.id, module=int(label.text.split()[1]))
            }
            after = members[label.module]
            assert label.overlap == pytest.approx(len(before & after) / len(before | after), abs=0.2)


def test_bases_that_were_not_kept(sqlite_store: Store, trained: Any, tmp_path: Path) -> None:
    first, second, _ = trained
    (tmp_path / "1.safetensors").unlink()
    with pytest.raises(NotFoundError, match="the file of"):
        aligned(sqlite_store, first.graph.id, second.graph.id, data=tmp_path / "x.npz")
