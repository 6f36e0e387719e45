"""Where commands compute: here, on a local store, or by a service, which runs jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..client.client import Client
from ..records.checkpoints import check_suffix
from ..records.choices import as_json, check_choices
from ..records.errors import StoreError
from ..records.jobs import ON_CHECKPOINTS, JobRow
from ..records.kinds import Source
from ..store.store import Store
from ..terminal.progress import JobBars, ProgressBars, waiting_hint
from ..terminal.show import err
from .options import with_place
from .sources import opened_source

__all__ = ["Backend", "Given", "Local", "Made", "Remote", "checkpoint_files", "makes_store", "opened_backend", "waited"]

Made = dict[str, str]  # kind of each result -> its ID

_STARTING = 3.0  # seconds that a worker may take to say that it runs, and until it is asked for again


class Given(NamedTuple):
    """Options of a task that are no choices of its recipe.

    Attributes:
        data: file to read the data from; default: the checkpoint's own.
        factory: `module:function` that builds a model of family `torch`.
        force: compute stored results again.
        device: where to compute; default: the CPU.
        memory: limit of memory, such as "8GiB"; default: half of what is free.
    """

    data: Path | None = None
    factory: str | None = None
    force: bool = False
    device: str | None = None
    memory: str | None = None


class Backend(Protocol):
    """Runs tasks; commands use it without knowing where it computes.

    Attributes:
        bars: progress of what is computed here.
    """

    bars: ProgressBars

    @property
    def source(self) -> Source:
        """Return where results are stored."""

    def run(self, task: str, targets: Sequence[str | Path], choices: Mapping[str, Any], given: Given) -> list[Made]:
        """Run a task on several targets; return what it made of each.

        Args:
            task: name of the task, one of `records.jobs.TASKS`.
            targets: checkpoints, as files or stored ones; for partition graphs, for experiment partitions, for track
                runs or models, for import files.
            choices: fields of the task's recipe; None is left out. Of an experiment, "kind" may be a list: then each
                kind is run.
            given: data, factory, force, device, memory.

        Raises:
            StoreError: a choice of the wrong type or value; a job failed; or a service was given a factory or device.
        """

    def export(self, ref: str, form: str, epsilon: float | None, given: Given, **choices: Any) -> bytes:
        """Export a stored result for another tool, see `tasks.exchange`; `choices` are module, neurons and into."""


class Local:
    """Compute here, on an open store."""

    def __init__(self, store: Store, bars: ProgressBars) -> None:
        """Keep the store and the progress bars."""
        self.source, self.bars = store, bars

    def run(self, task: str, targets: Sequence[str | Path], choices: Mapping[str, Any], given: Given) -> list[Made]:
        """Run a task on several targets, see `Backend.run`."""
        from ...analysis.devices.memory import limited_memory
        from ..tasks.run import Task

        works = _works(task, targets, choices)
        _allow(given.factory)
        made = []
        named = [f"experiment {chosen['kind']}" for _, chosen in works] if task == "experiment" else task
        self.bars.begin(named, len(works))
        with self.source.together(checkpoint_files(task, targets)), limited_memory(given.memory):
            for number, (target, chosen) in enumerate(works, 1):
                self.bars.title(target.stem if isinstance(target, Path) else str(chosen.get("kind") or target), number)
                with self._file(task, target) as file, self._data(given.data) as data:
                    options: dict[str, Any] = given._replace(data=data)._asdict()
                    del options["memory"]  # it is the process that has a limit
                    work = Task(self.source, task, file, chosen, progress=self.bars.update, **options)
                    made.append({str(result["kind"]): str(result["id"]) for result in work.all()})
        return made

    @contextmanager
    def _file(self, task: str, target: str | Path) -> Iterator[str | Path]:
        """Provide the file of a checkpoint that is named as a stored one; leave any other target as it is."""
        if task not in ON_CHECKPOINTS or Path(target).suffix == ".safetensors" or Path(target).exists():
            yield target
            return
        from ..tasks.checkout import checked_out

        with checked_out(self.source, str(target)) as (_, file):
            yield file

    @contextmanager
    def _data(self, named: Path | None) -> Iterator[Path | None]:
        """Provide a data file, which may be one of the store, "sha256:..."."""
        from ..tasks.checkout import data_file

        with data_file(self.source, None if named is None else str(named)) as file:
            yield file

    def export(self, ref: str, form: str, epsilon: float | None, given: Given, **choices: Any) -> bytes:
        """Export a stored result for another tool, see `Backend.export`."""
        from ..tasks.exchange import export

        _allow(given.factory)
        with self._data(given.data) as data:
            options: dict[str, Any] = {"data": data, "factory": given.factory, "progress": self.bars.update}
            return export(self.source, ref, form, epsilon, **options, **choices)


class Remote:
    """Let a service compute."""

    def __init__(self, client: Client, bars: ProgressBars) -> None:
        """Keep the client and the progress bars."""
        self.source, self.bars = client, bars

    def run(self, task: str, targets: Sequence[str | Path], choices: Mapping[str, Any], given: Given) -> list[Made]:
        """Submit a job for each target, and wait until all have succeeded, see `Backend.run`."""
        if given.factory is not None:
            raise StoreError(
                "--factory: a service builds models of installed families only; analyze it here, without --url"
            )
        for name, value, example in (("device", given.device, "cuda"), ("memory", given.memory, "8GiB")):
            if value is not None:
                raise StoreError(
                    f"--{name}: a service computes as its workers do (interbasis worker --{name} {example}): "
                    "leave it out"
                )
        beside = {"data": given.data, "force": given.force or None}
        works = _works(task, targets, choices)
        with self.source.together(checkpoint_files(task, targets)):
            asked = [self.source.submit(task, target, {**chosen, **beside}).row for target, chosen in works]
        rows = waited(self.source, asked)
        for row in rows:
            if row.state != "succeeded":
                raise StoreError(f"{row.id} {row.state}: {row.error or 'it was stopped'}")
        return [{str(made["kind"]): str(made["id"]) for made in row.results} for row in rows]

    def export(self, ref: str, form: str, epsilon: float | None, given: Given, **choices: Any) -> bytes:
        """Export a stored result for another tool; where the network or a stored file is needed, the service does."""
        from ...analysis.exchange.component_strengths import NETWORK_FORMATS
        from ...analysis.results import read_bytes
        from ..tasks.exchange import check_form, export_stored

        module, neurons, into = (choices.get(name) for name in ("module", "neurons", "into"))
        check_form(form, epsilon, {"module": module, "data": given.data, "factory": given.factory}, neurons)
        if into is not None and str(into).startswith("sha256:"):
            return self.source.export(ref, form, epsilon=epsilon, into=str(into))
        if form not in NETWORK_FORMATS or into is not None:
            return export_stored(self.source, ref, form, epsilon, into=None if into is None else read_bytes(into))
        if (given.data, given.factory) != (None, None):
            raise StoreError("a service takes the checkpoint's own data: export with --data here, without --url")
        return self.source.export(ref, form, module=module, neurons=neurons)


@contextmanager
def opened_backend(
    store: str | None, artifacts: str | None, url: str | None, *, create: bool = False
) -> Iterator[Backend]:
    """Open the service that the options name, else the store, see `opened_source`, with progress on standard error."""
    with ProgressBars(err) as bars, opened_source(store, artifacts, url, create=create) as source:
        yield Remote(source, bars) if isinstance(source, Client) else Local(source, bars)


def checkpoint_files(task: str, targets: Sequence[str | Path]) -> list[Path]:
    """Return the targets of a task that are files of checkpoints, or folders of `save_pretrained`."""
    paths = [Path(target) for target in targets if task in ON_CHECKPOINTS]
    return [path for path in paths if path.suffix == ".safetensors" or path.is_dir()]


def makes_store(task: str, targets: Sequence[str | Path]) -> bool:
    """Return whether a task may make the store that it stores in: where no target is a file, it reads what is stored.

    Raises:
        StoreError: a file is missing, or one of torch.save.
    """
    paths = [Path(target) for target in targets if task in (*ON_CHECKPOINTS, "import")]
    for path in paths if task == "import" else ():
        if not path.is_file() and not str(path).startswith("sha256:"):
            raise StoreError(f"there is no file {path}")
    for path in paths if task != "import" else ():
        check_suffix(path)
        if path.suffix == ".safetensors" and not path.exists():
            raise StoreError(f"there is no checkpoint {path}")
    return any(path.exists() for path in paths)


def waited(source: Any, rows: Sequence[JobRow]) -> list[JobRow]:
    """Wait for jobs of a store or a service, with a bar for each; warn once if there is no worker.

    Ctrl-C ends the command, not the jobs.
    """
    try:
        return _waited(source, rows)
    except KeyboardInterrupt:
        ids = " ".join(row.id for row in rows)
        goes = "the job goes on" if len(rows) == 1 else "the jobs go on"
        err.print(with_place(f"{goes}: watch again with `interbasis watch {ids}`"), soft_wrap=True)
        sys.exit(130)


def _waited(source: Any, rows: Sequence[JobRow]) -> list[JobRow]:
    ask, hint = time.monotonic() + _STARTING, None
    with JobBars(rows) as show:
        while True:
            rows = [row if row.ended else source.get_job(row.id) for row in rows]
            for row in rows:
                show(row)
            if all(row.ended for row in rows):
                return list(rows)
            if hint is None and time.monotonic() > ask:
                ask, hint = time.monotonic() + _STARTING, waiting_hint(rows, source)
                if hint is not None:
                    show.say(hint)
            time.sleep(0.3)


def _works(
    task: str, targets: Sequence[str | Path], choices: Mapping[str, Any]
) -> list[tuple[str | Path, dict[str, Any]]]:
    """Return each target with its choices, once for each kind of experiment.

    Choices that the task does not have, and files of torch.save, are refused before anything is computed.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    several = [{**given, "kind": kind} for kind in given["kind"]] if isinstance(given.get("kind"), list) else [given]
    for chosen in several:
        check_choices(task, as_json(chosen))
    for target in targets if task in ON_CHECKPOINTS else ():
        check_suffix(Path(target))
    return [(target, chosen) for chosen in several for target in targets]


def _allow(factory: str | None) -> None:
    """Let Python find the user's own modules in the current folder, for a factory."""
    if factory:
        sys.path.insert(0, str(Path.cwd()))
