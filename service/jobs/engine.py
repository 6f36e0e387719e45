"""The workflow engine, DBOS, behind one class: durable steps, a queue, and recovery after a killed process.

Its tables lie in the store's own database (PostgreSQL: schema `dbos`). They record which steps of which run are done;
our table `job` records everything else. No other file of interbasis uses DBOS.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dbos import DBOS, DBOSPortableJSONSerializer, EnqueueOptions
from sqlalchemy.exc import SQLAlchemyError

from ..records.errors import StoreError
from ..storage.location import Location

__all__ = ["Engine", "Workflow"]

Workflow = Callable[[str, int, "Callable[[str, Callable[[], Any]], Any]"], None]

"""Called with a job's ID, its run, and `once(step, work)`, which does the work of a step unless it is done already."""

_VERSION = "1"  # of the workflow; runs of another version are not gone on with

_POLLING = 0.2

_GOING_ON = ("PENDING", "ENQUEUED", "DELAYED")


class Engine:
    """A running engine; one per process."""

    def __init__(self, location: Location, worker: str, workflow: Workflow, queues: Mapping[str, int | None]) -> None:
        """Start the engine; runs that this worker left unfinished continue at once.

        Args:
            location: location of the store.
            worker: stable name of this process.
            workflow: runs the steps of a job.
            queues: queues to take jobs from, and how many jobs of each a worker runs at a time: a number is stored with
                the queue and holds for all its workers, None keeps the stored number, at first 1.

        Raises:
            StoreError: the database cannot be used.
        """
        logging.getLogger("dbos").setLevel(logging.ERROR)
        url = location.url.set(drivername="sqlite") if location.file is not None else location.url
        DBOS(
            config={
                "name": "interbasis",
                "system_database_url": url.render_as_string(hide_password=False),
                "executor_id": worker,
                "application_version": _VERSION,
                "serializer": DBOSPortableJSONSerializer(),  # nothing is pickled
                "log_level": "ERROR",
            }
        )

        @DBOS.workflow(name="job", max_recovery_attempts=1000)  # attempts are counted in `begin_job`
        def run(job: str, number: int) -> None:
            def once(step: str, work: Callable[[], Any]) -> Any:
                return DBOS.run_step({"name": step}, work)

            workflow(job, number, once)

        try:
            DBOS.listen_queues(list(queues))
            DBOS.launch()
            for name, concurrency in queues.items():
                DBOS.register_queue(
                    name,
                    worker_concurrency=concurrency or 1,
                    polling_interval_sec=_POLLING,
                    on_conflict="never_update" if concurrency is None else "always_update",
                )
        except SQLAlchemyError as error:
            raise StoreError(f"{location}: the job engine cannot start: {error}") from error

    def enqueue(self, queue: str, job: str, run: int, priority: int) -> None:
        """Put a run in a queue; a run that is already there stays as it is."""
        DBOS.enqueue_workflow_with_options(_options(queue, job, run, priority), job, run)

    def take_over(self, worker: str) -> list[str]:
        """Return the unfinished runs of a lost worker to their queues; return their jobs."""
        found = DBOS.list_workflows(executor_id=worker, status="PENDING")
        for status in found:
            DBOS.resume_workflow(status.workflow_id, queue_name=status.queue_name)
        return [status.workflow_id.partition(":")[0] for status in found]

    def given_up(self, runs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str | None]:
        """Return which of these runs will not continue, and why; None for one that the engine does not have."""
        names = {_workflow_id(job, run): (job, run) for job, run in runs}
        known = DBOS.list_workflows(workflow_ids=list(names), load_input=False) if names else []
        found = {status.workflow_id: status for status in known}
        result: dict[tuple[str, int], str | None] = {run: None for name, run in names.items() if name not in found}
        for name, status in found.items():
            if status.status not in _GOING_ON:
                result[names[name]] = str(status.error) if status.error else status.status.lower().replace("_", " ")
        return result

    def close(self) -> None:
        """Stop taking jobs; do not wait for those that run."""
        DBOS.destroy()


def _workflow_id(job: str, run: int) -> str:
    return f"{job}:{run}"


def _options(queue: str, job: str, run: int, priority: int) -> EnqueueOptions:
    return {
        "workflow_name": "job",
        "queue_name": queue,
        "workflow_id": _workflow_id(job, run),
        "priority": priority + 1001,  # DBOS takes numbers from 1 on
        "app_version": _VERSION,
    }
