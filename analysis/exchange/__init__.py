"""Files for and from other tools: graphs, attribution graphs, circuits, labels."""

from .attribution_graph import MOST_LINKS, MOST_PINNED
from .circuit_files import CIRCUIT_FORMATS, eap_graph, export_circuit, prune_scores
from .component_circuit import ComponentCircuit, Edge
from .component_strengths import NETWORK_FORMATS, ComponentStrengths, component_table
from .graph_files import FORMATS, export, export_masks, to_networkx
from .labels_file import groups_of, labels_of, read_assignment, read_groups, read_labels, read_partition
from .supernodes import supernode_params, with_supernodes, write_supernodes

__all__ = [
    "CIRCUIT_FORMATS",
    "FORMATS",
    "MOST_LINKS",
    "MOST_PINNED",
    "NETWORK_FORMATS",
    "ComponentCircuit",
    "ComponentStrengths",
    "Edge",
    "component_table",
    "eap_graph",
    "export",
    "export_circuit",
    "export_masks",
    "groups_of",
    "labels_of",
    "prune_scores",
    "read_assignment",
    "read_groups",
    "read_labels",
    "read_partition",
    "supernode_params",
    "to_networkx",
    "with_supernodes",
    "write_supernodes",
]
