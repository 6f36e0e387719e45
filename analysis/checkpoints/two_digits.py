"""Train the demo: one MLP that reads two handwritten digits side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..progress import ProgressCallback, report
from ..results import write_bytes
from .datasets import Dataset, load_dataset
from .mlp import MLP

__all__ = ["CLASSES", "accuracy", "train_two_digits"]

CLASSES = 10

_WIDTHS = (128, 48, 48, 2 * CLASSES)

_DATA = {"name": "two_digits", "n": 4000, "n_test": 1000, "seed": 0}

_STEPS = (0, 50, 150, 400, 1000, 2500)


def train_two_digits(
    folder: Path, *, seed: int = 0, steps: Sequence[int] = _STEPS, progress: ProgressCallback | None = None
) -> list[Path]:
    """Train the MLP with AdamW and save it at the given steps as checkpoints of family `mlp`.

    The checkpoints of another seed than 0 name their run, "seed 1", so that stores tell the trainings apart.

    Each step draws new pairs of pictures, so that no pair can be memorised.

    Returns:
        The .safetensors files, in order of training.
    """
    data, held_out = load_dataset(_DATA)
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
            about |= {"metrics": _measured(model, held_out)} | ({"run": f"seed {seed}"} if seed else {})
            saved.append(_save(model, folder, about | {"label": f"two-digits step {step}", "model": "two-digits"}))
        left, right = torch.randint(len(data.inputs), (2, 256), generator=generator, device="cpu")
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
    """Compute the share of digits named correctly, both sides together."""
    with torch.no_grad():
        logits = torch.cat([model(batch) for batch in data]).unflatten(-1, (-1, CLASSES))
    return float((logits.argmax(-1) == _targets(data)).double().mean())


def _measured(model: MLP, data: Dataset) -> dict[str, float]:
    with torch.no_grad():
        logits = torch.cat([model(batch.float()) for batch in data])
    right = logits.unflatten(-1, (-1, CLASSES)).argmax(-1) == _targets(data)
    return {
        "held-out loss": float(_loss(logits, _targets(data))),
        "held-out accuracy": float(right.double().mean()),
    }


def _targets(data: Dataset) -> Tensor:
    return data.targets if data.targets is not None else torch.zeros(0, device="cpu")


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.unflatten(-1, (-1, CLASSES)).transpose(1, 2), targets)


def _initialised(model: MLP, generator: torch.Generator) -> MLP:
    """Initialise an MLP with weights uniform within +- 1/sqrt(fan-in), as in torch, but from the given generator."""
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
