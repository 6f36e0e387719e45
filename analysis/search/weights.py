"""A graph with the values and prices of an objective, in the form that the optimisers use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..compiled import compiled
from ..results import by_value

__all__ = ["Weights", "compact", "contracted", "value"]


@by_value
@dataclass(frozen=True)
class Weights:
    """A weighted graph on flat nodes, with the priced values.

    Attributes:
        start, neighbour, weight: rows of the symmetric matrix of weights (each edge stored from both its ends).
        added_start, added_slot, added: rows of what a node adds to the totals of its module, by slot.
        charged_start, charged_slot, charged: rows of what a node is charged per unit of a total, resolution included;
            slots ascend in both.
        slots: number of slots.
        size: per node the size that counts towards the largest size of a module.
        pin: 1 for nodes of which no two may share a module, else 0.
        inside: total weight inside the nodes of an aggregated graph.
    """

    start: np.ndarray
    neighbour: np.ndarray
    weight: np.ndarray
    added_start: np.ndarray
    added_slot: np.ndarray
    added: np.ndarray
    charged_start: np.ndarray
    charged_slot: np.ndarray
    charged: np.ndarray
    size: np.ndarray
    pin: np.ndarray
    slots: int = 0
    inside: float = 0.0

    @property
    def n(self) -> int:
        """The number of nodes."""
        return len(self.size)

    @cached_property
    def arrays(self) -> tuple[Any, ...]:
        """All arrays."""
        return tuple(getattr(self, name) for name in list(Weights.__dataclass_fields__)[:-2])

    @cached_property
    def tolerance(self) -> float:
        """The largest change of Q that counts as rounding."""
        return 1e-10 * float(self.weight.max(initial=0.0))


def value(graph: Weights, labels: np.ndarray) -> float:
    """Compute Q of the labels, integers in [0, n)."""
    totals = np.zeros((graph.n, graph.slots))
    return graph.inside + float(_value(*graph.arrays[:9], totals=totals, labels=labels.astype(np.int64)))


def compact(labels: np.ndarray) -> tuple[int, np.ndarray]:
    """Renumber labels 0, 1, ... in order of appearance."""
    compact = np.empty_like(labels)
    return int(_relabel(labels, compact)), compact


def contracted(graph: Weights, parts: np.ndarray, n_parts: int) -> Weights:
    """Build the graph whose nodes are the parts."""
    start, neighbour, weight, inside = _merge_rows(graph.start, graph.neighbour, graph.weight, parts, n_parts)
    added_start, added_slot, added = _merge_values(
        graph.added_start, graph.added_slot, graph.added, parts, n_parts, graph.slots
    )
    charged_start, charged_slot, charged = _merge_values(
        graph.charged_start, graph.charged_slot, graph.charged, parts, n_parts, graph.slots
    )
    size = np.bincount(parts, weights=graph.size, minlength=n_parts).astype(np.int64)
    pin = np.bincount(parts, weights=graph.pin, minlength=n_parts).astype(np.int64)
    return replace(
        graph,
        start=start,
        neighbour=neighbour,
        weight=weight,
        added_start=added_start,
        added_slot=added_slot,
        added=added,
        charged_start=charged_start,
        charged_slot=charged_slot,
        charged=charged,
        size=size,
        pin=pin,
        inside=graph.inside + float(inside),
    )


@compiled
def _relabel(labels: np.ndarray, compact: np.ndarray) -> int:
    new = np.full(len(labels), -1, dtype=np.int64)
    count = 0
    for i in range(len(labels)):
        if new[labels[i]] < 0:
            new[labels[i]] = count
            count += 1
        compact[i] = new[labels[i]]
    return count


@compiled
def _add(start: np.ndarray, slot: np.ndarray, added: np.ndarray, totals: np.ndarray, labels: np.ndarray) -> None:
    """Add what every node adds to the totals (module, slot) of its module, in place."""
    for i in range(len(labels)):
        for k in range(start[i], start[i + 1]):
            totals[labels[i], slot[k]] += added[k]


@compiled
def _value(
    start: np.ndarray,
    neighbour: np.ndarray,
    weight: np.ndarray,
    added_start: np.ndarray,
    added_slot: np.ndarray,
    added: np.ndarray,
    charged_start: np.ndarray,
    charged_slot: np.ndarray,
    charged: np.ndarray,
    totals: np.ndarray,
    labels: np.ndarray,
) -> float:
    twice = 0.0
    for i in range(len(labels)):
        for k in range(start[i], start[i + 1]):
            if labels[neighbour[k]] == labels[i]:
                twice += weight[k]
    _add(added_start, added_slot, added, totals, labels)
    for i in range(len(labels)):
        for k in range(charged_start[i], charged_start[i + 1]):
            twice -= charged[k] * totals[labels[i], charged_slot[k]]
    return 0.5 * twice


@compiled
def _merge_rows(
    start: np.ndarray, neighbour: np.ndarray, weight: np.ndarray, parts: np.ndarray, n_parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    n = len(parts)
    first = np.zeros(n_parts + 1, dtype=np.int64)
    for i in range(n):
        first[parts[i] + 1] += 1
    for c in range(n_parts):
        first[c + 1] += first[c]
    order, place = np.empty(n, dtype=np.int64), first.copy()
    for i in range(n):
        order[place[parts[i]]] = i
        place[parts[i]] += 1
    new_start = np.zeros(n_parts + 1, dtype=np.int64)
    seen = np.full(n_parts, -1, dtype=np.int64)
    for c in range(n_parts):
        entries = 0
        for m in range(first[c], first[c + 1]):
            for k in range(start[order[m]], start[order[m] + 1]):
                d = parts[neighbour[k]]
                if d != c and seen[d] != c:
                    seen[d] = c
                    entries += 1
        new_start[c + 1] = new_start[c] + entries
    new_neighbour = np.empty(new_start[n_parts], dtype=np.int32)
    new_weight = np.empty(new_start[n_parts])
    where = np.full(n_parts, -1, dtype=np.int64)
    inside = 0.0
    for c in range(n_parts):
        end = new_start[c]
        for m in range(first[c], first[c + 1]):
            for k in range(start[order[m]], start[order[m] + 1]):
                d = parts[neighbour[k]]
                if d == c:
                    inside += 0.5 * weight[k]
                elif where[d] < new_start[c]:
                    where[d] = end
                    new_neighbour[end] = d
                    new_weight[end] = weight[k]
                    end += 1
                else:
                    new_weight[where[d]] += weight[k]
    return new_start, new_neighbour, new_weight, inside


@compiled
def _merge_values(
    value_start: np.ndarray, slot: np.ndarray, value: np.ndarray, parts: np.ndarray, n_parts: int, n_slots: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    totals = np.zeros((n_parts, n_slots))
    _add(value_start, slot, value, totals, parts)
    new_start = np.zeros(n_parts + 1, dtype=np.int64)
    for c in range(n_parts):
        new_start[c + 1] = new_start[c]
        for s in range(n_slots):
            if totals[c, s] != 0.0:
                new_start[c + 1] += 1
    new_slot = np.empty(new_start[n_parts], dtype=np.int32)
    new_value = np.empty(new_start[n_parts])
    for c in range(n_parts):
        k = new_start[c]
        for s in range(n_slots):
            if totals[c, s] != 0.0:
                new_slot[k], new_value[k] = s, totals[c, s]
                k += 1
    return new_start, new_slot, new_value
