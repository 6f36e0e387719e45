"""Tables of results and jobs that fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..records.estimates import ExperimentRow, LedgerRow, LlcRow
from ..records.graphs import GraphRow
from ..records.partitions import ComparisonValues, PartitionDetail, PartitionRow, TrackingDetail
from .tables import counted, number, table, verdict

__all__ = [
    "at_no_cut",
    "comparison_body",
    "comparisons_table",
    "controls_table",
    "cuts_note",
    "distance_table",
    "distance_values",
    "layers_table",
    "ledger_table",
    "llc_summary",
    "llc_table",
    "modules_table",
    "partition_notes",
    "persistence_table",
    "remark_notes",
    "tracking_table",
    "verdict_line",
]

_SHOWN = 12  # rows of a table of modules


def modules_table(row: PartitionDetail) -> Table:
    """Make the table of a partition's modules, largest first."""
    rows = [(m.index, m.size, " ".join(map(str, m.sizes)), m.inner_cost, m.outer_cost) for m in row.modules[:_SHOWN]]
    hidden = len(row.modules) - len(rows)
    title = f"{counted(hidden, 'more module')}: show with --json" if hidden else None
    return table(("module", "nodes", "per cut", "inner cost", "outer cost"), rows, title)


def comparisons_table(rows: Sequence[tuple[str, ComparisonValues]]) -> Table:
    """Make the table of comparisons: a line for each pair, of the name of its first division and what was found."""
    names = ("first", "second", "nodes", "AMI", "by chance", "ARI", "p", "verdict")
    cells = [
        (
            *(Text(_short(first)), Text(_short(r.name)), r.n_nodes, f"{r.ami:.3f}", f"{r.ami_by_chance:.3f}"),
            *(f"{r.ari:.3f}", f"{r.p_value:.2g}", verdict(r.verdict, short=True)),
        )
        for first, r in rows
    ]
    return table(names, cells, right=("AMI", "by chance", "ARI", "p"))


def comparison_body(first: str, row: ComparisonValues) -> list[RenderableType]:
    """Make the table of the modules that match, the largest overlaps first, then verdict and what was left out."""
    matches = sorted(row.matches, key=lambda m: -m["jaccard"])
    hidden = len(matches) - _SHOWN
    title = f"{counted(hidden, 'more match').replace('matchs', 'matches')}: show with --json" if hidden > 0 else None
    cells = [
        (Text(_short(m["first"])), Text(_short(m["second"])), m["shared"], f"{m['jaccard']:.2f}")
        for m in matches[:_SHOWN]
    ]
    names = (f"module of {_short(first)}", f"of {_short(row.name)}", "shared nodes", "Jaccard")
    return [table(names, cells, title, right=("Jaccard",)), "", verdict_line(row) or "", *_left_out(first, row), ""]


def _left_out(first: str, row: ComparisonValues) -> list[Text]:
    """Say how nodes were matched, and which were left out."""
    lines = [_MATCHED[row.matched_by]]
    counts = {first: row.only_first, row.name: row.only_second}
    lines += [f"only in {name}, not compared: {counted(n, 'node')}" for name, n in counts.items() if n]
    if row.left_out:
        lines.append(f"left out of {row.name}: {row.left_out:,} in no module, in several, or ambiguous")
    return [Text(line, "dim") for line in lines]


_MATCHED = {
    "place": "nodes are matched by their places in the cuts",
    "name": "nodes are matched by their names",
    "values": "nodes are matched by the correlation of their values",
}

_NAME = 24  # characters of the name of a division or module


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _NAME else f"{line[: _NAME - 9]}…{line[-8:]}"


def controls_table(name: str, rows: Sequence[Any]) -> Table:
    """Make the table of a network and its untrained copies, `Partition.controls`."""
    names = (name, "edges", "normalised cost", "modules", "contrast", "epsilon", "verdict")
    cells = [
        (
            *(
                row.name.removeprefix("untrained "),
                row.n_edges,
                row.normalised_cost,
                row.n_modules,
                row.contrast,
                row.epsilon,
            ),
            verdict(row.verdict, short=True),
        )
        for row in rows
    ]
    return table(names, cells)


def persistence_table(first: str, found: Sequence[Any]) -> Table:
    """Make the table of the modules of a division and of others that have them: a line for each `Persistence`."""
    hidden = len(found) - _SHOWN
    title = f"{counted(hidden, 'more module')}: show with --json" if hidden > 0 else None
    cells = [
        (
            *(Text(_short(m.module)), f"{m.matched} of {len(m.best)}", f"{m.jaccard:.2f}", f"{m.by_chance:.2f}"),
            Text(", ".join("-" if b is None else f"{_short(b.match)} ({b.jaccard:.2f})" for _, b in m.best)),
        )
        for m in found[:_SHOWN]
    ]
    names = (f"module of {_short(first)}", "matched in", "Jaccard", "by chance", "best match in each (Jaccard)")
    return table(names, cells, title, right=("matched in", "Jaccard", "by chance"))


def distance_table(found: Any) -> Table:
    """Make the table of distances between networks, a `NetworkDistance`: a line for each pair, then their mean."""
    parts = [part for part in (found.data, found.held_out) if part is not None]
    names = ("first", "second", "distance", "+-", *(("held out", "+-") if len(parts) > 1 else ()))
    rows: list[tuple[Any, ...]] = []
    for a, b in combinations(range(len(found.names)), 2):
        cells = [cell for part in parts for cell in (part.between(a, b), part.error_between(a, b))]
        rows.append((Text(_short(found.names[a])), Text(_short(found.names[b])), *cells))
    means = [cell for part in parts for cell in (part.mean, part.standard_error)]
    return table(names, [*rows, ("mean", "", *means)], right=("distance", "+-", "held out"))


def distance_values(found: Any) -> dict[str, Any]:
    """Return the numbers of a `NetworkDistance` as JSON."""
    values: dict[str, Any] = {"epsilon": found.epsilon}
    for name in ("data", "held_out"):
        if (part := getattr(found, name)) is None:
            values[name] = None
            continue
        numbers = {key: getattr(part, key) for key in ("mean", "standard_error", "error_of_data", "error_of_networks")}
        values[name] = {**numbers, "n": part.n, "matrix": part.matrix.tolist(), "errors": part.errors.tolist()}
    return values


def ledger_table(row: LedgerRow) -> Table:
    """Make the table from all parameters to the effective ones: a line per cause, its share and meaning."""
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


def layers_table(row: LedgerRow) -> Table:
    """Make the table of a ledger's layers: ranks of activations and Jacobians, units, free, fit of G (x) K."""
    rows = []
    for layer in row.layers:
        gram, seen = f"{layer['gram_rank']}/{layer['n_inputs']}", f"{layer['jacobian_rank']}/{layer['n_outputs']}"
        free = layer["activations"] + layer["jacobians"] + layer["gating"] + layer["synchronised"]
        fit = layer["kronecker"].get("cosine")
        rows.append((layer["name"], f"{layer['nominal']:,}", f"{free:,}", gram, seen, layer["dead"], fit))
    names = ("layer", "nominal", "free", "rank G", "rank K", "dead", "cos(H, GxK)")
    return table(names, rows, right=("nominal", "free"))


def verdict_line(row: ExperimentRow | LlcRow | PartitionRow | ComparisonValues) -> Text | None:
    """Format the verdict on a result and its reason; return None where none was stored."""
    if row.verdict is None:
        return None
    why = (row.reason or "").strip()
    return verdict(row.verdict).append(f": {why}" if why else "", "default")


def partition_notes(rows: Sequence[PartitionRow], *, reasons: bool = True) -> list[Text]:
    """Return notes on partitions in a list: reasons of their verdicts, and warnings."""
    notes = []
    for row in rows:
        line = verdict_line(row) if reasons else None
        notes += [] if line is None else [Text(f"{row.id}: ").append_text(line)]
        warned = row.warning and row.verdict != "one module"  # of one module the verdict says the same
        notes += [Text(f"{row.id}: warning: {row.warning}", "yellow")] if warned else []
    return notes + (remark_notes(rows) if reasons else [])


def remark_notes(rows: Sequence[PartitionRow]) -> list[Text]:
    """Return how far the numbers of partitions hold, each sentence once; it names its partitions if not all have it."""
    said = [row.remarks or () for row in rows]
    notes = []
    for sentence in dict.fromkeys(chain.from_iterable(said)):
        of = [row.id for row, remarks in zip(rows, said, strict=True) if sentence in remarks]
        notes.append(Text(sentence if len(of) == len(rows) else f"{', '.join(of)}: {sentence}", "dim"))
    return notes


def cuts_note(rows: Sequence[GraphRow]) -> str | None:
    """Return the cuts of graphs, and the modules at none of them; None where graphs have different ones."""
    if len({(row.cuts, at_no_cut(row)) for row in rows}) != 1:
        return None
    left_out = at_no_cut(rows[0])
    return f"cuts: {', '.join(rows[0].cuts)}" + (f"\nat no cut: {left_out}" if left_out else "")


def at_no_cut(row: GraphRow) -> str | None:
    """Name the modules with weights that are at no cut of a graph, and where they run; None if all are at one."""
    where = {"before": "before the first", "between": "between two", "after": "after the last"}
    parts = [f"{', '.join(names)} ({where[key]})" for key, names in (row.left_out or {}).items() if names]
    return "; ".join(parts) or None


def _interval(point: Any, factor: float = 1.0) -> str:
    """Format the 95 % interval of lambda, or with factor 2 of N_eff."""
    low, high = (None if end is None else factor * end for end in (point["lower"], point["upper"]))
    return f"[{number(low)}, {number(high)}]"


def llc_table(row: LlcRow) -> Table:
    """Make the table of an estimate with its evidence, a line each; for a curve a row per loss scale."""
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
    """Return the row about what the localiser hides beyond the interval, if it hides much."""
    if not found or not found["worth"]:
        return []
    about = "" if found["exact"] else "about "
    return [("below", found["worth"], f"more at a larger radius, of {about}{found['directions']:.0f} directions")]


def _scale(point: dict[str, Any]) -> tuple[Any, ...]:
    found = point["diagnostics"]
    numbers = point["epsilon"], point["n_effective"], _interval(point, 2), found["r_hat"], found["ess"]
    return *numbers, verdict(point["verdict"])


def llc_summary(names: Sequence[str], rows: Sequence[LlcRow]) -> Table:
    """Make the table of several checkpoints' estimates, a row each."""
    lines = [
        (name, row.n_effective, _interval(row.points[0], 2), verdict(row.verdict))
        for name, row in zip(names, rows, strict=True)
    ]
    return table(("checkpoint", "N_eff", "interval (95 %)", "verdict"), lines)


def tracking_table(row: TrackingDetail) -> Table:
    """Make the table of a tracking's checkpoints: tracks of their modules with sizes, and events."""
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
