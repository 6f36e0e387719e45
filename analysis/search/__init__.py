"""Objectives of a division into modules, and the optimisers that search for the best division."""

from .kway import check_bounds
from .local_search import BACKENDS, Effort, Found, Search
from .objectives import (
    LAYERED,
    OBJECTIVES,
    Objective,
    checked_resolution,
    find_objective,
    move_gain,
    quality,
    quality_of,
)
from .weights import Weights, compact, contracted, value

__all__ = [
    "BACKENDS",
    "LAYERED",
    "OBJECTIVES",
    "Effort",
    "Found",
    "Objective",
    "Search",
    "Weights",
    "check_bounds",
    "checked_resolution",
    "compact",
    "contracted",
    "find_objective",
    "move_gain",
    "quality",
    "quality_of",
    "value",
]
