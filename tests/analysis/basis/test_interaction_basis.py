"""The interaction basis: its invariants, its known answers, its agreement with slow formulas and with a peer."""

import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from cases import (
    block_diagonal_mlp,
    cut_network,
    normal,
    random_invertible,
    random_mlp,
    random_orthogonal,
    sequential,
    white,
)
from cases_long import SEEDS
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor, nn

from interbasis.analysis.basis.bases import Bases
from interbasis.analysis.basis.interaction_basis import interaction_basis
from interbasis.analysis.basis.jacobians import output_moments
from interbasis.analysis.basis.moments import collect
from interbasis.analysis.checkpoints.checkpoint import load_checkpoint
from interbasis.analysis.errors import CutError, DataError, GraphError
from interbasis.analysis.graph.strengths import interaction_graph
from interbasis.analysis.modules.find_modules import find_modules
from interbasis.analysis.network.network import Network

KINDS = ["global", "local"]


def linear_network(generator: torch.Generator, widths: tuple[int, ...] = (6, 5, 3, 4, 7)) -> tuple[Network, Tensor]:
    """Deep linear network with a bottleneck of 3, on data of rank 4."""
    x = normal(60, 4, generator=generator) @ normal(4, widths[0], generator=generator)
    return cut_network(random_mlp(widths, generator, activation=None), x), x


def coordinates(net: Network, bases: Bases, x: Tensor) -> list[Tensor]:
    return [bases[cut].coordinates(f[:, 0]) for cut, f in net.activations(x).items()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rotation", ["none", "degenerate", "full"])
def test_deep_linear_network_has_equal_coordinates_and_identity_transitions(
    kind: str, rotation: str, generator: torch.Generator
) -> None:
    net, x = linear_network(generator)
    bases = interaction_basis(net, [x], kind=kind, rotation=rotation, output="pca")
    first, *rest = coordinates(net, bases, x)
    assert first.shape[1] == 3
    for later in rest:
        signs = torch.sign((first * later).sum(0))
        torch.testing.assert_close(later * signs, first, rtol=0, atol=1e-10)
    for p in range(len(net.cuts) - 1):
        jacobian = net.jacobian(x[:1], p, p + 1)[0, 0, :, 0].numpy()
        transition = bases[net.cuts[p + 1]].to_basis @ jacobian @ bases[net.cuts[p]].from_basis
        np.testing.assert_allclose(abs(transition), np.eye(3), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_reparametrisation_of_a_layer_changes_only_signs(kind: str, layer: int, generator: torch.Generator) -> None:
    weights = [normal(5, 6, generator=generator), normal(5, 5, generator=generator), normal(4, 5, generator=generator)]
    weights.append(normal(3, 4, generator=generator))
    biases = [normal(len(w), generator=generator) for w in weights]
    x = normal(80, 6, generator=generator)
    mix = random_invertible(len(weights[layer]), generator)
    models = []
    for changed in (False, True):
        w, b = list(weights), list(biases)
        if changed:
            w[layer], b[layer] = mix @ w[layer], mix @ b[layer]
            w[layer + 1] = w[layer + 1] @ torch.linalg.inv(mix)
        models.append(_gelu_around(w, b, linear=layer))
    before, after = (
        coordinates(net, interaction_basis(net, [x], kind=kind), x)
        for net in (Network(model, ["0:in", "0", "1", "2", "3"], example=x) for model in models)
    )
    for a, b in zip(before, after, strict=True):
        signs = torch.sign((a * b).sum(0))
        torch.testing.assert_close(b * signs, a, rtol=0, atol=1e-8)


def _gelu_around(weights: list[Tensor], biases: list[Tensor], linear: int) -> nn.Sequential:
    """Dense layers with GELU except in the given one, where a change of basis is allowed."""
    model = sequential(weights, biases, nn.GELU)
    model[linear] = nn.Sequential(model[linear][0])
    return model


@pytest.mark.parametrize("kind", [*KINDS, "pca", "neuron"])
def test_basis_and_pseudoinverse_project_on_the_kept_span(kind: str, generator: torch.Generator) -> None:
    net, x = linear_network(generator)
    for basis in interaction_basis(net, [x], kind=kind).values():
        k = len(basis.importance)
        np.testing.assert_allclose(basis.to_basis @ basis.from_basis, np.eye(k), atol=1e-10)
        projection = basis.from_basis @ basis.to_basis
        np.testing.assert_allclose(projection @ projection, projection, atol=1e-10)


@pytest.mark.parametrize("kind", [*KINDS, "pca"])
def test_importance_is_the_variance_of_the_coordinate(kind: str, generator: torch.Generator) -> None:
    x = normal(70, 5, generator=generator)
    net = cut_network(random_mlp((5, 6, 4), generator), x)
    bases = interaction_basis(net, [x], kind=kind, output="pca")
    for basis, values in zip(bases.values(), coordinates(net, bases, x), strict=True):
        np.testing.assert_allclose(values.var(0, correction=0), basis.importance, rtol=1e-9)
        assert (np.diff(basis.importance) <= 0).all()
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-10)


def test_plain_basis_diagonalises_g_and_m(generator: torch.Generator) -> None:
    x = normal(50, 5, generator=generator)
    model = random_mlp((5, 6, 4), generator)
    net = cut_network(model, x)
    basis = interaction_basis(net, [x], rotation="none")["0"]
    values = net.activations(x)["0"]
    m = reference.jacobian_gram(model[1], values).numpy()
    np.testing.assert_allclose(basis.from_basis.T @ m @ basis.from_basis, np.eye(4), atol=1e-9)
    _, g = reference.gram(values)
    np.testing.assert_allclose(basis.to_basis @ g.numpy() @ basis.to_basis.T, np.diag(basis.importance), atol=1e-9)
    np.testing.assert_allclose(basis.gram_spectrum, np.linalg.eigvalsh(g.numpy())[::-1], atol=1e-10)


def test_last_cut_is_pca_for_mse_and_raw_outputs_for_neuron(generator: torch.Generator) -> None:
    x = normal(50, 5, generator=generator)
    net = cut_network(random_mlp((5, 6, 4), generator), x)
    pca = interaction_basis(net, [x], kind="pca")["1"]
    for kind in KINDS:
        last = interaction_basis(net, [x], kind=kind, rotation="none")["1"]
        np.testing.assert_allclose(abs(last.to_basis), abs(pca.to_basis), atol=1e-9)
        np.testing.assert_array_equal(interaction_basis(net, [x], kind=kind, output="neuron")["1"].to_basis, np.eye(4))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_order_and_size_change_nothing(kind: str, generator: torch.Generator) -> None:
    x = normal(60, 5, generator=generator)
    net = cut_network(random_mlp((5, 8, 6, 4), generator), x)
    one = interaction_basis(net, [x], kind=kind)
    shuffled = x[torch.randperm(60, generator=generator)]
    for batches in (list(x.split(7)), list(shuffled.split(11))):
        many = interaction_basis(net, batches, kind=kind)
        for cut in net.cuts:
            np.testing.assert_allclose(many[cut].importance, one[cut].importance, rtol=1e-10)
            np.testing.assert_allclose(many[cut].to_basis, one[cut].to_basis, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_splitting_runs_to_fit_memory_keeps_the_plain_basis(
    kind: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(60, 5, generator=generator)
    net = cut_network(random_mlp((5, 8, 6, 4), generator), x)
    whole = {r: interaction_basis(net, [x], kind=kind, rotation=r) for r in ("none", "degenerate")}
    monkeypatch.setattr(sys.modules[interaction_basis.__module__], "_MEMORY", 8 * 4 * 8)
    for rotation, expected in whole.items():
        small = interaction_basis(net, [x], kind=kind, rotation=rotation)
        for cut in net.cuts:
            assert max(small[cut].runs, default=1) <= 8
            if rotation == "none":
                np.testing.assert_allclose(small[cut].to_basis, expected[cut].to_basis, atol=1e-9)
    monkeypatch.setattr(sys.modules[interaction_basis.__module__], "_MEMORY", 1)
    alone = interaction_basis(net, [x], kind=kind)
    for cut in net.cuts:  # runs of one: nothing is left to rotate
        np.testing.assert_allclose(alone[cut].importance, whole["none"][cut].importance, rtol=1e-9)


def test_rotation_undoes_a_rotation_inside_a_degenerate_eigenspace(generator: torch.Generator) -> None:
    """Two equal linear blocks: every eigenvalue is double, and the plain basis mixes the blocks."""
    half = normal(3, 3, generator=generator)
    x = white(60, 6, generator)  # both blocks see equal data
    mix = random_orthogonal(6, generator)
    model = sequential([mix, torch.block_diag(half, half) @ mix.T], [torch.zeros(6).double()] * 2, None)
    net = cut_network(model, x)
    plain, rotated = (interaction_basis(net, [x], rotation=r)["0"] for r in ("none", "degenerate"))
    assert len(rotated.runs) == 3
    sides = rotated.influence.reshape(2, 3, 6).sum(1)
    np.testing.assert_allclose(sides.min(0) / sides.max(0), 0, atol=1e-12)
    mixed = plain.influence.reshape(2, 3, 6).sum(1)
    assert (mixed.min(0) / mixed.max(0)).max() > 1e-3
    np.testing.assert_allclose(rotated.importance, plain.importance, rtol=1e-9)


@pytest.mark.parametrize(
    ("blocks", "hidden_by", "kind"),
    [
        (2, "permutation", "global"),
        (2, "basis", "local"),
        (3, "basis", "global"),
        (3, "permutation", "local"),
        pytest.param(4, "basis", "global", marks=pytest.mark.long),
        pytest.param(4, "permutation", "local", marks=pytest.mark.long),
    ],
)
def test_block_diagonal_network_is_taken_apart_exactly(
    blocks: int, hidden_by: str, kind: str, generator: torch.Generator
) -> None:
    """With no knob; the true block of a coordinate is that whose outputs it influences most."""
    model = block_diagonal_mlp(blocks, generator, hidden_by=hidden_by)
    x = white(1000, 5 * blocks, generator)
    net = cut_network(model, x)
    bases = interaction_basis(net, [x], kind=kind, output="neuron")
    # two blocks of five are few nodes: of twelve seeds of the null graphs three say that chance divides nearly as well
    part = find_modules(interaction_graph(net, bases, [x]), seed=1)
    columns = {p: torch.from_numpy(basis.from_basis) for p, basis in enumerate(bases.values())}
    whole = {p: [slice(0, c.shape[1])] for p, c in columns.items()}
    influence = {
        p: m.per_output[0].diagonal(dim1=1, dim2=2) for p, m in output_moments(net, [x], columns, whole).items()
    }
    truth = np.concatenate([i.reshape(blocks, 5, -1).sum(1).argmax(0).numpy() for i in influence.values()])
    found = np.concatenate(part.labels)
    assert part.n_modules == blocks
    assert adjusted_mutual_info_score(truth[found >= 0], found[found >= 0]) == pytest.approx(1)


def test_probes_are_unbiased_and_their_error_falls_with_their_number(generator: torch.Generator) -> None:
    x = normal(20, 4, generator=generator)
    model = random_mlp((4, 5, 6), generator)
    net = cut_network(model, x)
    exact = collect(net, [x]).jacobians["0"].gram
    errors = {}
    for probes in (4, 64):
        draws = torch.stack([collect(net, [x], probes=probes, seed=s).jacobians["0"].gram for s in range(60)])
        error = draws - exact
        standard_error = draws.std(0) / len(draws) ** 0.5
        assert (error.mean(0).abs() <= 4 * standard_error + 1e-12).all()
        errors[probes] = float(error.square().mean().sqrt())
    assert errors[4] / errors[64] == pytest.approx(4, rel=4 / 60**0.5)


def test_probes_do_not_depend_on_batches(generator: torch.Generator) -> None:
    x = normal(30, 4, generator=generator)
    net = cut_network(random_mlp((4, 5, 6), generator), x)
    a, b = (interaction_basis(net, list(x.split(s)), rotation="none", probes=3, seed=5)["0"] for s in (30, 7))
    np.testing.assert_allclose(a.importance, b.importance, rtol=1e-9)


@pytest.mark.parametrize("tolerance", [1e-10, 1e-5, 0.2])
def test_pca_drops_eigenvalues_below_the_tolerance(tolerance: float, generator: torch.Generator) -> None:
    x = normal(50, 4, generator=generator) * torch.tensor([1.0, 0.5, 1e-2, 1e-4], dtype=torch.float64)
    net = cut_network(random_mlp((4, 5, 3), generator), x)
    bases = interaction_basis(net, [x], kind="pca", output="pca", rank_tolerance=tolerance)
    for basis in bases.values():
        kept = (basis.gram_spectrum > tolerance * basis.gram_spectrum[0]).sum()
        assert len(basis.importance) == len(basis.to_basis) == kept
    assert bases.settings["rank_tolerance"] == tolerance
    assert interaction_graph(net, bases, [x]).settings["rank_tolerance"] == tolerance


def test_settings_of_neuron_bases_claim_no_tolerance(generator: torch.Generator) -> None:
    net, x = linear_network(generator)
    neuron = interaction_basis(net, [x], kind="neuron", output="neuron", rank_tolerance=0.5)
    assert neuron.settings["rank_tolerance"] is None
    assert [len(basis.importance) for basis in neuron.values()] == list(net.widths)
    mixed = interaction_basis(net, [x], kind="neuron", output="pca", rank_tolerance=0.5)
    assert mixed.settings["rank_tolerance"] == 0.5
    last = mixed[net.cuts[-1]]
    assert len(last.importance) == (last.gram_spectrum > 0.5 * last.gram_spectrum[0]).sum() < net.widths[-1]


def test_save_and_load_round_trip(tmp_path: Path, generator: torch.Generator) -> None:
    net, x = linear_network(generator)
    bases = interaction_basis(net, [x])
    bases.save(tmp_path / "bases.safetensors")
    loaded = Bases.load(tmp_path / "bases.safetensors")
    assert loaded.settings == bases.settings
    assert list(loaded) == list(net.cuts)
    for cut in net.cuts:
        np.testing.assert_array_equal(loaded[cut].to_basis, bases[cut].to_basis)
        assert loaded[cut].runs == bases[cut].runs


def test_errors_name_the_problem(generator: torch.Generator) -> None:
    net, x = linear_network(generator)
    with pytest.raises(GraphError, match="unknown kind 'globl'"):
        interaction_basis(net, [x], kind="globl")
    with pytest.raises(GraphError, match="rank_tolerance"):
        interaction_basis(net, [x], rank_tolerance=0.0)
    with pytest.raises(DataError, match="no batch"):
        interaction_basis(net, [])
    with pytest.raises(DataError, match="only once"):
        interaction_basis(net, (b for b in [x, x]))
    dead = sequential(
        [torch.zeros(3, 6).double(), torch.ones(2, 3).double()],
        [torch.ones(3).double()] * 1 + [torch.zeros(2).double()],
        None,
    )
    with pytest.raises((CutError, DataError), match=r"unchanged|vary"):
        interaction_basis(cut_network(dead, x), [x])


@pytest.mark.parametrize("seed", SEEDS)
def test_local_basis_agrees_with_the_peer(real_data: Path, seed: int) -> None:
    """Leading Lambda and attributions of ApolloResearch/rib; its rank cut is 1e-15 absolute, so ours is set low.

    At the embedding the numbers depend on directions of the next cut that hardly vary (a cut of 1e-10 moves the
    largest Lambda by 4e-4), and both programs keep those down to rounding.
    """
    run = load_checkpoint(real_data / "modadd" / f"modadd_p113_seed{seed}.safetensors")
    peer = np.load(real_data / "modadd" / "rib_parity_seeds_0_1_2.npz")
    bases = interaction_basis(run.network, run.batches, kind="local", rotation="none", rank_tolerance=1e-18)
    graph = interaction_graph(run.network, bases, run.batches, strengths="attribution")
    names = ["ln1.0", "ln2.0", "unembed", "output"]
    for p, (positions, leading, tolerance) in enumerate(((3, 7, 1e-4), (1, 20, 1e-6), (1, 20, 1e-6))):
        expected = peer[f"rib/seed{seed}/{names[p]}/Lambda"][1 : leading + 1] * positions
        np.testing.assert_allclose(bases.bases[p].importance[:leading], expected, rtol=tolerance)
    for p in (1, 2):
        sums = peer[f"rib/seed{seed}/{names[p]}->{names[p + 1]}/E_sum_over_out"][1:21]
        np.testing.assert_allclose((graph.blocks[p] ** 2).sum(0)[:20], sums, rtol=1e-4)
    expected = peer[f"rib/seed{seed}/ln2.0->unembed/E"][1:11, 1:11]
    np.testing.assert_allclose(graph.blocks[1][:10, :10] ** 2, expected, rtol=1e-4)
    expected = peer[f"rib/seed{seed}/ln1.0->ln2.0/E"][1:11, 1:11] * 3
    np.testing.assert_allclose(graph.blocks[0][:10, :10] ** 2, expected, rtol=1e-2, atol=1e-4 * expected.max())


def test_pca_strengths_agree_with_the_peer(real_data: Path) -> None:
    run = load_checkpoint(real_data / "modadd" / "modadd_p113_seed0.safetensors")
    peer = np.load(real_data / "modadd" / "rib_parity_seeds_0_1_2.npz")
    bases = interaction_basis(run.network, run.batches, kind="pca")
    graph = interaction_graph(run.network, bases, run.batches, strengths="attribution")
    for p, (pair, positions) in enumerate((("ln1.0->ln2.0", 3), ("ln2.0->unembed", 1))):
        expected = peer[f"pca/seed0/{pair}/E"][1:11, 1:11] * positions
        np.testing.assert_allclose(graph.blocks[p][:10, :10] ** 2, expected, rtol=1e-5)
