"""The neighbours of nodes in the graph with the signs of their interactions, and what nodes read of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ..basis.bases import Bases
from ..edges import strength_line
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..network.batches import Batch
from ..network.network import Network
from .effects import Influences, influences
from .passes import Sources

__all__ = ["LEAST", "Surroundings"]

LEAST = 0.01  # of the largest weight, below which a feature or an output is not listed

_SURE = 2  # standard errors by which a mean has a sign

_CERTAIN = 4  # standard deviations by which a correlation is above chance


class Surroundings:
    """Neighbours, signs and features of some nodes."""

    def __init__(
        self,
        net: Network,
        bases: Bases,
        graph: InteractionGraph,
        partition: Partition,
        *,
        batches: Sequence[Batch],
        nodes: Mapping[int, Sequence[int]],
        most: int,
        sources: Sources,
    ) -> None:
        """Find the strongest edges of the nodes, and compute their mean interactions.

        Args:
            net: the network.
            bases: bases of its cuts.
            graph: the graph.
            partition: its modules.
            batches: data points on which signs and features are measured; none leaves both out.
            nodes: by index of a cut the nodes.
            most: edges in each direction.
            sources: what was seen in the pass.
        """
        self._bases, self._graph, self._partition, self._sources = bases, graph, partition, sources
        self._edges = {(p, i): self._strongest(p, i, most) for p, own in nodes.items() for i in own}
        self._at_input = bool(batches) and _is_input(net, batches[0], sources)
        needed: dict[int, set[int]] = {p: set(own) for p, own in nodes.items()}
        for _, later in self._edges.values():
            for q, j, _ in later:
                needed.setdefault(q, set()).add(j)
        self._rows = {p: {j: row for row, j in enumerate(sorted(own))} for p, own in needed.items()}
        self._found: dict[int, Influences] = {}
        for p, rows in self._rows.items():
            earlier = [a for a, b in graph.pairs if b == p]
            if batches and (earlier or (self._at_input and p)):
                self._found[p] = influences(
                    net, bases, batches, cut=p, nodes=list(rows), earlier=earlier, features=self._at_input
                )

    def _strongest(
        self, p: int, i: int, most: int
    ) -> tuple[list[tuple[int, int, float]], list[tuple[int, int, float]]]:
        """Return the strongest edges in and out as (cut, node, strength)."""
        before, after = list[tuple[int, int, float]](), list[tuple[int, int, float]]()
        cutoffs = self._graph.cutoffs(self._partition.epsilons)
        for (a, b), block, cutoff in zip(self._graph.pairs, self._graph.blocks, cutoffs, strict=True):
            for here, other, side, found in ((b, a, "row", before), (a, b, "column", after)):
                if here == p:
                    line = strength_line(block, **{side: i})
                    order = np.argsort(-line, kind="stable")[:most]
                    found += [(other, int(j), float(line[j])) for j in order if line[j] > cutoff]
        return tuple(sorted(edges, key=lambda e: -e[2])[:most] for edges in (before, after))  # type: ignore[return-value]

    def neighbours(self, p: int, i: int) -> dict[str, list[dict[str, Any]]]:
        """Return the strongest edges of a node in and out: cut, node, module, strength, mean interaction and its sign.

        The sign is "+" or "-" where the mean is that by two standard errors, "" where it is not or was not computed.
        """
        before, after = self._edges[p, i]
        return {
            "in": [self._edge(a, j, w, self._mean(a, j, p, i)) for a, j, w in before],
            "out": [self._edge(b, j, w, self._mean(p, i, b, j)) for b, j, w in after],
        }

    def _edge(self, p: int, i: int, strength: float, mean: tuple[float, float] | None) -> dict[str, Any]:
        sign = ""
        if mean is not None and abs(mean[0]) > _SURE * mean[1]:
            sign = "+" if mean[0] > 0 else "-"
        return {
            "cut": self._graph.cuts[p],
            "node": i,
            "module": int(self._partition.labels[p][i]),
            "strength": strength,
            "sign": sign,
            "mean": None if mean is None else mean[0],
            "error": None if mean is None else mean[1],
        }

    def _mean(self, a: int, i: int, b: int, j: int) -> tuple[float, float] | None:
        """Return the mean interaction d f^_j / d f^_i and its standard error."""
        if b not in self._found or a not in self._found[b].earlier:
            return None
        mean, error = self._found[b].earlier[a]
        row = self._rows[b][j]
        found = float(mean[row, i]), float(error[row, i])
        return found if np.isfinite(found).all() else None

    def reads(self, p: int, i: int) -> dict[str, Any] | None:
        """Return which features of the inputs a node depends on; None where that is not known.

        Where the first cut is the input, by gradients: the weight of a feature is the mean change of the node when the
        feature rises by one standard deviation, its share that of the mean square. Elsewhere by the correlation over
        the sample, where it is above chance by four standard deviations.
        """
        if self._at_input:
            spread = self._feature_spread
            if p == 0:
                weights = self._bases[0].to_basis[i] * spread
                return self._listed("gradient", weights, weights**2)
            found = self._found.get(p)
            if found is None or found.features is None or found.energies is None:
                return None
            row = self._rows[p][i]
            weights = found.features[row].numpy() * spread
            return self._listed("gradient", weights, found.energies[row].numpy() * spread**2)
        inputs = self._sources.sampled_inputs()
        if inputs is None or self._sources.several(p):
            return None
        chosen, values = inputs
        own = self._sources.sampled_values(p, i)[chosen]
        correlation = _correlation(values, own)
        certain = np.where(np.abs(correlation) > _CERTAIN / np.sqrt(len(own)), correlation, 0.0)
        return self._listed("correlation", certain, certain**2)

    @cached_property
    def _feature_spread(self) -> Float[np.ndarray, " d"]:
        """Compute the standard deviation of each feature over the sample."""
        coordinates = self._sources.seen.cuts[0].values.numpy()
        return np.asarray((self._bases[0].from_basis @ coordinates).std(1))

    def _listed(
        self, by: str, weights: Float[np.ndarray, " d"], energies: Float[np.ndarray, " d"]
    ) -> dict[str, Any] | None:
        whole = float(energies.sum())
        wording = self._sources.wording
        if not whole > 0 or len(weights) != len(wording.features):
            return None
        shares = energies / whole
        order = [j for j in np.argsort(-shares, kind="stable")[:8].tolist() if shares[j] >= LEAST * shares.max()]
        groups: dict[str, float] = {}
        for group, share in zip(wording.groups or (), shares.tolist(), strict=False):
            groups[group] = groups.get(group, 0.0) + share
        return {
            "by": by,
            "features": [
                {"feature": j, "name": wording.features[j], "weight": float(weights[j]), "share": float(shares[j])}
                for j in order
            ],
            "groups": [{"name": name, "share": share} for name, share in groups.items()],
            "picture": [float(f"{w:.4g}") for w in weights.tolist()] if wording.image_shape is not None else None,
        }

    def direction(self, i: int, step: float) -> dict[str, Any] | None:
        """Return how the inputs change along a node of the first cut, by one standard deviation of it."""
        if not self._at_input:
            return None
        column = self._bases[0].from_basis[:, i] * step
        return self._listed("direction", column, column**2)

    @property
    def at_input(self) -> bool:
        """Whether the first cut is the input."""
        return self._at_input


def _is_input(net: Network, batch: Batch, sources: Sources) -> bool:
    """Return whether the activations at the first cut are the inputs that cards show."""
    shown = sources.shown(batch)
    with torch.no_grad():
        value = net.trace(batch).values[0]
    if shown is None or value.shape[1] != 1 or not shown.is_floating_point():
        return False
    flat = shown.reshape(len(shown), -1).to(value)
    return flat.shape == value[:, 0].shape and torch.equal(flat, value[:, 0])


def _correlation(columns: Float[np.ndarray, "n d"], values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " d"]:
    """Compute the correlation of each column with some values; 0 where one of them is constant."""
    x, y = columns - columns.mean(0), values - values.mean()
    norm = np.sqrt((x**2).sum(0) * (y**2).sum())
    return np.asarray(np.divide(y @ x, norm, out=np.zeros(x.shape[1]), where=norm > 1e-12))
