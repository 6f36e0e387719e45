"""Untrained copies beside a network: what is drawn, what is permuted, tables, ranges, verdicts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interbasis.analysis import Analysis, Partition, analyze
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.modules.untrained import ControlRow, control_note, drawn_anew, untrained_copy
from interbasis.analysis.recipe import PartitionRecipe


class Bare(nn.Module):
    """A matrix that does not say how it begins, then a layer that does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.still = nn.Parameter(torch.arange(12.0).reshape(3, 4) / 6 - 1), nn.Parameter(torch.ones(4))
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(x @ self.first) * self.still)


X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


def test_layers_are_drawn_again_and_bare_parameters_permuted() -> None:
    torch.manual_seed(0)
    model = Bare()
    copy, permuted = drawn_anew(model, seed=3)
    assert permuted == ("first",)
    assert isinstance(copy, Bare)
    assert sorted(copy.first.flatten().tolist()) == sorted(model.first.flatten().tolist())
    assert not torch.equal(copy.first, model.first)
    assert torch.equal(copy.still, model.still)
    torch.manual_seed(3)
    fresh = nn.Linear(4, 2)
    assert torch.equal(copy.last.weight, fresh.weight)
    again = untrained_copy(model, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(copy.parameters(), again.parameters(), strict=True))


@pytest.fixture(scope="module")
def found() -> Analysis:
    torch.manual_seed(0)
    return analyze(Bare(), X, cuts=["last:in", "last"], untrained=3, resolution=1.0, seed=5)


def test_the_network_and_its_copies_stand_in_one_table(found: Analysis) -> None:
    this, *copies = found.partition.controls
    part = found.partition
    edges = sum(int((w > e**0.5).sum()) for w, e in zip(found.graph.matrices, part.epsilons, strict=True))
    assert (this.name, this.seed, this.n_edges) == ("this network", None, edges)
    assert (this.edge_cost, this.normalised_cost, this.n_modules) == (
        part.edge_cost,
        part.normalised_cost,
        part.n_modules,
    )
    assert [copy.seed for copy in copies] == [5, 6, 7]
    assert all(copy.permuted == ("first",) and copy.drawn == 3 for copy in copies)
    assert len({copy.edge_cost for copy in copies}) > 1


def test_a_copy_is_analysed_as_a_network_of_its_own(found: Analysis) -> None:
    torch.manual_seed(0)
    model = untrained_copy(Bare().double(), seed=6)
    alone = analyze(model, X, cuts=["last:in", "last"], resolution=1.0, seed=5)
    row = found.partition.controls[2]
    assert row.edge_cost == pytest.approx(alone.partition.edge_cost)
    assert (row.epsilon, row.n_modules) == (pytest.approx(alone.partition.epsilon), alone.partition.n_modules)


def test_ranges_are_said_stored_and_drawn(found: Analysis, tmp_path: Path) -> None:
    costs = [row.n_edges for row in found.partition.controls[1:]]
    assert all(costs)
    note = control_note(found.partition.controls)
    assert "3 untrained copies have" in note
    assert "entries of 1 parameters are permuted, whose modules do not say how they begin; 3 were drawn again" in note
    assert " ".join(note.split()) in " ".join(found.summary.split())
    again = Partition.load(found.partition.save(tmp_path / "part.safetensors"))
    assert again.controls == found.partition.controls
    assert repr(again) == repr(found.partition)
    panels = [axes.get_title() for axes in found.partition.plot_controls().axes]
    assert panels == ["edges", "normalised cost", "modules"]


def test_copies_that_cannot_be_analysed_say_why() -> None:
    rows = [ControlRow("this network", None, 0.1, 8, 1.0, 2.0, 2), ControlRow("untrained copy 1", 0, reason="no edge")]
    assert control_note(rows) == "Untrained copy 1 could not be analysed: no edge."
    assert control_note(()) == ""
    rows.append(ControlRow("untrained copy 2", 1, 0.1, 9, 3.0, None, 1))
    assert control_note(rows).startswith(
        "This network has 8 edges, normalised cost 2 and 2 modules; 1 untrained copy has 9, - and 1."
    )


def test_without_asking_there_are_none() -> None:
    torch.manual_seed(0)
    part = analyze(Bare(), X, cuts=["last:in", "last"], resolution=1.0).partition
    assert part.controls == ()
    assert b"controls" not in part.to_bytes()
    with pytest.raises(GraphError, match="analyse with untrained=3"):
        part.plot_controls()


def test_earlier_recipes_keep_their_hash() -> None:
    assert PartitionRecipe(untrained=3).sha256 != PartitionRecipe().sha256
    assert "untrained" not in PartitionRecipe(untrained=3).search
    wrong: Any = {"untrained": 0}
    with pytest.raises(InputError, match="untrained is 0, expected a whole number of at least 1"):
        PartitionRecipe(**wrong)
