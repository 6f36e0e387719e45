"""Attribution graphs: influence on the outputs through all paths, what carries most of it, and how complete it is."""

from .paths import Influence, PathScores, as_shares, influence, kept_by_influence, path_scores

__all__ = ["Influence", "PathScores", "as_shares", "influence", "kept_by_influence", "path_scores"]
