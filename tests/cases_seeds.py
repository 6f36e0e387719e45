"""Seeds of trained networks: the first in every test run, the others where long tests are asked for."""

import pytest

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]
