"""GraphML and GEXF, read by NetworkX. Files that declare a document type are refused: entities may be endless."""

from __future__ import annotations

import io
import json
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from .node_link import described_parts
from .own_graphs import KEY
from .tables import Links, Parts

__all__ = ["with_description", "xml_kind", "xml_parts"]

_MARK = f"{KEY} "  # before the JSON in the description of a GEXF file


class _RootReached(Exception):  # noqa: N818
    """The first element is reached."""


def xml_kind(data: bytes) -> str:
    """Return the name of the first element, without its namespace.

    Raises:
        GraphError: the file is no XML, or declares a document type.
    """
    found: list[str] = []

    def element(name: str, attributes: dict[str, str]) -> None:
        found.append(name.split(":")[-1].lower())
        raise _RootReached

    def declared(name: str, *others: Any) -> None:
        raise GraphError(
            f"the XML file declares the document type {name!r:.80}: expected none; take the <!DOCTYPE ...> out"
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.StartDoctypeDeclHandler = element, declared
    try:
        parser.Parse(data, True)
    except _RootReached:
        return found[0]
    except expat.ExpatError as error:
        raise GraphError(f"the file cannot be read as XML: {error}") from error
    raise GraphError("the XML file has no element")


def xml_parts(data: bytes, form: str) -> Parts | InteractionGraph:
    """Read GraphML or GEXF; a file of ours gives its graph at once.

    Raises:
        GraphError: the file is no directed graph with weights.
    """
    import networkx

    if (kind := xml_kind(data)) != form:
        raise GraphError(f"the file begins with <{kind}>: expected <{form}>")
    try:
        read = networkx.read_graphml if form == "graphml" else networkx.read_gexf
        graph = read(io.BytesIO(data))
        said = dict(graph.graph) | (_description(data) if form == "gexf" else {})
    except (ElementTree.ParseError, networkx.NetworkXError, RecursionError) as error:
        raise GraphError(f"the file cannot be read as {form}: {error or type(error).__name__}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise GraphError(f"the file cannot be read as {form} ({type(error).__name__}: {error})") from error
    if not graph.is_directed():
        raise GraphError("the graph is undirected: expected links that lead from earlier to later nodes")
    names = list(graph.nodes)
    index = {name: i for i, name in enumerate(names)}
    if not index:
        raise GraphError("the file has no nodes: expected a graph with at least two nodes and a link between them")
    edges = list(graph.edges(data=True))
    source = np.array([index[a] for a, _, _ in edges], dtype=np.int32)
    target = np.array([index[b] for _, b, _ in edges], dtype=np.int32)

    def links(value: str) -> Links:
        return Links(source, target, np.array([_number(a, b, data, value) for a, b, data in edges], dtype=np.float64))

    attributes = [_json(graph.nodes[name]) for name in names]
    rest = {name: value for name, value in said.items() if name not in ("node_default", "edge_default")}
    return described_parts(form, _json(rest), said, names, attributes, links)


def _number(source: str, target: str, data: dict[str, Any], value: str) -> float:
    other = "strength" if value == "weight" else "weight"
    found = data.get(value, data.get(other))
    try:
        return float(found)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise GraphError(
            f"the link {source!r:.80} -> {target!r:.80} has the weight {found!r:.80}: expected a number"
        ) from None


def _json(values: dict[Any, Any]) -> dict[str, Any]:
    """Return attributes as JSON values."""
    found: dict[str, Any] = json.loads(json.dumps({str(key): value for key, value in values.items()}, default=str))
    return found


def _description(data: bytes) -> dict[str, str]:
    """Return what we wrote into the description of a GEXF file, see `with_description`."""
    for _, element in ElementTree.iterparse(io.BytesIO(data), events=("end",)):
        name = element.tag.rsplit("}")[-1]
        if name == "description" and (element.text or "").startswith(_MARK):
            return {KEY: (element.text or "").removeprefix(_MARK)}
        if name == "meta":
            break
    return {}


def with_description(data: bytes, said: str) -> bytes:
    """Write what concerns the whole graph into the description of a GEXF file, which has no attributes of graphs."""
    from xml.sax.saxutils import escape

    return data.replace(b"</meta>", f"  <description>{escape(_MARK + said)}</description>\n  </meta>".encode(), 1)
