"""Looking for words in names, IDs and labels of everything that is stored."""

import pytest
from cases_store import register, save_comparison, save_experiment, save_graph, save_partition

from interbasis.service.records.errors import StoreError
from interbasis.service.records.graphs import GRAPH
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store


def test_everything_with_a_name_an_id_or_a_label_is_found(store: Store) -> None:
    register(store)
    graph = save_graph(store)
    partition = save_partition(store, graph.id)
    experiment = save_experiment(store, partition.id)
    comparison = save_comparison(store, partition.id, name="Clusters 100%.csv")
    job = store.submit("partition", graph.id)
    checkpoint = store.get_checkpoint(graph.checkpoint)

    def found(text: str) -> list[tuple[str, str, str | None]]:
        page = store.search(text, limit=100)
        assert page.total == len(page.items)
        return [(row.kind, row.id, row.partition) for row in page.items]

    assert [kind for kind, _, _ in found(partition.id)] == ["partition", "experiment", "comparison"]
    assert found(experiment.id[2:]) == [("experiment", experiment.id, partition.id)]
    assert found("100% clusters") == [("comparison", comparison.id, partition.id)]
    assert found("100_ clusters") == []
    assert found(job.id) == [("job", job.id, None)]
    assert ("graph", graph.id, partition.id) in found("DIGITS")
    assert ("checkpoint", checkpoint.id, None) in found(f"digits@{checkpoint.step}")
    for text in ("", "  ", "a\x00b"):
        with pytest.raises(StoreError, match="words that can be printed"):
            store.search(text)


def test_labels_count_as_they_are_now(store: Store) -> None:
    register(store)
    graph = save_graph(store)
    partition = save_partition(store, graph.id)
    cut = graph.cuts[1]
    store.put_labels(GRAPH, graph.id, [NewLabel(text="curved strokes", author="ada", cut=cut, node=1)])
    store.put_labels(PARTITION, partition.id, [NewLabel(text="Curved digits", author="ada", module=1)])
    node, module = sorted(store.search("curved").items, key=lambda row: row.module is not None)
    assert (node.name, node.cut, node.node, node.module, node.partition) == ("curved strokes", 1, 1, None, partition.id)
    assert (module.name, module.module, module.partition, module.id) == ("Curved digits", 1, partition.id, graph.id)
    store.put_labels(GRAPH, graph.id, [NewLabel(text="straight strokes", author="bob", cut=cut, node=1)])
    assert [row.name for row in store.search("strokes").items] == ["straight strokes"]
    store.remove_label(GRAPH, graph.id, author="bob", cut=cut, node=1)
    assert store.search("strokes").total == 0


def test_more_are_counted_than_are_shown(store: Store) -> None:
    for number in range(30):
        store.register_model(f"net-{number}", "mlp", {})
    page = store.search("net-", limit=20)
    assert (len(page.items), page.total, page.next_cursor) == (20, 30, None)
    assert page.items[0].name == "net-29"  # the newest first
