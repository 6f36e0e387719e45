"""Tables and notes of circuit experiments, of records made by hand."""

from typing import Any

import pytest
from cases_rows import cells, experiment, lines, outcome

from interbasis.service.records.estimates import ExperimentRow
from interbasis.service.terminal.experiments import experiment_notes, experiment_tables

WHOLE = outcome("whole", 0, {"mse": (0.0, 0.0)})
NOTHING = outcome("no edges", 12, {"mse": (2.0, 0.1)})


TOGETHER = "nodes of no module go along with the module that they exchange most loss with"


def notes(row: ExperimentRow) -> str:
    return "\n".join(experiment_notes(row))


# The table of a metric


def test_isolated_modules_are_compared_with_random_modules_and_edges_of_the_same_strengths() -> None:
    """Numbers by hand, errors with one digit, p with two."""
    (shown,) = experiment_tables(experiment())
    assert lines(shown) == [
        "network   ablated  mse           random modules      p  random edges      p",
        "whole           0  0 ± 0         -                   -  -                 -",
        "no edges       12  2 ± 0.1       -                   -  -                 -",
        "isolated        5  0.125 ± 0.03  1.5 ± 0.2       0.048  0.5 ± 0.2     0.095",
    ]


def test_isolated_modules_with_nothing_of_the_same_strengths_stand_beside_random_modules() -> None:
    summary = {**experiment().summary, "matched": {}}
    (shown,) = experiment_tables(experiment(summary=summary))
    assert lines(shown)[-1].split() == ["isolated", "5", "0.125", "±", "0.03", "1.5", "±", "0.2", "0.048", "-", "-"]


def test_each_metric_has_its_table_and_the_loss_is_first() -> None:
    values = {"accuracy": (0.98765, 0.0123), "kl": (0.25, 24.0)}
    beside = {"accuracy": (0.5, 0.0, 1.0), "kl": (3.0, 0.00123, 0.0476)}
    summary = {"rows": [outcome("whole", 0, values), outcome("without module 0", 4, values, beside)], "outputs": []}
    kl, accuracy = experiment_tables(experiment("modules", summary))
    assert lines(kl) == [
        "network           ablated  kl         random         p",
        "whole                   0  0.25 ± 20  -              -",
        "without module 0        4  0.25 ± 20  3 ± 0.001  0.048",
    ]
    assert cells(accuracy)[0][2] == "accuracy"
    assert cells(accuracy)[2][4:] == ["0.9877", "±", "0.01", "0.5", "±", "0", "1"]


def test_numbers_that_are_not_finite_are_dashes() -> None:
    """A summary holds None for them."""
    summary = {"rows": [outcome("whole", 0, {"kl": (None, None)}, {"kl": (None, None, 1.0)})]}
    (shown,) = experiment_tables(experiment("faithfulness", summary))
    assert cells(shown)[1] == ["whole", "0", "-", "±", "-", "-", "±", "-", "1"]


def test_predicted_costs_stand_beside_the_links_that_were_cut() -> None:
    links = [{"earlier": 0, "later": 1, "predicted": 0.123456}, {"earlier": 1, "later": 0, "predicted": 0.0}]
    rows = [WHOLE, NOTHING, outcome("0 to 1", 3, {"mse": (0.5, 0.1)}), outcome("1 to 0", 0, {"mse": (0.0, 0.0)})]
    (shown,) = experiment_tables(experiment("predict", {"rows": rows, "links": links}))
    assert [line[:3] for line in cells(shown)] == [
        ["network", "cost", "ablated"],
        ["whole", "-", "0"],
        ["no", "edges", "-"],
        ["0", "to", "1"],
        ["1", "to", "0"],
    ]
    assert "0.1235" in cells(shown)[3]


def test_long_names_of_rows_are_printed_as_they_are_and_fit() -> None:
    name = "[red]" + "x" * 200
    (shown,) = experiment_tables(experiment("faithfulness", {"rows": [outcome(name, 10**9, {"mse": (0.5, 0.1)})]}))
    _, first, *rest = cells(shown)
    assert first[1:] == ["1000000000", "0.5", "±", "0.1", "-", "-"]
    assert "".join([first[0], *(line[0] for line in rest)]) == name


# Modules: classes, outputs and data points


def modules(**particular: Any) -> ExperimentRow:
    rows = [
        outcome(name, 0, {"mse": (0.0, 0.0)}) for name in ("whole", "nothing", "without module 0", "module 0 alone")
    ]
    return experiment("modules", {"rows": rows, "n_modules": 1, **particular})


def test_accuracies_of_one_answer_with_the_three_classes_that_lose_most() -> None:
    """Means over the classes that occur: (1 + .9 + .8 + .7 + .6) / 5 = .8; without module 0 (.5 + .9 + .2 + .6) / 4."""
    whole = [[1.0, 0.9, 0.8, 0.7, 0.6, None]]
    without, alone = [[[0.5, 0.9, 0.2, None, 0.6, None]]], [[[0.9, 0.7, 0.5, 0.3, 0.7, 0.1]]]
    _, shown = experiment_tables(modules(whole_classes=whole, classes=[without, alone]))
    assert lines(shown) == [
        "network           mean of classes  classes that lose most",
        "whole                         0.8  -",
        "without module 0             0.55  2 (-0.60), 0 (-0.50)",
        "module 0 alone              0.533  3 (-0.40), 2 (-0.30), 1 (-0.20)",
    ]


def test_of_several_answers_three_have_columns_and_all_have_their_losses() -> None:
    whole = [[1.0, 1.0], [0.5, None], [None, None], [0.75, 0.25]]
    without = [[[0.25, 1.0], [0.5, None], [None, None], [0.0, 0.25]]]
    _, shown = experiment_tables(modules(whole_classes=whole, classes=[without, without]))
    assert lines(shown)[:3] == [
        "network           answer 0  answer 1  answer 2  answer:class, lose most",
        "whole                    1       0.5         -  -",
        "without module 0     0.625       0.5         -  0:0 (-0.75), 3:0 (-0.75)",
    ]


def test_outputs_that_change_most() -> None:
    """Classes go first where there are any."""
    outputs = [[[0.0, 0.123456, 2.0, 1e-5, 0.5]], [[0.0, 0.0, 0.0, 0.0, 0.0]]]
    _, shown = experiment_tables(modules(outputs=outputs, classes=[], whole_classes=[]))
    assert lines(shown) == [
        "network           outputs that change most",
        "without module 0  2 (2), 4 (0.5), 1 (0.123)",
        "module 0 alone    -",
    ]


def test_data_points_that_lose_most() -> None:
    without = [{"half": 0.0123456, "largest": [[7, 2.5], [123456, 0.123456], [3, 0.1], [4, 0.05]]}]
    alone = [{"half": None, "largest": []}]
    _, shown = experiment_tables(modules(inputs=[without, alone]))
    assert lines(shown) == [
        "network           half of the loss in  data points that lose most",
        "without module 0  1.23 %               7 (2.5), 123456 (0.123), 3 (0.1)",
        "module 0 alone    -                    -",
    ]


def test_of_two_modules_one_alone_is_the_network_without_the_other() -> None:
    """Its row is left out where it says the same, and only there."""
    values = {"without module 0": 3.0, "without module 1": 2.0, "module 0 alone": 2.0, "module 1 alone": 2.5}
    rows = [outcome(name, 4, {"mse": (value, 0.1)}) for name, value in values.items()]
    row = experiment("modules", {"rows": rows, "n_modules": 2})
    (shown,) = experiment_tables(row)
    assert [line.split("  ")[0] for line in lines(shown)[1:]] == [
        *("without module 0", "without module 1", "module 1 alone")
    ]
    assert "two modules: the network without one is the other alone" in notes(row)
    (shown,) = experiment_tables(experiment("modules", {"rows": rows, "n_modules": 3}))
    assert len(lines(shown)) == 5


def test_every_module_has_its_verdict_below() -> None:
    parts = [{"verdict": "supported", "reason": "it loses 30 %"}, {"verdict": "refuted", "reason": "it is [idle]"}]
    assert notes(modules(parts=parts)).splitlines()[-2:] == ["module 0: it loses 30 %", "module 1: it is [idle]"]


# Required edges


def test_required_edges_have_a_line_per_pair_of_cuts() -> None:
    """The loss scale is a squared strength; its root is shown: sqrt(0.0004) = 0.02."""
    particular = {"cuts": ["layers.0", "layers.1", "output"], "tolerance": 0.001, "n_edges": [100, 2000]}
    particular |= {"edges_required": [3, 40], "jointly_required": [5, 1000], "epsilon": [0.0004, 1.0]}
    for kind in ("bisect", "epsilon"):
        _, shown = experiment_tables(experiment(kind, {"rows": [WHOLE], **particular}, metric="mse"))
        assert lines(shown) == [
            "fewest of the strongest edges that keep mse within 0.001",
            "pair of cuts          alone  jointly    of  sqrt(epsilon)",
            "layers.0 to layers.1      3        5   100           0.02",
            "layers.1 to output       40     1000  2000              1",
        ]


def test_required_edges_between_cuts_of_long_names_fit() -> None:
    long = "blocks.11.hook_resid_post[:, -1]" * 4
    particular = {"cuts": [long, long], "tolerance": 1e-3, "n_edges": [10**9], "edges_required": [10**9]}
    particular |= {"jointly_required": [10**9], "epsilon": [1.23456e-10]}
    _, shown = experiment_tables(experiment("bisect", {"rows": [WHOLE], **particular}))
    found = " ".join(lines(shown)).split()
    assert found.count("1000000000") == 3
    assert "1.111e-05" in found


# Notes


def test_number_of_data_points_and_whether_they_were_held_out() -> None:
    assert notes(modules()).splitlines() == ["1,000 held-out data points", TOGETHER]
    row = experiment("modules", modules().summary, held_out=False, n=2)
    first, second, *_ = notes(row).splitlines()
    assert first == "2 data points"
    assert "made from the same data" in second


def test_cut_edges_are_summed_over_pairs_of_cuts_and_controls_are_explained() -> None:
    assert notes(experiment()).splitlines()[1:] == [
        "5 of 12 edges join different modules and were cut",
        "weak edges are cut too: those below the threshold at which the modules were found",
        "random modules have the same sizes; random edges are as many of the same strengths",
        "p: the share of random controls that do at least as well, what is measured counted as one of them",
    ]


def test_the_worst_cut_has_a_row_and_a_note_of_its_search() -> None:
    summary = experiment().summary
    row = outcome("worst cut", 5, {"mse": (0.25, 0.0312)}, {"mse": (1.75, 0.25, 0.0476)})
    worst = {"edges": 5, "steps": [20, 80], "step_size": 0.1, "starts": 3, "points": 1000, "cut": 0.125}
    worst |= {"losses": [0.2, 0.25], "beside": "partitions"}
    worst["matched"] = {"mse": {"value": 0.75, "spread": 0.2, "draws": 20, "p_value": 0.0952}}
    found = experiment(summary={**summary, "rows": [*summary["rows"], row], "worst": [worst]})
    (shown,) = experiment_tables(found)
    beside = ["1.5", "±", "0.2", "0.048"]
    assert lines(shown)[-2].split() == ["isolated", "5", "0.125", "±", "0.03", *beside, "0.5", "±", "0.2", "0.095"]
    assert lines(shown)[-1].split() == [
        "worst",
        "cut",
        "5",
        "0.25",
        "±",
        "0.03",
        "1.75",
        "±",
        "0.2",
        "0.048",
        "0.75",
        "±",
        "0.2",
        "0.095",
    ]
    said = notes(found)
    assert "3 starts, steps of 0.1; all cut 0.125, worst 0.2 after 20 steps, 0.25 after 80 steps" in said


def test_one_module_leaves_nothing_to_cut_and_the_next_command_is_named() -> None:
    rows = [WHOLE, NOTHING, outcome("isolated", 0, {"mse": (0.0, 0.0)})]
    summary = {"rows": rows, "n_modules": 1, "cut_edges": [0, 0], "n_edges": [400, 8000], "matched": {}}
    assert notes(experiment(summary=summary)).splitlines()[1:] == [
        "0 of 8,400 edges join different modules and were cut",
        "one module; to divide it by force: interbasis modules g-01234567 --k 2",
    ]


@pytest.mark.parametrize("kind", ["isolate", "modules"])
def test_data_mixed_between_modules(kind: str) -> None:
    mixing = {"own": 1.23456, "others": 0.0123456}
    said = "when data of their own module change 1.235, of other modules 0.01235"
    summary = {**experiment().summary, "mixing": mixing}
    assert f"{said}; without the strongest edge of each node" in notes(experiment(kind, summary))
    assert "variance of nodes" not in notes(experiment(kind, {**summary, "mixing": None}))


@pytest.mark.parametrize(
    ("control", "p_value", "said"),
    [
        (0.25, 0.1667, "(random 0.25, p 0.1667)"),
        (None, None, "(random -, p -)"),
    ],
)
def test_faithfulness_lists_its_curve_and_areas(control: float | None, p_value: float | None, said: str) -> None:
    curve = [{"value": value, "standard_error": 0.1} for value in (0.0, 0.98765, 1.0)]
    summary = {"rows": [WHOLE, NOTHING], "fractions": [0.001, 0.5, 1.0], "curve": curve}
    summary["cmd"] = {"value": 0.35, "standard_error": 0.1}
    row = experiment("faithfulness", summary, value=0.654321, control=control, p_value=p_value)
    assert notes(row).splitlines()[1:] == [
        "f(k) of the strongest edges: 0.001: 0.000, 0.5: 0.988, 1: 1.000",
        f"CPR 0.6543 {said}, CMD 0.35",
    ]


def test_rank_correlation_with_its_interval_or_why_there_is_none() -> None:
    summary = {"rows": [WHOLE, NOTHING], "links": [], "interval": [-0.123, 0.987]}
    said = notes(experiment("predict", summary, value=0.75))
    assert said.endswith("Spearman of predicted cost and loss 0.75 [-0.12, 0.99]")
    said = notes(experiment("predict", {**summary, "interval": None}, value=None))
    assert said.endswith("too few links to rank; more modules: interbasis modules g-01234567 --k 4")


def test_kinds_without_notes_of_their_own_have_the_data_only() -> None:
    assert notes(experiment("bisect", {"rows": [WHOLE]})) == "1,000 held-out data points"
