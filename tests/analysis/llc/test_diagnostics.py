"""What is made of traces: which control variates are refused, and each reason of a verdict on its own."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interbasis.analysis.llc.curvature import Below
from interbasis.analysis.llc.diagnostics import ControlVariate, Diagnostics, control_variate, judge, mean_with_error

NOISE = np.random.default_rng(0).normal(size=(4, 400))
OTHER = np.random.default_rng(1).normal(size=(4, 400))
SLOW = np.stack([np.convolve(row, np.ones(8), "same") for row in np.random.default_rng(2).normal(size=(4, 400))])
SLOW = (SLOW - SLOW.mean(1, keepdims=True)) / SLOW.std()


# Control variates


def test_variable_with_mean_0_is_taken_off() -> None:
    corrected, used = control_variate(3 + NOISE / 2 + OTHER / 10, {"stein": NOISE - NOISE.mean()})
    assert set(used.coefficients) == {"stein"}
    assert not used.refused
    before, after = mean_with_error(3 + NOISE / 2 + OTHER / 10), mean_with_error(corrected)
    assert abs(used.coefficients["stein"] - 0.5) < 4 * 0.1 / math.sqrt(NOISE.size)
    assert abs(after.mean - 3) < 4 * after.error
    assert after.error < 0.3 * before.error


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        (NOISE + np.array([[-1.0], [1.0], [-1.0], [1.0]]), "it has not mixed: R-hat 1."),
        (NOISE - NOISE.mean() + 0.2, "its mean is 0.2 +- 0.03, expected 0"),
        (np.zeros_like(NOISE), "it does not vary"),
        (NOISE[:, :40], "fewer than 50 draws"),
        (NOISE + SLOW, "it does not lower the error"),
    ],
    ids=["unmixed", "shifted", "constant", "short", "useless"],
)
def test_variable_that_cannot_be_trusted_is_refused(variable: np.ndarray, said: str) -> None:
    value = (3 + NOISE / 2)[:, : variable.shape[1]]
    corrected, used = control_variate(value, {"stein": variable})
    assert corrected is value
    assert not used.coefficients
    assert used.refused["stein"].startswith(said)


def test_expected_shift_of_a_fixed_step_is_no_reason_to_refuse() -> None:
    _, used = control_variate(3 + NOISE / 2, {"stein": NOISE + 0.2}, {"stein": 0.2})
    assert set(used.coefficients) == {"stein"}
    _, used = control_variate(3 + NOISE / 2, {"stein": NOISE + 0.6}, {"stein": 0.2})
    assert used.refused["stein"].endswith("expected 0.2")


def test_one_refused_variable_does_not_take_the_other_with_it() -> None:
    corrected, used = control_variate(3 + NOISE / 2, {"stein": OTHER + 1, "virial": NOISE})
    assert set(used.refused) == {"stein"}
    np.testing.assert_allclose(corrected, 3.0)


def test_chain_does_not_choose_its_own_coefficients() -> None:
    """Else its noise would be fitted away, and the error with it."""
    first = 3 + NOISE / 2 + OTHER / 10
    second = first.copy()
    second[0] += OTHER[1]
    taken = [value - control_variate(value, {"stein": NOISE})[0] for value in (first, second)]
    np.testing.assert_allclose(taken[0][0], taken[1][0], rtol=1e-12, atol=1e-12)
    assert not np.allclose(taken[0][1], taken[1][1], rtol=1e-6)


# Verdicts

GOOD = Diagnostics(
    r_hat=1.001,
    ess=900.0,
    r_hat_radius=1.001,
    plain=5.0,
    plain_error=0.05,
    control_variate=ControlVariate({}, {}),
    virial=1.0,
    virial_error=0.002,
    heat=1.0,
    acceptance=0.8,
    soft_rank=5.0,
    step_bias=0.0,
    radius=0.1,
    localised=0.5,
    failed_chains=(),
    rejected=0,
    kernel="hmc",
    preconditioner="gauss-newton",
    execution="vectorised",
    step_sizes=(0.5,) * 4,
    leapfrog=3,
    chains=4,
    warmup=300,
    draws=500,
    gradients=4000,
    largest_curvature=1.0,
)
WEAK = Below(worth=2.0, directions=5.0, lowest=0.01, highest=0.5)


def verdict(changes: dict[str, Any]) -> tuple[str, str]:
    """On a good run of value 5 and error 0.05 but for the changes."""
    changes = dict(changes)
    value, error = changes.pop("value", 5.0), changes.pop("error", 0.05)
    return judge(value, error, replace(GOOD, **changes))


REASONS = [
    ("failed", {"failed_chains": (0, 1, 2, 3)}, {}, "every chain ran into NaN"),
    ("failed", {"value": math.nan}, {}, "the estimate is not a number"),
    ("failed", {"acceptance": 0.09, "rejected": 7}, {"rejected": 7}, "7 proposals had a loss or gradient that is not"),
    ("failed", {"acceptance": 0.09}, {"acceptance": None}, "only 9.0% of the proposals were accepted"),
    ("failed", {"value": -0.11, "plain": -0.2}, {"value": -0.09, "plain": -0.2}, "the estimate is negative"),
    ("failed", {"descent": 5.1}, {"descent": 0.2}, "nearby t L falls by 5.1, and lambda is too low by about that"),
    ("failed", {"descent": 1.0, "value": -0.05}, {"descent": 0.09, "value": 0.01}, "nearby t L falls by 1,"),
    ("failed", {"r_hat": 1.11}, {"r_hat": 1.019}, "the chains disagree: R-hat 1.11"),
    ("failed", {"r_hat": math.inf}, {}, "the chains disagree: R-hat inf"),
    ("failed", {"ess": 19.0}, {"ess": 101.0}, "only 19 effective draws: run the chains longer"),
    ("failed", {"step_bias": -1.1}, {"step_bias": -0.09}, "its bias is -22.0% on a quadratic loss"),
    ("failed", {"step_bias": math.inf}, {}, "its bias is without bound on a quadratic loss"),
    ("doubtful", {"failed_chains": (2,)}, {}, "chains [2] ran into NaN"),
    ("doubtful", {"r_hat": 1.03}, {"r_hat": 1.019}, "the chains differ a little: R-hat 1.030"),
    ("doubtful", {"r_hat_radius": 1.06}, {"r_hat_radius": 1.04}, "different distances from theta*: R-hat 1.06"),
    ("doubtful", {"r_hat": math.nan}, {}, "one chain cannot tell whether it has mixed"),
    ("doubtful", {"ess": 99.0}, {"ess": 101.0}, "only 99 effective draws"),
    ("doubtful", {"virial": 1.06}, {"virial": 1.04}, "the virial ratio is 1.060 +- 0.002, expected 1"),
    ("doubtful", {"virial": 0.94}, {"virial": 0.9, "virial_error": 0.03}, "the virial ratio is 0.940 +- 0.002"),
    ("doubtful", {"virial": 1.06, "step_bias": 0.01}, {"step_bias": 0.01}, "theta*, or the step is too large"),
    ("doubtful", {"acceptance": 0.39}, {"acceptance": 0.41}, "only 39% of the proposals were accepted"),
    ("doubtful", {"step_bias": 0.11}, {"step_bias": 0.09}, "the step adds 2.2% on a quadratic loss"),
    ("doubtful", {"descent": 0.3}, {"descent": 0.25}, "nearby t L falls by 0.3, and lambda is too low by about that"),
    ("doubtful", {"n_parameters": 9}, {"n_parameters": 10}, "N_eff is 10, above the number of parameters, 9"),
    ("doubtful", {"soft_rank": 1.9}, {"soft_rank": 2.0}, "lambda is far above 1.9, the soft rank of the quadratic"),
    (
        "doubtful",
        {"below": replace(WEAK, worth=51.0)},
        {"below": WEAK},
        "most of what the loss feels lies below the localiser",
    ),
    ("doubtful", {"descent": 0.3}, {"descent": 0.3, "error": 0.2}, "theta* is not at a minimum"),
]


@pytest.mark.parametrize(("expected", "changes", "harmless", "said"), REASONS, ids=[row[3][:40] for row in REASONS])
def test_each_reason_is_told_and_not_without_cause(
    expected: str, changes: dict[str, Any], harmless: dict[str, Any], said: str
) -> None:
    found, reason = verdict(changes)
    assert found == expected
    assert said in reason
    assert verdict(harmless)[0] == "reliable"


def test_all_reasons_are_named_and_the_worst_counts() -> None:
    found, reason = verdict({"r_hat": 1.2, "ess": 50.0, "descent": 0.3})
    assert found == "failed"
    assert [part.split()[0] for part in reason.split("; ") if part[0] != "r"] == ["the", "only", "theta*", "train"]
    assert verdict({})[1] == "R-hat 1.001, 900 effective draws, virial 1.000, soft rank of the quadratic 5"


def test_loss_that_is_never_negative_is_not_called_a_saddle() -> None:
    """Its mean cannot be below 0; what a control variate takes off may be, by chance."""
    assert verdict({"value": -0.11, "plain": 0.02})[0] == "reliable"


def test_directions_below_the_localiser_are_noted_however_they_were_counted() -> None:
    for exact, count in ((True, "5 directions"), (False, "about 5 directions")):
        found, reason = verdict({"below": replace(WEAK, exact=exact)})
        assert found == "reliable"
        assert f"asked for: {count} lie below the localiser" in reason
        assert reason.endswith("up to 2 in lambda")


def test_notes_stand_at_the_end_of_every_reason() -> None:
    assert verdict({"notes": ("computed by hand",)})[1].endswith("soft rank of the quadratic 5; computed by hand")
    assert verdict({"notes": ("computed by hand",), "ess": 50.0})[1] == "only 50 effective draws; computed by hand"
