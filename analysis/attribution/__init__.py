"""Attribution graphs: influence on the outputs through all paths, what carries most of it, roles, strongest nodes."""

from .named_nodes import NamedEdge, NamedNode, strongest_nodes
from .paths import Influence, PathScores, as_shares, influence, kept_by_influence, path_scores
from .roles import Roles, find_roles

__all__ = [
    "Influence",
    "NamedEdge",
    "NamedNode",
    "PathScores",
    "Roles",
    "as_shares",
    "find_roles",
    "influence",
    "kept_by_influence",
    "path_scores",
    "strongest_nodes",
]
