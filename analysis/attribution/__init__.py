"""Attribution graphs: influence on the outputs through all paths, what carries most of it, and roles of nodes."""

from .paths import Influence, PathScores, as_shares, influence, kept_by_influence, path_scores
from .roles import Roles, find_roles

__all__ = [
    "Influence",
    "PathScores",
    "Roles",
    "as_shares",
    "find_roles",
    "influence",
    "kept_by_influence",
    "path_scores",
]
