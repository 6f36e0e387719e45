"""Labels from programs, and how well they tell where a node is large: detection on examples that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import DataError, InputError
from .cards import Card, NodeCard

__all__ = ["Detection", "detection_auc", "held_out", "label"]

_LONGEST = 10_000  # characters of a label

_PERMUTATIONS = 1000


def label(cards: Iterable[Card], labeller: Callable[[str], str]) -> dict[str, str]:
    """Ask a program for a line about each card.

    Args:
        cards: the cards, `Cards` or some of them.
        labeller: takes a card as one JSON document and returns one line of text; an empty one is no label.

    Returns:
        The labels by the title of the card, "layers.1/7" or "module 0".

    Raises:
        InputError: what is returned is no text, several lines, or longer than 10,000 characters.
    """
    found: dict[str, str] = {}
    for card in cards:
        text = labeller(card.to_json())
        if not isinstance(text, str):
            raise InputError(f"the labeller returned a {type(text).__name__} for {card.title}: expected a line of text")
        text = text.strip()
        if len(text.splitlines()) > 1 or len(text) > _LONGEST:
            seen = f"{len(text.splitlines())} lines" if len(text.splitlines()) > 1 else f"{len(text):,} characters"
            raise InputError(
                f"the labeller returned {seen} for {card.title}: expected one line of at most {_LONGEST:,} characters"
            )
        if text:
            found[card.title] = text
    return found


@dataclass(frozen=True)
class Detection:
    """How well a label tells the examples at which a node is large.

    Attributes:
        auc: the chance that an example of a large value is predicted higher than one of a small value.
        chance: what predictions that know nothing get, 0.5.
        chance_spread: standard deviation of the AUC when the predictions are given to the examples at random.
        p_value: (1 + permutations with an AUC at least as high) / (1 + permutations).
        n_large, n_small: numbers of examples.
        seed: of the permutations.
    """

    auc: float
    chance: float
    chance_spread: float
    p_value: float
    n_large: int
    n_small: int
    seed: int


def held_out(card: NodeCard) -> list[dict[str, Any]]:
    """Return the examples of a node's card that were drawn from its deciles, which a labeller should not be shown."""
    return [one for part in card.content["examples"]["deciles"] for one in part]


def detection_auc(
    card: NodeCard | Sequence[tuple[Any, float]],
    predict: Callable[[str, Any], float],
    *,
    label: str,
    top: float = 0.2,
    seed: int = 0,
) -> Detection:
    """Score a label by how well it predicts at which held-out examples a node is large.

    The examples of a card are those drawn from its deciles (see `held_out`), without their values; their inputs, where
    they are numbers, are in `input`. Show the labeller the others alone.

    Args:
        card: the card of a node, or pairs of an example and its true value.
        predict: takes label and example, and returns a number that is higher where the node should be large.
        label: the label.
        top: share of the examples that count as large, those with the largest values.
        seed: seed of the permutations by which chance is measured.

    Raises:
        DataError: fewer than two examples, or all of one value.
        InputError: a share outside of (0, 1), or predictions that are not finite.

    >>> pairs = [(x, float(x)) for x in range(10)]
    >>> detection_auc(pairs, lambda label, x: x, label="large numbers").auc
    1.0
    """
    if not 0 < top < 1:
        raise InputError(f"top is {top}: expected a share between 0 and 1")
    pairs = [(_blind(card, one), one["value"]) for one in held_out(card)] if isinstance(card, NodeCard) else list(card)
    values = np.array([value for _, value in pairs], dtype=np.float64)
    if len(values) < 2 or values.min() == values.max():
        raise DataError(f"{len(values)} examples of the values {np.unique(values)[:3]}: expected two or more values")
    cutoff = np.sort(values)[-max(1, round(top * len(values)))]
    large = values >= cutoff if cutoff > values.min() else values > cutoff
    scores = np.array([float(predict(label, example)) for example, _ in pairs])
    if not np.isfinite(scores).all():
        raise InputError("predict returned NaN or infinite numbers: expected a finite one for each example")
    ranks = _ranks(scores)
    auc = _auc(ranks, large)
    draws = np.random.default_rng(seed)
    random = np.array([_auc(draws.permutation(ranks), large) for _ in range(_PERMUTATIONS)])
    p = (1 + int((random >= auc - 1e-12).sum())) / (1 + _PERMUTATIONS)
    n_large = int(large.sum())
    return Detection(auc, 0.5, float(random.std()), p, n_large, len(values) - n_large, seed)


def _blind(card: NodeCard, example: dict[str, Any]) -> dict[str, Any]:
    """Return an example without what gives its value away."""
    shown = {name: value for name, value in example.items() if name not in ("value", "values")}
    row = card.inputs.get(example["point"])
    return shown if row is None else {**shown, "input": row.tolist()}


def _ranks(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Rank the scores from 1, ties by their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(scores))


def _auc(ranks: Float[np.ndarray, " n"], large: np.ndarray) -> float:
    """Compute the AUC from ranks (Mann and Whitney 1947)."""
    n, m = int(large.sum()), int((~large).sum())
    return float((ranks[large].sum() - n * (n + 1) / 2) / (n * m))
