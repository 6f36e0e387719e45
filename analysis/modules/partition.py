"""Partition: a division of a graph into modules with its costs and evidence, as a result that can be stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import GraphError
from ..graph.cost import shown_scales
from ..graph.interaction_graph import InteractionGraph
from ..notebook.tables import Columns, data_frame, html_table
from ..results import Result, by_value, decode, encode, figure
from .untrained import ControlRow, control_note

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = ["VERDICTS", "Level", "Mediator", "Module", "Partition", "ProfileRow"]


@dataclass(frozen=True)
class Mediator:
    """A node of one module that feeds another one.

    Attributes:
        earlier, later: label of its own module, and of the module that it feeds.
        cut, coordinate: the node; `cut` is the index of its cut.
        strength: w_v in units of its cutoff, w_v / sqrt(epsilon); above 1.
        cost: c(w_v) = log(strength), its part of the mediator cost.
        gamma: the fraction of a degree of freedom; None where sqrt(epsilon) is not below full strength.
    """

    earlier: int
    later: int
    cut: int
    coordinate: int
    strength: float
    cost: float
    gamma: float | None


@dataclass(frozen=True)
class ProfileRow:
    """One resolution of a profile; fields about null graphs are None where no null graph was searched.

    `quality` is the value that the search found; `n_modules`, `edge_cost`, `contrast` and `description_length` (nats,
    that of one module is 0) belong to the labels after satellites were joined.
    """

    objective: str
    resolution: float
    n_modules: int
    quality: float
    null_mean: float | None
    null_sd: float | None
    z: float | None
    gap: float | None
    edge_cost: float
    contrast: float
    description_length: float
    significant: bool | None
    beyond_chains: float | None = None


VERDICTS = ("supported", "one module", "not told apart from chance", "untested")

"""Possible verdicts on a partition."""


@dataclass(frozen=True)
class Module:
    """One module.

    Attributes:
        index: label of the module; modules are numbered by descending size, ties by their first node.
        size: number of nodes.
        cuts: names of the cuts in which it has nodes.
        sizes: number of nodes at each cut of the graph.
        inner_cost, outer_cost: sum of c(w) over the edges inside it, and between it and other modules.
    """

    index: int
    size: int
    cuts: tuple[str, ...]
    sizes: tuple[int, ...]
    inner_cost: float
    outer_cost: float


@by_value
@dataclass(frozen=True)
class Level:
    """A significant division with its own number of modules; the levels form a hierarchy.

    Attributes:
        n_modules, objective, resolution: from the row of the profile.
        labels: one int array per cut, numbered by size; -1: in no module.
        parents: per module the module of the previous level that holds most of its nodes; () at the first level.
        nesting: share of the nodes that are in the parent of their module; None at the first level.
    """

    n_modules: int
    objective: str
    resolution: float
    labels: tuple[Int[np.ndarray, " _"], ...]
    parents: tuple[int, ...]
    nesting: float | None


@by_value
@dataclass(frozen=True, repr=False)
class Partition(Result):
    """Modules of an interaction graph, with their costs and the evidence for them.

    Attributes:
        cuts: names of the cuts.
        labels: one int array per cut; -1: no edge above the cutoff, hence in no module.
        n_modules: number of modules.
        edge_cost, mediator_cost: interactions between modules, sums of c(w) (see `graph.cost`).
        normalised_cost: the edge cost in full-strength connections, each pair of cuts divided by
            log(full_strength / sqrt(epsilon)); None where a cutoff is not below full_strength.
        full_strength: 1 (the paper's formula) for a given epsilon; the graph's strongest strength if epsilon was read
            off the graph.
        quality, objective, resolution: value of the objective, its name and resolution.
        epsilon: loss scale; edges are strengths above its square root. Where it differs between pairs of cuts,
            `epsilons` holds them, and this is their geometric mean.
        epsilon_source: "given", "given per pair", "graph", "pairs", "strongest" or "seeds"; see `graph.loss_scale`.
        contrast: 1 - edge_cost / its expectation by chance for these labels.
        modules: one `Module` per label.
        mediators: the interaction surface: all nodes of one module that feed another.
        seed: seed of the search.
        p_value: of "no more modular than the null graphs", (1 + null graphs at or above) / (1 + null
            graphs), for the largest z over the profile, also where the result is one module, which claims no
            division; None where no null graph was searched, or where the modules were chains.
        tail_p: estimate of the p-value where it is smaller than the ranks among 100 null graphs or more show, by the
            tail of a generalised Pareto distribution (see `tail`); None elsewhere.
        z: statistic of the chosen row of the profile, of one module the largest, see `profile`; None where p_value is
            None.
        description_length: in nats, minus that of one module; for comparison only.
        stability: mean adjusted mutual information with independent searches; None for one module.
        variation_of_information: mean variation of information with the same searches, in nats.
        confidence: for each node how much its module agrees in these searches, 0 to 1; () where there were none.
        profile: every resolution tried.
        hierarchy: the significant divisions by number of modules, fewest first, the chosen one among them.
        polished: whether the mediator cost was polished.
        warning: caveats, as sentences; None if there are none.
        verdict: one of `VERDICTS`: "supported" if the division is more modular than every null graph, also beyond
            chains, and than an untrained copy of the network if there is one; "one module"; "not told apart from
            chance"; or "untested" if no null graph was searched.
        reason: reason for the verdict, one sentence.
        beyond_chains: contrast of the interactions without one-to-one edges and skip paths; None for one module and
            where no null graph was searched.
        untrained_modules: number of modules of an untrained copy of the network, found with the same choices; None if
            there is no copy.
        seeds: the networks whose mean distance epsilon is, with their SHA-256; () where it comes from elsewhere.
        controls: the network, then untrained copies of it, with edges, costs and modules of each; () where no copies
            were asked for.
    """

    cuts: tuple[str, ...]
    labels: tuple[Int[np.ndarray, " _"], ...]
    n_modules: int
    edge_cost: float
    mediator_cost: float
    normalised_cost: float | None
    full_strength: float
    quality: float
    objective: str
    resolution: float
    epsilon: float
    epsilons: tuple[float, ...]
    epsilon_source: str
    contrast: float
    modules: tuple[Module, ...]
    mediators: tuple[Mediator, ...]
    seed: int
    p_value: float | None = None
    tail_p: float | None = None
    z: float | None = None
    description_length: float | None = None
    stability: float | None = None
    variation_of_information: float | None = None
    confidence: tuple[Float[np.ndarray, " _"], ...] = ()
    profile: tuple[ProfileRow, ...] = ()
    hierarchy: tuple[Level, ...] = ()
    polished: bool = False
    warning: str | None = None
    verdict: str = "untested"
    reason: str = "no null graph was searched for this division"
    beyond_chains: float | None = None
    untrained_modules: int | None = None
    seeds: tuple[str, ...] = ()
    controls: tuple[ControlRow, ...] = ()

    def __repr__(self) -> str:
        """Describe the main numbers, and each module on a line."""
        p = "" if self.p_value is None else f", p = {self.p_value:.3g}"
        count = f"{self.n_modules} module{'' if self.n_modules == 1 else 's'}"
        scales = f"{self.epsilon:.3g}" if len(set(self.epsilons)) < 2 else shown_scales(self.epsilons)
        head = (
            f"Partition: {count}, edge cost {self.edge_cost:.4g}, contrast {self.contrast:.3f}{p} "
            f"({self.objective}, resolution {self.resolution:.3g}, epsilon {scales})"
        )
        shown = [
            f"  {m.index}: {m.size} nodes {m.sizes}, inner cost {m.inner_cost:.4g}, outer {m.outer_cost:.4g}"
            for m in self.modules[:12]
        ]
        rest = self.n_modules - len(shown)
        more = [f"  ... {rest} more"] if rest else []
        if self.seeds:
            more.append(
                f"  epsilon: mean distance of {', '.join(name.partition(' sha256:')[0] for name in self.seeds)}"
            )
        more += [f"  {control_note(self.controls)}"] if self.controls else []
        warning = [f"  warning: {self.warning}"] if self.warning and self.n_modules > 1 else []
        lines = [head, *shown, *more, *warning, f"{self.verdict}: {self.reason}"]
        wrapped = (wrap(line, _WIDTH, subsequent_indent="    ", break_long_words=False) for line in lines)
        return "\n".join(part for parts in wrapped for part in parts)

    def surface(self, earlier: int, later: int) -> tuple[Mediator, ...]:
        """List the nodes of one module through which it feeds another, the strongest first."""
        return tuple(v for v in self.mediators if (v.earlier, v.later) == (earlier, later))

    def to_frame(self, *, graph: InteractionGraph | None = None) -> pandas.DataFrame:
        """Convert to a pandas data frame of the nodes: cut, coordinate, module (-1: none), and what is known of each.

        Where independent searches were made it has their `confidence`, and with the graph the `importance`.

        Raises:
            GraphError: the partition is of another graph.
            InputError: pandas is not installed.
        """
        columns = dict(self._columns())
        if graph is not None:
            if graph.cuts != self.cuts or graph.widths != tuple(map(len, self.labels)):
                seen = dict(zip(graph.cuts, graph.widths, strict=True))
                raise GraphError(f"the graph has the nodes {seen}, the partition others: expected its own graph")
            columns["importance"] = np.concatenate(graph.importance)
        return data_frame(columns)

    def _columns(self) -> Columns:
        columns: dict[str, Any] = {
            "cut": np.repeat(np.array(self.cuts, dtype=object), [len(label) for label in self.labels]),
            "coordinate": np.concatenate([np.arange(len(label)) for label in self.labels]),
            "module": np.concatenate(self.labels),
        }
        return columns | ({"confidence": np.concatenate(self.confidence)} if self.confidence else {})

    def _repr_html_(self) -> str:
        """Return a table of the modules, and the verdict with its reason."""
        columns: dict[str, Any] = {"module": [m.index for m in self.modules], "nodes": [m.size for m in self.modules]}
        columns |= {cut: [m.sizes[i] for m in self.modules] for i, cut in enumerate(self.cuts)}
        columns["cost inside"] = [m.inner_cost for m in self.modules]
        columns["cost to others"] = [m.outer_cost for m in self.modules]
        notes = [f"Verdict: {self.verdict} ({self.reason})"]
        if self.warning and self.n_modules > 1:
            notes.append(f"Warning: {self.warning}")
        head = "One module" if self.n_modules == 1 else f"{self.n_modules} modules"
        return html_table(f"{head}, edge cost {self.edge_cost:.4g}, contrast {self.contrast:.3f}", columns, notes)

    def plot_profile(self, *, title: str | None = None) -> Figure:
        """Draw the profile over resolutions."""
        return figure(self, "profile", title=title)

    def plot_controls(self, *, title: str | None = None) -> Figure:
        """Draw edges, cost and modules of the network beside those of its untrained copies.

        Raises:
            GraphError: no copies were asked for, or none could be analysed.
        """
        return figure(self, "controls", title=title)

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        arrays = {f"labels.{i}": a for i, a in enumerate(self.labels)}
        arrays |= {f"confidence.{i}": a for i, a in enumerate(self.confidence)}
        for k, level in enumerate(self.hierarchy):
            arrays |= {f"level.{k}.{i}": a for i, a in enumerate(level.labels)}
        for name, kind in _MEDIATOR.items():
            column = [getattr(v, name) for v in self.mediators]
            arrays[f"mediators.{name}"] = np.array([np.nan if v is None else v for v in column], dtype=kind)
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("labels", "confidence", "mediators"):
            del values[name]
        values["controls"] = [asdict(row) for row in self.controls]
        for name in ("tail_p", "seeds", "controls"):
            if not values[name]:  # as in files of versions before 0.8
                del values[name]
        values["modules"] = [asdict(m) for m in self.modules]
        values["profile"] = [asdict(row) for row in self.profile]
        values["hierarchy"] = [{**asdict(level), "labels": None} for level in self.hierarchy]
        return encode("partition", arrays, values)

    @classmethod
    def from_bytes(cls, data: bytes) -> Partition:
        """Rebuild a partition from `to_bytes`, also of version 0.1, which stored less."""
        arrays, meta = decode("partition", data)
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in meta.items() if name in known}
        cuts = tuple(meta["cuts"])

        def per_cut(prefix: str) -> tuple[np.ndarray, ...]:
            return tuple(arrays[f"{prefix}.{i}"] for i in range(len(cuts)))

        values["cuts"], values["labels"] = cuts, per_cut("labels")
        values["modules"] = tuple(
            Module(**{**m, "cuts": tuple(m["cuts"]), "sizes": tuple(m["sizes"])}) for m in meta["modules"]
        )
        values["epsilons"] = tuple(meta.get("epsilons") or [meta["epsilon"]] * (len(cuts) - 1))
        values.setdefault("epsilon_source", "graph" if meta["full_strength"] != 1.0 else "given")
        values["seeds"] = tuple(values.get("seeds", ()))
        values["controls"] = tuple(
            ControlRow(**{**row, "permuted": tuple(row["permuted"])}) for row in values.get("controls", ())
        )
        values["confidence"] = per_cut("confidence") if "confidence.0" in arrays else ()
        values["profile"] = tuple(ProfileRow(**{**_OLD_ROW, **row}) for row in meta["profile"])
        values["hierarchy"] = tuple(
            Level(**{**level, "labels": per_cut(f"level.{k}"), "parents": tuple(level["parents"])})
            for k, level in enumerate(meta["hierarchy"] or ())
        )
        if "verdict" not in values:
            values["verdict"], values["reason"] = _verdict_of_old(values)
        columns = [arrays.get(f"mediators.{name}", np.empty(0)).tolist() for name in _MEDIATOR]
        values["mediators"] = tuple(
            Mediator(*ends, gamma=None if np.isnan(gamma) else gamma) for *ends, gamma in zip(*columns, strict=True)
        )
        return cls(**values)


def _verdict_of_old(values: dict[str, Any]) -> tuple[str, str]:
    """Return the verdict on a partition of version 0.6 or before, whose null graphs took chains for modules."""
    if values["n_modules"] == 1:
        return "one module", (values.get("warning") or "no division was asked for").removeprefix("one module: ")
    if values.get("p_value") is None:
        return "untested", "no null graph was searched for this division"
    if (values.get("warning") or "").startswith("no more modular"):
        return "not told apart from chance", "null graphs divide as well"
    return "untested", "found by a version that took one-to-one chains for evidence: divide the graph again"


_WIDTH = 88  # characters in a line of the repr

_MEDIATOR = {
    "earlier": int,
    "later": int,
    "cut": int,
    "coordinate": int,
    "strength": float,
    "cost": float,
    "gamma": float,
}

_OLD_ROW = {"contrast": float("nan"), "description_length": float("nan"), "significant": None}
