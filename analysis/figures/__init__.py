"""Figures of results, one function per kind; matplotlib is imported when the first figure is drawn."""

from .cards import plot_cards, plot_module_card, plot_node_card
from .coefficients import plot_curve, plot_traces
from .experiments import plot_experiment
from .graphs import plot_graph, plot_membership, plot_strengths
from .interactive import plot_interactive
from .ledgers import plot_ledger, plot_synchronisation
from .profiles import plot_controls, plot_epsilon_profile, plot_profile
from .tracks import plot_comparison, plot_distance, plot_tracking

__all__ = [
    "plot_cards",
    "plot_comparison",
    "plot_controls",
    "plot_curve",
    "plot_distance",
    "plot_epsilon_profile",
    "plot_experiment",
    "plot_graph",
    "plot_interactive",
    "plot_ledger",
    "plot_membership",
    "plot_module_card",
    "plot_node_card",
    "plot_profile",
    "plot_strengths",
    "plot_synchronisation",
    "plot_traces",
    "plot_tracking",
]
