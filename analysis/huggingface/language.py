"""What is assumed of a model of tokens where nothing is said: its loss, and which positions count; said in the results.

`attention_mask` in a batch is the mask. A decoder is a model in which later tokens do not change earlier positions; its
first position is left out, since it is read as a place to rest attention on, with norms that own every spectrum. Logits
as wide as the vocabulary of an embedding are those of a softmax, so that the loss is "kl".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import CutError, DataError, InputError
from ..network.batches import Batch, map_tensors
from ..network.checks import differs, spread
from ..network.masks import Counted
from ..network.network import Network

__all__ = [
    "IGNORED",
    "POSITIONS",
    "CountedAt",
    "assumed_network",
    "check_tokens",
    "is_decoder",
    "numbered",
    "token_targets",
    "tokens",
]

CountedAt: TypeAlias = Literal["all", "mask", "later", "last"]

POSITIONS = ("all", "mask", "later", "last")
"""Every position; those that the mask counts; all of these but the first; the last of these."""

IGNORED = -100
"""The target of a position at which none is expected, as in torch and transformers."""

_MASK, _LABELS = "attention_mask", "labels"


def assumed_network(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    cuts: Any = "auto",
    output: str | int | None = None,
    loss: str | None = None,
    positions: str | None = None,
    **options: Any,
) -> tuple[Network, CountedAt | None]:
    """Build the network of a model, with what is assumed where loss and positions are not given.

    Args:
        model: any module.
        batches: the data; the first batch is looked at.
        cuts: see `Network`.
        output: see `Network`.
        loss: "mse" or "kl"; default: "kl" where the output is as wide as the vocabulary of an embedding, else "mse".
        positions: one of `POSITIONS`; default: "later" for decoders, else "mask", or "all" where there is no mask.
        **options: further arguments of `Network`.

    Returns:
        The network, its sentences in `assumed`, and the positions that count; None where there is but one.

    Raises:
        InputError: unknown positions.
        DataError: tokens beyond the vocabulary, or more positions than the model has.
    """
    if positions is not None and positions not in POSITIONS:
        raise InputError(f"positions is {positions!r}: expected one of {', '.join(POSITIONS)}")
    check_tokens(model, batches)
    first = batches[0]
    example = spread(first)
    masked = isinstance(first, Mapping) and _MASK in first and _takes(model, _MASK) and first[_MASK].ndim == 2
    said = []
    width = _vocabulary(model, output, example) if loss is None and tokens(example) is not None else None
    if width is not None:
        said.append(f"The loss is kl: the output is as wide as the vocabulary ({width}).")
    chosen = positions
    if chosen is None and tokens(example) is not None and is_decoder(model, example, output=output):
        chosen = "later"
        said.append(
            "The first position of each data point is left out: the model is a decoder, in which later tokens do not "
            "change earlier positions."
        )
    elif chosen is None and masked:
        chosen = "mask"
    if masked and chosen != "all":
        options.setdefault("mask", _MASK)
        said.append(f"The positions that {_MASK} leaves out do not count.")
    options.setdefault("skip_first", chosen == "later")
    if chosen == "last":
        options["positions"] = "last"
    kind = loss or ("kl" if width is not None else "mse")
    net = Network(model, cuts, output=output, loss=kind, **options)
    net.assumed = tuple(said)
    return net, chosen  # type: ignore[return-value]


def check_tokens(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Check that a model of transformers has an embedding of every token, and of every position.

    Raises:
        DataError: it has not; says what the model has, and what the data hold.
    """
    if not callable(embedding := getattr(model, "get_input_embeddings", None)):
        return
    rows = getattr(embedding(), "num_embeddings", None)
    places = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    for batch in batches:
        if (ids := tokens(batch)) is None or not ids.numel():
            continue
        least, most, length = int(ids.min()), int(ids.max()), ids.shape[1]
        if rows is not None and (least < 0 or most >= rows):
            raise DataError(
                f"the data hold the token {least if least < 0 else most}, and the model has embeddings of {rows} "
                f"tokens, 0 to {rows - 1}: take the tokenizer that the model was trained with"
            )
        if places is not None and length > places:
            raise DataError(
                f"the data have sequences of {length} tokens, and the model has {places} positions: cut them into "
                f"windows of at most {places} (--context {places})"
            )


def is_decoder(model: nn.Module | Network, batch: Batch, *, output: str | int | None = None) -> bool:
    """Return whether the output at a position depends on earlier tokens, and not on later ones.

    The second half of the tokens of each data point is replaced by those of another (of a single data point by its own,
    one place on), and then the first half.

    >>> is_decoder(nn.Sequential(nn.Embedding(5, 2)), torch.tensor([[0, 1, 2], [3, 4, 0]]))
    False
    """
    ids = tokens(batch)
    if ids is None or ids.shape[1] < 2:
        return False
    half, others = ids.shape[1] // 2, ids.roll(1, 0 if len(ids) > 1 else 1)
    net = model if isinstance(model, Network) else Network(model, (), output=output)
    later, earlier = ids.clone(), ids.clone()
    later[:, half:], earlier[:, :half] = others[:, half:], others[:, :half]
    if torch.equal(later, ids) or torch.equal(earlier, ids):
        return False
    try:
        here, changed, again = (net.output(_with_tokens(batch, ids, new)) for new in (ids, later, earlier))
    except (CutError, DataError):
        return False  # refused with its reason by the checks
    if here.shape[1] != ids.shape[1]:
        return False
    seen = batch[_MASK] != 0 if isinstance(batch, Mapping) and _MASK in batch else torch.ones_like(ids).bool()
    if seen.shape != ids.shape:
        return False
    first, last = seen.clone(), seen.clone()
    first[:, half:], last[:, :half] = False, False
    return not differs(here[first], changed[first]) and bool(differs(here[last], again[last]))


def numbered(model: nn.Module, batches: Iterable[Batch]) -> tuple[Batch, ...]:
    """Return batches whose positions are counted from the first that the mask counts, where padding is on the left.

    Models of transformers count `position_ids` from the left of the tensor where none are given.

    >>> numbered(nn.Identity(), [torch.zeros(1)])
    (tensor([0.]),)
    """
    return tuple(_numbered(model, batch) for batch in batches)


def token_targets(net: Network, batch: Batch, counted: Counted, *, decoder: bool) -> Tensor | None:
    """Return the target at each position of the output that is read; `IGNORED` where there is none.

    The targets are `labels` in the batch where it has them, which transformers gives at the positions of the tokens; of
    a decoder the next ones, or else the next tokens.

    Args:
        net: the network.
        batch: one batch of its data.
        counted: the positions of the output that are read.
        decoder: whether the network predicts next tokens (see `is_decoder`).

    Returns:
        Whole numbers (data points, positions read); None where the batch holds no labels and the network is no decoder.
    """
    ids = tokens(batch)
    labels = batch.get(_LABELS) if isinstance(batch, Mapping) else None
    given = labels if isinstance(labels, Tensor) and ids is not None and labels.shape == ids.shape else None
    if given is None:
        if ids is None or not decoder:
            return None
        mask = net.mask(batch)
        given = ids if mask is None else torch.where(mask, ids, IGNORED)
    if decoder:
        given = torch.nn.functional.pad(given[:, 1:], (0, 1), value=IGNORED)
    if isinstance(counted.index, Tensor):
        return given.gather(1, counted.index[:, None])
    return given[:, counted.index]


def tokens(batch: Batch) -> Tensor | None:
    """Return the tokens of a batch, integers (data points, positions); None where it holds none."""
    if isinstance(batch, Mapping):
        values: list[Any] = [batch["input_ids"]] if "input_ids" in batch else list(batch.values())
    else:
        values = list(batch) if isinstance(batch, tuple | list) else [batch]
    whole = (torch.int32, torch.int64)
    return next((v for v in values if isinstance(v, Tensor) and v.ndim == 2 and v.dtype in whole), None)


def _with_tokens(batch: Batch, ids: Tensor, new: Tensor) -> Batch:
    return map_tensors(lambda v: new if v is ids else v, batch)


def _takes(model: nn.Module, name: str) -> bool:
    parameters = signature(model.forward).parameters
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def _vocabulary(model: nn.Module, output: str | int | None, batch: Batch) -> int | None:
    """Return the width of the output if an embedding has as many rows."""
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings != m.embedding_dim]
    if not tables:
        return None
    try:
        with torch.no_grad():
            width = int(Network(model, (), output=output).output(batch).shape[-1])
    except (CutError, DataError):
        return None  # refused with its reason by the checks
    return width if any(table.num_embeddings == width for table in tables) else None


def _numbered(model: nn.Module, batch: Batch) -> Batch:
    if not isinstance(batch, Mapping) or _MASK not in batch or "position_ids" in batch:
        return batch
    mask = batch[_MASK]
    if mask.ndim != 2 or bool((mask[:, 0] != 0).all()) or "position_ids" not in signature(model.forward).parameters:
        return batch
    return {**batch, "position_ids": (mask.long().cumsum(1) - 1).clamp_min(0)}
