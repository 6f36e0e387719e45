"""The loss of one batch as a function of a vector, the parameters of a network that are varied.

A behavioural loss is summed over the data points of the batch; a training loss is the user's function of the model's
own output, whose shape and structure stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..checkpoints.pairs import Pair
from ..devices.device import moved
from ..errors import DataError, InputError
from ..network.batches import Batch, batch_size, describe, map_tensors, naming_batch, tensors
from ..network.network import Network

__all__ = ["LARGE", "BatchLoss", "Parameters", "TrainingLoss", "number"]

_ROWS = 2**16  # numbers of the outputs that are compared at a time

LARGE = 10**5  # with more parameters vectors are few: chains run one after another and change in place

TrainingLoss: TypeAlias = Callable[[Any, Any], Tensor]

"""loss(output, target) of one batch, a mean or a sum over its data points, such as `torch.nn.functional.mse_loss`."""

Parameters: TypeAlias = str | Sequence[str] | Mapping[str, Bool[Tensor, "..."]]

"""Globs on the names of parameters, or a mask of entries per name."""


class BatchLoss:
    """The loss of one batch as a function of a vector of parameters, see the head of this module.

    Args:
        network: the network.
        parameters: parameters to vary: globs, or masks by name; None for all.
        readout: per name of a cut a matrix whose rows are weighted mediating nodes.
        loss: a training loss instead of the behavioural one.

    Attributes:
        start: the parameters that are varied, as they are in the model; on the CPU, as all vectors of parameters.
        names, sizes: names and sizes of the parameters in `start`.
        outputs_per_point: numbers of the output of a data point, known once a batch has its target.
        held: whether the targets of a behavioural loss are kept; without, they are computed again each time.
        buffers: whether the model gets copies of its buffers, since it may write into them.
    """

    def __init__(
        self,
        network: Network,
        parameters: Parameters | None,
        readout: Mapping[str, Float[Tensor, "m width"]],
        loss: TrainingLoss | None,
    ) -> None:
        self.network, self.loss = network, loss
        self.buffers = False
        self.outputs_per_point = 0
        self.held = True
        own = {name: value.detach() for name, value in network.model.named_parameters()}
        self._entries = _chosen(own, parameters)
        self.names = tuple(self._entries)
        parts = {name: own[name].flatten() for name in self.names}
        picked = [parts[name] if index is None else parts[name][index] for name, index in self._entries.items()]
        self.start = torch.cat(picked).cpu()
        self.sizes = [len(part) for part in picked]
        varied = {name for name, index in self._entries.items() if index is None}
        self.fixed = {name: value if name in varied else value.clone() for name, value in own.items()}
        self._cuts = [_index_of(network, name) for name in readout]
        self.readouts = [matrix.to(network.device, self.start.dtype) for matrix in readout.values()]

    @property
    def nearby(self) -> Float[Tensor, " d"]:
        """Draw a point about as far from the start as chains go, where no gradient is 0 and which is on no kink."""
        size = float(self.start.square().mean().sqrt()) or 1.0
        draws = torch.Generator().manual_seed(0)
        away = torch.randn(len(self.start), generator=draws, dtype=torch.float64, device="cpu").to(self.start)
        return self.start + 0.02 * size * away

    def with_targets(self, pair: Pair) -> Pair:
        """Return a batch with its target; for a behavioural loss these are the outputs at the start.

        Raises:
            DataError: outputs or losses that are not finite, a model or loss that fails, or a loss of torch that warns
                of targets of another shape than the outputs.
        """
        inputs = pair[0]
        with naming_batch(inputs), torch.no_grad():
            outputs = self.outputs(self.start, inputs)
        numbers = [part for part in tensors(outputs) if part.is_floating_point()]
        if not all(torch.isfinite(part).all() for part in numbers):
            raise DataError("NaN or infinite outputs at the trained parameters: check data and weights")
        own = sum(part.numel() for part in numbers) // batch_size(inputs)
        self.outputs_per_point = max(self.outputs_per_point, own)
        if self.loss is not None:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", "Using a target size", UserWarning)
                    self.total(outputs, pair[1])
            except UserWarning as warning:
                if "target size" not in str(warning):
                    raise
                raise DataError(
                    f"the training loss compares outputs with targets of another shape: {self.shapes(pair)}"
                ) from warning
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise DataError(
                    f"the training loss failed on the model's output ({describe(outputs)}) and the target "
                    f"({describe(pair[1])}): {error}"
                ) from error
            return pair
        return inputs, self._references(outputs) if self.held else None

    def target(self, pair: Pair) -> Any:
        """Return the target of a batch, computed from the outputs at the start where it is not held."""
        if pair[1] is not None or self.loss is not None:
            return pair[1]
        with torch.no_grad():
            return self._references(self.outputs(self.start, pair[0]))

    def _references(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        return [_reference(self.network.loss, i, part) for i, part in enumerate(outputs)]

    def shapes(self, pair: Pair) -> str:
        """Describe the shapes of outputs and targets, and the result of broadcasting them, for messages."""
        with torch.no_grad():
            outputs = self.outputs(self.start, pair[0])
        return (
            f"outputs are {describe(outputs)}, targets {describe(pair[1])}. Broadcasting shapes that differ compares "
            "an output with targets of other data points: give both one shape, such as target[:, None] or output[:, 0]"
        )

    def value(self, theta: Float[Tensor, " d"], inputs: Batch, target: Any) -> Tensor:
        """Compute the loss of a batch."""
        return self.total(self.outputs(theta, inputs), self.target((inputs, target))).to(theta.device)

    def outputs(self, theta: Float[Tensor, " d"], inputs: Batch) -> Any:
        """Compute the counted output and weighted mediating nodes; for a training loss the model's own output."""
        with sdpa_kernel(SDPBackend.MATH), _differentiated(self.network.model):  # MATH: all derivatives exist
            if self.loss is not None:
                return self.network.returned(self.assembled(theta), inputs)
            output, values = self.network.evaluate(self.assembled(theta), inputs, self._cuts)
        return [output, *(value @ matrix.T for value, matrix in zip(values, self.readouts, strict=True))]

    def value_with_slopes(
        self, theta: Float[Tensor, " d"], inputs: Batch, target: Any, weight: float
    ) -> tuple[float, list[Tensor], list[Tensor]]:
        """Compute the loss of a batch times a weight, of a behavioural one with its derivatives in the outputs.

        Attention uses its fastest kernel, which has first derivatives only.

        Returns:
            The loss, the tensors to differentiate by autograd, and the derivatives in these.
        """
        target = self.target((inputs, target))
        with _differentiated(self.network.model):
            if self.loss is not None:
                loss = self.total(self.network.returned(self.assembled(theta), inputs), target)
                return weight * float(loss.detach()), [loss], [torch.full_like(loss, weight)]
            if self._cuts:
                (output, values), counts = self.network.evaluate(self.assembled(theta), inputs, self._cuts), None
            else:
                (output, counts), values = self.network.uncleaned(self.assembled(theta), inputs), []
        outputs = [output, *(value @ matrix.T for value, matrix in zip(values, self.readouts, strict=True))]
        value, slopes = 0.0, []
        with torch.no_grad():
            for number, (part, before) in enumerate(zip(outputs, target, strict=True)):
                kl = number == 0 and self.network.loss == "kl"
                more, slope = _divergence_with_slope(part.detach(), before, counts, kl=kl)
                value += weight * more
                slopes.append(slope.mul_(weight))
        return value, outputs, slopes

    def total(self, outputs: Any, target: Any) -> Tensor:
        """Compute the loss from the outputs."""
        if self.loss is not None:
            there = map_tensors(lambda v: moved(v, self.network.device), target)
            return number(self.loss(outputs, there), "the training loss")
        total = _divergence(self.network.loss, outputs[0], target[0])
        for value, before in zip(outputs[1:], target[1:], strict=True):
            total = total + (value - before).square().sum()
        return total

    def parts(self, inputs: Batch) -> tuple[Callable[[Tensor], list[Tensor]], Callable[[Sequence[Tensor]], Any]]:
        """Return the outputs' floating point tensors as a function of theta, and how to put others in their place."""
        with torch.no_grad():
            like = self.outputs(self.start, inputs) if self.loss is not None else None

        def outputs_of(theta: Tensor) -> list[Tensor]:
            return [part for part in tensors(self.outputs(theta, inputs)) if part.is_floating_point()]

        def outputs_with(parts: Sequence[Tensor]) -> Any:
            if like is None:
                return list(parts)
            rest = iter(parts)
            return map_tensors(lambda v: next(rest) if v.is_floating_point() else v, like)

        return outputs_of, outputs_with

    def assembled(self, theta: Float[Tensor, " d"]) -> dict[str, Tensor]:
        """Return all parameters by name, the varied ones taken from theta."""
        whole, theta = dict(self.fixed), moved(theta, self.network.device)
        for (name, index), part in zip(self._entries.items(), theta.split(self.sizes), strict=True):
            value = whole[name]
            if index is None:
                whole[name] = part.reshape(value.shape)
            else:
                whole[name] = torch.scatter(value.flatten(), 0, index.to(part.device), part).reshape(value.shape)
        if self.buffers:
            whole |= {name: value.detach().clone() for name, value in self.network.model.named_buffers()}
        return whole


@contextmanager
def _differentiated(model: nn.Module) -> Iterator[None]:
    """Give embeddings their true derivative as gradient; padding_idx and scale_grad_by_freq change autograd's.

    It is dense, like the derivatives of all other parameters.

    The `padding_idx` of an `EmbeddingBag` stays: it changes the numbers.
    """
    tables = [module for module in model.modules() if type(module) is nn.Embedding]
    bags = [module for module in model.modules() if type(module) is nn.EmbeddingBag]
    rows = [table.padding_idx for table in tables]
    every: list[Any] = [*tables, *bags]
    scaled = [(module.scale_grad_by_freq, module.sparse) for module in every]
    try:
        for table in tables:
            table.padding_idx = None
        for module in every:
            module.scale_grad_by_freq = module.sparse = False
        yield
    finally:
        for table, row in zip(tables, rows, strict=True):
            table.padding_idx = row
        for module, (scale, sparse) in zip(every, scaled, strict=True):
            module.scale_grad_by_freq, module.sparse = scale, sparse


def _chosen(named: Mapping[str, Tensor], parameters: Parameters | None) -> dict[str, Int[Tensor, " entries"] | None]:
    """Return per name the flat indices of the entries that are varied, None for all of them."""
    chosen: dict[str, Int[Tensor, " entries"] | None]
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
            if mask.any():
                chosen[name] = None if mask.all() else mask.flatten().nonzero()[:, 0]
    else:
        globs = [parameters] if isinstance(parameters, str) else list(parameters)
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in named):
                raise InputError(f"no parameter is called {glob!r}: they are {', '.join(list(named)[:20]) or 'none'}")
        kept = [name for name in named if any(fnmatchcase(name, glob) for glob in globs)]
        chosen = {name: None for name in kept if named[name].numel()}
    if not chosen:
        raise InputError("no parameter is varied: the model has none, or the masks are empty")
    return chosen


def _index_of(network: Network, name: str) -> int:
    if name not in network.cuts:
        raise InputError(f"{name!r} is not a cut of the network: they are {', '.join(network.cuts)}")
    return network.cuts.index(name)


def _reference(loss: str, part: int, output: Tensor) -> Tensor:
    """Return what a behavioural loss compares outputs with: log-probabilities for KL, else the values."""
    return output.log_softmax(-1) if part == 0 and loss == "kl" else output


def number(value: Any, name: str) -> Tensor:
    """Check that the value of a user's loss is a single number, and return it."""
    if not isinstance(value, Tensor) or value.ndim:
        seen = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"{name} returned {seen}: expected a tensor without dimensions, such as a mean")
    return value


def _divergence_with_slope(
    output: Float[Tensor, "*rows width"],
    target: Float[Tensor, "*rows width"],
    counts: Bool[Tensor, "*rows"] | None = None,
    *,
    kl: bool,
) -> tuple[float, Float[Tensor, "*rows width"]]:
    """Compute `_divergence` and its slope in the output, in blocks of rows: p - p* = p* (p / p* - 1), as sum p* = 1."""
    slope, value = torch.empty_like(output, memory_format=torch.contiguous_format), 0.0
    first = 0
    rows = [v.reshape(-1, v.shape[-1]) for v in (output, target)]
    for here, before, place in zip(
        *(v.split(max(1, _ROWS // output.shape[-1])) for v in (*rows, slope.view_as(rows[0]))), strict=True
    ):
        absent = None if counts is None else ~counts.flatten()[first : first + len(here), None].to(here.device)
        first += len(here)
        if not kl:
            torch.sub(here, before, out=place)
            if absent is not None:
                place.masked_fill_(absent, 0.0)
            value += float(place.square().sum())
            place.mul_(2)
            continue
        change = here.log_softmax(-1).sub_(before)
        likely = before.exp()
        if absent is not None:
            change.masked_fill_(absent, 0.0)
        torch.expm1(change, out=place)
        value += float(torch.sub(place, change, out=change).flatten() @ likely.flatten())
        place.mul_(likely)
    return value, slope


def _divergence(loss: str, output: Tensor, target: Tensor) -> Tensor:
    if loss == "mse":
        return (output - target).square().sum()
    change = output.log_softmax(-1) - target
    return (target.exp() * (torch.expm1(change) - change)).sum()  # sum p* (p / p* - 1) = 0: every term is >= 0
