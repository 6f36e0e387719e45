"""What requests carry and what lists and errors look like, for validation and for the OpenAPI document.

Answers are the records of `records`, whose fields FastAPI documents by itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "CheckpointRequest",
    "CollectRequest",
    "ExportFormat",
    "GraphFormat",
    "Health",
    "JobRequest",
    "Listing",
    "Problem",
    "Readiness",
    "ScheduleRequest",
    "Scope",
    "State",
    "Task",
    "TokenRequest",
]

ItemT = TypeVar("ItemT")

Task = Literal["analyze", "partition", "ledger", "llc", "experiment", "track"]

GraphFormat = Literal["graphml", "gexf", "node-link", "circuit-tracer", "safetensors", "eap", "autocircuit"]

ExportFormat = Literal[GraphFormat, "masks"]

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]

Scope = Literal["read", "submit", "admin"]

Queue = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$", description="Only workers of that queue take it.")]

Priority = Annotated[int, Field(ge=-1000, le=1000, description="Smaller numbers go first.")]

Timeout = Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="Seconds after which a run is stopped.")]

Choices = Annotated[
    dict[str, Any],
    Field(
        description="Names of the task's recipe; `data`: a path the service may read, or the `sha256:...` of an "
        "upload; `force`: compute again what is stored."
    ),
]


class Listing(BaseModel, Generic[ItemT]):
    """Part of a list; pass `next_cursor` as `cursor` to get the next part."""

    items: list[ItemT]
    next_cursor: str | None = None


class Problem(BaseModel):
    """An error, as in RFC 9457; `code` tells programs which one it is, `detail` people what to do."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = None


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # not strict, `true` is the number 1


class CheckpointRequest(_Request):
    """A checkpoint to be registered: by a path that the service may read, or as an upload."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"path": "/data/run/step500.safetensors"},
                {
                    "uri": "sha256:" + "ab" * 32,
                    "about": {"family": "mlp", "config": {"widths": [4, 6, 3]}, "step": 500, "model": "run"},
                },
            ]
        },
    )

    path: str | None = Field(None, max_length=4096, description="A .safetensors file with a .json beside it.")
    uri: str | None = Field(None, pattern=r"^sha256:[0-9a-f]{64}$", description="Of a file that was uploaded.")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="What the file at path must be.")
    about: dict[str, Any] | None = Field(None, description="The checkpoint's JSON; needed with uri.")


class JobRequest(_Request):
    """Work to be done; the same work is done once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"task": "analyze", "target": "c-0a1b2c3d", "choices": {"basis": "local"}, "priority": 5}]
        },
    )

    task: Task
    target: str = Field(
        max_length=500, description="A checkpoint; partition: a graph; experiment: a partition; track: a model."
    )
    choices: Choices = Field(default_factory=dict)
    queue: Queue = "default"
    priority: Priority = 0
    timeout: Timeout = None


class ScheduleRequest(_Request):
    """Work to be asked for at times, or for every new checkpoint of a model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"task": "llc", "model": "run", "choices": {"epsilon": 0.01}},
                {"task": "track", "model": "run", "cron": "0 2 * * *"},
            ]
        },
    )

    task: Task
    model: str = Field(min_length=1, max_length=200)
    cron: str | None = Field(None, max_length=200, description="As in crontab, UTC; without: every new checkpoint.")
    folder: str | None = Field(None, max_length=4096, description="Watched for new checkpoints.")
    choices: Choices = Field(default_factory=dict)
    queue: Queue = "default"
    priority: Priority = 0
    timeout: Timeout = None


class TokenRequest(_Request):
    """A token to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "training cluster", "scope": "submit"}]})

    name: str = Field(min_length=1, max_length=200)
    scope: Scope = "read"


class CollectRequest(_Request):
    """Files that belong to nothing are to be removed."""

    grace: float = Field(
        86_400.0, ge=0, le=1e10, description="Seconds that a file must be old; jobs write files before rows."
    )


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class Readiness(BaseModel):
    """The database answers, and who is there to work."""

    status: Literal["ok"] = "ok"
    schema_revision: str
    workers: int
    jobs: dict[str, int]
