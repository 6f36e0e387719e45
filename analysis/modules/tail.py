"""p-values beyond the ranks among null graphs, by a tail of the generalised Pareto distribution.

With N null values the smallest rank is 1 / (1 + N). Beyond it, the largest values of the null graphs above a threshold
t are fitted by a generalised Pareto distribution, and

    p = (n_t / N) P(T - t >= value - t | T > t),

n_t the number of null values above t (Knijnenburg, Wessels, Reinders & Shmulevich 2009, "Fewer permutations, more
accurate P-values"): at first a quarter of them, then ten fewer as long as the fit is rejected (Anderson-Darling, 5 %).
The shape is at least 0, a tail no lighter than the exponential one, since a bounded tail would give p = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["LEAST_NULLS", "tail_p_value"]

LEAST_NULLS = 100

"""Number of null graphs from which on their tail is fitted."""

_SHARE = 0.25  # of the null values, in the first tail

_FEWEST = 20  # values in a tail

_REJECTED = 0.05

_SMALLEST = 1e-12  # no estimate is smaller

_SAMPLES = 199  # for the p-value of the fit


def tail_p_value(value: float, nulls: Float[np.ndarray, " n"], *, seed: int = 0) -> float | None:
    """Estimate the p-value of a value above all null values, see the head of this module.

    Args:
        value: the statistic of the graph.
        nulls: those of its null graphs.
        seed: of the Monte-Carlo test of the fit.

    Returns:
        The estimate, at least 1e-12; None with fewer than 100 null values, where one of them reaches the value or is
        not finite, where no fit is good, or where the estimate is no smaller than the rank.

    >>> nulls = np.quantile(np.random.default_rng(0).exponential(size=100_000), np.linspace(0.0025, 0.9975, 200))
    >>> bool(abs(np.log10(tail_p_value(12.0, nulls) / np.exp(-12.0))) < 1.0)
    True
    """
    from scipy.stats import genpareto, goodness_of_fit

    ordered = np.sort(np.asarray(nulls, dtype=np.float64))[::-1]
    if len(ordered) < LEAST_NULLS or not np.isfinite([value, *ordered]).all() or ordered[0] >= value:
        return None
    generator = np.random.default_rng(seed)
    for count in range(int(_SHARE * len(ordered)), _FEWEST - 1, -10):
        threshold = 0.5 * (ordered[count - 1] + ordered[count])
        above = ordered[:count] - threshold
        if not above[-1] > 0:
            continue
        shape, _, scale = genpareto.fit(above, floc=0)
        if shape < 0:
            shape, scale = 0.0, float(above.mean())
        known = {"c": shape, "loc": 0.0, "scale": scale}
        options: dict[str, Any] = {"known_params": known, "statistic": "ad", "n_mc_samples": _SAMPLES, "rng": generator}
        test = goodness_of_fit(genpareto, above, **options)
        if test.pvalue > _REJECTED:
            estimate = float(count / len(ordered) * genpareto.sf(value - threshold, shape, 0, scale))
            return max(estimate, _SMALLEST) if estimate < 1 / (1 + len(ordered)) else None
    return None
