"""Cards of nodes and modules on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from .tables import counted, number, table

__all__ = ["module_card", "modules_overview", "named_nodes_table", "node_card", "nodes_overview", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"

_CELLS = 40  # of a sparkline

_EXAMPLES = 5

_EFFECTS = 5

_WIDTH = 76

_ROUNDING = 1e-9


def sparkline(counts: Sequence[float], cells: int = _CELLS) -> str:
    """Draw a histogram in one line; empty cells stay empty.

    >>> sparkline([0, 1, 4, 8, 4, 1, 0], 7)
    ' ▁▄█▄▁ '
    """
    step = max(1, -(-len(counts) // cells))
    sums = [sum(counts[start : start + step]) for start in range(0, len(counts), step)]
    most = max(sums, default=0)
    return "".join(" " if value <= 0 else _BARS[max(0, round(len(_BARS) * value / most) - 1)] for value in sums)


def modules_overview(modules: Sequence[Mapping[str, Any]], labels: Mapping[int, str]) -> Table:
    """Make the table of modules: number, nodes, label where there is one, and the line that sums it up."""
    rows = [(m["module"], m["size"], labels.get(m["module"], ""), Text(m["summary"])) for m in modules]
    if not any(row[2] for row in rows):
        return table(("module", "nodes", "summary"), [(a, b, d) for a, b, _, d in rows])
    return table(("module", "nodes", "label", "summary"), [(a, b, Text(c), d) for a, b, c, d in rows])


def nodes_overview(cards: Sequence[Mapping[str, Any]], shown: int) -> Table:
    """Make the table of the most important nodes of each cut, with the line that sums each up."""
    cuts: dict[str, list[Mapping[str, Any]]] = {}
    for card in cards:
        cuts.setdefault(card["cut"], []).append(card)
    rows = []
    for cut, own in cuts.items():
        for card in sorted(own, key=lambda one: -one["importance"])[:shown]:
            of = "-" if card["module"] < 0 else card["module"]
            rows.append((f"{cut}/{card['node']}", of, f"{card['share']:.0%}", Text(card["summary"])))
    return table(("node", "module", "share", "summary"), rows, right=("share",))


def named_nodes_table(nodes: Sequence[Any], labels: Mapping[tuple[str, int], str]) -> Table:
    """Make the table of nodes that a file names: what it says of each, and the strongest edge to either side.

    Args:
        nodes: see `interbasis.analysis.attribution.NamedNode`.
        labels: stored labels of nodes, by cut and number, which go before those of the file.
    """
    rows = []
    for node in nodes:
        cut, _, i = node.node.rpartition("/")
        called = _plain(labels.get((cut, int(i))) or node.label or node.id)
        ends = [Text(_edge(side[0]) if side else "-") for side in (node.inputs, node.outputs)]
        about = (Text(called), Text(_plain(node.type)), node.position)
        rows.append(("-" if node.module < 0 else node.module, Text(_plain(node.node)), *about, *ends))
    return table(("module", "node", "label or id", "type", "position", "from", "to"), rows)


def _edge(edge: Any) -> str:
    return _plain(f"{edge.weight:+.3g} {edge.node}")


def _plain(text: str) -> str:
    """Return a text of a file in one line that a terminal only shows: white space as one blank, control as a mark."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def node_card(card: Mapping[str, Any], labels: Sequence[str] = ()) -> list[RenderableType]:
    """Lay out the card of a node."""
    of = "in no module" if card["module"] < 0 else f"module {card['module']}"
    lines: list[RenderableType] = [
        Text.assemble(
            (f"{card['cut']}/{card['node']}", "bold"), f"  {of}, {card['share']:.1%} of its cut's importance"
        ),
        Text(card["summary"]),
        *_labelled(labels),
        "",
        _histogram(card["histogram"], card["smallest"], card["largest"]),
    ]
    lines += _effects(card["effects"])
    if reads := card.get("reads"):
        named = [f"{one['name']} {one['share']:.0%}" for one in (reads.get("groups") or reads.get("features") or ())]
        lines += ["", Text(f"reads: {', '.join(named[:_EFFECTS])}")] if named else []
    lines += _direction(card.get("direction"))
    for side, words in (("in", "fed by"), ("out", "feeds")):
        edges = card["neighbours"][side][:_EFFECTS]
        if edges:
            named = [f"{e['cut']}/{e['node']} ({e['sign'] or ''}{number(e['strength'])})" for e in edges]
            lines.append(Text(f"{words}: {', '.join(named)}"))
    lines += ["", *_examples(card["examples"]["largest"], "largest values")]
    return [*lines, "", *_examples(card["examples"]["smallest"], "smallest values")]


def module_card(card: Mapping[str, Any], labels: Sequence[str] = ()) -> list[RenderableType]:
    """Lay out the card of a module."""
    at = ", ".join(f"{part['cut']} ({len(part['nodes'])})" for part in card["cuts"])
    lines: list[RenderableType] = [
        Text.assemble((f"module {card['module']}", "bold"), f"  {counted(card['size'], 'node')}: {at}"),
        Text(card["summary"]),
        *_labelled(labels),
    ]
    if outputs := card["outputs"][:_EFFECTS]:
        rows = [(Text(one["name"]), f"{one['share']:.0%}") for one in outputs]
        lines += ["", table(("output", "share of the effect on it"), rows, right=("share of the effect on it",))]
    mediators = card["mediators"]
    for side, words in (("in", "is fed through"), ("out", "feeds others through")):
        if found := mediators.get(side):
            rows = [
                (f"{one['cut']}/{one['node']}", one["module"], Text(one["carries"] or "-")) for one in found[:_EFFECTS]
            ]
            lines += ["", Text(words), table(("node", "module", "carries"), rows)]
    return [*lines, "", *_examples(card["examples"]["largest"], "largest share of the energy")]


def _labelled(labels: Sequence[str]) -> list[RenderableType]:
    return [Text.assemble(("label: ", "bold"), text) for text in labels]


def _histogram(found: Mapping[str, Any], smallest: float, largest: float) -> Text:
    line = sparkline(found["counts"])
    return Text(f"values  {number(smallest)} {line} {number(largest)}")


def _effects(effects: Mapping[str, Any] | None) -> list[RenderableType]:
    """Lay out the outputs that a node raises and lowers."""
    if not effects:
        return []
    rows = []
    for side, words in (("promoted", "raises"), ("suppressed", "lowers")):
        for one in effects[side][:_EFFECTS]:
            up = "-" if one["up"] is None else f"{one['up']:+.3g}{_plus_minus(one['up'], one['up_error'])}"
            rows.append(
                (words, Text(repr(one["name"]) if one["name"].isspace() else one["name"]), number(one["slope"]), up)
            )
    if not rows:
        return []
    return ["", table(("", "output", "slope", "one sd up"), rows, right=("slope", "one sd up"))]


def _plus_minus(value: float, error: float | None) -> str:
    """Format a standard error, where it is more than rounding.

    >>> _plus_minus(2.0, 0.03), _plus_minus(2.0, 1e-16)
    (' +- 0.03', '')
    """
    return f" +- {error:.1g}" if error is not None and error > _ROUNDING * abs(value) else ""


def _direction(direction: Mapping[str, Any] | None) -> list[RenderableType]:
    """Lay out the tokens that a node of a residual stream writes to, and that write to it."""
    lines: list[RenderableType] = []
    for name, words in (("unembed", "writes to"), ("embed", "written by")):
        found = (direction or {}).get(name)
        if isinstance(found, Mapping):
            named = [repr(one["name"]) for one in found.get("promoted", found.get("largest", ()))[:_EFFECTS]]
            lines += [Text(f"{words}: {' '.join(named)}")] if named else []
    return lines


def _examples(examples: Sequence[Mapping[str, Any]], title: str) -> list[RenderableType]:
    """Lay out examples: of tokens their window, else number, value and target."""
    shown = examples[:_EXAMPLES]
    if not shown:
        return []
    if shown[0].get("tokens"):
        return [Text(title, "dim"), *(_window(one) for one in shown)]
    rows = [(one["point"], one["value"], _joined(one.get("target"))) for one in shown]
    return [Text(title, "dim"), table(("data point", "value", "target"), rows)]


def _window(one: Mapping[str, Any]) -> Text:
    """Lay out the tokens around a position in one line, that of the value marked."""
    parts = [text.replace("\n", "↵").replace("\t", "⇥") for text in one["tokens"]]
    at, value = one["at"], f"{number(one['value']):>8}  "
    left, right = at, at + 1
    room = _WIDTH - len(value) - len(parts[at])
    while room > 0 and (left > 0 or right < len(parts)):
        if left > 0:
            left -= 1
            room -= len(parts[left])
        if room > 0 and right < len(parts):
            room -= len(parts[right])
            right += 1
    text = Text(value, "dim", no_wrap=True, overflow="ellipsis")
    text.append("".join(parts[left:at]), "default")
    text.append(parts[at], "bold reverse")
    return text.append("".join(parts[at + 1 : right]), "default")


def _joined(target: Any) -> Text:
    return Text(", ".join(map(str, target)) if isinstance(target, list) else "" if target is None else str(target))
