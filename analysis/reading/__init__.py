"""Files of graphs made elsewhere, read into interaction graphs."""

from .any_graph import READERS, graph_of_bytes, read_graph
from .attribution_files import attribution_document
from .own_graphs import KEY, whole_graph_said
from .xml_graphs import with_description

__all__ = [
    "KEY",
    "READERS",
    "attribution_document",
    "graph_of_bytes",
    "read_graph",
    "whole_graph_said",
    "with_description",
]
