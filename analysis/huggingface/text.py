"""Text and tokens as windows of one length, the data points of a language model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import DataError
from .library import OFFLINE, offline

__all__ = ["read_tokens", "token_strings", "tokenised", "windows"]

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


def tokenised(folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> Int[Tensor, " tokens"]:
    """Split a text into tokens with the tokenizer of a folder; no tokens that mark its ends are added.

    Args:
        folder: of `save_pretrained`.
        file: a text in UTF-8.

    Raises:
        DataError: no tokenizer, or a text that cannot be read or is empty.
    """
    place, path = Path(folder), Path(file)
    if not any((place / name).is_file() for name in _TOKENIZERS):
        raise DataError(
            f"{place} has no tokenizer: save it there with tokenizer.save_pretrained(folder), or give the tokens as "
            "numbers with --tokens FILE (.npy)"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the text {path}: {error}; expected a file in UTF-8") from error
    if not text.strip():
        raise DataError(f"{path} holds no text: give one of at least two windows of tokens")
    with offline() as found:
        try:
            tokenizer: Any = found.AutoTokenizer.from_pretrained(place, **OFFLINE)
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        except Exception as error:  # any error: the code is another package's
            raise DataError(f"the tokenizer of {place} failed: {type(error).__name__}: {error}") from error
    return torch.tensor(ids, dtype=torch.int64, device="cpu")


def token_strings(folder: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Return the text of every token of a folder's tokenizer, by number; None where there is no tokenizer.

    Tokens that are a part of a character in UTF-8 keep the tokenizer's own way to write them.

    Raises:
        DataError: the tokenizer cannot be loaded.
    """
    place = Path(folder)
    if not any((place / name).is_file() for name in _TOKENIZERS):
        return None
    with offline() as found:
        try:
            tokenizer: Any = found.AutoTokenizer.from_pretrained(place, **OFFLINE)
            own = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
            read = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], clean_up_tokenization_spaces=False)
        except Exception as error:  # any error: the code is another package's
            raise DataError(f"the tokenizer of {place} failed: {type(error).__name__}: {error}") from error
    pairs = enumerate(zip(read, own, strict=True))
    return tuple(text if text and "\ufffd" not in text else str(raw or f"#{i}") for i, (text, raw) in pairs)


def read_tokens(file: str | os.PathLike[str]) -> Int[Tensor, "*windows tokens"]:
    """Read tokens from a .npy file of whole numbers: one row of them, or windows that are cut already.

    Raises:
        DataError: it cannot be read, or holds anything else.
    """
    path = Path(file)
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read the tokens {path}: {error}; expected a .npy file of whole numbers") from error
    if not isinstance(found, np.ndarray) or found.ndim not in (1, 2) or found.dtype.kind not in "iu":
        seen = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise DataError(f"{path} holds {seen}: expected whole numbers, (tokens,) or (windows, tokens)")
    return torch.from_numpy(found.astype(np.int64))


def windows(
    tokens: Int[Tensor, "*windows tokens"], *, context: int, points: int | None = None, seed: int | None = None
) -> Int[Tensor, "points context"]:
    """Cut tokens into windows of one length, one after the other; what is left at the end is dropped.

    Args:
        tokens: one row of them; or windows that are cut already, which are taken as they are.
        context: tokens in a window.
        points: how many of the windows to take: evenly spread, or drawn at random where there is a seed; default: all.
        seed: of the draw.

    Raises:
        DataError: fewer than two windows, or fewer than `points`.

    >>> windows(torch.arange(11), context=2, points=3).tolist()
    [[0, 1], [4, 5], [8, 9]]
    """
    if context < 1 or (points is not None and points < 2):
        raise DataError(f"context is {context}, points {points}: expected windows of 1 token or more, and 2 or more")
    whole = tokens if tokens.ndim == 2 else tokens[: len(tokens) // context * context].reshape(-1, context)
    if len(whole) < 2:
        raise DataError(
            f"there are {tokens.numel():,} tokens, fewer than two windows of {context}: give more text, or a smaller "
            "--context"
        )
    if points is None:
        return whole
    if points > len(whole):
        raise DataError(
            f"there are {len(whole):,} windows of {whole.shape[1]} tokens, and {points:,} were asked for: give more "
            f"text, or --points {len(whole)}"
        )
    if seed is None:
        return whole[torch.linspace(0, len(whole) - 1, points, device="cpu").round().long()]
    drawn = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed), device="cpu")[:points]
    return whole[drawn.sort().values]
