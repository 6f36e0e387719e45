"""The API keeps to its OpenAPI document: schemathesis tries every operation with all of its checks on."""

import copy
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cases_examples
import pytest
import schemathesis
from cases_checkpoints import save_inputs, save_mlp
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from interbasis.analysis.circuits.experiments import ExperimentRecipe
from interbasis.analysis.recipe import LedgerRecipe, LlcRecipe
from interbasis.service.api import files, guard
from interbasis.service.api.app import create_app
from interbasis.service.api.guard import Limits
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task
from interbasis.service.tasks import estimates, experiments
from interbasis.service.tasks import tracking as tracking_task

Fuzz = Callable[..., tuple[Counter[str], list[str]]]

CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
}
"""Those that something in the document gives work to; all are on."""

# a reference, a time or a choice may be well formed and name nothing; what was made before may stand in the way
ACCEPTED = ["2xx", "304", "401", "403", "404", "409", "422"]
KINDS = (
    "model",
    "checkpoint",
    "dataset",
    "graph",
    "partition",
    "ledger",
    "llc",
    "experiment",
    "tracking",
    "job",
    "schedule",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints and a store that has something of every kind."""
    folder = tmp_path_factory.mktemp("filled")
    data = save_inputs(folder / "x.npz")
    with Store.open(str(folder / "store" / "store.sqlite")) as store:
        for step in (1, 2):
            path = save_mlp(folder / f"{step}.safetensors", seed=step, step=step, model="run")
            graph = analyze_task.analyze(store, path, {}, data=data).graph
            store.submit("ledger", path, {"data": data, "seed": step})
            store.cancel_job(store.submit("partition", graph.id, {"k": 2}).id)
        estimates.ledger(store, path, LedgerRecipe(), data=data)
        estimates.llc(store, path, LlcRecipe(temperature=1000.0, draws=20, warmup=9), data=data)
        tracking_task.track(store, "run", {}, data=data)
        partition = store.partitions().items[0].id
        experiments.experiment(store, partition, ExperimentRecipe(draws=1), data=data)
        store.add_schedule("track", "run", cron="0 2 * * *")
        label = {"text": "<b>edge</b>", "author": "ada"}
        given = [NewLabel(module=0, **label), NewLabel(cut="layers.0", node=1, **label)]
        store.put_labels(PARTITION, partition, given)
    return folder


@pytest.fixture
def filled(prepared: Path, tmp_path: Path) -> Iterator[Store]:
    """A copy of that store."""
    shutil.copytree(prepared / "store", tmp_path / "store")
    with Store.open(str(tmp_path / "store" / "store.sqlite")) as store:
        yield store


def stored(store: Store) -> list[dict[str, Any]]:
    """Configuration that has requests name the first of each kind that is stored."""
    found = []
    for kind in KINDS:
        path = "llc" if kind == "llc" else f"{kind}s"
        parameters = {"path.ref": getattr(store, path if kind != "llc" else "llcs")().items[0].id}
        parameters |= {"path.other": parameters["path.ref"], "path.cut": "layers.0"} if kind == "partition" else {}
        parameters |= {"path.cut": "layers.0", "path.node": 1} if kind == "graph" else {}
        found.append({"include-path-regex": f"^/api/v1/{path}/", "parameters": parameters})
    return found


@pytest.fixture
def fuzz(filled: Store, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Fuzz:
    """Tries the application on the store; how often each check was made, and what failed."""
    monkeypatch.setattr(guard, "_FAILURES", 10**9)  # tokens are broken on purpose
    limits = Limits(roots=(prepared, Path(filled.location.file or "").parent), stream=0.2, upload=1 << 20)

    def run(examples: int, *phases: str, token: str | None = None, named: bool = False, paths: str = "") -> Any:
        config: dict[str, Any] = {"seed": 0, "base-url": "http://127.0.0.1", "continue-on-failure": True}
        config |= {"headers": {"Authorization": f"Bearer {token}"}} if token else {}
        config |= {"checks": {"enabled": True, "positive_data_acceptance": {"expected-statuses": ACCEPTED}}}
        config |= {"phases": {p: {"enabled": p in phases} for p in ("examples", "coverage", "fuzzing", "stateful")}}
        config |= {"generation": {"max-examples": examples, "no-shrink": True, "database": "none"}}
        if named:  # what replaces a reference hides that it was to be invalid
            config |= {"operations": stored(filled)}
            config["checks"]["negative_data_rejection"] = {"enabled": False}
        app = create_app(filled, limits)
        schema = schemathesis.openapi.from_dict(
            copy.deepcopy(app.openapi()), config=SchemathesisConfig.from_dict(config)
        )
        schema.app = app
        schema = schema.include(path_regex=paths) if paths else schema
        schema = schema.exclude(method="DELETE") if named else schema  # or nothing is left to read
        made: Counter[str] = Counter()  # by check, and by status
        failed = []
        for event in engine.from_schema(schema).execute():
            assert not isinstance(event, FatalError | NonFatalError), event
            if isinstance(event, ScenarioFinished):
                made["cases"] += len(event.recorder.interactions)
                for interaction in event.recorder.interactions.values():
                    if interaction.response is not None:
                        made[str(interaction.response.status_code)] += 1
                for check in (check for checks in event.recorder.checks.values() for check in checks):
                    made[check.name] += 1
                    if check.failure_info is not None:
                        info = check.failure_info
                        failed.append(f"{check.name}: {info.failure.title} {info.failure.message}\n{info.code_sample}")
        return made, failed

    return run


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with Store.open(str(tmp_path_factory.mktemp("empty") / "store.sqlite")) as store:
        return create_app(store).openapi()


def test_every_field_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    assert not [*cases_examples.faults_of_fields(document)]


def test_every_parameter_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    assert not [*cases_examples.faults_of_parameters(document)]
    operations = [operation for operations in document["paths"].values() for operation in operations.values()]
    seen = {parameter["name"] for operation in operations for parameter in operation.get("parameters", ())}
    assert seen > {"ref", "cursor", "limit", "epsilon", "format", "last-event-id", "cut"}


def test_example_of_a_ledger_adds_up(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["LedgerRow"]["properties"]
    row = {name: described["examples"][0] for name, described in fields.items()}
    causes = ("activations", "jacobians", "gating", "synchronised", "tied", "unexplained")
    assert row["nominal"] == sum(row[name] for name in causes) + row["effective"]
    assert row["lower"] <= row["effective"] <= row["upper"]


WRONG: dict[str, Any] = {
    "CheckReport.uncollected": ["unfinished file 3f/3f2a.tmp"],
    "CheckpointRequest.about": {"config": {}},
    "CheckpointRow.config": {"depth": 3},
    "CheckpointRow.family": "perceptron",
    "CheckpointRow.model": "m-1a2b3c4d@2500",
    "Comparison.first": "g-1a2b3c4d",
    "ExperimentRow.experiment": "remove",
    "ExperimentRow.metric": "bleu",
    "ExperimentRow.p_value": 1.5,
    "ExperimentRow.recipe": {"basis": "global"},
    "ExperimentRow.verdict": "reliable",
    "GraphRow.basis": "fourier",
    "GraphRow.created": "22 November 2026",
    "GraphRow.graph_sha256": "9f86d081",
    "GraphRow.id": "j-1a2b3c4d",
    "GraphRow.n_edges": -1,
    "GraphRow.strengths": "cosine",
    "GraphRow.widths": [48, -46, 25],
    "JobRequest.choices": {"output": "cells"},
    "JobRequest.task": "analyse",
    "JobRow.finished": "2026-11-22T08:30:00",
    "JobRow.results": [{"kind": "partition", "id": "g-1a2b3c4d"}],
    "JobRow.state": "done",
    "JobRow.step": "rotate",
    "JobRow.target": "two-digits@2500",
    "LabelRow.source": "people",
    "LedgerRow.layers": [{"title": "layers.0"}],
    "LedgerRow.method": "estimate",
    "LlcRow.kernel": "auto",
    "LlcRow.loss": "hinge",
    "LlcRow.mode": "surface",
    "LlcRow.points": [{"verdict": "good"}],
    "LlcRow.preconditioner": "adam",
    "LlcRow.verdict": "good",
    "NewToken.token": "ib_t-1a2b3c4d_...",
    "PartitionDetail.modules": [{"index": -1}],
    "PartitionRow.epsilon_source": "file",
    "PartitionRow.objective": "louvain",
    "PartitionRow.verdict": "good",
    "Problem.code": "gone",
    "Problem.errors": [{"loc": ["query", "limit"]}],
    "Readiness.jobs": {"waiting": 1},
    "Readiness.schema_revision": "0000",
    "ScheduleRow.cron": "daily",
    "ScheduleRow.task": "train",
    "Subgraph.edges": [{"earlier_cut": 1, "earlier": -3, "later_cut": 2, "later": 0, "strength": 0.82}],
    "TokenRequest.scope": "write",
    "TrackingDetail.steps": [{"graph": "c-1a2b3c4d"}],
    "TrackingRow.events": [{"kind": "growth", "at": 1, "earlier": [], "later": [1]}],
}


def test_examples_that_cannot_occur_are_found(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    schemas = changed["components"]["schemas"]
    found = {}  # in the order of the document
    for schema, described in schemas.items():
        for name, about in described.get("properties", {}).items():
            if (field := f"{schema}.{name}") in WRONG:
                about["examples"] = [WRONG[field]]
                found[field] = WRONG[field]
    assert found.keys() == WRONG.keys()
    for (field, value), fault in zip(found.items(), cases_examples.faults_of_fields(changed), strict=True):
        inside = field.split(".")[0] in ("PartitionDetail", "Subgraph", "TrackingDetail")
        assert inside or (fault.startswith(f"{field} ") and fault.endswith(f"{value!r}")), field


WRONG_PARAMETERS = [
    ("/graphs", "checkpoint", "g-1a2b3c4d"),
    ("/graphs/{ref}", "ref", "p-1a2b3c4d"),
    ("/graphs/{ref}/export", "format", "png"),
    ("/jobs", "cursor", "next"),
    ("/jobs", "state", "done"),
    ("/jobs", "limit", 5000),
    ("/models/{ref}", "ref", "g-1a2b3c4d"),
    ("/partitions/{ref}/compare/{other}", "other", "two-digits"),
    ("/partitions/{ref}/mediators", "cursor", "MSAz"),
    ("/partitions/{ref}/nodes", "cursor", "MCAxIDEgMw"),
    ("/files/{sha256}", "sha256", "9f86d081"),
]


def test_parameters_that_cannot_occur_are_found(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    for path, name, value in WRONG_PARAMETERS:
        (about,) = (each for each in changed["paths"][f"/api/v1{path}"]["get"]["parameters"] if each["name"] == name)
        about["example"] = value
    faults = [*cases_examples.faults_of_parameters(changed)]
    assert len(faults) == len(WRONG_PARAMETERS)
    for path, name, _ in WRONG_PARAMETERS:
        assert sum(fault.startswith(f"{path} {name} ") for fault in faults) == 1, (path, name)


def test_a_missing_example_or_rule_is_found(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    fields = changed["components"]["schemas"]["GraphRow"]["properties"]
    del fields["basis"]["examples"]
    fields["colour"] = {"type": "string", "examples": ["red"]}
    parameters = changed["paths"]["/api/v1/jobs"]["get"]["parameters"]
    del parameters[0]["example"]
    first, second = cases_examples.faults_of_fields(changed)
    assert (first, second.split(":")[0]) == ("GraphRow.basis has no example", "GraphRow.colour has no rule")
    assert [*cases_examples.faults_of_parameters(changed)] == ["/jobs state has no example"]


def test_every_rule_is_about_a_field(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    known = {name for schema in schemas.values() for name in schema.get("properties", ())}
    known |= {f"{name}.{field}" for name, schema in schemas.items() for field in schema.get("properties", ())}
    assert set(cases_examples.FIELDS) <= known


@pytest.mark.long
@pytest.mark.parametrize("paths", ["^(?!.*/export$)", "/export$"])
def test_document_is_kept_to_with_a_token(fuzz: Fuzz, filled: Store, paths: str) -> None:
    """Long: exports, half of all cases."""
    token = filled.new_token("fuzz", "admin").token
    made, failed = fuzz(2, "examples", "coverage", "fuzzing", token=token, paths=paths)
    print(made)
    assert not failed, "\n\n".join(failed)


def test_document_is_kept_to_where_references_name_something(
    fuzz: Fuzz, filled: Store, export_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answers hold when they hold something, exports left out: those that examples ask for are written here."""
    monkeypatch.setattr(files, "export", export_here)
    token = filled.new_token("fuzz", "admin").token
    made, failed = fuzz(2, "examples", "fuzzing", token=token, named=True, paths="^(?!.*/export$)")
    assert not failed, "\n\n".join(failed)
    assert made["200"] > 30


@pytest.mark.parametrize("phases", [("fuzzing",), pytest.param(("coverage",), marks=pytest.mark.long)], ids=str)
def test_document_is_kept_to_by_exports(
    fuzz: Fuzz, filled: Store, export_here: Any, monkeypatch: pytest.MonkeyPatch, phases: tuple[str, ...]
) -> None:
    """In every format, written in this process instead of one each."""
    monkeypatch.setattr(files, "export", export_here)
    token = filled.new_token("fuzz", "admin").token
    made, failed = fuzz(4, *phases, token=token, named=True, paths="/export$")
    assert not failed, "\n\n".join(failed)
    assert made["200"] > 10
