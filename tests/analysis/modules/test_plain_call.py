"""The plainest call is right: no option, on networks whose modules are known; chains and skip paths are no evidence."""

import numpy as np
import pytest
import torch
from cases_long import SEEDS
from cases_residual import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from interbasis.analysis import InteractionGraph, Network, find_modules, interaction_basis, interaction_graph
from interbasis.analysis.edges import dense
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.modules.beyond_chains import costs_beyond_chains, one_to_one
from interbasis.analysis.modules.find_modules import CHAINS, _perhaps, compared
from interbasis.analysis.modules.partition import VERDICTS, Partition, ProfileRow
from interbasis.analysis.modules.profile import Profile
from interbasis.analysis.modules.untrained import untrained_copy


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def two_blocks(seed: int, width: int = 8) -> list[np.ndarray]:
    """Strengths between three cuts: two blocks, dense inside, and a weak interaction everywhere."""
    generator = np.random.default_rng(seed)
    side = np.arange(2 * width) // width
    inside = side[:, None] == side
    return [np.where(inside, 1.0, 0.03) * np.exp(generator.normal(0, 0.3, (2 * width, 2 * width))) for _ in range(2)]


def chains(width: int, n_blocks: int, seed: int) -> list[np.ndarray]:
    """Strengths of maps that are nearly one-to-one."""
    generator = np.random.default_rng(seed)
    blocks = []
    for _ in range(n_blocks):
        block = 0.03 * generator.random((width, width))
        block[generator.permutation(width), np.arange(width)] = generator.uniform(0.5, 2, width)
        blocks.append(block)
    return blocks


def plain(net: Network, data: list[Tensor], kind: str = "global") -> tuple[InteractionGraph, Partition]:
    graph = interaction_graph(net, interaction_basis(net, data, kind=kind), data)
    return graph, find_modules(graph)


def two_digit_network(activation: str, seed: int) -> tuple[nn.Sequential, Tensor]:
    """A network that names two handwritten digits drawn independently of each other, and inputs to it."""
    digits = load_digits()
    pictures, names = torch.tensor(digits.data / 16), torch.tensor(digits.target)
    act = getattr(nn, activation)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(128, 64), act(), nn.Linear(64, 48), act(), nn.Linear(48, 20)]
        model = nn.Sequential(*layers).double()
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.5)
        for _ in range(1000):
            pair = torch.randint(len(pictures), (2, 128))
            left, right = model(pictures[pair].transpose(0, 1).flatten(1)).split(10, dim=1)
            loss = nn.functional.cross_entropy(left, names[pair[0]]) + nn.functional.cross_entropy(
                right, names[pair[1]]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return model, pictures[torch.randint(len(pictures), (600, 2))].flatten(1)


class Residual(nn.Module):
    def __init__(self, width: int, depth: int, gain: float = 0.3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.head = nn.Linear(width, 6)
        self.steps = nn.ModuleList(nn.Identity() for _ in range(depth))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        for block, step in zip(self.blocks, self.steps, strict=True):
            x = step(x + self.gain * block(x))
        return self.head(x)


def residual(seed: int, width: int = 12, depth: int = 3) -> tuple[Network, list[Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Residual(width, depth).double()
    x = normal(200, width, seed=seed) @ torch.diag(torch.linspace(0.5, 1.5, width, dtype=torch.float64))
    return Network(model, [*(f"steps.{i}" for i in range(depth)), "head"], example=x), [x]


class TestOutputs:
    @pytest.mark.parametrize("kind", ["global", "local", "pca", "neuron"])
    def test_last_cut_keeps_the_outputs(self, kind: str) -> None:
        net, data = residual(0)
        bases = interaction_basis(net, data, kind=kind)
        assert bases.settings["output"] == "neuron"
        np.testing.assert_array_equal(bases["head"].to_basis, np.eye(6))

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(
        ("end", "width"),
        [(nn.Softmax(-1), 4), (nn.Softmax(-1), 2), (nn.LogSoftmax(-1), 4), (nn.LogSoftmax(-1), 2), (nn.Sigmoid(), 4)],
    )
    def test_logits_stand_for_outputs(self, end: nn.Module, width: int, seed: int) -> None:
        """However sure the network is: one of the classes is all but certain."""
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, width), end).double()
        if not isinstance(end, nn.Sigmoid):
            model[2].bias.data[0] += 4.0
        x = normal(80, 5)
        bases = interaction_basis(Network(model, ["0", "2"], example=x), [x])
        assert bases.settings["output"] == "neuron"

    def test_hidden_layer_as_wide_as_the_output_does_not(self) -> None:
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4)).double()
        x = normal(80, 5)
        assert interaction_basis(Network(model, ["0:in", "0"], example=x), [x]).settings["output"] == "pca"

    def test_stream_before_an_unembedding_does_not(self) -> None:
        model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 40)).double()
        x = normal(80, 5)
        assert interaction_basis(Network(model, ["0:in", "1"], example=x), [x]).settings["output"] == "pca"


class TestChains:
    @given(st.integers(3, 8), st.integers(2, 4), st.integers(0, 99))
    @settings(deadline=None, max_examples=8)
    def test_chains_alone_are_one_module(self, width: int, n_blocks: int, seed: int) -> None:
        part = find_modules(InteractionGraph.from_blocks(chains(width, n_blocks, seed)))
        assert part.n_modules == 1
        assert part.verdict == "one module"

    def test_chains_that_were_asked_for_are_not_told_apart_from_chance(self) -> None:
        graph = InteractionGraph.from_blocks(chains(12, 3, 0))
        part = find_modules(graph, resolution=1.0, n_null=20)
        assert part.n_modules == 12
        assert part.verdict == "not told apart from chance"
        assert find_modules(graph, resolution=1.0).verdict == "untested"

    @pytest.mark.parametrize("seed", SEEDS)
    def test_chain_before_modules_leaves_them(self, seed: int) -> None:
        blocks = two_blocks(seed)
        order = np.random.default_rng(seed).permutation(16)
        chain = np.full((16, 16), 1e-4)
        chain[order, np.arange(16)] = 3.0  # node i of the first cut is node order[i] of the next
        part = find_modules(InteractionGraph.from_blocks([chain, *blocks]))
        assert (part.n_modules, part.verdict) == (2, "supported")
        np.testing.assert_array_equal(part.labels[0], part.labels[1][order])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_chains_beside_modules_are_no_modules(self, seed: int) -> None:
        """Three quantities that all cuts carry alike, each on its own, beside two blocks."""
        wide = [np.pad(block, ((0, 3), (0, 3)), constant_values=0.02) for block in two_blocks(seed)]
        for block in wide:
            block[range(16, 19), range(16, 19)] = 2.0
        graph = InteractionGraph.from_blocks(wide)
        assert find_modules(graph, chains="count").n_modules == 5
        part = find_modules(graph)
        assert (part.n_modules, part.verdict) == (2, "supported")
        assert [level.n_modules for level in part.hierarchy] == [2]
        for labels in part.labels:
            assert len(set(labels[:8])) == len(set(labels[8:16])) == 1
            assert labels[0] != labels[8]

    @pytest.mark.parametrize("activation", ["GELU", pytest.param("Tanh", marks=pytest.mark.long)])
    def test_cuts_before_and_after_activations_of_a_trained_network(self, activation: str) -> None:
        """Each cut carries most quantities of the one before: six modules and more, were chains modules."""
        model, data = two_digit_network(activation, seed=4)
        _, part = plain(Network(model, ["0:in", "0", "1", "2", "3", "4"]), [data])
        assert (len(part.cuts), part.n_modules, part.verdict) == (6, 2, "supported")
        np.testing.assert_array_equal(part.labels[-1] == part.labels[-1][0], np.arange(20) < 10)

    @given(st.integers(0, 999))
    @settings(deadline=None, max_examples=25)
    def test_costs_leave_out_what_is_one_to_one(self, seed: int) -> None:
        block = 0.01 + np.random.default_rng(seed).random((5, 6)) ** 8
        graph = InteractionGraph.from_blocks([block])
        (costs,) = map(dense, costs_beyond_chains(graph, 1e-5).blocks(graph.pair_slices))
        squared = block**2
        for j in range(5):
            for i in range(6):
                alone = squared[j, i] > squared[j].sum() / 2 and squared[j, i] > squared[:, i].sum() / 2
                expected = 0.0 if alone else max(0.0, np.log(block[j, i] / np.sqrt(1e-5)))
                assert costs[j, i] == pytest.approx(expected)

    def test_costs_leave_out_what_is_one_to_one_beyond_a_skip_path(self) -> None:
        """An activation function whose slope varies leaves a diagonal beside its mean slope."""
        block = np.array([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0]])
        graph = InteractionGraph.from_blocks([3 * block], beyond_skip=[block])
        (costs,) = costs_beyond_chains(graph, 1e-4).blocks(graph.pair_slices)
        assert costs == pytest.approx(np.log(10) * (1 - np.eye(3)))

    @pytest.mark.parametrize("seed", SEEDS)
    def test_activations_between_nearly_diagonal_layers_are_one_module(self, seed: int) -> None:
        """Cuts before and after leaky units: chains through skip paths and through what is left of them."""
        generator = torch.Generator().manual_seed(seed)
        layers = [module for _ in range(5) for module in (nn.Linear(16, 16, bias=False), nn.LeakyReLU(0.3))][:-1]
        model = nn.Sequential(*layers).double()
        for layer in model[::2]:
            drawn = torch.rand(16, 16, dtype=torch.float64, generator=generator)
            layer.weight.data = 5 * torch.eye(16, dtype=torch.float64) + drawn / 2 - 0.25
        net = Network(model, [str(i) for i in range(len(model))])
        _, part = plain(net, [normal(256, 16, seed=seed)])
        assert (part.n_modules, part.verdict) == (1, "one module")

    @pytest.mark.parametrize(
        ("contrast", "beyond", "said"),
        [
            (0.83, 0.64, "; one into 2, of contrast 0.83, may be real: too few edges to tell"),
            (0.83, 0.1, ""),  # chains
            (0.4, 0.4, ""),
        ],
    )
    def test_clear_division_of_too_few_edges_is_not_called_refuted(
        self, contrast: float, beyond: float, said: str
    ) -> None:
        one = ProfileRow("layered_modularity", 0.5, 2, 1.0, 0.9, 0.1, 1.5, 0.1, 2.0, contrast, 5.0, False, beyond)
        assert _perhaps(Profile((one,), (np.arange(2),), joined=True)) == said

    def test_unknown_choice_is_refused(self) -> None:
        with pytest.raises(GraphError, match="unknown chains 'drop'"):
            find_modules(InteractionGraph.from_blocks(two_blocks(0)), chains="drop")
        assert CHAINS == ("discount", "count")

    def test_one_to_one_edges_are_a_matching(self) -> None:
        links = one_to_one(np.random.default_rng(0).random((30, 20)) ** 9)
        assert links.any()
        assert links.sum(0).max() == links.sum(1).max() == 1


class TestSkipPaths:
    @pytest.mark.parametrize("strengths", ["jacobian", "attribution"])
    @pytest.mark.parametrize("kind", ["global", "neuron"])
    def test_strengths_beyond_the_skip_are_those_of_the_looped_jacobians(self, strengths: str, kind: str) -> None:
        net, (x,) = residual(1, width=5, depth=2)
        x = x[:30]
        bases = interaction_basis(net, [x], kind=kind)
        graph = interaction_graph(net, bases, [x], strengths=strengths)
        assert [block is not None for block in graph.beyond_skip] == [True, False]
        a, b = bases["steps.0"], bases["steps.1"]
        here = net.activations(x)["steps.0"][:, 0]
        jacobians = net.jacobian(x, 0, 1)[:, 0, :, 0]
        skip = b.to_basis @ a.from_basis
        values = a.coordinates(here).numpy()
        inner = np.einsum("jo,noi,ik->njk", b.to_basis, jacobians.numpy(), a.from_basis)
        if strengths == "jacobian":
            power, along = a.importance, inner.mean(0) * a.importance
            share = (skip * along).sum() / (skip**2 * power).sum()
            expected = np.sqrt(((inner - share * skip) ** 2).mean(0) * a.importance)
        else:
            parts, taken = inner * values[:, None], skip * values[:, None]
            share = (parts * taken).sum() / (taken**2).sum()
            expected = np.sqrt(((parts - share * taken) ** 2).mean(0))
        assert 0.5 < share < 1.5
        np.testing.assert_allclose(graph.beyond_skip[0], expected, rtol=1e-6, atol=1e-9)

    def test_positions_and_batches(self) -> None:
        class Mixing(nn.Module):
            """A block that adds what it reads at the positions before."""

            def __init__(self) -> None:
                super().__init__()
                self.read, self.add, self.out, self.head = (
                    nn.Linear(4, 8),
                    nn.Linear(8, 8),
                    nn.Identity(),
                    nn.Linear(8, 3),
                )

            def forward(self, x: Tensor) -> Tensor:
                x = self.read(x)
                return self.head(self.out(x + 0.5 * torch.tanh(self.add(x.cumsum(1)))))

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Mixing().double()
        x = normal(24, 3, 4)
        net = Network(model, ["read", "out", "head"], example=x)
        bases = interaction_basis(net, [x])
        one, many = (interaction_graph(net, bases, list(x.split(size))) for size in (24, 7))
        jacobians = net.jacobian(x, 0, 1)
        a, b = bases["read"], bases["out"]
        inner = np.einsum("jo,ntosi,ik->ntjsk", b.to_basis, jacobians.numpy(), a.from_basis)
        skip = b.to_basis @ a.from_basis
        same = np.einsum("ntjtk->jk", inner) / 24
        share = (skip * same * a.importance).sum() / (3 * skip**2 * a.importance).sum()
        for t in range(3):
            inner[:, t, :, t] -= share * skip
        expected = np.sqrt((inner**2).sum((1, 3)).mean(0) * a.importance)
        assert share > 0.5
        for graph in (one, many):
            np.testing.assert_allclose(graph.beyond_skip[0], expected, rtol=1e-6, atol=1e-9)

    def test_identity_leaves_nothing(self) -> None:
        model = nn.Sequential(nn.Linear(4, 6), nn.Identity(), nn.Linear(6, 6), nn.Linear(6, 3)).double()
        with torch.no_grad():
            model[2].weight.copy_(torch.eye(6))
        x = normal(50, 4)
        net = Network(model, ["0", "2", "3"], example=x)
        graph = interaction_graph(net, interaction_basis(net, [x]), [x])
        assert graph.beyond_skip[0] is not None
        assert not graph.beyond_skip[0].any()

    def test_dense_layers_have_none(self) -> None:
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).double()
        x = normal(60, 8)
        net = Network(model, ["0", "2", "4"], example=x)
        assert interaction_graph(net, interaction_basis(net, [x]), [x]).beyond_skip == ()

    def test_file_keeps_them(self) -> None:
        blocks = two_blocks(0)
        graph = InteractionGraph.from_blocks(blocks, beyond_skip=[None, blocks[1] / 2])
        again = InteractionGraph.from_bytes(graph.to_bytes())
        assert again.beyond_skip[0] is None
        np.testing.assert_array_equal(again.beyond_skip[1], blocks[1] / 2)
        with pytest.raises(GraphError, match="beyond_skip"):
            InteractionGraph.from_blocks(blocks, beyond_skip=[None, np.eye(3)])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_untrained_residual_networks_are_one_module(self, seed: int) -> None:
        net, data = residual(seed, width=16)
        _, part = plain(net, data)
        assert (part.n_modules, part.verdict) == (1, "one module")

    @pytest.mark.parametrize("name", ["untrained/decoder 0", "untrained/decoder 3"])
    def test_untrained_decoders_are_one_module(self, name: str) -> None:
        case = CASES[name]
        _, part = plain(case.network(case.trained()), case.data())
        assert (part.n_modules, part.verdict) == (1, "one module")


class TestVerdicts:
    def test_two_blocks_are_supported(self) -> None:
        part = find_modules(InteractionGraph.from_blocks(two_blocks(0)))
        assert (part.n_modules, part.verdict) == (2, "supported")
        assert "p 0.048" in part.reason
        assert " ".join(repr(part).split()).endswith(f"supported: {part.reason}")
        assert Partition.from_bytes(part.to_bytes()).verdict in VERDICTS

    def test_untrained_copy_that_is_as_modular_takes_the_verdict_back(self) -> None:
        part = find_modules(InteractionGraph.from_blocks(two_blocks(0)))
        noise = find_modules(InteractionGraph.from_blocks([np.random.default_rng(0).random((12, 12))] * 2))
        assert noise.n_modules == 1
        beside = compared(part, noise)
        assert (beside.verdict, beside.untrained_modules) == ("supported", 1)
        assert beside.reason.endswith("an untrained copy of the network has 1 module")
        again = compared(part, part)
        assert (again.verdict, again.untrained_modules) == ("not told apart from chance", 2)

    def test_trained_towers_keep_their_verdict(self) -> None:
        """Two networks side by side that share nothing: data correlate by chance, so that some cost crosses."""

        class Towers(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.third = (
                    nn.ModuleList(nn.Linear(*sizes) for _ in range(2)) for sizes in ((5, 12), (12, 12), (12, 4))
                )
                self.enter, self.one, self.two, self.leave = (nn.Identity() for _ in range(4))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                halves = self.enter(x).chunk(2, -1)
                h = self.one(torch.cat([torch.tanh(a(h)) for a, h in zip(self.first, halves, strict=True)], -1))
                h = torch.cat([torch.tanh(a(b)) for a, b in zip(self.second, h.chunk(2, -1), strict=True)], -1)
                h = self.two(h)
                return self.leave(torch.cat([a(b) for a, b in zip(self.third, h.chunk(2, -1), strict=True)], -1))

        torch.manual_seed(0)
        model, x = Towers().double(), torch.randn(500, 10).double()
        maps = [torch.randn(5, 4).double() for _ in range(2)]
        y = torch.cat([torch.sin(part @ w) for part, w in zip(x.chunk(2, 1), maps, strict=True)], 1)
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(300):
            optimiser.zero_grad()
            (model(x) - y).square().mean().backward()
            optimiser.step()
        parts = []
        for each in (model, untrained_copy(model)):
            net = Network(each, ["enter", "one", "two", "leave"])
            parts.append(find_modules(interaction_graph(net, interaction_basis(net, [x]), [x])))
        part = compared(*parts, outputs_given=True)
        assert part.n_modules == part.untrained_modules == 2
        assert part.verdict == "supported"
        assert "architecture makes the modules" in part.reason
        assert compared(*parts).verdict == "not told apart from chance"  # not known to divide the same nodes

    def test_architecture_of_two_towers_keeps_its_verdict(self) -> None:
        towers = [np.where(block > 0.2, block, 0.0) for block in two_blocks(0)]
        part = find_modules(InteractionGraph.from_blocks(towers))
        beside = compared(part, part)
        assert beside.verdict == "supported"
        assert "architecture makes the modules" in beside.reason


class TestUntrainedCopy:
    def test_draws_every_parameter_anew_and_leaves_the_rest(self) -> None:
        class Own(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.free = nn.Parameter(torch.arange(12.0).reshape(3, 4))
                self.layer = nn.Linear(4, 3)
                self.tied = nn.Linear(4, 3)
                self.tied.weight = self.layer.weight
                self.register_buffer("kept", torch.arange(3.0))

        model = Own()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.random.get_rng_state()
        copy, again, other = (untrained_copy(model, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert copy.tied.weight is copy.layer.weight
        assert torch.equal(copy.kept, model.kept)
        assert torch.equal(copy.free.flatten().sort().values, torch.arange(12.0))
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])
            assert torch.equal(copy.state_dict()[name], again.state_dict()[name])
            if name != "kept":
                assert not torch.equal(copy.state_dict()[name], value)
                assert not torch.equal(copy.state_dict()[name], other.state_dict()[name])

    def test_models_that_compute_weights_or_initialise_themselves_as_a_whole(self) -> None:
        class Whole(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 2)
                self._init_weights()

            def _init_weights(self) -> None:
                nn.init.zeros_(self.layer.bias)

            def forward(self, x: Tensor) -> Tensor:
                return self.layer(x)

        with pytest.warns(FutureWarning, match="weight_norm"):
            computed = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)))
        for model, name in ((Whole(), "layer.weight"), (computed, "0.weight_v")):
            copy = untrained_copy(model)
            assert not torch.equal(copy.state_dict()[name], model.state_dict()[name])
            assert copy(torch.zeros(1, 3)).shape == (1, 2)

    def test_initialisation_that_fails_is_named(self) -> None:
        class Fails(nn.Module):
            def _init_weights(self, module: nn.Module) -> None:
                raise KeyError("std")

        with pytest.raises(InputError, match="untrained copy cannot be made of the model: KeyError"):
            untrained_copy(Fails())
