"""What the shell completes: kinds, IDs and names of stored things, and the values of choices. Starts without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, get_args, get_origin, get_type_hints

from ..records.choices import CHOICES
from ..records.errors import StoreError
from ..records.jobs import TASKS
from ..records.kinds import VERDICTS
from ..terminal.views import VIEWS
from .sources import missing_store, opened_source

__all__ = [
    "complete_choices",
    "complete_ids",
    "complete_kinds",
    "complete_tasks",
    "complete_values",
    "complete_verdicts",
]

_MOST = 50  # things of a kind that are offered, the newest


def complete_kinds(incomplete: str) -> list[str]:
    """Complete the name of a list.

    >>> complete_kinds("gr")
    ['graphs']
    """
    return [kind for kind in VIEWS if kind.startswith(incomplete)]


def complete_tasks(incomplete: str) -> list[str]:
    """Complete the name of a task."""
    return [task for task in TASKS if task.startswith(incomplete)]


def complete_values(task: str, choice: str) -> Callable[[str], list[str]]:
    """Return a function that completes the value of a choice of a task.

    >>> complete_values("analyze", "basis")("p")
    ['pca']
    """
    return lambda incomplete: [value for value in _values(task, choice) if value.startswith(incomplete)]


def complete_choices(ctx: Any, incomplete: str) -> list[str]:
    """Complete NAME=VALUE of the task that stands before."""
    task = str(ctx.params.get("task"))
    if task not in CHOICES:
        return []
    name, equals, value = incomplete.partition("=")
    if equals:
        return [f"{name}={each}" for each in _values(task, name) if each.startswith(value)]
    return [f"{each}=" for each in get_type_hints(CHOICES[task]) if each.startswith(name)]


def complete_ids(*kinds: str) -> Callable[[Any, str], list[tuple[str, str]]]:
    """Return a function that completes IDs and names of things of these kinds, the newest first."""

    def complete(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
        place = [ctx.params.get(name) for name in ("store", "artifacts", "url")]
        found: dict[str, str] = {}
        with suppress(StoreError):  # nothing is offered where the store cannot be read
            if missing_store(*place) is None:
                with opened_source(*place) as source:
                    for kind in kinds:
                        page = getattr(source, f"{kind}s")(limit=_MOST, newest_first=True)
                        found |= {word: about for row in page.items for word, about in _names(kind, row)}
        return [(word, about) for word, about in found.items() if word.startswith(incomplete)]

    return complete


def complete_verdicts(incomplete: str) -> list[str]:
    """Complete the verdict on a result.

    >>> complete_verdicts("ref")
    ['refuted']
    """
    return [verdict for verdict in VERDICTS if verdict.startswith(incomplete)]


def _names(kind: str, row: Any) -> Iterator[tuple[str, str]]:
    """Yield what a thing is called, with what it is about."""
    step = getattr(row, "step", None)
    about = f"{kind} {getattr(row, 'model', None) or getattr(row, 'name', None) or getattr(row, 'task', '')}".strip()
    if kind == "model":
        yield row.name, about
    elif kind == "run":
        yield f"{row.model}#{row.number}", about
    elif kind == "checkpoint" and step is not None:
        yield f"{row.model}@{step}", about
    yield row.id, about if step is None else f"{about}@{step}"


def _values(task: str, choice: str) -> list[str]:
    """Return the values that a choice may have, where they can be counted."""
    hint = get_type_hints(CHOICES[task]).get(choice.replace("-", "_"))
    if hint is bool:
        return ["true", "false"]
    parts = [hint] if get_origin(hint) is not None else []
    values: list[str] = []
    while parts:
        part = parts.pop()
        arguments = get_args(part)
        values += [each for each in arguments if isinstance(each, str)]
        parts += [each for each in arguments if get_origin(each) is not None]
    return values
