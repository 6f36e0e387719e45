"""The page in a real browser, Chromium without a window, over a real service with a worker."""

import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from cases_checkpoints import save_inputs, save_mlp
from cases_store import save_ledger, save_llc
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task

HOSTILE = "<img src=x onerror=alert(1)>"
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    found = next(filter(None, (os.environ.get("INTERBASIS_CHROMIUM"), *map(shutil.which, NAMES))), None)
    if found is None:
        warnings.simplefilter("always")
        warnings.warn("no Chromium: tests of the page are SKIPPED", stacklevel=1)
        pytest.skip("no Chromium: install Debian's package `chromium`, or name one in INTERBASIS_CHROMIUM")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--enable-unsafe-swiftshader"]  # a machine without a GPU, and root
        opened = playwright.chromium.launch(executable_path=found, args=options)
        yield opened
        opened.close()


@dataclass(frozen=True)
class Service:
    """A running service and what is stored there."""

    url: str
    store: str
    partition: str = ""
    graph: str = ""


def _serve(store: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
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


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two networks side by side, analysed at two steps; every name that people give is hostile."""
    folder = tmp_path_factory.mktemp("page")
    data = save_inputs(folder / "x.npz", 8)
    with Store.open(str(folder / "store.sqlite")) as store:
        for step in (1, 2):
            about = {"seed": 2 - step, "step": step, "model": HOSTILE, "label": HOSTILE, "blocks": 2}
            path = save_mlp(folder / f"{step}.safetensors", **about)
            made = analyze_task.analyze(store, path, {"output": "neuron"}, data=data)
        labels = [
            NewLabel(text=f"{HOSTILE}0", author=HOSTILE, module=0),
            NewLabel(text=f"{HOSTILE}n", author=HOSTILE, cut=made.graph.cuts[1], node=0),
        ]
        store.put_labels(PARTITION, made.partition.id, labels)
        save_llc(store)
        save_ledger(store)
    process, url = _serve(folder / "store.sqlite")
    yield Service(url, str(folder / "store.sqlite"), made.partition.id, made.graph.id)
    _stop(process)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Open an address in a window of its own; there is no error and no request to another host, then or later."""
    seen: list[str] = []
    contexts = []

    def begin(url: str, *, refused: bool = False, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options})
        contexts.append(context)
        page = context.new_page()
        host = urlsplit(url).netloc

        def console(message: ConsoleMessage) -> None:
            known = refused and "401" in message.text  # the browser itself says so of an answer
            if message.type == "error" and not known:
                seen.append(f"console: {message.text}")

        page.on("console", console)
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("dialog", lambda dialog: seen.append(f"a script ran: {dialog.message}"))
        page.on("request", lambda request: urlsplit(request.url).netloc in (host, "") or seen.append(request.url))
        page.goto(url)
        return page

    yield begin
    for context in contexts:
        context.close()
    assert not seen


def _sound(page: Page) -> None:
    """Nothing is wider than the page, nothing of a name became an element, and axe finds nothing serious."""
    width = page.viewport_size["width"] if page.viewport_size else 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").count() == 0
    violations = Axe().run(page).response["violations"]
    found = [
        f"{each['id']}: {each['nodes'][0]['html']}" for each in violations if each["impact"] in ("serious", "critical")
    ]
    assert not found


def test_an_empty_store_says_what_to_do(tmp_path: Path, visit: Open) -> None:
    process, url = _serve(tmp_path / "store.sqlite", "--workers", "0")
    page = visit(url)
    for command in ("interbasis demo", "interbasis analyze", "interbasis import"):
        expect(page.locator("pre", has_text=command)).to_be_visible()
    _sound(page)
    _stop(process)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_views_are_sound_at_every_width_and_in_both_schemes(
    service: Service, visit: Open, size: dict[str, int], scheme: str
) -> None:
    """Hostile names are shown as they are."""
    page = visit(service.url, viewport=size, color_scheme=scheme)
    expect(page.get_by_role("rowheader", name=HOSTILE).first).to_be_visible()
    _sound(page)
    page.goto(f"{service.url}#/graph/{service.partition}")
    expect(page.get_by_role("link", name=f"module 0: {HOSTILE}0")).to_be_visible()
    _sound(page)
    page.goto(f"{service.url}#/graph/{service.partition}?module=0&node=1/0")
    expect(page.get_by_role("heading", name=f"{HOSTILE}n")).to_be_visible()
    expect(page.get_by_text(f"{HOSTILE} (human)")).to_be_visible()
    _sound(page)


def test_a_walk_from_the_table_to_a_node_and_back(service: Service, visit: Open) -> None:
    page = visit(service.url)
    field = page.get_by_role("searchbox", name="Find a name or ID")
    field.fill(service.partition)
    field.press("Enter")
    expect(page).to_have_url(f"{service.url}/#/graph/{service.partition}")
    status = page.get_by_role("status").first
    expect(status).to_contain_text("2 modules")
    picture = page.get_by_role("group", name=re.compile("Picture of 2 modules"))
    box = picture.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 70 / 836 * box["width"], box["y"] + box["height"] / 2)  # the disc at the left
    expect(page).to_have_url(re.compile("module="))
    expect(status).to_contain_text(re.compile(r"^\d+ of \d+ nodes, \d+ of \d+ edges"))
    page.get_by_role("searchbox", name="Find a node").fill("/ 1")
    page.locator(".panel .list a").first.click()
    expect(page.get_by_role("heading", name=re.compile("Strongest of"))).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Nodes by importance")).to_be_visible()
    page.go_back()
    expect(status).to_contain_text("Click a module")


def test_the_threshold_is_in_the_address_and_can_be_sent(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/graph/{service.partition}?all=1")
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    everything = page.get_by_role("status").first.inner_text()
    slider.press("End")
    expect(page).to_have_url(re.compile(r"above=[\d.e-]+"))
    few = page.get_by_role("status").first.inner_text()
    assert [int(re.findall(r"(\d+) of (\d+) edges?", text)[0][0]) for text in (few, everything)] == sorted(
        int(re.findall(r"(\d+) of (\d+) edges?", text)[0][0]) for text in (few, everything)
    )
    assert few != everything
    other = visit(page.url)
    expect(other.get_by_role("status").first).to_have_text(few)


def test_another_division_is_requested_and_opened(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/graph/{service.partition}")
    page.get_by_text("Another division of this graph").click()
    page.get_by_label("Resolution").fill("2.5")
    page.get_by_role("button", name="Divide again").click()
    opened = page.get_by_role("link", name=re.compile("^open p-"))
    expect(opened).to_be_visible(timeout=120_000)
    opened.click()
    expect(page).not_to_have_url(re.compile(service.partition))
    choice = page.get_by_label("Division")
    expect(choice).to_contain_text("resolution 2.5")
    choice.select_option(service.partition)
    expect(page).to_have_url(f"{service.url}/#/graph/{service.partition}")


def test_with_a_token_set_nothing_is_shown_without_a_valid_one(tmp_path: Path, visit: Open) -> None:
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        store.register_model("secret-model", "mlp", {})
        given = store.new_token("page", "read").token
    process, url = _serve(tmp_path / "store.sqlite", "--workers", "0")
    page = visit(url, refused=True)
    field = page.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    _sound(page)
    field.fill("ib_wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown or revoked")
    assert "secret-model" not in page.content()
    page.get_by_label("Token", exact=True).fill(given)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    page.reload()  # the tab has kept it
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    page.goto(f"{url}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    assert given not in page.url
    _stop(process)


def test_the_api_is_described_without_another_host(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}/docs")
    expect(page.locator(".opblock-summary-path").first).to_be_visible()
    expect(page.get_by_text("/api/v1/partitions/{ref}/drawing")).to_be_visible()


def test_what_is_not_there_is_said(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/nowhere")
    expect(page.get_by_role("alert")).to_contain_text("no such page")
