"""Trained decoders: two independent tasks are taken apart by the plain call, one task is one module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from train_decoders import FOLDER, sums

import interbasis
from interbasis.analysis.huggingface.library import library


def some(n_streams: int) -> tuple[Tensor, Tensor]:
    tokens, answers = sums(n_streams)
    chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:400]
    return tokens[chosen], answers[chosen]


def explained(z: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The share of the variance of each coordinate that the means of the classes explain."""
    means = np.stack([z[classes == value].mean(0) for value in np.unique(classes)])
    return means[np.unique(classes, return_inverse=True)[1]].var(0) / z.var(0)


@pytest.mark.long
def test_two_tasks_are_taken_apart() -> None:
    """Every node that carries a sum is in the module of its stream."""
    model = library().AutoModelForCausalLM.from_pretrained(FOLDER / "two_tasks")
    tokens, answers = some(2)
    found = interbasis.analyze(model, tokens)
    assert (found.partition.n_modules, found.verdict) == (2, "supported")
    assert found.network is not None
    last = found.graph.cuts[-1]
    basis, labels = found.bases[last], found.partition.labels[-1]
    at_the_end = found.network.activations(tokens)[last][:, -1].detach().numpy()
    z = ((at_the_end - basis.mean) @ basis.to_basis.T)[:, : len(labels)]
    first, second = (explained(z, answers[:, -1, stream].numpy()) > 0.7 for stream in range(2))
    assert (first.sum(), second.sum()) == (10, 10), "a direction for each of 11 numbers but one"
    (of_first,), (of_second,) = set(labels[first]), set(labels[second])
    assert {of_first, of_second} == {0, 1}


def test_one_task_is_one_module() -> None:
    model = library().AutoModelForCausalLM.from_pretrained(FOLDER / "one_task")
    assert interbasis.analyze(model, some(1)[0]).verdict == "one module"
