"""devinterp's estimate of one network's learning coefficient; run by llc.py and llc_nonlinear.py in its environment.

    PEER/bin/python benchmarks/llc_devinterp.py 1|2 problem.pt answers.json

Version 1 takes any model; version 2 takes language models, and the network is given to it as one whose "tokens" are
numbers of data points, with a loss function of its own.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CHAINS = 4
BURN_IN = 0.25
STEPS = (0.5, 1.5)  # of SGLD, in units of 1 / largest curvature of the potential
_PILOTS = 100, 500  # steps of two runs, of whose CPU times the slope is that of a step and the rest is fixed cost

Run = Callable[[dict, float, int], np.ndarray]


def main() -> None:
    """Reads a problem and writes what devinterp answers, with what it cost."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    problem = torch.load(sys.argv[2], weights_only=True)
    run: Run = {"1": version_1, "2": version_2}[sys.argv[1]]
    answers = {"version": version("devinterp"), "runs": []}
    if sys.argv[1] == "1":
        answers["default"] = default(problem)
    run(problem, 0.1 / problem["stiffest"], 10)  # imports
    for step in STEPS:
        size = step / problem["stiffest"]
        spent = []
        for count in _PILOTS:
            begin = time.process_time()
            run(problem, size, count)
            spent.append(time.process_time() - begin)
        pace = max((spent[1] - spent[0]) / (_PILOTS[1] - _PILOTS[0]), 1e-6)
        fixed = max(spent[0] - _PILOTS[0] * pace, 0.0)
        steps = max(int((problem["seconds"] - fixed) / pace), _PILOTS[1])
        begin = time.process_time()
        losses = run(problem, size, steps)
        seconds = time.process_time() - begin
        kept = problem["t"] * losses[:, int(BURN_IN * steps) :].astype(float)
        answers["runs"].append({"step": step, "seconds": seconds, "steps": steps, "trace": kept.tolist()})
    with open(sys.argv[3], "w") as file:
        json.dump(answers, file)


def version_1(problem: dict, step: float, steps: int) -> np.ndarray:
    """Losses, chains by steps, from `estimate_learning_coeff_with_summary`."""
    from devinterp.optim.sgld import SGLD
    from devinterp.slt.sampler import estimate_learning_coeff_with_summary

    found = estimate_learning_coeff_with_summary(
        model(problem),
        loader(problem),
        evaluate=evaluate,
        sampling_method=SGLD,
        optimizer_kwargs={"lr": step, "nbeta": problem["t"], "localization": problem["gamma"]},
        num_draws=steps,
        num_chains=CHAINS,
        init_loss=1e-30,  # 0 counts as not given
        seed=0,
        verbose=False,
    )
    return found["loss/trace"]


def default(problem: dict) -> float | None:
    """What version 1 says with nothing set; None where its chains diverged."""
    from devinterp.slt.sampler import estimate_learning_coeff_with_summary

    try:
        found = estimate_learning_coeff_with_summary(
            model(problem), loader(problem), evaluate=evaluate, optimizer_kwargs={}, seed=0, verbose=False
        )
    except RuntimeError:  # NaN detected
        return None
    value = found["llc/mean"]
    return value if math.isfinite(value) else None


def version_2(problem: dict, step: float, steps: int) -> np.ndarray:
    """Losses, chains by steps, from `llc`; its own average would include the burn-in."""
    from datasets import Dataset
    from devinterp.slt.llc import llc

    n = len(problem["x"])
    numbers = Dataset.from_dict({"input_ids": [[i, 0] for i in range(n)]}).with_format("torch")
    found = llc(
        model(problem),
        numbers,
        {},
        lr=step,
        n_beta=problem["t"],
        localization=problem["gamma"],
        num_chains=CHAINS,
        num_draws=steps,
        batch_size=n,
        num_init_loss_batches=1,
        init_seed=0,
        device="cpu",
        loss_fn=lambda net, ids: (net(problem["x"][ids[:, 0]]) - problem["y"][ids[:, 0]]).square().sum(1, keepdim=True),
    )
    return found["loss_trace"].transpose("chain", "step").to_numpy()


def model(problem: dict) -> nn.Sequential:
    """The network as torch modules; without biases and activation it is linear."""
    biases = problem.get("biases", [None] * len(problem["weights"]))
    kinds = {"tanh": nn.Tanh, "relu": nn.ReLU, None: nn.Identity}
    parts: list[nn.Module] = []
    for weight, bias in zip(problem["weights"], biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).double()
        layer.weight.data = weight.clone()
        if bias is not None:
            layer.bias.data = bias.clone()
        parts += [layer, kinds[problem.get("activation")]()]
    return nn.Sequential(*parts[:-1])


def loader(problem: dict) -> DataLoader:
    """All data in one batch, so that gradients have no noise."""
    return DataLoader(TensorDataset(problem["x"], problem["y"]), batch_size=len(problem["x"]))


def evaluate(net: nn.Module, data: list[torch.Tensor]) -> tuple[torch.Tensor, dict]:
    """The behavioural loss: squared distance of the outputs, mean over data."""
    return (net(data[0]) - data[1]).square().sum(1).mean(), {}


if __name__ == "__main__":
    main()
