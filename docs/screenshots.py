"""Take the pictures of the page, of a store that `interbasis demo` and a few commands have filled.

export INTERBASIS_STORE=demo.sqlite
interbasis demo && interbasis track two-digits && interbasis describe two-digits@last
interbasis experiment two-digits@last --kind isolate --kind modules --kind faithfulness
python docs/screenshots.py demo.sqlite                  writes docs/page*.png
python docs/screenshots.py demo.sqlite --all FOLDER     every view, at both widths, light and dark
"""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from interbasis.service.client import Client

DOCS = Path(__file__).parent
PICTURES = {"nodes": "page.png"} | {name: f"page-{name}.png" for name in ("cards", "evidence", "jobs", "training")}
SIZES = {"wide": {"width": 1280, "height": 820}, "narrow": {"width": 390, "height": 844}}
COLOURS = 128  # of a picture in the documentation, which makes it a third as large


@contextmanager
def served(store: str) -> Iterator[str]:
    """The URL of a service of the store."""
    serve = ["serve", "--port", "0", "--workers", "0", "--store", store]
    command = [sys.executable, "-m", "interbasis.service.cli", *serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield next(
                found.group(1) for line in process.stdout or () if (found := re.search(r" at (http://\S+)", line))
            )
        finally:
            process.terminate()


def views(url: str) -> dict[str, str]:
    """Addresses of every view, of the newest supported division of the demo, and of one of an imported graph."""
    with Client(url) as client:
        partition = client.partitions(model="two-digits", verdict="supported", newest_first=True, limit=1).items[0]
        imported = [row.name for row in client.models(limit=1000).items if row.family == "graph"]
        theirs = [row for name in imported for row in client.partitions(model=name, newest_first=True, limit=1).items]
    graph, modules = f"#/graph/{partition.id}", f"#/modules/{partition.id}"
    found = {"models": "", "division": graph, "module": f"{graph}?module=0", "nodes": f"{graph}?all=1"}
    found |= {"cards": modules, "card": f"{modules}?module=0", "training": f"#/training/{partition.run}"}
    found |= {"evidence": f"#/evidence/{partition.id}", "jobs": f"#/jobs?task=partition&target={partition.graph}"}
    return found | ({"imported": f"#/graph/{theirs[0].id}?all=1"} if theirs else {})


def main(store: str, folder: Path | None) -> None:
    """Write the pictures."""
    options: dict[str, Any] = {
        "executable_path": shutil.which("chromium"),
        "args": ["--no-sandbox", "--enable-unsafe-swiftshader"],
    }
    with served(store) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        for (size, viewport), scheme in product(SIZES.items(), ("light", "dark")):
            page = browser.new_page(viewport=viewport, color_scheme=scheme)
            for name, address in views(url).items():
                page.goto(f"{url}/{address}")
                page.locator("[aria-busy]").wait_for(state="detached")
                page.get_by_text("Loading …").first.wait_for(state="detached")
                page.wait_for_timeout(1500)
                if folder is not None:
                    page.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=True)
                elif name in PICTURES and (size, scheme) == ("wide", "light"):
                    write_small(page.screenshot(), DOCS / PICTURES[name])
            page.close()
        browser.close()


def write_small(picture: bytes, path: Path) -> None:
    """Write a PNG with few colours."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[3]) if len(sys.argv) > 3 else None)
