"""A sparse representation that does not depend on the parametrisation (paper, section 4, eq. 23 to 28).

Layer by layer from the input, in coordinates f^ = C f of each layer's input:

(i)  rank(G) of the inputs are chosen as a basis, the others expressed through them, their coefficients folded into
     the weights, and their columns set to zero;
(ii) each block of synchronised units of the layer is multiplied by the (pseudo)inverse of its weights on as many of
     the kept inputs, so that the block is the identity there, and units that others express are zero.

C commutes with the activation, because all units of a block have the same firing pattern. The function on the data is
unchanged; weights that have an effect only off the data are stored separately, so that the original can be restored
exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.linalg import qr
from torch import Tensor, nn

from ..checkpoints.transformer import Affine
from ..checkpoints.weights import refuse_shared_memory
from ..errors import LayerError, NumericalError
from ..linalg import RowSpace
from ..network.batches import Batch, doubled, read_batches
from ..network.hooks import with_gradients
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback
from ..results import by_value
from .gradients import explained_layers
from .layer_trace import arranged, trace_layers
from .layers import Layer, layer_weight
from .synchronised_units import Activation, FiringPatterns, SynchronisedUnits, activations_between, check_scale

__all__ = ["SparseLayer", "SparseNetwork", "sparsify"]

_WELL_POSED = 1e-6  # pivots below this share of the largest count as zero

_DEVIATION = 1e-6  # largest relative change of the output; more means that the tolerance was too large


@by_value
@dataclass(frozen=True)
class SparseLayer:
    """One layer in its new coordinates: p^ = weight (f^, 1), with f^ = to_new f - shift of the layer before.

    Attributes:
        name: name of the layer.
        weight: (d_out, n_inputs), the bias as last column.
        to_new: C (d_out, d_out), block diagonal over synchronised units.
        shift: c (d_out,), zero outside blocks that are always on: p^ = C p - c and f^ = C f - c.
        off_data: the part of the weights that folding removed (d_out, n_inputs), in the coordinates of f and p; it maps
            all activations on the data to zero.
        kept: which inputs the layer reads, of the coordinates f^ and the constant unit.
        blocks: blocks of synchronised units that the layer writes.
        interactions: number of weights, biases (interactions with the constant unit) included.
        zeros: number of those that are zero.
        promised: least number of zeros by section 4: d_out for each lost rank of G, s_a (s_a - 1) for each block, s_a
            the rank of its weights on the data, and s_a more for a block that is always on.
    """

    name: str
    weight: Float[Tensor, "d_out n_inputs"]
    to_new: Float[Tensor, "d_out d_out"]
    shift: Float[Tensor, " d_out"]
    off_data: Float[Tensor, "d_out n_inputs"]
    kept: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...]
    interactions: int
    zeros: int
    promised: int


@dataclass(frozen=True)
class SparseNetwork:
    """All layers of a network in coordinates that make interactions vanish where degeneracy allows it.

    Attributes:
        layers: in order of computation.
        deviation: largest change of the output on the data, relative to the largest output.
        checked: whether the model passed the checks of `Network.check_once` before.
    """

    layers: tuple[SparseLayer, ...]
    deviation: float
    _network: Network
    _sources: tuple[int | None, ...]
    checked: bool = False

    @property
    def zeros(self) -> int:
        """The number of zero interactions."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def promised(self) -> int:
        """The least number of zero interactions by section 4."""
        return sum(layer.promised for layer in self.layers)

    @property
    def interactions(self) -> int:
        """The number of pairs of nodes that could interact."""
        return sum(layer.interactions for layer in self.layers)

    def __repr__(self) -> str:
        return (
            f"SparseNetwork({self.zeros:,} zero interactions in {len(self.layers)} layers, {self.promised:,} promised; "
            f"outputs change by {self.deviation:.1e})"
        )

    def network(self, *, original: bool = False) -> Network:
        """Rebuild the network from this representation: with the weights that act on the data, or the original ones."""
        model = deepcopy(self._network.model)
        for index in range(len(self.layers)):
            weight = self._weight(index)
            if original:
                weight = weight + self.layers[index].off_data
            _set_weight(model.get_submodule(self.layers[index].name), weight)
        return self._network.with_model(model)

    def _weight(self, index: int) -> Tensor:
        """Compute C^{-1} (weight into + shift), the weights in the original coordinates."""
        layer, source = self.layers[index], self._sources[index]
        weight = layer.weight.clone()
        if source is not None:
            weight = weight @ _into(self.layers[source], weight.shape[1])
        weight[:, -1] += layer.shift
        result: Tensor = torch.linalg.inv(layer.to_new) @ weight
        return result


@with_gradients()
@with_bar
def sparsify(
    net: Network, batches: Iterable[Batch], *, tolerance: float = 1e-10, progress: ProgressCallback | None = None
) -> SparseNetwork:
    """Choose coordinates of every layer of a dense network that make as many interactions vanish as degeneracy allows.

    Args:
        net: dense layers (torch.nn.Linear) with ReLU, leaky ReLU or no activation; units with another activation
            keep their coordinates.
        batches: re-iterable data.
        tolerance: singular values of activations below this share of the largest count as zero.
        progress: called after each batch.

    Raises:
        LayerError: layers that are not dense, or parameters used otherwise than by their layer.
        CutError: the model mixes data points, or is not a function of its parameters and the batch.
        NumericalError: the outputs changed by more than 1e-6 of the largest, because the tolerance is too large; with
            exact degeneracy they change by rounding (below 1e-9), see `deviation`.
        DataError: no data, or data that does not fit.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).double()
    >>> data = [torch.eye(2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)]
    >>> sparse = sparsify(Network(model, ["0:in", "1"]), data)
    >>> sparse.layers[0].weight[:, :2].round()  # a linear layer passes its inputs on
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64)
    """
    check_scale(None, tolerance)
    refuse_shared_memory(net.model)
    net.check_once(batches)
    checked = net.checked
    net, batches = net.in_double(), doubled(batches)
    layers = explained_layers(net, batches)
    _check_dense(net, layers)
    links = activations_between(net, layers, batches)
    spaces = [RowSpace(layer.n_inputs) for layer in layers]
    patterns = {link: FiringPatterns(layers[link.source].d_out, link.slope) for link in links}
    for batch in read_batches(batches, "activations", progress):
        trace = trace_layers(net, layers, batch, grad=False)
        for space, f in zip(spaces, trace.inputs, strict=True):
            space.add(f.flatten(0, 1))
        for link, found in patterns.items():
            found.add(arranged(trace.outputs[link.source], layers[link.source]).flatten(0, 1))
    sparse = _layer_by_layer(net, layers, links, spaces, patterns, tolerance)
    deviation = _deviation(net, sparse.network(), batches, progress)
    if deviation > _DEVIATION:
        raise NumericalError(
            f"the outputs change by {deviation:.1e} of the largest: with the tolerance {tolerance:g} activations count "
            "as of lower rank than they are; choose a smaller one"
        )
    return SparseNetwork(sparse.layers, deviation, net, sparse._sources, checked)


def _layer_by_layer(
    network: Network,
    layers: Sequence[Layer],
    links: Sequence[Activation],
    spaces: Sequence[RowSpace],
    patterns: dict[Activation, FiringPatterns],
    tolerance: float,
) -> SparseNetwork:
    writes = {link.source: link for link in links}
    sources: list[int | None] = [next((k.source for k in links if i in k.readers), None) for i in range(len(layers))]
    done: list[SparseLayer] = []
    for i, layer in enumerate(layers):
        original, factor = layer_weight(network, layer), spaces[i].factor()
        source = sources[i]
        into = _identity(layer.n_inputs) if source is None else _into(done[source], layer.n_inputs)
        folded, kept = _fold(original @ torch.linalg.inv(into), factor @ into.T, layer, tolerance)
        blocks: list[tuple[int, ...]] = []
        always: tuple[int, ...] = ()
        if i in writes:
            found = patterns[writes[i]].synchronised(layer.name, None, tolerance)
            blocks, always = _equal_patterns(found)
            if not layer.bias or not all(layers[r].bias for r in writes[i].readers):
                always = ()
        change, weight, ranks = _normalise(folded, kept, layer.d_in, blocks, always)
        shift = torch.zeros(layer.d_out, dtype=torch.float64, device="cpu")
        if always:
            shift[list(always)] = weight[list(always), -1]
            weight[list(always), -1] = 0.0
        promised = layer.d_out * (layer.n_inputs - len(kept)) + sum(s * (s - 1) for s in ranks)
        promised += sum(s for block, s in zip(blocks, ranks, strict=True) if block == always)
        done.append(
            SparseLayer(
                name=layer.name,
                weight=weight,
                to_new=change,
                shift=shift,
                off_data=original - folded @ into,
                kept=tuple(kept),
                blocks=tuple(blocks),
                interactions=layer.nominal,
                zeros=int((weight == 0).sum()),
                promised=promised,
            )
        )
    return SparseNetwork(tuple(done), 0.0, network, tuple(sources))


def _equal_patterns(found: SynchronisedUnits) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Group units into blocks of equal patterns, the block that is always on, and each dead unit by itself.

    Leaky units that are never on are separate from those that always are: their patterns are only proportional.
    """
    silent = set(found.silent)
    parts = [[tuple(u for u in block if (u in silent) == side) for side in (False, True)] for block in found.blocks]
    always = () if found.always_on is None else parts[found.always_on][0]
    return [part for pair in parts for part in pair if part] + [(unit,) for unit in found.dead], always


def _into(before: SparseLayer, n_inputs: int) -> Tensor:
    """Return the matrix that maps (f, 1) to (f^, 1); where shifts are, the reader has a constant unit."""
    d = len(before.to_new)
    into = _identity(n_inputs)
    into[:d, :d] = before.to_new
    if n_inputs > d:
        into[:d, -1] = -before.shift
    return into


def _fold(weight: Tensor, factor: Tensor, layer: Layer, tolerance: float) -> tuple[Tensor, list[int]]:
    """Express the weights on a basis of the inputs (the constant unit first), and return the indices of the basis."""
    scale = factor.norm(dim=0)
    used = torch.nonzero(scale > 1e-13 * scale.max())[:, 0].tolist()
    constant = [j for j in used if j >= layer.d_in]
    columns = (factor / scale.clamp_min(1e-300))[:, used].clone()
    lead = columns[:, [used.index(j) for j in constant]]
    rest = [j for j in used if j < layer.d_in]
    others = (factor / scale.clamp_min(1e-300))[:, rest]
    others = others - lead @ (lead.T @ others)
    order: list[int] = []
    if rest:
        _, r, pivots = qr(others.numpy(), mode="economic", pivoting=True)
        largest = float(torch.linalg.svdvals(columns)[0])
        rank = int((abs(r.diagonal()) > tolerance * largest).sum())
        order = sorted(rest[p] for p in pivots[:rank])
    kept = order + constant
    lost = [j for j in range(len(scale)) if j not in set(kept)]
    folded = torch.zeros_like(weight)
    folded[:, kept] = weight[:, kept]
    if lost and kept:
        # columns are scaled on both sides: these are the coefficients of f_lost = f_kept c on the data
        basis, target = factor[:, kept] / scale[kept], factor[:, lost]
        coefficients = torch.linalg.lstsq(basis, target, driver="gelsd").solution / scale[kept][:, None]
        folded[:, kept] += weight[:, lost] @ coefficients.T
    return folded, kept


def _normalise(
    weight: Tensor, kept: Sequence[int], d_in: int, blocks: Sequence[Sequence[int]], always: Sequence[int]
) -> tuple[Tensor, Tensor, list[int]]:
    """Compute C, C weight and the rank of each block's weights: identity on pivot inputs, zero rows for other units."""
    change, result, ranks = _identity(len(weight)), weight.clone(), []
    for units in blocks:
        block = list(units)
        inputs = [j for j in kept if j < d_in or units != always]  # the shift holds the biases of that block
        rows, s = _pivot_rows(weight[block][:, inputs])
        ranks.append(s)
        if not s:
            continue
        lead, others = sorted(block[j] for j in rows[:s]), [block[j] for j in rows[s:]]
        top = weight[lead][:, inputs]
        pivots = sorted(inputs[j] for j in qr(top.numpy(), mode="r", pivoting=True)[1][:s])
        inverse = torch.linalg.inv(weight[lead][:, pivots])
        change[lead] = 0.0
        for row, unit in enumerate(lead):
            change[unit, lead] = inverse[row]
        result[lead] = inverse @ weight[lead]
        for row, unit in enumerate(lead):
            result[unit, pivots] = 0.0
            result[unit, pivots[row]] = 1.0
        if others:
            _reduce_rows(change, result, weight, lead, others, inputs if units == always else None)
    return change, result, ranks


def _reduce_rows(
    change: Tensor, result: Tensor, weight: Tensor, lead: list[int], others: list[int], inputs: list[int] | None
) -> None:
    """Subtract from each unit its expression through the leading units of its block, if nothing remains.

    In a block that is always on a constant may remain, which the shift takes up: only `inputs` are compared.
    """
    compared = slice(None) if inputs is None else inputs
    basis, target = weight[lead][:, compared], weight[others][:, compared]
    through = torch.linalg.lstsq(basis.T, target.T, driver="gelsd").solution.T
    left = target - through @ basis
    for row, unit in enumerate(others):
        if left[row].norm() <= 1e-12 * target[row].norm():
            change[unit, lead] = -through[row]
            constant = 0.0 if inputs is None else weight[unit, -1] - through[row] @ weight[lead, -1]
            result[unit] = 0.0
            result[unit, -1] = constant


def _pivot_rows(matrix: Tensor) -> tuple[list[int], int]:
    """Return rows in the order of a pivoted QR decomposition, and how many are independent of those before."""
    if matrix.numel() == 0 or not matrix.any():
        return list(range(len(matrix))), 0
    length = matrix.norm(dim=1)
    scaled = matrix / torch.where(length > 1e-13 * length.max(), length, torch.inf)[:, None]
    r, pivots = qr(scaled.T.numpy(), mode="r", pivoting=True)
    return [int(p) for p in pivots], int((abs(r.diagonal()) > _WELL_POSED).sum())


def _deviation(network: Network, other: Network, batches: Iterable[Batch], progress: ProgressCallback | None) -> float:
    change = largest = 0.0
    for batch in read_batches(batches, "comparison", progress):
        expected = network.output(batch)
        change = max(change, float((other.output(batch) - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    return change / largest if largest else change


def _identity(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64, device="cpu")


def _set_weight(module: nn.Module, weight: Tensor) -> None:
    with torch.no_grad():
        if isinstance(module, nn.Linear):
            module.weight.copy_(weight[:, : module.in_features])
            if module.bias is not None:
                module.bias.copy_(weight[:, -1])
        elif isinstance(module, Affine):
            module.w.copy_(weight[:, :-1].T)
            module.b.copy_(weight[:, -1])


def _check_dense(network: Network, layers: Sequence[Layer]) -> None:
    others = [x.name for x in layers if not isinstance(network.model.get_submodule(x.name), nn.Linear | Affine)]
    if others:
        raise LayerError(
            f"the sparse representation is for dense networks; these layers are not dense: {', '.join(others)}"
        )
