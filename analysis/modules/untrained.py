"""Untrained copies of a network, the control for modules that come from the architecture alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor, nn

from ..devices.device import device_of
from ..errors import InputError
from ..network.hooks import copied

__all__ = ["ControlRow", "control_note", "drawn_anew", "untrained_copy"]


@dataclass(frozen=True)
class ControlRow:
    """A network, or an untrained copy of it, in a table of both; the same choices hold for all.

    Attributes:
        name: "this network", or "untrained copy" and its number.
        seed: seed of the copy's parameters; None for the network itself.
        epsilon: loss scale; where it is read off the strengths, off its own.
        n_edges: number of edges above the cutoff sqrt(epsilon).
        edge_cost, normalised_cost, n_modules, contrast, verdict: of its division, see `Partition`.
        drawn: number of parameters (tensors) that were drawn again as they are initialised.
        permuted: names of parameters whose entries were permuted instead.
        reason: why it could not be analysed; its numbers are None then.
    """

    name: str
    seed: int | None = None
    epsilon: float | None = None
    n_edges: int | None = None
    edge_cost: float | None = None
    normalised_cost: float | None = None
    n_modules: int | None = None
    contrast: float | None = None
    verdict: str | None = None
    drawn: int = 0
    permuted: tuple[str, ...] = ()
    reason: str = ""


def control_note(rows: Sequence[ControlRow]) -> str:
    """Say in a sentence or two what a network and its untrained copies have; "" without copies.

    >>> rows = [ControlRow("this network", None, 0.1, 8, 1.0, 2.0, 2), ControlRow("copy 1", 0, 0.1, 9, 3.0, 6.0, 1)]
    >>> control_note(rows)
    'This network has 8 edges, normalised cost 2 and 2 modules; 1 untrained copy has 9, 6 and 1.'
    """
    this, copies = rows[0] if rows else None, [row for row in rows[1:] if not row.reason]
    lines = []
    if this is not None and copies:
        names = ("n_edges", "normalised_cost", "n_modules")
        own = [_range([getattr(this, name)]) for name in names]
        theirs = [_range([getattr(row, name) for row in copies]) for name in names]
        have = "1 untrained copy has" if len(copies) == 1 else f"{len(copies)} untrained copies have"
        lines.append(
            f"This network has {own[0]} edges, normalised cost {own[1]} and {own[2]} module{'s' * (own[2] != '1')}; "
            f"{have} {theirs[0]}, {theirs[1]} and {theirs[2]}."
        )
        if permuted := copies[0].permuted:
            rest = f"; {copies[0].drawn} were drawn again" if copies[0].drawn else ""
            lines.append(
                f"In the copies the entries of {len(permuted)} parameters are permuted, whose modules do not say how "
                f"they begin{rest}."
            )
    lines += [f"{row.name.capitalize()} could not be analysed: {row.reason}." for row in rows if row.reason]
    return " ".join(lines)


def _range(values: Sequence[int | float | None]) -> str:
    """Format the smallest and the largest of some numbers, once where they read alike."""
    known = [value for value in values if value is not None]
    ends = [f"{v:,}" if isinstance(v, int) else f"{v:.4g}" for v in (min(known), max(known))] if known else ["-"]
    return " to ".join(dict.fromkeys(ends))


def untrained_copy(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Copy a model and draw its parameters anew, as before training.

    Models that initialise each module (`_init_weights(module)`, as in Hugging Face) and modules with
    `reset_parameters` (most layers of torch) do so; the entries of every other parameter are shuffled, which keeps
    their distribution. Buffers stay, except running statistics that `reset_parameters` resets; parameters stay
    shared. The state of torch's random numbers is restored.

    Args:
        model: the model; it is not changed.
        seed: seed of the draws.

    Raises:
        InputError: the model cannot be copied, or its own initialisation fails.

    >>> layer = nn.Linear(2, 2)
    >>> copy = untrained_copy(layer)
    >>> bool((copy.weight != layer.weight).any()), bool((untrained_copy(layer).weight == copy.weight).all())
    (True, True)
    """
    return drawn_anew(model, seed=seed)[0]


def drawn_anew(model: nn.Module, *, seed: int = 0) -> tuple[nn.Module, tuple[str, ...]]:
    """Make an untrained copy, see `untrained_copy`; return it with the names of the parameters that were shuffled.

    Parameters of equal entries, which stay as they are, are not named.

    Raises:
        InputError: the model cannot be copied, or its own initialisation fails.

    >>> bare = nn.ParameterList([torch.arange(9.0)])
    >>> drawn_anew(nn.ModuleDict({"layer": nn.Linear(2, 2), "bare": bare}))[1]
    ('bare.0',)
    """
    try:
        copy, shuffled = _drawn_anew(copied(model).cpu(), seed)
        return copy.to(device_of(model)), shuffled
    except Exception as error:  # any error: the methods are the model's own
        raise InputError(f"an untrained copy cannot be made of the model: {type(error).__name__}: {error}") from error


def _drawn_anew(copy: nn.Module, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
    shuffled: list[str] = []
    before = {name: parameter.detach().clone() for name, parameter in copy.named_parameters()}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
        torch.manual_seed(seed)
        own: Callable[[nn.Module], None] | None = getattr(copy, "_init_weights", None)
        for module in copy.modules():
            if callable(own) and _takes_a_module(own):
                own(module)
            elif callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        for name, parameter in copy.named_parameters():
            if torch.equal(parameter, before[name]):
                parameter.copy_(_shuffled(parameter))
                if not torch.equal(parameter, before[name]):
                    shuffled.append(name)
    return copy, tuple(shuffled)


def _takes_a_module(function: Callable[..., None]) -> bool:
    """Return whether a function takes a single module; others of this name initialise the whole model."""
    try:
        signature(function).bind(nn.Identity())
    except (TypeError, ValueError):
        return False
    return True


def _shuffled(parameter: Tensor) -> Tensor:
    flat = parameter.flatten()
    return flat[torch.randperm(len(flat), device="cpu")].reshape(parameter.shape)
