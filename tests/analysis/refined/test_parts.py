"""Refined coefficients: sets of parameters by glob, slice and head, and other data."""

import pytest
import torch
from torch import Tensor, nn

from interbasis.analysis import Network, Sampler, learning_coefficient, refined_coefficients
from interbasis.analysis.errors import InputError
from interbasis.analysis.llc.network_loss import NetworkLandscape, behavioural_loss
from interbasis.analysis.refined.parts import parts_of

from ...cases_transformers import random_tokens, transformer

SHORT = Sampler(chains=2, warmup=30, draws=60)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def net() -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double(), ["0", "1", "2"])


def changed(loss: NetworkLandscape, parts: dict[str, str] | str, name: str) -> dict[str, Tensor]:
    """Which entries of each parameter a part varies."""
    marks = torch.zeros(len(loss.start), dtype=torch.bool)
    marks[parts_of(loss, parts)[name].entries] = True
    shapes = {own: p.shape for own, p in loss.network.model.named_parameters()}
    pieces = dict(zip(loss.names, marks.split(list(loss.sizes)), strict=True))
    return {own: piece.reshape(shapes[own]) for own, piece in pieces.items() if piece.any()}


def test_globs_and_slices_name_entries() -> None:
    loss = behavioural_loss(net(), [drawn(9, 2)])
    found = changed(loss, {"rows": "0.weight[1:]"}, "rows")
    assert found["0.weight"].tolist() == [[False, False], [True, True], [True, True]]
    assert changed(loss, {"one": "2.weight[-1, 0]"}, "one")["2.weight"].tolist() == [[False] * 3, [True, False, False]]
    both = changed(loss, {"ends": ("*.bias[0]", "2.*")}, "ends")  # type: ignore[dict-item]
    assert {name: int(mark.sum()) for name, mark in both.items()} == {"0.bias": 1, "2.weight": 6, "2.bias": 2}


def test_names_that_fit_nothing_are_refused() -> None:
    loss = behavioural_loss(net(), [drawn(9, 2)])
    with pytest.raises(InputError, match="no parameter is called '7\\.\\*'"):
        parts_of(loss, ["7.*"])
    with pytest.raises(InputError, match=r"'0.weight\[5\]' does not fit 0.weight, whose shape is \(3, 2\)"):
        parts_of(loss, ["0.weight[5]"])
    with pytest.raises(InputError, match=r"the part '0.weight\[:0\]' names no entry"):
        parts_of(loss, ["0.weight[:0]"])
    with pytest.raises(InputError, match="expected 'auto'"):
        parts_of(loss, "heads")


def test_two_parts_of_one_name_are_refused() -> None:
    x = [drawn(9, 2)]
    with pytest.raises(InputError, match="two parts are called whole"):
        refined_coefficients(net(), x, 1e-4, parts={"whole": "0.*"}, sampler=SHORT)
    with pytest.raises(InputError, match="two parts are called last"):
        refined_coefficients(net(), x, 1e-4, parts={"last": "2.*"}, data={"last": x}, sampler=SHORT)


def test_every_parameter_of_a_plain_network_is_in_one_layer() -> None:
    loss = behavioural_loss(net(), [drawn(9, 2)])
    assert {name: part.dimension for name, part in parts_of(loss, "auto").items()} == {"0": 9, "2": 8}


def test_heads_hold_their_rows_and_columns() -> None:
    """GPT-2 keeps queries, keys and values in one matrix (width, 3 width); heads are columns of each third."""
    loss = behavioural_loss(Network(transformer("gpt2"), [], output="logits", loss="kl"), [random_tokens(3, 5)])
    parts = parts_of(loss, "auto")
    heads = [name for name in parts if name.startswith("a") and ".h" in name]
    model = loss.network.model
    width, count = model.config.n_embd, model.config.n_head
    assert heads[:2] == ["a0.h0", "a0.h1"]
    assert len(heads) == count * model.config.n_layer
    own = changed(loss, "auto", heads[1])
    read, size = own["transformer.h.0.attn.c_attn.weight"], width // count
    assert read.all(0).nonzero()[:, 0].tolist() == [t * width + size + i for t in range(3) for i in range(size)]
    assert int(read.sum()) == 3 * size * width
    assert own["transformer.h.0.attn.c_proj.weight"].all(1).nonzero()[:, 0].tolist() == list(range(size, 2 * size))
    assert "transformer.h.0.mlp" in parts


def test_a_part_is_the_plain_coefficient_of_its_parameters() -> None:
    x = [drawn(30, 2)]
    found = refined_coefficients(
        net(), x, 1e-4, parts={"last": "2.*"}, data={"half": [drawn(15, 2, seed=4)]}, sampler=SHORT
    )
    assert [(part.name, part.kind) for part in found.parts] == [
        *(("whole", "whole"), ("last", "parameters"), ("half", "data"))
    ]
    fixed = Sampler(chains=2, warmup=30, draws=60, gamma=found.gamma)
    plain = learning_coefficient(net(), x, temperature=found.temperature, parameters="2.*", sampler=fixed)
    assert found["last"].value == pytest.approx(plain.value, rel=1e-6)
    assert found["last"].names == plain.names == ("2.weight", "2.bias")
    assert found["half"].n == 15
    assert found.interaction is None
    with pytest.raises(KeyError):
        _ = found["nothing"]
