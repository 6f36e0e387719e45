"""How fast the page is over a large stored graph: 20,000 nodes, 10^7 edges, 40 modules.

python benchmarks/page.py        prints a table of the times; needs Chromium and playwright
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse
from playwright.sync_api import Page, sync_playwright

from interbasis.analysis import InteractionGraph
from interbasis.service.records.base import Provenance
from interbasis.service.records.graphs import GraphValues
from interbasis.service.records.partitions import LinkRow, ModuleRow, PartitionValues
from interbasis.service.store.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from screenshots import served

CUTS, WIDTH, EDGES, MODULES = 5, 4000, 2_500_000, 40  # edges of each pair of adjacent cuts
FRAMES = """() => new Promise(done => {
  const times = [], canvas = document.querySelector('.canvas');
  let before = performance.now();
  const tick = now => {
    times.push(now - before);
    before = now;
    const key = times.length % 2 ? 'ArrowLeft' : 'ArrowRight';
    canvas.dispatchEvent(new KeyboardEvent('keydown', {key}));
    times.length < 60 ? requestAnimationFrame(tick) : done(times.slice(5));
  };
  requestAnimationFrame(tick);
})"""


def fill(store: Store) -> str:
    """Store the graph and its division; return the ID of the division."""
    random = np.random.default_rng(0)
    blocks = []
    for _ in range(CUTS - 1):
        row, column = random.integers(0, WIDTH, (2, EDGES))
        kept = random.random(EDGES) < np.where(row % MODULES == column % MODULES, 1.0, 0.999)
        values = random.lognormal(size=EDGES) * np.where(row % MODULES == column % MODULES, 4.0, 1.0)
        blocks.append(scipy.sparse.csr_array((values[kept], (row[kept], column[kept])), shape=(WIDTH, WIDTH)))
    graph = InteractionGraph.from_blocks(blocks)
    cuts, sizes = tuple(f"layers.{i}" for i in range(CUTS)), (WIDTH // MODULES,) * CUTS
    store.register_model("large", "mlp", {})
    checkpoint = store.add_checkpoint("large", sha256="1" * 64, step=1, label=None, path="/large.safetensors").id
    about = Provenance(recipe={}, recipe_hash="2" * 64, code_version="0", seed=0, wall_time=1.0)
    counts = {"n_nodes": CUTS * WIDTH, "n_edges": sum(block.nnz for block in blocks)}
    values = GraphValues(cuts=cuts, widths=(WIDTH,) * CUTS, basis="global", strengths="jacobian", **counts)
    blobs = {"graph": graph.to_bytes(), "bases": b""}
    data = store.add_dataset("3" * 64, "none").id
    row = store.save_graph(checkpoint, data, provenance=about, values=values, blobs=blobs)
    numbers = {"edge_cost": 1.0, "mediator_cost": 1.0, "normalised_cost": 1.0, "quality": 0.5, "contrast": 0.9}
    found = PartitionValues(
        n_modules=MODULES, objective="layered_modularity", resolution=1.0, epsilon=1.0, verdict="supported", **numbers
    )
    each = {"size": sum(sizes), "cuts": cuts, "sizes": sizes, "inner_cost": 1.0, "outer_cost": 1.0}
    pairs = [(a, b) for a in range(MODULES) for b in range(MODULES) if a != b]
    made = store.save_partition(
        row.id,
        provenance=about,
        values=found,
        modules=[ModuleRow(index=m, **each) for m in range(MODULES)],
        links=[LinkRow(earlier=a, later=b, n_edges=1, edge_cost=1.0 + a, mediator_cost=1.0) for a, b in pairs],
        labels=[[i % MODULES for i in range(WIDTH)]] * CUTS,
        importance=[random.lognormal(size=WIDTH).tolist() for _ in range(CUTS)],
        confidence=[[1.0] * WIDTH] * CUTS,
        mediators=[],
        blobs={"partition": b""},
    )
    return made.id


def timed(act: Callable[[], object]) -> float:
    """Seconds that something takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def opened(page: Page, address: str, status: str) -> float:
    """Seconds from asking for an address to the picture with its status."""

    def act() -> None:
        page.goto(address)
        page.locator(".small[role=status]", has_text=status).wait_for()
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    return timed(act)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        with Store.open(f"{folder}/store.sqlite") as store:
            partition = fill(store)
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox", "--enable-unsafe-swiftshader"]}
        with served(f"{folder}/store.sqlite") as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(**options)
            rows: dict[str, list[float]] = {}
            for _ in range(3):
                page = browser.new_page(viewport={"width": 1280, "height": 860})
                view = f"{url}/#/graph/{partition}"
                rows.setdefault("first view, modules", []).append(opened(page, view, "40 modules"))
                paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
                rows.setdefault("first contentful paint", []).append(page.evaluate(paint) / 1000)
                rows.setdefault("a module, 500 nodes", []).append(opened(page, f"{view}?module=3", "500 of 500"))
                rows.setdefault("a frame of it", []).append(statistics.median(page.evaluate(FRAMES)) / 1000)
                rows.setdefault("all nodes, 2,000 of 20,000", []).append(opened(page, f"{view}?all=1", "2,000 of"))
                rows.setdefault("a frame of them", []).append(statistics.median(page.evaluate(FRAMES)) / 1000)
                print(json.dumps(page.locator(".small[role=status]").inner_text()), file=sys.stderr)
                page.close()
            browser.close()
    print("| what | median of 3, seconds | largest |\n| --- | --- | --- |")
    for name, seconds in rows.items():
        print(f"| {name} | {statistics.median(seconds):.3f} | {max(seconds):.3f} |")


if __name__ == "__main__":
    main()
