"""Take the pictures of the page, of a store that `interbasis demo` has filled.

interbasis demo --store demo.sqlite && python docs/screenshots.py demo.sqlite          writes docs/page.png
python docs/screenshots.py demo.sqlite --all FOLDER     every view, at both widths, light and dark
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from interbasis.service.client import Client

PICTURE = Path(__file__).parent / "page.png"
SIZES = {"wide": {"width": 1280, "height": 820}, "narrow": {"width": 390, "height": 844}}


@contextmanager
def served(store: str) -> Iterator[str]:
    """The URL of a service of the store."""
    command = [
        sys.executable,
        "-m",
        "interbasis.service.cli",
        "serve",
        "--port",
        "0",
        "--workers",
        "0",
        "--store",
        store,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield next(
                found.group(1) for line in process.stdout or () if (found := re.search(r" at (http://\S+)", line))
            )
        finally:
            process.terminate()


def views(url: str) -> dict[str, str]:
    """Addresses of every view, of the newest supported division of the demo."""
    with Client(url) as client:
        partition = client.partitions(model="two-digits", verdict="supported", newest_first=True, limit=1).items[0].id
    graph = f"#/graph/{partition}"
    return {"models": "", "modules": graph, "module": f"{graph}?module=0", "nodes": f"{graph}?all=1"}


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
                page.wait_for_timeout(1500)
                if folder is not None:
                    page.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=True)
                elif (name, size, scheme) == ("nodes", "wide", "light"):
                    page.screenshot(path=PICTURE)
            page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[3]) if len(sys.argv) > 3 else None)
