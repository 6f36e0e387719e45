"""What a reader of a graph has to know of its numbers: what was assumed, what limits the ranks, what was estimated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..edges import entries
from .interaction_graph import InteractionGraph

__all__ = ["graph_remarks"]


def graph_remarks(graph: InteractionGraph, epsilons: Sequence[float]) -> tuple[str, ...]:
    """Return sentences on how far the numbers of a graph hold; none where everything is exact and data are many.

    Estimated strengths come with the median of their relative standard errors, over the edges w > sqrt(epsilon) of each
    pair of cuts; the largest of these medians is said.

    Args:
        graph: the graph.
        epsilons: the loss scale of each pair of cuts; math.md 4.

    >>> exact = InteractionGraph.from_blocks([np.ones((2, 2))])
    >>> graph_remarks(exact, [0.01])
    ()
    """
    return tuple(_sentences(graph, epsilons))


def _sentences(graph: InteractionGraph, epsilons: Sequence[float]) -> Iterator[str]:
    settings: Any = graph.settings
    yield from settings.get("remarks", ())
    limited = settings.get("rank_limited", {})
    if cuts := limited.get("data"):
        yield (
            f"Few data: at {', '.join(cuts)} there are no more points than features, so that directions are "
            "missing that more data would show."
        )
    if cuts := limited.get("format"):
        yield (
            f"At {', '.join(cuts)} the number format limits the rank: directions below "
            f"{settings['rank_tolerance']:.1g} of the largest are rounding."
        )
    if (taken := settings.get("data_points")) is not None:
        error = settings["sampling_error"]
        tolerance = settings["tolerance"]
        few = error is None or error > tolerance
        known = "not known, as they are so few" if error is None else f"{error:.1%}"
        more = f", and not the {tolerance:.1%} asked for: give more data points" if few else ""
        yield (
            f"Jacobians were computed at {taken:,} data points. The standard error of the importance from their number "
            f"is {known}{more}."
        )
    if errors := list(_relative_errors(graph, epsilons)):
        known = settings.get("importance_error")
        probes = settings.get("probes") or settings["signs"]
        drawn = "1 random probe" if probes == 1 else f"{probes} random probes"
        of_importance = "" if known is None else f"{known:.1%} of the importance, and "
        yield (
            f"Estimated with {drawn} per data point: relative standard errors are "
            f"{of_importance}{max(errors):.1%} of the strengths (median)."
        )


def _relative_errors(graph: InteractionGraph, epsilons: Sequence[float]) -> Iterator[float]:
    """Yield the median relative standard error of the edges of each pair of cuts whose strengths are estimated."""
    for w, error, epsilon in zip(graph.blocks, graph.errors, epsilons, strict=False):
        later, earlier, strength = entries(w)
        if error is not None and (edges := strength**2 > epsilon).any():
            yield float(np.median((error[later, earlier] / strength)[edges]))
