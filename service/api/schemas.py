"""Schemas of requests, lists and errors, for validation and for the OpenAPI document.

Answers are records of the room `records`; FastAPI documents their fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ..records import jobs, labels
from ..records.base import Sha256OrNone, UriOrNone, Version
from ..records.checkpoints import About, CheckpointPath, ModelName
from ..records.partitions import PartitionId
from ..storage.tables import SCHEMA_REVISION

__all__ = [
    "CheckpointRequest",
    "CollectRequest",
    "ComparisonRequest",
    "ExportFormat",
    "GraphFormat",
    "Health",
    "ImportFormat",
    "JobRequest",
    "LabelRequest",
    "LabelsRequest",
    "Listing",
    "Problem",
    "Readiness",
    "RelocateRequest",
    "RenameRequest",
    "ScheduleRequest",
    "Scope",
    "State",
    "Task",
    "TokenRequest",
]

ItemT = TypeVar("ItemT")

Task = Literal["analyze", "partition", "ledger", "llc", "experiment", "describe", "compare", "track", "import"]

GraphFormat = Literal[
    "graphml", "gexf", "node-link", "circuit-tracer", "safetensors", "eap", "autocircuit", "components"
]

ImportFormat = Literal["circuit-tracer", "node-link", "graphml", "gexf", "csv", "parquet", "safetensors"]

ExportFormat = Literal[GraphFormat, "masks"]

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]

Scope = Literal["read", "submit", "admin"]

Queue = Annotated[
    jobs.Queue, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$", description="Only workers of this queue take the job.")
]

Priority = Annotated[jobs.Priority, Field(ge=-1000, le=1000, description="Jobs with smaller numbers go first.")]

Timeout = Annotated[jobs.Timeout, Field(gt=0, allow_inf_nan=False, description="Seconds until a run is stopped.")]

Choices = Annotated[
    dict[str, Any],
    Field(
        description="Fields of the task's recipe; `data`: a path the service may read, or the `sha256:...` of an "
        "upload; `force`: compute stored results again.",
        examples=[{"output": "neuron"}],
    ),
]


class Listing(BaseModel, Generic[ItemT]):
    """Part of a list; pass `next_cursor` as `cursor` to get the next part."""

    items: list[ItemT] = Field(examples=[[]])
    next_cursor: str | None = Field(None, examples=[None])
    total: int | None = Field(None, description="Number of items in the whole list, where counted.", examples=[240])


class Problem(BaseModel):
    """An error, as in RFC 9457; `code` names it for programs, `detail` tells people what to do."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    code: str = Field(examples=["not-found"])
    detail: str = Field(examples=["no graph 'g-0000' in the store: list them with `interbasis ls graphs`"])
    request_id: str | None = Field(None, examples=["9f86d081884c7d65"])
    errors: list[dict[str, Any]] | None = Field(
        None, examples=[[{"where": "query.limit", "what": "limit is '5000', expected at most 1000"}]]
    )


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # not strict, `true` is the number 1


class CheckpointRequest(_Request):
    """Register a checkpoint: a path that the service may read, or an upload."""

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

    path: CheckpointPath = Field(None, max_length=4096, description="A .safetensors file with a .json beside it.")
    uri: UriOrNone = Field(None, pattern=r"^sha256:[0-9a-f]{64}$", description="The uri of an uploaded file.")
    sha256: Sha256OrNone = Field(None, pattern=r"^[0-9a-f]{64}$", description="Required hash of the file at path.")
    about: About = Field(None, description="The checkpoint's JSON; required with uri.")
    after_run: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="A new checkpoint that names no run joins only one with a larger number.",
        examples=[0],
    )


class RelocateRequest(_Request):
    """Say where the file of a checkpoint is now: a path that the service may read, or an upload."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "/data/moved/step500.safetensors"}]})

    path: CheckpointPath = Field(None, max_length=4096, description="The .safetensors file.")
    uri: UriOrNone = Field(None, pattern=r"^sha256:[0-9a-f]{64}$", description="The uri of an uploaded file.")


class RenameRequest(_Request):
    """Give a model another name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "two-digits-wide"}]})

    name: ModelName = Field(min_length=1, max_length=200)


class JobRequest(_Request):
    """Submit a job; the same work is done once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"task": "analyze", "target": "c-0a1b2c3d", "choices": {"basis": "local"}, "priority": 5}]
        },
    )

    task: Task = Field(examples=["analyze"])
    target: str = Field(
        max_length=500,
        examples=["two-digits@2500"],
        description="The checkpoint; for partition a graph, for experiment, describe and compare a "
        "partition, for track a run or model, for import the `sha256:...` of an upload.",
    )
    choices: Choices = Field(default_factory=dict)
    queue: Queue = "default"
    priority: Priority = 0
    timeout: Timeout = None


class ComparisonRequest(_Request):
    """Compare a partition with another one, or with the division that `labels` say: exactly one of both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"partition": "p-1a2b3c4d", "other": "p-5e6f7a8b"},
                {"partition": "p-1a2b3c4d", "labels": {"layers.0/3": "left", "layers.0/4": ["left", "right"]}},
            ]
        },
    )

    partition: PartitionId = Field(max_length=500)
    other: str | None = Field(None, max_length=500, description="Another partition.", examples=["p-5e6f7a8b"])
    labels: dict[str, Any] | None = Field(
        None,
        description="The module of each node, of a node in several a list of names.",
        examples=[{"layers.0/3": "left"}],
    )
    name: str | None = Field(None, max_length=200, description="A name for the labels.", examples=["clusters.csv"])
    permutations: int = Field(1000, ge=1, le=10**6, examples=[1000])
    seed: int = Field(0, ge=0, lt=2**63, examples=[0])
    align: bool = Field(True, description="Match nodes of different checkpoints by their values.", examples=[True])


class ScheduleRequest(_Request):
    """Add a schedule, which submits jobs at set times or for each new checkpoint of a model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"task": "llc", "model": "run", "choices": {"epsilon": 0.01}},
                {"task": "track", "model": "run", "cron": "0 2 * * *"},
            ]
        },
    )

    task: Task = Field(examples=["analyze"])
    model: ModelName = Field(min_length=1, max_length=200)
    cron: jobs.Cron = Field(None, max_length=200, description="Times as in crontab, UTC; default: each new checkpoint.")
    folder: jobs.Folder = Field(None, max_length=4096, description="Folder to watch for new checkpoints.")
    choices: Choices = Field(default_factory=dict)
    queue: Queue = "default"
    priority: Priority = 0
    timeout: Timeout = None


class TokenRequest(_Request):
    """Make a token."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "training cluster", "scope": "submit"}]})

    name: jobs.TokenName = Field(min_length=1, max_length=200)
    scope: Scope = Field("read", examples=["submit"])


class LabelRequest(_Request):
    """A label of a node, by `cut` and `node`, or of a `module`."""

    text: labels.Text = Field(min_length=1, max_length=labels.LONGEST_LABEL, description="One line, kept as it is.")
    author: labels.Author = Field(min_length=1, max_length=200, description="Who gave it.")
    cut: labels.Cut = Field(None, max_length=500, description="Name or index of a cut.")
    node: labels.Coordinate = Field(None, ge=0, lt=2**31)
    module: labels.ModuleIndex = Field(None, ge=0, lt=2**31)
    source: labels.LabelSource = Field("human", max_length=120, description="human, import or command:NAME")
    confidence: labels.Confidence = Field(None, ge=0, le=1, allow_inf_nan=False)
    origin: labels.Origin = Field(None, max_length=500, description="Where it was before it was moved here.")
    overlap: labels.Overlap = Field(None, ge=0, le=1, allow_inf_nan=False)


class LabelsRequest(_Request):
    """Store labels, at most one of each node or module and source."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"labels": [{"text": "curved strokes", "author": "ada", "cut": "layers.0", "node": 3}]}]
        },
    )

    labels: list[LabelRequest] = Field(
        min_length=1, max_length=1000, examples=[[{"text": "left digit", "author": "ada", "module": 0}]]
    )


class CollectRequest(_Request):
    """Remove unused files."""

    grace: float = Field(
        86_400.0,
        ge=0,
        le=1e10,
        description="Least age of a file, in seconds; jobs write files before rows.",
        examples=[86_400.0],
    )


class Health(BaseModel):
    """The process is alive."""

    status: Annotated[Literal["ok"], Field(examples=["ok"])] = "ok"
    version: Version


class Readiness(BaseModel):
    """The database answers; the number of workers and of jobs in each state."""

    status: Annotated[Literal["ok"], Field(examples=["ok"])] = "ok"
    schema_revision: str = Field(examples=[SCHEMA_REVISION])
    workers: int = Field(examples=[2])
    jobs: dict[str, int] = Field(examples=[{"queued": 2, "running": 1, "succeeded": 40, "failed": 0, "cancelled": 0}])
