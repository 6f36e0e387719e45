"""Checkpoints: real networks are rebuilt as their JSON describes them; bad files are named with a way out."""

import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_checkpoints import WIDTHS, mlp_tensors, save_checkpoint, save_inputs, save_mlp, save_transformer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from interbasis.analysis.checkpoints import families
from interbasis.analysis.checkpoints.checkpoint import components_of, load_checkpoint
from interbasis.analysis.checkpoints.datasets import Dataset, modular_addition, read_dataset, two_digits
from interbasis.analysis.checkpoints.families import Family, load_factory
from interbasis.analysis.checkpoints.mlp import MLP
from interbasis.analysis.checkpoints.transformer import ModularAdditionTransformer
from interbasis.analysis.errors import CheckpointError, CutError, DataError, GraphError, InputError
from interbasis.analysis.network.network import Network

ACTIVATIONS = ["relu", "leaky_relu", "gelu", "tanh", "sigmoid", "identity"]
MODADD_ACCURACY = {0: 0.99955, 1: 0.99888, 2: 1.0}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return save_inputs(tmp_path / "data.npz")


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    return save_mlp(tmp_path / "net.safetensors", label="final", model="net", step=7)


def weights_of(file: Path) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in load_file(file).items()}


def modadd(folder: Path, seed: int) -> Path:
    return folder / "modadd" / f"modadd_p113_seed{seed}.safetensors"


def described_transformer(w: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits at the last position by the four lines `forward` of the JSON, head by head."""
    r0 = w["tok_embed"][tokens] + w["pos_embed"][0:3]
    r1 = r0 + w["attn.b_o"]
    future = torch.ones(3, 3, dtype=torch.bool).triu(1)
    for h in range(4):
        q, k, v = (r0 @ w[f"attn.w_{name}"][h] + w[f"attn.b_{name}"][h] for name in "qkv")
        scores = (q @ k.transpose(1, 2) / 32**0.5).masked_fill(future, -torch.inf)
        r1 = r1 + scores.softmax(-1) @ v @ w["attn.w_o"][h]
    r2 = r1 + torch.relu(r1 @ w["mlp.w_in"] + w["mlp.b_in"]) @ w["mlp.w_out"] + w["mlp.b_out"]
    return (r2 @ w["unembed.w"] + w["unembed.b"])[:, -1]


def test_transformer_computes_what_its_json_describes(real_data: Path) -> None:
    file = modadd(real_data, 0)
    checkpoint = load_checkpoint(file)
    tokens = checkpoint.batches.inputs[:200]
    expected = described_transformer(weights_of(file), tokens)
    torch.testing.assert_close(checkpoint.network.output(tokens)[:, 0], expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("seed", MODADD_ACCURACY)
def test_transformer_has_the_accuracy_that_is_known_of_it(real_data: Path, seed: int) -> None:
    checkpoint = load_checkpoint(modadd(real_data, seed))
    test = checkpoint.test_batches
    assert test.targets is not None
    named = torch.cat([checkpoint.network.output(batch)[:, 0].argmax(-1) for batch in test])
    assert round(float((named == test.targets).double().mean()), 5) == MODADD_ACCURACY[seed]


def test_transformer_has_the_cuts_and_positions_of_its_family(real_data: Path) -> None:
    checkpoint = load_checkpoint(modadd(real_data, 0))
    activations = checkpoint.network.activations(checkpoint.batches.inputs[:5])
    shapes = {cut: tuple(value.shape[1:]) for cut, value in activations.items()}
    assert shapes == {"embed": (3, 128), "attention": (1, 128), "mlp": (1, 128), "unembed": (1, 114)}
    assert list(checkpoint.network.transitions) == [0, 1, 2]
    checkpoint.network.check_cuts(checkpoint.batches.inputs[:8])


SPELLINGS = (
    ("embed", "emb*", "attention:in", ("embed",), ("attention:in",)),
    ("attention", "att*", "mlp:in", ("attention",), ("mlp:in",)),
    ("mlp", "m?p", "unembed:in", ("mlp",)),
    ("unembed", "un*", ("unembed",)),
)


@pytest.mark.parametrize("case", range(max(map(len, SPELLINGS))))
def test_positions_of_the_family_hold_with_any_spelling_of_cuts(tmp_path: Path, case: int) -> None:
    cuts = tuple(spellings[case % len(spellings)] for spellings in SPELLINGS)
    path = save_transformer(tmp_path / "net.safetensors")
    own, other = load_checkpoint(path), load_checkpoint(path, cuts=cuts)
    batch = own.batches.inputs[:6]
    expected, found = (list(c.network.activations(batch).values()) for c in (own, other))
    assert [value.shape[1] for value in expected] == [3, 1, 1, 1]
    for value, right in zip(found, expected, strict=True):
        assert torch.equal(value, right)
    assert torch.equal(other.network.output(batch), own.network.output(batch))
    other.network.check_cuts(batch)


@pytest.mark.parametrize("cuts", ["auto", ["auto"], ("auto",), ["*"], "*"])
def test_positions_of_the_family_hold_where_cuts_are_found_or_matched(tmp_path: Path, cuts: Any) -> None:
    network = load_checkpoint(save_transformer(tmp_path / "net.safetensors"), cuts=cuts).network
    expected = {"embed": 3, "attention": 1, "mlp": 1, "unembed": 1}
    found = {cut: value.shape[1] for cut, value in network.activations(torch.tensor([[0, 1, 5], [1, 2, 5]])).items()}
    assert len(found) >= 3
    assert found == {cut: expected[cut] for cut in found}
    assert network.output(torch.tensor([[0, 1, 5]])).shape == (1, 1, 6)


def test_concatenated_cuts_count_the_positions_on_which_their_parts_agree(tmp_path: Path) -> None:
    path = save_transformer(tmp_path / "net.safetensors")
    network = load_checkpoint(path, cuts=["embed", ("mlp.activation", "mlp:in"), "unembed"]).network
    tokens = torch.tensor([[0, 1, 5], [1, 2, 5]])
    assert [value.shape[1] for value in network.activations(tokens).values()] == [3, 1, 1]
    network.check_cuts(tokens)
    mixed = load_checkpoint(path, cuts=["embed", ("embed", "attention.o"), "unembed"]).network
    assert [value.shape[1] for value in mixed.activations(tokens).values()] == [3, 3, 1]
    assert mixed.output(tokens).shape[1] == 1


def test_positions_of_the_json_hold_with_other_cuts_too(tmp_path: Path) -> None:
    about = {"cuts": ["embed", "attention", "unembed"], "positions": {"attention": [1, 2], "unembed": [2]}}
    path = save_transformer(tmp_path / "net.safetensors", **about)
    tokens = torch.tensor([[0, 1, 5], [1, 2, 5]])
    for cuts in (None, ["attention:in", "mlp:in", "unembed"], ["embed", "attention", "mlp"]):
        network = load_checkpoint(path, cuts=cuts).network
        assert next(iter(network.activations(tokens).values())).shape[1] == 3
        assert list(network.activations(tokens).values())[1].shape[1] == 2
        assert network.output(tokens).shape[1] == 1
    spoilt = save_transformer(tmp_path / "spoilt.safetensors", positions={"attn": "last"})
    with pytest.raises(CutError, match=r"positions are given for \['attn'\], which the model does not have"):
        load_checkpoint(spoilt)


def test_split_follows_the_rule_of_the_json() -> None:
    order = torch.randperm(12769, generator=torch.Generator().manual_seed(0))
    train, test = modular_addition(113, 0.3, 0)
    for part, rows in ((train, order[:3830]), (test, order[3830:])):
        assert part.targets is not None
        x, y = rows // 113, rows % 113
        assert torch.equal(part.inputs, torch.stack([x, y, torch.full_like(x, 113)], 1))
        assert torch.equal(part.targets, (x + y) % 113)


def test_mlp_computes_what_its_json_describes(real_data: Path, tmp_path: Path) -> None:
    file = real_data / "mnist_mlp" / "mnist_mlp_100_100.safetensors"
    pixels = np.random.default_rng(0).random((20, 784))
    np.savez(tmp_path / "pixels.npz", inputs=pixels)
    checkpoint = load_checkpoint(file, data=tmp_path / "pixels.npz")
    w = weights_of(file)
    h1 = torch.relu(torch.from_numpy(pixels) @ w["layers.0.weight"].T + w["layers.0.bias"])
    h2 = torch.relu(h1 @ w["layers.1.weight"].T + w["layers.1.bias"])
    logits = h2 @ w["layers.2.weight"].T + w["layers.2.bias"]
    activations = checkpoint.network.activations(torch.from_numpy(pixels))
    assert list(activations) == ["layers.0:in", "layers.0", "layers.1", "layers.2"]
    for value, expected in zip(activations.values(), (torch.from_numpy(pixels), h1, h2, logits), strict=True):
        torch.testing.assert_close(value[:, 0], expected, rtol=1e-10, atol=1e-10)


def test_checkpoint_knows_where_it_comes_from(mlp: Path, inputs: Path) -> None:
    checkpoint = load_checkpoint(mlp, data=inputs, batch_size=10)
    assert (checkpoint.label, checkpoint.model, checkpoint.step, checkpoint.family) == ("final", "net", 7, "mlp")
    assert checkpoint.path == mlp
    assert len(checkpoint.batches) == 7
    assert "final" in repr(checkpoint)
    assert "mlp" in repr(checkpoint)


def test_label_is_the_name_of_the_file_where_none_is_given(tmp_path: Path, inputs: Path) -> None:
    checkpoint = load_checkpoint(save_mlp(tmp_path / "epoch9.safetensors"), data=inputs)
    assert (checkpoint.label, checkpoint.model, checkpoint.step) == ("epoch9", "epoch9", None)


def test_json_names_cuts_loss_and_positions(tmp_path: Path, inputs: Path) -> None:
    about = {"cuts": ["layers.0", "layers.2"], "loss": "kl", "positions": "last"}
    path = save_mlp(tmp_path / "net.safetensors", **about)
    network = load_checkpoint(path, data=inputs).network
    assert network.cuts == ("layers.0", "layers.2")
    assert network.loss == "kl"
    given = load_checkpoint(path, data=inputs, cuts=["layers.1", "layers.2"], loss="mse").network
    assert given.cuts == ("layers.1", "layers.2")
    assert given.loss == "mse"


@pytest.mark.parametrize("cuts", ["auto", ["auto"], ("auto",)])
def test_cuts_can_be_scanned_for(mlp: Path, inputs: Path, cuts: Any) -> None:
    found = load_checkpoint(mlp, data=inputs, cuts=cuts).network.cuts
    assert {"layers.0", "layers.1", "layers.2"} <= {cut.removesuffix(".activation") for cut in found}


def test_mlp_without_bias(tmp_path: Path, inputs: Path) -> None:
    tensors = {name: tensor for name, tensor in mlp_tensors().items() if name.endswith("weight")}
    about = {"family": "mlp", "config": {"widths": WIDTHS, "activation": "tanh", "bias": False}}
    network = load_checkpoint(save_checkpoint(tmp_path / "net.safetensors", tensors, about), data=inputs).network
    x = torch.from_numpy(np.load(inputs)["inputs"])
    hidden = x
    for name in ("layers.0.weight", "layers.1.weight"):
        hidden = torch.tanh(hidden @ tensors[name].T)
    torch.testing.assert_close(network.output(x)[:, 0], hidden @ tensors["layers.2.weight"].T)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_transitions_of_every_activation_agree_with_the_model(tmp_path: Path, inputs: Path, activation: str) -> None:
    path = save_mlp(tmp_path / "net.safetensors", config={"widths": WIDTHS, "activation": activation})
    checkpoint = load_checkpoint(path, data=inputs)
    assert len(checkpoint.network.transitions) == 3
    checkpoint.network.check_cuts(next(iter(checkpoint.batches)))


@pytest.mark.parametrize("family", [MLP, ModularAdditionTransformer])
def test_registered_families_keep_the_protocol(family: type[Family]) -> None:
    assert family in families.families().values()
    assert isinstance(family, Family)


@pytest.mark.parametrize(
    ("family", "save"), [(MLP, save_mlp), (ModularAdditionTransformer, save_transformer)], ids=["mlp", "transformer"]
)
def test_tensors_of_registered_families_are_called_as_files_call_them(family: Any, save: Any, tmp_path: Path) -> None:
    names = list(load_file(save(tmp_path / "a.safetensors")))
    assert [family.tensor(family.parameter(name)) for name in names] == names


# Families of other packages


class Doubling(nn.Module):
    """One matrix, applied twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))

    @staticmethod
    def build(config: Mapping[str, Any]) -> nn.Module:
        return Doubling(**config)

    @staticmethod
    def parameter(name: str) -> str:
        return f"{name}.weight"

    @staticmethod
    def cuts(config: Mapping[str, Any]) -> Sequence[str]:
        return ["first:in", "first", "second"]

    @staticmethod
    def positions(config: Mapping[str, Any]) -> str:
        return "all"

    @staticmethod
    def transitions(model: nn.Module) -> Mapping[Any, Any]:
        return {}


def save_doubling(folder: Path) -> Path:
    tensors = {"first": torch.diag(torch.arange(1.0, 5.0)), "second": torch.eye(4) + 1}
    return save_checkpoint(folder / "double.safetensors", tensors, {"family": "doubling", "config": {"width": 4}})


@pytest.fixture
def other_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes a distribution importable whose entry points for families are the given lines."""

    def install(lines: str) -> None:
        info = tmp_path / "packages" / "other-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[interbasis.families]\n{lines}\n")
        monkeypatch.syspath_prepend(info.parent)
        monkeypatch.setitem(sys.modules, "other_families", sys.modules[__name__])

    return install


def test_family_of_an_installed_package_is_found(
    other_package: Callable[[str], None], tmp_path: Path, inputs: Path
) -> None:
    other_package("doubling = other_families:Doubling")
    network = load_checkpoint(save_doubling(tmp_path), data=inputs).network
    assert network.cuts == ("first:in", "first", "second")
    x = torch.from_numpy(np.load(inputs)["inputs"])
    expected = x * torch.arange(1.0, 5.0, dtype=torch.float64) @ (torch.eye(4, dtype=torch.float64) + 1)
    torch.testing.assert_close(network.output(x)[:, 0], expected)
    assert families.families()["doubling"] is Doubling


BROKEN = {
    "missing": (None, "ModuleNotFoundError: No module named 'broken_families'"),
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def", "SyntaxError: invalid syntax"),
    "empty": ("", "AttributeError: module 'broken_families' has no attribute 'Doubling'"),
    "no family": (
        "class Doubling:\n    build = parameter = print",
        "is no family: it lacks cuts, positions, transitions",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_family_of_another_package_breaks_nothing_else(
    other_package: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mlp: Path,
    inputs: Path,
    case: str,
) -> None:
    code, said = BROKEN[case]
    other_package("doubling = broken_families:Doubling")
    monkeypatch.delitem(sys.modules, "broken_families", raising=False)
    if code is not None:
        (tmp_path / "packages" / "broken_families.py").write_text(code)
    assert load_checkpoint(mlp, data=inputs).family == "mlp"
    assert {"mlp", "modular_addition_transformer"} <= set(families.families())
    assert "doubling" not in families.families()
    assert components_of(load_checkpoint(save_transformer(tmp_path / "t.safetensors"))).n_heads == 2
    with pytest.raises(CheckpointError, match=r"the family 'doubling' .*broken_families:Doubling") as caught:
        load_checkpoint(save_doubling(tmp_path), data=inputs)
    assert said in str(caught.value)
    monkeypatch.delitem(sys.modules, "broken_families", raising=False)


def test_family_that_two_packages_register_raises(
    other_package: Callable[[str], None], tmp_path: Path, mlp: Path, inputs: Path
) -> None:
    other = "modular_addition_transformer = interbasis.analysis.checkpoints.mlp:MLP"
    other_package(f"mlp = other_families:Doubling\n{other}")
    with pytest.raises(CheckpointError, match=r"'mlp' is registered by several packages, from .* and .*: remove one"):
        load_checkpoint(mlp, data=inputs)
    assert "mlp" not in families.families()


def test_entry_points_name_the_families(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "interbasis.analysis.checkpoints.mlp:MLP", "interbasis.families")
    monkeypatch.setattr(families, "entry_points", lambda group: [point])
    assert families.families() == {"mine": MLP}


def two_linear(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 2))


@pytest.fixture
def torch_checkpoint(tmp_path: Path) -> Path:
    model = two_linear(4, 5)
    model[2].weight.data += 1
    about = {"family": "torch", "config": {"width": 4, "hidden": 5}}
    return save_checkpoint(tmp_path / "own.safetensors", model.state_dict(), about)


def test_family_torch_builds_with_the_users_function(torch_checkpoint: Path, inputs: Path) -> None:
    network = load_checkpoint(torch_checkpoint, data=inputs, factory=two_linear).network
    w = weights_of(torch_checkpoint)
    x = torch.from_numpy(np.load(inputs)["inputs"])
    expected = torch.tanh(x @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"].T + w["2.bias"]
    torch.testing.assert_close(network.output(x)[:, 0], expected)
    assert "1" in network.cuts


class PositionsFirst(nn.Module):
    """Takes (batch, positions, width), and hands (positions, batch, width) on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


def test_the_json_declares_layouts_and_trust(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, inputs=np.random.default_rng(0).normal(size=(8, 6, 4)))
    model, path = PositionsFirst(), tmp_path / "own.safetensors"

    def loaded(**about: Any) -> Network:
        families.save_checkpoint(model, path, cuts=["inner:in", "inner"], **about)
        return load_checkpoint(path, data=data, factory=PositionsFirst).network

    right = loaded(batch_first={"inner:in": False, "inner": False})
    x = torch.from_numpy(np.load(data)["inputs"])
    right.check_once([x])
    assert right.checked
    torch.testing.assert_close(right.activations(x)["inner"], right.output(x))
    with pytest.raises(CutError, match="batch_first"):
        loaded().check_once([x])
    trusted = loaded(batch_first=False, check=False)
    trusted.check_once([x])
    assert not trusted.checked
    skipping = loaded(batch_first=False, skip_first=True).output(x)
    torch.testing.assert_close(skipping[:, 1:], right.output(x)[:, 1:])
    assert not skipping[:, 0].any()
    with pytest.raises(CheckpointError, match="the JSON says check: 'no', expected true or false"):
        loaded(check="no")


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (lambda **_: 3, "family 'torch' built a int: expected a torch.nn.Module"),
        (lambda **_: [][1], "does not fit family 'torch': IndexError: list index out of range"),
        (lambda **_: nn.Linear(4, 2, device="meta"), "lacks the tensors"),
    ],
)
def test_function_that_builds_no_model_raises(torch_checkpoint: Path, inputs: Path, factory: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load_checkpoint(torch_checkpoint, data=inputs, factory=factory)


def test_family_torch_without_a_function_says_how_to_give_one(torch_checkpoint: Path, inputs: Path) -> None:
    with pytest.raises(CheckpointError, match="pass --factory module:function"):
        load_checkpoint(torch_checkpoint, data=inputs)


def test_factory_is_named_by_module_and_function() -> None:
    assert load_factory("torch.nn:Identity") is nn.Identity


@pytest.mark.parametrize("name", ["no_such_module:f", "torch:no_such_function", "torch", "", ":f"])
def test_factory_that_cannot_be_imported_raises(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot import the model factory .*expected module:function"):
        load_factory(name)


# Bad checkpoints: what is done to a good one, and what the message has to say


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _no_json(path: Path) -> None:
    path.with_suffix(".json").unlink()


def _change_json(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path.with_suffix(".json")
        about = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({name: value for name, value in about.items() if value is not None}))

    return change


def _write_json(text: str) -> Callable[[Path], None]:
    return lambda path: void(path.with_suffix(".json").write_text(text))


def void(_: Any) -> None:
    return None


def _change_tensors(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return rewrite


def _put(name: str, tensor: Tensor) -> Callable[[Path], None]:
    return _change_tensors(lambda tensors: tensors.update({name: tensor}))


BAD_CHECKPOINTS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "missing": (Path.unlink, ["there is no checkpoint", "net.safetensors"]),
    "no json": (_no_json, ["there is no", "net.json", 'expected JSON like {"family"']),
    "json is no json": (_write_json("{"), ["cannot read", "net.json"]),
    "json is not text": (lambda p: void(p.with_suffix(".json").write_bytes(b"\xff\xfe")), ["cannot read", "net.json"]),
    "json is a list": (_write_json("[]"), ['has no "family"', "expected JSON like"]),
    "json without family": (_change_json(family=None), ['net.json has no "family"', "expected JSON like"]),
    "unknown family": (_change_json(family="cnn"), ["unknown family 'cnn'", "known are", "mlp", "torch"]),
    "config without widths": (_change_json(config={}), ["net.json", "does not fit family 'mlp'", "widths"]),
    "no config": (_change_json(config=None), ["net.json", "does not fit family 'mlp'", "widths"]),
    "config of another": (_change_json(config={"d_model": 3}), ["net.json", "does not fit family 'mlp'"]),
    "one width": (_change_json(config={"widths": [3]}), ["widths [3]", "at least an input and an output width"]),
    "width zero": (_change_json(config={"widths": [3, 0]}), ["widths [3, 0]"]),
    "unknown activation": (
        _change_json(config={"widths": WIDTHS, "activation": "swoosh"}),
        ["unknown activation 'swoosh'", "known are relu"],
    ),
    "truncated": (_truncate, ["cannot read", "net.safetensors", "truncated?"]),
    "empty": (_empty, ["cannot read", "net.safetensors", "truncated?"]),
    "wrong shape": (
        _put("layers.1.weight", torch.zeros(6, 5)),
        [": layers.1.weight has shape (6, 5)", "expects (5, 6)"],
    ),
    "missing tensor": (_change_tensors(lambda t: t.pop("layers.2.bias")), ["lacks the tensors layers.2.bias that"]),
    "unexpected tensor": (_put("layers.3.weight", torch.zeros(2)), ["holds the tensors layers.3.weight, which"]),
    "NaN": (_put("layers.0.bias", torch.full((6,), torch.nan)), [": layers.0.bias holds NaN or infinite weights"]),
    "infinite": (_put("layers.0.bias", torch.full((6,), torch.inf)), [": layers.0.bias holds NaN or infinite weights"]),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_bad_checkpoint_raises_with_the_problem_named(mlp: Path, inputs: Path, case: str) -> None:
    spoil, said = BAD_CHECKPOINTS[case]
    spoil(mlp)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(mlp, data=inputs)
    for text in said:
        assert text in str(caught.value)


def test_folder_and_other_formats_raise_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"is a folder without config.json: expected one .* or a \.safetensors file"
    ):
        load_checkpoint(tmp_path)
    pickled = tmp_path / "net.pt"
    pickled.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"convert one of torch\.save with `interbasis convert"):
        load_checkpoint(pickled)


def test_layer_norm_is_refused(real_data: Path, tmp_path: Path) -> None:
    about = json.loads(modadd(real_data, 0).with_suffix(".json").read_text())
    about["config"]["layer_norm"] = "pre"
    path = save_checkpoint(tmp_path / "net.safetensors", load_file(modadd(real_data, 0)), about)
    with pytest.raises(CheckpointError, match="layer_norm is 'pre': this family has none, expected null"):
        load_checkpoint(path)


def test_cut_and_loss_that_do_not_exist_raise(mlp: Path, inputs: Path) -> None:
    with pytest.raises(CutError, match=r"no module is named 'layer\.1'; nearest names: .*layers\.1"):
        load_checkpoint(mlp, data=inputs, cuts=["layer.1", "layers.2"])
    with pytest.raises(GraphError, match="unknown behavioural loss 'l2': expected 'mse' or 'kl'"):
        load_checkpoint(mlp, data=inputs, loss="l2")


# Data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, ["net.json names no data", "--data FILE"]),
        ({"name": "cifar"}, ["unknown data set 'cifar'", "known are modular_addition, two_digits", "--data FILE"]),
        ({"n": 3}, ["unknown data set None", "--data FILE"]),
        ({"name": "two_digits", "size": 3}, ["'two_digits' does not take these options", "size"]),
        ({"name": "two_digits", "n": 8, "n_test": 8}, ["128", "4"]),
    ],
    ids=["none", "unknown", "no name", "unknown option", "wrong width"],
)
def test_bad_data_of_the_json_raises(tmp_path: Path, data: Any, said: list[str]) -> None:
    path = save_mlp(tmp_path / "net.safetensors", data=data)
    with pytest.raises(DataError) as caught:
        load_checkpoint(path)
    for text in said:
        assert text in str(caught.value)


def _npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def _truncated_npz(path: Path) -> None:
    np.savez(path, inputs=np.ones((50, 4)))
    path.write_bytes(path.read_bytes()[:300])


def _text_in_npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inputs", "text")


BAD_DATA: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "missing": (void, ["there is no data file", "bad.npz"]),
    "garbage": (lambda p: p.write_bytes(b"garbage"), ["cannot read the data file", "bad.npz"]),
    "empty file": (lambda p: p.write_bytes(b""), ["cannot read the data file", "bad.npz"]),
    "truncated": (_truncated_npz, ["cannot read the data file", "bad.npz"]),
    "folder": (Path.mkdir, ["cannot read the data file", "bad.npz"]),
    "pickled": (_npz(inputs=np.array([{}, []], dtype=object)), ["cannot read the data file", "bad.npz"]),
    "no inputs": (_npz(x=np.ones((3, 4))), ["holds ['x']", "expected an array named 'inputs'"]),
    "text": (_npz(inputs=np.array([["a"] * 4])), ["bad.npz", "have to hold numbers"]),
    "one number": (_npz(inputs=np.float64(1)), ["'bad'", "are a single number", "expected (data points, ...)"]),
    "NaN": (_npz(inputs=np.full((3, 4), np.nan)), ["'bad'", "hold NaN or infinite values"]),
    "infinite": (_npz(inputs=np.full((3, 4), np.inf)), ["'bad'", "hold NaN or infinite values"]),
    "empty": (_npz(inputs=np.ones((0, 4))), ["'bad' is empty", "at least one data point"]),
    "no numbers": (_npz(inputs=np.ones((3, 0))), ["'bad' have shape (3, 0): they hold no numbers"]),
    "one target": (_npz(inputs=np.ones((3, 4)), targets=np.int64(1)), ["3 inputs but a single number as targets"]),
    "NaN targets": (_npz(inputs=np.ones((3, 4)), targets=np.full(3, np.nan)), ["the targets of", "hold NaN"]),
    "no array": (
        lambda p: zipfile.ZipFile(p, "w").writestr("inputs", "text"),
        ["inputs is a bytes", "array of numbers"],
    ),
    "too wide": (_npz(inputs=np.ones((3, 9))), ["failed on a batch", "(3, 9)"]),
    "targets of another length": (_npz(inputs=np.ones((3, 4)), targets=np.ones(2)), ["3 inputs but 2 targets"]),
    "NaN in the test set": (
        _npz(inputs=np.ones((3, 4)), test_inputs=np.full((3, 4), np.nan)),
        ["'bad (test)'", "hold NaN or infinite values"],
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_file_raises_with_the_problem_named(mlp: Path, tmp_path: Path, case: str) -> None:
    write, said = BAD_DATA[case]
    file = tmp_path / "bad.npz"
    write(file)
    with pytest.raises(DataError) as caught:
        load_checkpoint(mlp, data=file)
    for text in said:
        assert text in str(caught.value)


NUMBERS = [
    f"{order}{code}" for order in "<>" for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
]
OTHERS = ["<c8", ">c16", "<m8[s]", ">M8[D]", "<U3", "S2", "V2", "longdouble", "clongdouble", "O", "i4,f8"]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([*NUMBERS, "?", *OTHERS]),
    st.sampled_from([".npz", ".npy", ".safetensors"]),
    st.integers(0, 10**6),
    st.sampled_from(["C", "F"]),
    st.booleans(),
)
def test_numbers_of_data_files_are_right_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, code: str, suffix: str, seed: int, order: Any, large: bool
) -> None:
    draws = np.random.default_rng(seed)
    kind = np.dtype(code)
    if kind.kind in "iu":
        size = 2 ** (8 * kind.itemsize - 1 if large else 3)
        low = 0 if kind.kind == "u" else -size
        array = draws.integers(low, min(2 * size - 1 if kind.kind == "u" else size - 1, 2**63 - 1), (3, 2)).astype(kind)
        array[0, 0] = np.iinfo(kind).max if large else 1
    else:
        array = draws.integers(0, 3, (3, 2)).astype(kind) if kind.kind in "fcb" else np.zeros((3, 2), kind)
        array = array / kind.type(8) if kind.kind == "f" else array
    array = np.asarray(array, dtype=kind, order=order)
    assert array.dtype == kind
    file = tmp_path_factory.mktemp("data") / f"data{suffix}"
    if suffix == ".safetensors":
        if code in OTHERS and code != "<c8":
            return  # safetensors cannot write such
        save_arrays({"inputs": np.ascontiguousarray(array)}, file)
    elif suffix == ".npz":
        np.savez(file, allow_pickle=True, inputs=array, other=np.array([{}], dtype=object))
    else:
        np.save(file, array, allow_pickle=True)
    refused = code in OTHERS or (kind == np.dtype("u8") and large) or (kind == np.dtype(">u8") and large)
    if refused:
        name = "object" if code == "O" else "uint64" if "u8" in code else str(kind)
        name = "complex64" if code == "<c8" else "complex128" if code == ">c16" else name
        with pytest.raises(DataError, match=re.escape(name)):
            read_dataset(file)
        return
    train, _ = read_dataset(file)
    assert train.inputs.tolist() == array.tolist()
    assert train.inputs.dtype in (torch.bool, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64)
    assert train.sha256 == read_dataset(file)[0].sha256


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_small_floats_of_data_files_are_widened(tmp_path: Path, kind: torch.dtype) -> None:
    values = torch.tensor([[0.5, -1.75], [3.0, 0.0]]).to(kind)
    save_file({"inputs": values}, tmp_path / "data.safetensors")
    train, _ = read_dataset(tmp_path / "data.safetensors")
    assert (train.inputs.dtype, train.inputs.tolist()) == (torch.float32, [[0.5, -1.75], [3.0, 0.0]])


def test_bytes_as_tokens_are_no_mask(tmp_path: Path) -> None:
    path = save_transformer(tmp_path / "net.safetensors")
    tokens = np.array([[0, 1, 5], [1, 1, 5], [1, 0, 5]])
    outputs = []
    for kind in ("i8", "u1", ">u2", "i1"):
        np.savez(tmp_path / "tokens.npz", inputs=tokens.astype(kind))
        loaded = load_checkpoint(path, data=tmp_path / "tokens.npz")
        outputs.append(loaded.network.output(loaded.batches.inputs))
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_fingerprint_is_that_of_types_shapes_and_values() -> None:
    inputs, targets = torch.tensor([[1.5, 2.0]]), torch.tensor([3])
    expected = hashlib.sha256(b"torch.float32(1, 2)" + np.array([1.5, 2.0], "<f4").tobytes())
    expected.update(b"torch.int64(1,)" + np.array([3], "<i8").tobytes())
    assert Dataset("a", inputs, targets).sha256 == expected.hexdigest()
    assert Dataset("a", inputs.T.contiguous().T, targets).sha256 == expected.hexdigest()


def test_table_of_numbers_is_no_data_file(mlp: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("1,2,3,4\n5,6,7,8\n")
    with pytest.raises(DataError, match=r"data\.csv: expected a \.npz or \.safetensors file with `inputs`"):
        load_checkpoint(mlp, data=file)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
def test_data_files_of_every_format_hold_the_same(tmp_path: Path, suffix: str) -> None:
    inputs = np.random.default_rng(0).standard_normal((5, 3))
    file = tmp_path / f"data{suffix}"
    if suffix == ".npz":
        np.savez(file, inputs=inputs)
    elif suffix == ".npy":
        np.save(file, inputs)
    else:
        save_file({"inputs": torch.from_numpy(inputs)}, file)
    train, test = read_dataset(file)
    np.testing.assert_array_equal(train.inputs.numpy(), inputs)
    assert test is train


def test_test_set_is_read_where_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, inputs=np.ones((4, 2)), targets=np.arange(4), test_inputs=np.zeros((3, 2)), test_targets=np.ones(3))
    train, test = read_dataset(file)
    assert (train.name, test.name) == ("data", "data (test)")
    assert train.targets is not None
    assert train.targets.tolist() == [0, 1, 2, 3]
    assert (len(test.inputs), test.targets is None) == (3, False)


def test_fingerprint_is_that_of_the_values() -> None:
    inputs, targets = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 0])
    same = Dataset("other name", inputs.clone(), targets.clone(), batch_size=1)
    assert Dataset("name", inputs, targets).sha256 == same.sha256
    others = [Dataset("name", inputs), Dataset("name", inputs.double(), targets), Dataset("name", inputs + 1, targets)]
    others.append(Dataset("name", inputs.reshape(3, 1, 2), targets))
    assert len({data.sha256 for data in (same, *others)}) == 5


def test_batches_can_be_read_again_and_cover_the_data() -> None:
    data = Dataset("name", torch.arange(10.0)[:, None]).with_batch_size(4)
    for _ in range(2):
        assert [len(batch) for batch in data] == [4, 4, 2]
        assert torch.equal(torch.cat(list(data)), data.inputs)
    assert len(data) == 3
    with pytest.raises(DataError, match="batch size 0: expected at least 1"):
        data.with_batch_size(0)


def test_two_digits_are_pairs_of_pictures_and_split_by_picture() -> None:
    train, test = two_digits(300, 100, seed=1)
    assert train.inputs.shape == (300, 128)
    assert train.targets is not None
    assert train.targets.shape == (300, 2)
    halves = [{tuple(half.tolist()) for half in part.inputs.reshape(-1, 64)} for part in (train, test)]
    assert len(halves[0] & halves[1]) == 0
    again, other = two_digits(300, 100, seed=1)[0], two_digits(300, 100, seed=2)[0]
    assert again.sha256 == train.sha256 != other.sha256
