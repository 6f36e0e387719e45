"""Details of one row, for people: a line per field, no dictionaries, no brackets, within 80 columns."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_rows import (
    HASH,
    NAN,
    THEN,
    checkpoint,
    colours,
    dataset,
    experiment,
    graph,
    ledger,
    lines,
    llc,
    model,
    new_token,
    partition,
    schedule,
    tracking,
    worker,
)
from cases_rows import job as job_row
from rich.console import Console
from safetensors.torch import load_file, save_file

from interbasis.service.records.base import Record
from interbasis.service.records.jobs import JobRow
from interbasis.service.store.store import Store
from interbasis.service.tasks import checkpoints as checkpoint_task
from interbasis.service.terminal.results import cuts_note
from interbasis.service.terminal.views import details, rows_table

MADE = {"recipe": "basis global, seed 0", "version": "0.7.0", "seconds": "1.5", "created": "2026-11-05 07:03"}


def shown(row: Record) -> dict[str, str]:
    """The lines of the details of a record, by their names."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(details(row))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert not set("{}[]'") & set(capture.get())
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines}


@pytest.fixture
def job(sqlite_place: Any) -> JobRow:
    with sqlite_place.open() as store:
        model = store.register_model("m", "mlp", {"widths": [2, 3], "activation": "relu"})
        assert shown(model)["config"] == "widths 2 3, activation relu"
        run = store.add_checkpoint("m", sha256="0" * 64).run
        return store.submit("track", run, {"epsilon": [0.1, 0.2], "align": False})


def test_job_that_waits_is_shown_without_what_does_not_apply(job: JobRow) -> None:
    row = replace(job, created=THEN)
    assert shown(row) == {
        "id": job.id,
        "task": "track",
        "target": f"{job.target} (m)",
        "choices": "epsilon 0.1 0.2, align False",
        "state": "queued",
        "created": "2026-11-05 07:03",
    }


def test_job_that_runs_and_one_that_has_ended(job: JobRow) -> None:
    row = replace(job, state="running", step="track", fraction=0.25, remaining=12.0, worker="w", queue="night")
    lines = shown(replace(row, message="aligning", cancelling=True, attempts=2, timeout=60.0))
    assert (lines["state"], lines["done"], lines["queue"]) == ("to be cancelled", "25 %, 12 s left", "night")
    assert (lines["timeout"], lines["attempts"], lines["message"]) == ("60 s", "2", "aligning")
    made = ({"kind": "graph", "id": "g-1"}, {"kind": "partition", "id": "p-2"})
    assert shown(replace(row, state="succeeded", results=made))["results"] == "graph g-1, partition p-2"
    failed = shown(replace(row, state="failed", error="no data\nat all"))
    assert (failed["error"], "done" in failed) == ("no data", False)


def test_notes_on_how_a_checkpoint_was_read_are_stored_and_shown(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "net.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in load_file(path).items()}, path)
    loaded, _ = checkpoint_task.load(path, {}, data=save_inputs(tmp_path / "data.npz"))
    row, _ = checkpoint_task.register(Store.open(str(tmp_path / "s.db")), loaded)
    said = "module. in names of tensors passed over: a wrapped model was saved"
    assert loaded.notes == (said,)
    assert row.about is not None
    assert row.about["notes"] == [said]
    console = Console(width=200, file=io.StringIO())
    console.print(details(row))
    assert said in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (model(), {"id": "m-01234567", "name": "digits", "family": "mlp", "config": "widths 2 3, activation relu"}),
        (dataset(), {"id": "d-01234567", "description": "digits, test half", "sha256": HASH}),
        (
            checkpoint(),
            {
                "id": "c-01234567",
                "model": "digits",
                "run": "r-01234567",
                "step": "100",
                "label": "final",
                "sha256": HASH,
            }
            | {"path": "/data/digits.safetensors"},
        ),
        (
            checkpoint(step=None, label=None, path=None, about={"family": "mlp"}),
            {
                "id": "c-01234567",
                "model": "digits",
                "run": "r-01234567",
                "step": "-",
                "label": "-",
                "sha256": HASH,
                "path": "-",
            },
        ),
    ],
)
def test_what_is_registered(row: Record, expected: dict[str, str]) -> None:
    assert shown(row) == expected | {"created": "2026-11-05 07:03"}


def listed(kind: str, *rows: Record) -> list[str]:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(rows_table(kind, rows))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        *(("graphs", graph), ("partitions", partition), ("trackings", tracking)),
        *(("ledgers", ledger), ("llc", llc), ("experiments", experiment)),
    ],
)
def test_runs_are_listed_where_a_model_has_several(kind: str, made: Any) -> None:
    one, two = (replace(made(), run_number=number) for number in (1, 2))
    first, heads, *cells = listed(kind, one, two)
    assert max(map(len, (first, heads, *cells))) <= 80
    assert ("run" in heads.split(), "run" in first) == (True, False)
    at = heads.index("run")
    assert [line[at : at + 3].strip() for line in cells] == ["1", "2"]
    assert "run" not in " ".join(listed(kind, one, one)[:2])
    assert "run 2" in listed(kind, two, two)[0]
    assert one.to_json()["run_number"] == 1


@pytest.mark.parametrize(("kind", "made"), [("graphs", graph), ("partitions", partition)])
def test_columns_say_something(kind: str, made: Any) -> None:
    """The output that is chosen by itself says nothing; another one does, and where they differ both."""
    auto, other = made(output="auto"), made(output="neuron")
    assert "output" not in " ".join(listed(kind, auto, auto)[:2])
    assert "output neuron" in " ".join(listed(kind, other, other)[:2])
    assert "output" in listed(kind, auto, other)[1].split()
    steps, none = made(step=100, label="final"), made(step=None, label="final")
    heads, *cells = listed(kind, steps, none)[1:]
    end = heads.index("step") + 4
    assert [line[end - 4 : end] for line in cells] == [" 100", "    "]


def test_experiments_keep_their_words_whole() -> None:
    kinds = {"modules": "accuracy", "faithfulness": "cross_entropy", "isolate": "mse"}
    rows = [
        replace(
            experiment(kind),
            **{"metric": metric, "value": 0.98765, "verdict": "not told apart from chance", "model": "two-digits"},
            **{"step": 2500 + i, "partition": f"p-0123456{i}"},
        )
        for i, (kind, metric) in enumerate(kinds.items())
    ]
    text = listed("experiments", *rows)
    assert max(map(len, text)) <= 80
    assert text[1] == "only with --json: metric, partition"
    words = {word for line in text for word in line.split()}
    assert {*kinds, "selectivity", "not", "told", "apart", *(row.id for row in rows)} <= words
    assert "metric" in listed("experiments", rows[0])[0]


def test_data_sets_are_described_in_words() -> None:
    row = dataset(description="Dataset('two_digits (train)', 4000 data points)")
    assert listed("datasets", row)[1].split("  ")[1:-1] == ["two_digits (train), 4000 data points"]
    assert shown(row)["description"] == "two_digits (train), 4000 data points"


def test_notes_of_a_checkpoint_are_one_text_or_several() -> None:
    assert shown(checkpoint(about={"notes": "read in half precision"}))["notes"] == "read in half precision"
    assert shown(checkpoint(about={"notes": ["one", "two"]}))["notes"] == "one; two"
    assert "notes" not in shown(checkpoint(about={"notes": []}))


def test_graph_names_its_cuts_with_their_nodes() -> None:
    assert lines(details(graph())) == [
        "id            g-01234567",
        "model         digits",
        "checkpoint    c-01234567",
        "dataset       d-01234567",
        "cuts (nodes)  layers.0 (3), layers.1 (4)",
        "edges         12",
        "strengths     jacobian",
        "recipe        basis global, seed 0",
        "version       0.7.0",
        "seconds       1.5",
        "created       2026-11-05 07:03",
    ]


def test_graphs_name_the_modules_at_no_cut() -> None:
    assert shown(graph(left_out=None)) == shown(graph())
    assert shown(graph(left_out={"before": [], "between": [], "after": []}))["at"] == "no cut none"
    row = graph(left_out={"before": ["conv1"], "between": [], "after": ["norm", "head"]})
    assert shown(row)["at"] == "no cut conv1 (before the first); norm, head (after the last)"
    said = "cuts: layers.0, layers.1\nat no cut: conv1 (before the first); norm, head (after the last)"
    assert cuts_note([row, row]) == said
    assert cuts_note([row, graph()]) is None


def test_numbers_of_a_partition() -> None:
    found = shown(partition(z=2.34567, stability=NAN, description_length=123.456, epsilon_source="graph"))
    assert found == MADE | {
        "id": "p-01234567",
        "model": "digits",
        "checkpoint": "c-01234567",
        "graph": "g-01234567",
        "n_modules": "2",
        "edge_cost": "0.25",
        "mediator_cost": "0.125",
        "normalised_cost": "-",
        "contrast": "0.9",
        "p_value": "0.0476",
        "z": "2.346",
        "stability": "-",
        "description_length": "123.5",
        "objective": "layered_cpm",
        "resolution": "1",
        "epsilon": "0.0001",
        "epsilon_source": "graph",
        "warning": "-",
    }


@pytest.mark.parametrize(
    ("scales", "said"),
    [(None, "0.0001"), ((0.01, 0.01, 0.01), "0.0001"), ((0.01, 0.5, 0.01, 0.123456), "0.01, 0.5, 0.1235")],
)
def test_loss_scales_of_a_partition_are_listed_where_they_differ(scales: tuple[float, ...] | None, said: str) -> None:
    assert shown(partition(epsilons=scales))["epsilon"] == said


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            ledger(epsilon=0.01, warning="few data"),
            {"id": "l-01234567", "checkpoint": "c-01234567", "dataset": "d-01234567", "n": "400", "epsilon": "0.01"}
            | {"warning": "few data"},
        ),
        (
            llc(),
            {"id": "l-76543210", "checkpoint": "c-01234567", "dataset": "d-01234567", "mode": "point", "loss": "mse"}
            | {"n_parameters": "2600", "n": "400"},
        ),
        (
            experiment(),
            {"id": "e-01234567", "checkpoint": "c-01234567", "graph": "g-01234567", "partition": "p-01234567"}
            | {"experiment": "isolate", "metric": "loss"},
        ),
        (
            tracking(churn=None),
            {"id": "t-01234567", "run": "r-01234567", "n_checkpoints": "2", "n_tracks": "2", "churn": "-"},
        ),
    ],
)
def test_results_say_where_they_come_from(row: Record, expected: dict[str, str]) -> None:
    assert shown(row) == expected | {"model": "digits"} | MADE


def test_recipe_is_shown_without_what_was_not_chosen() -> None:
    recipe = {"cuts": ["layers.0", "layers.1"], "seed": None, "epsilon": 0.000123456, "polish": True, "data": {}}
    assert shown(graph(recipe=recipe))["recipe"] == "cuts layers.0 layers.1, epsilon 0.0001235, polish True, data -"


def test_kinds_without_a_form_of_their_own_are_shown_whole() -> None:
    found = shown(schedule(choices={"k": 2}, jobs=("j-1", "j-2"), timeout=60.0))
    assert (found["cron"], found["choices"], found["jobs"], found["timeout"]) == ("0 2 * * *", "k 2", "j-1, j-2", "60")
    assert (found["folder"], found["last_run"], found["next_run"]) == ("-", "-", "2026-11-05 07:03")
    assert shown(new_token())["token"] == "ib_t-01234567_secret"
    assert shown(worker(alive=False)) == {
        **{"id": "w", "host": "h", "pid": "1", "alive": "False"},
        **{"started": "2026-11-05 07:03", "heartbeat": "2026-11-05 07:03"},
    }


def test_names_of_fields_are_bold() -> None:
    assert set(colours(details(model())).values()) == {"bold"}


@pytest.mark.parametrize("name", ["[red]digits[/red]", "[/]", ":tiger:", "\\[b]", "x" * 300, "数学模型" * 50, "ünï"])
def test_names_are_printed_as_they_are_however_long(name: str) -> None:
    for row in (model(name=name), dataset(description=name), checkpoint(path=name), graph(model=name)):
        found = lines(details(row))
        start = found[0].index(row.id)
        assert name in "".join(line[start:] for line in found)


def test_job_tells_its_times_interruptions_and_worker() -> None:
    row = job_row(state="running", started=THEN, worker="host-1", interruptions=2, priority=-5)
    lines = shown(replace(row, step="basis", attempts=1, fraction=0.0))
    assert (lines["started"], lines["worker"], lines["interruptions"]) == ("2026-11-05 07:03", "host-1", "2")
    assert (lines["priority"], lines["step"], lines["done"]) == ("-5", "basis", "0 %")
    assert not {"finished", "attempts", "queue", "timeout", "error", "results", "message"} & set(lines)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fraction": 0.5, "remaining": 0.4}, "50 %, 0 s left"),
        ({"fraction": 0.5, "remaining": 3600.0}, "50 %, 3600 s left"),
        ({"fraction": 1.0, "remaining": None}, "100 %"),
        ({"fraction": None, "remaining": None}, None),
        ({"fraction": 1.0, "state": "succeeded"}, None),
    ],
)
def test_share_of_a_job_that_is_done(changes: dict[str, Any], said: str | None) -> None:
    assert shown(job_row(**{"state": "running", **changes})).get("done") == said


def test_job_that_was_to_be_cancelled_and_has_ended_says_how() -> None:
    assert shown(job_row(state="cancelled", cancelling=True))["state"] == "cancelled"
    assert shown(job_row(cancelling=True))["state"] == "to be cancelled"
