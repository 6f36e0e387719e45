"""Tables of circuit experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from ..records.estimates import ExperimentRow
from .tables import number, table

__all__ = ["experiment_notes", "experiment_tables", "what_it_found", "with_unit"]

_BEHAVIOURAL = ("mse", "kl")  # losses, shown first

_SHOWN_ANSWERS = 3  # columns of accuracies in a terminal


_UNITS = {"accuracy": "share", "cross_entropy": "nats", "kl": "nats"}

_OTHER = {"module 0 alone": "without module 1", "module 1 alone": "without module 0"}  # of two modules

_SAME_STRENGTHS = "; random edges are as many of the same strengths"

_FOUND = {"modules": "selectivity {}", "isolate": "change {}", "faithfulness": "CPR {}", "predict": "rank corr. {}"}


def with_unit(row: ExperimentRow) -> str:
    """Name the metric of an experiment, with its unit where it has one."""
    return f"{row.metric} ({_UNITS[row.metric]})" if row.metric in _UNITS else row.metric


def what_it_found(row: ExperimentRow) -> str:
    """Say what an experiment found, in a word and a number; see `ExperimentValues.value`."""
    if row.value is None:
        return "-"
    return _FOUND.get(row.experiment, "{} edges").format(number(row.value))


def experiment_tables(row: ExperimentRow) -> list[Table]:
    """Make the tables of an experiment: one per metric, a line per intervention, random ones beside it."""
    rows = row.summary["rows"]
    costs = [None] * (len(rows) - len(row.summary.get("links", ())))  # of the whole network, and of none
    costs += [link["predicted"] for link in row.summary.get("links", ())]
    tables = []
    for metric in sorted(rows[0]["values"], key=lambda name: name not in _BEHAVIOURAL):
        lines = []
        for line, cost in zip(rows, costs, strict=True):
            found = line["values"][metric]
            shown = f"{number(found['value'])} ± {_uncertainty(found['standard_error'])}"
            beside = [cell for control in _controls(row, line, metric) for cell in control]
            cells: tuple[Any, ...] = (line["name"], line["removed"], shown, *beside)
            lines.append((*cells[:1], cost, *cells[1:]) if "links" in row.summary else cells)
        random = ("random modules", "p", "random edges", "p") if row.experiment == "isolate" else ("random", "p")
        names = ("network", *(("cost",) if "links" in row.summary else ()), "ablated", metric, *random)
        tables.append(table(names, _once(lines, row.summary), right=("p",)))
    if row.summary.get("classes") and row.summary.get("whole_classes"):
        tables.append(_classes_table(row.summary))
    elif row.summary.get("outputs"):
        tables.append(_outputs_table(row.summary))
    if row.summary.get("inputs"):
        tables.append(_inputs_table(row.summary))
    if row.experiment in ("bisect", "epsilon"):
        tables.append(_required_table(row))
    return tables


def _controls(row: ExperimentRow, line: Mapping[str, Any], metric: str) -> list[tuple[str, str]]:
    """Return what each kind of random control gives beside an intervention, and p; dashes where there is none."""
    found = [line["controls"].get(metric)]
    if row.experiment == "isolate":
        worst = row.summary.get("worst")
        matched = {"isolated": row.summary.get("matched", {}), "worst cut": worst[0]["matched"] if worst else {}}
        found.append(matched.get(line["name"], {}).get(metric))
    return [
        (f"{number(each['value'])} ± {_uncertainty(each['spread'])}", f"{each['p_value']:.2g}") if each else ("-", "-")
        for each in found
    ]


def _worst_note(worst: Mapping[str, Any]) -> str:
    """Say how the worst partial cut was searched for, and what it loses after each number of steps."""
    losses = ", ".join(
        f"{number(loss)} after {steps} steps" for steps, loss in zip(worst["steps"], worst["losses"], strict=True)
    )
    return (
        f"worst cut: {worst['edges']:,} edges kept in part, shares from 0 to 1 by gradient ascent on the behavioural "
        f"loss of {worst['points']:,} data points, the same for all of them; {worst['starts']} starts, steps of "
        f"{worst['step_size']:g}; all cut {number(worst['cut'])}, worst {losses}; random {worst['beside']} have the "
        "same budget"
    )


def _uncertainty(value: float | None) -> str:
    """Format with one significant digit, 20 rather than 2e+01; None as a dash."""
    return "-" if value is None else f"{float(f'{value:.1g}'):g}"


def _required_table(row: ExperimentRow) -> Table:
    """Make the table of required edges, a line per pair of cuts."""
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
    """Return the rows of a table of modules: the network without each, and each alone."""
    without, alone = found[name]
    rows = [(f"without module {m}", values) for m, values in enumerate(without)]
    return [*rows, *((f"module {m} alone", values) for m, values in enumerate(alone))]


def _classes_table(found: Mapping[str, Any]) -> Table:
    """Make the table of accuracy per answer, and of the classes that lose most."""
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
    heads = ["mean of classes"] if len(whole) == 1 else [f"answer {a}" for a in answers[:_SHOWN_ANSWERS]]
    names = ("network", *heads, "classes that lose most" if len(whole) == 1 else "answer:class, lose most")
    return table(names, _once(lines, found))


def _outputs_table(found: Mapping[str, Any]) -> Table:
    """Make the table of the outputs that change most, by mean squared change."""
    lines = [
        (name, _largest({str(o): change for o, change in enumerate(values)}, "{:.3g}"))
        for name, values in _sides(found, "outputs")
    ]
    return table(("network", "outputs that change most"), _once(lines, found))


def _inputs_table(found: Mapping[str, Any]) -> Table:
    """Make the table of the data points that lose most, and of how many account for half of the loss."""
    lines = [
        (
            name,
            None if row["half"] is None else f"{100 * row['half']:.3g} %",
            ", ".join(f"{i} ({loss:.3g})" for i, loss in row["largest"][:3]) or "-",
        )
        for name, row in _sides(found, "inputs")
    ]
    return table(("network", "half of the loss in", "data points that lose most"), _once(lines, found))


def _once(lines: list[tuple[Any, ...]], found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Leave out the rows of one module alone where there are two: without the other the network is the same."""
    if found.get("n_modules") != len(_OTHER):
        return lines
    cells = {line[0]: line[1:] for line in lines}
    return [line for line in lines if line[0] not in _OTHER or cells.get(_OTHER[line[0]]) != line[1:]]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _largest(values: Mapping[str, float], form: str) -> str:
    """Format the three largest values above 0, with their sizes."""
    ranked = sorted((item for item in values.items() if item[1] > 0), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} ({form.format(size)})" for name, size in ranked) or "-"


def experiment_notes(row: ExperimentRow) -> list[str]:
    """Say in words what an experiment found."""
    found, notes = row.summary, [f"{row.n:,} {'held-out ' if row.held_out else ''}data points"]
    if not row.held_out:
        notes.append("the basis was made from the same data: give held-out data to be sure (test_inputs)")
    if row.experiment == "isolate":
        cut, edges = sum(found["cut_edges"]), sum(found["n_edges"])
        notes.append(f"{cut:,} of {edges:,} edges join different modules and were cut")
        if found["n_modules"] == 1:
            notes.append(f"one module; to divide it by force: interbasis modules {row.graph} --k 2")
        else:
            notes.append("weak edges are cut too: those below the threshold at which the modules were found")
            notes.append(f"random modules have the same sizes{_SAME_STRENGTHS if found['matched'] else ''}")
    if any(line["controls"] for line in found["rows"]):
        notes.append(
            "p: the share of random controls that do at least as well, what is measured counted as one of them"
        )
    if row.experiment == "modules":
        notes.append("nodes of no module go along with the module that they exchange most loss with")
    if row.experiment == "modules" and found.get("n_modules") == len(_OTHER):
        notes.append("two modules: the network without one is the other alone")
    if row.experiment == "modules" and found.get("whole_classes"):
        notes.append("mean of classes, answers: the accuracy at the data points of each class, averaged over classes")
    if mixed := found.get("mixing"):
        notes.append(
            "variance of nodes' activations, in units of the loss, when data of their own module change "
            f"{number(mixed['own'])}, of other modules {number(mixed['others'])}; "
            "without the strongest edge of each node"
        )
    notes += [_worst_note(worst) for worst in found.get("worst", ())[:1]]
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
