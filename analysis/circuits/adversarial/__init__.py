"""The worst partial cut of edges that are said not to be needed, found by projected gradient ascent."""

from .ascent import POINTS, RESTARTS, STEP_SIZE, STEPS, Budget, steepest_shares
from .searched import Search, WorstCut, judged_by_worst, worst_cut

__all__ = [
    "POINTS",
    "RESTARTS",
    "STEPS",
    "STEP_SIZE",
    "Budget",
    "Search",
    "WorstCut",
    "judged_by_worst",
    "steepest_shares",
    "worst_cut",
]
