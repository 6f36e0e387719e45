"""Estimates of the learning coefficient, at one loss scale and over many, as results that can be stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from ..notebook.tables import Columns, html_table
from ..results import Result, by_value, decode, encode
from .curvature import Below
from .diagnostics import ControlVariate, Diagnostics

__all__ = ["LearningCoefficient", "LearningCoefficientCurve", "nothing_varied", "packed", "unpacked"]


@by_value
@dataclass(frozen=True)
class LearningCoefficient(Result):
    """The learning coefficient lambda at one loss scale.

    Attributes:
        value: the estimate.
        standard_error: Monte Carlo standard error, from the effective sample size.
        interval: 95 % interval. It includes the known bias of a fixed step, and at the upper end the descent of the
            loss nearby (`diagnostics.descent`) and the part that the localiser hides (`diagnostics.prior`): `value`
            belongs to the localised posterior, `value + prior` is about the value without the localiser. It does not
            include `diagnostics.below`, where the localiser confines many directions more than the loss does; the
            reason says so, and where they could add ten times `value` the verdict is doubtful.
        epsilon: the loss scale it belongs to, (value + 1) / temperature; NaN for a value below -1, which has none.
        temperature: t = n beta.
        gamma: strength of the localiser.
        n_parameters: number of parameters that are varied.
        n: number of data points.
        verdict: "reliable", "doubtful" or "failed"; reason: the reason for it.
        diagnostics: all diagnostics of the estimate.
        traces: per draw (chains, draws): t (L - L(theta*)), D . grad U, (M D) . grad U, |D|, acceptance.
        names: names of the parameters that are varied.
        seed: seed of the chains.
        checked: whether the checks of the network ran and passed.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    epsilon: float
    temperature: float
    gamma: float
    n_parameters: int
    n: int
    verdict: str
    reason: str
    diagnostics: Diagnostics
    names: tuple[str, ...]
    seed: int
    traces: dict[str, Float[np.ndarray, "chains draws"]] = field(repr=False)
    checked: bool = False  # files of version 0.6 lack it

    @property
    def prior(self) -> float:
        """The part of lambda that the localiser hides, see `Diagnostics.prior`."""
        return self.diagnostics.prior

    @property
    def n_effective(self) -> float:
        """The effective parameter count N_eff = 2 lambda (paper, eq. 9)."""
        return 2 * self.value

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"LearningCoefficient({self.value:.4g} in [{low:.4g}, {high:.4g}] at epsilon {self.epsilon:.3g}, "
            f"{self.n_effective:.4g} of {self.n_parameters:,} parameters, {self.verdict})"
        )

    def _columns(self) -> Columns:
        """Return a row per chain and draw, with all traces."""
        chains, draws = self.traces["llc"].shape
        columns = {"chain": np.repeat(np.arange(chains), draws), "draw": np.tile(np.arange(draws), chains)}
        return columns | {name: trace.ravel() for name, trace in self.traces.items()}

    def _repr_html_(self) -> str:
        """Return the estimate with its interval, and the verdict with its reason."""
        return html_table("Learning coefficient", _point_columns([self]), [f"Verdict: {self.verdict} ({self.reason})"])

    def to_inference_data(self) -> Any:
        """Convert the traces to ArviZ InferenceData (an xarray DataTree); `.to_netcdf(path)` writes it."""
        return _inference_data([self])

    def to_bytes(self) -> bytes:
        """Pack the estimate into one safetensors file in memory."""
        return _encode("learning-coefficient", [self])

    @classmethod
    def from_bytes(cls, data: bytes) -> LearningCoefficient:
        """Rebuild an estimate from `to_bytes`."""
        return _decode("learning-coefficient", data)[0]


def nothing_varied(n: int, temperature: float, seed: int) -> LearningCoefficient:
    """Return the learning coefficient of no parameters at all: 0, without sampling."""
    still = np.zeros((1, 4))
    nothing = ("plain", "plain_error", "virial_error", "soft_rank", "step_bias", "radius", "localised")
    about: dict[str, Any] = dict.fromkeys((*nothing, "largest_curvature"), 0.0)
    about |= dict.fromkeys(("r_hat", "r_hat_radius", "virial", "heat"), 1.0) | {"ess": float(still.size)}
    about |= dict.fromkeys(("kernel", "preconditioner", "execution"), "none") | dict.fromkeys(("rejected", "warmup"), 0)
    about |= {"chains": 1, "draws": 4, "gradients": 0, "acceptance": None, "leapfrog": None, "step_sizes": ()}
    found = Diagnostics(**about, failed_chains=(), control_variate=ControlVariate({}, {}))
    return LearningCoefficient(
        value=0.0,
        standard_error=0.0,
        interval=(0.0, 0.0),
        epsilon=1 / temperature,
        temperature=temperature,
        gamma=0.0,
        n_parameters=0,
        n=n,
        verdict="reliable",
        reason="no parameter is varied, so that the coefficient is 0",
        diagnostics=found,
        names=(),
        seed=seed,
        traces=dict.fromkeys(("llc", "virial", "stein", "radius", "acceptance"), still),
    )


@dataclass(frozen=True)
class LearningCoefficientCurve(Result):
    """Lambda over a range of loss scales, in ascending order.

    Attributes:
        points: one estimate per loss scale.
    """

    points: tuple[LearningCoefficient, ...]

    @property
    def epsilons(self) -> Float[np.ndarray, " points"]:
        """The loss scales."""
        return np.array([point.epsilon for point in self.points])

    @property
    def values(self) -> Float[np.ndarray, " points"]:
        """The value of lambda at each loss scale."""
        return np.array([point.value for point in self.points])

    @property
    def standard_errors(self) -> Float[np.ndarray, " points"]:
        """The Monte Carlo standard errors."""
        return np.array([point.standard_error for point in self.points])

    @property
    def n_effective(self) -> Float[np.ndarray, " points"]:
        """The effective parameter counts N_eff = 2 lambda."""
        return np.asarray(2 * self.values)

    @property
    def log_volume(self) -> Float[np.ndarray, " points"]:
        """The log volume log V(eps) relative to the smallest scale.

        log Z(t) = -int lambda d log t by the trapezoidal rule, and log V = log Z + lambda log(t eps) -
        log Gamma(lambda + 1), which is exact where V is a power of eps. NaN from the first scale without a value on.
        """
        shape = self._shape(self.values)
        return np.asarray(_products(self._volume_weights(), self.values) + shape - shape[0])

    @property
    def log_volume_error(self) -> Float[np.ndarray, " points"]:
        """The standard error of `log_volume`, from those of the values."""
        return np.asarray(np.sqrt(_products(self._volume_weights() ** 2, self.standard_errors**2)))

    @property
    def heat(self) -> Float[np.ndarray, " points"]:
        """1 - d log lambda / d log t by finite differences, to compare with `diagnostics.heat` of each point."""
        if len(self.points) < 2:
            return np.full(len(self.points), np.nan)
        return np.asarray(1 - np.gradient(np.log(np.maximum(self.values, 1e-300)), -self._cold()))

    @property
    def verdict(self) -> str:
        """The worst verdict of the points."""
        order = ("reliable", "doubtful", "failed")
        return max((point.verdict for point in self.points), key=order.index)

    @property
    def reason(self) -> str:
        """The reason for the worst point's verdict, with its loss scale."""
        worst = next(point for point in self.points if point.verdict == self.verdict)
        return worst.reason if self.verdict == "reliable" else f"at epsilon {worst.epsilon:.3g}: {worst.reason}"

    def __repr__(self) -> str:
        first, last = self.points[0], self.points[-1]
        return (
            f"LearningCoefficientCurve({len(self.points)} scales, N_eff {first.n_effective:.4g} at epsilon "
            f"{first.epsilon:.3g} to {last.n_effective:.4g} at {last.epsilon:.3g}, {self.verdict})"
        )

    def _columns(self) -> Columns:
        """Return a row per loss scale."""
        columns = _point_columns(self.points)
        more = {"temperature": [p.temperature for p in self.points], "log_volume": self.log_volume}
        return {**columns, **more, "reason": [p.reason for p in self.points]}

    def _repr_html_(self) -> str:
        """Return a table of the loss scales, and the worst verdict with its reason."""
        head = f"Learning coefficient at {len(self.points)} loss scales"
        return html_table(head, _point_columns(self.points), [f"Verdict: {self.verdict} ({self.reason})"])

    def to_inference_data(self) -> Any:
        """Convert the traces to ArviZ InferenceData with a dimension "scale"."""
        return _inference_data(self.points)

    def to_bytes(self) -> bytes:
        """Pack the curve into one safetensors file in memory."""
        return _encode("learning-coefficient-curve", self.points)

    @classmethod
    def from_bytes(cls, data: bytes) -> LearningCoefficientCurve:
        """Rebuild a curve from `to_bytes`."""
        return cls(tuple(_decode("learning-coefficient-curve", data)))

    def _cold(self) -> Float[np.ndarray, " points"]:
        return -np.log([point.temperature for point in self.points])

    def _volume_weights(self) -> Float[np.ndarray, "points points"]:
        """Return weights: row k is the trapezoidal rule for -log t from the first point to point k."""
        steps = np.diff(self._cold()) / 2
        weights = np.zeros((len(self.points), len(self.points)))
        for k, step in enumerate(steps):
            weights[k + 1 :, k] += step
            weights[k + 1 :, k + 1] += step
        return weights

    @staticmethod
    def _shape(values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        positive = np.maximum(values, 0.0)
        return np.asarray(positive * np.log(positive + 1) - gammaln(positive + 1))


def _point_columns(points: Sequence[LearningCoefficient]) -> dict[str, Any]:
    """Return the numbers of estimates, a row each."""
    return {
        "epsilon": [p.epsilon for p in points],
        "value": [p.value for p in points],
        "standard_error": [p.standard_error for p in points],
        "low": [p.interval[0] for p in points],
        "high": [p.interval[1] for p in points],
        "n_effective": [p.n_effective for p in points],
        "n_parameters": [p.n_parameters for p in points],
        "verdict": [p.verdict for p in points],
    }


def _products(weights: Float[np.ndarray, "k n"], values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " k"]:
    """Compute weights @ values, where NaN times a weight of 0 is 0."""
    return np.asarray(np.where(weights == 0, 0.0, weights * values).sum(1))


def _inference_data(points: Sequence[LearningCoefficient]) -> Any:
    from arviz_base import from_dict  # takes a second

    groups: dict[str, dict[str, Any]] = {"posterior": {}, "sample_stats": {}}
    for name in points[0].traces:
        stacked = np.stack([point.traces[name] for point in points], -1)
        group = "posterior" if name in ("llc", "radius") else "sample_stats"
        groups[group][name if name != "acceptance" else "acceptance_rate"] = stacked
    names = [name for group in groups.values() for name in group]
    tree = from_dict(
        groups, dims={name: ["epsilon"] for name in names}, coords={"epsilon": [point.epsilon for point in points]}
    )
    about = {"temperature": [p.temperature for p in points], "gamma": points[0].gamma, "seed": points[0].seed}
    corrected = {
        "llc_with_control_variates": [p.value for p in points],
        "llc_error": [p.standard_error for p in points],
    }
    tree.attrs.update(about | corrected | {"verdict": ", ".join(p.verdict for p in points)})
    return tree


_SCALARS = (
    "value",
    "standard_error",
    "epsilon",
    "temperature",
    "gamma",
    "n_parameters",
    "n",
    "verdict",
    "reason",
    "seed",
)


def packed(points: Sequence[LearningCoefficient]) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Return estimates as arrays and JSON, for a file."""
    arrays = {f"{name}.{i}": trace for i, point in enumerate(points) for name, trace in point.traces.items()}
    about = []
    for point in points:
        row = {name: getattr(point, name) for name in _SCALARS}
        about.append(
            row
            | {
                "interval": point.interval,
                "names": point.names,
                "checked": point.checked,
                "diagnostics": asdict(point.diagnostics),
            }
        )
    return arrays, about


def unpacked(arrays: Mapping[str, np.ndarray], about: Sequence[dict[str, Any]]) -> list[LearningCoefficient]:
    """Rebuild estimates from `packed`."""
    points = []
    for i, row in enumerate(about):
        found = row["diagnostics"]
        found |= {"control_variate": ControlVariate(**found["control_variate"])}
        found |= {"below": Below(**found.get("below", {}))}
        found |= {name: tuple(found.get(name, ())) for name in ("failed_chains", "step_sizes", "notes")}
        traces = {name.rpartition(".")[0]: trace for name, trace in arrays.items() if name.endswith(f".{i}")}
        points.append(
            LearningCoefficient(
                **{name: row[name] for name in _SCALARS},
                interval=tuple(row["interval"]),
                names=tuple(row["names"]),
                diagnostics=Diagnostics(**found),
                traces=traces,
                checked=row.get("checked", False),
            )
        )
    return points


def _encode(kind: str, points: Sequence[LearningCoefficient]) -> bytes:
    arrays, about = packed(points)
    return encode(kind, arrays, {"points": about})


def _decode(kind: str, data: bytes) -> list[LearningCoefficient]:
    arrays, about = decode(kind, data)
    return unpacked(arrays, about["points"])
