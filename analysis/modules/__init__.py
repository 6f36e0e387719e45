"""Modules: divisions of a graph that an objective prefers, the evidence for them, and modules over training."""

from .alignment import Alignment, align_nodes, coordinate_correlation
from .beyond_chains import BeyondChains, costs_beyond_chains, one_to_one
from .evidence import Stability, description_length, stability, variation_of_information
from .find_modules import CHAINS, epsilon_profile, renumbered, score_partition, scored
from .mediators import interaction_surface, polish_mediators, surface_of
from .partition import VERDICTS, Level, Mediator, Module, Partition, ProfileRow
from .profile import Profile, resolutions
from .satellites import join_satellites, join_small
from .tracking import Event, Tracking, track_modules
from .untrained import ControlRow, control_note, drawn_anew, untrained_copy

__all__ = [
    "CHAINS",
    "VERDICTS",
    "Alignment",
    "BeyondChains",
    "ControlRow",
    "Event",
    "Level",
    "Mediator",
    "Module",
    "Partition",
    "Profile",
    "ProfileRow",
    "Stability",
    "Tracking",
    "align_nodes",
    "control_note",
    "coordinate_correlation",
    "costs_beyond_chains",
    "description_length",
    "drawn_anew",
    "epsilon_profile",
    "interaction_surface",
    "join_satellites",
    "join_small",
    "one_to_one",
    "polish_mediators",
    "renumbered",
    "resolutions",
    "score_partition",
    "scored",
    "stability",
    "surface_of",
    "track_modules",
    "untrained_copy",
    "variation_of_information",
]
