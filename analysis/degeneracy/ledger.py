"""The parameter ledger: where a network's parameters go (paper, section 3, eq. 10 to 22).

Of the N = sum_l d_{l+1} (d_l + 1) parameters of layers p = W f + b, on the data,

    activations    d_{l+1} are free for each lost rank of G^l = E[f f^T]
    Jacobians      rank(G^l) for each lost rank of K^l = E[J^T J], J = df^L/dp
    gating         a block of units that is on only where the activations span g_a directions keeps g_a t_a of
                   parameters: together sum_a g_a t_a, where this is less than rank(G^l) rank(K^l)
    synchronised   s_a t_a for each block of synchronised units, s_a = dim span of its preactivations where it is on
                   (and of the constant unit, where it always is), t_a = dim span of df^L/df_a
                   where two blocks are complementary (r_a + r_b = 1), a constant passes through both of them together
    unexplained    what the exact rank of the Hessian is below all that

Layers are first compared with autograd, parameter by parameter (see `gradients`). Parameters whose gradients they do
not explain are named as not counted: no cause frees them, and the exact rank takes autograd's gradients of all.

All counts are of first-order free directions: effective = rank(H) <= what the mechanisms leave. Eq. 22 of the paper
has s_a^2, which is right only where the Jacobians have full rank and no block is always on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from ..checkpoints.weights import refuse_shared_memory
from ..errors import InputError, LayerError
from ..network.batches import Batch, doubled, read_batches
from ..network.hooks import with_gradients
from ..network.network import Network
from ..notebook.bars import with_bar
from ..notebook.tables import Columns, html_table
from ..progress import ProgressCallback
from ..results import Result, decode, encode
from .blocks import FreeBlocks
from .counts import Block, Census, LayerLedger
from .gradients import check_derivatives, plain_factor, plain_size, unused_parameters
from .hessian_rank import Fit, HessianRank, estimated_rank, exact_rank, sampled_fit, sampled_gradients, sampled_rank
from .layer_trace import InDouble
from .synchronised_units import SynchronisedUnits, check_scale

__all__ = ["Ledger", "parameter_ledger"]


@dataclass(frozen=True)
class Ledger(Result):
    """Where the parameters of a network go: nominal = free directions by cause + unexplained + effective.

    Attributes:
        nominal: number of parameters.
        activations, jacobians, gating, synchronised: free directions by cause; see the head of this module.
        tied: of `activations`, those of tokens and positions that only occur together.
        unexplained: free directions without a named cause; may be negative at epsilon > 0, or where the rank is
            estimated.
        effective: the parameters that remain: the rank of the Hessian.
        hessian: that rank with its method and error.
        epsilon: loss scale of all ranks, None for ranks at the relative `tolerance`.
        layers: the part of each layer.
        n: number of data points.
        warning: caveats of these counts, or None.
        uncounted: names and sizes of parameters whose directions are not counted by cause; all of them count as
            remaining, as far as the exact rank does not say otherwise.
        checked: whether the model passed the checks of `Network.check_once` before.
    """

    nominal: int
    activations: int
    jacobians: int
    gating: int
    synchronised: int
    tied: int
    unexplained: int
    effective: int
    hessian: HessianRank
    epsilon: float | None
    tolerance: float
    layers: tuple[LayerLedger, ...]
    units: tuple[SynchronisedUnits, ...] = field(repr=False)
    n: int
    seed: int
    warning: str | None = None
    uncounted: tuple[tuple[str, int], ...] = ()
    checked: bool = False

    @property
    def hessian_rank(self) -> int:
        """The rank of the Hessian, or its estimate (see `hessian`)."""
        return self.hessian.value

    @property
    def explained(self) -> int:
        """The upper bound of the rank that the named causes give: sum of rank(G) rank(K), less gating and s_a t_a."""
        return self.nominal - self.activations - self.jacobians - self.gating - self.synchronised

    @property
    def lower_bound(self) -> float:
        """rank(H)/2, a lower bound of the learning coefficient."""
        return self.hessian.lower / 2

    def rows(self) -> list[tuple[str, int]]:
        """The ledger from top to bottom: the nominal count, what each cause subtracts, and what remains."""
        return [
            ("nominal", self.nominal),
            ("activations", self.activations),
            ("Jacobians", self.jacobians),
            ("gating", self.gating),
            ("synchronisation", self.synchronised),
            ("unexplained", self.unexplained),
            ("effective", self.effective),
        ]

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {count:,}" for name, count in self.rows())
        how = "" if self.hessian.exact else f" (between {self.hessian.lower:,} and {self.hessian.upper:,})"
        return f"Ledger({parts}{how})"

    def _columns(self) -> Columns:
        """Return a row per layer: sizes, parameters, free directions by cause, ranks."""
        return {name: [getattr(layer, name) for layer in self.layers] for name in _LAYER}

    def _repr_html_(self) -> str:
        """Return the ledger from top to bottom, with the bounds of what is not known."""
        names, counts = zip(*self.rows(), strict=True)
        shares = [f"{count / self.nominal:.1%}" for count in counts]
        head = f"{self.effective:,} of {self.nominal:,} parameters are effective"
        notes = [] if self.hessian.exact else [f"between {self.hessian.lower:,} and {self.hessian.upper:,}"]
        if self.uncounted:
            count = sum(size for _, size in self.uncounted)
            notes.append(f"Not counted by cause: {count:,} parameters ({count / self.nominal:.1%})")
        notes += [f"Warning: {self.warning}"] if self.warning else []
        return html_table(head, {"": names, "parameters": counts, "share": shares}, notes)

    def to_bytes(self) -> bytes:
        """Pack the ledger into one safetensors file in memory."""
        arrays: dict[str, np.ndarray] = {}
        about: dict[str, Any] = {}
        layers = []
        for i, layer in enumerate(self.layers):
            arrays[f"gram_spectrum.{i}"] = layer.gram_spectrum
            arrays[f"jacobian_spectrum.{i}"] = layer.jacobian_spectrum
            layers.append({k: v for k, v in asdict(layer).items() if not k.endswith("spectrum")})
        units = []
        for i, found in enumerate(self.units):
            arrays[f"distances.{i}"], arrays[f"power.{i}"] = found.distances, found.power
            units.append({k: v for k, v in asdict(found).items() if k not in ("distances", "power")})
        for name in (*_SCALARS, "checked", "uncounted"):
            about[name] = getattr(self, name)
        return encode("ledger", arrays, about | {"hessian": asdict(self.hessian), "layers": layers, "units": units})

    @classmethod
    def from_bytes(cls, data: bytes) -> Ledger:
        """Rebuild a ledger from `to_bytes`."""
        arrays, about = decode("ledger", data)
        layers = []
        for i, layer in enumerate(about["layers"]):
            layer["blocks"] = tuple(Block(**(block | {"units": tuple(block["units"])})) for block in layer["blocks"])
            layer["kronecker"] = Fit(**layer["kronecker"])
            layer |= {name: arrays[f"{name}.{i}"] for name in ("gram_spectrum", "jacobian_spectrum")}
            layers.append(LayerLedger(**layer))
        units = []
        for i, found in enumerate(about["units"]):
            found |= {"blocks": tuple(map(tuple, found["blocks"])), "dead": tuple(found["dead"])}
            found |= {"silent": tuple(found["silent"]), "complements": tuple(map(tuple, found["complements"]))}
            found |= {name: arrays[f"{name}.{i}"] for name in ("distances", "power")}
            units.append(SynchronisedUnits(**found))
        scalars = {name: about[name] for name in _SCALARS} | {"checked": about.get("checked", False)}
        scalars["uncounted"] = tuple((name, count) for name, count in about.get("uncounted", ()))
        return cls(hessian=HessianRank(**about["hessian"]), layers=tuple(layers), units=tuple(units), **scalars)


_UNRESOLVED = 0.2  # bounds wider than this share of the estimate give a warning

_LAYER = (
    *("name", "n_inputs", "n_outputs", "nominal", "activations", "jacobians", "gating", "synchronised"),
    *("tied", "dead", "gram_rank", "jacobian_rank", "hessian_rank"),
)

_SCALARS = (
    *("nominal", "activations", "jacobians", "gating", "synchronised", "tied", "unexplained", "effective"),
    *("epsilon", "tolerance", "n", "seed", "warning"),
)


@with_gradients()
@with_bar
def parameter_ledger(
    net: Network,
    batches: Iterable[Batch],
    epsilon: float | None = None,
    *,
    tolerance: float = 1e-10,
    method: str = "auto",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Ledger:
    """Count the parameters of a network that have no effect on the data, by cause.

    Args:
        net: the network and its behavioural loss; only its model, output and counted positions matter here. Models
            in float32 are counted as copies in float64.
        batches: re-iterable data.
        epsilon: loss scale: directions of activations and of Jacobians with singular values (root mean square) below
            sqrt(epsilon) count as lost, as do eigenvalues of the Hessian below epsilon, and units are synchronised
            whose patterns can be exchanged at a cost below epsilon. None for exact ranks.
        tolerance: without an epsilon, singular values below this share of the largest count as zero.
        method: for the rank of the Hessian: "exact"; "estimate", which is Lanczos quadrature with an epsilon, and
            without one the number of parameters that the causes leave, bounded from below by a sample of gradients; or
            "auto": "exact" where that takes about a minute at most, else "estimate".
        seed: seed of the estimates.
        progress: called after each batch.

    Raises:
        DataError: no data, or data that does not fit.
        LayerError: a gradient is not the derivative of the output, or no layer explains it and the network is too large
            to count without layers; the message names the parameter.
        CutError: the model mixes data points, or is not a function of its parameters and the batch.
        GraphError: an epsilon or a method that makes no sense.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)).double()
    >>> data = [torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))]
    >>> parameter_ledger(Network(model, ["0:in", "1"]), data).effective  # all that a linear map 2 -> 1 can do
    3
    """
    check_scale(epsilon, tolerance)
    if method not in ("auto", "exact", "estimate"):
        raise InputError(f"unknown method {method!r}: expected 'auto', 'exact' or 'estimate'")
    refuse_shared_memory(net.model)
    net.check_once(batches)
    settings = {"epsilon": epsilon, "tolerance": tolerance, "seed": seed, "checked": net.checked}
    net, batches = net.in_double(), doubled(batches)
    with InDouble():
        check_derivatives(net, next(read_batches(batches, "derivatives", None)))
        try:
            census = Census.take(net, batches, epsilon, tolerance)
        except LayerError as error:
            return _plain_ledger(net, batches, str(error), method, settings, progress)
        return _counted(net, batches, census, method, settings, progress)


def _counted(
    net: Network,
    batches: Iterable[Batch],
    census: Census,
    method: str,
    settings: dict[str, Any],
    progress: ProgressCallback | None,
) -> Ledger:
    """Count by layers, and what no layer explains as remaining."""
    unused = {}
    if census.uncounted:
        for batch in batches:
            check_derivatives(net, batch)
        unused = {n: size for n, size in unused_parameters(net, batches).items() if n in census.uncounted}
    method, warning = census.choose(method, plain_size(net, batches) if census.uncounted else None)
    census.measure(batches, exact=method == "exact", progress=progress)
    free = FreeBlocks(census)
    kept = free.gate(batches, progress)
    free.find_symmetries(batches)
    blocks = free.blocks()
    rest = sum(census.uncounted.values()) - sum(unused.values())
    if method == "exact":
        factor = census.gradients.factor()
        own, fits = census.own_blocks(factor)
        whole = plain_factor(net, batches, progress) if census.uncounted else factor
        hessian = exact_rank(whole, census.n, tolerance=settings["tolerance"], epsilon=settings["epsilon"])
    else:
        left = sum(kept) - sum(block.free for block in blocks)
        hessian, fits, note = _estimated(net, batches, census, left, settings["epsilon"], settings["seed"], progress)
        hessian = replace(hessian, value=hessian.value + rest, upper=hessian.upper + rest)
        own = [None for _ in census.layers]
        warning = _both(warning, note)
    warning = _both(_both(warning, free.note), _no_path(unused))
    fits = [
        fits[census.index[layer.shares]] if layer.shares else fit
        for layer, fit in zip(census.layers, fits, strict=True)
    ]
    parts = [
        census.layer_ledger(i, kept[i], [b for b in blocks if b.layer == layer.name], own[i], fits[i])
        for i, layer in enumerate(census.layers)
    ]
    modules = (list(group) for _, group in groupby(parts, key=lambda part: part.name))
    return _added_up(
        census, tuple(map(LayerLedger.of_groups, modules)), hessian, warning, settings, sum(unused.values())
    )


def _added_up(
    census: Census,
    layers: tuple[LayerLedger, ...],
    hessian: HessianRank,
    warning: str | None,
    settings: dict[str, Any],
    unused: int,
) -> Ledger:
    """Build the ledger of a network: the sums over its layers, and what they leave unexplained of the rank.

    Args:
        census: of the data, measured.
        layers: the ledgers of the layers.
        hessian: the rank of the Hessian.
        warning: caveats.
        settings: further fields.
        unused: number of parameters outside the layers with no path to the output.
    """
    totals = {
        name: sum(getattr(layer, name) for layer in layers)
        for name in ("nominal", "activations", "jacobians", "gating", "synchronised", "tied")
    }
    outside = sum(census.uncounted.values())
    explained = sum(layer.kept - layer.synchronised for layer in layers) + outside - unused
    totals["nominal"] += outside
    totals["jacobians"] += unused
    return Ledger(
        **totals,
        unexplained=explained - hessian.value,
        effective=hessian.value,
        hessian=hessian,
        layers=layers,
        units=tuple(census.units.values()),
        n=census.n,
        warning=warning,
        uncounted=tuple(census.uncounted.items()),
        **settings,
    )


def _estimated(
    network: Network,
    batches: Iterable[Batch],
    census: Census,
    free: int,
    epsilon: float | None,
    seed: int,
    progress: ProgressCallback | None,
) -> tuple[HessianRank, list[Fit], str | None]:
    """Estimate the rank of the Hessian, the fit of each layer's block, and a warning where bounds are far apart.

    Args:
        network: the network, in float64.
        batches: re-iterable data.
        census: of the data, measured.
        free: parameters that the causes leave.
        epsilon: loss scale.
        seed: seed of the estimates.
        progress: called after each batch.
    """
    rows = sampled_gradients(network, census.layers, batches, census.n, seed=seed, progress=progress)
    fits = [sampled_fit(part, census.n, *grams) for part, grams in zip(rows, census.grams(), strict=True)]
    if epsilon is None:
        return sampled_rank(rows, min(free, census.rows)), fits, None
    del rows
    bound = min(census.positive(), census.rows)
    hessian = estimated_rank(
        network, census.layers, batches, census.n, epsilon=epsilon, bound=bound, seed=seed, progress=progress
    )
    if hessian.upper - hessian.lower <= _UNRESOLVED * hessian.value:
        return hessian, fits, None
    return hessian, fits, f"Lanczos quadrature cannot tell the eigenvalues around {epsilon:g} apart: see its bounds"


def _both(warning: str | None, note: str | None) -> str | None:
    return "; ".join(filter(None, (warning, note))) or None


def _plain_ledger(
    network: Network,
    batches: Iterable[Batch],
    reason: str,
    method: str,
    settings: dict[str, Any],
    progress: ProgressCallback | None,
) -> Ledger:
    """Count the rank of autograd's gradients, where layers do not explain them; no cause is named.

    Parameters with no path to the output count under Jacobians, since theirs are zero.
    """
    size = plain_size(network, batches)
    if method == "estimate" or not size.feasible:
        limit = (
            "an estimate needs layers"
            if method == "estimate"
            else f"{size.parameters:,} parameters and {size.rows:,} gradients are too many for that"
        )
        raise LayerError(f"{reason}. Without layers only the exact rank of all gradients can be counted, but {limit}")
    for batch in batches:
        check_derivatives(network, batch)
    unused = unused_parameters(network, batches)
    factor = plain_factor(network, batches, progress)
    hessian = exact_rank(factor, size.n, tolerance=settings["tolerance"], epsilon=settings["epsilon"])
    warning = f"no causes are named, because layers do not explain the gradients of all parameters: {reason}"
    if size.rows < size.parameters:
        warning += f"; {size.n} data points give {size.rows:,} gradients: the data themselves limit the rank"
    warning = _both(warning, _no_path(unused)) or ""
    return Ledger(
        nominal=size.parameters,
        activations=0,
        jacobians=sum(unused.values()),
        gating=0,
        synchronised=0,
        tied=0,
        unexplained=size.parameters - hessian.value - sum(unused.values()),
        effective=hessian.value,
        hessian=hessian,
        layers=(),
        units=(),
        n=size.n,
        warning=warning,
        uncounted=tuple((name, p.numel()) for name, p in network.model.named_parameters() if p.is_floating_point()),
        **settings,
    )


def _no_path(unused: dict[str, int]) -> str | None:
    """Name the parameters on which the output does not depend."""
    if not unused:
        return None
    named = ", ".join(list(unused)[:6]) + (f" and {len(unused) - 6} more" if len(unused) > 6 else "")
    return f"the output does not depend on {named}: {sum(unused.values()):,} free directions"
