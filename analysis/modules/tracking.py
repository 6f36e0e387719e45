"""Modules over training: match the partitions of successive checkpoints, and find what happens between them.

Each checkpoint has its own basis, so nodes are aligned first: coordinates of two checkpoints are matched one to one by
the correlation of their values on the same data (Hungarian method). Then every partition is searched with the previous
labels as an additional start, and modules A, B of successive checkpoints are matched by the largest sum of
Jaccard overlaps |A & B| / |A | B| over aligned nodes (Hungarian method again; Greene et al. 2010). A matched module
continues the track of the one before. B stems from A if at least half of B was in A; A ends up in B if at least half
of A is in B:

    split  several modules stem from one        merge  several modules end up in one
    birth  no match, and not part of a split    death  no match, and not part of a merge

With `coupling` all checkpoints are searched at once, each node tied to its copies (Mucha et al. 2010); this makes
tracks steadier but can hide splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array

from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..graph.loss_scale import LossScale
from ..notebook.bars import with_bar
from ..notebook.tables import Columns, html_table
from ..progress import ProgressCallback, report
from ..results import Result, by_value, decode, encode
from ..search.leiden import leiden
from ..search.local_search import Search
from ..search.weights import Weights, value
from .alignment import Alignment
from .beyond_chains import BeyondChains
from .find_modules import find_modules, renumbered, scored
from .partition import Partition
from .satellites import join_satellites

__all__ = ["Event", "Tracking", "track_modules"]

"""Per cut, for each node of the later graph the node of the earlier one that it continues, -1 for none."""

_OVERLAP = 0.3


@dataclass(frozen=True)
class Event:
    """A birth, death, split or merge between two checkpoints; modules are named by their tracks.

    Attributes:
        kind: "birth", "death", "split" or "merge".
        at: index of the later checkpoint.
        earlier, later: tracks of the modules concerned, before and after.
    """

    kind: str
    at: int
    earlier: tuple[int, ...]
    later: tuple[int, ...]


@by_value
@dataclass(frozen=True, repr=False)
class Tracking(Result):
    """Modules of one network at successive checkpoints.

    Attributes:
        names: names of the checkpoints.
        partitions: one per checkpoint.
        tracks: per checkpoint the track of each module, by its label.
        flows: per transition the number of aligned nodes by (earlier module, later module).
        churn: per transition the share of the aligned nodes whose track changes; NaN where no node is aligned.
        events: in order of time.
        coupling: weight of the ties between copies of a node, 0 for none.
    """

    names: tuple[str, ...]
    partitions: tuple[Partition, ...]
    tracks: tuple[tuple[int, ...], ...]
    flows: tuple[Float[np.ndarray, "_ _"], ...]
    churn: tuple[float, ...]
    events: tuple[Event, ...]
    coupling: float = 0.0

    @property
    def n_tracks(self) -> int:
        """The number of different modules over all checkpoints."""
        return 1 + max(track for tracks in self.tracks for track in tracks)

    def __repr__(self) -> str:
        """Describe each checkpoint on a line."""
        lines = [f"Tracking: {len(self.names)} checkpoints, {self.n_tracks} tracks"]
        for t, (name, tracks) in enumerate(zip(self.names, self.tracks, strict=True)):
            happened = "; ".join(_told(event) for event in self.events if event.at == t)
            churn = f", churn {self.churn[t - 1]:.2f}" if t else ""
            lines.append(
                f"  {name}: modules {', '.join(map(str, tracks))}{churn}{f' ({happened})' if happened else ''}"
            )
        return "\n".join(lines)

    def _columns(self) -> Columns:
        """Return a row per checkpoint and module: its track, number of nodes and verdict of the partition."""
        rows = [
            (name, module.index, track, module.size, part.verdict)
            for name, part, tracks in zip(self.names, self.partitions, self.tracks, strict=True)
            for module, track in zip(part.modules, tracks, strict=True)
        ]
        return dict(zip(("checkpoint", "module", "track", "nodes", "verdict"), zip(*rows, strict=True), strict=True))

    def _repr_html_(self) -> str:
        """Return a table of the checkpoints with their modules and what happened since the one before."""
        sizes = [
            ", ".join(f"{track} ({m.size})" for m, track in zip(part.modules, tracks, strict=True))
            for part, tracks in zip(self.partitions, self.tracks, strict=True)
        ]
        columns = {
            "checkpoint": self.names,
            "modules (nodes)": sizes,
            "churn": [None, *self.churn],
            "since the one before": [
                "; ".join(_told(event) for event in self.events if event.at == t) for t in range(len(self.names))
            ],
            "verdict": [part.verdict for part in self.partitions],
        }
        return html_table(f"Modules over {len(self.names)} checkpoint{'s' * (len(self.names) > 1)}", columns)

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        arrays = {f"flow.{t}": flow for t, flow in enumerate(self.flows)}
        for t, partition in enumerate(self.partitions):
            arrays[f"partition.{t}"] = np.frombuffer(partition.to_bytes(), dtype=np.uint8)
        values: dict[str, Any] = {"names": self.names, "tracks": self.tracks, "coupling": self.coupling}
        values["churn"] = [None if np.isnan(share) else share for share in self.churn]
        values["events"] = [asdict(event) for event in self.events]
        return encode("tracking", arrays, values)

    @classmethod
    def from_bytes(cls, data: bytes) -> Tracking:
        """Rebuild from `to_bytes`."""
        arrays, meta = decode("tracking", data)
        count = len(meta["names"])
        events = [Event(e["kind"], e["at"], tuple(e["earlier"]), tuple(e["later"])) for e in meta["events"]]
        return cls(
            names=tuple(meta["names"]),
            partitions=tuple(Partition.from_bytes(arrays[f"partition.{t}"].tobytes()) for t in range(count)),
            tracks=tuple(tuple(tracks) for tracks in meta["tracks"]),
            flows=tuple(arrays[f"flow.{t}"] for t in range(count - 1)),
            churn=tuple(float("nan") if share is None else share for share in meta["churn"]),
            events=tuple(events),
            coupling=meta["coupling"],
        )


def _told(event: Event) -> str:
    before, after = (", ".join(map(str, tracks)) for tracks in (event.earlier, event.later))
    if event.kind in ("birth", "death"):
        return f"{event.kind} of {after or before}"
    return f"{event.kind} of {before} into {after}"


@with_bar
def track_modules(
    graphs: Sequence[InteractionGraph],
    *,
    alignments: Sequence[Alignment] | None = None,
    names: Sequence[str] | None = None,
    coupling: float = 0.0,
    overlap: float = _OVERLAP,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Tracking:
    """Partition successive graphs and match their modules, as the head of this module describes.

    Args:
        graphs: one per checkpoint, in order of training.
        alignments: per transition, see `Alignment` and `align_nodes`; default: node i continues node i, which is
            correct only if all graphs have the same basis.
        names: names of the checkpoints; default 0, 1, ...
        coupling: tie between a node and its copy at the next checkpoint, in units of the mean cost per node.
        overlap: least Jaccard overlap of matched modules.
        seed: seed of the searches.
        progress: called per checkpoint.
        options: options of `find_modules`. Where they bound the modules (k, sizes, pins), every search starts anew, and
            coupling is not allowed.

    Raises:
        GraphError: no graph, graphs of other cuts, alignments that do not fit, or options out of range.
    """
    ties = _checked(graphs, alignments)
    if "start" in options:
        raise GraphError("every search starts from the labels of the checkpoint before: leave `start` out")
    if not (np.isfinite(coupling) and coupling >= 0 and 0 < overlap <= 1):
        raise GraphError(f"coupling is {coupling}, overlap {overlap}: expected coupling >= 0 and 0 < overlap <= 1")
    labels = tuple(names) if names is not None else tuple(map(str, range(len(graphs))))
    if len(labels) != len(graphs):
        raise GraphError(f"{len(labels)} names were given for {len(graphs)} graphs")
    bounded = [name for name in ("k", "min_size", "max_size", "pins") if options.get(name) is not None]
    if coupling > 0 and (bounded or options.get("mediator_polish")):
        raise GraphError(f"coupling does not go with {', '.join(bounded) or 'mediator_polish'}: leave one of them out")
    partitions: list[Partition] = []
    for t, graph in enumerate(report(graphs, "checkpoints", progress)):
        start = _carried(partitions[-1], ties[t - 1]) if t and not bounded else None
        partitions.append(find_modules(graph, seed=seed, start=start, **options))
    if coupling > 0 and len(graphs) > 1:
        joined = options.get("resolution") is None
        partitions = _coupled(graphs, partitions, ties, coupling, joined, np.random.default_rng(seed))
    return _matched(labels, partitions, ties, overlap, coupling)


def _checked(graphs: Sequence[InteractionGraph], alignments: Sequence[Alignment] | None) -> list[Alignment]:
    if not graphs:
        raise GraphError("no graphs were given: expected one per checkpoint")
    if len({graph.cuts for graph in graphs}) > 1:
        raise GraphError(f"the graphs have different cuts: {sorted({graph.cuts for graph in graphs})}")
    steps = list(zip(graphs[:-1], graphs[1:], strict=True))
    if alignments is None:
        ties = [
            [np.where(np.arange(b) < a, np.arange(b), -1) for a, b in zip(old.widths, new.widths, strict=True)]
            for old, new in steps
        ]
    else:
        try:
            ties = [[np.asarray(a) for a in tie] for tie in alignments]
        except (TypeError, ValueError):
            raise GraphError("alignments: expected per transition one array of integers per cut") from None
        if not all(np.issubdtype(a.dtype, np.integer) and a.ndim == 1 for tie in ties for a in tie):
            raise GraphError("alignments: expected arrays of integers, -1 for a node that continues none")
    if len(ties) != len(steps):
        raise GraphError(f"{len(ties)} alignments were given for {len(steps)} transitions")
    for t, (tie, (old, new)) in enumerate(zip(ties, steps, strict=True)):
        fits = tuple(map(len, tie)) == new.widths and all(
            len(a) == 0 or (a.max() < k and a.min() >= -1 and len(np.unique(a[a >= 0])) == (a >= 0).sum())
            for a, k in zip(tie, old.widths, strict=True)
        )
        if not fits:
            raise GraphError(
                f"alignment {t} does not fit: expected per cut of {new.widths} nodes the index of one of {old.widths} "
                "earlier nodes each, none twice, or -1"
            )
    return list(ties)


def _carried(partition: Partition, tie: Alignment) -> list[np.ndarray]:
    """Carry the labels of a partition over to the next checkpoint's nodes."""
    return [np.where(a >= 0, labels[a], -1) for labels, a in zip(partition.labels, tie, strict=True)]


def _matched(
    names: tuple[str, ...], partitions: Sequence[Partition], ties: Sequence[Alignment], overlap: float, coupling: float
) -> Tracking:
    tracks: list[tuple[int, ...]] = [tuple(range(partitions[0].n_modules))]
    unused = partitions[0].n_modules
    flows, churn, events = [], [], []
    for t, tie in enumerate(ties, start=1):
        earlier, later = partitions[t - 1], partitions[t]
        flow = np.zeros((earlier.n_modules, later.n_modules))
        for old, new in zip(_carried(earlier, tie), later.labels, strict=True):
            both = (old >= 0) & (new >= 0)
            np.add.at(flow, (old[both], new[both]), 1.0)
        pairs = _pairs(flow, overlap)
        now = []
        for module in range(later.n_modules):
            known = [tracks[-1][a] for a, b in pairs if b == module]
            now.append(known[0] if known else unused)
            unused += not known
        events += _events(flow, pairs, tracks[-1], tuple(now), t)
        tracks.append(tuple(now))
        flows.append(flow)
        churn.append(1.0 - sum(flow[pair] for pair in pairs) / flow.sum() if flow.any() else float("nan"))
    return Tracking(names, tuple(partitions), tuple(tracks), tuple(flows), tuple(churn), tuple(events), coupling)


def _pairs(flow: np.ndarray, overlap: float) -> list[tuple[int, int]]:
    """Match modules by the largest sum of Jaccard overlaps, and drop those below the least."""
    union = flow.sum(1)[:, None] + flow.sum(0) - flow
    jaccard = flow / np.maximum(union, 1.0)
    matched = zip(*linear_sum_assignment(jaccard, maximize=True), strict=True)
    return [(int(a), int(b)) for a, b in matched if jaccard[a, b] >= overlap]


def _events(
    flow: np.ndarray, pairs: Sequence[tuple[int, int]], before: tuple[int, ...], after: tuple[int, ...], at: int
) -> list[Event]:
    stems = (2 * flow >= flow.sum(0)) & (flow > 0)
    ends = (2 * flow >= flow.sum(1)[:, None]) & (flow > 0)
    events, split, merged = [], set(), set()
    for a in np.flatnonzero(stems.sum(1) > 1).tolist():
        children = np.flatnonzero(stems[a]).tolist()
        split |= set(children)
        events.append(Event("split", at, (before[a],), tuple(after[b] for b in children)))
    for b in np.flatnonzero(ends.sum(0) > 1).tolist():
        parents = np.flatnonzero(ends[:, b]).tolist()
        merged |= set(parents)
        events.append(Event("merge", at, tuple(before[a] for a in parents), (after[b],)))
    known = {b for _, b in pairs}, {a for a, _ in pairs}
    events += [Event("birth", at, (), (after[b],)) for b in range(len(after)) if b not in known[0] | split]
    events += [Event("death", at, (before[a],), ()) for a in range(len(before)) if a not in known[1] | merged]
    return events


def _coupled(
    graphs: Sequence[InteractionGraph],
    partitions: Sequence[Partition],
    ties: Sequence[Alignment],
    coupling: float,
    joined: bool,
    generator: np.random.Generator,
) -> list[Partition]:
    """Search all checkpoints at once, each with its own objective and resolution, copies of a node tied."""
    searches = [Search(graph, part.epsilons) for graph, part in zip(graphs, partitions, strict=True)]
    offset = np.cumsum([0, *(search.n for search in searches)])
    whole = _tied(searches, partitions, ties, offset, coupling)
    alone = [search.flat(part.labels, "labels") for search, part in zip(searches, partitions, strict=True)]
    # labels carried over: equal numbers are the same module
    tracks = _matched(tuple(map(str, range(len(graphs)))), partitions, ties, _OVERLAP, 0.0).tracks
    known = np.concatenate([np.array(track)[labels] for track, labels in zip(tracks, alone, strict=True)])
    found = [leiden(whole, start, generator) for start in (known, np.arange(whole.n))]
    best = max(found, key=lambda labels: value(whole, labels))
    result = []
    for t, (graph, part, search) in enumerate(zip(graphs, partitions, searches, strict=True)):
        found_here = best[offset[t] : offset[t + 1]]
        beyond = None
        if part.beyond_chains is not None:  # found with chains="discount"
            beyond = BeyondChains(graph, part.epsilons, search, n_null=0, seed=part.seed)
        labels = search.per_cut(join_satellites(search, found_here, beyond) if joined else found_here)
        scale = LossScale(part.epsilons, part.epsilon_source, part.full_strength, part.seeds)
        point: dict[str, Any] = {"objective": part.objective, "resolution": part.resolution, "seed": part.seed}
        joint = scored(graph, renumbered(labels), scale, **point)
        warning = "searched together with the other checkpoints: no p-value, and the profile is that of this one alone"
        if joint.n_modules == 1 < part.n_modules:
            warning += f"; alone it has {part.n_modules} modules, together one"
        result.append(replace(joint, profile=part.profile, warning=warning))
    return result


def _tied(
    searches: Sequence[Search],
    partitions: Sequence[Partition],
    ties: Sequence[Alignment],
    offset: np.ndarray,
    coupling: float,
) -> Weights:
    """Join the graphs side by side, with an edge between each node and its copy at the next checkpoint."""
    parts = []
    for search, part in zip(searches, partitions, strict=True):
        resolution = part.resolution if part.n_modules > 1 else 0.0
        parts.append(search.priced(search.wired(search.costs), search.costs, part.objective, resolution))
    n = int(offset[-1])
    rows = [np.repeat(np.arange(p.n), np.diff(p.start)) + o for p, o in zip(parts, offset, strict=False)]
    columns = [p.neighbour + o for p, o in zip(parts, offset, strict=False)]
    weights = [p.weight for p in parts]
    tie_weight = coupling * sum(float(w.sum()) for w in weights) / n
    for t, tie in enumerate(ties):
        numbers = [search.spread(np.arange(search.n), -1) for search in searches[t : t + 2]]
        for old, new, a in zip(*numbers, tie, strict=True):
            copies = np.where(a >= 0, old[a], -1)
            both = (copies >= 0) & (new >= 0)
            ends = copies[both] + offset[t], new[both] + offset[t + 1]
            for first, second in (ends, ends[::-1]):
                rows.append(first)
                columns.append(second)
                weights.append(np.full(len(first), tie_weight))
    entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    table = coo_array(entries, (n, n)).tocsr()
    return Weights(
        start=table.indptr.astype(np.int64),
        neighbour=table.indices.astype(np.int32),
        weight=table.data,
        **_side_by_side(parts, "added"),
        **_side_by_side(parts, "charged"),
        size=np.ones(n, dtype=np.int64),
        pin=np.zeros(n, dtype=np.int64),
        slots=sum(p.slots for p in parts),
    )


def _side_by_side(parts: Sequence[Weights], name: str) -> dict[str, Any]:
    """Join the rows of several graphs, whose slots are their own."""
    starts, slots, values = ([getattr(p, name + end) for p in parts] for end in ("_start", "_slot", ""))
    before = np.cumsum([0, *map(len, values)]), np.cumsum([0, *(p.slots for p in parts)])
    return {
        f"{name}_start": np.concatenate([[0], *(own[1:] + o for own, o in zip(starts, before[0], strict=False))]),
        f"{name}_slot": np.concatenate([own + o for own, o in zip(slots, before[1], strict=False)]).astype(np.int32),
        name: np.concatenate(values),
    }
