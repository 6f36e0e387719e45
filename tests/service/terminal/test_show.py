"""What commands print of one stored value: tables for people, one JSON document for programs."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from cases_rows import (
    NAN,
    ROWS,
    cells,
    checkpoint,
    dataset,
    experiment,
    graph,
    job,
    ledger,
    llc,
    model,
    module,
    partition,
    point,
    step,
    tracking,
)
from rich.cells import cell_len

from interbasis.service.records.base import Page, Record
from interbasis.service.records.partitions import Outcome
from interbasis.service.terminal.show import err, out, print_json, show_row
from interbasis.service.terminal.views import details

INFINITY = float("inf")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[Record], list[str]]:
    """The lines printed of a record on a terminal of 80 columns, without spaces at their ends and empty lines."""
    monkeypatch.setenv("COLUMNS", "80")

    def lines(row: Record) -> list[str]:
        show_row(row, False)
        printed = capsys.readouterr()
        assert printed.err == ""
        assert max(map(cell_len, printed.out.splitlines())) <= 80
        return [line.rstrip() for line in printed.out.splitlines() if line.strip()]

    return lines


def answered(capsys: pytest.CaptureFixture[str], row: Record) -> Any:
    """The document printed of a record; it is the only one, and JSON in the strict sense."""
    show_row(row, True)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(capsys.readouterr().out, parse_constant=refuse)


# For people


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_begins_with_its_details(said: Callable[[Record], list[str]], kind: str) -> None:
    row = ROWS[kind]()
    assert [line.split() for line in said(row)][: len(cells(details(row)))] == cells(details(row))


@pytest.mark.parametrize("row", [model(), checkpoint(), dataset(), graph(), job()])
def test_what_has_no_tables_ends_with_its_details(said: Callable[[Record], list[str]], row: Record) -> None:
    assert len(said(row)) == len(cells(details(row)))


def test_partition_is_shown_with_its_modules_and_verdict(said: Callable[[Record], list[str]]) -> None:
    assert said(partition(reason="[red] clearer than\nin null graphs"))[-5:] == [
        "module  nodes  per cut  inner cost  outer cost",
        "     0      5  2 3            1.25         0.5",
        "     1      5  2 3            1.25         0.5",
        "supported: [red] clearer than",
        "in null graphs",
    ]
    assert said(partition(verdict=None, reason=None))[-1].split() == ["1", "5", "2", "3", "1.25", "0.5"]


def test_partition_without_modules_has_an_empty_table(said: Callable[[Record], list[str]]) -> None:
    row = partition(modules=(), n_modules=0, verdict="one module", reason="no edges")
    assert said(row)[-2:] == ["module  nodes  per cut  inner cost  outer cost", "one module: no edges"]


def test_partition_of_more_than_twelve_modules_says_how_many_are_hidden(said: Callable[[Record], list[str]]) -> None:
    found = said(partition(n_modules=13, modules=tuple(map(module, range(13)))))
    assert found.count("1 more module: show with --json") == 1
    assert found[-2].split()[0] == "11"


def test_ledger_is_shown_with_its_layers_and_warning(said: Callable[[Record], list[str]]) -> None:
    found = said(ledger(warning="few data: [bold]ranks[/bold] may grow"))
    assert found[-3:] == [
        "layer     nominal  free  rank G  rank K  dead  cos(H, GxK)",
        "layers.0    1,234   334  12/16   9/10       1       0.9877",
        "few data: [bold]ranks[/bold] may grow",
    ]
    assert "= effective        1,000   50.0%  exact rank of the Hessian" in found
    assert said(ledger())[-1].startswith("layers.0")


def test_estimate_is_shown_with_its_verdict_and_reason(said: Callable[[Record], list[str]]) -> None:
    found = said(llc(verdict="doubtful", reason="R-hat is 1.07: draw more"))
    assert found[-1] == "doubtful: R-hat is 1.07: draw more"
    assert "N_eff                   9  [8, 10] of 2,600 parameters" in found


def test_curve_is_shown_with_a_line_per_loss_scale(said: Callable[[Record], list[str]]) -> None:
    found = said(llc(mode="curve", points=(point(), point(epsilon=0.1, verdict="failed"))))
    assert [line.split()[0] for line in found[-4:]] == ["epsilon", "0.001", "0.1", "reliable:"]


def test_experiment_is_shown_with_notes_and_then_its_verdict(said: Callable[[Record], list[str]]) -> None:
    found = said(experiment())
    assert "isolated        5  0.125 ± 0.03  1.5 ± 0.2       0.048  0.5 ± 0.2     0.095" in found
    assert found[found.index("1,000 held-out data points") + 1 : -1] == [
        "5 of 12 edges join different modules and were cut",
        "weak edges are cut too: those below the threshold at which the modules were",
        "found",
        "random modules have the same sizes; random edges are as many of the same",
        "strengths",
        "p: the share of random controls that do at least as well, what is measured",
        "counted as one of them",
    ]
    assert found[-1] == "supported: nodes follow their own modules"
    assert said(experiment(verdict=None)) == found[:-1], "the table has its numbers"


def test_tracking_is_shown_with_its_checkpoints(said: Callable[[Record], list[str]]) -> None:
    event = {"kind": "split", "at": 1, "earlier": [0], "later": [0, 1]}
    steps = (step(0, tracks=(0,), sizes=(7,)), step(1, label="ünï [x]", step=None))
    assert said(tracking(steps=steps, events=(event,)))[-3:] == [
        "step     modules (nodes)  churn  since the step before",
        "0        0 (7)                -",
        "ünï [x]  0 (4), 1 (3)      0.25  split of 0 into 0, 1",
    ]


@pytest.mark.parametrize("text", ["[red]a[/red]", "[/]", ":tiger:", "\\[b]"])
def test_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], text: str) -> None:
    out.print(text)
    err.print(text)
    assert capsys.readouterr() == (f"{text}\n", f"{text}\n")


# For programs


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_is_one_document_with_dates_in_iso(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    row = ROWS[kind]()
    found = answered(capsys, row)
    assert found == row.to_json()
    assert found["created"] == "2026-11-05T07:03:00+00:00"
    assert datetime.fromisoformat(found["created"]) == row.created


def test_document_holds_what_tables_leave_out(capsys: pytest.CaptureFixture[str]) -> None:
    found = answered(capsys, partition(n_modules=20, modules=tuple(map(module, range(20)))))
    assert [each["index"] for each in found["modules"]] == list(range(20))
    assert answered(capsys, llc())["n_effective"] == 9.0
    assert answered(capsys, tracking())["steps"][1]["tracks"] == [0, 1]


def test_names_come_back_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("[red]", "数学", "a\nb", 'quo"ted', "\ufffd", ""):
        assert answered(capsys, model(name=name))["name"] == name


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str], value: float) -> None:
    """JSON has neither NaN nor infinity, and other programs refuse them."""
    row = ledger(soft=value, layers=({"name": "layers.0", "kronecker": {"cosine": value}, "ranks": [1, value]},))
    found = answered(capsys, row)
    assert found["soft"] is None
    assert found["layers"] == [{"name": "layers.0", "kronecker": {"cosine": None}, "ranks": [1, None]}]


def test_documents_of_documents(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(checkpoint=checkpoint(), dataset=dataset(), graph=graph(), partition=partition(stability=NAN))
    print_json({"items": [outcome.to_json()], "pages": Page(items=(job(), job())).to_json()})
    found = json.loads(capsys.readouterr().out)
    assert found["items"][0]["partition"]["stability"] is None
    assert found["items"][0]["graph"]["cuts"] == ["layers.0", "layers.1"]
    assert [each["id"] for each in found["pages"]["items"]] == ["j-01234567"] * 2
