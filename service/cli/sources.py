"""Sources of commands: a local store, or a service."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..client.client import Client
from ..records.errors import NotFoundError, StoreError
from ..records.kinds import likely_kinds
from ..storage.location import Settings, locate
from ..store.store import Store
from ..terminal.views import VIEWS

__all__ = [
    "KINDS",
    "control_choices",
    "found_by_name",
    "loss_scale",
    "missing_store",
    "named_choices",
    "opened_client",
    "opened_source",
    "opened_store",
    "recipe_choices",
    "single_loss_scale",
    "singular",
    "stored_controls",
]

_COPIES = 3  # untrained copies: one alone says nothing of how they differ

KINDS = {kind.removesuffix("s"): kind for kind in VIEWS}
"""For each kind of stored thing, the name of one and the name of its list."""


@contextmanager
def opened_store(store: str | None, artifacts: str | None) -> Iterator[Store]:
    """Open the store that the options name, and close it afterwards."""
    with Store.open(store, artifacts) as opened:
        yield opened


@contextmanager
def opened_client(url: str) -> Iterator[Client]:
    """Open a client of the service at a URL, and close it afterwards; the token comes from `INTERBASIS_TOKEN`."""
    with Client(url, Settings().token) as client:
        yield client


@contextmanager
def opened_source(
    store: str | None, artifacts: str | None, url: str | None, *, create: bool = False
) -> Iterator[Store | Client]:
    """Open the service that the options name, else the store.

    Args:
        store: database of the store.
        artifacts: place of its large files.
        url: URL of a service to use instead.
        create: whether to make a SQLite store that does not exist.

    Raises:
        NotFoundError: it does not exist, and is not to be made.
    """
    if not create and (file := missing_store(store, artifacts, url)):
        raise NotFoundError(f"nothing stored yet in {file}: analyze a checkpoint first, or name another --store")
    with opened_store(store, artifacts) if url is None else opened_client(url) as source:
        yield source


def missing_store(store: str | None, artifacts: str | None, url: str | None) -> Path | None:
    """Return the SQLite file that the options name if it does not exist; None for a store that does, or a service."""
    file = None if url is not None else locate(store, artifacts).file
    return file if file is not None and not file.exists() else None


def found_by_name(opened: Any, ref: str, among: Container[str] = KINDS) -> tuple[str, Any]:
    """Return the kind and the record of what an ID, the start of one, or a name refers to.

    Args:
        opened: store or client.
        ref: the reference.
        among: kinds that it may be of.

    Raises:
        NotFoundError: the message names the kinds that were tried.
    """
    tried: dict[str, NotFoundError] = {}
    for kind in likely_kinds(ref):
        if kind in among:
            try:
                return kind, getattr(opened, f"get_{kind}")(ref)
            except NotFoundError as error:
                tried[kind] = error
    if len(tried) == 1:
        raise next(iter(tried.values()))
    *most, last = tried
    raise NotFoundError(f"no {', '.join(most)} or {last} {ref!r} in the store: list them with `interbasis ls KIND`")


def loss_scale(epsilon: str | None) -> float | str | list[float] | None:
    """Parse a loss scale: a number, a name, one number per pair of cuts, or seeds:GLOB, which stays as it is."""
    if epsilon is None or epsilon in ("graph", "pairs") or epsilon.startswith("seeds:"):
        return epsilon
    try:
        values = [float(part) for part in epsilon.split(",")]
    except ValueError:
        raise StoreError(
            f"--epsilon is {epsilon!r}: expected a number, numbers with commas between, 'graph', 'pairs' or seeds:GLOB"
        ) from None
    return values if len(values) > 1 else values[0]


def single_loss_scale(epsilon: str | None) -> float | str | None:
    """Parse the loss scale of a command that takes one for all: a number, or seeds:GLOB, which stays as it is."""
    try:
        return epsilon if epsilon is None or epsilon.startswith("seeds:") else float(epsilon)
    except ValueError:
        raise StoreError(f"--epsilon is {epsilon!r}: expected a number, or seeds:GLOB") from None


def numbers_of_steps(steps: str | None) -> list[int] | None:
    """Parse numbers of steps with commas between."""
    if steps is None:
        return None
    try:
        return [int(part) for part in steps.split(",")]
    except ValueError:
        raise StoreError(f"--adversarial is {steps!r}: expected numbers of steps with commas, like 20,80") from None


def control_choices(control: str | None, copies: int | None) -> dict[str, Any]:
    """Parse the options that say with how many untrained copies a network is compared."""
    if control not in (None, "untrained", "none"):
        raise StoreError(f"--control is {control!r}: expected untrained or none")
    if copies is not None and control != "untrained":
        raise StoreError("--control-copies goes with --control untrained: it says how many copies to analyse")
    if control is None:
        return {}
    return {"control": False} if control == "none" else {"untrained": copies or _COPIES}


def stored_controls(source: Any, row: Any) -> Sequence[Any]:
    """Return the network and its untrained copies in a table, where copies were asked for of a partition."""
    if not row.recipe.get("untrained"):
        return ()
    from ...analysis.modules.partition import Partition

    return Partition.from_bytes(source.partition_bytes(row.id)).controls


def recipe_choices(file: Path | None) -> dict[str, Any]:
    """Read the choices of a recipe file; return none without a file."""
    if file is None:
        return {}
    from ...analysis.recipe import read_choices

    return dict(read_choices(file))


def named_choices(given: list[str]) -> dict[str, Any]:
    """Parse `name=value` choices; read numbers, true, false and JSON lists as such.

    >>> named_choices(["epsilon=0.1", "basis=local"])
    {'epsilon': 0.1, 'basis': 'local'}

    Raises:
        StoreError: a choice has no "=".
    """
    choices = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise StoreError(f"--set {text!r}: expected NAME=VALUE")
        try:
            choices[name.replace("-", "_")] = json.loads(value)
        except (ValueError, RecursionError):  # it is text, or nested too deeply, which is refused as text is
            choices[name.replace("-", "_")] = value
    return choices


def singular(name: str, *, plural: bool = False) -> str:
    """Return the singular name of a kind, given in singular or plural.

    Args:
        name: the name.
        plural: whether a message names the kinds in the plural.

    >>> singular("partitions"), singular("llc")
    ('partition', 'llc')

    Raises:
        StoreError: the kind is unknown.
    """
    for one, many in KINDS.items():
        if name in (one, many, f"{one}s"):
            return one
    names = list(KINDS.values() if plural else KINDS)
    near = get_close_matches(name, names, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise StoreError(f"unknown kind {name!r}: {meant}expected one of {', '.join(names)}")
