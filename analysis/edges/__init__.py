"""Edges of layered graphs: matrices of strengths, dense or sparse, and all edges as one list."""

from .edge_list import Edges, summed
from .matrices import Block, as_rows, dense, entries, mapped, stored, strength_line, values_at

__all__ = [
    "Block",
    "Edges",
    "as_rows",
    "dense",
    "entries",
    "mapped",
    "stored",
    "strength_line",
    "summed",
    "values_at",
]
