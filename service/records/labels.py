"""Labels: texts that people and programs give to nodes of a graph and to modules of a partition."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypedDict

from pydantic import Field

from .base import Record, Time
from .errors import StoreError
from .graphs import GraphId

__all__ = [
    "LONGEST_LABEL",
    "LabelRow",
    "NewLabel",
    "Place",
    "check_label",
    "check_source",
    "overlaps",
    "place_name",
    "preferred",
]

LONGEST_LABEL = 500
"""Characters of the longest label."""

_LONGEST_NAME = 200  # characters of an author

_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")  # control, line breaks, none of XML

_SOURCE = re.compile("human|import|command:[^\\s:].{0,99}")

_ORDER = ("human", "import", "command")  # whose text is shown where there is room for one

Cut = Annotated[str | None, Field(examples=["layers.0"])]

Coordinate = Annotated[int | None, Field(examples=[3])]

ModuleIndex = Annotated[int | None, Field(examples=[None])]

Text = Annotated[str, Field(examples=["curved strokes at the left"])]

TextOrNone = Annotated[str | None, Field(examples=["curved strokes at the left"])]

Author = Annotated[str, Field(examples=["ada"])]

LabelSource = Annotated[str, Field(examples=["human"])]

Confidence = Annotated[float | None, Field(examples=[0.8])]

Origin = Annotated[str | None, Field(examples=["p-5e6f7a8b module 2"])]

Overlap = Annotated[float | None, Field(examples=[0.93])]


class Place(TypedDict, total=False):
    """A node, by `cut` (name or index) and `node`, or a `module`."""

    cut: int | str
    node: int
    module: int


@dataclass(frozen=True, kw_only=True)
class NewLabel(Record):
    """A label to be stored: its text, and the node (`cut`, name or index, and `node`) or the `module` that it names.

    Attributes:
        text: one line, kept as it is given.
        author: who gave it.
        source: "human", "import" or "command:NAME".
        confidence: between 0 and 1; None where nothing is known.
        origin: where it was before, of a label that was moved from another graph or partition.
        overlap: how well node or module fit those of the origin, between 0 and 1.
    """

    text: Text
    author: Author
    cut: Cut = None
    node: Coordinate = None
    module: ModuleIndex = None
    source: LabelSource = "human"
    confidence: Confidence = None
    origin: Origin = None
    overlap: Overlap = None


@dataclass(frozen=True, kw_only=True)
class LabelRow(Record):
    """A stored label, or an entry of the history of labels.

    Attributes:
        graph: ID of the graph.
        partition: of a module, the ID of its partition, which need not be stored any more; None for a node.
        cut, node: name of the cut and coordinate of the node; None for a module.
        module: index of the module; None for a node.
        text: None in the history where the label was removed.
        origin, overlap: see `NewLabel`; set by the store, too, where a label is shown at the module of another
            partition that shares more than half of the nodes of both, or was given before the graph or the partition
            was computed again. None where it is shown where it was given.
    """

    graph: GraphId
    partition: Annotated[str | None, Field(examples=[None])]
    cut: Cut
    node: Coordinate
    module: ModuleIndex
    text: TextOrNone
    author: Author
    source: LabelSource
    confidence: Confidence
    created: Time
    origin: Origin = None
    overlap: Overlap = None


@dataclass(frozen=True, kw_only=True)
class FoundRow(Record):
    """Something whose name, ID or label has the words that were looked for.

    Attributes:
        kind: what it is: a kind of stored thing, "job" or "label".
        id: its ID; of a label that of the graph.
        name: what it is called: a model by its name, what belongs to a checkpoint as `model@step`, a label by its text.
        model: name of the model that it belongs to; None of a job or a dataset.
        partition: ID of the partition to look at: it, the one it is about, or the newest of the graph; None without.
        cut, node, module: what a label is about: the index of the cut and the coordinate of the node, or a module.
    """

    kind: Annotated[str, Field(examples=["label"])]
    id: Annotated[str, Field(examples=["g-1a2b3c4d"])]
    name: Annotated[str, Field(examples=["curved strokes"])]
    model: Annotated[str | None, Field(examples=["two-digits"])]
    partition: Annotated[str | None, Field(examples=["p-1a2b3c4d"])]
    cut: Annotated[int | None, Field(examples=[1])] = None
    node: Coordinate = None
    module: ModuleIndex = None


def place_name(label: NewLabel | LabelRow) -> str:
    """Name the node or module of a label.

    >>> place_name(NewLabel(text="a", author="b", cut="layers.0", node=3))
    'layers.0/3'
    """
    return f"{label.cut}/{label.node}" if label.module is None else f"module {label.module}"


def check_source(source: str) -> None:
    """Refuse what is no source of labels.

    >>> check_source("command:describe.py")

    Raises:
        StoreError: it is another text.
    """
    if not _SOURCE.fullmatch(source) or not source.isprintable():
        raise StoreError(f"the source of a label is {source[:120]!r}: expected human, import or command:NAME")


def check_label(label: NewLabel) -> None:
    """Refuse a label that not every format can hold as it is, or that names no node or module.

    Raises:
        StoreError: the message says of which node or module, what was seen, and what is expected.
    """
    if (label.cut is None) != (label.node is None) or (label.node is None) == (label.module is None):
        raise StoreError("a label names a cut and a node, or a module: expected one of the two")
    where = f"the label of {place_name(label)}"
    if not label.text.strip():
        raise StoreError(f"{where} is empty: expected a text; to remove a label, use --remove or DELETE")
    if len(label.text) > LONGEST_LABEL:
        raise StoreError(f"{where} has {len(label.text):,} characters: expected at most {LONGEST_LABEL}")
    if found := _UNFIT.search(label.text):
        raise StoreError(f"{where} has the character {found[0]!r}: expected one line without control characters")
    if not label.author.strip() or not label.author.isprintable() or len(label.author) > _LONGEST_NAME:
        raise StoreError(f"{where} has the author {label.author[:80]!r}: expected 1 to {_LONGEST_NAME} characters")
    check_source(label.source)
    for name in ("confidence", "overlap"):
        value = getattr(label, name)
        if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
            raise StoreError(f"{where} has the {name} {value}: expected a number between 0 and 1")
    if label.origin is not None and (not label.origin.isprintable() or len(label.origin) > LONGEST_LABEL):
        raise StoreError(f"{where} has the origin {label.origin[:80]!r}: expected at most {LONGEST_LABEL} characters")


def overlaps(
    members: Iterable[tuple[int, int]], modules: Mapping[tuple[int, int], int], sizes: Mapping[int, int]
) -> dict[int, float]:
    """Compute the Jaccard index |A n B| / |A u B| of some nodes A with each module B that shares nodes with them.

    More than 1/2 of at most one module can be reached: it holds more than half of the nodes, and they more than half
    of it.

    Args:
        members: nodes, as index of the cut and coordinate.
        modules: module of each node.
        sizes: number of nodes of each module.

    >>> overlaps([(0, 0), (0, 1), (1, 0)], {(0, 0): 2, (0, 1): 2, (1, 0): 5, (1, 1): 5}, {2: 2, 5: 2})
    {2: 0.6666666666666666, 5: 0.25}
    """
    given = list(members)
    shared = Counter(modules[node] for node in given if node in modules)
    return {module: n / (len(given) + sizes[module] - n) for module, n in shared.items()}


def preferred(labels: Sequence[LabelRow]) -> tuple[dict[tuple[str, int], str], dict[int, str]]:
    """Return the text to show of each node, by cut and coordinate, and of each module, where there is room for one.

    That of a person, else an imported one, else that of a command; of several commands the newest.
    """

    def rank(label: LabelRow) -> tuple[int, float]:
        return -_ORDER.index(label.source.partition(":")[0]), label.created.timestamp()

    best = {place_name(label): label for label in sorted(labels, key=rank) if label.text is not None}
    nodes = {(str(each.cut), int(each.node)): str(each.text) for each in best.values() if each.node is not None}
    return nodes, {each.module: str(each.text) for each in best.values() if each.module is not None}
