"""Matrices of strengths, dense or as sparse rows where less than a tenth is filled (`scipy.sparse.csr_array`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

__all__ = ["Block", "as_rows", "dense", "entries", "mapped", "stored", "strength_line", "values_at"]

if TYPE_CHECKING:
    Block: TypeAlias = np.ndarray | csr_array[Any]
else:
    Block = np.ndarray | csr_array

"""A matrix (later, earlier), dense or as sparse rows."""

_SPARSE = 0.1  # a matrix with a smaller share of entries that are not 0 is kept as sparse rows


def stored(block: Block) -> Block:
    """Return sparse rows as they are where less than a tenth is filled, else dense; dense matrices stay dense.

    >>> stored(csr_array(np.eye(20))).nnz, type(stored(csr_array(np.eye(2)))).__name__
    (20, 'ndarray')
    """
    if isinstance(block, np.ndarray):
        return block
    rows = as_rows(block)
    return rows if rows.nnz < _SPARSE * rows.shape[0] * rows.shape[1] else rows.toarray()


def as_rows(block: Block) -> csr_array[Any]:
    """Return sparse rows without zeros, columns in ascending order."""
    rows = csr_array(block)
    if not rows.has_canonical_format or not np.all(rows.data):
        rows = rows.copy()
        rows.sum_duplicates()
        rows.eliminate_zeros()
    return rows


def dense(block: Block) -> np.ndarray:
    """Return a dense matrix."""
    return block if isinstance(block, np.ndarray) else np.asarray(block.toarray())


def entries(block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and values of the entries that are not 0, row after row.

    >>> [part.tolist() for part in entries(np.array([[0.0, 2.0], [3.0, 0.0]]))]
    [[0, 1], [1, 0], [2.0, 3.0]]
    """
    if isinstance(block, np.ndarray):
        rows, columns = np.nonzero(block)
        return rows, columns, block[rows, columns]
    found = as_rows(block)
    return np.repeat(np.arange(found.shape[0]), np.diff(found.indptr)), found.indices.astype(np.int64), found.data


def values_at(block: Block, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the entries at some places."""
    return np.asarray(block[rows, columns]).ravel() if len(rows) else np.empty(0)


def mapped(block: Block, function: Callable[[np.ndarray], np.ndarray]) -> Block:
    """Apply a function that keeps 0 to every entry.

    >>> mapped(csr_array(np.eye(2)), lambda w: 3 * w).toarray().tolist()
    [[3.0, 0.0], [0.0, 3.0]]
    """
    if isinstance(block, np.ndarray):
        return function(block)
    return as_rows(csr_array((function(block.data), block.indices, block.indptr), shape=block.shape))


def strength_line(block: Block, *, row: int | None = None, column: int | None = None) -> Float[np.ndarray, " k"]:
    """Return one row, or one column, of a matrix."""
    line: Any = block[[row], :] if row is not None else block[:, [column]]  # type: ignore[index]
    return dense(line).ravel()
