"""What is tested once in every test run, and again where long tests are asked for: seeds, databases."""

import pytest

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]


def _first(kind: str, other: str) -> pytest.MarkDecorator:
    kinds = [kind, pytest.param(other, marks=pytest.mark.long)]
    return pytest.mark.parametrize("place", kinds, indirect=True)


SQLITE_FIRST = _first("sqlite", "postgresql")
POSTGRESQL_FIRST = _first("postgresql", "sqlite")
