"""Cards: what they say of networks whose parts are known."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases_meaning import OUTPUTS, analysed, crossed_data, named_data, side_of, token_cards, two_task_cards, two_tasks
from cases_transformers import VOCABULARY, random_tokens, transformer
from torch import nn

from interbasis.analysis import (
    Cards,
    Dataset,
    Network,
    analyze,
    describe,
    interaction_basis,
    interaction_graph,
    score_partition,
)
from interbasis.analysis.errors import DataError, GraphError, InputError
from interbasis.analysis.meaning import ModuleCard, NodeCard, iterate_cards
from interbasis.analysis.meaning.passes import observe
from interbasis.analysis.pipeline.one_call import Analysis


@pytest.fixture(scope="module")
def cards() -> Cards:
    return two_task_cards()


def test_examples_are_those_of_a_sort() -> None:
    data = named_data(300)
    net, bases, graph, one = analysed(two_tasks(), data)
    found = describe(net, bases, graph, one, data, examples=5, points=0)
    with torch.no_grad():
        values = net.activations(data.inputs)
    for card in found.nodes:
        own = bases[card.content["cut"]].coordinates(values[card.content["cut"]])[:, 0, card.content["node"]].numpy()
        for side, sign in (("largest", -1), ("smallest", 1)):
            listed = card.content["examples"][side]
            order = np.argsort(sign * own, kind="stable")[:5]
            np.testing.assert_allclose([e["value"] for e in listed], own[order], atol=1e-12)
            np.testing.assert_allclose(own[[e["point"] for e in listed]], own[order], atol=1e-12)
        assert card.content["variance"] == pytest.approx(own.var(), abs=1e-12)
        deciles = card.content["examples"]["deciles"]
        edges = np.quantile(own, np.linspace(0, 1, 11))
        for d, drawn in enumerate(deciles):
            assert len(drawn) == 2
            assert all(edges[d] - 1e-9 <= e["value"] <= edges[d + 1] + 1e-9 for e in drawn)


@pytest.mark.parametrize("batch_size", [7, 100])
def test_nothing_depends_on_batches(cards: Cards, batch_size: int) -> None:
    data = crossed_data(batch_size=batch_size)
    parts = analysed(two_tasks(), crossed_data(), modules=2)
    assert_alike([c.content for c in describe(*parts, data)], [c.content for c in cards])


def assert_alike(one: Any, other: Any) -> None:
    """The same, numbers to rounding."""
    if isinstance(one, float) or isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-7, abs=1e-9)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
    else:
        assert one == other


def side_of_module(card: ModuleCard) -> str:
    """The side of its first node, as the planted weights say."""
    _, bases, _, _ = analysed(two_tasks(), crossed_data(), modules=2)
    first = card.content["cuts"][0]
    return ("left", "right")[side_of(bases[first["cut"]].from_basis)[first["nodes"][0]]]


def test_cards_name_inputs_and_outputs_of_their_own_side_only(cards: Cards) -> None:
    sides = {side_of_module(card) for card in cards.modules}
    assert sides == {"left", "right"}
    for card in cards.nodes:
        side = side_of_module(cards.module(card.content["module"]))
        effects = card.content["effects"]
        named = [e["name"] for e in (*effects["promoted"], *effects["suppressed"])]
        named += [f["name"] for f in card.content["reads"]["features"]]
        assert named
        assert all(name.startswith(side) for name in named), card
        assert all(e["module"] == card.content["module"] for s in ("in", "out") for e in card.content["neighbours"][s])


def test_module_cards_say_left_and_right(cards: Cards) -> None:
    for card in cards.modules:
        side = side_of_module(card)
        assert f"reads {side} (100%)" in card.summary
        assert f"outputs {side} 0, {side} 1" in card.summary
        assert card.content["serves"] == [o for o, name in enumerate(OUTPUTS) if name.startswith(side)]
        assert card.content["size"] == sum(len(part["nodes"]) for part in card.content["cuts"])
    share = sum(card.content["share"] for card in cards.modules)
    assert share == pytest.approx(1.0)


def test_signs_are_those_of_a_linear_network() -> None:
    data = named_data(80)
    net, bases, graph, one = analysed(two_tasks(relu=False), data)
    assert isinstance(net.model, nn.Sequential)
    found = describe(net, bases, graph, one, data)
    jacobian = bases[1].to_basis @ net.model[0].weight.detach().numpy() @ bases[0].from_basis
    edges = [(card.content["node"], e) for card in found.nodes if card.content["cut"] == "1"
             for e in card.content["neighbours"]["in"]]  # fmt: skip
    assert edges
    for j, edge in edges:
        assert edge["mean"] == pytest.approx(jacobian[j, edge["node"]], abs=1e-10)
        assert edge["sign"] == ("+" if jacobian[j, edge["node"]] > 0 else "-")
        assert edge["strength"] == graph.blocks[0][j, edge["node"]]


def test_energy_and_classes_are_those_of_the_values(cards: Cards) -> None:
    data = crossed_data()
    net, bases, _, partition = analysed(two_tasks(), data, modules=2)
    energy = np.zeros((2, 400))
    with torch.no_grad():
        values = net.activations(data.inputs)
    for (cut, basis), labels in zip(bases.items(), partition.labels, strict=True):
        squares = np.square(basis.coordinates(values[cut])[:, 0].numpy()).T
        for m in range(2):
            energy[m] += squares[labels == m].sum(0)
    share = energy / energy.sum(0)
    assert data.targets is not None
    for m, card in enumerate(cards.modules):
        assert card.content["energy"]["mean"] == pytest.approx(energy[m].mean())
        assert card.content["share"] == pytest.approx(share[m].mean())
        assert [e["point"] for e in card.largest] == np.argsort(-share[m], kind="stable")[:8].tolist()
        for row, c in zip(card.content["classes"][0], (0, 1), strict=True):
            own = share[m][data.targets[:, 0].numpy() == c]
            assert (row["class"], row["n"]) == (("no", "yes")[c], len(own))
            assert row["share"] == pytest.approx(own.mean())
            assert row["error"] == pytest.approx(own.std() / np.sqrt(len(own) - 1))


def test_saved_cards_are_the_same(cards: Cards, tmp_path: Any) -> None:
    read = Cards.load(cards.save(tmp_path / "cards.safetensors"))
    assert read == cards
    assert read.node("1", 0).to_json() == cards.node(1, 0).to_json()
    assert json.loads(read.module(1).to_json())["summary"] == cards.module(1).summary
    frame = cards.to_frame()
    assert len(frame) == len(cards.nodes)
    assert list(frame["cut"].unique()) == ["0:in", "1", "2"]


def test_cards_come_one_by_one_and_go_on_from_those_that_are_known(cards: Cards) -> None:
    data = crossed_data()
    net, bases, graph, partition = analysed(two_tasks(), data, modules=2)
    known = [card for card in list(cards)[:5] if isinstance(card, NodeCard)]
    rest = list(iterate_cards(net, bases, graph, partition=partition, batches=data, known=known))
    assert [card.title for card in rest] == [card.title for card in list(cards)[5:]]
    assert_alike([c.content for c in rest], [c.content for c in list(cards)[5:]])


def test_names_are_text_in_html() -> None:
    data = replace(named_data(), output_names=["<script>alert(1)</script>", "a", "b", "c"])
    found = describe(*analysed(two_tasks(), data), data, points=50)
    for shown in (found, found.node(2, 0), found.module(0)):
        assert "<script>" not in shown._repr_html_()
    assert any("&lt;script&gt;" in card._repr_html_() for card in found.nodes)


def test_chosen_nodes_and_no_effects(cards: Cards) -> None:
    data = crossed_data()
    parts = analysed(two_tasks(), data, modules=2)
    found = describe(*parts, data, nodes=[("1", 2), (0, 1)])
    assert [card.title for card in found.nodes] == ["0:in/1", "1/2"]
    assert_alike(found.node("1", 2).content, cards.node("1", 2).content)
    without = describe(*parts, data, points=0)
    assert all(card.content["effects"] is None for card in without.nodes)
    with pytest.raises(GraphError, match="no node 99"):
        describe(*parts, data, nodes=[("1", 99)])
    with pytest.raises(GraphError, match="no card of node 99"):
        found.node("1", 99)


def test_parts_that_do_not_belong_together_are_refused() -> None:
    data = named_data(60)
    net, bases, graph, one = analysed(two_tasks(), data)
    _, _, graph2, other = analysed(two_tasks(), data, kind="neuron")
    with pytest.raises(GraphError, match="the partition has the nodes"):
        describe(net, bases, graph, other, data)
    with pytest.raises(GraphError, match="the graph has the nodes"):
        describe(net, bases, graph2, one, data)
    with pytest.raises(DataError, match="4 outputs"):
        describe(net, bases, graph, one, replace(data, output_names=["a"]))
    with pytest.raises(DataError, match="10 targets for 60 data points"):
        describe(net, bases, graph, one, data, targets=torch.zeros(10))
    with pytest.raises(InputError, match="examples is 0"):
        describe(net, bases, graph, one, data, examples=0)
    with pytest.raises(InputError, match="expected some of token_strings"):
        describe(net, bases, graph, one, data, names={"labels": ["a"]})


def test_a_loader_that_shuffles_is_refused() -> None:
    data = named_data(60)
    parts = analysed(two_tasks(), data)
    loader = torch.utils.data.DataLoader(data.inputs, batch_size=20, shuffle=True)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="another order"):
        describe(*parts, loader, points=10)


def test_an_analysis_describes_itself_unless_it_was_loaded(tmp_path: Any) -> None:
    data = named_data(120)
    found = analyze(two_tasks(), data, resolution=0.5)
    cards = found.describe(points=20)
    assert cards.settings["points"] == 20
    with pytest.raises(InputError, match="'labels'"):
        found.describe(names={"labels": ["a"]})
    assert any("left" in card.summary for card in cards.nodes)
    assert cards.nodes[0].largest[0]["target"] in (["no"], ["yes"])
    loaded = Analysis.load(found.save(tmp_path / "analysis.safetensors"))
    with pytest.raises(InputError, match="loaded from a file"):
        loaded.describe()


def test_nodes_in_no_module_and_constant_nodes() -> None:
    data = named_data(100)
    net, bases, graph, _ = analysed(two_tasks(), data)
    first = graph.blocks[0].copy()
    first[:, 0] = 0.0
    graph = replace(graph, blocks=(first, *graph.blocks[1:]))
    apart = score_partition(
        graph, [np.zeros(w, dtype=int) - (np.arange(w) + p == 0) for p, w in enumerate(graph.widths)], 1e-6
    )
    found = describe(net, bases, graph, apart, data, points=10)
    assert found.node(0, 0).content["module"] == -1
    assert found.node(0, 0).content["neighbours"]["out"] == []
    assert found.module(0).content["share"] < 1
    dead = two_tasks()
    with torch.no_grad():
        dead[0].bias[0] = -100.0
    net = Network(dead, ["0:in", "1", "2"])
    net_parts = analysed(dead, data, kind="neuron")
    constant = describe(*net_parts, data, points=10).node("1", 0)
    assert constant.content["variance"] == 0
    assert constant.content["effects"] is None


def test_pictures() -> None:
    data = Dataset("pictures", crossed_data().inputs, image_shape=(2, 1, 3))
    found = describe(*analysed(two_tasks(), data, modules=2), data, points=30)
    card = found.node(1, 0)
    assert len(card.content["reads"]["picture"]) == 6
    assert {g["name"] for g in card.content["reads"]["groups"]} == {"picture 1", "picture 2"}
    named = {card.summary.split("; ")[1] for card in found.modules}
    assert named == {"reads picture 1 (100%)", "reads picture 2 (100%)"}
    point = card.largest[0]["point"]
    np.testing.assert_allclose(card.inputs[point], data.inputs[point].numpy(), rtol=1e-6)


def test_tokens_are_shown_in_windows_with_the_values_at_each() -> None:
    found = token_cards()
    tokens = random_tokens(40, 12)
    card = found.node(1, 2)
    assert card.content["inputs_are"] == "tokens"
    assert "largest at ' w" in card.summary
    assert found.settings["points"] == 20
    points = [e["point"] for e in card.largest]
    assert len(set(points)) == 8
    for example in card.largest:
        start = max(example["position"] - 10, 0)
        assert example["tokens"] == [
            f" w{t}" for t in tokens[example["point"], start : example["position"] + 6].tolist()
        ]
        assert example["values"][example["at"]] == example["value"] == max(v for v in example["values"])
        assert example["position"] == start + example["at"]
    assert {side: len(card.content["direction"][side]["most"]) for side in ("unembed", "embed")} == {
        "unembed": VOCABULARY // 2,
        "embed": VOCABULARY // 2,
    }
    effects = card.content["effects"]
    assert effects["centred"]
    assert all(e["name"].startswith(" w") for e in effects["promoted"])


def test_padding_is_no_example() -> None:
    tokens = random_tokens(30, 9)
    mask = torch.ones_like(tokens)
    mask[::2, 6:] = 0
    batches = [{"input_ids": tokens, "attention_mask": mask}]
    net = Network(transformer("bert").double(), ["bert.encoder.layer.0", "bert.encoder.layer.1"], loss="kl",
                  mask="attention_mask", example=batches[0])  # fmt: skip
    bases = interaction_basis(net, batches, kind="pca")
    graph = interaction_graph(net, bases, batches)
    one = score_partition(graph, [np.zeros(width, dtype=int) for width in graph.widths], 1e-9)
    other = [{"input_ids": torch.where(mask == 1, tokens, 3), "attention_mask": mask}]
    found, again = (describe(net, bases, graph, one, data, points=10) for data in (batches, other))
    for card, same in zip(found.nodes, again.nodes, strict=True):
        for example in (
            *card.content["examples"]["largest"],
            *(e for d in card.content["examples"]["deciles"] for e in d),
        ):
            assert mask[example["point"], example["position"]] == 1
        assert card.content["histogram"] == same.content["histogram"]
        assert [e["value"] for e in card.largest] == pytest.approx([e["value"] for e in same.largest])
        slopes = [[e["slope"] for e in c.content["effects"]["promoted"]] for c in (card, same)]
        assert slopes[0] == pytest.approx(slopes[1])


def test_memory_does_not_grow_with_the_data() -> None:
    """What is recorded of 40 times as many data points takes no more memory than its checksums, 8 bytes each."""
    held = []
    for n in (500, 20_000):
        data = named_data(n)
        net, bases, _, one = analysed(two_tasks(), named_data(), modules=2)
        seen = observe(net, bases, one, batches=data, names=data.names, examples=4, sampled=50, points=20, seed=0)
        numbers = [v.numel() * v.element_size() for v in tensors_of(seen)]
        held.append(sum(numbers))
    assert held[1] == held[0]
    assert len(seen.checksums) == 20_000


def tensors_of(seen: Any) -> list[torch.Tensor]:
    """All tensors of a record of a pass."""
    found: list[torch.Tensor] = []
    for cut in seen.cuts:
        for extremes in (cut.largest, cut.smallest):
            found += [extremes.values, extremes.points, extremes.positions, extremes.windows]
        found += [cut.values, cut.positions, cut.windows]
    return [*found, seen.shares.values, seen.shares.windows, *seen.probed]
