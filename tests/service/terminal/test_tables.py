"""Lists of stored things, and the format of numbers, times and verdicts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cases_rows import (
    NAN,
    ROWS,
    THEN,
    cells,
    colours,
    console,
    experiment,
    job,
    ledger,
    lines,
    llc,
    partition,
    schedule,
)
from rich.text import Text

from interbasis.service.cli.sources import KINDS
from interbasis.service.terminal import tables
from interbasis.service.terminal.tables import age, counted, number, plainly, table, verdict
from interbasis.service.terminal.views import VIEWS, rows_table

LONG = "[red]EleutherAI/pythia-14m [/red] " * 12  # what Rich would take for markup
WIDE = "数学模型" * 40  # each of two columns


@pytest.fixture(autouse=True)
def three_days_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is three days later than the rows were stored."""
    monkeypatch.setattr(tables, "_now", lambda: THEN + timedelta(days=3))


# Numbers, counts and other values


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (NAN, "-"),
        (0.0, "0"),
        (0.123456, "0.1235"),
        (-0.123456, "-0.1235"),
        (1.0, "1"),
        (12345.6, "1.235e+04"),
        (1.23456e-10, "1.235e-10"),
        (float("inf"), "inf"),
        (7, "7"),
        (123456789, "123456789"),  # whole numbers in full
        (True, "True"),
        ("text", "text"),
        ("", ""),
    ],
)
def test_numbers_have_four_digits_and_what_is_missing_is_a_dash(value: Any, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 modules"), (1, "1 module"), (2, "2 modules"), (1000, "1,000 modules"), (10**7, "10,000,000 modules")],
)
def test_counts_are_in_the_singular_for_one_only(count: int, shown: str) -> None:
    assert counted(count, "module") == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({}, "-"),
        ([], "-"),
        ((), "-"),
        (None, "-"),
        ({"seed": None}, "-"),
        ({"k": 2, "seed": None, "epsilon": 0.123456}, "k 2, epsilon 0.1235"),
        ({"widths": [2, 3], "names": ()}, "widths 2 3, names -"),
        ({"data": {"name": "digits", "split": {"seed": 0}}}, "data name digits split seed 0"),
        ([1, 2.5, "a"], "1, 2.5, a"),
        ([[1, 2], [3]], "1 2, 3"),
        (
            [{"kind": "graph", "id": "g-1"}, {"kind": "partition", "id": "p-2"}],
            "kind graph id g-1, kind partition id p-2",
        ),
        (datetime(2026, 1, 2, 3, 4, 59, tzinfo=UTC), "2026-01-02 03:04"),
        ({"then": datetime(2026, 1, 2, 3, 4, tzinfo=UTC)}, "then 2026-01-02 03:04"),
        ("[red]", "[red]"),
    ],
)
def test_values_are_shown_without_brackets_and_quotes(value: Any, shown: str) -> None:
    assert plainly(value) == shown


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("reliable", "green"),
        ("supported", "green"),
        ("failed", "bold red"),
        ("refuted", "bold red"),
        ("doubtful", "yellow"),
        ("untested", "yellow"),
        ("one module", "yellow"),
        ("not told apart from chance", "yellow"),
    ],
)
def test_verdicts_are_green_yellow_or_red(name: str, colour: str) -> None:
    assert verdict(name) == Text(name, colour)
    assert colours(table(("verdict",), [(verdict(name),)]))[name] == colour


def test_verdict_that_was_not_stored_is_a_dash() -> None:
    assert verdict(None) == Text("-")
    assert lines(verdict(None)) == ["-"]


# Tables


def test_numbers_are_aligned_right_and_text_left() -> None:
    found = table(("name", "n", "cost"), [("a", 1, 0.5), ("bcdef", 1000, None), ("g", None, NAN), ("h", 22, 1234.56)])
    assert lines(found) == [
        "name      n  cost",
        "a         1   0.5",
        "bcdef  1000     -",
        "g         -     -",
        "h        22  1235",
    ]


def test_column_with_one_text_is_aligned_left() -> None:
    assert lines(table(("step",), [(1,), ("final",), (None,)])) == ["step", "1", "final", "-"]


def test_table_without_rows_has_its_names() -> None:
    assert lines(table(("id", "name"), [])) == ["id  name"]


def test_title_stands_above_as_it_is_written() -> None:
    text = "[bold]two[/bold] :tiger:"
    assert lines(table(("a", "b"), [(1, "x" * 30)], text)) == [text, "a  b", f"1  {'x' * 30}"]


def test_names_of_columns_are_bold() -> None:
    assert colours(table(("id", "name"), [("a", "b")])) == {"id": "bold", "name": "bold"}


@pytest.mark.parametrize("whole", ["p-0123456789abcdef", 123456789012345678])
def test_ids_and_numbers_are_never_broken(whole: Any) -> None:
    """However little room others leave: an ID is copied from here."""
    found = lines(table(("any", "text", "number"), [(whole, "some text", 10**9), (whole, WIDE, 1)]), width=36)
    assert sum(str(whole) in line for line in found) == 2


def test_names_of_checkpoints_are_broken_rather_than_cut() -> None:
    found = cells(table(("checkpoint", "n"), [("x" * 100, 1), ("p-0123456789abcdef", 2)]))
    assert "".join(line[0] for line in found[1:-1]) == "x" * 100


def test_text_that_is_too_long_goes_on_below() -> None:
    found = cells(table(("id", "text"), [("a-1", "x" * 170)]))
    assert found[1] == ["a-1", "x" * 75]
    assert found[2:] == [["x" * 75], ["x" * 20]]


# Lists of every kind


LISTED = {
    "models": ("id name family age", "m-01234567 digits mlp 3 d"),
    "runs": ("id number label age", "r-01234567 1 - 3 d"),
    "checkpoints": ("id step label age", "c-01234567 100 final 3 d"),
    "datasets": ("id description age", "d-01234567 digits, test half 3 d"),
    "graphs": ("id step edges age", "g-01234567 100 12 3 d"),
    "partitions": ("id step modules verdict age", "p-01234567 100 2 supported 3 d"),
    "ledgers": ("id step epsilon nominal effective age", "l-01234567 100 - 2000 1000 3 d"),
    "llc": ("id step epsilon N_eff verdict age", "l-76543210 100 0.001 9 reliable 3 d"),
    "experiments": ("id kind found verdict age", "e-01234567 isolate change 0.125 supported 3 d"),
    "descriptions": ("id cards data points age", "x-01234567 9 400 3 d"),
    "comparisons": ("id with nodes AMI p verdict age", "v-01234567 p-76543210 9 0.5 0.01 agree more than chance 3 d"),
    "trackings": ("id checkpoints tracks churn age", "t-01234567 2 2 0.25 3 d"),
    "jobs": ("id task target state step % time age", "j-01234567 track m-01234567 queued - - - 3 d"),
    "schedules": (
        "id task model when state next (UTC) jobs error",
        "s-01234567 track digits 0 2 * * * on 11-05 07:03 0 -",
    ),
    "tokens": ("id name scope state age", "t-01234567 ci read valid 3 d"),
}
SAME = {
    "runs": "model digits, family mlp",
    "checkpoints": "model digits, run r-01234567",
    "graphs": "model digits, cuts layers.0 layers.1, basis global, output neuron",
    "partitions": "model digits, cuts layers.0 layers.1, output neuron",
    "ledgers": "model digits, rank known by exact",
    "llc": "model digits, mode point",
    "experiments": "model digits, step 100, partition p-01234567, metric loss",
    "descriptions": "model digits, step 100, partition p-01234567",
    "comparisons": "model digits, step 100, partition p-01234567",
    "trackings": "model digits",
}


def test_every_kind_that_can_be_listed_is_tested_here() -> None:
    assert set(LISTED) == set(ROWS) == set(KINDS.values())


@pytest.mark.parametrize("kind", LISTED)
def test_list_has_a_line_per_row_and_one_for_what_all_have(kind: str) -> None:
    names, row = LISTED[kind]
    above = [f"all: {SAME[kind]}"] if kind in SAME else []
    shown = lines(rows_table(kind, [ROWS[kind](), ROWS[kind]()]))
    assert [line.split() for line in shown] == [line.split() for line in (*above, names, row, row)]
    assert lines(rows_table(kind, []))[0].split() == " ".join(VIEWS[kind].columns).split()


def test_columns_that_differ_stay() -> None:
    rows = [partition(step=None, label="early"), partition(model="letters", cuts=("a",))]
    assert cells(rows_table("partitions", rows)) == [
        ["all:", "output", "neuron"],
        ["id", "model", "step", "cuts", "modules", "verdict", "age"],
        ["p-01234567", "digits", "2", "2", "supported", "3", "d"],
        ["p-01234567", "letters", "100", "1", "2", "supported", "3", "d"],
    ]


@pytest.mark.parametrize(
    ("kind", "metric", "value", "said"),
    [
        ("modules", "accuracy", 0.93, "modules selectivity 0.93 accuracy (share)"),
        ("isolate", "kl", 0.125, "isolate change 0.125 kl (nats)"),
        ("faithfulness", "loss", None, "faithfulness - loss"),
        ("bisect", "accuracy", 12.0, "bisect 12 edges accuracy (share)"),
        ("predict", "mse", 0.5, "predict rank corr. 0.5 mse"),
    ],
)
def test_experiments_in_a_list_say_what_they_measured(kind: str, metric: str, value: float | None, said: str) -> None:
    (above, _, shown) = cells(rows_table("experiments", [experiment(experiment=kind, metric=metric, value=value)]))
    assert " ".join([*shown[1:-3], *above[above.index("metric") + 1 :]]) == said


def test_names_of_targets_stay_whole_in_a_list_of_jobs() -> None:
    ended = {"state": "succeeded", "task": "experiment", "step": "experiment", "fraction": 1.0, "started": THEN}
    rows = [job(target_name=f"two-digits#1@{step}", **ended) for step in (2500, 100000)]
    shown = lines(rows_table("jobs", rows))
    assert {"two-digits#1@2500", "two-digits#1@100000"} <= {word for line in shown for word in line.split()}
    assert max(map(len, shown)) <= 80


def test_times_of_jobs_in_a_list() -> None:
    later = THEN + timedelta(minutes=12)
    rows = [job(started=THEN, finished=later, target_name="digits@100"), job(started=later)]
    assert [line[2:] for line in cells(rows_table("jobs", rows))[1:]] == [
        ["digits@100", "queued", "-", "-", "12", "min", "3", "d"],
        ["m-01234567", "queued", "-", "-", "2", "d", "3", "d"],
    ]


def test_ages() -> None:
    assert [age(THEN + timedelta(days=days)) for days in (0, 2, 3 - 1 / 24, -40)] == ["3 d", "1 d", "1 h", "2026-09-26"]


WORST: dict[str, dict[str, Any]] = {
    "models": {"name": LONG, "family": WIDE},
    "runs": {"model": LONG, "number": 10**6, "label": WIDE, "family": "modular_addition_transformer"},
    "checkpoints": {"model": LONG, "label": WIDE, "step": 2**62},
    "datasets": {"description": WIDE + LONG},
    "graphs": {"model": WIDE, "n_edges": 10**15},
    "partitions": {
        "model": LONG,
        "n_modules": 10**6,
        "verdict": None,
    },
    "ledgers": {"epsilon": 1.2345e-10, "nominal": 10**9, "effective": 10**9, "method": "lanczos"},
    "llc": {"mode": "curve", "epsilon": 1.2345e-10, "value": 1.2345e-10, "verdict": "reliable"},
    "experiments": {"experiment": "faithfulness", "metric": "cross_entropy", "verdict": "not told apart from chance"},
    "descriptions": {"model": WIDE, "n": 10**15},
    "comparisons": {"model": WIDE, "name": WIDE},
    "trackings": {"model": WIDE, "n_checkpoints": 10**6, "n_tracks": 10**6, "churn": 1.2345e-10},
    "jobs": {"task": "experiment", "state": "succeeded", "step": "partition", "fraction": 1.0},
    "schedules": {"task": "experiment", "model": WIDE, "cron": "*/15 0-23/2 1,15 * 1-5", "error": LONG},
    "tokens": {"name": LONG + WIDE, "scope": "submit", "revoked": THEN},
}


@pytest.mark.parametrize("kind", LISTED)
def test_list_of_long_names_and_numbers_fits_and_keeps_ids_whole(kind: str) -> None:
    """IDs of twelve digits, as where two would be the same."""
    long, named = f"{kind[0]}-0123456789ab", LISTED[kind][0].split()
    ids = {name: long for name in ("id", "checkpoint", "graph", "target") if name in named}
    shown = lines(rows_table(kind, [ROWS[kind](**WORST[kind], **ids)]))
    assert sum(line.count(long) for line in shown) == len(ids)
    other = {"fraction": "100", "value": "2.469e-10"}  # in per cent, and N_eff = 2 lambda
    numbers = {other.get(name, number(value)) for name, value in WORST[kind].items() if isinstance(value, int | float)}
    assert numbers <= {word for line in shown for word in line.split()}


@pytest.mark.parametrize("kind", ["models", "checkpoints", "datasets", "graphs", "partitions", "trackings", "tokens"])
def test_markup_and_emoji_in_names_are_printed_as_they_are(kind: str) -> None:
    name = "[red]:tiger:\\[/]"
    where = "description" if kind == "datasets" else "name" if kind in ("models", "tokens") else "model"
    shown = cells(rows_table(kind, [ROWS[kind](**{where: name}), ROWS[kind]()]))
    assert name in [word for line in shown for word in line]


def test_verdicts_in_lists_have_their_colours() -> None:
    assert colours(rows_table("partitions", [partition(verdict="refuted")]))["refuted"] == "bold red"
    assert colours(rows_table("llc", [llc(verdict="doubtful")]))["doubtful"] == "yellow"
    shown = colours(rows_table("experiments", [experiment(verdict="not told apart from chance"), experiment()]))
    assert (shown["not told apart"], shown["supported"]) == ("yellow", "green")


def test_numbers_that_are_not_known_are_dashes_in_lists() -> None:
    assert cells(rows_table("partitions", [partition(verdict=None)]))[-1][-3] == "-"
    assert cells(rows_table("llc", [llc(epsilon=None, value=None)]))[-1][2:4] == ["-", "-"]
    assert cells(rows_table("experiments", [experiment(verdict=None)]))[-1][-3] == "-"
    assert cells(rows_table("ledgers", [ledger(epsilon=0.01)]))[-1][2] == "0.01"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"target": "checkpoint/c-89abcdef", "task": "ledger"}, "ledger c-89abcdef queued - -"),
        ({"state": "running", "step": "basis", "fraction": 0.0}, "track m-01234567 running basis 0"),
        ({"state": "running", "step": "graph", "fraction": 0.249}, "track m-01234567 running graph 25"),
        ({"state": "succeeded", "step": "partition", "fraction": 1.0}, "track m-01234567 succeeded partition 100"),
    ],
)
def test_jobs_in_a_list(changes: dict[str, Any], shown: str) -> None:
    assert cells(rows_table("jobs", [job(**changes)]))[1][1:-3] == shown.split()


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"cron": None, "next_run": None}, "new checkpoint on - 0 -"),
        ({"paused": True, "jobs": ("j-1", "j-2")}, "0 2 * * * paused 11-05 07:03 2 -"),
        ({"error": "no data\nTraceback: ..."}, "0 2 * * * on 11-05 07:03 0 no data"),
        ({"error": ""}, "0 2 * * * on 11-05 07:03 0 -"),
    ],
)
def test_schedules_in_a_list(changes: dict[str, Any], shown: str) -> None:
    assert cells(rows_table("schedules", [schedule(**changes)]))[1][3:] == shown.split()


def test_revoked_token_is_named_so() -> None:
    assert cells(rows_table("tokens", [ROWS["tokens"](revoked=THEN)]))[1][3] == "revoked"


def test_where_there_is_no_terminal_there_are_no_colours() -> None:
    where = console()
    where.print(rows_table("partitions", [partition(verdict="refuted")]))
    assert "\x1b" not in where.file.getvalue()  # type: ignore[attr-defined]
