"""The samplers: one contract, exact answers on quadratic losses, the bias that is predicted, no noise, same seeds."""

import math

import numpy as np
import pytest
import torch
from cases_llc import quadratic, soft_rank

from interbasis.analysis.errors import InputError
from interbasis.analysis.llc.chains import Plan, Sampler, run_chains
from interbasis.analysis.llc.curvature import Metric, exact_curvature
from interbasis.analysis.llc.estimate import learning_coefficient
from interbasis.analysis.llc.kernels import (
    KERNELS,
    HamiltonianMonteCarlo,
    NoseHoover,
    Potential,
    PreconditionedLangevin,
    State,
    StochasticLangevin,
    langevin,
)
from interbasis.analysis.llc.landscape import Function
from interbasis.analysis.llc.network_loss import behavioural_loss
from interbasis.analysis.network.network import Network

ADJUSTED = [name for name, make in KERNELS.items() if make(Metric(1.0)).adjusted]
UNADJUSTED = [name for name in KERNELS if name not in ADJUSTED]
SLOPE = Function(lambda w: (w**2).sum() + w[0] ** 3 / 3, torch.zeros(3, dtype=torch.float64))


def draws(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + c) for c in range(count)]


def start() -> torch.Tensor:
    return torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.1, -1.0]], dtype=torch.float64)


# The contract, over the registry


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_pure_and_keep_their_shapes(name: str) -> None:
    kernel, potential = KERNELS[name](Metric(1.0)), Potential(SLOPE, 2.0, 1.0)
    state = kernel.init(start(), potential, 0.1)
    before = state.position.clone(), [m.clone() for m in state.memory]
    first, info = kernel.step(state, draws(2), potential)
    again, _ = kernel.step(state, draws(2), potential)
    other, _ = kernel.step(state, draws(2, seed=9), potential)
    assert torch.equal(state.position, before[0])
    assert all(torch.equal(a, b) for a, b in zip(state.memory, before[1], strict=True))
    assert torch.equal(first.position, again.position)
    assert not torch.equal(first.position, other.position)
    assert first.position.shape == start().shape
    assert first.loss.shape == (2,)
    assert info.acceptance.shape == (2,)
    assert info.finite.all()
    assert info.gradients >= 1
    loss, energy, gradient = potential(first.position)
    assert torch.equal(first.loss, loss)
    assert torch.equal(first.energy, energy)
    assert torch.equal(first.gradient, gradient)


@pytest.mark.parametrize("name", KERNELS)
def test_chains_alone_and_together_agree(name: str) -> None:
    kernel, potential = KERNELS[name](Metric(0.7)), Potential(SLOPE, 2.0, 1.0)
    together = kernel.init(start(), potential, 0.1)
    alone = [together.chain(c) for c in range(2)]
    shared, own = draws(2), draws(2)
    for _ in range(5):
        together, _ = kernel.step(together, shared, potential)
        alone = [kernel.step(state, [own[c]], potential)[0] for c, state in enumerate(alone)]
    torch.testing.assert_close(State.join(alone).position, together.position, rtol=1e-12, atol=1e-12)


# No noise: gradient descent


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_langevin_without_noise_is_gradient_descent(scale: float) -> None:
    potential = Potential(SLOPE, 2.0, 0.0)
    kernel = StochasticLangevin(Metric(scale), noise=0.0)
    state = kernel.init(start(), potential, 0.1)
    weights = torch.nn.Parameter(start()[0].clone())
    descent = torch.optim.SGD([weights], lr=0.05 * scale**2)
    for _ in range(4):
        state, _ = kernel.step(state, draws(2), potential)
        descent.zero_grad()
        (2 * SLOPE.function(weights)).backward()
        descent.step()
    torch.testing.assert_close(state.position[0], weights.detach(), rtol=1e-14, atol=1e-14)


def test_preconditioned_langevin_without_noise_is_scaled_descent() -> None:
    potential = Potential(SLOPE, 2.0, 0.0)
    kernel = PreconditionedLangevin(noise=0.0, adapting=False)
    state = kernel.init(start(), potential, 0.1)
    mean = torch.tensor([[4.0, 1.0, 0.25]], dtype=torch.float64).expand(2, 3)
    state = State(state.position, state.loss, state.energy, state.gradient, state.step_size, (mean, state.memory[1]))
    moved, _ = kernel.step(state, draws(2), potential)
    torch.testing.assert_close(moved.position, start() - 0.05 * state.gradient / mean.sqrt(), rtol=1e-14, atol=0)


def test_preconditioned_langevin_takes_the_mean_of_squared_gradients() -> None:
    potential, kernel = Potential(SLOPE, 2.0, 1.0), PreconditionedLangevin()
    state, seen = kernel.init(start(), potential, 0.1), []
    generators = draws(2)
    for _ in range(3):
        state, _ = kernel.step(state, generators, potential)
        seen.append(state.gradient.square())
    torch.testing.assert_close(state.memory[0], torch.stack(seen).mean(0))


def test_nose_hoover_without_noise_is_descent_with_momentum() -> None:
    potential, kernel, h = Potential(SLOPE, 2.0, 0.0), NoseHoover(noise=0.0), 0.1
    state = kernel.init(start()[:1], potential, h)
    weights, velocity = start()[0].clone(), torch.zeros(3, dtype=torch.float64)
    for _ in range(4):
        friction = float(state.memory[1][0])
        gradient = potential(weights[None])[2][0]
        state, _ = kernel.step(state, draws(1), potential)
        velocity = (1 - h * friction) * velocity - h * gradient  # heavy ball: lr = h^2, momentum = 1 - h xi
        weights = weights + h * velocity
        torch.testing.assert_close(state.position[0], weights, rtol=1e-14, atol=1e-14)


def test_single_leapfrog_step_without_noise_is_gradient_descent() -> None:
    potential = Potential(SLOPE, 2.0, 0.0)
    kernel = HamiltonianMonteCarlo(leapfrog=1, jitter=0.0, noise=0.0)
    state = kernel.init(start(), potential, 0.01)
    moved, info = kernel.step(state, draws(2), potential)
    torch.testing.assert_close(moved.position, start() - 0.01**2 / 2 * state.gradient, rtol=1e-14, atol=0)
    assert (info.acceptance > 0.999).all()


def test_mala_is_a_langevin_proposal() -> None:
    """Accepted or not by the density of the way back: checked against the textbook formula."""
    potential, h = Potential(SLOPE, 2.0, 1.0), 0.3
    state = langevin().init(start(), potential, h)
    moved, info = langevin().step(state, draws(2), potential)
    noise = torch.stack([torch.randn(3, generator=g, dtype=torch.float64) for g in draws(2)])
    proposal = start() - h**2 / 2 * state.gradient + h * noise
    _, energy, gradient = potential(proposal)
    back = (start() - proposal + h**2 / 2 * gradient).square().sum(1) / (2 * h**2)
    forth = (proposal - start() + h**2 / 2 * state.gradient).square().sum(1) / (2 * h**2)
    expected = torch.exp((state.energy - energy + forth - back).clamp(max=0.0))
    torch.testing.assert_close(info.acceptance, expected)
    for c in range(2):
        assert any(torch.allclose(moved.position[c], point[c]) for point in (proposal, start()))


# Quadratic losses, with the soft rank of the localiser

QUADRATICS = {
    "regular": [1.0, 2.0, 0.5, 3.0],
    "degenerate": [1.0, 2.0, 0.0, 0.0, 0.5],
    "ill-conditioned": [1e-3, 1.0, 1e3, 10.0, 0.0],
}


@pytest.mark.parametrize("which", QUADRATICS)
@pytest.mark.parametrize("name", ADJUSTED)
def test_adjusted_kernels_give_the_soft_rank(name: str, which: str) -> None:
    coefficients = QUADRATICS[which]
    sampler = Sampler(kernel=name, gamma=2.0, chains=16, warmup=150, draws=200, control_variate=False)
    found = learning_coefficient(quadratic(coefficients), temperature=50.0, sampler=sampler)
    exact = soft_rank(coefficients, 50.0, 2.0)
    assert abs(found.value - exact) < 4 * found.standard_error < 0.3
    assert found.diagnostics.soft_rank == pytest.approx(exact)
    weak = which == "ill-conditioned"  # one direction has t H = 0.1 below the localiser's 2, and would add a half
    assert found.verdict == "reliable"
    assert ("below the localiser" in found.reason) == weak


@pytest.mark.parametrize("which", QUADRATICS)
@pytest.mark.parametrize("name", ADJUSTED)
def test_control_variate_takes_all_noise_off_quadratics(name: str, which: str) -> None:
    coefficients = QUADRATICS[which]
    sampler = Sampler(kernel=name, gamma=2.0, draws=200)
    found = learning_coefficient(quadratic(coefficients), temperature=50.0, sampler=sampler)
    assert found.value == pytest.approx(soft_rank(coefficients, 50.0, 2.0), rel=1e-9)
    assert found.standard_error < 1e-9


@pytest.mark.parametrize("which", QUADRATICS)
@pytest.mark.parametrize("name", UNADJUSTED)
def test_unadjusted_kernels_give_the_soft_rank_and_their_bias(name: str, which: str) -> None:
    """With the step and the metric they choose themselves."""
    coefficients = QUADRATICS[which]
    draws = 3000 if name == "psgld" else 1000
    sampler = Sampler(kernel=name, gamma=2.0, chains=16, draws=draws, control_variate=False)
    found = learning_coefficient(quadratic(coefficients), temperature=50.0, sampler=sampler)
    exact = soft_rank(coefficients, 50.0, 2.0)
    assert abs(found.value - (exact + found.diagnostics.step_bias)) < 4 * found.standard_error < 0.5
    assert found.interval[0] < exact < found.interval[1]


@pytest.mark.parametrize("step", [0.1, 0.8])
@pytest.mark.parametrize("name", UNADJUSTED)
def test_unadjusted_kernels_have_the_bias_that_is_predicted(name: str, step: float) -> None:
    """Modes of equal stiffness mix at any step; the bias is far above the Monte Carlo error at the large one."""
    coefficients = [1.0] * 30 + [0.0] * 10
    # squared gradients average to a = t H + gamma, so psgld's metric has the stiffness sqrt(a); undo it in the step
    size = step / math.sqrt(42.0) if name == "psgld" else step if name == "sgld" else math.sqrt(step) / 4
    sampler = Sampler(
        kernel=name,
        preconditioner="none",
        gamma=2.0,
        warmup=300,
        draws=750,
        chains=16,
        step_size=size,
        control_variate=False,
    )
    found = learning_coefficient(quadratic(coefficients), temperature=20.0, sampler=sampler)
    exact, bias = soft_rank(coefficients, 20.0, 2.0), found.diagnostics.step_bias
    assert abs(found.value - (exact + bias)) < 4 * found.standard_error
    if step > 0.5:
        assert abs(bias) > 6 * found.standard_error
        assert found.verdict != "reliable"


def test_langevin_diverges_where_predicted() -> None:
    sampler = Sampler(kernel="sgld", preconditioner="none", gamma=2.0, warmup=60, draws=60, step_size=4.2)
    found = learning_coefficient(quadratic([1.0, 2.0]), temperature=20.0, sampler=sampler)
    assert found.verdict == "failed"
    assert found.diagnostics.step_bias == math.inf


# Chains


def small_loss():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    weights = torch.Generator().manual_seed(3)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=weights, dtype=torch.float64)
    data = torch.randn(20, 3, generator=weights, dtype=torch.float64)
    return behavioural_loss(Network(model, []), [data])


@pytest.mark.parametrize("kernel", KERNELS)
def test_vectorised_and_sequential_chains_agree(kernel: str) -> None:
    loss = small_loss()
    found = [
        learning_coefficient(
            loss,
            temperature=100.0,
            sampler=Sampler(kernel=kernel, chains=3, warmup=9, draws=12, execution=execution),
        )
        for execution in ("vectorised", "sequential")
    ]
    np.testing.assert_allclose(found[0].traces["llc"], found[1].traces["llc"], rtol=1e-7)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_processes_agree_and_seeds_repeat(workers: int) -> None:
    def run(execution: str, seed: int = 0) -> np.ndarray:
        sent = workers if execution == "processes" else None
        sampler = Sampler(chains=2, warmup=6, draws=8, execution=execution, workers=sent)
        return learning_coefficient(small_loss(), temperature=100.0, sampler=sampler, seed=seed).traces["llc"]

    vectorised = run("vectorised")
    np.testing.assert_allclose(run("processes"), vectorised, rtol=1e-8)
    np.testing.assert_array_equal(run("vectorised"), vectorised)
    assert not np.allclose(run("vectorised", seed=1), vectorised)
    assert not np.allclose(vectorised[0], vectorised[1])


@pytest.mark.usefixtures("checks_of_each_call")
@pytest.mark.parametrize("kernel", KERNELS)
def test_shapes_are_what_the_types_say(kernel: str) -> None:
    for more in ({"preconditioner": "lanczos"}, {"execution": "sequential"}):
        sampler = Sampler(kernel=kernel, chains=2, warmup=3, draws=4, **more)
        assert learning_coefficient(small_loss(), temperature=100.0, sampler=sampler).value > 0


def test_loss_that_cannot_be_sent_is_named() -> None:
    sampler = Sampler(gamma=1.0, chains=2, warmup=3, draws=4, execution="processes")
    with pytest.raises(InputError, match="another process"):
        learning_coefficient(quadratic([1.0]), temperature=10.0, sampler=sampler)


def test_warm_up_is_not_in_the_traces_and_cancels_cleanly() -> None:
    loss = quadratic([1.0, 2.0])
    curvature = exact_curvature(loss, [loss.start])
    potential, seen = Potential(loss, 10.0, 1.0), []
    chains = run_chains(
        potential, "hmc", curvature, Plan(2, 9, 7), metric=curvature.metric(10.0, 1.0), progress=seen.append
    )
    assert chains.loss.shape == (2, 7)
    assert [report.step for report in seen if report.done == report.total] == ["warm-up"] * 3 + ["sampling"]
    assert seen[-1].message.startswith("t (L - L*) = ")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_chains(potential, "hmc", curvature, Plan(2, 9, 7), metric=Metric(1.0), progress=stop)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kernel": "nuts"}, "unknown kernel"),
        ({"preconditioner": "kfac"}, "unknown preconditioner"),
        ({"chains": 0}, "chains is 0"),
        ({"draws": 1}, "draws is 1"),
        ({"radius": -1.0}, "radius is -1"),
        ({"gamma": math.nan}, "gamma is nan"),
        ({"step_size": 0.0}, "step size is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"execution": "gpu"}, "unknown execution"),
        ({"workers": 2}, "workers is 2 and execution 'auto'"),
    ],
)
def test_senseless_choices_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Sampler(**wrong)
