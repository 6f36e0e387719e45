"""The swap test: the leak of a cut is the share of the exchange that goes around it."""

import pytest
import torch
from cases import normal
from torch import Tensor, nn

from interbasis.analysis.errors import CutError
from interbasis.analysis.network.cut_search import find_cuts
from interbasis.analysis.network.cuts import Cut, Place
from interbasis.analysis.network.forward import HookedModel
from interbasis.analysis.network.masks import Masks
from interbasis.analysis.network.swap_test import UnchangedError, check_swaps, leaks_by_swapping


class Branches(nn.Module):
    """Two branches side by side, whose sum is read."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.a, self.b, self.sum = nn.Linear(3, 4), nn.Linear(3, 4), nn.Identity()
        for parameter in self.parameters():
            parameter.data = normal(*parameter.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(torch.tanh(self.a(x)) + torch.tanh(self.b(x)))


def cut(*names: str) -> Cut:
    return Cut(tuple(Place(name, False) for name in names))


@pytest.fixture
def model(generator: torch.Generator) -> Branches:
    return Branches(generator)


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return normal(6, 3, generator=generator)


def test_leak_is_what_the_other_branch_adds(model: Branches, x: Tensor) -> None:
    given = HookedModel(model), Masks(model, None, False), x
    leak = leaks_by_swapping(*given, [cut("a"), cut("b"), cut("sum")], {})
    other = x.roll(1, 0)
    effect = (model(other) - model(x)).norm()
    around = [(torch.tanh(branch(other)) - torch.tanh(branch(x))).norm() / effect for branch in (model.b, model.a)]
    assert [leak(p) for p in range(3)] == pytest.approx([*[share.item() for share in around], 0], abs=1e-12)
    assert leaks_by_swapping(*given, [cut("a", "b")], {})(0) == 0


def test_first_cut_that_leaks_is_named(model: Branches, x: Tensor) -> None:
    given = HookedModel(model), Masks(model, None, False), x
    check_swaps(*given, [cut("a", "b"), cut("sum")], {})
    with pytest.raises(CutError, match=r"'b' is not a cut: 0\.\d+ of the effect"):
        check_swaps(*given, [cut("b"), cut("sum")], {})


def test_places_that_every_path_passes_are_found(generator: torch.Generator, model: Branches, x: Tensor) -> None:
    """Of `0:in`, `0.a:in` and `0.b:in`, which are equal, the shortest path is kept; a branch alone is no cut."""
    whole = nn.Sequential(model, nn.Linear(4, 2).double())
    found = find_cuts(HookedModel(whole), Masks(whole, None, False), x)
    assert [c.name for c in found] == ["0:in", "0", "1"]


def test_equal_data_points_tell_nothing(model: Branches, x: Tensor) -> None:
    with pytest.raises(UnchangedError, match="leaves the output unchanged"):
        leaks_by_swapping(HookedModel(model), Masks(model, None, False), x[:1].repeat(4, 1), [cut("sum")], {})
