"""Parameters that share memory are refused where numbers are counted or varied; those side by side are not."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from interbasis.analysis import Network
from interbasis.analysis.checkpoints.weights import refuse_shared_memory
from interbasis.analysis.degeneracy.layers import find_layers
from interbasis.analysis.degeneracy.ledger import parameter_ledger
from interbasis.analysis.degeneracy.sparse_representation import sparsify
from interbasis.analysis.degeneracy.synchronised_units import synchronised_units
from interbasis.analysis.errors import LayerError
from interbasis.analysis.llc.network_loss import behavioural_loss, training_loss


class Two(nn.Module):
    """4 -> 4 -> 4 by two linear maps without biases."""

    def __init__(self, kind: torch.dtype = torch.float64) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.a, self.b = nn.Linear(4, 4, bias=False, dtype=kind), nn.Linear(4, 4, bias=False, dtype=kind)
        for layer in (self.a, self.b):
            layer.weight.data = torch.randn(4, 4, generator=draws).to(kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


def of(weight: Callable[[Tensor], Tensor], kind: torch.dtype = torch.float64) -> Two:
    """The second map's weight is made of the first's memory."""
    model = Two(kind)
    model.b.weight = nn.Parameter(weight(model.a.weight.data))
    return model


def flat(order: str) -> Two:
    """Both weights are views of one tensor that have no number in common."""
    model, memory = Two(), torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = {
        "one after the other": lambda: memory.view(2, 4, 4).unbind(0),
        "columns": lambda: memory.view(4, 8).split(4, 1),
        "every other": lambda: memory.view(4, 4, 2).unbind(-1),
        "transposed": lambda: [v.T for v in memory.view(2, 4, 4).unbind(0)],
    }[order]()
    model.a.weight, model.b.weight = (nn.Parameter(part) for part in parts)
    return model


SHARED = {"the same": lambda w: w, "transposed": lambda w: w.T}
FLAT = ["one after the other", "columns", "every other", "transposed"]


def x(kind: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(12, 4, generator=torch.Generator().manual_seed(1)).to(kind)


ANALYSES = {
    "ledger": lambda net, data: parameter_ledger(net, data),
    "synchronised units": lambda net, data: synchronised_units(net, data),
    "sparsify": lambda net, data: sparsify(net, data),
    "layers": lambda net, data: find_layers(net, data[0]),
    "behavioural loss": lambda net, data: behavioural_loss(net, data),
    "training loss": lambda net, data: training_loss(net, [(data[0], data[0])], nn.functional.mse_loss),
}


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("analysis", ANALYSES)
@pytest.mark.parametrize("how", SHARED)
def test_parameters_that_share_memory_are_refused(analysis: str, how: str, kind: torch.dtype) -> None:
    net, data = Network(of(SHARED[how], kind), []), [x(kind)]
    with pytest.raises(LayerError, match=r"'a\.weight' and 'b\.weight' are different .*b\.weight = a\.weight.*clone"):
        ANALYSES[analysis](net, data)
    net.model.b.weight = nn.Parameter(net.model.b.weight.detach().clone())
    ANALYSES[analysis](Network(net.model, []), data)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_one_parameter_under_two_names_counts_once(kind: torch.dtype) -> None:
    model = Two(kind)
    model.b.weight = model.a.weight
    refuse_shared_memory(model)
    assert parameter_ledger(Network(model, []), [x(kind)]).nominal == 16
    assert len(behavioural_loss(Network(model, []), [x(kind)]).start) == 16


@pytest.mark.parametrize("order", FLAT)
def test_views_that_lie_side_by_side_are_different_parameters(order: str) -> None:
    model = flat(order)
    refuse_shared_memory(model)
    assert parameter_ledger(Network(model, []), [x()]).nominal == 32
    assert len(behavioural_loss(Network(model, []), [x()]).start) == 32


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=3)), max_size=4
    )
)
def test_memory_is_shared_where_a_number_is(views: list[tuple[int, list[tuple[int, int]]]]) -> None:
    memory = torch.zeros(64)
    model, entries = nn.Module(), []
    for i, (first, axes) in enumerate(views):
        view = torch.as_strided(memory, [size for size, _ in axes], [stride for _, stride in axes], first)
        model.register_parameter(f"p{i}", nn.Parameter(view))
        marked = torch.arange(64).as_strided(view.shape, view.stride(), first).flatten().tolist()
        entries.append(marked)
    once = [set(marked) for marked in entries]
    apart = all(not a & b for i, a in enumerate(once) for b in once[:i])
    plain = all(not size > 1 or stride for _, axes in views for size, stride in axes)
    packed = all(len(marked) <= max(marked) - min(marked) + 1 for marked in entries)
    if apart and plain and packed:
        refuse_shared_memory(model)
        return
    with pytest.raises(LayerError, match="in the same memory"):
        refuse_shared_memory(model)


def test_parameters_that_do_not_vary_may_share_memory() -> None:
    model = of(SHARED["the same"])
    model.c = nn.Linear(4, 2).double()
    model.forward = lambda v: model.c(model.b(model.a(v)))  # type: ignore[method-assign]
    assert behavioural_loss(Network(model, []), [x()], parameters="c.*").names == ("c.weight", "c.bias")
    with pytest.raises(LayerError, match=r"'a\.weight' and 'b\.weight'"):
        behavioural_loss(Network(model, []), [x()], parameters=["b.*", "c.*"])


def test_expanded_parameters_and_buffers_in_a_parameters_memory_are_refused() -> None:
    with pytest.raises(LayerError, match=r"entries of 'b\.weight' are in the same memory"):
        refuse_shared_memory(of(lambda w: w[:1].clone().expand(4, 4)))
    model = Two()
    model.register_buffer("table", model.a.weight.data)
    with pytest.raises(LayerError, match=r"'a\.weight' and 'table' are a parameter and a buffer in the same memory"):
        refuse_shared_memory(model)


def test_parameters_without_memory_are_left_alone() -> None:
    refuse_shared_memory(nn.Sequential(nn.Linear(2, 2, device="meta"), nn.Linear(2, 2, device="meta")))
    empty = torch.zeros(0, 2)
    refuse_shared_memory(nn.ParameterList([nn.Parameter(empty), nn.Parameter(empty)]))
    refuse_shared_memory(nn.LazyLinear(2))
