"""Edge lists, as CSV or Parquet: `source,target,weight`, and `source_layer,target_layer` where layers are known."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraphError, InputError
from ..graph.node_table import NodeTable
from .node_rows import layer_key
from .tables import Links, Parts

if TYPE_CHECKING:
    import pandas

__all__ = ["csv_parts", "parquet_parts"]

_NEEDED, _LAYERS = ("source", "target", "weight"), ("source_layer", "target_layer")
_OURS = ("earlier_cut", "earlier", "later_cut", "later", "strength")


def csv_parts(data: bytes) -> Parts:
    """Read an edge list; columns are separated by commas, or by tabs where the first line has no comma.

    The columns that `InteractionGraph.to_frame` has are read, too. Blanks before a value are left out; those behind it
    belong to it, so that "a " and "a" are two nodes.

    Raises:
        GraphError: the file is no table, lacks a column, a line has more values than there are columns, a node has no
            id, or is in two layers.
    """
    import pandas

    first = data[: data.find(b"\n") if b"\n" in data else len(data)]
    separator = "\t" if b"\t" in first and b"," not in first else ","
    try:
        table = pandas.read_csv(
            io.BytesIO(data),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            skipinitialspace=True,
        )
    except (ValueError, pandas.errors.ParserError, UnicodeDecodeError, OverflowError) as error:
        raise GraphError(
            f"the file cannot be read as a table: {error}; expected CSV with {','.join(_NEEDED)}"
        ) from error
    if not isinstance(table.index, pandas.RangeIndex):  # pandas takes the first values for names of the lines
        columns = len(table.columns)
        raise GraphError(
            f"link 1 has {columns + table.index.nlevels} values, and the first line names {columns} columns: expected "
            "a value for each column; name the others, too, or take separators at the ends of lines out"
        )
    return _parts(table, "csv")


def parquet_parts(data: bytes) -> Parts:
    """Read an edge list from a Parquet file.

    Raises:
        InputError: no library that reads Parquet is installed.
        GraphError: the file cannot be read, lacks a column, a node has no id, or is in two layers.
    """
    import pandas

    try:
        table = pandas.read_parquet(io.BytesIO(data))
    except ImportError:
        raise InputError("Parquet files need pyarrow: pip install pyarrow; or write the edge list as CSV") from None
    except Exception as error:  # pyarrow and fastparquet have errors of their own
        raise GraphError(f"the file cannot be read as Parquet: {error}") from error
    return _parts(table, "parquet")


def _parts(table: pandas.DataFrame, form: str) -> Parts:
    import pandas

    if set(_OURS) <= set(table.columns):
        table = _named(table)
    if missing := [name for name in _NEEDED if name not in table.columns]:
        raise GraphError(
            f"the columns are {', '.join(map(str, table.columns))[:200]}; {', '.join(missing)} is missing: expected "
            f"{','.join(_NEEDED)} and, where layers are known, {','.join(_LAYERS)}"
        )
    if not len(table):
        raise GraphError("the edge list is empty: expected a line for each link")
    ends = [_ids(table[name]) for name in _NEEDED[:2]]
    codes, names = pandas.factorize(np.stack([np.asarray(side, dtype=object) for side in ends], 1).ravel())
    source, target = codes.reshape(-1, 2).T.astype(np.int32)
    links = Links(source, target, _weights(table["weight"]))
    given = [name for name in _LAYERS if name in table.columns]
    if len(given) == 1:
        raise GraphError(f"there is a column {given[0]} alone: expected both {' and '.join(_LAYERS)}, or none")
    layers = _layers(table, links, names) if given else ()
    nodes = NodeTable.from_rows({"id": str(name)} for name in names)
    return Parts(nodes, links, layers, {"format": form})


def _ids(column: pandas.Series[Any]) -> pandas.Series[Any]:
    names = column.astype(str)
    if (without := np.asarray(column.isna() | (names == ""))).any():
        raise GraphError(f"link {int(np.argmax(without)) + 1:,} has no {column.name}: expected the id of a node")
    return names


def _weights(column: pandas.Series[Any]) -> np.ndarray:
    numbers = []
    for k, text in enumerate(column.tolist()):
        try:
            numbers.append(float(text))
        except (TypeError, ValueError):
            raise GraphError(f"link {k + 1:,} has the weight {text!r:.80}: expected a number") from None
    return np.array(numbers, dtype=np.float64)


def _named(table: pandas.DataFrame) -> pandas.DataFrame:
    """Turn the columns of `InteractionGraph.to_frame` into those of an edge list."""
    found = {"weight": table["weight"] if "weight" in table.columns else table["strength"]}
    for side, cut, node in (("source", "earlier_cut", "earlier"), ("target", "later_cut", "later")):
        found[side] = table[cut].astype(str) + "/" + table[node].astype(str)
        found[f"{side}_layer"] = table[cut].astype(str)
    return type(table)(found)


def _layers(table: pandas.DataFrame, links: Links, names: Any) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for side, column in ((links.source, _LAYERS[0]), (links.target, _LAYERS[1])):
        for node, value in dict.fromkeys(zip(side.tolist(), table[column].tolist(), strict=True)):
            layer = layer_key(value)
            if found.setdefault(node, layer) != layer or not layer:
                raise GraphError(
                    f"the node {names[node]!r:.80} is in the layers {found[node]!r:.40} and {layer!r:.40}: expected one"
                )
    return tuple(found[i] for i in range(len(names)))
