"""Random probes against exact sums on a small decoder: moments, importance, rotation, strengths and their errors."""

import numpy as np
import pytest
import torch
from cases_long import SEEDS
from torch import Tensor, nn

import interbasis
from interbasis.analysis.basis.cotangents import Halves, PositionSigns
from interbasis.analysis.basis.interaction_basis import interaction_basis
from interbasis.analysis.basis.jacobians import output_moments, pair_moments
from interbasis.analysis.errors import CutError, GraphError
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.skip_paths import pair_strengths
from interbasis.analysis.graph.strengths import interaction_graph
from interbasis.analysis.modules.find_modules import find_modules, score_partition
from interbasis.analysis.network.network import Network

WIDTH, VOCABULARY, LENGTH = 8, 11, 6


class Block(nn.Module):
    """Causal attention and an MLP, each added to the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        pattern = (q @ k.transpose(1, 2) / WIDTH**0.5).masked_fill(future, -torch.inf).softmax(-1)
        x = x + self.out(pattern @ v)
        return x + self.mlp(self.norms[1](x))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Parameter(torch.randn(LENGTH, WIDTH) / 4)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm, self.unembed = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.norm(x))


def decoder(n: int = 300, **options: object) -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    model = Decoder().double()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    tokens = torch.randint(0, VOCABULARY, (n, LENGTH), generator=torch.Generator().manual_seed(1))
    options = {"loss": "kl", **options}
    return Network(model, ["blocks.0:in", "blocks.0", "blocks.1"], example=tokens[:4], **options), tokens


def z_scores(draws: Tensor, exact: Tensor) -> Tensor:
    """By how many standard errors of their mean the draws are away."""
    error = draws.std(0) / len(draws) ** 0.5
    return ((draws.mean(0) - exact) / error)[error > 1e-9 * exact.abs().max()]


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_halves_are_unbiased(loss: str) -> None:
    """The sum over outputs, and the difference between the outputs of the two sides of each split."""
    net, tokens = decoder(5, loss=loss)
    columns = {p: torch.eye(WIDTH, dtype=torch.float64) for p in range(3)}
    whole = {p: [slice(None)] for p in columns}
    exact = output_moments(net, [tokens], columns, whole)
    found = [output_moments(net, [tokens], columns, whole, probes=32, seed=s) for s in range(10)]
    for p in columns:
        totals = torch.stack([f[p].gram for f in found])
        assert z_scores(totals, exact[p].gram).abs().max() < 4.5
        worst = []
        for s, f in enumerate(found):
            sides = Halves(s).sides(VOCABULARY).double() * 2 - 1
            truth = torch.einsum("so,oij->sij", sides, exact[p].per_output[0])
            worst.append(f[p].per_output[0] - truth)
        assert z_scores(torch.cat(worst), torch.zeros(1)).abs().max() < 4.5


def test_signed_rows_give_the_moments_of_each_row_without_bias() -> None:
    net, tokens = decoder(5)
    rows = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    columns = torch.eye(WIDTH, dtype=torch.float64)
    exact = pair_moments(net, [tokens], 0, rows, columns, [slice(None)]).per_output[0]
    found = [pair_moments(net, [tokens], 0, rows, columns, [slice(None)], probes=2, seed=s) for s in range(60)]
    assert z_scores(torch.stack([f.per_output[0] for f in found]), exact).abs().max() < 4.5


def test_strengths_are_unbiased_and_within_four_of_their_errors() -> None:
    net, tokens = decoder(200)
    bases = interaction_basis(net, [tokens])
    exact = interaction_graph(net, bases, [tokens])
    for p in range(2):
        both = bases[p], bases[p + 1]
        found = [pair_strengths(net, [tokens[:20]], p, both, None, PositionSigns(1, s)) for s in range(30)]
        truth = pair_strengths(net, [tokens[:20]], p, both, None)
        assert z_scores(torch.stack([f.squared for f in found]), truth.squared).abs().max() < 4.5
        assert z_scores(torch.stack([f.along for f in found]), truth.along).abs().max() < 4.5
    one = interaction_graph(net, bases, [tokens], probes=1)
    assert exact.errors == ()
    for w, error, truth in zip(one.blocks, one.errors, exact.blocks, strict=True):
        assert error is not None
        assert (np.abs(w - truth) < 4 * error).all()
        assert np.median(error / truth) < 0.1
    for w, error, truth in zip(one.beyond_skip, one.beyond_errors, exact.beyond_skip, strict=True):
        assert w is not None
        assert (np.abs(w - truth) < 4 * error + 1e-12).all()
        assert np.median(error / truth) < 0.2


@pytest.mark.parametrize("kind", ["global", "local"])
def test_bases_from_probes_are_those_of_exact_sums(kind: str) -> None:
    """The kept subspace is the same, the importance agrees, and the rotation finds nearly the exact gain."""
    net, tokens = decoder(300)
    exact = interaction_basis(net, [tokens], kind=kind, gap=1.0)
    found = interaction_basis(net, [tokens], kind=kind, gap=1.0, probes=16)
    for a, b in zip(exact.values(), found.values(), strict=True):
        assert a.to_basis.shape == b.to_basis.shape
        inside = [np.linalg.svd(basis.from_basis, full_matrices=False)[0] for basis in (a, b)]
        assert np.linalg.svd(inside[0].T @ inside[1])[1].min() > np.cos(np.deg2rad(1))
        np.testing.assert_allclose(sum(b.importance), sum(a.importance), rtol=0.05)


def test_results_do_not_depend_on_batches() -> None:
    net, tokens = decoder(60)
    options = {"probes": 3, "seed": 5}
    bases = [interaction_basis(net, list(tokens.split(s)), **options) for s in (60, 7)]
    for a, b in zip(*(basis.values() for basis in bases), strict=True):
        np.testing.assert_allclose(a.to_basis, b.to_basis, rtol=1e-6, atol=1e-9)
    graphs = [interaction_graph(net, bases[0], list(tokens.split(s)), probes=2, seed=3) for s in (60, 7)]
    for name in ("blocks", "errors", "beyond_skip", "beyond_errors"):
        for a, b in zip(*(getattr(graph, name) for graph in graphs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("kind", "memory"), [("global", 8 * 64 * WIDTH**2), ("local", 8 * WIDTH**3 - 1)])
def test_results_do_not_depend_on_what_fits_into_memory(
    kind: str, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, tokens = decoder(40)
    options = {"kind": kind, "probes": 2, "output": "neuron"}
    whole = interaction_basis(net, [tokens], **options)
    monkeypatch.setattr("interbasis.analysis.basis.interaction_basis._MEMORY", memory)
    parts = interaction_basis(net, [tokens], **options)
    for a, b in zip(whole.values(), parts.values(), strict=True):
        np.testing.assert_allclose(a.to_basis, b.to_basis, rtol=1e-6, atol=1e-9)


def test_halves_rotate_two_groups_of_outputs_apart() -> None:
    """Two blocks of equal importance, 40 outputs each: the plain basis mixes them, that from probes does not."""
    draws = torch.Generator().manual_seed(0)
    weights = torch.block_diag(*(torch.randn(40, 6, generator=draws, dtype=torch.float64) for _ in range(2)))
    mixing = torch.linalg.qr(torch.randn(12, 12, generator=draws, dtype=torch.float64))[0]
    x = torch.randn(500, 12, generator=draws, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(12, 12, bias=False), nn.Linear(12, 80, bias=False)).double()
    model[0].weight.data, model[1].weight.data = mixing, weights @ mixing.T
    net = Network(model, ["0", "1"], example=x[:4])

    def purity(**options: object) -> float:
        basis = interaction_basis(net, [x], output="neuron", gap=0.5, **options)["0"]
        reach = np.square(weights.numpy() @ mixing.numpy().T @ basis.from_basis)
        first = reach[:40].sum(0) / reach.sum(0)
        return float(np.abs(2 * first - 1).mean())

    assert purity() > 0.99
    assert purity(probes=8) > 0.95
    assert purity(probes=8, rotation="none") < 0.9


def test_modules_take_an_edge_only_where_two_errors_clear_the_cutoff() -> None:
    blocks = [np.array([[1.0, 0.2], [0.2, 1.0]])]
    sure = InteractionGraph.from_blocks(blocks, errors=[np.full((2, 2), 0.01)])
    unsure = InteractionGraph.from_blocks(blocks, errors=[np.full((2, 2), 0.06)])
    labels = [np.array([0, 1]), np.array([0, 1])]
    assert score_partition(sure, labels, 0.01).edge_cost == pytest.approx(2 * np.log(2))
    assert score_partition(unsure, labels, 0.01).edge_cost == 0
    assert InteractionGraph.from_bytes(unsure.to_bytes()) == unsure
    assert find_modules(unsure, epsilon=0.01, k=2).edge_cost == 0


def test_edges_beyond_a_skip_path_have_errors_of_their_own() -> None:
    """What a block adds may be strong where it cancels with the skip path, so that the whole is below the cutoff."""
    whole, beyond = np.array([[1.0, 0.05], [0.05, 1.0]]), np.array([[0.3, 0.5], [0.5, 0.3]])
    options = {"beyond_skip": [beyond], "errors": [np.full((2, 2), 0.01)]}
    graph = InteractionGraph.from_blocks([whole], **options, beyond_errors=[np.array([[0.2, 0.1], [0.1, 0.01]])])
    kept = graph.significant(0.01)
    assert kept.blocks[0].tolist() == [[1, 0], [0, 1]]
    assert kept.beyond[0].tolist() == [[0, 0.5], [0.5, 0.3]]
    assert InteractionGraph.from_bytes(graph.to_bytes()) == graph


@pytest.mark.parametrize("seed", SEEDS)
def test_estimates_make_no_modules_of_an_untrained_decoder(seed: int) -> None:
    """With the errors of the whole in place of those beyond the skip path these were three and two modules."""
    from cases_transformers import transformer

    model = transformer("gpt2", seed=seed, n_embd=32, vocab_size=100)
    tokens = torch.randint(0, 100, (60, 8), generator=torch.Generator().manual_seed(seed))
    assert interbasis.analyze(model, tokens, probes=4, control=False).verdict == "one module"


def test_a_tolerance_chooses_the_number_of_probes() -> None:
    """A call with as many probes gives the same; a smaller tolerance takes more, an unreachable one says so."""
    net, tokens = decoder(60)
    loose = interaction_basis(net, [tokens], tolerance=0.2)
    tight = interaction_basis(net, [tokens], tolerance=0.05)
    assert loose.settings["probes"] < tight.settings["probes"]
    assert tight.settings["importance_error"] <= 0.05
    same = interaction_basis(net, [tokens], probes=tight.settings["probes"])
    for a, b in zip(tight.values(), same.values(), strict=True):
        np.testing.assert_allclose(a.to_basis, b.to_basis, rtol=1e-8, atol=1e-10)
    local = interaction_basis(net, [tokens], kind="local", tolerance=0.2).settings
    assert (local["probes"], local["importance_error"]) == (1, None)
    exact = interaction_basis(net, [tokens])
    for a, b in zip(tight.values(), exact.values(), strict=True):
        plain = [np.sort(basis.jacobian_spectrum) for basis in (a, b)]
        assert abs(plain[0] - plain[1]).sum() < 4 * 0.05 * plain[1].sum()
    with pytest.raises(GraphError, match=r"64 probes per data point .* worse than the tolerance"):
        interaction_basis(net, [tokens[:2]], tolerance=0.001)
    most = interaction_basis(net, [tokens[:2]], tolerance=0.001, probes=6).settings
    assert most["probes"] == 6
    assert most["importance_error"] > 0.001


def test_a_cut_as_wide_as_a_vocabulary_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 8193))
    net = Network(model, ["0", "1"], loss="kl", check=False)
    with pytest.raises(CutError, match=r"'1' has 8,193 features.*before the layer that widens"):
        interaction_basis(net, [torch.randn(4, 3)], tolerance=0.1)


def test_ranks_in_float32_are_those_of_float64_at_the_same_tolerance() -> None:
    net, tokens = decoder(100)
    coarse = net.with_model(Decoder())
    coarse.model.load_state_dict(net.model.state_dict())
    exact = interaction_basis(net, [tokens], rank_tolerance=1e-6, probes=4)
    found = interaction_basis(coarse, [tokens], probes=4)
    assert found.settings["rank_tolerance"] == 1e-6
    assert [b.to_basis.shape for b in found.values()] == [b.to_basis.shape for b in exact.values()]
    for a, b in zip(exact.values(), found.values(), strict=True):
        np.testing.assert_allclose(a.jacobian_spectrum, b.jacobian_spectrum, rtol=1e-3, atol=1e-6)


def test_what_limits_the_rank_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 2))
    x = torch.randn(8, 12)
    net = Network(model, ["1", "2"], example=x)
    assert interaction_basis(net, [x]).settings["rank_limited"] == {"data": ["1"], "format": []}
    thin = torch.cat([torch.randn(50, 11), 1e-4 * torch.randn(50, 1)], 1)
    identity = nn.Sequential(nn.Identity(), nn.Linear(12, 2))
    limited = interaction_basis(Network(identity, ["0", "1"], example=thin), [thin])
    assert limited.settings["rank_limited"] == {"data": [], "format": ["0"]}
    in_double = interaction_basis(Network(identity.double(), ["0", "1"], example=thin.double()), [thin.double()])
    assert "rank_limited" not in in_double.settings
