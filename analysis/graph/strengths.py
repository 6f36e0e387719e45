"""Compute the interaction graph of a network in its bases."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import numpy as np

from ..basis.bases import Bases
from ..basis.cotangents import PositionSigns
from ..basis.data_points import random_points
from ..errors import GraphError
from ..network.batches import Batch
from ..network.hooks import with_gradients
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback
from .interaction_graph import InteractionGraph
from .skip_paths import pair_attributions, pair_strengths

__all__ = ["interaction_graph"]


@with_gradients()
@with_bar
def interaction_graph(
    net: Network,
    bases: Bases,
    batches: Iterable[Batch] | None = None,
    *,
    strengths: str = "jacobian",
    points: int = 1,
    probes: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> InteractionGraph:
    """Compute strengths between coordinates of adjacent cuts (paper, section 6; companion, appendix A).

    With J^ = C^{l+1} (df^{l+1}/df^l) (C^l)^+, Lambda_i the variance of coordinate i, t output and s input positions:

        jacobian:     w_ji = sqrt( E_x[ sum_ts J^_{tj,si}^2 ] Lambda_i )
        attribution:  w_ji = sqrt( E_x[ sum_t ( sum_s int J^_{tj,si} d alpha f^_si )^2 ] )

    where the integral runs from the mean to f. w^2 is in units of the behavioural loss.

    Args:
        net: the network.
        bases: its bases.
        batches: re-iterable data. May be left out for local bases and "jacobian", whose strengths were measured
            while the basis was built: w = sqrt(influence). Strengths beyond skip paths are then unknown.
        strengths: "jacobian" or "attribution".
        points: number of Gauss-Legendre points on [0, 1]; 1 means the point alpha = 1, gradient times activation.
        probes: sets of random signs of the positions per data point, for "jacobian" where positions mix: one backward
            pass per coordinate and set in place of one per coordinate and position. The graph then has `errors`, and
            a strength counts only where it is above the cutoff by two of them. None: exact.
        seed: seed of the signs.
        progress: called after each batch.

    Raises:
        GraphError: bases of other cuts, an unknown kind of strength, or no batches where they are needed.
        CutError: an assumption about the model fails, see `Network.check_once`.
        DataError: no data, NaN, or inputs that do not fit.
    """
    _check(net, bases, strengths=strengths, points=points, probes=probes)
    if batches is not None:
        net.check_once(batches)
        batches = sampled(bases, batches)
    values = [bases[cut] for cut in net.cuts]
    beyond: list[np.ndarray | None] = []
    errors: list[np.ndarray | None] = []
    beyond_errors: list[np.ndarray | None] = []
    if batches is None:
        if strengths != "jacobian" or not bases.measured:
            raise GraphError("batches are needed: only local bases built without probes carry their strengths")
        blocks = [np.sqrt(basis.influence.clip(min=0)) for basis in values[:-1]]
    else:
        blocks = []
        for p, both in enumerate(pairwise(values)):
            if strengths == "jacobian":
                signs = None if probes is None else PositionSigns(probes, seed, p)
                found = pair_strengths(net, batches, p, both, progress, signs)
            else:
                found = pair_attributions(net, batches, p, both, points=points, progress=progress)
            blocks.append(found.strengths)
            beyond.append(found.beyond_skip)
            errors.append(found.errors)
            beyond_errors.append(found.beyond_errors)
    settings = {
        **bases.settings,
        "checked": bool(bases.settings.get("checked")) and (net.checked or batches is None),
        **({} if probes is None else {"signs": probes, "signs_seed": seed}),
        "points": points if strengths == "attribution" else None,
        "skip_paths": "measured" if batches is not None else "not known",
    }
    importance = [basis.importance for basis in values]
    return InteractionGraph.from_blocks(
        blocks,
        net.cuts,
        importance,
        strengths=strengths,
        basis=values[0].kind,
        settings=settings,
        beyond_skip=beyond if any(block is not None for block in beyond) else (),
        errors=errors if any(block is not None for block in errors) else (),
        beyond_errors=beyond_errors if any(block is not None for block in beyond_errors) else (),
    )


def sampled(bases: Bases, batches: Iterable[Batch]) -> Iterable[Batch]:
    """Return the data points that bases were built from: all, or those drawn where they were enough for a tolerance."""
    taken = cast("int | None", bases.settings.get("data_points"))
    return batches if taken is None else random_points(batches, taken, cast(int, bases.settings["seed"]))


def _check(net: Network, bases: Bases, *, strengths: str, points: int, probes: int | None) -> None:
    if strengths not in ("jacobian", "attribution"):
        raise GraphError(f"unknown strengths {strengths!r}: expected 'jacobian' or 'attribution'")
    if points < 1:
        raise GraphError(f"points is {points}: expected at least 1")
    if probes is not None and (strengths != "jacobian" or probes < 1):
        raise GraphError(
            f"probes is {probes} with strengths {strengths!r}: expected at least one with 'jacobian', and None with "
            "'attribution', which is exact"
        )
    if tuple(bases) != net.cuts:
        raise GraphError(f"the bases belong to the cuts {list(bases)}, the network has {list(net.cuts)}")
