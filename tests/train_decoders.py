"""Train the small decoders of the tests and save them as `save_pretrained` does: `python tests/train_decoders.py text`.

`text`: about 200,000 parameters (2 blocks, width 64), on the topics of Python's own help, split by a tokenizer that is
trained on them too. `two_tasks`: two streams of numbers modulo p, on separate tokens, take turns in one sequence; at
every position the next token is, with equal probabilities, the sum so far of the one stream or of the other. So both
are answered everywhere, and neither says anything about the other. `one_task`: one such stream. Minutes on one core;
the seeds are fixed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "decoders"

MODULUS = 11

END = "<|endoftext|>"


def text() -> str:
    return "\n".join(topics[name] for name in sorted(topics))


def text_tokenizer(corpus: str) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [corpus], trainers.BpeTrainer(vocab_size=1280, special_tokens=[END], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=END, eos_token=END, pad_token=END)


def text_batches(
    tokens: Tensor, steps: int, *, points: int = 24, context: int = 128
) -> Iterator[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(len(tokens) - context, (points,), generator=draws)
        window = torch.stack([tokens[start : start + context + 1] for start in starts.tolist()])
        yield window[:, :-1], window[:, 1:]


def sums(n_streams: int, *, modulus: int = MODULUS, length: int = 2) -> tuple[Tensor, Tensor]:
    """All sequences of `length` numbers per stream, streams taking turns, and the sums so far."""
    numbers = torch.tensor(list(product(range(modulus), repeat=n_streams * length)))
    position, stream = torch.arange(n_streams * length)[:, None], torch.arange(n_streams)
    own = numbers[:, :, None] * (position % n_streams == stream)
    return numbers + modulus * (position % n_streams)[:, 0], own.cumsum(1) % modulus + modulus * stream


def sum_batches(n_streams: int, steps: int, *, points: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
    tokens, answers = sums(n_streams)
    draws = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(tokens), (points,), generator=draws)
        yield tokens[chosen], one_hot(answers[chosen], n_streams * MODULUS).float().mean(2)


def train(
    model: GPT2LMHeadModel,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    *,
    rate: float,
    decay: float,
    smoothing: float = 0.0,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    for step, (tokens, answers) in enumerate(batches):
        logits = model(tokens).logits
        loss = cross_entropy(logits.flatten(0, 1), answers.flatten(0, 1), label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: loss {float(loss):.4f}", flush=True)


def decoder(vocabulary: int, positions: int, **shape: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=positions, **shape, **none, **ends))


def main(name: str, folder: Path = FOLDER) -> None:
    if name == "text":
        corpus = text()
        tokenizer = text_tokenizer(corpus)
        tokens = torch.tensor(tokenizer.encode(corpus))
        model = decoder(len(tokenizer), 256, n_embd=64, n_layer=2, n_head=4)
        steps = 2400
        train(model, text_batches(tokens, steps), steps, rate=4e-3, decay=0.01)
        tokenizer.save_pretrained(folder / name)
        model = model.half()
    else:
        n_streams = {"one_task": 1, "two_tasks": 2}[name]
        model = decoder(n_streams * MODULUS, 2 * n_streams, n_embd=64, n_layer=1, n_head=4)
        steps = 4000
        train(model, sum_batches(n_streams, steps), steps, rate=3e-3, decay=1.0, smoothing=0.1)
    model.save_pretrained(folder / name)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
