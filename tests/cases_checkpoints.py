"""Small checkpoints and their data, as files."""

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


def save_transformer(path: Path, *, seed: int = 0, **about: Any) -> Path:
    """A random transformer with two heads for addition modulo 5; its data are in its JSON."""
    config = {"d_model": 6, "n_heads": 2, "d_head": 3, "d_mlp": 7, "n_ctx": 3, "d_vocab": 6}
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embed": (6, 6),
        "pos_embed": (3, 6),
        "unembed.w": (6, 6),
        "unembed.b": (6,),
    }
    shapes |= {f"attn.w_{name}": (2, 6, 3) for name in "qkv"} | {f"attn.b_{name}": (2, 3) for name in "qkv"}
    shapes |= {"attn.w_o": (2, 3, 6), "attn.b_o": (6,), "mlp.w_in": (6, 7), "mlp.b_in": (7,), "mlp.w_out": (7, 6)}
    shapes |= {"mlp.b_out": (6,)}
    tensors = {name: normal(*shape, generator=generator) / 2 for name, shape in shapes.items()}
    data = {"name": "modular_addition", "modulus": 5, "train_fraction": 0.6, "split_seed": 0}
    whole = {"family": "modular_addition_transformer", "config": config, "data": data, **about}
    return save_checkpoint(path, tensors, whole)


def save_inputs(path: Path, width: int = WIDTHS[0], *, n: int = 64, seed: int = 1) -> Path:
    np.savez(path, inputs=np.random.default_rng(seed).standard_normal((n, width)))
    return path
