"""Every figure: all kinds of results have one, it can be read, saved, and drawn again from a file of the result."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from cases_figures import (
    EPSILON,
    ablation_of,
    assert_readable,
    bisection_of,
    coefficient_of,
    curve_of,
    experiment_of,
    facts_of,
    faithfulness_of,
    graph_of,
    isolation_of,
    layer_of,
    ledger_of,
    outcome_of,
    partition_of,
    parts_of,
    prediction_of,
    profile_row,
    texts_of,
    title_of,
    tracking_of,
    units_of,
)
from cases_meaning import picture_cards, token_cards, two_task_cards
from matplotlib.figure import Figure
from torch import nn

from interbasis.analysis import (
    InteractionGraph,
    Network,
    NetworkDistance,
    compare_partitions,
    network_distance,
    score_partition,
)
from interbasis.analysis.circuits.controls import Control
from interbasis.analysis.errors import InputError
from interbasis.analysis.modules.tracking import Event
from interbasis.analysis.modules.untrained import ControlRow
from interbasis.analysis.results import Result, figure

LABELS = ([0, 0, 1, 1], [0, 1, 1], [0, 0, 1])
LONG = ["model.layers.10.mlp.gate_proj:in", "model.layers.11.mlp.gate_proj:in", "model.layers.12.mlp.gate_proj:in"]
NAN = float("nan")
LAYERS = [layer_of("layers.0.linear", 6, 6, (3, 2, 1, 4)), layer_of("layers.1.linear", 7, 3, (1, 0, 2, 0))]


def many_modules() -> Figure:
    graph = InteractionGraph.from_blocks([2 * np.eye(42)])
    return score_partition(graph, [np.arange(42)] * 2, EPSILON).plot()


def large_graph() -> Figure:
    graph = InteractionGraph.from_blocks([np.random.default_rng(0).uniform(1, 2, (80, 80))])
    return graph.plot(score_partition(graph, [np.arange(80) % 3] * 2, 0.5))


def long_names(what: str) -> Figure:
    graph = InteractionGraph.from_blocks([3 * np.eye(2)] * 2, LONG)
    partition = score_partition(graph, [np.arange(2)] * 3, EPSILON)
    return partition.plot() if what == "membership" else graph.plot(partition)


def tracked() -> Figure:
    events = [Event("split", 1, (0,), (0, 1)), Event("birth", 1, (), (2,)), Event("death", 2, (1,), ())]
    flows = [[[5, 0], [0, 5]], [[5, 0], [0, 5]]]
    found = tracking_of(*[partition_of(*LABELS)] * 3, tracks=[(0, 1), (0, 2), (0, 2)], flows=flows, events=events)
    return found.plot()


def profiled(*objectives: str, null: bool = True) -> Figure:
    rows = [
        profile_row(name, 0.25 * 2**i, i + 1, **({"z": i - 1.0, "gap": 0.1 * i, "significant": i > 2} if null else {}))
        for name in objectives
        for i in range(5)
    ]
    return partition_of(*LABELS, profile=tuple(rows), objective=objectives[0]).plot_profile()


def isolated(metric: str) -> Figure:
    random = {metric: Control(0.75, 0.05, 9, 0.1)}
    rows = {name: outcome_of(name, **{metric: 0.5}) for name in ("whole", "ablated")}
    shown = outcome_of("isolated", controls=random, **{metric: 0.5})
    return experiment_of(isolation_of(**rows, isolated=shown, matched=random)).plot()


def compared(*texts: str, modules: int = 3) -> Figure:
    """Divisions of 60 nodes that differ in every tenth node, with these texts in the names of their modules."""
    labels = [{f"n{i}": f"{text}{(i + (i % 10 == k)) % modules}" for i in range(60)} for k, text in enumerate(texts)]
    return compare_partitions(*labels, n_permutations=19).plot()


def distances(*names: str, held_out: bool = True) -> NetworkDistance:
    """Distances of linear networks x -> w x with w = 0, 1, ... on two data points."""
    nets = [nn.Linear(1, 1, bias=False) for _ in names]
    for weight, net in enumerate(nets):
        nn.init.constant_(net.weight, weight)
    data = [torch.tensor([[1.0], [2.0]])]
    networks = [Network(net, ()) for net in nets]
    return network_distance(networks, data, held_out=data if held_out else None, names=names)


CONTROLS = (
    ControlRow("this network", None, 0.1, 94, 20.0, 27.0, 4, 0.2, "supported"),
    *(ControlRow(f"untrained copy {i}", i, 0.1, 280 + i, 40.0, cost, 1) for i, cost in enumerate((51.0, None, 60.0))),
)

FIGURES: dict[str, Callable[[], Figure]] = {
    "comparison": lambda: compared("", ""),
    "comparison of many modules": lambda: compared("", "", modules=40),
    "comparison of long names": lambda: compared("a group of features that people named ", "cluster $x_"),
    "comparison of four divisions": lambda: compared("", "a", "b", "c"),
    "distances of seeds": lambda: distances("run/seed0", "run/seed1", "run/seed2").plot(),
    "distances of two networks on data alone": lambda: distances("a" * 40, "$b_", held_out=False).plot(),
    "graph with hidden edges": large_graph,
    "graph of long names": lambda: long_names("graph"),
    "membership": lambda: partition_of(*LABELS[:2]).plot(),
    "membership of many modules": many_modules,
    "membership of long names": lambda: long_names("membership"),
    "controls": lambda: partition_of(*LABELS, controls=CONTROLS).plot_controls(),
    "profile of one objective": lambda: profiled("layered_cpm"),
    "profile of two objectives": lambda: profiled("layered_cpm", "layered_modularity"),
    "profile without null graphs": lambda: profiled("layered_cpm", null=False),
    "tracks of one checkpoint": lambda: tracking_of(partition_of(*LABELS), tracks=[(0, 1)]).plot(),
    "tracks": tracked,
    "waterfall": lambda: ledger_of(LAYERS, 2, method="lanczos", below=5).plot(),
    "synchronisation": lambda: units_of(1 - np.eye(4), [(0, 1), (2,)], always_on=1, dead=(3,)).plot(),
    "curve": lambda: curve_of(coefficient_of(2.0, 1e-3), coefficient_of(NAN, 1e-2, "failed")).plot(),
    "traces": lambda: coefficient_of(2.0, 1e-3, "doubtful", used=True, chains=8).plot(),
    "isolate by one metric": lambda: isolated("mse"),
    "modules by class": lambda: experiment_of(ablation_of(np.ones((2, 3, 2)), np.ones((2, 3, 2, 30)))).plot(),
    "faithfulness": lambda: experiment_of(faithfulness_of()).plot(),
    "bisect": lambda: experiment_of(bisection_of(*[((0, 0.1), (4000, 0.9))] * 6)).plot(),
    "card of a module of pictures": lambda: picture_cards().module(0).plot(),
    "card of a node of pictures": lambda: picture_cards().node(0, 0).plot(),
    "card of a node of tokens": lambda: token_cards().node(0, 0).plot(),
    "predict": lambda: experiment_of(prediction_of((10.0, 2.0), (5.0, 1.0), (1.0, 0.1), random=0.5)).plot(),
}

KINDS = {kind.__name__: kind for kind in figure.registry if kind is not object}


@cache
def results() -> dict[str, Result | Any]:
    """One of every kind."""
    cards, coefficient = two_task_cards(points=20), coefficient_of(2.0, 1e-3)
    return {
        "InteractionGraph": graph_of(*LABELS),
        "Partition": partition_of(*LABELS),
        "Tracking": tracking_of(partition_of(*LABELS), tracks=[(0, 1)]),
        "Comparison": compare_partitions({"p": 0, "q": 1, "r": 1}, {"p": "x", "q": "x", "r": "y"}, n_permutations=9),
        "NetworkDistance": distances("a", "b"),
        "Ledger": ledger_of(LAYERS, 2),
        "SynchronisedUnits": units_of(np.zeros((2, 2)), [(0, 1)]),
        "LearningCoefficient": coefficient,
        "LearningCoefficientCurve": curve_of(coefficient, coefficient_of(3.0, 1e-2, "doubtful")),
        "RefinedCoefficients": parts_of(coefficient, coefficient_of(0.8, 1e-3), coefficient_of(0.9, 1e-3)),
        "Experiment": experiment_of(faithfulness_of()),
        "Cards": cards,
        "ModuleCard": cards.module(0),
        "NodeCard": cards.node(0, 0),
    }


@pytest.mark.parametrize("name", KINDS)
def test_title_stands_above_the_facts(name: str) -> None:
    drawn = results()[name].plot(title="two-digits, step 2,500")
    assert title_of(drawn) == "two-digits, step 2,500"
    assert facts_of(drawn) == facts_of(results()[name].plot())
    assert_readable(drawn)


@pytest.mark.parametrize("name", FIGURES)
def test_all_texts_are_on_the_figure_and_apart(name: str) -> None:
    assert_readable(FIGURES[name]())


def test_every_kind_with_a_figure_is_drawn_here() -> None:
    assert set(KINDS) == set(results())


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if issubclass(kind, Result)])
def test_result_from_a_file_is_drawn_the_same(name: str) -> None:
    result = results()[name]
    drawn, again = figure(result), type(result).from_bytes(result.to_bytes()).plot()
    assert [text.get_text() for text in texts_of(drawn)] == [text.get_text() for text in texts_of(again)]
    assert [axes.axis() for axes in drawn.axes] == [axes.axis() for axes in again.axes]


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_are_saved_as_pixels_and_as_vectors(form: str, start: bytes) -> None:
    stream = io.BytesIO()
    results()["Tracking"].plot().savefig(stream, format=form)
    assert stream.getvalue().startswith(start)
    if form == "svg":
        assert b"<!-- 0 -->" in stream.getvalue()
        assert b"2 modules over 1 checkpoint, no events, numbers: nodes" in stream.getvalue()


@pytest.mark.parametrize("result", [None, {"nodes": 3}, np.zeros(3), outcome_of("whole", mse=1.0)])
def test_what_has_no_figure_is_refused_by_its_type(result: Any) -> None:
    with pytest.raises(InputError, match=f"there is no figure of a {type(result).__name__}$"):
        figure(result)
