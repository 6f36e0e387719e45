"""The interactive picture: every node with its card, every edge above the cutoff, modules apart."""

import sys
from typing import Any

import numpy as np
import pytest
from cases_figures import EPSILON, graph_of, partition_of

from interbasis.analysis import InteractionGraph
from interbasis.analysis.errors import GraphError, InputError

LABELS = ([0, 0, 1, -1], [0, 1, 1])


@pytest.fixture(scope="module")
def drawn() -> Any:
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'interbasis[notebook]'")
    blocks = [np.where(np.array(LABELS[1])[:, None] == np.array(LABELS[0]), 3.0, 0.5)]
    graph = InteractionGraph.from_blocks(blocks, ["<in>", "out"], [np.arange(1.0, 5.0), np.ones(3)])
    return graph.plot_interactive(partition_of(*LABELS), title="a & b", names={"out": ["x", "y", "<z>"]})


def cards_of(drawn: Any) -> dict[str, list[str]]:
    return {trace.name: list(trace.hovertext) for trace in drawn.data if trace.mode == "markers"}


def test_every_node_with_edges_has_a_card(drawn: Any) -> None:
    cards = cards_of(drawn)
    assert {name: len(found) for name, found in cards.items()} == {"module 0": 3, "module 1": 3}
    assert cards["module 0"][0] == (
        "<b>&lt;in&gt;, coordinate 0</b><br>module 0<br>importance 1<br>to out 0 (3), out 1 (0.5), out 2 (0.5)"
    )
    assert cards["module 1"][2].startswith("<b>out, coordinate 2</b> (&lt;z&gt;)<br>module 1<br>importance 1<br>from ")


def test_every_edge_above_the_cutoff_is_a_line_in_the_colour_of_its_module(drawn: Any) -> None:
    lines = {trace.name: trace for trace in drawn.data if trace.mode == "lines"}
    assert {name: len(trace.x) // 3 for name, trace in lines.items()} == {"module 0": 2, "module 1": 2}
    assert lines["module 0"].line.color == "rgb(31, 119, 180)"
    assert lines["module 0"].legendgroup == "module 0"


def test_heading_names_title_and_facts(drawn: Any) -> None:
    assert drawn.layout.title.text.startswith("<b>a &amp; b</b><br><sub>2 modules (untested), cost between modules")
    assert [text.split("<br>")[0] for text in drawn.layout.xaxis.ticktext] == ["&lt;in&gt;", "out"]


def test_edges_between_modules_are_dotted() -> None:
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'interbasis[notebook]'")
    graph = graph_of(*LABELS, between=2.0)
    found = graph.plot_interactive(partition_of(*LABELS), EPSILON)
    (line,) = [trace for trace in found.data if trace.name == "between modules" and trace.mode == "lines"]
    assert line.line.dash == "dot"
    with pytest.raises(GraphError, match="of another graph"):
        graph.plot_interactive(partition_of([0, 0], [0, 1]))


def test_missing_plotly_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(InputError, match=r"pip install 'interbasis\[notebook\]'"):
        graph_of(*LABELS).plot_interactive()
