"""Shape types are checked in the whole test run; data that only the project's machines have is found here."""

import inspect
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import cache, wraps
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jaxtyping
import pytest
import torch
import typer.testing
import warm_python

if TYPE_CHECKING:
    from cases_page import Open
    from playwright.sync_api import Browser, ConsoleMessage, Page

if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)  # the workers of the test run share the cores, and so do the processes they start
    os.environ["OMP_NUM_THREADS"] = "1"

typer.testing._get_command = cache(typer.testing._get_command)  # type: ignore[attr-defined]  # takes longer than a run

_ROOT = Path(__file__).parents[1]
_CHECKED = [
    ".".join(("interbasis", *path.relative_to(_ROOT).with_suffix("").parts))
    for path in sorted((_ROOT / "analysis").rglob("*.py"))
    if path.stem != "__init__"
]
_FIRST = 2  # calls of a function in a test whose types and shapes are checked
_LATER = 64  # and further calls, at powers of two
_each = [False]  # whether all are, which takes three times as long
_calls: dict[CodeType, list[int]] = {}
_jaxtyped = jaxtyping.jaxtyped


def _checked_at_times(*, typechecker: Any) -> Callable[[Any], Any]:
    """`jaxtyped` for the first calls of a function in each test, and for the 64th, 128th, 256th, ..."""

    def decorate(function: Any) -> Any:
        if is_dataclass(function) and isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            return function
        if not inspect.isfunction(function):
            return _jaxtyped(function, typechecker=typechecker)
        calls = _calls.setdefault(function.__code__, [0])
        first = 1 if "<locals>" in function.__qualname__ else _FIRST  # which is made anew for each check
        checked: Any = None  # made when it is called: that takes a hundred times as long as a call

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal checked
            calls[0] = number = calls[0] + 1
            if number > first and not _each[0] and (number < _LATER or number & (number - 1)):
                return function(*args, **kwargs)
            if checked is None:
                checked = _jaxtyped(function, typechecker=typechecker)
            return checked(*args, **kwargs)

        return call

    return decorate


jaxtyping.jaxtyped = _checked_at_times  # type: ignore[assignment]  # what the hook puts before functions
_hook = jaxtyping.install_import_hook(_CHECKED, "beartype.beartype")


def pytest_runtest_setup() -> None:
    """Each test checks again."""
    for calls in _calls.values():
        calls[0] = 0


@pytest.fixture
def checks_of_each_call() -> Iterator[None]:
    """Types and shapes are checked at every call of a function, not at some."""
    _each[0] = True
    yield
    _each[0] = False


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with trained networks and reference results, named by INTERBASIS_TEST_DATA."""
    folder = os.environ.get("INTERBASIS_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        message = "INTERBASIS_TEST_DATA names no folder: tests on real trained networks are SKIPPED"
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    return Path(folder)


@pytest.fixture(scope="session")
def python() -> Iterator[str]:
    """A Python that has imported torch and interbasis, for programs that are to start at once."""
    with warm_python.started() as path:
        yield path


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """The system's Chromium, without a window."""
    from cases_page import NAMES
    from playwright.sync_api import sync_playwright

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


@pytest.fixture
def visit(browser: "Browser") -> Iterator["Open"]:
    """Open an address in a window of its own; there is no error and no request to another host, then or later."""
    from cases_page import WIDE

    seen: list[str] = []
    contexts = []

    def begin(url: str, *, refused: tuple[int, ...] = (), **options: Any) -> "Page":
        context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options})
        contexts.append(context)
        page = context.new_page()
        host = urlsplit(url).netloc

        def console(message: "ConsoleMessage") -> None:
            known = any(f"status of {code}" in message.text for code in refused)  # said by the browser itself
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


@pytest.fixture
def few_nulls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixing is compared with as many null graphs as there are draws, not with 39 at least."""
    monkeypatch.setattr("interbasis.analysis.circuits.mixing.NULLS", 1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no worker waits for them at the end."""
    items.sort(key=lambda item: item.path.stem not in ("test_readme", "test_notebook"))
