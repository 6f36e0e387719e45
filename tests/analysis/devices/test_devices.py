"""Whole analyses where the model is on another device than the data, and under another default device than the CPU."""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import TinyAttention, normal, random_mlp
from cases_checkpoints import save_inputs, save_mlp
from cases_circuits import Planted
from cases_device import device as elsewhere
from cases_transformers import random_tokens, transformer
from torch import nn
from torch.utils._device import _device_constructors

from interbasis.analysis import (
    Dataset,
    ExperimentRecipe,
    Network,
    Recipe,
    Sampler,
    analyze,
    coordinate_correlation,
    interaction_basis,
    interaction_graph,
    learning_coefficient,
    load_checkpoint,
    parameter_ledger,
    run,
    run_experiment,
    sparsify,
    synchronised_units,
)
from interbasis.analysis.checkpoints import checkpoint
from interbasis.analysis.circuits.experiments import KINDS
from interbasis.analysis.devices import device as devices
from interbasis.analysis.errors import DataError, InputError
from interbasis.analysis.exchange.component_strengths import component_strengths
from interbasis.analysis.llc.network_loss import behavioural_loss, training_loss
from interbasis.analysis.network import hooks
from interbasis.analysis.network.hooks import copied_to

ROOT = Path(__file__).parents[3]
FACTORIES = _device_constructors()  # those that follow the default device
BASES: tuple[dict[str, Any], ...] = (
    {},
    {"rotation": "full", "output": "pca"},
    {"probes": 4},
    {"tolerance": 0.5},
    {"probes": 2, "rotation": "none"},
    {"kind": "local"},
    {"kind": "local", "probes": 3},
    {"kind": "pca"},
)
STRENGTHS: tuple[dict[str, Any], ...] = ({}, {"strengths": "attribution", "points": 2}, {"probes": 2})

Computed = Callable[[Callable[[nn.Module], nn.Module]], list[Any]]


FEW = (BASES[0], BASES[4], BASES[6])


def graphs(
    model: nn.Module, batches: list[Any], bases_of: tuple[dict[str, Any], ...] = FEW, **options: Any
) -> Computed:
    """Checks, cut scan, bases of several kinds with a graph each, the first with graphs of every kind."""

    def compute(move: Callable[[nn.Module], nn.Module]) -> list[Any]:
        net = Network(move(model), "auto", **options)
        found: list[Any] = []
        for index, choices in enumerate(bases_of):
            bases = interaction_basis(net, batches, **choices)
            found += [basis.importance for basis in bases.values()]
            for kind in STRENGTHS if index == 0 else [STRENGTHS[index % len(STRENGTHS)]]:
                graph = interaction_graph(net, bases, batches, **kind)
                found += [*graph.blocks, *(part for part in graph.beyond_skip if part is not None)]
        return found + coordinate_correlation((net, bases), (net, bases), batches)

    return compute


def ledgers(model: nn.Module, batches: list[Any], **options: Any) -> Computed:
    def compute(move: Callable[[nn.Module], nn.Module]) -> list[Any]:
        net = Network(move(model), "auto", **options)
        found = [parameter_ledger(net, batches), parameter_ledger(net, batches, epsilon=1e-4, method="estimate")]
        return [(ledger.effective, ledger.nominal, ledger.unexplained, ledger.hessian_rank) for ledger in found]

    return compute


def units(model: nn.Module, batches: list[Any], **options: Any) -> Computed:
    def compute(move: Callable[[nn.Module], nn.Module]) -> list[Any]:
        net = Network(move(model), "auto", **options)
        found = synchronised_units(net, batches)
        sparse = sparsify(net, batches)
        return [part.distances for part in found.values()] + [sparse.network().output(batches[0]).cpu()]

    return compute


def coefficients(model: nn.Module, batches: list[Any], targets: list[Any], **options: Any) -> Computed:
    """A behavioural loss with every way to precondition, and a training loss on random data points."""

    def compute(move: Callable[[nn.Module], nn.Module]) -> list[Any]:
        net = Network(move(model), "auto", **options)
        short: dict[str, Any] = {"chains": 2, "warmup": 10, "draws": 10}
        found = [
            learning_coefficient(net, batches, temperature=100.0, sampler=Sampler(**short, **more))
            for more in ({}, {"preconditioner": "lanczos"}, {"kernel": "sgld", "batch_size": 4})
        ]
        some = behavioural_loss(net, batches, parameters={"1.0.weight": torch.ones(3, 6, device="cpu").tril().bool()})
        loss = training_loss(net, list(zip(batches, targets, strict=True)), nn.functional.mse_loss)
        found += [
            learning_coefficient(landscape, temperature=100.0, sampler=Sampler(**short)) for landscape in (some, loss)
        ]
        return [one.value for one in found]

    return compute


def experiments(planted: Planted) -> Computed:
    data = Dataset("blocks", planted.x, planted.model(planted.x).detach().argmax(1))

    def compute(move: Callable[[nn.Module], nn.Module]) -> list[Any]:
        net = Network(move(planted.model), ["0:in", "0", "1", "2"])
        return [
            run_experiment(
                net,
                planted.bases,
                planted.graph,
                partition=planted.part,
                data=data,
                recipe=ExperimentRecipe(kind=kind, draws=2, replacement=replacement),
            ).to_bytes()
            for kind, replacement in [(kind, "resample" if kind == "modules" else "mean") for kind in KINDS]
        ]

    return compute


def one_call(model: nn.Module, data: Any, **choices: Any) -> Computed:
    def compute(move: Callable[[nn.Module], nn.Module]) -> list[Any]:
        found = analyze(move(model), data, seed=1, **choices)
        return [*found.graph.blocks, found.partition.n_modules, found.verdict]

    return compute


def heads_and_neurons(model: nn.Module, batches: list[Any]) -> Computed:
    """Strengths of attention heads, their patterns, MLPs and hidden units."""

    def compute(move: Callable[[nn.Module], nn.Module]) -> list[Any]:
        net = Network(move(model), ["resid_pre.0", "resid_post.0", "resid_post.1"], skip_first=True)
        bases = interaction_basis(net, batches, kind="pca")
        graph = interaction_graph(net, bases, batches, probes=1)
        split = component_strengths(net, bases, graph, batches, patterns=True, neurons=2)
        neurons = [part for parts in split.neurons.inside for part in parts] if split.neurons else []
        return [*split.strengths, *split.along, *split.patterns, *neurons]

    return compute


def cases() -> dict[str, Callable[[], Computed]]:
    def draws() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def points(*shape: int) -> torch.Tensor:
        return normal(*shape, generator=torch.Generator().manual_seed(1))

    def mlp(**options: Any) -> nn.Module:
        return random_mlp([4, 6, 3], draws(), **options)

    def attention() -> nn.Module:
        return TinyAttention(4, draws())

    tokens = random_tokens(12, 6)
    padded = {"input_ids": tokens, "attention_mask": (torch.arange(6) < 4 + (torch.arange(12) % 3)[:, None]).long()}
    return {
        "graphs of an MLP": lambda: graphs(mlp(), list(points(40, 4).split(20)), BASES),
        "graphs with attention": lambda: graphs(attention(), list(points(12, 4, 4).split(6))),
        "graphs without the first": lambda: graphs(attention(), list(points(12, 4, 4).split(6)), skip_first=True),
        "graphs of the last": lambda: graphs(attention(), [points(30, 5, 4)], positions="last"),
        "graphs of pictures": lambda: graphs(
            nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).double(), [points(30, 1, 3, 3)]
        ),
        "ledger of an MLP": lambda: ledgers(mlp(activation=nn.ReLU), [points(40, 4)]),
        "synchronised units": lambda: units(mlp(activation=nn.ReLU), [points(40, 4)]),
        "learning coefficient": lambda: coefficients(
            mlp(), list(points(20, 4).split(10)), list(points(20, 3).split(10))
        ),
        "experiments": lambda: experiments(Planted(2, {(1, 0, 1): 0.1})),
        "heads and neurons": lambda: heads_and_neurons(
            transformer("gpt2").double(), list(random_tokens(4, 3).split(2))
        ),
        "one call": lambda: one_call(mlp(), points(60, 4)),
        "one call, padded": lambda: one_call(transformer("bert"), [padded], probes=2, resolution=1.0),
        **{
            f"one call, {name}": (lambda name=name: one_call(transformer(name), tokens, probes=2, resolution=1.0))
            for name in ("gpt2", "llama", "gpt_neox", "gemma")
        },
    }


CASES = cases()


@functools.cache
def computed(name: str) -> tuple[Computed, list[Any]]:
    """How a case is computed, and what comes out on the CPU."""
    compute = CASES[name]()
    return compute, compute(copy.deepcopy)


@contextmanager
def moved_away(*, float64: bool) -> Iterator[Callable[[nn.Module], nn.Module]]:
    with elsewhere(float64=float64) as name:
        yield lambda model: copy.deepcopy(model).to(name)


def same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, np.ndarray):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)  # models compute in float32 inside
        else:
            assert one == other if not isinstance(one, torch.Tensor) else torch.equal(one, other)


FAMILIES = [name for name in CASES if name.startswith("one call, ") and name != "one call, padded"]
SLOWER = (*FAMILIES, "experiments", "graphs without the first", "graphs of the last")
"""Families differ in how their modules are found; what is computed then is that of the other cases."""


def names(later: Collection[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.long] * (name in later)) for name in CASES]


@pytest.mark.parametrize("name", names(FAMILIES))
def test_tensors_name_their_device(name: str) -> None:
    compute, expected = computed(name)
    with torch.device("meta"):
        same(compute(copy.deepcopy), expected)


@pytest.mark.parametrize("name", names(SLOWER))
def test_model_elsewhere(name: str) -> None:
    """Data come to the model, what is computed there stays apart, and the numbers are those of the CPU."""
    compute, expected = computed(name)
    with moved_away(float64=True) as move:
        same(compute(move), expected)


@pytest.mark.parametrize("name", ["graphs", "masked graphs", "one call", "ledger", "coefficient"])
def test_device_without_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on mps: models are in float32 there, and sums in float64 on the CPU."""
    draws = torch.Generator().manual_seed(0)
    mlp, attention = (model.float() for model in (random_mlp([4, 6, 3], draws, nn.ReLU), TinyAttention(4, draws)))
    x, sequences = (normal(*shape, generator=draws).float() for shape in ((40, 4), (12, 4, 4)))
    compute = {
        "graphs": lambda: graphs(mlp, [x]),
        "masked graphs": lambda: graphs(attention, list(sequences.split(6)), skip_first=True),
        "one call": lambda: one_call(transformer("gpt2"), random_tokens(12, 6), probes=2, resolution=1.0),
        "ledger": lambda: ledgers(mlp, [x]),
        "coefficient": lambda: coefficients(mlp, [x], [x[:, :3]]),
    }[name]()
    expected = compute(lambda model: model)
    monkeypatch.setattr(devices, "_WITHOUT_FLOAT64", ("meta",))
    with moved_away(float64=False) as move:
        found = compute(move)
    if name == "one call":  # in float32, and not in float64 as on the CPU
        assert [part.shape for part in found[:-2]] == [part.shape for part in expected[:-2]]
    else:
        same(found, expected)


def test_every_factory_names_a_device() -> None:
    """So that no tensor is made where the model is not, whatever the default device."""
    unnamed = []
    for path in sorted((ROOT / "analysis").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        calls = [n for n in nodes if isinstance(n, ast.Call) and any(k.arg == "device" for k in n.keywords)]
        named = {id(call.func) for call in calls}
        of_torch = [n for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "torch"]
        factories = [n for n in of_torch if getattr(torch, n.attr, None) in FACTORIES]
        unnamed += [f"{path.relative_to(ROOT)}:{n.lineno}" for n in factories if id(n) not in named]
    assert not unnamed


def test_network_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is copied to the device; the caller's stays where it is."""
    model = random_mlp([4, 6, 3], torch.Generator().manual_seed(0))
    x = normal(20, 4, generator=torch.Generator().manual_seed(1))
    assert Network(model, "auto").model is Network(model, "auto", device="cpu").model is model
    monkeypatch.setattr(hooks, "find_device", torch.device)
    monkeypatch.setattr(checkpoint, "find_device", torch.device)
    with elsewhere() as name:
        net = Network(model, "auto", device=name)
        assert (net.device.type, next(model.parameters()).device.type) == (name, "cpu")
        assert torch.equal(net.output(x).cpu(), model(x)[:, None])
        assert analyze(model, x, device=name).graph == analyze(model, x).graph
        assert Network(net.model, "auto", device=name).model is net.model


def test_checkpoint_on_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_inputs(tmp_path / "x.npz")
    path = save_mlp(tmp_path / "a.safetensors")
    here = run(load_checkpoint(path, data=tmp_path / "x.npz"), Recipe())
    monkeypatch.setattr(checkpoint, "find_device", torch.device)
    with elsewhere() as name:
        loaded = load_checkpoint(path, data=tmp_path / "x.npz", device=name)
        assert loaded.network.device.type == name
        assert run(loaded, Recipe()).graph == here.graph
    monkeypatch.setattr(devices, "_WITHOUT_FLOAT64", ("meta",))
    with elsewhere(float64=False) as name:
        loaded = load_checkpoint(path, data=tmp_path / "x.npz", device=name)
        found = run(loaded, Recipe())
        assert (found.precision, found.graph.widths) == ("float32", here.graph.widths)
    with torch.device("meta"):
        assert run(load_checkpoint(path, data=tmp_path / "x.npz"), Recipe()).graph == here.graph


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "mps:1", "meta", ""])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"unknown device '{name}': expected auto, cpu, cuda, mps"):
        Network(nn.Linear(2, 2), (), device=name)


def test_absent_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"there is no device 'cuda': this PyTorch \(.*\) finds "):
        load_checkpoint("a.safetensors", device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (devices.find_device("auto"), devices.find_device("cuda:1")) == (
        torch.device("cuda"),
        torch.device("cuda:1"),
    )
    with pytest.raises(InputError, match="there is no device 'cuda:2': of cuda there are 2"):
        devices.find_device("cuda:2")


@pytest.mark.skipif(devices.find_device("auto").type == "cpu", reason="no cuda and no mps here")
@pytest.mark.parametrize(
    "name", ["graphs of an MLP", "graphs with attention", "learning coefficient", "one call, gpt2"]
)
def test_gpu_computes_what_the_cpu_does(name: str) -> None:
    where = devices.find_device("auto")
    compute = CASES[name]()
    found, expected = compute(lambda model: copied_to(model, where)), compute(copy.deepcopy)
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, np.ndarray):
            precise = devices.sums_on(where) == where
            np.testing.assert_allclose(one, other, rtol=1e-6 if precise else 1e-2, atol=1e-6 if precise else 1e-3)
        else:
            assert one == pytest.approx(other, rel=0.1) if isinstance(one, float) else one == other


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_blocks_without_room_are_halved(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are the same; what cannot be halved is named."""
    net = Network(random_mlp([4, 6, 3], torch.Generator().manual_seed(0)), "auto")
    x = normal(20, 4, generator=torch.Generator().manual_seed(1))
    expected = interaction_graph(net, interaction_basis(net, [x]), [x])
    whole, room = torch.autograd.grad, [2]

    def limited(outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        if (len(cotangents) if options.get("is_grads_batched") else 1) > room[0]:
            raise error
        return whole(outputs, inputs, cotangents, **options)

    monkeypatch.setattr(torch.autograd, "grad", limited)
    with pytest.warns(RuntimeWarning, match="memory does not suffice for 3 backward passes at once"):
        found = interaction_graph(net, interaction_basis(net, [x]), [x])
    same([*found.blocks], [*expected.blocks])
    room[0] = 0
    with (
        pytest.warns(RuntimeWarning, match="in halves"),
        pytest.raises(DataError, match="a backward pass of 20 data points: give batches of fewer"),
    ):
        interaction_graph(net, interaction_basis(net, [x]), [x])


def test_batch_without_room_is_named() -> None:
    class Large(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(DataError, match="a forward pass of 8 data points: give batches of fewer"):
        Network(Large(2, 2), [], check=False).trace(torch.ones(8, 2))
    with pytest.raises(DataError, match="a forward pass of a single data point: take shorter ones"):
        Network(Large(2, 2), [], check=False).trace(torch.ones(1, 2))
