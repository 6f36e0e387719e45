"""Labels of nodes and modules, kept on SQLite and on PostgreSQL: the newest counts, nothing that was said is lost."""

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cases_labels import label_texts, of_module, of_node
from cases_store import (
    partition_parts,
    partition_values,
    provenance,
    save_graph,
    save_partition,
)
from hypothesis import HealthCheck, example, given, settings

from interbasis.service.records.errors import NotFoundError, StoreError
from interbasis.service.records.graphs import GRAPH
from interbasis.service.records.labels import LONGEST_LABEL, LabelRow, NewLabel, check_label, overlaps, preferred
from interbasis.service.records.partitions import PARTITION, ModuleRow
from interbasis.service.store.store import Store

UNFIT = [*map(chr, (*range(32), *range(127, 160))), "\u2028", "\u2029", "\ufffe", "\uffff"]


def divided(store: Store, graph: str, labels: list[list[int]], number: int, *, force: bool = False) -> str:
    """Another partition of the graph, by the module of each node; -1 for none."""
    found = sorted({m for cut in labels for m in cut if m >= 0})
    modules = []
    for m in found:
        sizes = tuple(cut.count(m) for cut in labels)
        modules.append(
            ModuleRow(index=m, size=sum(sizes), cuts=("layers.0",), sizes=sizes, inner_cost=1.0, outer_cost=0.5)
        )
    parts: dict[str, Any] = {**partition_parts(), "labels": labels, "modules": modules, "links": (), "mediators": ()}
    values = partition_values(n_modules=len(found))
    content = {"partition": f"{labels}".encode()}
    return store.save_partition(
        graph, provenance=provenance(number), values=values, **parts, blobs=content, force=force
    ).id


def said(labels: tuple[LabelRow, ...]) -> list[tuple[Any, ...]]:
    return [(x.module if x.cut is None else f"{x.cut}/{x.node}", x.text, x.source) for x in labels]


class TestLabels:
    def test_round_trip(self, store: Store) -> None:
        graph = save_graph(store)
        partition = save_partition(store, graph.id)
        given = of_node(confidence=0.25, source="command:gpt", origin="g-0 layers.0/7", overlap=0.5)
        (node,) = store.put_labels(GRAPH, graph.id, [given])
        (module,) = store.put_labels(PARTITION, partition.id, [of_module()])
        for name in ("text", "author", "cut", "node", "module", "source", "confidence", "origin", "overlap"):
            assert getattr(node, name) == getattr(given, name)
        assert (node.graph, node.partition, module.graph, module.partition) == (graph.id, None, graph.id, partition.id)
        assert store.labels(GRAPH, graph.id) == (node,)
        assert store.labels(PARTITION, partition.id) == (module, node)

    def test_one_counts_for_each_source_and_all_are_kept(self, store: Store) -> None:
        graph = save_graph(store).id
        for text in ("first", "second", "third"):
            store.put_labels(GRAPH, graph, [of_node(text)])
        store.put_labels(GRAPH, graph, [of_node("other", source="import"), of_node("here", node=2)])
        place = "layers.0/1"
        assert said(store.labels(GRAPH, graph)) == [
            *[(place, "third", "human"), (place, "other", "import"), ("layers.0/2", "here", "human")]
        ]
        history = store.labels(GRAPH, graph, history=True)
        assert [row.text for row in history] == ["first", "second", "third", "other", "here"]

    def test_the_same_again_is_not_stored_again(self, store: Store) -> None:
        graph = save_graph(store).id
        first = store.put_labels(GRAPH, graph, [of_node()])
        assert store.put_labels(GRAPH, graph, [of_node(cut="0")]) == first
        store.put_labels(GRAPH, graph, [of_node(confidence=0.5)])
        store.put_labels(GRAPH, graph, [of_node()])
        assert [row.confidence for row in store.labels(GRAPH, graph, history=True)] == [None, 0.5, None]

    def test_a_removed_label_stays_in_the_history(self, store: Store) -> None:
        graph = save_graph(store).id
        store.put_labels(GRAPH, graph, [of_node(), of_node(source="import")])
        gone = store.remove_label(GRAPH, graph, cut="layers.0", node=1, author="bob")
        assert (gone.text, gone.author, gone.cut, gone.node) == (None, "bob", "layers.0", 1)
        assert said(store.labels(GRAPH, graph)) == [("layers.0/1", "edge", "import")]
        assert [row.text for row in store.labels(GRAPH, graph, history=True)] == ["edge", "edge", None]
        with pytest.raises(NotFoundError, match=r"layers.0/1 of g-.* has no label of source human"):
            store.remove_label(GRAPH, graph, cut="layers.0", node=1, author="bob")
        store.put_labels(GRAPH, graph, [of_node()])
        assert len(store.labels(GRAPH, graph)) == 2

    def test_what_is_refused(self, store: Store) -> None:
        partition = save_partition(store, save_graph(store).id).id
        refused: list[tuple[NewLabel, type[Exception], str]] = [
            (of_node(node=3), NotFoundError, "no node 3 at cut 'layers.0' of g-.* have"),
            (of_node(cut="layers.9"), NotFoundError, "no node 1 at cut 'layers.9'"),
            (of_node(node=2**40), NotFoundError, "no node"),
            (of_node(node=-1), NotFoundError, "no node -1"),
            (of_module(module=2), NotFoundError, "no module 2 in p-.*, which has 2, counted from 0"),
            (of_module(module=2**40), NotFoundError, "no module"),
            (of_module(cut="layers.0"), StoreError, "a cut and a node, or a module"),
            (replace(of_module(), module=None), StoreError, "a cut and a node, or a module"),
            (of_module(source="me"), StoreError, "'me': expected human, import or command:NAME"),
            (of_module(source="command:"), StoreError, "expected human"),
            (of_module(author=" "), StoreError, "author ' '"),
            (of_module(author="a\nb"), StoreError, "author"),
            (of_module(confidence=1.5), StoreError, "confidence 1.5: expected a number between 0 and 1"),
            (of_module(confidence=float("nan")), StoreError, "confidence nan"),
            (of_module("x" * 10_000), StoreError, "module 0 has 10,000 characters: expected at most 500"),
            (of_module("  "), StoreError, "the label of module 0 is empty"),
        ]
        for label, error, match in refused:
            with pytest.raises(error, match=match):
                store.put_labels(PARTITION, partition, [of_module(module=1), label])
            assert store.labels(PARTITION, partition, history=True) == ()

    def test_what_belongs_elsewhere_is_refused(self, store: Store) -> None:
        graph = save_graph(store)
        with pytest.raises(StoreError, match="is a graph: name one of its partitions to label module 0"):
            store.put_labels(GRAPH, graph.id, [of_module()])
        with pytest.raises(StoreError, match="module 0 has several labels of one source"):
            store.put_labels(PARTITION, save_partition(store, graph.id).id, [of_module("a"), of_module("b")])

    def test_a_label_moves_along_to_the_module_with_most_of_its_nodes(self, store: Store) -> None:
        """|A n B| / |A u B| by hand: 7 of 8 nodes in one module; 4 of 9 and 3 of 7 are not more than half."""
        graph = save_graph(store).id
        first = divided(store, graph, [[0, 0, 0], [0, 0, 0, 1], [0, 1]], 1)
        near = divided(store, graph, [[1, 1, 1], [1, 1, 1, 1], [1, 0]], 2)
        far = divided(store, graph, [[0, 1, 1], [1, 0, 0, 1], [1, 1]], 3)
        store.put_labels(PARTITION, first, [of_module("big", 0), of_module("small", 1)])
        (moved,) = store.labels(PARTITION, near)
        assert (moved.partition, moved.module, moved.text) == (near, 1, "big")
        assert (moved.origin, moved.overlap) == (f"{first} module 0", 7 / 8)
        assert store.labels(PARTITION, far) == ()
        store.put_labels(PARTITION, near, [of_module("own", 1)])
        assert said(store.labels(PARTITION, near)) == [(1, "own", "human")]
        assert [row.origin for row in store.labels(PARTITION, near)] == [None]

    def test_a_label_that_moved_along_can_be_removed_there(self, store: Store) -> None:
        graph = save_graph(store).id
        labels = [[0, 0, 0], [0, 0, 0, 1], [0, 1]]
        first, second = (divided(store, graph, labels, n) for n in (1, 2))
        store.put_labels(PARTITION, first, [of_module("big", 0)])
        store.remove_label(PARTITION, second, module=0, author="bob")
        assert store.labels(PARTITION, second) == ()
        assert said(store.labels(PARTITION, first)) == [(0, "big", "human")]

    def test_labels_are_kept_when_a_partition_is_computed_again_or_removed(self, store: Store) -> None:
        graph = save_graph(store).id
        first = divided(store, graph, [[0, 0, 0], [0, 0, 0, 1], [0, 1]], 1)
        store.put_labels(PARTITION, first, [of_module("big", 0), of_module("small", 1)])
        assert divided(store, graph, [[1, 1, 1], [1, 1, 1, 1], [1, 0]], 1, force=True) == first
        (moved,) = store.labels(PARTITION, first)
        assert (moved.module, moved.text, moved.overlap) == (1, "big", 7 / 8)
        assert moved.origin == f"{first} module 0 before it was computed again"
        store.remove(PARTITION, first)
        assert divided(store, graph, [[0, 0, 0], [0, 0, 0, 1], [0, 1]], 1) == first
        assert said(store.labels(PARTITION, first)) == [(0, "big", "human"), (1, "small", "human")]
        assert {row.origin for row in store.labels(PARTITION, first)} == {None}

    def test_labels_are_kept_when_a_graph_is_computed_again(self, store: Store) -> None:
        graph = save_graph(store, content=b"one").id
        first = save_partition(store, graph).id
        store.put_labels(PARTITION, first, [of_module("left"), of_node("edge")])
        assert save_graph(store, content=b"one", force=True).id == graph
        assert {row.origin for row in store.labels(PARTITION, first)} == {None}
        assert save_graph(store, content=b"another", force=True).id == graph
        with pytest.raises(NotFoundError):
            store.get_partition(first)
        (node,) = store.labels(GRAPH, graph)
        assert (node.text, node.origin) == ("edge", f"{graph} before it was computed again")
        assert save_partition(store, graph).id == first
        assert said(store.labels(PARTITION, first)) == [(0, "left", "human"), ("layers.0/1", "edge", "human")]
        store.put_labels(GRAPH, graph, [of_node("edge")])
        assert [row.origin for row in store.labels(GRAPH, graph)] == [None]

    def test_removing_a_graph_says_that_its_labels_go_along(self, store: Store) -> None:
        graph = save_graph(store).id
        partition = save_partition(store, graph).id
        store.put_labels(PARTITION, partition, [of_module("left"), of_node("edge")])
        store.remove_label(PARTITION, partition, module=0, author="bob")
        assert store.removal(PARTITION, partition).along == {}
        assert store.removal(GRAPH, graph).along == {"partitions": 1, "labels": 2}
        store.remove(GRAPH, graph)
        assert save_graph(store).id == graph
        assert store.labels(GRAPH, graph, history=True) == ()
        assert store.check().ok

    def test_pages_follow_each_other(self, store: Store) -> None:
        graph = save_graph(store)
        partition = save_partition(store, graph.id).id
        nodes = [
            of_node(f"{cut}/{i}", cut, i) for cut, w in zip(graph.cuts, graph.widths, strict=True) for i in range(w)
        ]
        store.put_labels(PARTITION, partition, [*nodes[::-1], of_module("a", 1), of_module("b", 0)])
        every = store.labels(PARTITION, partition)
        assert [row.text for row in every] == ["b", "a", *(label.text for label in nodes)]
        for history in (False, True):
            found: list[LabelRow] = []
            cursor: str | None = None
            while cursor is not None or not found:
                page = store.label_page(PARTITION, partition, history=history, cursor=cursor, limit=2)
                found += page.items
                cursor = page.next_cursor
            assert tuple(found) == store.labels(PARTITION, partition, history=history)
        with pytest.raises(StoreError, match="unknown cursor"):
            store.label_page(PARTITION, partition, cursor="MSAz")

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=label_texts, author=label_texts.filter(lambda text: text.isprintable() and len(text) <= 200))
    @example("e\u0301 \u202b\u05e9\u05dc\u05d5\u05dd\u202c ", "é")
    @example("=1+1\u200f<script>alert('x')</script>&amp;", "<b>")
    def test_texts_are_kept_bit_for_bit(self, store: Store, text: str, author: str) -> None:
        graph = save_graph(store).id
        store.put_labels(GRAPH, graph, [of_node(text, author=author)])
        (row,) = store.labels(GRAPH, graph)
        assert (row.text, row.author) == (text, author)

    def test_two_writers_at_once(self, store: Store) -> None:
        """The last one counts, and everything that both wrote is in the history."""
        graph = save_graph(store).id
        failed: list[Exception] = []

        def write(name: str) -> None:
            try:
                for number in range(10):
                    store.put_labels(
                        GRAPH, graph, [of_node(f"{name} {number}"), of_node(name, node=2, author=f"{number}")]
                    )
            except Exception as error:
                failed.append(error)

        writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert failed == []
        history = [row.text for row in store.labels(GRAPH, graph, history=True) if row.node == 1]
        assert sorted(map(str, history)) == sorted(f"{name} {number}" for name in "ab" for number in range(10))
        assert store.labels(GRAPH, graph)[0].text == history[-1]
        assert history[-1] in ("a 9", "b 9")

    @pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.long)])
    def test_every_label_that_was_acknowledged_is_there(
        self, store: Store, place: Any, saver: Callable[..., Any], kills: int
    ) -> None:
        graph, chance, told = save_graph(store).id, random.Random(0), set[str]()
        for number in range(kills):
            process = saver(place, number, 0)
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("label\n")
            process.stdin.flush()
            acknowledged = [process.stdout.readline() for _ in range(chance.randint(1, 30))]
            threading.Event().wait(chance.random() / 50)
            process.kill()
            acknowledged += process.communicate()[0].splitlines(keepends=True)
            told |= {line.strip() for line in acknowledged if line.endswith("\n")}
            history = [str(row.text) for row in store.labels(GRAPH, graph, history=True)]
            assert told <= set(history)
            assert len(history) <= len(told) + number + 1  # of each process the last one may not have been told
            assert len(history) == len(set(history))
        assert len(told) >= kills
        assert store.labels(GRAPH, graph)[0].text.startswith(f"{kills - 1} ")
        assert store.check().ok


@pytest.mark.parametrize("character", UNFIT, ids=[f"{ord(c):x}" for c in UNFIT])
def test_control_characters_and_line_breaks_are_refused(character: str) -> None:
    with pytest.raises(StoreError, match="the label of module 0 has the character"):
        check_label(of_module(f"a{character}b"))


def test_the_longest_label() -> None:
    check_label(of_module("é" * LONGEST_LABEL))
    with pytest.raises(StoreError, match="has 501 characters: expected at most 500"):
        check_label(of_module("é" * (LONGEST_LABEL + 1)))


def test_more_than_half_of_both_is_shared_with_one_module_at_most() -> None:
    chance = random.Random(0)
    for _ in range(200):
        nodes = [(0, i) for i in range(chance.randint(1, 12))]
        modules = {node: chance.randrange(3) for node in nodes}
        members = chance.sample(nodes, chance.randint(1, len(nodes)))
        sizes = {m: list(modules.values()).count(m) for m in range(3)}
        found = overlaps(members, modules, sizes)
        for m in range(3):
            of = {node for node in nodes if modules[node] == m}
            assert found.get(m, 0.0) == len(of & {*members}) / max(len(of | {*members}), 1)
        assert sum(share > 0.5 for share in found.values()) <= 1


def test_a_persons_label_is_shown_before_others(sqlite_store: Store) -> None:
    graph = save_graph(sqlite_store).id
    for source, text in (("command:a", "old"), ("command:b", "new"), ("import", "theirs"), ("human", "mine")):
        sqlite_store.put_labels(GRAPH, graph, [of_node(text, source=source)])
        assert preferred(sqlite_store.labels(GRAPH, graph)) == ({("layers.0", 1): text}, {})
