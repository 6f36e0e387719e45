"""Random generators derived from a seed, which draw the same with every version of Python."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["torch_generator"]


def torch_generator(seed: int, *key: int) -> torch.Generator:
    """Return a generator for one part of a computation: probe `key` of a trace estimate, say.

    Its seed is NumPy's `SeedSequence(seed, spawn_key=key)`, so different keys draw independently.

    >>> [torch_generator(0, probe).initial_seed() for probe in range(2)]
    [8668861027912758289, 4881901421217228719]
    """
    sequence = np.random.SeedSequence(int(seed) % 2**64, spawn_key=key)  # torch takes negative seeds, NumPy does not
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
