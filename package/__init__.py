"""interbasis: the modules inside a neural network, and the evidence for them.

`interbasis.analyze(model, data)` is the whole way in one call; its parts are in `interbasis.analysis`. The numerics are
loaded when they are first used, so that the command line starts without them.

>>> import interbasis
>>> interbasis.__version__.count(".")
2
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analysis import Analysis, Network, analyze, load_checkpoint

__all__ = ["Analysis", "Network", "__version__", "analyze", "load_checkpoint"]

__version__ = _version("interbasis")


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(".analysis", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "analysis", "service"})
