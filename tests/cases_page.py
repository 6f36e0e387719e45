"""Pages in a browser: a service in a process of its own, and what must hold of every view."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

HOSTILE = "<img src=x onerror=alert(1)>"
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
Open = Callable[..., Page]

expect.set_options(timeout=30_000)  # a busy machine takes more than the five seconds of the default


@dataclass(frozen=True)
class Service:
    """A running service and what is stored there."""

    url: str
    store: str
    partition: str = ""
    graph: str = ""


def serve(store: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "interbasis.service.cli", "serve", "--port", "0", "--store", str(store), *options]
    log = store.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, text=True)
    deadline = time.monotonic() + 300
    while not (found := re.search(r" at (http://[^\s\"]+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, found.group(1)


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def sound(page: Page) -> None:
    """Nothing is wider than the page, nothing of a name became an element, and axe finds nothing serious."""
    width = page.viewport_size["width"] if page.viewport_size else 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").count() == 0
    violations = Axe().run(page).response["violations"]
    found = [
        f"{each['id']}: {each['nodes'][0]['html']}" for each in violations if each["impact"] in ("serious", "critical")
    ]
    assert not found


@contextmanager
def static(folder: Path) -> Iterator[str]:
    """The URL of a plain web server of a folder, as `python -m http.server` is one."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    class Patient(ThreadingHTTPServer):
        request_queue_size = 64  # a busy machine accepts late, and five are few for a browser

    with Patient(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
