"""The ledger of small transformers: never below the exact rank of the Hessian, and the symmetries by their numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from reference_ledger import plain_rank
from torch import Tensor, nn

from interbasis.analysis.degeneracy.ledger import Ledger, parameter_ledger
from interbasis.analysis.network.network import Network

TOKENS, WIDTH, HEADS, SIZE = 7, 4, 2, 2


class RMSNorm(nn.Module):
    """As in transformers: it computes in float32 inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(width)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * y.to(x.dtype)


class Conv1D(nn.Module):
    """As in transformers: a linear map with its weight transposed."""

    def __init__(self, d_out: int, d_in: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(d_in, d_out)), nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def attend(q: Tensor, k: Tensor, v: Tensor, rotary: bool) -> Tensor:
    """Causal attention of (batch, positions, heads, size), heads of k and v repeated to those of q."""
    k, v = (part.repeat_interleave(q.shape[2] // k.shape[2], 2) for part in (k, v))
    if rotary:
        q, k = (turned(part) for part in (q, k))
    scores = torch.einsum("nqhd,nkhd->nhqk", q, k) / q.shape[-1] ** 0.5
    later = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    pattern = scores.masked_fill(later, -torch.inf).softmax(-1, dtype=torch.float32).to(q.dtype)
    return torch.einsum("nhqk,nkhd->nqhd", pattern, v).flatten(2)


def turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None] * 0.7 ** torch.arange(half)
    cos, sin = (torch.cat([f(angle)] * 2, -1)[:, None].to(x.dtype) for f in (torch.cos, torch.sin))
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class FusedAttention(nn.Module):
    """GPT-2's: queries, keys and values of one Conv1D."""

    head_dim = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.c_attn, self.c_proj = Conv1D(3 * HEADS * SIZE, WIDTH), Conv1D(WIDTH, HEADS * SIZE)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, SIZE)) for part in self.c_attn(x).chunk(3, -1))
        return self.c_proj(attend(q, k, v, False))


class GroupedAttention(nn.Module):
    """Llama's: rotary embeddings, two heads of queries for one of keys and values."""

    head_dim = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.o_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(WIDTH, SIZE, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        parts = (f(x).unflatten(-1, (-1, SIZE)) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(attend(*parts, True))


class GPT2(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(TOKENS, WIDTH), nn.Embedding(5, WIDTH)
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), FusedAttention()
        self.ln_f, self.lm_head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKENS, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1])[None])
        return self.lm_head(self.ln_f(x + self.attn(self.ln_1(x))))


class Llama(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(TOKENS, WIDTH)
        self.input_norm, self.self_attn = RMSNorm(WIDTH), GroupedAttention()
        self.post_norm = RMSNorm(WIDTH)
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, 3, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(3, WIDTH, bias=False)
        self.norm, self.lm_head = RMSNorm(WIDTH), nn.Linear(WIDTH, TOKENS, bias=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        x = x + self.self_attn(self.input_norm(x))
        h = self.post_norm(x)
        return self.lm_head(self.norm(x + self.down_proj(nn.functional.silu(self.gate_proj(h)) * self.up_proj(h))))


class Odd(nn.Module):
    """An embedding, a parameter of no layer, and an unembedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gain = nn.Embedding(TOKENS, WIDTH), nn.Parameter(torch.ones(WIDTH))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(ids) * self.gain))


def random(model: nn.Module, seed: int = 0) -> nn.Module:
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            away = torch.randn(parameter.shape, generator=draws)
            parameter.copy_(away * 0.7 if parameter.ndim > 1 else 1 + 0.3 * away)
    return model.double()


def ids(count: int = 120, tokens: int = TOKENS) -> Tensor:
    return torch.randint(0, tokens, (count, 4), generator=torch.Generator().manual_seed(1))


def counted(model: nn.Module, data: Tensor, **options: Any) -> tuple[Ledger, dict[str, int]]:
    ledger = parameter_ledger(Network(model, [], loss="kl"), list(data.chunk(2)), **options)
    found: Counter[str] = Counter()
    for layer in ledger.layers:
        for block in layer.blocks:
            found[block.kind] += block.free
    return ledger, dict(found)


HEAD = SIZE * SIZE


@pytest.mark.parametrize("tied", [False, True])
def test_gpt2_is_explained_to_the_last_parameter(tied: bool) -> None:
    ledger, found = counted(random(GPT2(tied)), ids())
    assert (ledger.unexplained, ledger.uncounted) == (0, ())
    assert found["queries and keys"] == HEADS * HEAD
    assert found["keys"] == HEADS * SIZE
    assert found["values"] == HEADS * (HEAD + SIZE)  # with both biases also a constant
    assert found["same sum"] == WIDTH - 1  # tokens against positions, but for (1, ..., 1), which no norm sees
    assert ledger.nominal == ledger.explained + ledger.activations + ledger.jacobians + ledger.synchronised


@pytest.mark.parametrize("tied", [False, True])
def test_llama_is_explained_and_rotary_heads_keep_only_what_commutes(tied: bool) -> None:
    ledger, found = counted(random(Llama(tied)), ids(200))
    assert (ledger.unexplained, ledger.uncounted) == (0, ())
    assert found["queries and keys"] == SIZE  # of the one group: a scaling and a rotation of its pair of units
    assert found["values"] == HEAD
    assert found["gated units"] == 3
    assert found.get("residual stream", 0) == (0 if tied else WIDTH * (WIDTH - 1) // 2)  # tied: scales forbid rotations
    assert found["normalisation"] == (2 if tied else 3) * WIDTH  # the last scale, too, where the unembedding is free


def test_tied_embeddings_are_one_parameter() -> None:
    model = random(Llama(True))
    ledger, _ = counted(model, ids(200))
    embed = next(layer for layer in ledger.layers if layer.name == "embed_tokens")
    assert (embed.shares, embed.nominal) == ("lm_head", 0)
    assert ledger.nominal == sum(p.numel() for p in model.parameters())
    assert Ledger.from_bytes(ledger.to_bytes()) == ledger


def test_rows_of_tokens_not_in_the_data_are_free_unless_the_unembedding_shares_them() -> None:
    seen = ids(200, TOKENS - 2)
    untied, tied = (counted(random(Llama(tied)), seen)[0] for tied in (False, True))
    assert untied.activations == 2 * WIDTH
    assert tied.activations == 0
    assert min(untied.unexplained, tied.unexplained) >= 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("build", [GPT2, Llama])
def test_the_count_is_never_below_the_rank_on_few_data(build: type[nn.Module], seed: int) -> None:
    ledger, _ = counted(random(build(bool(seed % 2)), seed), ids(3 + 4 * seed))
    assert ledger.hessian.exact
    assert ledger.explained >= ledger.effective


def test_equal_scales_let_a_tied_network_turn() -> None:
    model = random(Llama(True))
    for norm in (model.input_norm, model.post_norm, model.norm):
        torch.nn.init.ones_(norm.weight)
    ledger, found = counted(model, ids(200))
    assert found["residual stream"] == WIDTH * (WIDTH - 1) // 2
    assert ledger.explained >= ledger.effective


def test_what_no_layer_explains_is_named_with_its_share_and_the_rest_counted() -> None:
    model = random(Odd())
    data = ids(60, TOKENS - 1)
    ledger = parameter_ledger(Network(model, []), [data])
    assert ledger.uncounted == (("gain", WIDTH),)
    assert "not counted: 4 parameters (8.5%) in gain" in str(ledger.warning)
    assert ledger.effective == plain_rank(model, data)
    assert ledger.activations == WIDTH  # the row of a token that no data point has
    assert [layer.name for layer in ledger.layers] == ["embed", "head"]
    assert Ledger.from_bytes(ledger.to_bytes()) == ledger
    bounded = parameter_ledger(Network(model, []), [data], method="estimate")
    assert bounded.hessian.lower <= ledger.effective <= bounded.hessian.upper == bounded.effective == bounded.explained


HF = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"n_layer": 1, "n_embd": 4, "n_head": 2, "n_positions": 4, "n_inner": 5}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {"num_key_value_heads": 1}),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {"rotary_pct": 1.0}),
    "bert": ("BertForMaskedLM", "BertConfig", {}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {"num_key_value_heads": 1, "head_dim": 2}),
}


@pytest.mark.parametrize("kind", HF)
def test_models_of_transformers_are_counted(kind: str) -> None:
    transformers = pytest.importorskip("transformers", reason="without transformers no model of it is counted")
    model_name, config_name, own = HF[kind]
    sizes = {"num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 5, "num_attention_heads": 2}
    common = {"vocab_size": 7, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    options = own if kind == "gpt2" else sizes | {"max_position_embeddings": 8} | own
    model = getattr(transformers, model_name)(getattr(transformers, config_name)(**common, **options)).eval()
    model = random(model)
    network = Network(model, [], output="logits", loss="kl")
    ledger = parameter_ledger(network, [{"input_ids": ids(60)}], method="exact")
    assert ledger.uncounted == ()
    assert ledger.nominal == sum(p.numel() for p in model.parameters())
    assert ledger.unexplained >= 0
    blocks = {block.kind for layer in ledger.layers for block in layer.blocks if block.free}
    assert {"values", "queries and keys"} <= blocks
    if kind in ("gpt2", "llama"):
        assert ledger.unexplained == 0
