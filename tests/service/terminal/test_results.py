"""Tables of results, of records made by hand: what is shown, how it is aligned, and what is left out."""

from typing import Any

import pytest
from cases_rows import NAN, cells, colours, layer, ledger, lines, llc, module, partition, point, step, tracking
from rich.text import Text

from interbasis.service.terminal.results import (
    layers_table,
    ledger_table,
    llc_summary,
    llc_table,
    modules_table,
    partition_notes,
    remark_notes,
    tracking_table,
    verdict_line,
)

LONG = "[red]" + "x" * 200  # a name that Rich would colour
WIDE = "数学模型" * 40


# Modules


def test_modules_have_a_line_each() -> None:
    modules = (module(0, size=1500, sizes=(700, 800), inner_cost=123.456), module(1, outer_cost=NAN))
    assert lines(modules_table(partition(modules=modules))) == [
        "module  nodes  per cut  inner cost  outer cost",
        "     0   1500  700 800       123.5         0.5",
        "     1      5  2 3            1.25           -",
    ]


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, []),
        (1, []),
        (12, []),
        (13, ["1 more module: show with --json"]),
        (14, ["2 more modules: show with --json"]),
        (1012, ["1,000 more modules: show with --json"]),
    ],
)
def test_twelve_modules_are_shown_and_the_others_counted(count: int, said: list[str]) -> None:
    found = lines(modules_table(partition(n_modules=count, modules=tuple(map(module, range(count))))))
    assert found[: len(said)] == said
    assert found[len(said)].split() == ["module", "nodes", "per", "cut", "inner", "cost", "outer", "cost"]
    assert [line.split()[0] for line in found[len(said) + 1 :]] == [str(m) for m in range(min(count, 12))]


def test_modules_of_many_cuts_and_of_large_numbers_fit() -> None:
    many = module(10**6, size=10**9, sizes=(10**6,) * 48, inner_cost=-1.23456e-100, outer_cost=1.23456e100)
    head, first, *rest = lines(modules_table(partition(modules=(many, module(7)))))
    assert first.split()[:2] == ["1000000", "1000000000"]
    assert first.split()[-2:] == ["-1.235e-100", "1.235e+100"]
    per_cut = [word for line in (first, *rest[:-1]) for word in line[head.index("per cut") :].split()]
    assert per_cut.count("1000000") == 48


# The parameter ledger


def test_ledger_goes_from_all_parameters_to_the_effective_ones() -> None:
    assert lines(ledger_table(ledger())) == [
        "  nominal          2,000  100.0%  parameters",
        "- activations        500   25.0%  directions that activations never take",
        "- Jacobians          250   12.5%  directions that the output never sees",
        "- gating              20    1.0%  units off where activations vary",
        "- synchronisation     10    0.5%  units or heads that act as one",
        "- unexplained        220   11.0%  the rest of the Hessian's free directions",
        "= effective        1,000   50.0%  exact rank of the Hessian",
    ]


def test_first_and_last_line_of_a_ledger_are_bold() -> None:
    shown = colours(ledger_table(ledger()))
    assert (shown["nominal"], shown["= effective"], shown.get("- gating")) == ("bold", "bold", None)


def test_tied_embeddings_have_a_line_below_the_activations_that_count_them() -> None:
    found = lines(ledger_table(ledger(tied=125)))
    assert len(found) == 8
    assert found[2].split() == [
        "of",
        "which",
        "tied",
        "125",
        "6.2%",
        "tokens",
        "and",
        "positions",
        "only",
        "seen",
        "together",
    ]
    assert found[1].split()[1] == "activations"


@pytest.mark.parametrize(
    ("changes", "unexplained", "effective"),
    [
        ({"method": "exact"}, "- unexplained 220 11.0%", "exact rank of the Hessian"),
        (
            {"method": "lanczos", "lower": 950, "upper": 1050},
            "- unexplained 220 11.0%",
            "estimate, between 950 and 1,050",
        ),
        ({"method": "sampled", "lower": 900}, "- unexplained >= 220 the", "at most; at least 900"),
        ({"method": "sampled", "lower": 1900, "unexplained": 0}, "- unexplained ? the", "at most; at least 1,900"),
        ({"method": "lanczos", "lower": 0, "upper": 0, "unexplained": 0}, "- unexplained 0 0.0%", "between 0 and 0"),
    ],
)
def test_how_the_rank_is_known_is_said(changes: dict[str, Any], unexplained: str, effective: str) -> None:
    *_, before, last = [" ".join(words) for words in cells(ledger_table(ledger(**changes)))]
    assert before.startswith(unexplained)
    assert last.startswith("= effective 1,000 50.0%")
    assert last.endswith(effective)


def test_ledger_of_a_large_network_fits() -> None:
    found = cells(ledger_table(ledger(nominal=10**12, effective=10**11, method="lanczos", lower=10**10, upper=10**12)))
    assert found[0][:3] == ["nominal", "1,000,000,000,000", "100.0%"]
    assert ["=", "effective", "100,000,000,000", "10.0%"] in [line[:4] for line in found]
    assert " ".join(found[-2][4:] + found[-1]) == "estimate, between 10,000,000,000 and 1,000,000,000,000"


def test_layers_have_their_ranks_and_sums_of_free_directions() -> None:
    """334 = 300 + 20 + 10 + 4; counts are aligned as numbers."""
    small = layer("layers.10", nominal=16, activations=0, jacobians=1, gating=0, synchronised=0, dead=0, kronecker={})
    assert lines(layers_table(ledger(layers=(layer(), small)))) == [
        "layer      nominal  free  rank G  rank K  dead  cos(H, GxK)",
        "layers.0     1,234   334  12/16   9/10       1       0.9877",
        "layers.10       16     1  12/16   9/10       0            -",
    ]


def test_layers_without_a_fit_have_a_dash_and_none_are_an_empty_table() -> None:
    assert cells(layers_table(ledger(layers=(layer(kronecker={"cosine": None}),))))[1][-1] == "-"
    assert len(lines(layers_table(ledger(layers=())))) == 1


@pytest.mark.parametrize("name", [LONG, WIDE])
def test_layers_of_long_names_keep_their_numbers_whole(name: str) -> None:
    big = layer(name, nominal=10**11, activations=10**10, jacobians=0, gating=0, synchronised=0, dead=10**5)
    found = cells(layers_table(ledger(layers=(big,))))
    assert {"100,000,000,000", "10,000,000,000", "100000"} <= set(found[1])
    assert "".join(line[0] for line in found[1:]) == name


# Learning coefficients


def test_estimate_is_shown_with_its_evidence() -> None:
    assert lines(llc_table(llc())) == [
        "N_eff                   9  [8, 10] of 2,600 parameters",
        "lambda                4.5  +- 0.25, [4, 5]",
        "epsilon             0.001  loss scale at which this holds",
        "temperature          5500  n beta",
        "verdict          reliable",
        "R-hat               1.012  of the loss, expected 1",
        "effective draws       400  of 4 chains of 500",
        "virial               1.02  +- 0.03, expected 1",
        "heat                 0.97  t^2 Var(L) / lambda, 1 for constant lambda",
        "acceptance              -  of proposals",
        "soft rank            4.75  lambda if the loss were quadratic",
        "prior               0.125  what the localiser hides of lambda; in the interval",
        "kernel                hmc  preconditioner lanczos",
    ]


def test_estimate_without_numbers_has_dashes() -> None:
    """As of chains that all failed; None stands for NaN in a record."""
    nothing = {"r_hat": None, "virial": None, "virial_error": NAN, "heat": NAN, "soft_rank": None, "prior": None}
    found = point(standard_error=None, lower=None, upper=None, diagnostics=nothing)
    row = llc(value=None, epsilon=None, r_hat=None, ess=NAN, verdict="failed", points=(found,))
    shown = {line[0]: line[1:] for line in cells(llc_table(row))}
    assert shown["N_eff"] == ["-", "[-,", "-]", "of", "2,600", "parameters"]
    assert shown["lambda"] == ["-", "+-", "-,", "[-,", "-]"]
    assert shown["virial"] == ["-", "+-", "-,", "expected", "1"]
    assert {shown[name][0] for name in ("epsilon", "R-hat", "heat", "soft", "prior")} == {"-", "rank"}
    assert shown["verdict"] == ["failed"]
    assert colours(llc_table(row))["failed"] == "bold red"


def test_prior_that_was_not_stored_is_a_dash() -> None:
    found = point()
    del found["diagnostics"]["prior"], found["diagnostics"]["below"]  # of version 0.6
    assert ["prior", "-"] in [line[:2] for line in cells(llc_table(llc(points=(found,))))]


def test_loss_scale_that_was_asked_for_is_named() -> None:
    row = llc(epsilon=0.00102, recipe={"epsilon": 0.001, "seed": 0})
    assert "loss scale at which this holds, asked: 0.001" in lines(llc_table(row))[2]
    assert "asked" not in lines(llc_table(llc(recipe={"temperature": 5500.0})))[2]


@pytest.mark.parametrize(
    ("below", "said"),
    [
        (None, None),
        ({"worth": 0.0, "exact": True, "directions": 3.0}, None),
        ({"worth": 12.5, "exact": True, "directions": 30.0}, "below 12.5 more at a larger radius, of 30 directions"),
        ({"worth": 9.0, "exact": False, "directions": 30.4}, "below 9 more at a larger radius, of about 30 directions"),
    ],
)
def test_directions_that_the_localiser_confines_have_a_line_where_they_matter(
    below: dict[str, Any] | None, said: str | None
) -> None:
    shown = [" ".join(line) for line in cells(llc_table(llc(points=(point(diagnostics={"below": below}),))))]
    assert [line for line in shown if line.startswith("below")] == ([said] if said else [])


def test_curve_has_a_line_per_loss_scale_with_doubled_intervals() -> None:
    failed = point(
        epsilon=1.23456e-10, n_effective=None, lower=None, upper=None, verdict="failed", diagnostics={"ess": NAN}
    )
    row = llc(mode="curve", points=(point(), failed))
    assert lines(llc_table(row)) == [
        "  epsilon  N_eff  interval (95 %)  R-hat  ESS  verdict",
        "    0.001      9  [8, 10]          1.012  400  reliable",
        "1.235e-10      -  [-, -]           1.012    -  failed",
    ]
    assert {colours(llc_table(row))[name] for name in ("reliable", "failed")} == {"green", "bold red"}
    assert len(lines(llc_table(llc(mode="curve", points=())))) == 1


def test_several_estimates_end_in_a_table_of_their_names() -> None:
    rows = [llc(), llc(value=None, verdict="doubtful", points=(point(lower=None, upper=6.0),))]
    assert lines(llc_summary(["step[1]", "step2"], rows)) == [
        "checkpoint  N_eff  interval (95 %)  verdict",
        "step[1]         9  [8, 10]          reliable",
        "step2           -  [-, 12]          doubtful",
    ]
    found = cells(llc_summary([LONG], [llc()]))
    assert found[1][1:] == ["9", "[8,", "10]", "reliable"]
    assert "".join(line[0] for line in found[1:]) == LONG


# Trackings


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"kind": "birth", "earlier": [], "later": [4]}, "birth of 4"),
        ({"kind": "death", "earlier": [3], "later": []}, "death of 3"),
        ({"kind": "split", "earlier": [0], "later": [0, 5]}, "split of 0 into 0, 5"),
        ({"kind": "merge", "earlier": [1, 2], "later": [1]}, "merge of 1, 2 into 1"),
    ],
)
def test_events_stand_at_the_checkpoint_where_they_are_seen(event: dict[str, Any], said: str) -> None:
    shown = lines(tracking_table(tracking(events=({**event, "at": 1},))))
    assert shown == [
        "step  modules (nodes)  churn  since the step before",
        "   0  0 (4), 1 (3)         -",
        f" 100  0 (4), 1 (3)      0.25  {said}",
    ]


def test_several_events_of_one_step_are_all_named_in_their_order() -> None:
    events = (
        {"kind": "death", "at": 1, "earlier": [3], "later": []},
        {"kind": "birth", "at": 1, "earlier": [], "later": [4]},
    )
    assert lines(tracking_table(tracking(events=events)))[-1].endswith("death of 3; birth of 4")


def test_checkpoints_are_named_by_step_or_else_by_label() -> None:
    steps = (step(0, step=0, label="first"), step(1, step=None, label="final[0]"), step(2, step=None, label=None))
    assert [line[0] for line in cells(tracking_table(tracking(steps=steps)))] == ["step", "0", "final[0]", "-"]


@pytest.mark.parametrize(
    ("count", "said"), [(0, ""), (12, "11 (11)"), (13, "11 (11), 1 more"), (20, "11 (11), 8 more")]
)
def test_twelve_modules_of_a_step_are_shown_and_the_others_counted(count: int, said: str) -> None:
    many = step(0, tracks=tuple(range(count)), sizes=tuple(range(count)), churn=0.5)
    head, *found = lines(tracking_table(tracking(steps=(many,))))
    start, end = head.index("modules"), head.index("churn")
    assert " ".join(" ".join(line[start:end] for line in found).split()).endswith(said)


def test_tracking_without_checkpoints_or_of_long_labels_fits() -> None:
    assert len(lines(tracking_table(tracking(steps=())))) == 1
    event = {"kind": "merge", "at": 0, "earlier": list(range(40)), "later": [1]}
    found = lines(tracking_table(tracking(steps=(step(0, step=None, label=WIDE, churn=0.123456),), events=(event,))))
    assert found[1].count("0.1235") == 1


# Verdicts and notes


@pytest.mark.parametrize(
    ("row", "said", "colour"),
    [
        (partition(), "supported: clearer than in null graphs", "green"),
        (partition(reason=None), "supported", "green"),
        (partition(verdict="untested", reason="  no null graphs \n"), "untested: no null graphs", "yellow"),
        (llc(), "reliable: the chains mixed", "green"),
        (llc(verdict="failed", reason="[red] R-hat 1.3"), "failed: [red] R-hat 1.3", "bold red"),
    ],
)
def test_verdict_is_coloured_and_its_reason_is_not(row: Any, said: str, colour: str) -> None:
    line = verdict_line(row)
    assert line is not None
    assert line.plain == said
    assert line.style == colour
    assert [str(span.style) for span in line.spans] == (["default"] if ": " in said else [])
    assert lines(line) == [said]


def test_result_of_an_earlier_version_has_no_verdict() -> None:
    assert verdict_line(partition(verdict=None)) is None


def test_notes_name_their_partition_and_warnings_are_yellow() -> None:
    rows = [partition(id="p-1"), partition(id="p-2", verdict=None), partition(id="p-3", warning="[b] few nodes")]
    notes = partition_notes(rows)
    assert [note.plain for note in notes] == [
        "p-1: supported: clearer than in null graphs",
        "p-3: supported: clearer than in null graphs",
        "p-3: warning: [b] few nodes",
    ]
    assert notes[-1] == Text("p-3: warning: [b] few nodes", "yellow")
    assert colours(notes[0])["supported"] == "green"
    assert partition_notes([]) == []


def test_lists_have_warnings_without_reasons() -> None:
    rows = [partition(id="p-1"), partition(id="p-2", warning="few nodes")]
    assert [note.plain for note in partition_notes(rows, reasons=False)] == ["p-2: warning: few nodes"]


def test_warning_that_says_the_same_as_the_verdict_is_left_out() -> None:
    row = partition(id="p-1", verdict="one module", reason="no division is better", warning="there is one module")
    assert [note.plain for note in partition_notes([row])] == ["p-1: one module: no division is better"]
    assert partition_notes([row], reasons=False) == []


def test_remarks_stand_once_and_name_their_partitions_where_not_all_have_them() -> None:
    rows = [
        partition(id="p-1", verdict=None, remarks=("[b] Few data.", "Estimated: 3 %.")),
        partition(id="p-2", verdict=None, remarks=("[b] Few data.", "Estimated: 4 %.")),
        partition(id="p-3", verdict=None, remarks=("[b] Few data.",)),
    ]
    assert [note.plain for note in remark_notes(rows)] == [
        "[b] Few data.",
        "p-1: Estimated: 3 %.",
        "p-2: Estimated: 4 %.",
    ]
    assert partition_notes(rows) == remark_notes(rows)
    assert partition_notes(rows, reasons=False) == []
    assert remark_notes([partition(remarks=None)]) == []
