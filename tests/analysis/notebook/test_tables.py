"""Results as data frames and as tables in notebooks: every kind, every row, escaped text, the verdict."""

import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from cases_figures import (
    ablation_of,
    coefficient_of,
    curve_of,
    experiment_of,
    graph_of,
    isolation_of,
    layer_of,
    ledger_of,
    partition_of,
    tracking_of,
)

from interbasis.analysis import (
    Analysis,
    Bases,
    Coherence,
    Comparison,
    InteractionGraph,
    Network,
    NetworkDistance,
    RefinedCoefficients,
    analyze,
    interaction_basis,
)
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.meaning.cards import Cards
from interbasis.analysis.notebook.tables import html_table
from interbasis.analysis.results import Result

LABELS = ([0, 0, 1, 1], [0, 1, -1])
TAGS = {"div", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def network() -> tuple[Network, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    batches = [torch.randn(40, 3, dtype=torch.float64, generator=generator)]
    return Network(model, ["0:in", "1", "2"], example=batches[0]), batches


@pytest.fixture(scope="module")
def bases() -> Bases:
    return interaction_basis(*network())


RESULTS: dict[str, tuple[Any, int, list[str]]] = {  # result, rows of its frame, what its table says
    "graph": (graph_of(*LABELS), 12, ["7 nodes", "12 edges"]),
    "partition": (partition_of(*LABELS), 7, ["2 modules", "untested (no null graph"]),
    "ledger": (ledger_of([layer_of("layers.0", 6, 6, (3, 2, 1, 4))]), 1, ["26 of 36 parameters", "synchronisation"]),
    "coefficient": (coefficient_of(2.0, 1e-3), 40, ["1.75", "reliable (a reason)"]),
    "curve": (curve_of(coefficient_of(2.0, 1e-3), coefficient_of(3.0, 1e-2, "doubtful")), 2, ["doubtful (at eps"]),
    "experiment": (experiment_of(isolation_of()), 6, ["isolate, 100 held-out data points", "untested"]),
    "modules": (experiment_of(ablation_of(np.ones((2, 3, 2)))), 8, ["module 2"]),
    "tracking": (
        tracking_of(partition_of(*LABELS), tracks=[(0, 1)]),
        2,
        ["over 1 checkpoint", "0 (3), 1 (3)"],
    ),
}


class Parts(HTMLParser):
    """Tags and text of a piece of HTML, in which every tag is closed and has no attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(html)
        assert not self.open

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        assert not attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_is_a_frame_and_a_table(name: str) -> None:
    result, rows, said = RESULTS[name]
    frame = result.to_frame()
    assert len(frame) == rows
    assert len(set(frame.columns)) == len(frame.columns) > 2
    shown = Parts(result._repr_html_())
    assert shown.tags == TAGS
    for words in said:
        assert words in shown.text


def test_every_kind_of_result_is_tested_here(bases: Bases) -> None:
    elsewhere = {Analysis, Cards, Coherence, Comparison, NetworkDistance, RefinedCoefficients}  # see their own rooms
    kinds = {type(result) for result, *_ in RESULTS.values()} | {type(bases)} | elsewhere
    assert {kind for kind in Result.__subclasses__() if "from_bytes" in vars(kind)} == kinds


def test_frame_of_a_graph_is_its_edges() -> None:
    graph = graph_of(*LABELS)
    frame = graph.to_frame(1.0)
    edges = [((a.earlier_cut, a.earlier), (a.later_cut, a.later), a.strength) for a in frame.itertuples()]
    assert sorted(edges) == sorted(graph.edges(1.0))
    assert (np.diff(graph.to_frame().strength) <= 0).all()


def test_frame_of_a_partition_is_its_nodes() -> None:
    partition, graph = partition_of(*LABELS), graph_of(*LABELS)
    frame = partition.to_frame(graph=graph)
    assert list(frame.module) == [0, 0, 1, 1, 0, 1, -1]
    assert list(frame.cut) == ["0"] * 4 + ["1"] * 3
    assert list(frame.importance) == [1.0] * 7
    with pytest.raises(GraphError, match="expected its own graph"):
        partition.to_frame(graph=InteractionGraph.from_blocks([np.ones((2, 2))]))


def test_frame_of_bases_is_their_coordinates_and_places_are_numbers(bases: Bases) -> None:
    frame = bases.to_frame()
    for place, (cut, basis) in enumerate(bases.items()):
        assert bases[place] is bases[cut] is basis
        np.testing.assert_array_equal(frame[frame.cut == cut].importance, basis.importance)
    assert bases[-1] is bases["2"]
    assert bases[1:] == (bases["1"], bases["2"])
    assert "Bases of 3 cuts" in Parts(bases._repr_html_()).text
    partial = replace(bases, settings={"left_out": {"before": ["conv1"], "between": [], "after": []}})
    assert Parts(partial._repr_html_()).words[-1] == "At no cut, before the first cut: conv1."
    with pytest.raises(IndexError):
        bases[3]
    with pytest.raises(KeyError):
        bases["3"]


def test_table_of_a_network_is_its_cuts() -> None:
    net, batches = network()
    assert "not checked yet" in Parts(net._repr_html_()).text
    net.check_once(batches)
    text = Parts(net._repr_html_()).text
    assert "Network of Sequential, loss mse, checked cut width 0:in 3 1 4 2 2" in text
    assert "found once a batch was seen" in Parts(Network(net.model, "auto")._repr_html_()).text


def test_analysis_is_its_nodes_and_its_verdict() -> None:
    net, batches = network()
    found = analyze(net, batches, epsilon=1e-6, resolution=1.0)
    frame = found.to_frame()
    assert list(frame.columns[:3]) == ["cut", "coordinate", "module"]
    np.testing.assert_array_equal(frame.importance, np.concatenate(found.graph.importance))
    shown = Parts(found._repr_html_()).text
    assert found.reason in shown
    assert "no edge" in shown


def test_text_is_escaped_and_long_tables_are_cut() -> None:
    html = html_table("<script>", {"<b>": ["</td><script>alert(1)</script>"] * 30}, ["<i>"])
    shown = Parts(html)
    assert shown.tags == TAGS
    assert html.count("<tr>") == 25
    assert "and 6 more rows" in shown.text


def test_numbers_are_short_and_what_is_not_known_is_a_dash() -> None:
    row = {"a": [np.int64(12345)], "b": [0.123456], "c": [None], "d": [float("nan")], "e": [True]}
    assert Parts(html_table("", row)).words[-5:] == ["12,345", "0.1235", "-", "-", "True"]


def test_missing_pandas_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        partition_of(*LABELS).to_frame()
