"""Diagnostics of an estimate from the traces of its sampler, and the verdict.

    R-hat, ESS   rank-normalised split R-hat and bulk effective sample size (Vehtari et al. 2021), from ArviZ
    virial       E[D . grad U] / d = 1, with D = theta - theta*
    heat         t^2 Var(L) / lambda = 1 - d log lambda / d log t
    Stein        E[(M D) . grad U] = tr M, M = t H (t H + gamma)^-1: a control variate that takes all the noise off a
                 quadratic loss
    step bias    of kernels without a Metropolis rule, from the spectrum (`Kernel.energies`)

Together they give a verdict: reliable, doubtful or failed, with the reason in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from .curvature import Below

__all__ = ["ControlVariate", "Diagnostics", "Evidence", "control_variate", "judge", "mean_with_error"]

_MANY = 100.0  # with fewer effective draws an estimate is doubtful

_FEW = 20.0  # and with fewer than these it has failed

_MIXED, _UNMIXED = 1.02, 1.1  # R-hat

_LOCALLY_MIXED = 1.05  # R-hat of the distance from theta*

_BIAS, _LARGE_BIAS = 0.02, 0.2  # of a fixed step relative to the value

_VIRIAL = 0.05

_FIT = 50  # least draws per chain to fit coefficients

_REJECTING, _RARE = 0.1, 0.4  # acceptance

_MOSTLY_BELOW = 10.0  # times the estimate lie below the localiser: then it decides what is counted

_FAR_ABOVE = 2.0, 1.0  # an estimate above (factor) * soft rank + (constant) is doubtful

_DOWNHILL, _FAR_DOWNHILL = 0.05, 0.5  # descent of t L from theta*, relative to the estimate without it


@dataclass(frozen=True)
class Evidence:
    """A mean over chains with its error and convergence.

    Attributes:
        mean, error: mean of the draws and its Monte Carlo standard error.
        ess, r_hat: effective sample size, the smaller of bulk and tail, and rank-normalised split R-hat.
    """

    mean: float
    error: float
    ess: float
    r_hat: float


@dataclass(frozen=True)
class ControlVariate:
    """Variables with a known mean of 0, and the multiples of them subtracted from the draws.

    Attributes:
        coefficients: coefficients of the variables that were used: "stein" and "virial".
        refused: why others were not used.
    """

    coefficients: dict[str, float]
    refused: dict[str, str]


@dataclass(frozen=True)
class Diagnostics:
    """All diagnostics of an estimate.

    Attributes:
        r_hat, ess: of the loss, the worse of the values with and without the control variate; ess is the smaller of
            bulk and tail.
        r_hat_radius: R-hat of |theta - theta*|.
        plain, plain_error: t (mean L - L(theta*)) and its standard error, without the control variate.
        control_variate: see `ControlVariate`.
        virial, virial_error: E[D . grad U] / d, expected 1.
        heat: t^2 Var(L) / plain.
        acceptance: mean over chains and draws; None without a rule.
        soft_rank: 1/2 sum t H / (t H + gamma), the value for a quadratic loss.
        step_bias: bias of `plain` from the step on a quadratic loss, noise of random batches included.
        radius: root mean square of |theta - theta*|.
        localised: gamma <|theta - theta*|^2> / d; 1 if the localiser alone confines the chains.
        failed_chains: chains with numbers that are not finite; they are left out of the averages.
        rejected: number of draws whose proposal was not finite.
        kernel, preconditioner, execution: those used.
        step_sizes, leapfrog: those used.
        chains, warmup, draws, gradients: per chain but for the first.
        largest_curvature: largest eigenvalue of H.
        descent: decrease of t L from theta* to the minimum of the quadratic, 0 at a minimum; lambda is measured from
            L(theta*), so it is too low by about this amount.
        prior: amount that the localiser subtracts from lambda, 1/2 sum gamma / (t H + gamma) over directions that the
            loss confines more (`Curvature.hidden`), and over the others if they add little; the interval reaches higher
            by this amount.
        below: the others if they add much; these are not in the interval, since the radius asked for decides how many
            count. The verdict is doubtful where they could add ten times the estimate.
        n_parameters: number of parameters that are varied; 0 in files of version 0.6.
        derivatives: "torch.func", or "autograd" for models that torch.func does not support, one chain at a time.
        notes: other remarks, as sentences.
    """

    r_hat: float
    ess: float
    r_hat_radius: float
    plain: float
    plain_error: float
    control_variate: ControlVariate
    virial: float
    virial_error: float
    heat: float
    acceptance: float | None
    soft_rank: float
    step_bias: float
    radius: float
    localised: float
    failed_chains: tuple[int, ...]
    rejected: int
    kernel: str
    preconditioner: str
    execution: str
    step_sizes: tuple[float, ...]
    leapfrog: int | None
    chains: int
    warmup: int
    draws: int
    gradients: int
    largest_curvature: float
    descent: float = 0.0  # files of version 0.5 lack it
    prior: float = 0.0  # files of version 0.6 lack this and the rest
    below: Below = field(default_factory=Below)
    n_parameters: int = 0
    derivatives: str = "torch.func"
    notes: tuple[str, ...] = ()


def mean_with_error(trace: Float[np.ndarray, "chains draws"]) -> Evidence:
    """Compute the mean of a trace with its Monte Carlo standard error, ESS and R-hat.

    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> found = mean_with_error(draws)
    >>> abs(found.mean) < 4 * found.error, 3000 < found.ess < 5500, found.r_hat < 1.01
    (True, True, True)
    """
    from arviz_stats.base.array import array_stats  # takes a second

    mean = float(trace.mean()) if trace.size else math.nan
    spread = float(trace.std()) if trace.size else math.nan
    if not trace.size or not spread > 1e-12 * max(abs(mean), 1e-300):
        return Evidence(mean, 0.0 if trace.size else math.nan, float(trace.size), 1.0)
    if not (trace.std(1) > 1e-12 * max(abs(mean), 1e-300)).all():  # a chain that never moved
        return Evidence(mean, spread, 1.0, math.inf)
    axes = {"chain_axis": 0, "draw_axis": 1}
    error = float(array_stats.mcse(trace, method="mean", **axes))
    ess = float(array_stats.ess(trace, method="bulk", **axes))
    ess = min(ess, float(array_stats.ess(trace, method="tail", prob=(0.05, 0.95), **axes)))
    r_hat = float(array_stats.rhat(trace, method="rank", **axes)) if len(trace) > 1 else math.nan
    return Evidence(mean, error, ess, r_hat)


def control_variate(
    value: Float[np.ndarray, "chains draws"],
    variables: Mapping[str, Float[np.ndarray, "chains draws"]],
    shifts: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Float[np.ndarray, "chains draws"], ControlVariate]:
    """Subtract fitted multiples of variables with mean 0 from the draws, unless this cannot be trusted.

    The coefficients of a chain are fitted on the other chains. A variable is refused if it has not mixed, or if its
    mean is not 0 (with a fixed step: not near the expected shift); all are refused if they do not lower the error.

    >>> noise = np.random.default_rng(0).normal(size=(2, 100))
    >>> corrected, used = control_variate(3 + noise / 2, {"stein": noise})
    >>> bool(abs(corrected.mean() - 3) < 1e-12), round(used.coefficients["stein"], 6)
    (True, 0.5)
    """
    refused: dict[str, str] = {}
    kept: dict[str, Float[np.ndarray, "chains draws"]] = {}
    for name, variable in variables.items():
        found, shift = mean_with_error(variable), shifts.get(name, 0.0)
        if variable.shape[1] < _FIT or not float(variable.std()) > 0:
            refused[name] = f"fewer than {_FIT} draws" if variable.shape[1] < _FIT else "it does not vary"
        elif found.r_hat > _MIXED:
            refused[name] = f"it has not mixed: R-hat {found.r_hat:.3f}"
        elif abs(found.mean - shift) > 4 * found.error + abs(shift):
            refused[name] = f"its mean is {found.mean:.3g} +- {found.error:.1g}, expected {shift:.3g}"
        else:
            kept[name] = variable
    if not kept:
        return value, ControlVariate({}, refused)
    columns = np.stack(list(kept.values()), -1)
    fits = [_coefficients(value, columns, leave_out=c) for c in range(len(value))]
    corrected = value - np.einsum("cdk,ck->cd", columns, np.stack(fits))
    if not mean_with_error(corrected).error < mean_with_error(value).error:
        return value, ControlVariate({}, refused | dict.fromkeys(kept, "it does not lower the error"))
    mean = np.mean(fits, axis=0)
    return corrected, ControlVariate({name: float(c) for name, c in zip(kept, mean, strict=True)}, refused)


def _coefficients(
    value: Float[np.ndarray, "chains draws"], columns: Float[np.ndarray, "chains draws k"], leave_out: int
) -> Float[np.ndarray, " k"]:
    """Fit by least squares over the other chains, so that a chain's own noise does not enter its coefficients."""
    others = np.arange(len(value)) != leave_out if len(value) > 1 else np.ones(1, dtype=bool)
    x, y = columns[others].reshape(-1, columns.shape[-1]), value[others].ravel()
    return np.asarray(np.linalg.lstsq(x - x.mean(0), y - y.mean(), rcond=1e-10)[0])


def interval_around(evidence: Evidence, systematic: float) -> tuple[float, float]:
    """Compute the 95 % interval: Student's t with ESS - 1 degrees of freedom, plus a systematic error on both sides."""
    half = float(stdtrit(max(evidence.ess - 1, 1), 0.975)) * evidence.error + abs(systematic)
    return evidence.mean - half, evidence.mean + half


def finite_chains(*traces: Float[np.ndarray, "chains draws"]) -> Bool[np.ndarray, " chains"]:
    """Return which chains hold finite numbers only."""
    return np.asarray(np.isfinite(np.stack(traces)).all((0, 2)))


def judge(value: float, error: float, found: Diagnostics) -> tuple[str, str]:
    """Return the verdict on an estimate and the reason: the worst verdict that applies, with all its reasons.

    Args:
        value: the estimate.
        error: its standard error.
        found: its diagnostics.
    """
    failures = [reason for bad, reason in _failures(value, error, found) if bad]
    doubts = [reason for bad, reason in _doubts(value, error, found) if bad]
    notes = (_hidden(found), *found.notes) if found.below.worth > 0 else found.notes
    if failures:
        return "failed", "; ".join([*failures, *doubts, *notes])
    if doubts:
        return "doubtful", "; ".join([*doubts, *notes])
    return "reliable", (
        f"R-hat {found.r_hat:.3f}, {found.ess:.0f} effective draws, virial {found.virial:.3f}, "
        f"soft rank of the quadratic {found.soft_rank:.4g}" + "".join(f"; {note}" for note in notes)
    )


def _failures(value: float, error: float, found: Diagnostics) -> list[tuple[bool, str]]:
    chains = found.chains
    lost = len(found.failed_chains)
    low = value < -2 * error and found.plain < 0  # a loss that is never below L(theta*) has no negative mean
    far = found.descent > max(2 * error, _FAR_DOWNHILL * (value + found.descent))
    acceptance = 1.0 if found.acceptance is None else found.acceptance
    return [
        (
            lost == chains,
            "every chain ran into NaN or infinite numbers: the step is too large or the gradient is not finite",
        ),
        (not math.isfinite(value) and lost < chains, "the estimate is not a number"),
        (acceptance < _REJECTING and found.rejected > 0, _rejected(found)),
        (
            acceptance < _REJECTING and not found.rejected,
            f"only {acceptance:.1%} of the proposals were accepted: the step size is too large",
        ),
        (low, "the estimate is negative: theta* is not a minimum of this loss, and the chains went downhill from it"),
        (far, _downhill(found)),
        (found.r_hat > _UNMIXED, f"the chains disagree: R-hat {found.r_hat:.2f}; run them longer"),
        (found.ess < _FEW, f"only {found.ess:.0f} effective draws: run the chains longer"),
        (
            abs(found.step_bias) > _LARGE_BIAS * max(abs(found.plain), 1e-300),
            f"the step is too large: its bias is {_percent(found.step_bias, found.plain)} on a quadratic loss; "
            "lower step_size",
        ),
    ]


def _doubts(value: float, error: float, found: Diagnostics) -> list[tuple[bool, str]]:
    whole = value + found.descent
    downhill = max(2 * error, _DOWNHILL * whole) < found.descent <= max(2 * error, _FAR_DOWNHILL * whole)
    acceptance = 1.0 if found.acceptance is None else found.acceptance
    bias = _BIAS * max(abs(found.plain), 1e-300)
    least = value - 2 * error
    impossible = bool(found.n_parameters) and 2 * least > found.n_parameters
    return [
        (
            impossible,
            f"N_eff is {2 * value:.4g}, above the number of parameters, {found.n_parameters:,}: check that the model's "
            "gradients are derivatives and that theta* is a minimum",
        ),
        (
            not impossible and least > _FAR_ABOVE[0] * found.soft_rank + _FAR_ABOVE[1],
            f"lambda is far above {found.soft_rank:.4g}, the soft rank of the quadratic: the loss grows faster than "
            "its curvature at theta* says",
        ),
        (len(found.failed_chains) > 0, f"chains {list(found.failed_chains)} ran into NaN or infinite numbers"),
        (_MIXED < found.r_hat <= _UNMIXED, f"the chains differ a little: R-hat {found.r_hat:.3f}"),
        (
            found.r_hat_radius > _LOCALLY_MIXED,
            f"the chains sit at different distances from theta*: R-hat {found.r_hat_radius:.2f}",
        ),
        (math.isnan(found.r_hat), "one chain cannot tell whether it has mixed: run at least two"),
        (_FEW <= found.ess < _MANY, f"only {found.ess:.0f} effective draws"),
        (
            (off := abs(found.virial - 1)) > _VIRIAL and off > 4 * found.virial_error,
            f"the virial ratio is {found.virial:.3f} +- {found.virial_error:.1g}, expected 1: the chains have not "
            "reached all of the region around theta*" + (", or the step is too large" if found.step_bias else ""),
        ),
        (
            _REJECTING <= acceptance < _RARE,
            f"only {acceptance:.0%} of the proposals were accepted: the step size is too large",
        ),
        (
            bias < abs(found.step_bias) <= 10 * bias,
            f"the step adds {_percent(found.step_bias, found.plain)} on a quadratic loss; lower step_size",
        ),
        (downhill, _downhill(found)),
        (
            found.below.worth > _MOSTLY_BELOW * max(value, 0.0),
            "the radius decides what is counted: most of what the loss feels lies below the localiser",
        ),
    ]


def _hidden(found: Diagnostics) -> str:
    below = found.below
    directions = f"{'' if below.exact else 'about '}{below.directions:.0f} directions"
    softness = f"t H between {below.lowest:.2g} and {below.highest:.2g} gamma"
    return (
        f"this holds at the radius asked for: {directions} lie below the localiser ({softness}), and a larger "
        f"radius may count them, up to {below.worth:.3g} in lambda"
    )


def _downhill(found: Diagnostics) -> str:
    return (
        f"theta* is not at a minimum: nearby t L falls by {found.descent:.3g}, and lambda is too low by about that; "
        "train on, or use the behavioural loss"
    )


def _rejected(found: Diagnostics) -> str:
    return (
        f"{found.rejected} proposals had a loss or gradient that is not finite, and hardly any was accepted: check the "
        "model for NaN away from theta*"
    )


def _percent(part: float, whole: float) -> str:
    share = part / whole if whole else math.inf
    return f"{share:.1%}" if math.isfinite(share) else "without bound"


def to_json(found: Diagnostics) -> dict[str, Any]:
    """Convert to values that JSON can hold, NaN and infinity as None."""
    from dataclasses import asdict

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    result: dict[str, Any] = plain(asdict(found))
    return result
