"""Series of graphs that can be tracked: graphs of several checkpoints, computed in the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..records.checkpoints import CHECKPOINT, CheckpointRow, RunRow
from ..records.errors import NotFoundError
from ..records.graphs import GRAPH, GraphRow
from ..records.kinds import Source

__all__ = ["Series", "chosen_series", "described_series", "graph_series"]


@dataclass(frozen=True)
class Series:
    """Graphs of different checkpoints of a run, with the same recipe and data.

    Attributes:
        graphs: each with its checkpoint, by training step.
        key: position of the newest graph in the order of creation.
    """

    graphs: tuple[tuple[CheckpointRow, GraphRow], ...]
    key: int

    @property
    def name(self) -> str:
        """ID of the newest graph, which names the series."""
        return max((graph for _, graph in self.graphs), key=lambda graph: graph.created).id


def graph_series(source: Source, run: RunRow) -> list[Series]:
    """Return all series of a run: most checkpoints first; of equally long ones, newest graph first.

    Raises:
        NotFoundError: the run does not exist.
    """
    graphs = source.every(GRAPH, run=run.id)  # before the checkpoints, to which others may come meanwhile
    checkpoints = {row.id: row for row in source.every(CHECKPOINT, run=run.id)}
    found: dict[tuple[str, str], list[tuple[int, GraphRow]]] = {}
    for key, graph in enumerate(graphs):
        found.setdefault((graph.dataset, graph.recipe_hash), []).append((key, graph))
    series = [
        Series(tuple(sorted(((checkpoints[graph.checkpoint], graph) for _, graph in rows), key=_moment)), rows[-1][0])
        for rows in found.values()
    ]
    return sorted(series, key=lambda each: (-len(each.graphs), -each.key))


def chosen_series(source: Source, run: RunRow, like: str | None = None) -> Series:
    """Choose the series to track: that of the graph `like`, else the first of `graph_series`.

    Raises:
        NotFoundError: the run or graph does not exist, or the series has fewer than two checkpoints.
    """
    name = repr(run.model if run.number == 1 else f"{run.model}#{run.number}")
    series = graph_series(source, run)
    if like is not None:
        wanted = source.get_graph(like)
        series = [each for each in series if any(graph.id == wanted.id for _, graph in each.graphs)]
        if not series:
            raise NotFoundError(f"{wanted.id} is a graph of another run of {wanted.model!r}, not of {name}")
    if not series or len(series[0].graphs) < 2:
        what = f"like {like}" if like is not None else "with the same recipe and data"
        count = len(series[0].graphs) if series else 0
        has = "1 checkpoint of {} has a graph" if count == 1 else f"{count} checkpoints of {{}} have graphs"
        raise NotFoundError(
            f"{has.format(name)} {what}: tracking needs two; analyze more of them in the same way first"
        )
    return series[0]


def described_series(source: Source, run: RunRow, graphs: Sequence[str]) -> str:
    """Say which series a tracking of these graphs followed, and how to choose another; "" without another."""
    series = graph_series(source, run)
    taken = [each for each in series if any(graph.id in graphs for _, graph in each.graphs)]
    others = [each for each in series if each not in taken]
    if not taken or not others:
        return ""
    lines = [f"followed: {_line(taken[0], series)}"]
    lines += [f"--like {each.name}: {_line(each, series)}" for each in others]
    return "\n".join(lines)


def _line(one: Series, series: Sequence[Series]) -> str:
    """Describe a series: its number of checkpoints, and how its recipe differs from the others."""
    ways, mine, differs = [_way(each) for each in series], _way(one), []
    for name in dict.fromkeys(name for way in ways for name in way):
        value = mine.get(name)
        if any(way.get(name) != value for way in ways):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            differs.append(f"{name} {'default' if value is None else shown}")
    count = len(one.graphs)
    return f"{count} checkpoint{'s' if count != 1 else ''} with {'; '.join(differs)}"


def _way(one: Series) -> dict[str, Any]:
    graph = one.graphs[0][1]
    return {**graph.recipe, "data": graph.dataset}


def _moment(pair: tuple[CheckpointRow, GraphRow]) -> tuple[float, Any]:
    step = pair[0].step
    return (math.inf if step is None else step), pair[0].created
