"""The view of evidence: experiments with controls, worst cut and verdict, comparisons, downloads; what is missing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from cases_page import HOSTILE, NARROW, WIDE, Open, Service, sound
from cases_store import provenance, save_experiment
from playwright.sync_api import expect
from safetensors.numpy import load_file

from interbasis.analysis.circuits.experiments import ExperimentRecipe
from interbasis.analysis.recipe import PartitionRecipe
from interbasis.service.records.estimates import LLC, LlcValues
from interbasis.service.store.store import Store
from interbasis.service.tasks.experiments import experiment
from interbasis.service.tasks.partitions import divide
from interbasis.service.tasks.tracking import compare


@pytest.fixture(scope="module")
def filled(service: Service) -> tuple[Service, str]:
    """The service with experiments, a comparison and coefficients of modules; and another partition, with nothing."""
    with Store.open(service.store) as store:
        for kind in ("isolate", "modules", "faithfulness", "bisect", "predict"):
            recipe = ExperimentRecipe(kind=kind, draws=2, adversarial=(1, 2) if kind == "isolate" else None)  # type: ignore[arg-type]
            experiment(store, service.partition, recipe, data=Path(service.store).parent / "x.npz")
        graph = store.get_graph(service.graph)
        other = divide(store, graph, PartitionRecipe(objective="kway", k=2, nulls=4, resolution=1.0, seed=7)).id
        compare(store, service.partition, {"other": other, "permutations": 19})
        _save_coefficients(store, service.partition)
        classes = {"whole_classes": [[1.0, 0.75]], "classes": [[[[0.25, 0.75]], [[1.0, None]]], [[[1.0, 0.75]]] * 2]}
        row = next(row for row in store.experiments(partition=service.partition).items if row.experiment == "modules")
        summary = {**row.summary, **classes}  # as of a network with two classes
        save_experiment(
            *(store, service.partition),
            **{
                "experiment": "modules",
                "metric": "accuracy",
                "summary": summary,
                "verdict": "refuted",
                "reason": HOSTILE,
            },
        )
    return service, other


def _save_coefficients(store: Store, ref: str) -> None:
    partition = store.get_partition(ref)
    numbers = {"value": 4.5, "standard_error": 0.25, "lower": 4.0, "upper": 5.0, "epsilon": 1e-3, "temperature": 550.0}
    point = {**numbers, "n_effective": 9.0, "n_parameters": 26, "verdict": "reliable", "kind": "module"}
    points = ({**point, "part": "whole", "module": None}, {**point, "part": "module 0", "module": 0, "value": 2.25})
    other = {"mode": "modules", "loss": "mse", "n_parameters": 26, "n": 400, "verdict": "reliable", "reason": "mixed"}
    run = {"r_hat": 1.01, "ess": 400.0, "kernel": "hmc", "preconditioner": "gauss-newton", "points": points}
    dataset = store.get_graph(partition.graph).dataset
    how = replace(provenance(), recipe={"modules": partition.id})
    values = LlcValues(**numbers, **other, **run)  # type: ignore[arg-type]
    store.save(LLC, (partition.checkpoint, dataset), how, values, {"llc": b"llc"}, force=False)


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_evidence_is_shown_with_its_verdicts(
    filled: tuple[Service, str], visit: Open, size: dict[str, int], scheme: str
) -> None:
    service, other = filled
    page = visit(f"{service.url}#/graph/{service.partition}", viewport=size, color_scheme=scheme)
    page.get_by_role("link", name="Evidence and downloads").click()
    isolated = page.locator("section").filter(has=page.get_by_role("heading", name="Modules isolated"))
    expect(isolated.get_by_role("rowheader", name="worst cut")).to_be_visible()
    heads = isolated.get_by_role("region", name="isolate: mse").get_by_role("columnheader")
    expect(heads).to_have_text(["Network", "Ablated", "mse", "Random modules", "p", "Random edges", "p"])
    expect(isolated).to_contain_text("Weak edges are cut too")
    expect(isolated).to_contain_text(re.compile(r"Worst cut: \d+ edges kept in part.*after 2 steps"))
    expect(isolated.locator(".verdict")).to_contain_text(re.compile("supported|chance|refuted"))
    ablated = page.locator("section").filter(has=page.get_by_role("heading", name="Modules ablated")).first
    expect(ablated.locator(".verdict")).to_have_text(
        f"Do modules work by themselves? refuted: {HOSTILE}"
    )  # the newest of two
    classes = page.get_by_role("region", name="Accuracy by module and class").first
    expect(classes.get_by_role("row").nth(2)).to_contain_text(f"without module 0: {HOSTILE}0")
    expect(classes.locator("strong")).to_have_text(["0.25"])
    expect(page.get_by_role("group", name=re.compile("over shares of edges"))).to_be_visible()
    expect(page.get_by_role("region", name="Edges required")).to_be_visible()
    overlap = page.get_by_role("region", name=f"Shared nodes with {other}")
    expect(overlap.get_by_role("rowheader").first).to_have_text("module 0 here", timeout=60_000)
    parts = page.get_by_role("region", name=re.compile("Learning coefficients"))
    expect(parts.get_by_role("row").nth(2)).to_contain_text("2.25 (4 to 5)")
    expect(page.get_by_role("heading", name="Downloads")).to_be_visible()
    sound(page)
    page.get_by_role("link", name="The picture of this division").click()
    expect(page.get_by_role("link", name=f"module 0: {HOSTILE}0")).to_be_visible()


def test_what_is_not_stored_is_asked_for_and_exports_are_downloaded(
    filled: tuple[Service, str], visit: Open, tmp_path: Path
) -> None:
    service, other = filled
    page = visit(f"{service.url}#/evidence/{other}")
    expect(page.locator("pre", has_text=f"interbasis experiment {other} --kind isolate")).to_be_visible()
    with page.expect_download() as started:
        page.get_by_role("button", name="graphml").click()
    text = Path(started.value.path()).read_text()
    assert started.value.suggested_filename.endswith(".graphml")
    assert "<graphml" in text
    with page.expect_download() as started:
        page.get_by_role("button", name="masks").press("Enter")
    started.value.save_as(tmp_path / "masks.safetensors")
    assert load_file(tmp_path / "masks.safetensors")
    page.get_by_role("link", name="Ask the service for it").first.click()
    expect(page.get_by_label("Target")).to_have_value(other)
    expect(page.get_by_label("kind", exact=True)).to_contain_text("default: modules")
