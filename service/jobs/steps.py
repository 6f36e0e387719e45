"""The steps of jobs: their files on disk, and errors that name files as the user does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ...analysis.progress import Progress
from ..records.choices import check_choices
from ..records.jobs import ON_CHECKPOINTS
from ..store.store import Store
from ..tasks.analyze import Answer
from ..tasks.checkout import checked_out, data_file, names_of_checkpoint, names_of_data, own_names
from ..tasks.run import Task

__all__ = ["OFTEN", "Steps"]

OFTEN = 0.1  # seconds between reports of progress


class Steps:
    """The steps of one job, on an open store."""

    def __init__(
        self, store: Store, job: Mapping[str, Any], tell: Callable[[Progress], None], device: str | None = None
    ) -> None:
        """Check the choices; read nothing yet."""
        check_choices(job["task"], job["choices"])  # an earlier version took any
        self._store, self._job, self._tell, self._device = store, job, tell, device
        self._names: dict[str, str] = {}
        self._task: Task | None = None

    @contextmanager
    def files(self) -> Iterator[None]:
        """Keep the checkpoint and the data on disk while steps run."""
        choices = dict(self._job["choices"])
        force, named_data = bool(choices.pop("force", False)), choices.pop("data", None)
        name, target = self._job["task"], self._job["target"]
        with ExitStack() as stack:
            data = stack.enter_context(data_file(self._store, named_data))
            self._names |= names_of_data(named_data, data)
            if name in ON_CHECKPOINTS and not target.endswith(".safetensors"):  # an earlier version wrote the path
                row, target = stack.enter_context(checked_out(self._store, target))
                self._names |= names_of_checkpoint(row, target)
            options: dict[str, Any] = {
                "data": data,
                "force": force,
                "keep": True,
                "progress": self._tell,
                "device": self._device,
            }
            self._task = Task(self._store, name, target, choices, **options)
            yield

    def take(self, step: str, before: Mapping[str, Answer]) -> Answer:
        """Take one step, while `files` is open."""
        if self._task is None:
            raise RuntimeError("the files of the job are not open")
        with own_names(self._names):
            return self._task.take(step, before)
