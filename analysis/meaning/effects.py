"""What moving a node does to the outputs, and what moves it: Jacobians and exact changes on a sample of data points.

A node is moved at all positions of a data point that count, and an output is its mean over the positions of the output
that count. So the slope of output o along node i is

    J_oi(x) = mean_t sum_s d f_o,t / d f^_i,s

and the exact change is that of the mean output when f^_i is raised, or lowered, everywhere by one standard deviation.
The two agree where the rest of the network is linear. Of logits (behavioural loss "kl") the mean over outputs is taken
out, since softmax does not see it. Standard errors are those of means over data points.

Where a cut belongs to the residual stream, the unembedding W_U reads it: W_U C^+_i are the changes of the logits when
f^_i rises by one, as if nothing came after (the logit lens; a norm before the unembedding is left out). The embedding
W_E writes it: C W_E are the values of f^_i that each token writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..basis.bases import Bases
from ..derivatives import batched_gradients
from ..devices.device import summed
from ..network.batches import Batch, batch_size, take_points
from ..network.forward import Trace
from ..network.masks import Counted
from ..network.network import Network
from ..results import by_value

__all__ = ["Effect", "Effects", "Influences", "Lens", "Means", "find_lens", "influences", "lens_of", "top_outputs"]

_BLOCK = 2**21  # numbers in one block of outputs, or of gradients

_TOGETHER = 64  # nodes whose effects are measured together


class Means:
    """Means of rows over data points and their standard errors; batches merge exactly (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.n = 0
        self._mean = self._scatter = torch.zeros(0, device="cpu")

    def add(self, values: Float[Tensor, "n ..."]) -> None:
        """Take data points into account."""
        rows = values.detach().to("cpu", torch.float64)
        mean = rows.mean(0)
        scatter = (rows - mean).square().sum(0)
        if not self.n:
            self.n, self._mean, self._scatter = len(rows), mean, scatter
            return
        n, shift = self.n + len(rows), mean - self._mean
        self._scatter = self._scatter + scatter + shift.square() * (self.n * len(rows) / n)
        self._mean = self._mean + shift * (len(rows) / n)
        self.n = n

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self._mean

    @property
    def error(self) -> Tensor:
        """The standard error of the mean; NaN for one data point."""
        if self.n < 2:
            return torch.full_like(self._scatter, torch.nan)
        return (self._scatter / ((self.n - 1) * self.n)).sqrt()

    @property
    def mean_square(self) -> Tensor:
        """The mean of the squares."""
        return self._mean.square() + self._scatter / self.n


class _Rows:
    """Means of rows of Jacobians, block after block, so that memory holds one block for all data points at a time."""

    def __init__(self) -> None:
        self.blocks: dict[int, Means] = {}

    def add(self, start: int, rows: Float[Tensor, "v n k"]) -> None:
        """Take the rows from `start` on into account, for some data points."""
        self.blocks.setdefault(start, Means()).add(rows.movedim(1, 0))

    def _all(self, name: str) -> Float[Tensor, "rows k"]:
        return torch.cat([getattr(self.blocks[start], name) for start in sorted(self.blocks)])

    @property
    def mean(self) -> Float[Tensor, "rows k"]:
        """The means."""
        return self._all("mean")

    @property
    def error(self) -> Float[Tensor, "rows k"]:
        """Their standard errors."""
        return self._all("error")

    @property
    def mean_square(self) -> Float[Tensor, "rows k"]:
        """The means of the squares."""
        return self._all("mean_square")


@by_value
@dataclass(frozen=True)
class Effect:
    """The effect of one node on each output (outputs,), with standard errors.

    Attributes:
        slope, slope_error: mean Jacobian; None where the network cannot be differentiated twice.
        up, up_error: mean change of the output when the node is raised by one standard deviation.
        down, down_error: the same when it is lowered.
    """

    slope: Float[Tensor, " o"] | None
    slope_error: Float[Tensor, " o"] | None
    up: Float[Tensor, " o"]
    up_error: Float[Tensor, " o"]
    down: Float[Tensor, " o"]
    down_error: Float[Tensor, " o"]


class Effects:
    """Effects of nodes on the outputs of a network, on some data points."""

    def __init__(
        self, net: Network, bases: Bases, batches: Sequence[Batch], *, steps: Mapping[int, Mapping[int, float]]
    ) -> None:
        """Set up the data points and, where there are fewer outputs than nodes, compute all Jacobians.

        Args:
            net: the network.
            bases: bases of its cuts.
            batches: the data points.
            steps: by cut and node how far it is moved for the exact changes: its standard deviation.
        """
        self.net, self.bases, self._steps = net, bases, steps
        self._size = 0
        self.parts: list[Batch] = []
        self._found: dict[tuple[int, int], Effect] = {}
        for batch in batches:
            with torch.no_grad():
                output = net.output(take_points(batch, torch.arange(1, device="cpu")))
            size = max(1, _BLOCK // output.numel())
            n = batch_size(batch)
            self.parts += [take_points(batch, slice(a, a + size)) for a in range(0, n, size)]
        few = output.shape[-1] <= sum(map(len, steps.values()))
        self._slopes = self._by_outputs() if few else None

    def of(self, cut: int, node: int) -> Effect:
        """Return the effect of one node; it is measured together with those that follow at its cut."""
        if (cut, node) not in self._found:
            left = [i for i in self._steps[cut] if (cut, i) not in self._found]
            self._found |= self._measured(cut, left[left.index(node) :][:_TOGETHER])
        return self._found.pop((cut, node))

    def _measured(self, cut: int, nodes: list[int]) -> dict[tuple[int, int], Effect]:
        """Measure the effects of some nodes of a cut."""
        directions = torch.from_numpy(self.bases[cut].from_basis.T[nodes])
        steps = torch.tensor([self._steps[cut][i] for i in nodes], dtype=torch.float64, device="cpu")
        slopes, up, down = Means(), Means(), Means()
        known = self._slopes is not None
        for part in self.parts:
            with torch.no_grad():
                trace = self.net.trace(part)
                shifts = steps[:, None] * directions
                up.add(self._moved(part, trace, cut, shifts))
                down.add(self._moved(part, trace, cut, -shifts))
            along = None if known else self._along(part, cut, directions)
            known = known or along is None
            if along is not None:
                slopes.add(along)
        found = (slopes.mean, slopes.error) if slopes.n == up.n else None  # else it cannot be differentiated twice
        if self._slopes is not None:
            found = self._slopes[cut][0][nodes], self._slopes[cut][1][nodes]
        exact = (up.mean, up.error, down.mean, down.error)
        return {
            (cut, i): Effect(*((found[0][r], found[1][r]) if found else (None, None)), *(table[r] for table in exact))
            for r, i in enumerate(nodes)
        }

    def _centred(self, outputs: Tensor) -> Tensor:
        return outputs - outputs.mean(-1, keepdim=True) if self.net.loss == "kl" else outputs

    def _mean_output(self, output: Float[Tensor, "n positions o"], counted: Counted) -> Float[Tensor, "n o"]:
        """Compute the mean over the positions that count, of logits without their mean over outputs."""
        values = summed(output)
        if counted.mask is None:
            return self._centred(values.mean(-2)).cpu()
        weights = counted.mask.to(values)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1)
        return self._centred((weights[..., None, :] @ values).squeeze(-2)).cpu()

    def _moved(self, batch: Batch, trace: Trace, cut: int, shifts: Float[Tensor, "m d"]) -> Float[Tensor, "n m o"]:
        """Compute the change of the mean output for each shift of all counted positions of a cut, several at once."""
        before = self._mean_output(trace.output, trace.output_counted)
        n, largest = len(before), max(value.numel() for value in (trace.output, *trace.values))
        many = max(1, _BLOCK // largest)
        found = []
        for start in range(0, len(shifts), many):
            some = shifts[start : start + many].to(trace.values[cut])
            rows = torch.arange(n, device="cpu").repeat(len(some))
            entries = _shifted(trace.entries[cut], trace.counted[cut], some)
            moved = self.net.trace(take_points(batch, rows), replace={cut: entries})
            after = self._mean_output(moved.output, moved.output_counted)
            found.append(after.unflatten(0, (len(some), n)) - before)
        return torch.cat(found).movedim(0, 1)

    def _by_outputs(self) -> list[tuple[Tensor, Tensor]]:
        """Compute mean Jacobians of all nodes, with one backward pass per output."""
        sums = [_Rows() for _ in self.bases]
        columns = [torch.from_numpy(basis.from_basis) for basis in self.bases.bases]
        for part in self.parts:
            for trace, cuts in self.net.output_traces(part, range(len(sums))):
                for start, cotangents in self._output_blocks(trace):
                    back = self.net.vjps(trace, trace.output, cuts, cotangents)
                    for p, block in zip(cuts, back, strict=True):
                        sums[p].add(start, summed(block).sum(-2).cpu() @ columns[p])
        return [(rows.mean.T, rows.error.T) for rows in sums]

    def _output_blocks(self, trace: Trace) -> Iterator[tuple[int, Float[Tensor, "v n positions o"]]]:
        """Yield cotangents whose products are gradients of the mean of each output, with the number of the first."""
        output = trace.output.detach()
        n, positions, width = output.shape
        weights = output.new_ones(n, positions)
        if trace.output_counted.mask is not None:
            weights = trace.output_counted.mask.to(output)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        unit = self._centred(torch.eye(width, dtype=output.dtype, device=output.device))
        self._size = self._size or max(1, _BLOCK // output.numel())  # the same for all data points
        for start in range(0, width, self._size):
            yield start, weights[None, ..., None] * unit[start : start + self._size, None, None]

    def _along(self, batch: Batch, cut: int, directions: Float[Tensor, "m d"]) -> Float[Tensor, "n m o"] | None:
        """Compute J v for directions of a cut, each as the gradient of u -> u^T J v; None where there is none."""
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            trace = self.net.trace(batch, joined=True, start=cut)
            weights = torch.zeros_like(trace.output, requires_grad=True)
            try:
                back = torch.autograd.grad(trace.output, trace.entries[cut], weights, create_graph=True)
                rows = trace.counted[cut].read(torch.cat(list(back), -1))
                many = max(1, _BLOCK // trace.output.numel())
                found = []
                for some in directions.to(rows).split(many):
                    along = batched_gradients(rows, [weights], some[:, None, None].expand(-1, *rows.shape))[0]
                    if along is None:
                        return None
                    found += [self._mean_output(one, trace.output_counted) for one in along]
            except RuntimeError as error:
                if "not implemented" in str(error) or "does not require grad" in str(error):
                    return None
                raise
        return torch.stack(found, 1)


def _shifted(
    entries: Sequence[Float[Tensor, "n _ _"]], counted: Counted, shifts: Float[Tensor, "m d"]
) -> list[Float[Tensor, "_ _ _"]]:
    """Return the tensors at a cut once for each shift, one after the other, with the counted positions shifted."""
    m, n = len(shifts), len(entries[0])
    index = counted.index.repeat(m) if isinstance(counted.index, Tensor) else counted.index
    where = Counted(index, None if counted.mask is None else counted.mask.repeat(m, 1))
    parts = shifts.split([entry.shape[-1] for entry in entries], -1)
    found = []
    for entry, part in zip(entries, parts, strict=True):
        tiled = entry.repeat(m, 1, 1)
        found.append(where.write(tiled, where.read(tiled) + part.repeat_interleave(n, 0)[:, None]))
    return found


@by_value
@dataclass(frozen=True)
class Influences:
    """How the nodes of one cut depend on earlier ones.

    Attributes:
        earlier: by index of an earlier cut mean and standard error of d f^_j / d f^_i, each (later, earlier).
        features: signed mean gradient with respect to the activations of the first cut (later, features); None unless
            asked for.
        energies: the mean square of that gradient.
    """

    earlier: dict[int, tuple[Float[Tensor, "j i"], Float[Tensor, "j i"]]]
    features: Float[Tensor, "j d"] | None
    energies: Float[Tensor, "j d"] | None


def influences(
    net: Network,
    bases: Bases,
    batches: Sequence[Batch],
    *,
    cut: int,
    nodes: Sequence[int],
    earlier: Sequence[int],
    features: bool,
) -> Influences:
    """Compute the mean interactions of some nodes with those of earlier cuts, by one backward pass per node.

    As above, the earlier node is moved at all positions, and the later one is its mean over positions.

    Args:
        net: the network.
        bases: bases of its cuts.
        batches: some data points.
        cut: index of the later cut.
        nodes: the later nodes; the rows of what is returned.
        earlier: indices of the earlier cuts.
        features: whether to give gradients with respect to the features of the first cut.
    """
    wanted = sorted({*earlier, *([0] if features and cut else [])})
    sums = {p: _Rows() for p in wanted}
    columns = {p: torch.from_numpy(bases[p].from_basis) for p in wanted}
    own = _Rows()
    size = 0
    rows = torch.from_numpy(bases[cut].to_basis[list(nodes)])
    for batch in batches:
        for trace, served in net.output_traces(batch, wanted):
            size = size or max(1, _BLOCK // trace.values[cut].numel())  # the same for all data points
            for start in range(0, len(rows), size):
                cotangents = _mean_of_positions(trace, cut, rows[start : start + size])
                back = net.vjps(trace, trace.values[cut], served, cotangents)
                for p, block in zip(served, back, strict=True):
                    gradients = summed(block).sum(-2).cpu()
                    if p == 0 and features:
                        own.add(start, gradients)
                    sums[p].add(start, gradients @ columns[p])
    found = {p: (sums[p].mean, sums[p].error) for p in earlier}
    return Influences(found, *((own.mean, own.mean_square) if own.blocks else (None, None)))


def _mean_of_positions(trace: Trace, cut: int, rows: Float[Tensor, "v d"]) -> Float[Tensor, "v n positions d"]:
    """Return cotangents whose products are gradients of the mean of each row over the positions that count."""
    value = trace.values[cut].detach()
    mask = trace.counted[cut].mask
    weights = value.new_ones(value.shape[:2]) if mask is None else mask.to(value)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
    return weights[None, ..., None] * rows.to(value)[:, None, None]


@by_value
@dataclass(frozen=True)
class Lens:
    """The maps between tokens and the residual stream.

    Attributes:
        unembed: (tokens, width), without its mean over tokens, which softmax does not see.
        embed: (tokens, width), without its mean over tokens; None where there is none.
        cuts: the cuts that are the residual stream.
    """

    unembed: Float[Tensor, "tokens d"]
    embed: Float[Tensor, "tokens d"] | None
    cuts: tuple[str, ...]


def find_lens(net: Network) -> Lens | None:
    """Find embedding and unembedding of a model, and the cuts between them; None where there are none.

    Models of transformers name them (`get_output_embeddings`), and their residual stream is found, see
    `Network.streams`; of the family `modular_addition_transformer` the cuts are the stream after each stage.
    """
    model = net.model
    named = getattr(model, "get_output_embeddings", None)
    unembed = getattr(named(), "weight", None) if callable(named) else None
    if isinstance(unembed, Tensor):
        inputs = getattr(model, "get_input_embeddings", None)
        embed = getattr(inputs(), "weight", None) if callable(inputs) else None
        cuts = tuple(net.streams.values())
    else:
        stages = [name.partition(".")[0] for name in getattr(model, "residual_stream", ())]
        last = getattr(model, "unembed", None)
        weight = getattr(last, "w", None)
        if not (stages and isinstance(last, nn.Module) and isinstance(weight, Tensor)):
            return None
        unembed, embed = weight.T, getattr(getattr(model, "embed", None), "tok", None)
        cuts = tuple(cut for cut in net.cuts if cut in stages)
    width = unembed.shape[1]
    cuts = tuple(cut for cut in cuts if net.widths[net.cuts.index(cut)] == width)
    fits = isinstance(embed, Tensor) and embed.ndim == 2 and embed.shape[1] == width
    return Lens(_centred(unembed), _centred(embed) if fits and embed is not None else None, cuts) if cuts else None


def lens_of(
    lens: Lens, to_basis: Float[np.ndarray, " d"], from_basis: Float[np.ndarray, " d"], *, step: float
) -> dict[str, Float[np.ndarray, " tokens"]]:
    """Compute the changes of logits for one step along a node, and what each token's embedding writes to it."""
    found = {"unembed": (lens.unembed @ torch.from_numpy(from_basis * step)).numpy()}
    if lens.embed is not None:
        found["embed"] = (lens.embed @ torch.from_numpy(to_basis.copy())).numpy()
    return found


def top_outputs(values: Float[np.ndarray, " outputs"], k: int, name: Any) -> dict[str, list[dict[str, Any]]]:
    """List the largest and the smallest values with their names.

    >>> top_outputs(np.array([0.5, -1.0, 2.0]), 1, str)["most"]
    [{'output': 2, 'name': '2', 'value': 2.0}]
    """
    order = np.argsort(-values, kind="stable")
    k = min(k, len(values) // 2 or 1)
    return {
        side: [{"output": int(o), "name": name(int(o)), "value": float(values[o])} for o in chosen]
        for side, chosen in (("most", order[:k]), ("least", order[::-1][:k]))
    }


def _centred(weight: Tensor) -> Float[Tensor, "tokens d"]:
    whole = weight.detach().to("cpu", torch.float64)
    return whole - whole.mean(0)
