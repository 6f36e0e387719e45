"""The API keeps to its OpenAPI document: schemathesis tries every operation with all of its checks on."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
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
        schema = schemathesis.openapi.from_dict(app.openapi(), config=SchemathesisConfig.from_dict(config))
        schema.app = app
        schema = schema.include(path_regex=paths) if paths else schema
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


VERDICTS = {
    "PartitionRow": {"supported", "one module", "not told apart from chance", "untested"},
    "LlcRow": {"reliable", "doubtful", "failed"},
    "ExperimentRow": {"supported", "not told apart from chance", "refuted"},
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with Store.open(str(tmp_path_factory.mktemp("empty") / "store.sqlite")) as store:
        return create_app(store).openapi()


def test_verdicts_of_examples_exist(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, verdicts in VERDICTS.items():
        assert set(schemas[name]["properties"]["verdict"]["examples"]) <= verdicts, name


def test_every_field_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        for field, described in schema.get("properties", {}).items():
            whole = {**described, "components": document["components"]}
            assert described.get("examples"), f"{name}.{field} has no example"
            for example in described["examples"]:
                jsonschema_rs.validate(whole, example)


def test_every_parameter_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    seen = set()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for described in operation.get("parameters", ()):
                assert "example" in described, (path, described["name"])
                jsonschema_rs.validate(described["schema"], described["example"])
                seen.add(described["name"])
    assert seen > {"ref", "cursor", "limit", "epsilon", "format", "last-event-id", "cut"}


def test_document_is_kept_to_with_a_token(fuzz: Fuzz, filled: Store) -> None:
    made, failed = fuzz(3, "examples", "coverage", "fuzzing", token=filled.new_token("fuzz", "admin").token)
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


def test_document_is_kept_to_by_exports(
    fuzz: Fuzz, filled: Store, export_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every format, written in this process instead of one each."""
    monkeypatch.setattr(files, "export", export_here)
    token = filled.new_token("fuzz", "admin").token
    made, failed = fuzz(10, "coverage", "fuzzing", token=token, named=True, paths="/export$")
    assert not failed, "\n\n".join(failed)
    assert made["200"] > 10
