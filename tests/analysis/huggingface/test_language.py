"""What is assumed of models of tokens: loss, mask, first position; cuts at the residual stream; transformers."""

import pytest
import torch
from cases_masks import alone, padded, reader, texts
from cases_transformers import CONTEXT, DECODERS, MODELS, VOCABULARY, random_tokens, transformer
from torch import nn
from transformers import BatchEncoding

import interbasis
from interbasis.analysis import Network
from interbasis.analysis.basis.moments import collect
from interbasis.analysis.errors import DataError, InputError
from interbasis.analysis.huggingface.language import assumed_network, is_decoder, numbered

IDS = random_tokens(24, 5)


@pytest.mark.parametrize("name", MODELS)
def test_the_cuts_of_a_transformer_are_its_residual_stream(name: str) -> None:
    model = transformer(name)
    net = Network(model, "auto", example={"input_ids": IDS}, skip_first=name in DECODERS)
    assert [list(net.streams), list(net.streams.values())] == [
        ["resid_pre.0", "resid_post.0", "resid_post.1"],
        [*net.cuts],
    ]
    assert net.widths == (8, 8, 8)
    net.check_once([{"input_ids": IDS}])
    named = Network(model, ["resid_pre.0", "resid_post.*"])
    assert named.cuts == net.cuts


@pytest.mark.parametrize("name", MODELS)
def test_only_decoders_are_decoders(name: str) -> None:
    assert is_decoder(transformer(name), {"input_ids": IDS}) == (name in DECODERS)


def test_what_has_no_order_of_positions_is_no_decoder() -> None:
    wise = nn.Sequential(nn.Embedding(VOCABULARY, 4), nn.Linear(4, 3))
    assert not is_decoder(wise, IDS)
    assert not is_decoder(transformer("gpt2"), {"input_ids": IDS[:, :1]})
    assert not is_decoder(nn.Linear(5, 2), torch.randn(4, 5))
    same = IDS[:1].expand(4, -1)
    assert not is_decoder(transformer("gpt2"), {"input_ids": same}), "nothing to be seen"


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_decoder_is_a_decoder(side: str) -> None:
    batch = padded(texts([6, 5, 6, 4]), side)
    assert is_decoder(reader(causal=True), batch)
    assert not is_decoder(reader(causal=False), batch)


def test_loss_mask_and_first_position_are_assumed_and_said() -> None:
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    net, positions = assumed_network(transformer("gpt2"), [batch])
    assert (net.loss, positions, net.masked) == ("kl", "later", True)
    assert net.mask(batch)[:, 0].sum() == 0
    assert net.mask(batch)[:, 1:].all()
    assert [sentence.split(":")[0] for sentence in net.assumed] == [
        "The loss is kl",
        "The first position of each data point is left out",
        "The positions that attention_mask leaves out do not count.",
    ]
    net, positions = assumed_network(transformer("bert"), [batch])
    assert (net.loss, positions) == ("kl", "mask")
    assert net.mask(batch).all()
    net, positions = assumed_network(nn.Linear(5, 2), [torch.randn(4, 5)])
    assert (net.loss, positions, net.assumed) == ("mse", None, ())


def test_positions_can_be_chosen() -> None:
    batch = padded(texts([4, 6, 4, 6]), "right")
    counted = {
        "mask": [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]],
        "later": [[0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]],
    }
    for positions, expected in counted.items():
        net, _ = assumed_network(reader(causal=True), [batch], positions=positions)
        assert net.mask(batch)[:2].long().tolist() == expected
    net, _ = assumed_network(reader(causal=True), [batch], cuts=["embed", "unembed"], positions="last")
    assert net.output(batch).shape[1] == 1
    net, _ = assumed_network(reader(causal=True), [batch], positions="all")
    with pytest.raises(DataError, match="padded"):
        net.check_once([batch])
    with pytest.raises(InputError, match="positions is 'first': expected one of all, mask, later, last"):
        assumed_network(reader(causal=True), [batch], positions="first")


def test_padding_on_the_left_moves_position_ids() -> None:
    model = transformer("gpt2").eval()
    parts = texts([3, 5, 4])
    (batch,) = numbered(model, [padded(parts, "left")])
    assert batch["position_ids"].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 1, 2, 3]]
    net = Network(model, "resid_*.0", loss="kl", mask="attention_mask")
    together = net.output(batch)
    for row, part in enumerate(parts):
        single = net.output(padded([part], "right"))[0]
        torch.testing.assert_close(together[row, -len(part) :], single, rtol=1e-5, atol=1e-6)
    right = padded(parts, "right")
    assert numbered(model, [right])[0] is right


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_batched_equals_one_by_one(name: str, side: str) -> None:
    model = transformer(name).double()
    parts = texts([6, 4, 6, 3, 4])
    options = {"loss": "kl", "mask": "attention_mask", "skip_first": name in DECODERS}
    net = Network(model, ["resid_pre.0", "resid_post.*"], **options)
    together = collect(net, numbered(model, [padded(parts, side)]), jacobians=True)
    single = collect(net, alone(parts), jacobians=True)
    for cut in net.cuts:
        torch.testing.assert_close(together.activations[cut].gram, single.activations[cut].gram, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(together.jacobians[cut].gram, single.jacobians[cut].gram, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "bert"])
def test_sdpa_gives_the_numbers_of_eager(name: str) -> None:
    nets = [
        Network(transformer(name, attn_implementation=kind), ["resid_pre.0", "resid_post.*"])
        for kind in ("sdpa", "eager")
    ]
    assert [net.model.config._attn_implementation for net in nets] == ["sdpa", "eager"], "the setting is kept"
    one, other = (net.activations({"input_ids": IDS}) for net in nets)
    for cut in one:
        torch.testing.assert_close(one[cut], other[cut], rtol=1e-5, atol=1e-6)


def test_the_cache_is_off_in_runs_and_on_again_afterwards() -> None:
    model = transformer("gpt2")
    seen = []
    model.transformer.register_forward_hook(lambda module, _, out: seen.append((module.config.use_cache, len(out))))
    net = Network(model, "auto", example={"input_ids": IDS})
    assert {cache for cache, _ in seen} == {False}
    assert model.config.use_cache
    assert model.training, "and the mode"
    with pytest.raises(DataError):
        net.output({"input_ids": IDS[:, 0]})
    assert model.config.use_cache


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_any_form_of_data_gives_the_same(name: str) -> None:
    model, ids = transformer(name), IDS[:8, :3]
    mask = torch.ones_like(ids)
    encoded = BatchEncoding({"input_ids": ids, "attention_mask": mask})
    rows = [{"input_ids": one, "attention_mask": mask[0]} for one in ids]
    loader = torch.utils.data.DataLoader(rows, batch_size=4)
    found = [interbasis.analyze(model, data, basis="pca", k=1) for data in (encoded, loader, [ids])]
    for other in found[1:]:
        for block, same in zip(found[0].graph.blocks, other.graph.blocks, strict=True):
            torch.testing.assert_close(torch.as_tensor(block), torch.as_tensor(same), rtol=1e-5, atol=1e-8)
    assert "The loss is kl" in found[0].summary
    assert ("The first position" in found[0].summary) == (name in DECODERS)
    assert "resid_post.1" in found[0].summary
    assert found[0].recipe.graph.positions == ("later" if name in DECODERS else "mask")


def test_a_model_without_a_head_is_read_at_its_last_hidden_state() -> None:
    model = transformer("gpt2").transformer
    net, _ = assumed_network(model, [{"input_ids": IDS}])
    assert net.loss == "mse"
    assert net.output({"input_ids": IDS}).shape == (24, 5, 8)


def test_tokens_and_lengths_beyond_the_model_are_refused() -> None:
    model = transformer("gpt2")
    with pytest.raises(DataError, match=r"token 11, and the model has embeddings of 11 tokens, 0 to 10"):
        interbasis.analyze(model, {"input_ids": IDS + 1})
    with pytest.raises(
        DataError, match=rf"sequences of {CONTEXT + 1} tokens.* {CONTEXT} positions.*--context {CONTEXT}"
    ):
        interbasis.analyze(model, {"input_ids": random_tokens(4, CONTEXT + 1)})


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_untrained_models_are_one_module(name: str) -> None:
    wide: dict[str, int] = {"n_embd": 32} if name == "gpt2" else {"hidden_size": 32, "intermediate_size": 64}
    found = interbasis.analyze(transformer(name, **wide), random_tokens(100, 8))
    assert found.verdict == "one module"
