"""Tensors of files: each type of numbers bit-exact or refused by name; weights that share memory in the model."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from interbasis.analysis import Network, load_checkpoint, save_checkpoint
from interbasis.analysis.checkpoints import tensors
from interbasis.analysis.checkpoints.tensors import converted, parse_tensors, read_tensors
from interbasis.analysis.checkpoints.weights import as_double, fill, tied
from interbasis.analysis.errors import CheckpointError, InputError


def packed(entries: dict[str, tuple[str, tuple[int, ...], bytes]], pad: int = 0) -> bytearray:
    """A safetensors file, written by hand."""
    header: dict[str, Any] = {}
    body = b""
    for name, (kind, shape, content) in entries.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    text = json.dumps(header).encode() + b" " * pad
    return bytearray(len(text).to_bytes(8, "little") + text + body)


def small_float(code: int, exponent_bits: int, mantissa_bits: int, bias: int, *, finite: bool, fnuz: bool) -> float:
    """Value of a float of 8 bits by its definition."""
    sign = -1.0 if code >> 7 else 1.0
    exponent, mantissa = (code >> mantissa_bits) & (2**exponent_bits - 1), code & (2**mantissa_bits - 1)
    if fnuz and code == 0x80:
        return math.nan
    if not fnuz and exponent == 2**exponent_bits - 1:
        if finite and mantissa == 2**mantissa_bits - 1:
            return math.nan
        if not finite:
            return math.nan if mantissa else sign * math.inf
    if exponent == 0:
        return sign * mantissa / 2**mantissa_bits * 2.0 ** (1 - bias)
    return sign * (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias)


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        ("F8_E4M3", {"exponent_bits": 4, "mantissa_bits": 3, "bias": 7, "finite": True, "fnuz": False}),
        ("F8_E5M2", {"exponent_bits": 5, "mantissa_bits": 2, "bias": 15, "finite": False, "fnuz": False}),
        ("F8_E4M3FNUZ", {"exponent_bits": 4, "mantissa_bits": 3, "bias": 8, "finite": True, "fnuz": True}),
        ("F8_E5M2FNUZ", {"exponent_bits": 5, "mantissa_bits": 2, "bias": 16, "finite": True, "fnuz": True}),
    ],
)
def test_every_float_of_eight_bits_is_its_definition(kind: str, definition: dict[str, Any]) -> None:
    found = parse_tensors(packed({"w": (kind, (16, 16), bytes(range(256)))}))["w"]
    expected = np.array([small_float(code, **definition) for code in range(256)]).reshape(16, 16)
    np.testing.assert_array_equal(converted(found, torch.float64).numpy(), expected)


def test_every_float_of_sixteen_bits_is_its_definition() -> None:
    codes = np.arange(2**16, dtype="<u2")
    found = parse_tensors(packed({"h": ("F16", (2**16,), codes.tobytes()), "b": ("BF16", (2**16,), codes.tobytes())}))
    np.testing.assert_array_equal(converted(found["h"], torch.float64).numpy(), codes.view("<f2").astype(float))
    with np.errstate(invalid="ignore"):  # signalling NaN
        wide = (codes.astype("<u4") << 16).view("<f4").astype(float)
    np.testing.assert_array_equal(converted(found["b"], torch.float64).numpy(), wide)


NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<c8", "BOOL": "?"}
NUMPY |= {f"{k}{8 * n}": f"<{k.lower()}{n}" for k in "IU" for n in (1, 2, 4, 8)}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(NUMPY)), st.integers(0, 10**6), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 7)
)
def test_numbers_are_those_of_the_file_or_refused(kind: str, seed: int, shape: list[int], pad: int) -> None:
    draws = np.random.default_rng(seed)
    kept = np.dtype(NUMPY[kind])
    size = math.prod(shape)
    written = np.frombuffer(draws.bytes(size * kept.itemsize), kept)
    if kept.kind in "iu":
        written = written >> kept.type(draws.integers(0, 8 * kept.itemsize))
    elif kept.kind == "b":
        written = draws.integers(0, 2, size).astype(bool)
    entries = {"odd": ("U8", (1,), b"\1"), "w": (kind, tuple(shape), written.tobytes())}
    found = parse_tensors(packed(entries, pad))["w"]
    assert found.shape == tuple(shape)
    assert found.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == written.tobytes()
    if (kept.kind == "c" and size) or (kept.kind in "iu" and any(abs(int(x)) > 2**53 for x in written)):
        with pytest.raises(InputError, match=str(found.dtype).removeprefix("torch.")):
            converted(found, torch.float64)
        return
    if kept.kind != "c":
        wide = converted(found, torch.float64).flatten().tolist()
        expected = [float(x) if kept.kind in "fb" else int(x) for x in written]  # an int equals a float only exactly
        assert all(a == b or (a != a and b != b) for a, b in zip(wide, expected, strict=True))


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (torch.tensor([1.5]), torch.int64, "holds float32 numbers that are none of int64"),
        (torch.tensor([2.0**63], dtype=torch.float64), torch.int64, "float64 numbers that are none of int64"),
        (torch.tensor([torch.nan]), torch.int64, "float32 numbers that are none of int64"),
        (torch.tensor([300]), torch.uint8, "int64 numbers that are none of uint8"),
        (torch.tensor([2]), torch.bool, "int64 numbers that are none of bool"),
        (torch.tensor([2**63 - 1]), torch.float64, "int64 numbers that are none of float64"),
        (torch.tensor([1j]), torch.float64, "complex numbers .complex64., expected real ones"),
        (torch.tensor([2**64 - 1], dtype=torch.uint64), torch.int64, "uint64 numbers of 2.63 and more"),
        (torch.tensor([1e300], dtype=torch.float64), torch.complex64, "float64 numbers that are none of complex64"),
    ],
)
def test_numbers_that_the_other_type_does_not_have_raise(value: Tensor, kind: torch.dtype, said: str) -> None:
    with pytest.raises(InputError, match=said):
        converted(value, kind)


def test_numbers_that_the_other_type_has_stay(generator: torch.Generator) -> None:
    for value in (torch.tensor([1.0, -3.0]), torch.tensor([True, False]), torch.tensor([-5, 2**53])):
        for kind in (torch.int64, torch.float64, torch.complex128):
            assert converted(value, kind).tolist() == value.tolist()


@pytest.mark.parametrize("kind", ["F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "C128", "I128", "f32", ""])
def test_types_that_are_not_read_raise_with_their_name(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(packed({"layers.0.weight": (kind, (2,), b"\0\0")}))
    with pytest.raises(InputError, match=rf"a\.safetensors: layers\.0\.weight holds numbers of type {kind}, which are"):
        read_tensors(file)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_spoilt_files_raise_an_error_of_ours(data: st.DataObject) -> None:
    whole = packed({"a": ("F32", (2, 2), bytes(16)), "b": ("I64", (), bytes(8)), "c": ("F64", (0, 3), b"")})
    spoilt = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(spoilt) - 1)), max_size=3)):
        if spoilt:
            spoilt[at] = data.draw(st.integers(0, 255))
    try:
        found = parse_tensors(spoilt)
    except (InputError, ValueError):
        return
    assert all(isinstance(tensor, Tensor) for tensor in found.values())


def test_tensors_and_hash_belong_together_when_the_file_is_swapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, first = tmp_path / "a.safetensors", packed({"w": ("F64", (1,), np.float64(1).tobytes())})
    parse = tensors.parse_tensors

    def swapped(data: bytearray) -> dict[str, Tensor]:
        file.write_bytes(packed({"w": ("F64", (1,), np.float64(2).tobytes())}))
        return parse(data)

    file.write_bytes(first)
    monkeypatch.setattr(tensors, "parse_tensors", swapped)
    found, digest = read_tensors(file)
    assert (found["w"].tolist(), digest) == ([1.0], hashlib.sha256(first).hexdigest())
    found, digest = read_tensors(file)
    assert found["w"].tolist() == [2.0]
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


# Weights that share memory


class Shared(nn.Module):
    """Square layers of which some share their weights, in one of the ways that models do."""

    def __init__(self, groups: list[int], how: str, kind: str = "float32") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(3, 3, bias=False, dtype=getattr(torch, kind)) for _ in groups)
        self.how = how
        first: dict[int, nn.Linear] = {}
        for group, layer in zip(groups, self.layers, strict=True):
            one = first.setdefault(group, layer)
            if one is layer:
                continue
            if how == "parameter":
                layer.weight = one.weight
            elif how == "view":
                layer.weight = nn.Parameter(one.weight.data)
            elif how == "transposed":
                layer.weight = nn.Parameter(one.weight.data.T)
            else:  # buffer
                del layer.weight
                layer.register_buffer("weight", one.weight.detach())
        self.register_buffer("top", self.layers[0].weight.detach()[:1])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x * self.top


HOW = ["parameter", "view", "transposed", "buffer"]


def every_name(model: nn.Module, file: Path) -> None:
    save_file({n: t.clone(memory_format=torch.contiguous_format) for n, t in model.state_dict().items()}, file)


def by_ours(model: nn.Module, file: Path) -> None:
    save_checkpoint(model, file, config={"groups": [], "how": ""})


def by_safetensors(model: nn.Module, file: Path) -> None:
    save_model(model, str(file))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=5),
    st.sampled_from(HOW),
    st.sampled_from([every_name, by_ours, by_safetensors]),
    st.sampled_from(["float32", "float64", "bfloat16"]),
    st.integers(0, 10**6),
)
def test_models_load_as_they_were_whichever_names_the_file_has(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[int],
    how: str,
    write: Callable[[nn.Module, Path], None],
    kind: str,
    seed: int,
) -> None:
    assume(how != "transposed" or write is not by_safetensors)  # which cannot write such
    file = tmp_path_factory.mktemp("shared") / "net.safetensors"
    model = Shared(groups, how, kind)
    with torch.no_grad():
        for layer in model.layers:
            layer.weight.normal_(generator=torch.Generator().manual_seed(seed))
    write(model, file)
    file.with_suffix(".json").write_text(json.dumps({"family": "torch", "config": {"groups": groups, "how": how}}))
    np.savez(file.with_name("data.npz"), inputs=np.random.default_rng(0).standard_normal((4, 3)))
    loaded = load_checkpoint(file, data=file.with_name("data.npz"), factory=Shared, cuts=["layers.0:in", "layers.0"])
    state = loaded.network.model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor.double())
    assert tied(state) == tied(model.state_dict())
    expected = model.double()(loaded.batches.inputs)
    torch.testing.assert_close(loaded.network.output(loaded.batches.inputs)[:, 0], expected.detach())


@pytest.mark.parametrize("how", HOW)
def test_different_values_of_what_the_model_ties_raise(how: str, tmp_path: Path) -> None:
    model = Shared([0, 1, 0], how)
    values = {n: t.clone(memory_format=torch.contiguous_format) for n, t in model.state_dict().items()}
    values["layers.2.weight"][2, 1] += 1e-6
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight.*layers\.2\.weight.* share their memory"):
        fill(as_double(model), values, tmp_path)
    del values["layers.2.weight"]
    values["top"] = values["top"] + 1
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight.*top share their memory"):
        fill(as_double(Shared([0, 1, 0], how)), values, tmp_path)


def test_names_that_nothing_in_the_file_fills_are_missing(tmp_path: Path) -> None:
    model = Shared([0, 1, 0], "parameter")
    values = {n: t.clone() for n, t in model.state_dict().items()}
    part = {"top": values["top"], "layers.1.weight": values["layers.1.weight"]}  # a row of the first weight only
    with pytest.raises(CheckpointError, match=r"lacks the tensors layers\.0\.weight, layers\.2\.weight that"):
        fill(as_double(model), part, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds the tensors layers\.3\.weight, which"):
        fill(model, values | {"layers.3.weight": values["top"]}, tmp_path)
    notes = fill(model, {name: values[name] for name in ("layers.2.weight", "layers.1.weight")}, tmp_path)
    assert notes == (
        "left out of the file, since the model ties them: layers.0.weight (as layers.2.weight), top (as "
        "layers.2.weight)",
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["module.", "_orig_mod."]), max_size=3),
    st.lists(st.sampled_from(["module.", "_orig_mod."]), max_size=2),
)
def test_names_that_wrappers_add_are_passed_over_and_said(of_file: list[str], of_model: list[str]) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1)))
    written = {
        "".join(of_file) + n.replace("1.0.", "1._orig_mod.0."): t.clone() + 1 for n, t in net.state_dict().items()
    }
    model: nn.Module = net
    for name in reversed(of_model):
        outer = nn.Module()
        outer.add_module(name.removesuffix("."), model)
        model = outer
    notes = fill(as_double(model), written, Path("net"))
    for tensor, expected in zip(net.state_dict().values(), written.values(), strict=True):
        assert torch.equal(tensor, expected.double())
    assert "_orig_mod." in notes[0]
    assert "in names of tensors passed over: a wrapped model was saved" in notes[0]


def test_names_of_wrappers_that_are_the_models_own_stay() -> None:
    model = nn.Module()
    model.add_module("module", nn.Linear(1, 1, bias=False))
    model.register_parameter("weight", nn.Parameter(torch.zeros(1, 1)))
    values = {"module.weight": torch.ones(1, 1), "weight": torch.full((1, 1), 2.0)}
    assert fill(as_double(model), values, Path("net")) == ()
    assert [p.item() for p in model.parameters()] == [2.0, 1.0]
    with pytest.raises(CheckpointError, match=r"lacks the tensors weight that"):
        fill(model, {"module.weight": torch.ones(1, 1)}, Path("net"))
    alone = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    twice = alone | {"module.weight": torch.zeros(1, 2)}
    with pytest.raises(CheckpointError, match=r"module\.weight, weight name one tensor of the model"):
        fill(nn.Linear(2, 1), twice, Path("net"))


def test_models_without_memory_and_states_that_are_no_tensors_raise(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weight has no memory in the model"):
        fill(nn.Linear(2, 1, bias=False, device="meta"), {"weight": torch.ones(1, 2)}, tmp_path)

    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"scale": 3}

    with pytest.raises(CheckpointError, match="lacks the tensors _extra_state"):
        fill(Extra(2, 1), dict(nn.Linear(2, 1).state_dict()), tmp_path)
    with pytest.raises(CheckpointError, match="_extra_state of the model's state is no plain tensor"):
        save_checkpoint(Extra(2, 1), tmp_path / "net.safetensors")


def test_a_model_that_changes_what_is_loaded_raises(tmp_path: Path) -> None:
    class Halving(nn.Linear):
        def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: Any) -> None:
            super()._load_from_state_dict({name: tensor / 2 for name, tensor in state.items()}, prefix, *args)

    with pytest.raises(CheckpointError, match="the model holds other values of weight than the file"):
        fill(Halving(2, 1, bias=False), {"weight": torch.ones(1, 2)}, tmp_path)


def test_saved_checkpoints_load_with_what_their_json_says(tmp_path: Path) -> None:
    model = Shared([0, 1, 0], "parameter")
    about = {"step": 5, "label": "end", "model": "shared", "cuts": ["layers.0", "layers.1"], "loss": "kl"}
    file = save_checkpoint(
        model, tmp_path / "net.safetensors", config={"groups": [0, 1, 0], "how": "parameter"}, **about
    )
    np.savez(tmp_path / "data.npz", inputs=np.eye(3))
    loaded = load_checkpoint(file, data=tmp_path / "data.npz", factory=Shared)
    assert (loaded.step, loaded.label, loaded.model, loaded.network.loss) == (5, "end", "shared", "kl")
    assert loaded.network.cuts == ("layers.0", "layers.1")
    assert loaded.notes[0].startswith("left out of the file, since the model ties them: layers.2.weight")
    assert f"  note: {loaded.notes[0]}" in repr(loaded)
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    mlp = save_checkpoint(
        Network(load_checkpoint(file, data=tmp_path / "data.npz", factory=Shared).network.model, ()).model,
        tmp_path / "again.safetensors",
    )
    assert set(read_tensors(mlp)[0]) == {"layers.0.weight", "layers.1.weight", "top"}
    with pytest.raises(CheckpointError, match=r"net\.pt does not end in \.safetensors"):
        save_checkpoint(model, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(model, tmp_path / "net.safetensors", config={"a": object()})
