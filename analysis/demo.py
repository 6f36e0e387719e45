"""A small network with a known answer: two handwritten digits side by side, named by one MLP.

The left digit and the right digit are drawn independently, and each has its own ten outputs, so a network that
solves the task well needs no interaction between its left and its right half. The basis and the modules do not see
this; `agreement` compares them with it afterwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from safetensors.torch import save
from torch import Tensor, nn

from .basis import Bases
from .datasets import Dataset, load_dataset
from .files import write_bytes
from .models import MLP
from .modules import Partition
from .progress import ProgressCallback, report

__all__ = ["CLASSES", "accuracy", "agreement", "train_two_digits", "true_sides"]

CLASSES = 10
_WIDTHS = (128, 48, 48, 2 * CLASSES)
_DATA = {"name": "two_digits", "n": 4000, "n_test": 1000, "seed": 0}
_STEPS = (0, 50, 150, 400, 1000, 2500)


def train_two_digits(
    folder: Path, *, seed: int = 0, steps: Sequence[int] = _STEPS, progress: ProgressCallback | None = None
) -> list[Path]:
    """Train the MLP with AdamW and save it at the given steps as checkpoints of family `mlp`.

    Each step draws left and right pictures anew, so that no pair can be learned by heart.

    Returns:
        The .safetensors files, in order of training.
    """
    data, _ = load_dataset(_DATA)
    config = {"widths": list(_WIDTHS), "activation": "relu"}
    generator = torch.Generator().manual_seed(seed)
    model = _initialised(MLP(_WIDTHS, "relu"), generator)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps), eta_min=1e-4)
    folder.mkdir(parents=True, exist_ok=True)
    saved: list[Path] = []
    for step in report(range(max(steps) + 1), "training", progress):
        if step in steps:
            about = {"family": "mlp", "config": config, "data": _DATA, "step": step}
            saved.append(_save(model, folder, about | {"label": f"two-digits step {step}", "model": "two-digits"}))
        left, right = torch.randint(len(data.inputs), (2, 256), generator=generator)
        halves = [data.inputs[side].float().chunk(2, 1)[i] for i, side in enumerate((left, right))]
        targets = torch.stack([_targets(data)[left, 0], _targets(data)[right, 1]], 1)
        loss = _loss(model(torch.cat(halves, 1)), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step < max(steps):
            schedule.step()
    return saved


def accuracy(model: nn.Module, data: Dataset) -> float:
    """Share of digits named correctly, both sides together."""
    with torch.no_grad():
        logits = torch.cat([model(batch) for batch in data]).unflatten(-1, (-1, CLASSES))
    return float((logits.argmax(-1) == _targets(data)).double().mean())


def true_sides(bases: Bases) -> list[Int[np.ndarray, " _"]]:
    """Per cut the side (0 left, 1 right) of each coordinate of a global basis with raw outputs at the last cut.

    The side of a coordinate is that whose outputs it influences more; that of an output is known.
    """
    *inner, last = bases.values()
    sides = [basis.influence[CLASSES:].sum(0) > basis.influence[:CLASSES].sum(0) for basis in inner]
    return [side.astype(np.int64) for side in (*sides, np.arange(len(last.importance)) >= CLASSES)]


def agreement(partition: Partition, sides: Sequence[Int[np.ndarray, " _"]]) -> list[float]:
    """Adjusted mutual information of modules and true sides, per cut and for all cuts together (last).

    Nodes without an edge above the cutoff belong to no module and are left out.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # takes a second

    pairs = [(side[labels >= 0], labels[labels >= 0]) for side, labels in zip(sides, partition.labels, strict=True)]
    pairs.append(tuple(np.concatenate(part) for part in zip(*pairs, strict=True)))  # type: ignore[arg-type]
    return [float(adjusted_mutual_info_score(side, labels)) if len(side) else math.nan for side, labels in pairs]


def _targets(data: Dataset) -> Tensor:
    return data.targets if data.targets is not None else torch.zeros(0)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.unflatten(-1, (-1, CLASSES)).transpose(1, 2), targets)


def _initialised(model: MLP, generator: torch.Generator) -> MLP:
    """Uniform within +- 1/sqrt(fan-in), as torch does, but from the given generator."""
    for layer in model.dense:
        bound = 1 / math.sqrt(layer.linear.in_features)
        for parameter in layer.linear.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return model


def _save(model: MLP, folder: Path, about: dict[str, Any]) -> Path:
    path = folder / f"step{about['step']:05d}.safetensors"
    write_bytes(path.with_suffix(".json"), json.dumps(about, indent=1).encode())
    tensors = {name.replace(".linear.", "."): tensor for name, tensor in model.state_dict().items()}
    return write_bytes(path, save(tensors))
