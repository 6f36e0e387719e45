"""How far the outputs of networks that do the same job are apart: a loss scale (paper, after eq. 8)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..checkpoints.checkpoint import Checkpoint
from ..errors import DataError, InputError, InterbasisError
from ..network.batches import Batch, read_batches
from ..network.network import Network
from ..notebook.bars import with_bar
from ..notebook.tables import Columns, html_table
from ..progress import ProgressCallback
from ..results import Result, by_value, decode, encode

__all__ = ["NetworkDistance", "PairDistances", "network_distance"]

Net: TypeAlias = Network | Checkpoint

_SMALL = 1.0  # change of a log-probability below which the terms of KL are computed without cancellation


@by_value
@dataclass(frozen=True)
class PairDistances:
    """Distances of all pairs of networks on one set of data.

    Attributes:
        matrix: [a, b], mean over data points of the behavioural loss of b whose reference is a: |f_a - f_b|^2, or
            KL(p_a || p_b), summed over positions. That of KL is not symmetric.
        errors: standard errors of these means over data points; NaN for a single one.
        mean: mean over pairs; of both directions.
        error_of_data: standard error of the mean over data points, for these networks; None for a single data point.
        error_of_networks: standard error of the mean over networks drawn like these, for these data, by the jackknife
            over networks; None for two of them.
        n: number of data points.
    """

    matrix: Float[np.ndarray, "k k"]
    errors: Float[np.ndarray, "k k"]
    mean: float
    error_of_data: float | None
    error_of_networks: float | None
    n: int

    @property
    def standard_error(self) -> float | None:
        """Both errors together, the root of the sum of their squares; None where nothing is known of either."""
        known = [error for error in (self.error_of_data, self.error_of_networks) if error is not None]
        return math.hypot(*known) if known else None

    def between(self, a: int, b: int) -> float:
        """Return the distance of a pair, the mean of both directions."""
        return float(self.matrix[a, b] + self.matrix[b, a]) / 2

    def error_between(self, a: int, b: int) -> float:
        """Return the standard error over data points of `between`; of KL a bound, the mean of both directions."""
        return float(self.errors[a, b] + self.errors[b, a]) / 2


@by_value
@dataclass(frozen=True, repr=False)
class NetworkDistance(Result):
    """Behavioural losses between networks that do the same job.

    Attributes:
        names: names of the networks.
        sha256: of the file of each checkpoint, else of the parameters.
        loss: "mse" or "kl".
        data: distances on the data.
        held_out: distances on held-out data, or None.
    """

    names: tuple[str, ...]
    sha256: tuple[str, ...]
    loss: str
    data: PairDistances
    held_out: PairDistances | None = None

    @property
    def epsilon(self) -> float:
        """The loss scale: the mean distance on the data."""
        return self.data.mean

    @property
    def choices(self) -> dict[str, Any]:
        """The loss scale as choices of `find_modules`, `analyze` and recipes: epsilon, and seeds, where it comes from.

        Raises:
            InputError: all networks give the same outputs: 0 is no loss scale.
        """
        if not self.epsilon > 0:
            raise InputError(
                f"the outputs of {', '.join(self.names)} are the same: their distance is {self.epsilon:g}, which is no "
                "loss scale"
            )
        pairs = zip(self.names, self.sha256, strict=True)
        return {"epsilon": self.epsilon, "seeds": tuple(f"{name} sha256:{digest}" for name, digest in pairs)}

    @property
    def summary(self) -> str:
        """The mean distances in a sentence or two."""
        k = len(self.names)
        what = "squared distance of outputs" if self.loss == "mse" else "KL divergence, mean of both directions,"
        count = "one pair of networks" if k == 2 else f"{k * (k - 1) // 2} pairs of {k} networks"
        said = f"{what} of {count}: {_with_error(self.data)} on {self.data.n:,} data points"
        if self.held_out is not None:
            said += f", {_with_error(self.held_out)} on {self.held_out.n:,} held-out ones"
        alone = "; the standard error is over data points only: two networks do not tell how pairs differ"
        return said + (alone if k == 2 else "; standard errors over data points and networks")

    def __repr__(self) -> str:
        """Describe the mean, and each pair on a line."""
        lines = [f"NetworkDistance: {self.summary}"]
        rows = self._columns()
        for first, second, data, distance, error in list(zip(*list(rows.values())[:5], strict=True))[:20]:
            lines.append(f"  {first} and {second}: {distance:.4g} +- {error:.2g} ({data})")
        return "\n".join(lines)

    def _columns(self) -> Columns:
        """Return a row per pair of networks and set of data."""
        names = ["first", "second", "data", "distance", "standard_error"]
        names += ["from_first", "from_second"] if self.loss == "kl" else []
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for a, b in combinations(range(len(self.names)), 2):
            for what, found in (("data", self.data), ("held out", self.held_out)):
                if found is None:
                    continue
                row = (self.names[a], self.names[b], what, found.between(a, b), found.error_between(a, b))
                both = float(found.matrix[a, b]), float(found.matrix[b, a])
                for name, value in zip(names, (*row, *both), strict=False):
                    columns[name].append(value)
        return columns

    def _repr_html_(self) -> str:
        """Return a table of the pairs."""
        columns = {name.replace("_", " "): column for name, column in self._columns().items()}
        return html_table("Distances between networks", columns, [self.summary])

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        arrays: dict[str, np.ndarray] = {}
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("data", "held_out"):
            if (found := values[name]) is not None:
                arrays |= {f"{name}.matrix": found.matrix, f"{name}.errors": found.errors}
                values[name] = {**asdict(found), "matrix": None, "errors": None}
        return encode("distance", arrays, values)

    @classmethod
    def from_bytes(cls, data: bytes) -> NetworkDistance:
        """Rebuild distances from `to_bytes`."""
        arrays, meta = decode("distance", data)
        values = {f.name: meta[f.name] for f in fields(cls)}
        values |= {name: tuple(values[name]) for name in ("names", "sha256")}
        for name in ("data", "held_out"):
            if values[name] is not None:
                kept = {part: arrays[f"{name}.{part}"] for part in ("matrix", "errors")}
                values[name] = PairDistances(**{**values[name], **kept})
        return cls(**values)


@with_bar
def network_distance(
    networks: Sequence[Network | Checkpoint],
    batches: Iterable[Batch] | None = None,
    *,
    held_out: Iterable[Batch] | None = None,
    names: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
) -> NetworkDistance:
    r"""Compute the behavioural loss between networks that do the same job, for every pair of them.

        D(a, b) = 1/n sum_x |f_a(x) - f_b(x)|^2,   or   1/n sum_x KL(p_a(. | x) || p_b(. | x))

    by the loss of the networks: that of b with a as the trained network (eq. 6), summed over the positions that count.
    KL has a direction; the distance of a pair is the mean of both. The mean over all pairs of networks trained alike
    from other seeds is a loss scale below which networks differ by their seeds alone.

    Pairs share networks, so they are no independent draws. With U the mean over all pairs of K networks, U_-i that
    without network i and U_- their mean, the jackknife of this U-statistic has the variance

        (K - 1) / K sum_i (U_-i - U_-)^2

    which is right where distances are sums of a term for each network, and else too large on average. The variance over
    data points, of the mean over pairs at each, is added to it.

    Args:
        networks: two or more, of one loss; or loaded checkpoints.
        batches: the data; default: those of the first checkpoint.
        held_out: held-out data; default: those of the first checkpoint where `batches` is not given.
        names: of the networks; default: label and step of checkpoints, and "network 0", ... for others.
        progress: called after each batch.

    Raises:
        InputError: fewer than two networks, different losses, or names that do not fit.
        DataError: no data, outputs of different shapes, or that are not finite.

    Source: paper, after eq. 8; Efron and Stein, Annals of Statistics 9 (1981), on the jackknife.

    >>> linear = [torch.nn.Linear(1, 1, bias=False) for _ in range(3)]
    >>> for weight, each in enumerate(linear):
    ...     _ = torch.nn.init.constant_(each.weight, weight)
    >>> found = network_distance([Network(each, ()) for each in linear], [torch.tensor([[1.0], [-1.0]])])
    >>> found.data.matrix.tolist(), found.epsilon, found.data.error_of_data
    ([[0.0, 1.0, 4.0], [1.0, 0.0, 1.0], [4.0, 1.0, 0.0]], 2.0, 0.0)
    """
    given = list(networks)
    called = _called(given, names)
    nets = [each.network if isinstance(each, Checkpoint) else each for each in given]
    losses = {name: net.loss for name, net in zip(called, nets, strict=True)}
    if len(set(losses.values())) > 1:
        said = ", ".join(f"{name} {loss}" for name, loss in losses.items())
        raise InputError(f"the networks have different losses, {said}: expected one loss for all")
    first = given[0]
    if batches is None:
        if not isinstance(first, Checkpoint):
            raise InputError("no data: give batches, or loaded checkpoints, which have their own")
        batches = first.batches
        held_out = first.test_batches if held_out is None else held_out
    data = _distances(nets, called, batches, progress)
    there = None if held_out is None else _distances(nets, called, held_out, progress)
    return NetworkDistance(called, tuple(map(_digest, given)), nets[0].loss, data, there)


def _called(networks: Sequence[Net], names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of networks, all different."""
    if len(networks) < 2:
        raise InputError(f"{len(networks)} network{'s' * (not networks)} given: a distance needs two or more")
    if names is not None:
        if len(names) != len(networks) or len(set(names)) < len(names):
            raise InputError(f"the names are {list(names)}: expected {len(networks)} different ones")
        return tuple(map(str, names))
    found: list[str] = []
    for i, each in enumerate(networks):
        name = f"network {i}"
        if isinstance(each, Checkpoint):
            name = each.label if each.step is None else f"{each.label}@{each.step}"
        found.append(f"{name} ({i})" if name in found else name)
    return tuple(found)


def _digest(network: Net) -> str:
    """Return the SHA-256 of a checkpoint's file, else of names, shapes and numbers of a network's parameters."""
    if isinstance(network, Checkpoint):
        return network.sha256
    found = hashlib.sha256()
    for name, value in sorted(network.model.state_dict().items()):
        array = value.detach().cpu()
        found.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        found.update(array.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _distances(
    nets: Sequence[Network], names: Sequence[str], batches: Iterable[Batch], progress: ProgressCallback | None
) -> PairDistances:
    """Compute the distances on one set of data, in one pass."""
    k = len(nets)
    pairs = [(a, b) for a in range(k) for b in range(k) if a != b]
    sums = _Sums(len(pairs) + 1)
    for batch in read_batches(batches, "distances", progress):
        outputs = _outputs(nets, names, batch)
        columns = list(_columns_of(nets[0].loss, outputs, pairs))
        for (a, b), column in zip(pairs, columns, strict=True):
            if not torch.isfinite(column).all():
                raise DataError(
                    f"the distance of {names[b]} from {names[a]} is not finite: their outputs are too large"
                )
        sums.add(torch.stack([*columns, torch.stack(columns).mean(0)]))
    means, errors = sums.mean.numpy(), sums.errors
    matrix, spread = np.zeros((k, k)), np.zeros((k, k))
    for (a, b), mean, error in zip(pairs, means, errors, strict=False):
        matrix[a, b], spread[a, b] = mean, error
    of_data = None if sums.n < 2 else float(errors[-1])
    return PairDistances(matrix, spread, float(means[-1]), of_data, _jackknife(matrix), sums.n)


def _outputs(nets: Sequence[Network], names: Sequence[str], batch: Batch) -> list[Tensor]:
    """Return the outputs of all networks in float64, of one shape and finite."""
    outputs: list[Tensor] = []
    for net, name in zip(nets, names, strict=True):
        try:
            output = net.output(batch).detach().cpu().double()
        except InterbasisError as error:
            raise type(error)(f"{name}: {error}") from error
        if outputs and output.shape != outputs[0].shape:
            shapes = tuple(outputs[0].shape), tuple(output.shape)
            raise DataError(
                f"the outputs of {names[0]} and {name} have shapes {shapes[0]} and {shapes[1]} (data points, "
                "positions, width): expected networks that do the same job"
            )
        if not torch.isfinite(output).all():
            raise DataError(f"{name}: NaN or infinite outputs: check its weights")
        outputs.append(output)
    return outputs


def _columns_of(
    loss: str, outputs: Sequence[Tensor], pairs: Sequence[tuple[int, int]]
) -> Iterator[Float[Tensor, " points"]]:
    """Compute the loss of each data point, for each ordered pair of networks."""
    if loss == "mse":
        for a, b in pairs:
            yield (outputs[a] - outputs[b]).square().flatten(1).sum(1)
        return
    logs = [output.log_softmax(-1) for output in outputs]
    for a, b in pairs:
        change = logs[b] - logs[a]
        p, q = logs[a].exp(), logs[b].exp()
        # sum q - p = 0, so that every term is >= 0; small changes without cancellation, large ones without overflow
        near = p * (torch.expm1(change.clamp(-_SMALL, _SMALL)) - change)
        yield torch.where(change.abs() <= _SMALL, near, q - p - p * change).flatten(1).sum(1)


def _jackknife(matrix: Float[np.ndarray, "k k"]) -> float | None:
    """Compute the standard error of the mean over pairs by leaving out each network in turn.

    >>> _jackknife(np.array([[0.0, 1.0, 4.0], [1.0, 0.0, 1.0], [4.0, 1.0, 0.0]]))  # 2/3 (1 + 4 + 1) = 4
    2.0
    """
    k = len(matrix)
    if k < 3:
        return None
    whole = matrix.sum()
    without = (whole - matrix.sum(0) - matrix.sum(1)) / ((k - 1) * (k - 2))
    return float(np.sqrt((k - 1) / k * ((without - without.mean()) ** 2).sum()))


class _Sums:
    """Means and standard errors of columns over data points, merged batch by batch (Chan, Golub and LeVeque, 1983)."""

    def __init__(self, columns: int) -> None:
        self.n = 0
        self.mean = torch.zeros(columns, dtype=torch.float64, device="cpu")
        self._squares = torch.zeros(columns, dtype=torch.float64, device="cpu")

    def add(self, values: Float[Tensor, "columns points"]) -> None:
        """Take the data points of a batch."""
        count = values.shape[1]
        mean = values.mean(1)
        change, whole = mean - self.mean, self.n + count
        self._squares += (values - mean[:, None]).square().sum(1) + change.square() * (self.n * count / whole)
        self.mean += change * (count / whole)
        self.n = whole

    @property
    def errors(self) -> Float[np.ndarray, " columns"]:
        """The standard errors of the means; NaN for a single data point."""
        if self.n < 2:
            return np.full(len(self.mean), np.nan)
        return np.asarray((self._squares / (self.n * (self.n - 1))).sqrt().numpy())


def _with_error(found: PairDistances) -> str:
    error = found.standard_error
    return f"{found.mean:.4g}" + ("" if error is None else f" +- {error:.2g}")
