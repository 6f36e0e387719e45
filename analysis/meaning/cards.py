"""Cards: what is known of a node or a module, as plain values that JSON can hold, and all of them as one result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..errors import GraphError
from ..notebook.tables import Columns, html_table
from ..results import Result, by_value, decode, encode, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Card", "Cards", "ModuleCard", "NodeCard"]

_DIGITS = 4  # of inputs in JSON

_ROWS = 6  # of examples in a notebook


@by_value
@dataclass(frozen=True, repr=False)
class Card:
    """One card.

    Attributes:
        content: what is known, as text, numbers, lists and mappings; None for what is not.
        inputs: the inputs of its examples by the number of the data point, where they are numbers.
    """

    content: dict[str, Any]
    inputs: Mapping[int, Float[np.ndarray, " _"]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return what it is of, and its summary."""
        return f"{self.title}: {self.summary}"

    @property
    def title(self) -> str:
        """What the card is of."""
        raise NotImplementedError

    @property
    def summary(self) -> str:
        """One line, made from the facts of the card by rule."""
        return str(self.content["summary"])

    @property
    def largest(self) -> list[dict[str, Any]]:
        """The examples with the largest values, the largest first."""
        return list(self.content["examples"]["largest"])

    def to_json(self) -> str:
        """Return the card as one JSON document, with the inputs of its examples."""
        shown = {str(point): [float(f"{v:.{_DIGITS}g}") for v in row.tolist()] for point, row in self.inputs.items()}
        return json.dumps({**self.content, "inputs": shown}, ensure_ascii=False, allow_nan=False)

    def _facts(self) -> list[str]:
        """Return lines below the table of a notebook."""
        return []

    def _repr_html_(self) -> str:
        """Return facts and examples for notebooks; all text is escaped."""
        examples = self.largest[:_ROWS]
        columns: dict[str, Sequence[Any]] = {
            "data point": [one["point"] for one in examples],
            "value": [one["value"] for one in examples],
        }
        if any(one.get("target") is not None for one in examples):
            columns["target"] = [_joined(one.get("target")) for one in examples]
        table = html_table(f"{self.title}: {self.summary}", columns, self._facts())
        windows = [_marked(one) for one in examples if one.get("tokens")]
        return table + "".join(f"<div><code>{line}</code></div>" for line in windows)

    def plot(self, *, title: str | None = None) -> Figure:
        """Draw the card."""
        return figure(self, title=title)


@by_value
@dataclass(frozen=True, repr=False)
class NodeCard(Card):
    """The card of a node, a coordinate of a cut.

    Its content: `cut`, `node`, `module` (-1: none), `summary`; `mean`, `variance`, `smallest`, `largest` of its values,
    `importance` and `share` of the cut's; `histogram`; `examples` (`largest`, `smallest`, and ten lists of `deciles`);
    `effects` on outputs; `reads`, what it depends on among the inputs; `direction`; `neighbours`; `frequencies`.
    """

    @property
    def title(self) -> str:
        """The name of the node."""
        return f"{self.content['cut']}/{self.content['node']}"

    def _facts(self) -> list[str]:
        facts = [f"{self.content['share']:.1%} of the importance of {self.content['cut']}"]
        if self.content["module"] >= 0:
            facts.append(f"Module {self.content['module']}")
        for side in ("in", "out"):
            edges = self.content["neighbours"][side][:3]
            if edges:
                named = ", ".join(f"{e['cut']}/{e['node']} ({e['sign']}{e['strength']:.3g})" for e in edges)
                facts.append(f"Strongest edges {side}: {named}")
        return facts


@by_value
@dataclass(frozen=True, repr=False)
class ModuleCard(Card):
    """The card of a module.

    Its content: `module`, `size`, `summary`; `cuts` with the members at each; `energy` (sum of squared values of its
    members per data point) and `share` of that of all nodes; `examples` with the largest share; `outputs` with the
    share of the first-order effect that goes through the module, and `serves`, those of which it is more than half;
    `classes`; `reads`; `mediators`; `similar` members; `frequencies`.
    """

    @property
    def title(self) -> str:
        """The name of the module."""
        return f"module {self.content['module']}"

    def _facts(self) -> list[str]:
        at = [f"{part['cut']} ({len(part['nodes'])})" for part in self.content["cuts"]]
        return [f"Nodes at {', '.join(at)}"]


@by_value
@dataclass(frozen=True, repr=False)
class Cards(Result):
    """The cards of the nodes and modules of a network.

    Attributes:
        nodes: the cards of nodes, cut after cut.
        modules: one card per module.
        settings: number of data points, seed, how many data points effects were measured on, and what the inputs are.
    """

    nodes: tuple[NodeCard, ...]
    modules: tuple[ModuleCard, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the number of cards, and the summary of each module on a line."""
        head = f"Cards of {len(self.nodes)} node{'s' * (len(self.nodes) != 1)}"
        return "\n".join([head, *(f"  {card!r}" for card in self.modules)])

    def __iter__(self) -> Iterator[Card]:
        return iter((*self.nodes, *self.modules))

    def node(self, cut: str | int, i: int) -> NodeCard:
        """Return the card of coordinate i of a cut, by the name or the number of the cut.

        Raises:
            GraphError: there is none.
        """
        cuts = list(self.settings.get("cuts") or dict.fromkeys(card.content["cut"] for card in self.nodes))
        name = cuts[cut] if isinstance(cut, int) and -len(cuts) <= cut < len(cuts) else cut
        for card in self.nodes:
            if card.content["cut"] == name and card.content["node"] == i:
                return card
        raise GraphError(f"there is no card of node {i} at {cut!r}: there are {len(self.nodes)}, at {', '.join(cuts)}")

    def module(self, m: int) -> ModuleCard:
        """Return the card of a module.

        Raises:
            GraphError: there is none.
        """
        for card in self.modules:
            if card.content["module"] == m:
                return card
        known = [card.content["module"] for card in self.modules]
        raise GraphError(f"there is no card of module {m}: there are those of {known}")

    def _columns(self) -> Columns:
        """Return a row per node."""
        names = ("cut", "node", "module", "variance", "importance", "share", "summary")
        return {name: [card.content[name] for card in self.nodes] for name in names}

    def _repr_html_(self) -> str:
        """Return a table of the modules."""
        columns = {
            "module": [card.content["module"] for card in self.modules],
            "nodes": [card.content["size"] for card in self.modules],
            "summary": [card.summary for card in self.modules],
        }
        return html_table(f"Cards of {len(self.nodes)} nodes and {len(self.modules)} modules", columns)

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes; inputs that several cards show are stored once."""
        inputs = {point: row for card in self for point, row in card.inputs.items()}
        points = sorted(inputs)
        arrays = {name: _packed([card.content for card in getattr(self, name)]) for name in ("nodes", "modules")}
        arrays["points"] = np.array(points, dtype=np.int64)
        arrays["inputs"] = np.stack([inputs[p] for p in points]) if points else np.empty((0, 0), dtype=np.float32)
        kept = {name: [sorted(c.inputs) for c in getattr(self, name)] for name in ("nodes", "modules")}
        return encode("cards", arrays, {"settings": self.settings, "kept": kept})

    @classmethod
    def from_bytes(cls, data: bytes) -> Cards:
        """Rebuild cards from `to_bytes`."""
        arrays, meta = decode("cards", data)
        inputs = dict(zip(arrays["points"].tolist(), arrays["inputs"], strict=True))
        kept = meta["kept"]

        def shown(points: Sequence[int]) -> dict[int, Any]:
            return {point: inputs[point] for point in points}

        nodes = zip(json.loads(arrays["nodes"].tobytes()), kept["nodes"], strict=True)
        modules = zip(json.loads(arrays["modules"].tobytes()), kept["modules"], strict=True)
        return cls(
            tuple(NodeCard(content, shown(points)) for content, points in nodes),
            tuple(ModuleCard(content, shown(points)) for content, points in modules),
            meta["settings"],
        )


def _packed(contents: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.frombuffer(json.dumps(list(contents), allow_nan=False).encode(), dtype=np.uint8)


def _joined(target: Any) -> str:
    return ", ".join(map(str, target)) if isinstance(target, list) else "" if target is None else str(target)


def _marked(example: Mapping[str, Any]) -> str:
    """Write the tokens of an example, the one of its value in bold."""
    parts = [escape(text.replace("\n", "\u21b5")) for text in example["tokens"]]
    parts[example["at"]] = f"<strong>{parts[example['at']]}</strong>"
    return "".join(parts)
