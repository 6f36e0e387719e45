"""The loss around the parameters of a trained network, as a function of a vector: values, gradients, curvature.

    behavioural   L_B = 1/n sum_x |f(x) - f*(x)|^2, or 1/n sum_x KL(p* || p) (paper, eq. 6 and footnote 3)
    constrained   L_C = L_B + 1/n sum_i w_i^2 sum_x (v_i(x) - v_i*(x))^2 over mediating nodes v_i (eq. 31 and 32)
    training      the user's own

Everything is of a subset of the parameters if wanted, and for a stack of vectors (one per chain) at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.func import grad, grad_and_value, jacrev, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_map

from .basis import Bases
from .batches import Batch, naming_batch
from .errors import DataError, InputError
from .layers import in_double
from .mediators import Mediator
from .network import Network
from .progress import ProgressCallback, report

__all__ = [
    "Function",
    "Landscape",
    "NetworkLandscape",
    "Parameters",
    "TrainingLoss",
    "behavioural_loss",
    "constrained_loss",
    "mediating_readout",
    "training_loss",
]

TrainingLoss: TypeAlias = Callable[[Tensor, Any], Tensor]
"""loss(output, target) of one batch, the mean over its data points, as in `torch.nn.functional.cross_entropy`."""

Parameters: TypeAlias = str | Sequence[str] | Mapping[str, Bool[Tensor, "..."]]
"""Globs on the names of parameters, or a mask of entries per name."""

_IN_DOUBLE = 10**5  # parameters up to which a model in float32 is copied to float64
_MERGED = 1024, 10**6  # data points and numbers of a merged batch
_ROWS = 2 * 10**7  # numbers in a block of per-sample gradients


@runtime_checkable
class Landscape(Protocol):
    """A loss L(theta) around `start`, in the dtype of `start`.

    Attributes:
        start: theta*.
        n: number of data points.
        baseline: L(theta*).
        behavioural: whether L >= 0 = L(theta*) by construction.
        scale: what counts as a large loss: for a network, that of a constant output.
        row_count: rows that `rows` gives, 0 where the curvature has no such form.
        vectorised: whether a stack of vectors is evaluated in one go.
    """

    start: Float[Tensor, " d"]
    n: int
    baseline: float
    behavioural: bool
    scale: float
    row_count: int
    vectorised: bool

    def evaluate(
        self, theta: Float[Tensor, "chains d"], points: Int[Tensor, "chains points"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """L and its gradient; over all data, or as the mean over each chain's own data points."""
        ...

    def rows(self, theta: Float[Tensor, " d"]) -> Iterator[Float[Tensor, "rows d"]]:
        """Blocks of rows R with sum R^T R = H, the generalised Gauss-Newton matrix of L."""
        ...

    def product(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """H v for each of the vectors."""
        ...


@dataclass
class Function:
    """A loss that is given as a function of the vector; its curvature is the Hessian at `start`.

    >>> bowl = Function(lambda w: (w**2).sum(), torch.zeros(2, dtype=torch.float64))
    >>> [x.tolist() for x in bowl.evaluate(torch.tensor([[1.0, 2.0]], dtype=torch.float64))]
    [[5.0], [[2.0, 4.0]]]
    """

    function: Callable[[Tensor], Tensor]
    start: Float[Tensor, " d"]
    vectorised: bool = True
    n: int = 1
    scale: float = 1.0
    row_count: int = 0

    def __post_init__(self) -> None:
        self.baseline = float(_number(self.function(self.start), "the function"))
        slope = grad(self.function)(self.start)
        self.behavioural = self.baseline == 0 and not slope.any()

    def evaluate(
        self, theta: Float[Tensor, "chains d"], points: Int[Tensor, "chains points"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """L and its gradient."""
        if points is not None:
            raise InputError("a loss that is given as a function has no data points to draw batches from")
        slope, value = _stacked(grad_and_value(self.function), self.vectorised)(theta)
        return value, slope

    def rows(self, theta: Float[Tensor, " d"]) -> Iterator[Float[Tensor, "rows d"]]:
        """None: there is no residual."""
        return iter(())

    def product(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """The Hessian, which is symmetric, times each of the vectors."""
        _, pull = vjp(grad(self.function), theta)
        return torch.stack([pull(vector)[0] for vector in vectors])


class NetworkLandscape:
    """A loss of a network's parameters on data, which is held in memory.

    Use `behavioural_loss`, `constrained_loss` or `training_loss` to make one.

    Args:
        network: the network; models in float32 with at most 100,000 parameters are copied to float64.
        batches: the data; read once. With a training loss, pairs of (input, target).
        parameters: which of them are varied: globs, or masks by name; None for all.
        readout: per name of a cut a matrix (m, width) whose rows are weighted mediating nodes.
        loss: a training loss instead of the behavioural one.
        progress: called after each batch.
    """

    def __init__(
        self,
        network: Network,
        batches: Iterable[Batch],
        *,
        parameters: Parameters | None = None,
        readout: Mapping[str, Float[Tensor, "m width"]] | None = None,
        loss: TrainingLoss | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        count = sum(p.numel() for p in network.model.parameters())
        if count <= _IN_DOUBLE:
            network, batches = in_double(network, batches)
        self.network = network
        self.vectorised = True
        self.behavioural = loss is None
        self._loss = loss
        named = dict(network.model.named_parameters())
        self._fixed = {name: value.detach().clone() for name, value in named.items()}
        self._entries = _chosen(self._fixed, parameters)
        self.names = tuple(self._entries)
        picked = [self._fixed[name].flatten()[index] for name, index in self._entries.items()]
        self.start = torch.cat(picked)
        self._sizes = [len(part) for part in picked]
        self._cuts = [_index_of(network, name) for name in readout or ()]
        self._readouts = [matrix.to(self.start) for matrix in (readout or {}).values()]
        self._batches: list[tuple[Batch, Any]] = []
        self.n = self.row_count = 0
        for inputs, given in _merged(report(batches, "data", progress), labelled=loss is not None):
            with naming_batch(inputs):
                outputs = self._outputs(self.start, inputs)
            if not all(torch.isfinite(part).all() for part in outputs):
                raise DataError("NaN or infinite outputs at the trained parameters: check data and weights")
            target = (
                given if loss is not None else [_reference(network.loss, i, part) for i, part in enumerate(outputs)]
            )
            self._batches.append((inputs, target))
            self.n += len(outputs[0])
            self.row_count += 0 if loss is not None else sum(part.numel() for part in outputs)
        if not self.n:
            raise DataError("the data holds no batch: nothing to measure the loss on")
        first = float(self.evaluate(self.start[None])[0])
        if not math.isfinite(first):
            raise DataError("the loss is NaN or infinite at the trained parameters: check data, targets and weights")
        self.baseline = 0.0 if self.behavioural else first
        self.scale = self._constant_output() if self.behavioural else max(abs(first), 1e-12)

    def evaluate(
        self, theta: Float[Tensor, "chains d"], points: Int[Tensor, "chains points"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """L and its gradient; over all data, or as the mean over each chain's own data points."""
        if points is not None:
            inputs, target = self._only_batch()
            part = tree_map(lambda v: v[points] if isinstance(v, Tensor) else v, (inputs, target))
            axes = tree_map(lambda v: 0 if isinstance(v, Tensor) else None, part)
            slope, value = self._stack((0, *axes))(theta, *part)
            return value / points.shape[1], slope / points.shape[1]
        value, slope = theta.new_zeros(len(theta)), torch.zeros_like(theta)
        for inputs, target in self._batches:
            more, other = self._stack((0, None, None))(theta, inputs, target)
            value, slope = value + other, slope + more
        return value / self.n, slope / self.n

    def rows(self, theta: Float[Tensor, " d"]) -> Iterator[Float[Tensor, "rows d"]]:
        """Blocks of rows R with sum R^T R = H: gradients of single data points, weighted by the loss."""
        if self._loss is not None:
            return
        per_point = self.row_count // self.n
        size = max(1, _ROWS // (per_point * len(theta)))
        for inputs, _ in self._batches:
            count = len(tree_flatten(self._outputs(theta, inputs))[0][0])
            for first in range(0, count, size):
                part = tree_map(lambda v: v[first : first + size] if isinstance(v, Tensor) else v, inputs)  # noqa: B023
                blocks = self._point_rows(theta, part)
                yield blocks.flatten(0, 1) / math.sqrt(self.n)

    def product(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """H v = 1/n sum_x J^T (d^2 loss / d output^2) J v, all by backward derivatives."""
        total = torch.zeros_like(vectors)
        for inputs, target in self._batches:

            def outputs_of(theta: Tensor, inputs: Batch = inputs) -> list[Tensor]:
                return self._outputs(theta, inputs)

            outputs, pull = vjp(outputs_of, theta)
            _, push = vjp(lambda cotangents, pull=pull: pull(cotangents)[0], [torch.zeros_like(y) for y in outputs])
            _, bend = vjp(lambda parts, target=target: grad(self._total)(parts, target), outputs)

            def one(vector: Tensor, push: Any = push, bend: Any = bend, pull: Any = pull) -> Tensor:
                (moved,) = push(vector)  # J v, the derivative of J^T u by u
                result: Tensor = pull(*bend(moved))[0]
                return result

            total += _stacked(one, self.vectorised)(vectors)
        return total / self.n

    def _constant_output(self) -> float:
        """The behavioural loss of a network whose output is always the mean one."""
        held = [target[0] for _, target in self._batches]
        if self.network.masked or len({part.shape[1:] for part in held}) > 1:  # the mean of all positions that count
            with torch.no_grad():
                counted = [self.network.counted_output(inputs)[1] for inputs, _ in self._batches]
            held = [where.rows(part) for where, part in zip(counted, held, strict=True)]
        outputs = [part.exp() for part in held] if self.network.loss == "kl" else held
        mean = torch.cat(outputs).mean(0)
        if self.network.loss == "kl":
            mean = mean.log()
            total = sum(float((p * (target - mean)).sum()) for p, target in zip(outputs, held, strict=True))
        else:
            total = sum(float((part - mean).square().sum()) for part in held)
        return total / self.n or 1.0

    def _only_batch(self) -> tuple[Batch, Any]:
        if len(self._batches) > 1:
            joined = _joined(list(self._batches))
            if joined is None:
                raise DataError("the batches have different shapes: batches of random data points need equal ones")
            self._batches = [joined]
        return self._batches[0]

    def _stack(self, axes: tuple[Any, ...]) -> Callable[..., Any]:
        """The gradient and the value of the summed loss for a stack of vectors."""

        def total(theta: Tensor, inputs: Batch, target: Any) -> Tensor:
            return self._total(self._outputs(theta, inputs), target)

        derivative = grad_and_value(total)
        if self.vectorised:
            return vmap(derivative, in_dims=axes)

        def one_by_one(theta: Tensor, inputs: Batch, target: Any) -> tuple[Tensor, Tensor]:
            own = axes[1] is not None
            parts = [
                tree_map(lambda v, c=c: v[c] if own and isinstance(v, Tensor) else v, (inputs, target))
                for c in range(len(theta))
            ]
            pairs = [derivative(row, *part) for row, part in zip(theta, parts, strict=True)]
            return torch.stack([slope for slope, _ in pairs]), torch.stack([value for _, value in pairs])

        return one_by_one

    def _outputs(self, theta: Float[Tensor, " d"], inputs: Batch) -> list[Tensor]:
        """Output at the counted positions, and the weighted mediating nodes."""
        with sdpa_kernel(SDPBackend.MATH):  # the only one with all derivatives
            output, values = self.network.evaluate(self._assembled(theta), inputs, self._cuts)
        return [output, *(value @ matrix.T for value, matrix in zip(values, self._readouts, strict=True))]

    def _assembled(self, theta: Float[Tensor, " d"]) -> dict[str, Tensor]:
        whole = dict(self._fixed)
        for (name, index), part in zip(self._entries.items(), theta.split(self._sizes), strict=True):
            value = whole[name]
            if len(part) == value.numel():
                whole[name] = part.reshape(value.shape)
            else:
                whole[name] = torch.scatter(value.flatten(), 0, index, part).reshape(value.shape)
        return whole

    def _total(self, outputs: list[Tensor], target: Any) -> Tensor:
        """The loss summed over the data points of a batch."""
        if self._loss is not None:
            (output,) = outputs
            value = self._loss(output.squeeze(1) if output.shape[1] == 1 else output, target)
            return _number(value, "the training loss") * len(output)
        total = _divergence(self.network.loss, outputs[0], target[0])
        for value, before in zip(outputs[1:], target[1:], strict=True):
            total = total + (value - before).square().sum()
        return total

    def _point_rows(self, theta: Float[Tensor, " d"], inputs: Batch) -> Float[Tensor, "batch rows d"]:
        """Rows of each data point on its own."""
        axes = tree_map(lambda v: 0 if isinstance(v, Tensor) else None, inputs)

        def rows(theta: Tensor, inputs: Batch) -> Tensor:
            alone = tree_map(lambda v: v[None] if isinstance(v, Tensor) else v, inputs)

            def residual(theta: Tensor) -> tuple[Tensor, list[Tensor]]:
                outputs = self._outputs(theta, alone)
                return torch.cat([part.flatten() for part in outputs]), outputs

            slopes, outputs = jacrev(residual, has_aux=True)(theta)
            if self.network.loss != "kl":
                return torch.mul(slopes, math.sqrt(2))
            size = outputs[0].numel()
            head = slopes[:size].reshape(*outputs[0].shape[1:], -1)
            p = outputs[0][0].softmax(-1)[..., None]
            head = p.sqrt() * (head - (p * head).sum(-2, keepdim=True))
            return torch.cat([head.flatten(0, 1), math.sqrt(2) * slopes[size:]])

        if self.vectorised:
            stacked: Tensor = vmap(rows, in_dims=(None, axes))(theta, inputs)
            return stacked
        count = len(tree_flatten(inputs)[0][0])
        parts = [tree_map(lambda v, i=i: v[i] if isinstance(v, Tensor) else v, inputs) for i in range(count)]
        return torch.stack([rows(theta, part) for part in parts])


def behavioural_loss(
    network: Network,
    batches: Iterable[Batch],
    *,
    parameters: Parameters | None = None,
    progress: ProgressCallback | None = None,
) -> NetworkLandscape:
    """How far outputs move from those of the trained network, in the network's loss (paper, eq. 6).

    Raises:
        DataError: no data.
        InputError: `parameters` names none.
    """
    return NetworkLandscape(network, batches, parameters=parameters, progress=progress)


def constrained_loss(
    network: Network,
    batches: Iterable[Batch],
    readout: Mapping[str, Float[Tensor, "m width"]],
    *,
    parameters: Parameters | None = None,
    progress: ProgressCallback | None = None,
) -> NetworkLandscape:
    """The behavioural loss and, added, how far mediating nodes move (paper, eq. 31 and 32).

    Args:
        network: the network; mediators are at its cuts.
        batches: data.
        readout: per name of a cut a matrix whose row i is w_i times the direction that reads v_i from the activations
            there: w_i = eps^(k_i) of eq. 32, or 1 for eq. 31. See `mediating_readout`.
        parameters: those of the module that the mediators belong to.
        progress: called after each batch.
    """
    return NetworkLandscape(network, batches, parameters=parameters, readout=readout, progress=progress)


def training_loss(
    network: Network,
    batches: Iterable[Any],
    loss: TrainingLoss,
    *,
    parameters: Parameters | None = None,
    progress: ProgressCallback | None = None,
) -> NetworkLandscape:
    """The user's loss(output, target), the mean over the data points of a batch, on pairs of (input, target).

    Raises:
        DataError: no data, or batches that are not pairs.
        InputError: the loss is not a single number, or `parameters` names none.
    """
    return NetworkLandscape(network, batches, parameters=parameters, loss=loss, progress=progress)


def mediating_readout(
    bases: Bases, mediators: Iterable[Mediator], epsilon: float, *, weighted: bool = True
) -> dict[str, Float[Tensor, "m width"]]:
    """The readout of `constrained_loss` for the mediating nodes of an interaction surface.

    Args:
        bases: the graph's bases.
        mediators: of one module, from `interaction_surface`; a node that feeds several modules counts by all of them.
        epsilon: the loss scale they were found at: their strengths are in units of its root.
        weighted: whether rows are weighted by the strength w_i (eq. 32) or not (eq. 31).
    """
    squares: dict[tuple[int, int], float] = {}
    for mediator in mediators:
        node = mediator.cut, mediator.coordinate
        squares[node] = squares.get(node, 0.0) + (mediator.strength**2 * epsilon if weighted else 1.0)
    names = list(bases)
    found: dict[str, list[Tensor]] = {}
    for (cut, coordinate), square in sorted(squares.items()):
        weight = math.sqrt(square) if weighted else 1.0
        found.setdefault(names[cut], []).append(weight * torch.as_tensor(bases[names[cut]].to_basis[coordinate]))
    return {name: torch.stack(rows) for name, rows in found.items()}


def _chosen(named: Mapping[str, Tensor], parameters: Parameters | None) -> dict[str, Int[Tensor, " entries"]]:
    """Per name the flat indices of the entries that are varied."""
    if parameters is None:
        parameters = "*"
    if isinstance(parameters, Mapping):
        chosen = {}
        for name, mask in parameters.items():
            if name not in named or mask.shape != named[name].shape or mask.dtype != torch.bool:
                shape = tuple(named[name].shape) if name in named else "no such parameter"
                raise InputError(
                    f"the mask of {name!r} is {mask.dtype} of {tuple(mask.shape)}: expected torch.bool of {shape}"
                )
            chosen[name] = mask.flatten().nonzero()[:, 0]
    else:
        globs = [parameters] if isinstance(parameters, str) else list(parameters)
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in named):
                raise InputError(f"no parameter is called {glob!r}: they are {', '.join(list(named)[:20]) or 'none'}")
        kept = [name for name in named if any(fnmatchcase(name, glob) for glob in globs)]
        chosen = {name: torch.arange(named[name].numel()) for name in kept}
    chosen = {name: index for name, index in chosen.items() if len(index)}
    if not chosen:
        raise InputError("no parameter is varied: the model has none, or the masks are empty")
    return chosen


def _index_of(network: Network, name: str) -> int:
    if name not in network.cuts:
        raise InputError(f"{name!r} is not a cut of the network: they are {', '.join(network.cuts)}")
    return network.cuts.index(name)


def _reference(loss: str, part: int, output: Tensor) -> Tensor:
    """What a behavioural loss compares with: log-probabilities for KL, else the values themselves."""
    return output.log_softmax(-1) if part == 0 and loss == "kl" else output


def _number(value: Any, name: str) -> Tensor:
    """The value of a loss of the user's, which must be a single number."""
    if not isinstance(value, Tensor) or value.ndim:
        seen = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"{name} returned {seen}: expected a tensor without dimensions, such as a mean")
    return value


def _divergence(loss: str, output: Tensor, target: Tensor) -> Tensor:
    if loss == "mse":
        return (output - target).square().sum()
    change = output.log_softmax(-1) - target
    return (target.exp() * (torch.expm1(change) - change)).sum()  # sum p* (p / p* - 1) = 0: every term is >= 0


def _stacked(function: Callable[[Tensor], Any], vectorised: bool) -> Callable[[Tensor], Any]:
    """The function of each row of a matrix."""
    if vectorised:
        return vmap(function)

    def one_by_one(matrix: Tensor) -> Any:
        results = [function(row) for row in matrix]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(torch.stack(column) for column in zip(*results, strict=True))

    return one_by_one


def _merged(batches: Iterable[Any], *, labelled: bool) -> Iterator[tuple[Batch, Any]]:
    """Inputs and targets in batches of a good size: small ones of the same shapes are joined."""
    held: list[Any] = []
    for batch in batches:
        if labelled and not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise DataError(f"a training loss needs pairs of (input, target), not a {type(batch).__name__}")
        pair = tuple(batch) if labelled else (batch, None)
        joined = _joined([*held, pair]) if held else pair
        if joined is None or _extent(joined)[0] > _MERGED[0] or _extent(joined)[1] > _MERGED[1]:
            if held:
                yield held[0]
            held = [pair]
        else:
            held = [joined]
    if held:
        yield held[0]


def _joined(pairs: Sequence[tuple[Batch, Any]]) -> tuple[Batch, Any] | None:
    """One pair of all data points, or None where their structures or shapes differ."""
    leaves, specs = zip(*(tree_flatten(pair) for pair in pairs), strict=True)
    if any(spec != specs[0] for spec in specs):
        return None
    whole = []
    for column in zip(*leaves, strict=True):
        if all(isinstance(v, Tensor) and v.ndim for v in column) and len({v.shape[1:] for v in column}) == 1:
            whole.append(torch.cat(column))
        elif isinstance(column[0], Tensor) or any(v != column[0] for v in column):
            return None
        else:
            whole.append(column[0])
    joined: tuple[Batch, Any] = specs[0].unflatten(whole)
    return joined


def _extent(pair: tuple[Batch, Any]) -> tuple[int, int]:
    sizes = [(len(v), v.numel()) for v in tree_flatten(pair)[0] if isinstance(v, Tensor) and v.ndim]
    return max((n for n, _ in sizes), default=0), sum(size for _, size in sizes)
