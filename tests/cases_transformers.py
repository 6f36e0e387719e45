"""Small transformers of every architecture that is named in docs/transformers.md, as they are initialised."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

VOCABULARY, PAD, CONTEXT = 11, 0, 16

_TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": PAD}
_SHAPE = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT}


def _gpt2(**options: Any) -> nn.Module:
    config = transformers.GPT2Config(n_positions=CONTEXT, n_layer=2, n_head=2, **({"n_embd": 8} | _TOKENS | options))
    return transformers.GPT2LMHeadModel(config)


def _llama(**options: Any) -> nn.Module:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**heads, **_TOKENS, **(_SHAPE | options)))


def _neox(**options: Any) -> nn.Module:
    config = transformers.GPTNeoXConfig(num_attention_heads=2, **_TOKENS, **(_SHAPE | options))
    return transformers.GPTNeoXForCausalLM(config)


def _bert(**options: Any) -> nn.Module:
    return transformers.BertForMaskedLM(transformers.BertConfig(num_attention_heads=2, **_TOKENS, **(_SHAPE | options)))


def _gemma(**options: Any) -> nn.Module:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**heads, **_TOKENS, **(_SHAPE | options)))


MODELS: dict[str, Callable[..., nn.Module]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "gpt_neox": _neox,
    "bert": _bert,
    "gemma": _gemma,
}

DECODERS = [name for name in MODELS if name != "bert"]


def transformer(name: str, *, seed: int = 0, **options: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name](**options)


def random_tokens(n: int, length: int, *, seed: int = 0) -> Tensor:
    return torch.randint(1, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(seed))
