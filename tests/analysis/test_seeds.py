"""Generators of the parts of a computation: the same everywhere, different from each other."""

import numpy as np
import pytest
import torch

from interbasis.analysis.seeds import torch_generator


@pytest.mark.parametrize("key", [(), (0,), (3,), (3, 1)])
def test_seed_is_that_of_the_seed_sequence(key: tuple[int, ...]) -> None:
    high, low = np.random.SeedSequence(5, spawn_key=key).generate_state(2).tolist()[::-1]
    assert torch_generator(5, *key).initial_seed() == high * 2**32 + low


def test_no_two_seeds_and_keys_share_draws() -> None:
    seeds, keys = (0, 1, 2, -1, 2**63), ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
    drawn = {tuple(torch.rand(2, generator=torch_generator(s, *k)).tolist()) for s in seeds for k in keys}
    assert len(drawn) == len(seeds) * len(keys)
