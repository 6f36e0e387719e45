"""Networks that do the same job, as commands name them, and the loss scale that is the mean of their distances.

Files and stored checkpoints are found and read here. A service is sent the number and the names: it reads no path of a
request.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import Any

from ..client.client import Client
from ..records.checkpoints import CHECKPOINT, RUN, check_suffix
from ..records.errors import StoreError
from ..records.kinds import Source
from ..terminal.progress import ProgressBars
from ..terminal.show import err
from ..terminal.tables import number
from .backends import Given

__all__ = ["SEEDS", "at_distance", "before_distance", "distances", "matching", "remark"]

SEEDS = "seeds:"
"""What a loss scale begins with that is the mean distance of the checkpoints that match what follows."""

_LAST = "last"

_SHOWN = 5  # names in a message


def matching(source: Source, pattern: str) -> list[str]:
    """Return the checkpoints that match a glob: files and folders, else stored ones by MODEL@STEP, MODEL@last.

    Raises:
        StoreError: fewer than two match.
    """
    found = [name for name in sorted(glob(pattern, recursive=True)) if _is_checkpoint(Path(name))]
    found = found or _stored(source, pattern)
    if len(found) > 1:
        return found
    seen = f"only {found[0]} matches" if found else "no checkpoint matches"
    raise StoreError(
        f"{SEEDS}{pattern}: {seen}, and a distance needs two networks or more; expected a glob of files, such as "
        "'run*/last.safetensors' (in quotes), or of stored checkpoints, such as 'digits-*@last'"
    )


def _is_checkpoint(path: Path) -> bool:
    return path.suffix == ".safetensors" if path.is_file() else (path / "config.json").is_file()


def _stored(source: Source, pattern: str) -> list[str]:
    """Return the stored checkpoints whose names match, in order of their steps; of runs one by one where several."""
    runs = {row.id: row.number for row in source.every(RUN)}
    rows = source.every(CHECKPOINT)
    several = {model for model, count in Counter(m for m, _ in {(r.model, r.run) for r in rows}).items() if count > 1}
    named: dict[str, tuple[str, int]] = {}
    last: dict[str, tuple[int, str]] = {}
    for row in rows:
        run = f"{row.model}#{runs[row.run]}" if row.model in several else row.model
        name = f"{run}@{row.label if row.step is None else row.step}"
        step = -1 if row.step is None else row.step
        named[name] = (run, step)
        last[run] = max(last.get(run, (-2, "")), (step, name))
    if pattern.endswith(f"@{_LAST}"):
        return [name for run, (_, name) in sorted(last.items()) if fnmatchcase(f"{run}@{_LAST}", pattern)]
    found = [name for name in named if fnmatchcase(name, pattern)]
    return sorted(found, key=named.__getitem__)


def distances(
    source: Source,
    refs: Sequence[str],
    given: Given,
    *,
    bars: ProgressBars,
    loss: str | None = None,
    positions: str | None = None,
) -> Any:
    """Load checkpoints, named as files or stored ones, and compute the distances between them.

    Data are those given, else those of the first checkpoint.

    Raises:
        StoreError: a checkpoint does not exist, or is one of a service, which sends no weights.
        InterbasisError: whatever `load_checkpoint` and `network_distance` refuse.
    """
    from ...analysis.checkpoints.checkpoint import load_checkpoint
    from ...analysis.checkpoints.families import load_factory
    from ...analysis.comparison.distance import network_distance
    from ...analysis.devices.memory import limited_memory
    from ...analysis.errors import InterbasisError
    from ..tasks.checkout import data_file

    if given.factory:
        sys.path.insert(0, str(Path.cwd()))
    build = load_factory(given.factory) if given.factory else None
    bars.begin("distance")
    with ExitStack() as stack:
        stack.enter_context(limited_memory(given.memory))
        data = given.data
        if data is not None and not isinstance(source, Client):
            data = stack.enter_context(data_file(source, str(data)))  # type: ignore[arg-type]
        options: dict[str, Any] = {"data": data, "factory": build, "device": given.device, "loss": loss}
        loaded = []
        for name in refs:
            file = stack.enter_context(_file(source, name))
            try:
                loaded.append(load_checkpoint(file, positions=positions, **options))
            except InterbasisError as error:
                raise type(error)(str(error) if name in str(error) else f"{name}: {error}") from error
        if len({each.batches.sha256 for each in loaded}) > 1:
            err.print(f"data are those of {refs[0]}; others name other data", soft_wrap=True)
        names = [name.removesuffix(".safetensors").rstrip("/") for name in refs]
        return network_distance(loaded, names=names, progress=bars.update)


@contextmanager
def _file(source: Source, name: str) -> Iterator[Path]:
    """Provide the file of a checkpoint, or of a stored one while the context is open."""
    path = Path(name)
    check_suffix(path)
    if path.exists():
        yield path
        return
    if path.suffix == ".safetensors":
        raise StoreError(f"there is no checkpoint {path}")
    if isinstance(source, Client):
        raise StoreError(f"{name}: a service sends no weights: name the files of the checkpoints")
    from ..tasks.checkout import checked_out

    with checked_out(source, name) as (_, file):  # type: ignore[arg-type]
        yield file


def before_distance(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices with 1 in place of a loss scale "seeds:GLOB", for a check before that is computed."""
    return {k: 1.0 if k == "epsilon" and isinstance(v, str) and v.startswith(SEEDS) else v for k, v in choices.items()}


def at_distance(
    source: Source, bars: ProgressBars, choices: Mapping[str, Any], given: Given, graph: str | None = None
) -> dict[str, Any]:
    """Replace a loss scale "seeds:GLOB" among choices by the mean distance of the checkpoints that match, and say so.

    Args:
        source: where stored checkpoints are found.
        bars: progress of the distances.
        choices: choices of a task; loss and positions among them hold for the distances, too.
        given: data, factory and device.
        graph: reference of the graph that is divided, whose loss and positions hold where the choices name none.

    Raises:
        StoreError: fewer than two checkpoints match.
    """
    if before_distance(choices) == choices:
        return dict(choices)
    refs = matching(source, choices["epsilon"].removeprefix(SEEDS))
    recipe = choices if graph is None else {**source.get_graph(graph).recipe, **choices}
    found = distances(source, refs, given, bars=bars, loss=recipe.get("loss"), positions=recipe.get("positions"))
    err.print(remark(found), soft_wrap=True)
    return {**choices, **found.choices}


def remark(found: Any) -> str:
    """Say which loss scale the distance of networks is."""
    names = list(found.names[:_SHOWN]) + ["..."] * (len(found.names) > _SHOWN)
    error = found.data.standard_error
    known = "" if error is None else f" +- {number(error)}"
    return (
        f"loss scale {number(found.epsilon)}{known}: mean distance of {len(found.names)} networks, {', '.join(names)}"
    )
