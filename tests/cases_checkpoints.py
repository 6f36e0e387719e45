"""Small checkpoints of family `mlp` and their data, as files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import normal
from safetensors.torch import save_file
from torch import Tensor

WIDTHS = (4, 6, 5, 3)


def mlp_tensors(widths: Sequence[int] = WIDTHS, *, seed: int = 0, blocks: int = 1) -> dict[str, Tensor]:
    """Random weights as the file holds them; with `blocks` as many networks of these widths side by side."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        parts = [normal(b, a, generator=generator) / a**0.5 for _ in range(blocks)]
        tensors[f"layers.{i}.weight"] = torch.block_diag(*parts)
        tensors[f"layers.{i}.bias"] = normal(b * blocks, generator=generator)
    return tensors


def save_checkpoint(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> Path:
    save_file(tensors, path)
    path.with_suffix(".json").write_text(json.dumps(about))
    return path


def save_mlp(path: Path, widths: Sequence[int] = WIDTHS, *, seed: int = 0, blocks: int = 1, **about: Any) -> Path:
    """A checkpoint with random weights; `about` adds to its JSON, a value None takes away."""
    wide = [width * blocks for width in widths]
    whole = {"family": "mlp", "config": {"widths": wide, "activation": "gelu"}, **about}
    given = {name: value for name, value in whole.items() if value is not None}
    return save_checkpoint(path, mlp_tensors(widths, seed=seed, blocks=blocks), given)


def save_inputs(path: Path, width: int = WIDTHS[0], *, n: int = 64, seed: int = 1) -> Path:
    np.savez(path, inputs=np.random.default_rng(seed).standard_normal((n, width)))
    return path
