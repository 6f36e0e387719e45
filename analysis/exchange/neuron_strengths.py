"""Split the strength of an MLP between two cuts over its hidden units.

An MLP writes w = A h + b of its hidden values h, whatever makes them (of a gated MLP they are the products of both
branches): a path through it passes one unit n of h. With J' the Jacobian of all components together, as in
`component_strengths`,

    J_n,tj,si = sum_u dy_tj/dh_un dh_un/dx_si,    sum_n J_n = J_c,
    along_n = sum_ji E[sum_ts J_n,tj,si J'_tj,si] Lambda_i = sum_j E[sum_tu dy_tj/dh_un (D_v h)_un],

summed over the edges j, i inside a module, or into it from others; D_v h is the derivative of h along v_si =
J'_tj,si Lambda_i, 0 where the edge is not asked for. So one forward derivative for each backward pass gives the shares
of all units. Forward derivatives are those of the backward pass by what is pulled back, which is linear in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checkpoints.components import Component, Part
from ..derivatives import batched_gradients
from ..devices.device import summed
from ..errors import CutError
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..network.cuts import Place
from ..notebook.tables import Columns, data_frame
from ..results import by_value

__all__ = ["NeuronStrengths", "NeuronSums"]

_TOLERANCE = 1e-3  # of the sum over units; models of float64 weights may normalise in float32


@by_value
@dataclass(frozen=True)
class NeuronStrengths:
    """What the hidden units of each MLP add to the squared strengths, per pair of cuts.

    Attributes:
        listed: how many units of each module and pair of cuts are listed.
        partition: of the graph; None for one module of all nodes.
        pairs: names of the earlier and the later cut of each pair.
        layers: per pair the layers of its MLPs.
        places: where the hidden values of an MLP are, by its layer, as cuts are named.
        inside: per pair and MLP what each unit adds to w'^2 inside each module, (modules, units); the sum over units
            is that of the MLP.
        entering: the same for edges into each module from others.
        totals: per pair w'^2 of the edges inside each module and of those into it, (2, modules).
    """

    listed: int
    partition: Partition | None
    pairs: tuple[tuple[str, str], ...]
    layers: tuple[tuple[int, ...], ...]
    places: Mapping[int, str]
    inside: tuple[tuple[Float[np.ndarray, "modules _"], ...], ...]
    entering: tuple[tuple[Float[np.ndarray, "modules _"], ...], ...]
    totals: tuple[Float[np.ndarray, "2 modules"], ...]

    def columns(self) -> Columns:
        """Return a row per pair of cuts, module and neuron, those of the largest shares first; see `to_frame`."""
        rows: list[tuple[Any, ...]] = []
        for p, ends in enumerate(self.pairs):
            if not self.layers[p]:
                continue
            units = [
                (m, n) for m, part in zip(self.layers[p], self.inside[p], strict=True) for n in range(part.shape[1])
            ]
            inside = _shares(np.concatenate(self.inside[p], 1), self.totals[p][0])
            entering = _shares(np.concatenate(self.entering[p], 1), self.totals[p][1])
            for module, (shares, across) in enumerate(zip(inside, entering, strict=True)):
                for unit in np.argsort(-np.abs(shares), kind="stable")[: self.listed]:
                    layer, n = units[unit]
                    names = f"m{layer}", n, self.places[layer], f"blocks.{layer}.mlp.hook_post[{n}]"
                    rows.append((*ends, module, *names, float(shares[unit]), float(across[unit])))
        named = ("cut", "next_cut", "module", "component", "neuron", "place", "transformer_lens", "share", "across")
        found = {name: tuple(row[i] for row in rows) for i, name in enumerate(named)}
        of_modules = ("module", "across")
        return {name: column for name, column in found.items() if self.partition is not None or name not in of_modules}

    def to_frame(self) -> Any:
        """Convert to a pandas data frame: a row per pair of cuts, module and listed neuron.

        Its columns: cut, next_cut, module, component, neuron (counted from 0), place (of the hidden values),
        transformer_lens (their name there), share (of the squared strengths inside the module), across (of those from
        other modules into this one); module and across with a partition.

        Raises:
            InputError: pandas is not installed.
        """
        return data_frame(self.columns())


class Ahead(NamedTuple):
    """Forward derivatives of the hidden values between two cuts: `pulled` is linear in `free`.

    Attributes:
        values: the hidden values, by the layer of their MLP.
        free: what is pulled back from each.
        pulled: what arrives at the coordinates of the earlier cut.
    """

    values: dict[int, Tensor]
    free: dict[int, Tensor]
    pulled: Float[Tensor, "batch _ k"]

    def along(self, directions: Float[Tensor, "v batch _ k"]) -> list[Tensor | None]:
        """Compute the derivatives of the hidden values along directions of the earlier cut.

        Raises:
            CutError: the backward pass of the model has no derivative.
        """
        if not self.pulled.requires_grad:
            return [None] * len(self.free)
        try:
            return batched_gradients(self.pulled, list(self.free.values()), directions)
        except RuntimeError as error:
            raise CutError(
                f"neurons need the derivative of a backward pass that has none ({error}): load the model with "
                'attn_implementation="eager"'
            ) from error


class NeuronSums:
    """Sums over batches of what each unit adds.

    Raises:
        CutError: an MLP without hidden values.
    """

    def __init__(
        self,
        graph: InteractionGraph,
        partition: Partition | None,
        items: Sequence[Component],
        *,
        listed: int,
        device: torch.device,
    ) -> None:
        self.graph, self.partition, self.listed, self.at = graph, partition, listed, device
        self.hidden: dict[int, Part] = {}
        for item in items:
            if item.head is None:
                if item.hidden is None:
                    raise CutError(f"{item.name} has no hidden values between linear layers, hence no neurons")
                self.hidden[item.layer] = item.hidden
        labels = [np.zeros(k, dtype=np.int64) for k in graph.widths] if partition is None else partition.labels
        self.labels = [torch.from_numpy(label).to(device) for label in labels]
        self.modules = 1 if partition is None else partition.n_modules
        self.sums: list[dict[int, Tensor]] = []
        self.tolerance = _TOLERANCE

    def ahead(
        self,
        pair: int,
        layers: Sequence[int],
        written: Mapping[Place, Tensor],
        pull: Callable[[Tensor, Tensor], Float[Tensor, "batch _ k"]],
    ) -> Ahead | None:
        """Prepare the forward derivatives of one batch between two cuts; None where there is no MLP.

        Args:
            pair: number of the pair of cuts.
            layers: of the MLPs between them.
            written: the tensors at places, with their graph.
            pull: pulls a cotangent of a tensor back to the coordinates of the earlier cut, with its graph.
        """
        values = {layer: written[self.hidden[layer].place] for layer in layers}
        if len(self.sums) == pair:
            sizes = {layer: self.hidden[layer].of(value).shape[-1] for layer, value in values.items()}
            zeros = torch.zeros(2, self.modules, sum(sizes.values()), dtype=torch.float64, device=self.at)
            self.sums.append(dict(zip(sizes, zeros.split(list(sizes.values()), -1), strict=True)))
        if not values:
            return None
        self.tolerance = max(self.tolerance, *(torch.finfo(value.dtype).eps ** 0.5 for value in values.values()))
        free = {layer: torch.zeros_like(value, requires_grad=True) for layer, value in values.items()}
        return Ahead(values, free, torch.stack([pull(values[layer], u) for layer, u in free.items()]).sum(0))

    def add(
        self,
        pair: int,
        ahead: Ahead,
        rows: Int[Tensor, " v"],
        together: Float[Tensor, "v batch _ k"],
        slopes: Mapping[int, tuple[Tensor, Tensor]],
    ) -> None:
        """Add a block of rows of the later cut.

        Args:
            pair: number of the pair of cuts.
            ahead: the forward derivatives of this batch.
            rows: the coordinates of the later cut.
            together: rows of J' Lambda, times what each counts.
            slopes: by layer the output of the MLP, and what is pulled back to it.
        """
        back = [batched_gradients(slopes[layer][0], [v], slopes[layer][1])[0] for layer, v in ahead.values.items()]
        earlier, later = self.labels[pair][None], self.labels[pair + 1][rows][:, None]
        inside = (earlier == later) & (later >= 0)
        for kind, mask in enumerate((inside, (earlier >= 0) & (later >= 0) & ~inside)):
            if not bool(mask.any()):
                continue
            changes = ahead.along(together * mask[:, None, None])
            for layer, slope, change in zip(ahead.free, back, changes, strict=True):
                if slope is not None and change is not None:
                    found = self.hidden[layer].of((summed(slope) * summed(change)).flatten(1, -2).sum(1))
                    self.sums[pair][layer][kind].index_add_(0, later[:, 0].clamp(min=0), found)

    def result(
        self,
        n: int,
        names: Sequence[Sequence[str]],
        inside: Sequence[Float[np.ndarray, "modules components"]],
        entering: Sequence[Float[np.ndarray, "modules components"]],
    ) -> NeuronStrengths:
        """Return the means.

        Args:
            n: number of data points.
            names: per pair of cuts the components.
            inside: per pair what each component adds inside each module.
            entering: per pair what each adds into each module from others.

        Raises:
            CutError: the units of an MLP do not add up to it.
        """
        means = [{layer: part.cpu().numpy() / n for layer, part in parts.items()} for parts in self.sums]
        for p, parts in enumerate(means):
            for layer, part in parts.items():
                column = names[p].index(f"m{layer}")
                expected = np.stack([inside[p][:, column], entering[p][:, column]])
                found, size = part.sum(-1), np.abs(part).sum(-1)
                if (np.abs(found - expected) > self.tolerance * (size + np.abs(expected))).any():
                    raise CutError(
                        f"the values at {self.hidden[layer].name!r} add {found.sum():.4g} to the strengths, and "
                        f"m{layer} {expected.sum():.4g}: expected the input of its last linear map"
                    )
        cuts = self.graph.cuts
        return NeuronStrengths(
            self.listed,
            self.partition,
            tuple((cuts[a], cuts[b]) for a, b in self.graph.pairs),
            tuple(tuple(parts) for parts in means),
            {layer: part.name for layer, part in self.hidden.items()},
            tuple(tuple(part[0] for part in parts.values()) for parts in means),
            tuple(tuple(part[1] for part in parts.values()) for parts in means),
            tuple(np.stack([a.sum(1), b.sum(1)]) for a, b in zip(inside, entering, strict=True)),
        )


def _shares(parts: Float[np.ndarray, "modules units"], totals: Float[np.ndarray, " modules"]) -> np.ndarray:
    """Divide by the totals, NaN where these are 0."""
    whole = np.broadcast_to(totals[:, None], parts.shape)
    return np.asarray(np.divide(parts, whole, out=np.full_like(parts, np.nan), where=whole != 0))
