"""The whole way in one call: from a model and its data to its modules and the evidence for them."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from ..basis.bases import Bases
from ..checkpoints.checkpoint import Checkpoint
from ..comparison.distance import NetworkDistance, network_distance
from ..devices.device import sums_on
from ..devices.memory import limited_memory
from ..errors import InputError
from ..fields import Loss
from ..figures.report import page
from ..graph.interaction_graph import InteractionGraph
from ..graph.remarks import graph_remarks
from ..huggingface.language import CountedAt, assumed_network, numbered
from ..meaning.cards import Cards
from ..meaning.describing import describe
from ..meaning.inputs import names_of
from ..modules.partition import Partition
from ..modules.untrained import control_note
from ..names import Names
from ..network.batches import Batch, batch_size, doubled, map_tensors, take_points
from ..network.checks import spread
from ..network.cut_search import LeftOut
from ..network.hooks import copied_to
from ..network.network import Network
from ..notebook.bars import with_bar
from ..notebook.tables import html_table
from ..progress import ProgressCallback
from ..recipe import GraphRecipe, Recipe, build_bases, build_graph, controlled, partition_graph
from ..results import Result, by_value, decode, encode, write_bytes
from .data import Data, read_data

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = ["Analysis", "analyze", "run"]

_DOUBLED = 10**8  # parameters; larger models are not copied to float64

_AGREE = 1e-2  # largest difference between the outputs of a model and of its float64 copy, relative to the largest

_COARSE = 1e-6  # rank tolerance of models that are computed in float32 or less: below is rounding

_WIDTH = 80


@by_value
@dataclass(frozen=True, repr=False)
class Analysis(Result):
    """What `analyze` found: bases, graph, modules, and the evidence for them.

    Attributes:
        bases: the interaction basis of every cut.
        graph: the interaction graph.
        partition: its modules.
        recipe: the choices that fix them.
        n: number of data points.
        precision: "float64", or the type of the model where it cannot run in float64.
        network: the network that was analysed, with a float64 copy of the model; None in a loaded analysis.
        data: the batches, and the labels as `data.targets`; None in a loaded analysis.
    """

    bases: Bases
    graph: InteractionGraph
    partition: Partition
    recipe: Recipe
    n: int
    precision: str
    network: Network | None = field(default=None, compare=False)
    data: Data | None = field(default=None, compare=False)

    @property
    def verdict(self) -> str:
        """The verdict: "supported", "one module", "not told apart from chance" or "untested"."""
        return self.partition.verdict

    @property
    def reason(self) -> str:
        """The reason of the verdict."""
        return self.partition.reason

    @property
    def summary(self) -> str:
        """The verdict, the modules at each cut, and what was left out, in lines of up to 80 characters."""
        n = self.partition.n_modules
        title = f"{n} module{'s' * (n != 1)}, {self.verdict}" if n > 1 or self.verdict != "one module" else "One module"
        return "\n".join([*_filled(f"{title}: {self.reason}"), "", *self._table(), "", *self._notes()])

    def __repr__(self) -> str:
        """Return the summary."""
        return self.summary

    def _table(self) -> list[str]:
        """Make a line per cut: features, nodes, and the nodes of as many modules as there is room for."""
        n = self.partition.n_modules
        shown = min(n, 12)
        while shown and max(map(len, self._lines(shown))) > _WIDTH:
            shown -= 1
        return self._lines(shown) + ([f"(and {n - shown} smaller modules)"] if shown < n else [])

    def _lines(self, n: int) -> list[str]:
        """Make the table with the largest n modules."""
        rows = [["cut", "features", "nodes", *(f"module {m}" for m in range(n)), "no edge"]]
        for cut, labels in zip(self.graph.cuts, self.partition.labels, strict=True):
            name = cut if len(cut) <= 24 else f"...{cut[-21:]}"
            counts = [int((labels == m).sum()) for m in (*range(n), -1)]
            rows.append([name, str(self.bases[cut].to_basis.shape[1]), str(len(labels)), *map(str, counts)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]

    def _notes(self) -> Iterator[str]:
        """Say what lies at no cut, and what the numbers are of."""
        left_out: Any = self.graph.settings.get("left_out", {})
        for sentence in LeftOut(**left_out).sentences() if left_out else ():
            yield from _filled(sentence)
        graph, scale = self.recipe.graph, self.partition.epsilon
        yield from _filled(
            f"{self.n:,} data points, {graph.basis} basis, {graph.loss or 'mse'} loss, loss scale {scale:.3g}, "
            f"computed in {self.precision}."
        )
        for sentence in (*graph_remarks(self.graph, self.partition.epsilons), control_note(self.partition.controls)):
            yield from _filled(sentence)

    def describe(
        self,
        *,
        names: Names | Mapping[str, Any] | None = None,
        targets: Any = None,
        progress: ProgressCallback | None = None,
        **choices: Any,
    ) -> Cards:
        """Say of every node and module what excites it and what it does to the outputs, see `meaning.describe`.

        Args:
            names: names of tokens, pictures, features, outputs and classes; default: those that came with the data.
            targets: the target of each data point; default: the labels that came with the data.
            progress: called as the work goes on.
            choices: further choices of `meaning.describe`: examples, points, seed, ...

        Raises:
            InputError: the analysis was loaded from a file, which holds neither network nor data; or unknown names.
        """
        if self.network is None or self.data is None:
            raise InputError(
                "this analysis was loaded from a file, which holds neither network nor data: analyse again, or call "
                "describe(network, bases, graph, partition, batches) with those of the analysis"
            )
        given = self.data.targets if targets is None else targets
        parts = self.bases, self.graph, self.partition
        known = names_of((), names).filled(self.data.names)
        return describe(
            self.network, *parts, self.data.batches, names=known, targets=given, progress=progress, **choices
        )

    def plot(self, *, title: str | None = None) -> Figure:
        """Draw the interaction graph, its modules in colour."""
        return self.graph.plot(self.partition, title=title)

    def plot_interactive(self, *, title: str | None = None) -> Any:
        """Draw the interaction graph with a card at each node, as a plotly figure.

        Raises:
            InputError: plotly is not installed.
        """
        return self.graph.plot_interactive(self.partition, title=title)

    def to_frame(self) -> pandas.DataFrame:
        """Return a row per node: cut, coordinate, module (-1: no edge), confidence and importance.

        Raises:
            InputError: pandas is not installed.
        """
        return self.partition.to_frame(graph=self.graph)

    def _repr_html_(self) -> str:
        """Return the verdict, the nodes of each module at each cut, and what lies at no cut, for notebooks."""
        n, labels = self.partition.n_modules, self.partition.labels
        columns: dict[str, Sequence[Any]] = {"cut": self.graph.cuts, "nodes": self.graph.widths}
        for module in range(min(n, 12)):
            columns[f"module {module}"] = [int((label == module).sum()) for label in labels]
        columns["no edge"] = [int((label < 0).sum()) for label in labels]
        head = "One module" if n == 1 else f"{n} modules: {self.verdict}"
        return html_table(head, columns, [self.reason, *self._notes()])

    def report(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Write one HTML file with verdict, modules, pictures of graph and evidence; it loads nothing from elsewhere.

        Args:
            path: of the file.
            title: default: the name of the model's class.

        Raises:
            InputError: the file cannot be written.
        """
        figures = {"The interaction graph": self.plot()}
        if self.partition.profile:
            figures["Every resolution that was tried, against null graphs"] = self.partition.plot_profile()
        named = title or (type(self.network.model).__name__ if self.network is not None else "Modules of a network")
        footer = f"interbasis {version('interbasis')}, {datetime.now():%Y-%m-%d %H:%M}"
        return write_bytes(path, page(named, self.summary, figures, footer).encode())

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes; network and data are left out."""
        parts = {"bases": self.bases, "graph": self.graph, "partition": self.partition}
        arrays = {name: np.frombuffer(part.to_bytes(), np.uint8) for name, part in parts.items()}
        choices = {**asdict(self.recipe.graph), **asdict(self.recipe.partition)}
        return encode("analysis", arrays, {"recipe": choices, "n": self.n, "precision": self.precision})

    @classmethod
    def from_bytes(cls, data: bytes) -> Analysis:
        """Rebuild an analysis from `to_bytes`."""
        arrays, meta = decode("analysis", data)
        recipe = Recipe.from_mapping(meta["recipe"])
        made = [
            kind.from_bytes(arrays[name].tobytes())
            for name, kind in (("bases", Bases), ("graph", InteractionGraph), ("partition", Partition))
        ]
        bases, graph, partition = cast("tuple[Bases, InteractionGraph, Partition]", tuple(made))
        return cls(bases, graph, partition, recipe, meta["n"], meta["precision"])


@with_bar
def analyze(
    model: nn.Module | Network,
    data: Any,
    *,
    labels: bool | None = None,
    cuts: str | Sequence[str | Sequence[str]] | None = None,
    output: str | int | None = None,
    loss: str | None = None,
    positions: str | None = None,
    device: str | torch.device | None = None,
    memory: str | int | None = None,
    recipe: Recipe | None = None,
    seeds: NetworkDistance | Sequence[Any] | None = None,
    progress: ProgressCallback | None = None,
    **choices: Any,
) -> Analysis:
    """Find the modules of a network: check it, then compute bases, graph, partition and evidence.

    The model is left as it is. It is analysed in evaluation mode and, where it can run so, in float64, on a copy; else
    directions below 1e-6 of the largest are taken for rounding.

    Args:
        model: any module; or a `Network`, for masks, positions and layouts of its own.
        data: a tensor of data points, a list of batches, a DataLoader, also of (inputs, labels): see `read_data`.
        labels: whether the batches end in labels, where the model does not tell.
        cuts: where to read the network, see `Network`; default: one cut per layer, after its activation.
        output: which part of the model's return value is the output, see `Network`.
        loss: "mse" or "kl" (the outputs are logits of one softmax); default: "kl" where the output is as wide as the
            vocabulary of an embedding, else "mse".
        positions: which positions count: "all", "mask" (those of `attention_mask` in the batches), "later" (of these
            all but the first) or "last"; default: "later" for decoders, else "mask" where there is one.
        device: where to compute, see `Network`; default: where the model is.
        memory: limit of memory, such as "8GiB", which larger batches are split for; default: half of what is free.
            Results do not depend on it.
        recipe: all other choices; default: those in `choices`.
        seeds: with `epsilon="seeds"`: two or more models, networks or checkpoints that do the same job; the loss scale
            is the mean of their distances on the data (see `network_distance`), or those that are given. This model
            counts where it is among them.
        progress: called as the work goes on.
        choices: fields of `GraphRecipe` and `PartitionRecipe`: basis, probes, rotation, epsilon, resolution, seed, ...

    Raises:
        InputError: choices that there are not, or are given twice.
        InterbasisError: whatever `read_data`, `Network`, `interaction_basis` and `find_modules` refuse.

    >>> two = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> found = analyze(two, torch.randn(100, 4, generator=torch.Generator().manual_seed(0)))
    >>> found.graph.cuts, found.precision
    (('0:in', '1', '2'), 'float64')
    """
    named = {name: v for name, v in (("cuts", cuts), ("loss", loss), ("positions", positions)) if v is not None}
    if isinstance(model, Network) and (named or output is not None or device is not None):
        raise InputError(
            "the model is a Network, which has its cuts, output, loss, positions and device: give these to Network(...)"
        )
    if recipe is not None and (choices or named):
        raise InputError(f"{', '.join([*named, *choices])} given beside a recipe: give all choices in the recipe")
    networks = _networks(choices, seeds)
    chosen = recipe or Recipe.from_mapping({**named, **choices})
    given = read_data(model.model if isinstance(model, Network) else model, data, labels=labels, progress=progress)
    if isinstance(model, Network):
        net, counted = model, chosen.graph.positions
    else:
        given = replace(given, batches=numbered(model, given.batches))
        net, counted = _network(copied_to(model, device), given, chosen, output)
    net, batches = _in_double(net, given)
    if counted is not None:
        chosen = replace(chosen, graph=replace(chosen.graph, positions=counted))
    coarse = any(p.is_floating_point() and p.dtype != torch.float64 for p in net.model.parameters())
    if coarse and chosen.graph.rank_tolerance == GraphRecipe.rank_tolerance:
        chosen = replace(chosen, graph=replace(chosen.graph, rank_tolerance=_COARSE))
    with limited_memory(memory):
        fitting = _that_fit(net, batches)
        chosen = chosen if networks is None else _at_distance(chosen, net, networks, fitting, progress)
        return _analysis(net, Data(fitting, given.targets, given.names), chosen, progress)


@with_bar
def run(checkpoint: Checkpoint, recipe: Recipe, *, progress: ProgressCallback | None = None) -> Analysis:
    """Analyse a checkpoint as it was loaded; cuts, loss and positions are its own.

    Raises:
        InterbasisError: whatever `interaction_basis`, `interaction_graph` or `find_modules` refuse.
    """
    own = checkpoint.batches
    return _analysis(checkpoint.network, Data(tuple(own), own.targets, own.names), recipe, progress)


def _analysis(net: Network, data: Data, recipe: Recipe, progress: ProgressCallback | None) -> Analysis:
    if net.loss != (recipe.graph.loss or "mse"):
        recipe = replace(recipe, graph=replace(recipe.graph, loss=cast(Loss, net.loss)))
    bases = build_bases(net, data.batches, recipe.graph, progress=progress)
    graph = build_graph(net, bases, data.batches, recipe.graph, progress=progress)
    partition = partition_graph(graph, recipe.partition, progress=progress)
    partition = controlled(partition, graph, net, data.batches, recipe, progress=progress)
    kinds = {str(p.dtype).removeprefix("torch.") for p in net.model.parameters() if p.is_floating_point()}
    return Analysis(bases, graph, partition, recipe, data.n, ", ".join(sorted(kinds)) or "float64", net, data)


def _networks(
    choices: dict[str, Any], seeds: NetworkDistance | Sequence[Any] | None
) -> NetworkDistance | Sequence[Any] | None:
    """Return the networks whose distance is to be the loss scale, and take "seeds" out of the choices.

    Names of networks beside a number are a choice like others, see `NetworkDistance.choices`.
    """
    epsilon = choices.get("epsilon")
    named = isinstance(epsilon, str) and epsilon == "seeds"
    if seeds is not None and not named and not (isinstance(seeds, Sequence) and all(isinstance(s, str) for s in seeds)):
        raise InputError('networks are given as seeds: say epsilon="seeds", that their distance is the loss scale')
    if named and seeds is None:
        raise InputError('epsilon is "seeds": give the networks as seeds=[...], two or more')
    if named:
        del choices["epsilon"]
        return seeds
    if seeds is not None:
        choices["seeds"] = seeds
    return None


def _at_distance(
    recipe: Recipe,
    net: Network,
    networks: NetworkDistance | Sequence[Any],
    batches: Sequence[Batch],
    progress: ProgressCallback | None,
) -> Recipe:
    """Take the mean distance of networks for the loss scale; models are read as the network is."""
    found = networks
    if not isinstance(found, NetworkDistance):
        double = all(p.dtype == torch.float64 for p in net.model.parameters() if p.is_floating_point())
        nets = [net.with_model(each) if isinstance(each, nn.Module) else each for each in found]
        nets = [each.in_double() if double and isinstance(each, Network) else each for each in nets]
        found = network_distance(nets, batches, progress=progress)
    return replace(recipe, partition=replace(recipe.partition, **found.choices))


def _network(
    model: nn.Module, data: Data, recipe: Recipe, output: str | int | None
) -> tuple[Network, CountedAt | None]:
    graph = recipe.graph
    cuts = "auto" if graph.cuts in (None, ("auto",)) else cast("Any", graph.cuts)
    return assumed_network(model, data.batches, cuts=cuts, output=output, loss=graph.loss, positions=graph.positions)


def _in_double(net: Network, data: Data) -> tuple[Network, Sequence[Any]]:
    """Return network and data in float64.

    They stay as they are where the model is large, gives other outputs in float64, or is on a device without it.
    """
    kinds = {p.dtype for p in net.model.parameters() if p.is_floating_point()}
    kind = kinds.pop() if len(kinds) == 1 else None
    own = map_tensors(lambda v: v.to(kind) if kind is not None and v.is_floating_point() else v, data.batches)
    few = spread(own[0])
    if sum(p.numel() for p in net.model.parameters()) > _DOUBLED or sums_on(net.device) != net.device:
        return net, own
    try:
        exact = net.in_double()
        batches = tuple(doubled(data.batches))
        there, here = exact.output(next(iter(doubled([few])))), net.output(few)
    except Exception:  # any error: a model that names its type, or that cannot be copied
        return net, own
    agree = there.shape == here.shape and float((there - here).abs().max()) <= _AGREE * float(there.abs().max())
    return (exact, batches) if agree else (net, own)


def _that_fit(net: Network, batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """Split batches of more data points than fit into memory."""
    most = net.points_that_fit(batches[0]) or max(map(batch_size, batches))
    return tuple(
        take_points(batch, slice(start, start + most))
        for batch in batches
        for start in range(0, batch_size(batch), most)
    )


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False)
