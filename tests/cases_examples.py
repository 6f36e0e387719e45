"""Which examples of the OpenAPI document can occur: a rule for every field, its words taken from the code.

A field of text needs a rule of its own, if only that it may be any text; numbers have one by their type.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, cast

import jsonschema_rs
from cases_figures import coefficient_of, curve_of, layer_of
from croniter import croniter
from fastapi.exceptions import RequestValidationError

from interbasis.analysis import InteractionGraph
from interbasis.analysis.checkpoints.families import families
from interbasis.analysis.circuits.ablation import ModuleAblation
from interbasis.analysis.circuits.controls import CHANCE, REFUTED, SUPPORTED
from interbasis.analysis.comparison.comparison import AGREEMENTS, Match
from interbasis.analysis.errors import InputError
from interbasis.analysis.figures.coefficients import _VERDICTS as LLC_VERDICTS
from interbasis.analysis.figures.tracks import _EVENTS as EVENTS
from interbasis.analysis.graph.loss_scale import choose_epsilon
from interbasis.analysis.modules.partition import VERDICTS
from interbasis.analysis.modules.tracking import Event
from interbasis.analysis.network.cut_search import LeftOut
from interbasis.analysis.recipe import LlcRecipe
from interbasis.service.api.app import _invalid
from interbasis.service.api.guard import _CODES, _KNOWN_ID, _TOKEN
from interbasis.service.records.base import parse_moment
from interbasis.service.records.checkpoints import describe
from interbasis.service.records.choices import check_choices
from interbasis.service.records.errors import StoreError
from interbasis.service.records.jobs import ON_CHECKPOINTS, SCOPES, STATES, TASKS
from interbasis.service.records.kinds import KINDS
from interbasis.service.records.labels import check_source
from interbasis.service.storage.artifacts import _PARTIAL
from interbasis.service.storage.pages import _decode_cursor, _decode_key
from interbasis.service.storage.tables import LETTERS, SCHEMA_REVISION, TABLES
from interbasis.service.tasks.estimates import _layer, _llc_values
from interbasis.service.terminal.results import _EFFECTIVE as LEDGER_METHODS
from interbasis.service.terminal.results import _MATCHED
from interbasis.service.web.recipes import task_forms

Rule = Callable[[Any], Any]
"""Returns something false, or raises an error of `REFUSED`, for a value that cannot occur."""

REFUSED = (StoreError, InputError, ValueError, TypeError)


def any_text(value: str) -> bool:
    return bool(value.strip()) and value.isprintable()


def one_of(words: Any) -> Rule:
    known = list(words)
    return lambda value: value in known


def pattern(expression: str) -> Rule:
    return lambda value: re.fullmatch(expression, value)


def identifier(kind: str) -> Rule:
    """The letter of the kind and the start of a hash."""
    return pattern(f"{LETTERS[kind]}-[0-9a-f]{{8,64}}")


def named(kind: str) -> Rule:
    """An ID of the kind; a model also by its name, a run and a checkpoint by the model and more."""
    names = {"model": r"(?![a-z]-[0-9a-f]+$)[^@]+", "run": "[^@]+#[^@]+", "checkpoint": "[^@]+@[^@]+"}
    return lambda value: identifier(kind)(value) or re.fullmatch(names.get(kind, "$"), value)


def choice(task: str, name: str) -> Rule:
    """A word that a recipe may have, once nothing is left to choose."""
    needed = {"temperature": 1.0} if task == "llc" else {}
    return lambda value: value != "auto" and check_choices(task, {**needed, name: value}) is None


def choices(task: str) -> Rule:
    return lambda value: value and check_choices(task, value) is None


def keys(allowed: Any) -> Rule:
    known = set(allowed)
    return lambda value: value and value.keys() <= known


def moment(value: str) -> bool:
    """As records write times: ISO 8601 with the offset of UTC."""
    found = datetime.fromisoformat(value)
    return found.isoformat() == value and found.utcoffset() == timedelta(0)


def each(rule: Rule) -> Rule:
    return lambda values: all(rule(value) for value in values)


def both(*rules: Rule) -> Rule:
    return lambda value: all(rule(value) for rule in rules)


def cursor(decode: Callable[..., Any], *length: int) -> Rule:
    return lambda value: decode(value, *length)


def share(value: float) -> bool:
    return 0 <= value <= 1


POINT, CURVE = (
    _llc_values(estimate, LlcRecipe(temperature=1.0))
    for estimate in (coefficient_of(1.0, 0.1), curve_of(coefficient_of(1.0, 0.1)))
)
SCALED = InteractionGraph.from_blocks([[[3.0, 0.1], [0.2, 2.0]]])
INVALID = RequestValidationError([{"loc": ("query", "limit"), "msg": "too large", "type": "limit"}])
PROBLEM = json.loads(bytes(_invalid(cast(Any, None), INVALID).body))
EVENT = {field.name for field in fields(Event)}
CODES = {code for kind in (StoreError, *StoreError.__subclasses__()) for code in [kind.code]} | set(_CODES.values())

SHA256 = pattern("[0-9a-f]{64}")
WORDS = {"llc": one_of(LLC_VERDICTS), "experiment": one_of((SUPPORTED, CHANCE, REFUTED)), "partition": one_of(VERDICTS)}
WORDS |= {"comparison": one_of(AGREEMENTS)}
COMPUTED = {
    "graph": "analyze",
    "tracking": "track",
    "description": "describe",
    "comparison": "compare",
}  # other results by the task of the same name

FIELDS: dict[str, Rule] = {
    **{f"{kind.row.__name__}.recipe": choices(COMPUTED.get(name, name)) for name, kind in KINDS.items() if kind.values},
    **{f"{KINDS[name].row.__name__}.verdict": rule for name, rule in WORDS.items()},
    **{name: identifier(name) for name in ("checkpoint", "dataset", "graph", "partition")},
    "CardValues.content": keys(("variance", "importance")),
    "CardValues.cut": any_text,
    "CardValues.summary": any_text,
    **{f"{name}.other": identifier("partition") for name in ("ComparisonRow", "ComparisonRequest")},
    "ComparisonRequest.labels": lambda value: check_choices("compare", {"labels": value}) is None,
    "ComparisonRow.matched_by": one_of(_MATCHED),
    "ComparisonRow.matches": each(keys(f.name for f in fields(Match))),
    "DescriptionRow.modules": each(keys(("module", "size", "summary"))),
    "CheckReport.artifacts": each(any_text),
    "CheckReport.foreign_keys": each(any_text),
    "CheckReport.integrity": each(any_text),
    "CheckReport.schema": each(any_text),
    "CheckReport.uncollected": each(lambda line: _PARTIAL.fullmatch(line.split()[-1]) or SHA256(line.split()[-1])),
    "Collected.files": each(SHA256),
    "CheckpointRow.run": identifier("run"),
    **{f"{kind.row.__name__}.run": identifier("run") for kind in KINDS.values() if kind.values},
    "FoundRow.id": identifier("graph"),
    "FoundRow.kind": one_of((*KINDS, "job", "label")),
    "GraphRow.left_out": both(keys(LeftOut._fields), lambda value: each(each(any_text))(value.values())),
    "Comparison.first": identifier("partition"),
    "Comparison.second": identifier("partition"),
    "ExperimentRow.summary": keys(("rows", "inputs", "parts", *(f.name for f in fields(ModuleAblation)))),
    "JobRequest.target": named("checkpoint"),
    "JobRow.results": each(lambda made: made["kind"] in KINDS and identifier(made["kind"])(made["id"])),
    "JobRow.step": one_of(step for steps in TASKS.values() for step in steps),
    "JobRow.target": identifier("checkpoint"),
    "JobRow.target_name": named("checkpoint"),
    **{f"{name}.cut": any_text for name in ("LabelRequest", "LabelRow")},
    **{f"NodeRow.{name}": any_text for name in ("id", "type", "label")},
    **{f"{name}.source": lambda value: check_source(value) is None for name in ("LabelRequest", "LabelRow")},
    "LedgerRow.layers": each(keys(_layer(layer_of("", 1, 1, (0, 0, 0, 0))))),
    "LedgerRow.method": one_of(LEDGER_METHODS),
    "LlcRow.points": each(both(keys(POINT.points[0]), lambda point: WORDS["llc"](point["verdict"]))),
    "PartitionRow.remarks": each(any_text),
    "Problem.code": one_of(CODES),
    "Problem.errors": each(lambda error: error.keys() == PROBLEM["errors"][0].keys()),
    "Problem.status": lambda value: HTTPStatus(value) >= HTTPStatus.BAD_REQUEST,
    "Problem.title": one_of(status.phrase for status in HTTPStatus),
    "Problem.type": one_of([PROBLEM["type"]]),
    "Readiness.jobs": lambda value: value.keys() == set(STATES),
    "Readiness.schema_revision": one_of([SCHEMA_REVISION]),
    "Removal.along": keys((*(kind.plural for kind in KINDS.values()), "labels")),
    "Removal.id": identifier("run"),
    "Removal.kind": one_of(KINDS),
    "Removal.schedules": each(identifier("schedule")),
    "ScheduleRow.jobs": each(identifier("job")),
    "Supernode.title": any_text,
    "TaskForm.about": any_text,
    "TaskForm.choices": lambda value: value["properties"].keys() <= task_forms()[1].choices["properties"].keys(),
    "TaskForm.target": one_of(form.target for form in task_forms()),
    "TrackingRow.events": each(lambda event: event.keys() == EVENT and event["kind"] in EVENTS),
    "WorkerRow.id": pattern("(?![a-z]-[0-9a-f]+$).+"),
    "about": lambda value: describe(value, "x").keys() == {*value, "label"},
    "basis": choice("analyze", "basis"),
    "choices": choices("analyze"),
    "code_version": pattern(r"\d+\.\d+\.\d+"),
    "config": lambda value: families()["mlp"].build(value),
    "cron": croniter.is_valid,
    "cuts": each(any_text),
    "epsilon_source": one_of(
        [choose_epsilon(SCALED, given).source for given in ("graph", "pairs", 0.1, (0.1,))]
        + [choose_epsilon(SCALED, 0.1, seeds=("a", "b")).source]
    ),
    "experiment": choice("experiment", "kind"),
    "family": one_of(families()),
    "kernel": choice("llc", "kernel"),
    "loss": choice("llc", "loss"),
    "metric": choice("experiment", "metric"),
    "mode": one_of((POINT.mode, CURVE.mode)),
    "model": named("model"),
    "next_cursor": cursor(_decode_cursor),
    "objective": choice("analyze", "objective"),
    "output": choice("analyze", "output"),
    "preconditioner": choice("llc", "preconditioner"),
    "queue": pattern("[A-Za-z0-9_-]{1,80}"),
    "request_id": _KNOWN_ID.fullmatch,
    "scope": one_of(SCOPES),
    "sha256": SHA256,
    "state": one_of(STATES),
    "status": one_of(["ok"]),
    "strengths": choice("analyze", "strengths"),
    "task": one_of(TASKS),
    "token": lambda value: _TOKEN.fullmatch(value) and identifier("token")(value.split("_")[1]),
    "uri": pattern("sha256:[0-9a-f]{64}"),
    "Health.version": pattern(r"\d+\.\d+\.\d+"),
    **dict.fromkeys(("churn", "confidence", "fraction", "overlap", "p_value", "stability", "tolerance"), share),
    **dict.fromkeys(("description", "detail", "error", "folder", "host", "label", "message", "name"), any_text),
    **dict.fromkeys(("author", "origin", "path", "reason", "text", "warning", "worker"), any_text),
}
"""Rules by field, with the schema where the name is not enough; a schema has those of the schema it extends."""

BASES = {"NewToken": "TokenRow"} | {kind.detail.__name__: kind.row.__name__ for kind in KINDS.values()}
SIGNED = {"priority", "control", "description_length", "quality", "weight", "z"}  # other numbers are not below 0
TASK = "analyze"
assert TASK in ON_CHECKPOINTS  # jobs and choices of the examples are of it
OWN = {"JobRow": "job", "ScheduleRow": "schedule", "TokenRow": "token"}
OWN |= {kind.row.__name__: name for name, kind in KINDS.items()}

PARAMETERS: dict[str, Rule] = {
    **{name: named(name) for name in ("checkpoint", "dataset", "graph", "model", "partition", "run")},
    "/graphs/{ref}/labels cursor": cursor(_decode_key, 3),
    "/graphs/{ref}/cards cursor": cursor(_decode_key, 3),
    "/partitions/{ref}/cards cursor": cursor(_decode_key, 3),
    "/partitions/{ref}/labels cursor": cursor(_decode_key, 3),
    "/partitions/{ref}/mediators cursor": cursor(_decode_key, 4),
    "/partitions/{ref}/nodes cursor": cursor(_decode_key, 2),
    "author": any_text,
    "cursor": cursor(_decode_cursor),
    "cut": any_text,
    "/graphs/{ref}/subgraph cut": each(any_text),
    "last-event-id": str.isdecimal,
    "other": named("partition"),
    "sha256": SHA256,
    "since": parse_moment,
    "source": lambda value: check_source(value) is None,
    "state": one_of(STATES),
    "task": one_of(TASKS),
    "verdict": one_of(VERDICTS),
}


def rule_of(schema: str, field: str, described: Mapping[str, Any]) -> Rule | None:
    """The rule of a field, None where a field of text has none."""
    owner = BASES.get(schema, schema)
    found = FIELDS.get(f"{schema}.{field}") or FIELDS.get(f"{owner}.{field}")
    if found or (found := FIELDS.get(field)):
        return found
    if field == "id" and owner in OWN:
        return identifier(OWN[owner])
    if field.endswith(("_sha256", "_hash")):
        return SHA256
    branches = described.get("anyOf", [described])
    types = {branch.get("type") for branch in branches} | {branch.get("items", {}).get("type") for branch in branches}
    if any(branch.get("format") == "date-time" for branch in branches):
        return moment
    if types & {"string", "object"} or "additionalProperties" in described:
        return None
    if types & {"integer", "number"} and field not in SIGNED:
        return lambda value: all(number >= 0 for number in (value if isinstance(value, list) else [value]))
    return lambda value: True


def fits(rule: Rule, value: Any) -> bool:
    """Whether a value can occur; whether it may be None is the schema's to say."""
    try:
        return value is None or bool(rule(value))
    except REFUSED:
        return False


def faults_of_fields(document: Mapping[str, Any]) -> Iterator[str]:
    """Fields without an example, without a rule, or whose example cannot occur."""
    for schema, described in document["components"]["schemas"].items():
        for field, about in described.get("properties", {}).items():
            if not about.get("examples"):
                yield f"{schema}.{field} has no example"
            for example in about.get("examples", ()):
                yield from _faults(document, schema, field, example)
        for example in described.get("examples", ()):
            for field, value in example.items():
                yield from _faults(document, schema, field, value)


def _faults(document: Mapping[str, Any], schema: str, field: str, example: Any) -> Iterator[str]:
    about = document["components"]["schemas"][schema]["properties"][field]
    rule = rule_of(schema, field, about)
    part = about.get("items", {}).get("$ref", "").rpartition("/")[2]
    whole = {**about, "components": document["components"]} if part else about
    if not jsonschema_rs.is_valid(whole, example):
        yield f"{schema}.{field} is not of its type: {example!r}"
    elif part:
        for item in example:
            for name, value in item.items():
                yield from _faults(document, part, name, value)
    elif rule is None:
        yield f"{schema}.{field} has no rule: say in FIELDS which values it may have"
    elif not fits(rule, example):
        yield f"{schema}.{field} cannot be {example!r}"


def faults_of_parameters(document: Mapping[str, Any]) -> Iterator[str]:
    """Parameters without an example, or whose example cannot occur."""
    plural = {kind.plural: name for name, kind in KINDS.items()} | {f"{name}s": name for name in TABLES}
    for path, operations in document["paths"].items():
        route = path.removeprefix("/api/v1")
        for about in (about for operation in operations.values() for about in operation.get("parameters", ())):
            name, where = about["name"], f"{route} {about['name']}"
            rule = PARAMETERS.get(where) or PARAMETERS.get(name) or (lambda value: True)
            rule = named(plural[route.split("/")[1]]) if name == "ref" else rule
            if "example" not in about:
                yield f"{where} has no example"
            elif not jsonschema_rs.is_valid(about["schema"], about["example"]):
                yield f"{where} is not of its type: {about['example']!r}"
            elif not fits(rule, about["example"]):
                yield f"{where} cannot be {about['example']!r}"
