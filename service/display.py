"""What the terminal shows of results and jobs: tables that fit 80 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from .jobs import JobRow
from .records import (
    CheckpointRow,
    DatasetRow,
    ExperimentRow,
    GraphRow,
    LedgerRow,
    LlcRow,
    ModelRow,
    PartitionDetail,
    PartitionRow,
    Record,
    TrackingDetail,
    TrackingRow,
)

__all__ = [
    "COLUMNS",
    "counted",
    "details",
    "experiment_notes",
    "experiment_tables",
    "layers_table",
    "ledger_table",
    "llc_summary",
    "llc_table",
    "modules_table",
    "number",
    "partition_notes",
    "plainly",
    "rows_table",
    "table",
    "tracking_table",
    "verdict",
    "verdict_line",
]

_WHOLE = ("id", "graph", "partition", "tracking", "ledger", "experiment")  # columns of IDs, never broken
_BEHAVIOURAL = ("mse", "kl")  # losses, shown first
_SHOWN_ANSWERS = 3  # columns of accuracies in a terminal
_SHOWN = 12  # rows of a table of modules


def number(value: Any) -> str:
    """A number with four significant digits; a dash for None and NaN.

    >>> number(0.123456), number(None), number(7)
    ('0.1235', '-', '7')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def counted(count: int, noun: str) -> str:
    """A number of things, in words.

    >>> counted(1, "module"), counted(2000, "module")
    ('1 module', '2,000 modules')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def plainly(value: Any) -> str:
    """Any value of a record for people: objects and lists as what they hold, with commas between.

    >>> plainly({"k": 2, "cuts": ["a", "b"], "seed": None})
    'k 2, cuts a b'
    >>> plainly([{"kind": "graph", "id": "g-1"}])
    'kind graph id g-1'
    """
    return _joined(value, ", ")


def _joined(value: Any, between: str) -> str:
    if isinstance(value, Mapping):
        given = ((name, each) for name, each in value.items() if each is not None)
        return between.join(f"{name} {_joined(each, ' ')}" for name, each in given) or "-"
    if isinstance(value, list | tuple):
        return between.join(_joined(each, " ") for each in value) or "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return number(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> Table:
    """A plain table; numbers to the right."""
    result = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = all(isinstance(row[i], int | float | None) for row in rows)
        result.add_column(
            name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric or name in _WHOLE
        )
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else number(cell) for cell in row))
    return result


def _when(row: Any) -> str:
    return f"{row.created:%m-%d %H:%M}"


COLUMNS: dict[str, tuple[tuple[str, ...], Any]] = {
    "models": (("id", "name", "family", "created"), lambda r: (r.id, r.name, r.family, _when(r))),
    "checkpoints": (
        ("id", "model", "step", "label", "created"),
        lambda r: (r.id, r.model, r.step, r.label, _when(r)),
    ),
    "datasets": (("id", "description", "created"), lambda r: (r.id, r.description, _when(r))),
    "graphs": (
        ("id", "model", "basis", "nodes", "edges", "created"),
        lambda r: (r.id, r.model, r.basis, r.n_nodes, r.n_edges, _when(r)),
    ),
    "partitions": (
        ("id", "model", "graph", "modules", "cost", "p", "verdict"),
        lambda r: (r.id, r.model, r.graph, r.n_modules, r.edge_cost, r.p_value, verdict(r.verdict)),
    ),
    "ledgers": (
        ("id", "checkpoint", "epsilon", "nominal", "effective", "rank known by", "created"),
        lambda r: (r.id, r.checkpoint, r.epsilon, r.nominal, r.effective, r.method, _when(r)),
    ),
    "llc": (
        ("id", "checkpoint", "mode", "epsilon", "N_eff", "verdict", "created"),
        lambda r: (r.id, r.checkpoint, r.mode, r.epsilon, r.n_effective, verdict(r.verdict), _when(r)),
    ),
    "experiments": (
        ("id", "partition", "kind", "metric", "verdict"),
        lambda r: (r.id, r.partition, r.experiment, r.metric, verdict(_short(r.verdict))),
    ),
    "trackings": (
        ("id", "model", "checkpoints", "tracks", "churn", "created"),
        lambda r: (r.id, r.model, r.n_checkpoints, r.n_tracks, r.churn, _when(r)),
    ),
    "jobs": (
        ("id", "task", "target", "state", "step", "%", "created"),
        lambda r: (r.id, r.task, r.target.rpartition("/")[2], r.state, r.step, _percent(r.fraction), _when(r)),
    ),
    "schedules": (
        ("id", "task", "model", "when", "state", "next (UTC)", "jobs", "error"),
        lambda r: (
            *(r.id, r.task, r.model, r.cron or "new checkpoint", "paused" if r.paused else "on"),
            *(f"{r.next_run:%m-%d %H:%M}" if r.next_run else "-", len(r.jobs), (r.error or "-").splitlines()[0]),
        ),
    ),
    "tokens": (
        ("id", "name", "scope", "state", "created"),
        lambda r: (r.id, r.name, r.scope, "revoked" if r.revoked else "valid", _when(r)),
    ),
}
"""Per kind the columns of a list, and how a row fills them."""


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.0f}"


def rows_table(kind: str, rows: Sequence[Record]) -> Table:
    """A list of stored values."""
    columns, fill = COLUMNS[kind]
    return table(columns, [fill(row) for row in rows])


def details(row: Record) -> Table:
    """One stored value, a line per field."""
    result = Table(box=None, show_header=False, pad_edge=False)
    result.add_column(style="bold")
    result.add_column(overflow="fold")
    for name, value in _facts(row).items():
        result.add_row(name, plainly(value))
    return result


def modules_table(row: PartitionDetail) -> Table:
    """The modules of a partition, largest first."""
    rows = [(m.index, m.size, " ".join(map(str, m.sizes)), m.inner_cost, m.outer_cost) for m in row.modules[:_SHOWN]]
    hidden = len(row.modules) - len(rows)
    title = f"{counted(hidden, 'more module')}: show with --json" if hidden else None
    return table(("module", "nodes", "per cut", "inner cost", "outer cost"), rows, title)


def ledger_table(row: LedgerRow) -> Table:
    """From the number of parameters to the effective ones, a line per cause, with its share and what it means."""
    counts: list[tuple[str, int, str]] = [
        ("  nominal", row.nominal, "parameters"),
        ("- activations", row.activations, "directions that activations never take"),
        ("- Jacobians", row.jacobians, "directions that the output never sees"),
        ("- gating", row.gating, "units off where activations vary"),
        ("- synchronisation", row.synchronised, "units or heads that act as one"),
        ("- unexplained", row.unexplained, "the rest of the Hessian's free directions"),
        ("= effective", row.effective, _EFFECTIVE[row.method].format(lower=row.lower, upper=row.upper)),
    ]
    if row.tied:
        counts.insert(2, ("    of which tied", row.tied, "tokens and positions only seen together"))
    result = Table(box=None, show_header=False, pad_edge=False)
    for justify in ("left", "right", "right", "left"):
        result.add_column(justify=justify)
    for name, count, meaning in counts:
        share, shown = f"{count / row.nominal:.1%}", f"{count:,}"
        if row.method == "sampled" and name == "- unexplained":
            share, shown = "", f">= {shown}" if count else "?"
        style = "bold" if name.endswith(("nominal", "effective")) else None
        result.add_row(name, shown, share, meaning, style=style)
    return result


_EFFECTIVE = {
    "exact": "exact rank of the Hessian",
    "lanczos": "estimate, between {lower:,} and {upper:,}",
    "sampled": "at most; at least {lower:,}",
}


def experiment_tables(row: ExperimentRow) -> list[Table]:
    """What was measured, a table per metric, a line per intervention, with random ones of the same size beside it."""
    rows = row.summary["rows"]
    costs = [None] * (len(rows) - len(row.summary.get("links", ())))  # of the whole network, and of none
    costs += [link["predicted"] for link in row.summary.get("links", ())]
    tables = []
    for metric in sorted(rows[0]["values"], key=lambda name: name not in _BEHAVIOURAL):
        lines = []
        for line, cost in zip(rows, costs, strict=True):
            found, beside = line["values"][metric], line["controls"].get(metric)
            if row.experiment == "isolate" and line is rows[-1]:  # as many edges of the same strengths, cut at random
                beside = row.summary["matched"].get(metric)
            shown = f"{number(found['value'])} ± {_uncertainty(found['standard_error'])}"
            random = f"{number(beside['value'])} ± {_uncertainty(beside['spread'])}" if beside else "-"
            cells: tuple[Any, ...] = (line["name"], line["removed"], shown, random)
            cells += (beside["p_value"] if beside else None,)
            lines.append((*cells[:1], cost, *cells[1:]) if "links" in row.summary else cells)
        names = ("network", *(("cost",) if "links" in row.summary else ()), "ablated", metric, "random", "p")
        tables.append(table(names, lines))
    if row.summary.get("classes") and row.summary.get("whole_classes"):
        tables.append(_classes_table(row.summary))
    elif row.summary.get("outputs"):
        tables.append(_outputs_table(row.summary))
    if row.summary.get("inputs"):
        tables.append(_inputs_table(row.summary))
    if row.experiment in ("bisect", "epsilon"):
        tables.append(_required_table(row))
    return tables


def _uncertainty(value: float) -> str:
    """One significant digit, 20 rather than 2e+01."""
    return f"{float(f'{value:.1g}'):g}"


def _required_table(row: ExperimentRow) -> Table:
    """The edges that are enough, a line per pair of cuts."""
    found = row.summary
    pairs = zip(found["cuts"][:-1], found["cuts"][1:], strict=True)
    numbers = zip(found["edges_required"], found["jointly_required"], found["n_edges"], strict=True)
    lines = [
        (f"{earlier} to {later}", *counts, epsilon**0.5)
        for (earlier, later), counts, epsilon in zip(pairs, numbers, found["epsilon"], strict=True)
    ]
    title = f"fewest of the strongest edges that keep {row.metric} within {found['tolerance']:g}"
    return table(("pair of cuts", "alone", "jointly", "of", "sqrt(epsilon)"), lines, title)


def _sides(found: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    """The rows of a table of modules: the network without each, and each alone."""
    without, alone = found[name]
    rows = [(f"without module {m}", values) for m, values in enumerate(without)]
    return [*rows, *((f"module {m} alone", values) for m, values in enumerate(alone))]


def _classes_table(found: Mapping[str, Any]) -> Table:
    """Accuracy of each answer, and the classes that lose most of it."""
    whole: list[list[float | None]] = found["whole_classes"]
    answers = range(len(whole))
    lines: list[tuple[Any, ...]] = []
    for name, values in [("whole", whole), *_sides(found, "classes")]:
        lost = {
            (f"{a}:{c}" if len(whole) > 1 else str(c)): before - after
            for a in answers
            for c, (before, after) in enumerate(zip(whole[a], values[a], strict=True))
            if before is not None and after is not None
        }
        means = [_mean(values[a]) for a in answers[:_SHOWN_ANSWERS]]
        lines.append((name, *(None if mean is None else round(mean, 3) for mean in means), _largest(lost, "-{:.2f}")))
    heads = ["accuracy"] if len(whole) == 1 else [f"answer {a}" for a in answers[:_SHOWN_ANSWERS]]
    return table(("network", *heads, "classes that lose most" if len(whole) == 1 else "answer:class, lose most"), lines)


def _outputs_table(found: Mapping[str, Any]) -> Table:
    """The outputs that change most, by their mean squared change."""
    lines = [
        (name, _largest({str(o): change for o, change in enumerate(values)}, "{:.3g}"))
        for name, values in _sides(found, "outputs")
    ]
    return table(("network", "outputs that change most"), lines)


def _inputs_table(found: Mapping[str, Any]) -> Table:
    """The data points that lose most, and how many have half of the loss."""
    lines = [
        (
            name,
            None if row["half"] is None else f"{100 * row['half']:.3g} %",
            ", ".join(f"{i} ({loss:.3g})" for i, loss in row["largest"][:3]) or "-",
        )
        for name, row in _sides(found, "inputs")
    ]
    return table(("network", "half of the loss in", "data points that lose most"), lines)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _largest(values: Mapping[str, float], form: str) -> str:
    """The three largest, those above 0, with their sizes."""
    ranked = sorted((item for item in values.items() if item[1] > 0), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} ({form.format(size)})" for name, size in ranked) or "-"


def experiment_notes(row: ExperimentRow) -> list[str]:
    """What an experiment found, in words."""
    found, notes = row.summary, [f"{row.n:,} {'held-out ' if row.held_out else ''}data points"]
    if not row.held_out:
        notes.append("the basis was made from the same data: give held-out data to be sure (test_inputs)")
    if row.experiment == "isolate":
        cut, edges = sum(found["cut_edges"]), sum(found["n_edges"])
        notes.append(f"{cut:,} of {edges:,} edges join different modules and were cut")
        if found["n_modules"] == 1:
            notes.append(f"one module; to divide it by force: interbasis modules {row.graph} --k 2")
        if found["matched"]:
            notes.append("random: as many edges of the same strengths, cut at random")
        for metric, beside in found["rows"][-1]["controls"].items():
            notes.append(
                f"footnote: random modules of the same sizes, which any set of strong edges beats: {metric} "
                f"{number(beside['value'])} ± {_uncertainty(beside['spread'])}, p {number(beside['p_value'])}"
            )
    if mixed := found.get("mixing"):
        notes.append(
            f"fed from two data points, nodes take {number(mixed['others'])} from other modules and "
            f"{number(mixed['own'])} from their own, one partner each left out"
        )
    notes += [f"module {m}: {part['reason']}" for m, part in enumerate(found.get("parts", ()))]
    if row.experiment == "faithfulness":
        shares = ", ".join(
            f"{k:g}: {point['value']:.3f}" for k, point in zip(found["fractions"], found["curve"], strict=True)
        )
        notes.append(f"f(k) of the strongest edges: {shares}")
        notes.append(f"CPR {number(row.value)} (random {number(row.control)}, p {number(row.p_value)})")
        notes[-1] += f", CMD {number(found['cmd']['value'])}"
    if row.experiment == "predict":
        interval = found["interval"]
        notes.append(
            f"too few links to rank; more modules: interbasis modules {row.graph} --k 4"
            if row.value is None
            else f"Spearman of predicted cost and loss {row.value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
        )
    return notes


def layers_table(row: LedgerRow) -> Table:
    """The layers of a ledger: ranks of activations and Jacobians, units, what is free, how well G (x) K fits."""
    rows = []
    for layer in row.layers:
        gram, seen = f"{layer['gram_rank']}/{layer['n_inputs']}", f"{layer['jacobian_rank']}/{layer['n_outputs']}"
        free = layer["activations"] + layer["jacobians"] + layer["gating"] + layer["synchronised"]
        fit = layer["kronecker"].get("cosine")
        rows.append((layer["name"], f"{layer['nominal']:,}", f"{free:,}", gram, seen, layer["dead"], fit))
    return table(("layer", "nominal", "free", "rank G", "rank K", "dead", "cos(H, GxK)"), rows)


_COLOURS = {"reliable": "green", "supported": "green", "failed": "bold red", "refuted": "bold red"}


def verdict(name: str | None) -> Text:
    """A verdict in its colour, green, yellow or red; a dash where none was stored."""
    return Text("-") if name is None else Text(name, _COLOURS.get(name, "yellow"))


def _short(name: str | None) -> str | None:
    """A verdict for a column of a list: "not told apart"."""
    return None if name is None else name.removesuffix(" from chance")


def verdict_line(row: ExperimentRow | LlcRow | PartitionRow) -> Text | None:
    """The verdict on a result and why, in one sentence; None where none was stored."""
    if row.verdict is None:
        return None
    why = (row.reason or "").strip()
    return verdict(row.verdict).append(f": {why}" if why else "", "default")


def partition_notes(rows: Sequence[PartitionRow], *, reasons: bool = True) -> list[Text]:
    """What to keep in mind of partitions in a list: why they have their verdicts, and their warnings."""
    notes = []
    for row in rows:
        line = verdict_line(row) if reasons else None
        notes += [] if line is None else [Text(f"{row.id}: ").append_text(line)]
        said = line is not None and row.verdict == "one module"  # the warning says the same
        notes += [Text(f"{row.id}: warning: {row.warning}", "yellow")] if row.warning and not said else []
    return notes


def _interval(point: Any, factor: float = 1.0) -> str:
    """An interval of 95 % of lambda, or with factor 2 of N_eff."""
    low, high = (None if end is None else factor * end for end in (point["lower"], point["upper"]))
    return f"[{number(low)}, {number(high)}]"


def llc_table(row: LlcRow) -> Table:
    """An estimate with its evidence, a line each; of a curve one row per loss scale."""
    if row.mode == "curve":
        names = ("epsilon", "N_eff", "interval (95 %)", "R-hat", "ESS", "verdict")
        return table(names, [_scale(point) for point in row.points])
    point = row.points[0]
    found = point["diagnostics"]
    asked = row.recipe.get("epsilon")
    error, deviation = number(point["standard_error"]), number(found["virial_error"])
    result = Table(box=None, show_header=False, pad_edge=False)
    lines: list[tuple[str, Any, str]] = [
        ("N_eff", row.n_effective, f"{_interval(point, 2)} of {row.n_parameters:,} parameters"),
        ("lambda", row.value, f"+- {error}, {_interval(point)}"),
        ("epsilon", row.epsilon, "loss scale at which this holds" + (f", asked: {number(asked)}" if asked else "")),
        ("temperature", row.temperature, "n beta"),
        ("R-hat", row.r_hat, "of the loss, expected 1"),
        ("effective draws", row.ess, f"of {found['chains']} chains of {found['draws']}"),
        ("virial", found["virial"], f"+- {deviation}, expected 1"),
        ("heat", found["heat"], "t^2 Var(L) / lambda, 1 for constant lambda"),
        ("acceptance", found["acceptance"], "of proposals"),
        ("soft rank", found["soft_rank"], "lambda if the loss were quadratic"),
        ("prior", found.get("prior"), "what the localiser hides of lambda; in the interval"),
        *_below(found.get("below")),
        ("kernel", row.kernel, f"preconditioner {row.preconditioner}"),
    ]
    lines.insert(4, ("verdict", verdict(row.verdict), ""))
    for justify in ("left", "right", "left"):
        result.add_column(justify=justify)
    for name, value, meaning in lines:
        result.add_row(name, value if isinstance(value, Text) else number(value), meaning)
    return result


def _below(found: dict[str, Any] | None) -> list[tuple[str, Any, str]]:
    """What the localiser hides beyond the interval, where it hides much."""
    if not found or not found["worth"]:
        return []
    about = "" if found["exact"] else "about "
    return [("below", found["worth"], f"more at a larger radius, of {about}{found['directions']:.0f} directions")]


def _scale(point: dict[str, Any]) -> tuple[Any, ...]:
    found = point["diagnostics"]
    numbers = point["epsilon"], point["n_effective"], _interval(point, 2), found["r_hat"], found["ess"]
    return *numbers, verdict(point["verdict"])


def llc_summary(names: Sequence[str], rows: Sequence[LlcRow]) -> Table:
    """Estimates of several checkpoints, a row each."""
    lines = [
        (name, row.n_effective, _interval(row.points[0], 2), verdict(row.verdict))
        for name, row in zip(names, rows, strict=True)
    ]
    return table(("checkpoint", "N_eff", "interval (95 %)", "verdict"), lines)


def tracking_table(row: TrackingDetail) -> Table:
    """The checkpoints of a tracking: the tracks of their modules with sizes, and what happened."""
    rows = []
    for t, step in enumerate(row.steps):
        modules = ", ".join(f"{a} ({size})" for a, size in zip(step.tracks[:_SHOWN], step.sizes, strict=False))
        more = f", {len(step.tracks) - _SHOWN} more" if len(step.tracks) > _SHOWN else ""
        happened = "; ".join(_event(event) for event in row.events if event["at"] == t)
        moment = step.step if step.step is not None else step.label
        rows.append((moment, modules + more, step.churn, happened))
    return table(("step", "modules (nodes)", "churn", "since the step before"), rows)


def _event(event: dict[str, Any]) -> str:
    before, after = (", ".join(map(str, event[side])) for side in ("earlier", "later"))
    if event["kind"] in ("birth", "death"):
        return f"{event['kind']} of {after or before}"
    return f"{event['kind']} of {before} into {after}"


def _facts(row: Record) -> dict[str, Any]:
    names: tuple[str, ...]
    match row:
        case ModelRow():
            return {"id": row.id, "name": row.name, "family": row.family, "config": row.config, "created": row.created}
        case CheckpointRow():
            names = ("id", "model", "step", "label", "sha256", "path")
            if notes := (row.about or {}).get("notes"):
                shown = notes if isinstance(notes, str) else "; ".join(map(str, notes))
                return {name: getattr(row, name) for name in names} | {"notes": shown, "created": row.created}
        case DatasetRow():
            names = ("id", "description", "sha256")
        case GraphRow():
            widths = ", ".join(f"{cut} ({width})" for cut, width in zip(row.cuts, row.widths, strict=True))
            some = {"id": row.id, "model": row.model, "checkpoint": row.checkpoint, "dataset": row.dataset}
            return some | {"cuts (nodes)": widths, "edges": row.n_edges, "strengths": row.strengths, **_origin(row)}
        case PartitionRow():
            names = ("id", "model", "checkpoint", "graph", "n_modules", "edge_cost", "mediator_cost")
            names += ("normalised_cost", "contrast", "p_value", "z", "stability", "description_length")
            names += ("objective", "resolution", "epsilon", "epsilon_source", "warning")
            facts = {name: getattr(row, name) for name in names}
            if len(scales := list(dict.fromkeys(row.epsilons or ()))) > 1:
                facts["epsilon"] = ", ".join(map(number, scales))
            return facts | _origin(row)
        case LedgerRow():
            names = ("id", "model", "checkpoint", "dataset", "n", "epsilon", "warning")
            return {name: getattr(row, name) for name in names} | _origin(row)
        case LlcRow():
            names = ("id", "model", "checkpoint", "dataset", "mode", "loss", "n_parameters", "n")
            return {name: getattr(row, name) for name in names} | _origin(row)
        case ExperimentRow():
            names = ("id", "model", "checkpoint", "graph", "partition", "experiment", "metric")
            return {name: getattr(row, name) for name in names} | _origin(row)
        case TrackingRow():
            names = ("id", "model", "n_checkpoints", "n_tracks", "churn")
            return {name: getattr(row, name) for name in names} | _origin(row)
        case JobRow():
            return _job_facts(row)
        case _:
            names = tuple(row.to_json())
    return {name: getattr(row, name) for name in names} | ({"created": row.created} if hasattr(row, "created") else {})


def _job_facts(row: JobRow) -> dict[str, Any]:
    """A job; what does not apply to it is left out."""
    left = f", {row.remaining:.0f} s left" if row.remaining is not None else ""
    facts: dict[str, Any] = {
        "id": row.id,
        "task": row.task,
        "target": row.target,
        "choices": row.choices or None,
        "queue": None if row.queue == "default" else row.queue,
        "priority": row.priority or None,
        "timeout": None if row.timeout is None else f"{row.timeout:g} s",
        "state": "to be cancelled" if row.cancelling and not row.ended else row.state,
        "step": row.step,
        "done": None if row.fraction is None or row.ended else f"{_percent(row.fraction)} %{left}",
        "message": None if row.ended else row.message or None,
        "attempts": row.attempts if row.attempts > 1 else None,
        "interruptions": row.interruptions or None,
        "worker": row.worker,
        "error": row.error,
        "results": ", ".join(f"{made['kind']} {made['id']}" for made in row.results) or None,
    }
    facts |= {"created": row.created, "started": row.started, "finished": row.finished}
    return {name: value for name, value in facts.items() if value is not None}


def _origin(row: ExperimentRow | GraphRow | LedgerRow | LlcRow | PartitionRow | TrackingRow) -> dict[str, Any]:
    return {"recipe": row.recipe, "version": row.code_version, "seconds": row.wall_time, "created": row.created}
