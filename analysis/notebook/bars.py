"""A progress bar for the long functions of the Python interface: by default in interactive sessions only."""

from __future__ import annotations

import builtins
import sys
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ..devices.device import few_threads
from ..errors import InputError
from ..progress import Progress

__all__ = ["Bar", "interactive", "with_bar"]

P = ParamSpec("P")
R = TypeVar("R")

_inside: ContextVar[bool] = ContextVar("inside", default=False)  # whether a decorated function runs


class Bar:
    """A tqdm bar that starts anew with each step; it appears with the first report and goes when it is closed."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._step = ""

    def __call__(self, progress: Progress) -> None:
        """Show a report; what a task forecasts stays above the bar."""
        if progress.step == "forecast":
            _tqdm().write(progress.message)
            return
        if self._bar is None:
            self._bar = _tqdm()(desc=progress.step, total=progress.total, leave=False)
        elif progress.step != self._step or progress.done < self._bar.n:
            self._bar.reset(total=progress.total)
            self._bar.set_description(progress.step, refresh=False)
        self._step = progress.step
        if progress.message:
            self._bar.set_postfix_str(progress.message, refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def interactive() -> bool:
    """Return whether Python runs in a notebook or at a prompt, not in a script."""
    return hasattr(sys, "ps1") or hasattr(builtins, "get_ipython")


def with_bar(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function with an option `progress`: True shows a bar, False none, None one if it is called by hand.

    Functions that it calls show no bar of their own. A callback is called as ever. With a small model as the first
    argument it computes on one thread, see `few_threads`.
    """

    @wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        given: dict[str, Any] = dict(options)
        asked = given.get("progress")
        bar = None
        if not callable(asked):
            wanted = (interactive() and not _inside.get() and _has_tqdm()) if asked is None else asked
            given["progress"] = bar = _checked_bar() if wanted else None
        token = _inside.set(True)
        try:
            with few_threads(args[0] if args else None):
                return function(*args, **given)
        finally:
            _inside.reset(token)
            if bar is not None:
                bar.close()

    return run


def _checked_bar() -> Bar:
    if not _has_tqdm():
        raise InputError("progress=True needs tqdm, which is not installed: run `pip install tqdm`")
    return Bar()


def _has_tqdm() -> bool:
    try:
        _tqdm()
    except ImportError:
        return False
    return True


def _tqdm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets its bar is one of text, which is all right
        from tqdm.auto import tqdm
    return tqdm
