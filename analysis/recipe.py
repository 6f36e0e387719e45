"""Recipe: all choices of an analysis in one value that is stored and hashed with its results; and its steps."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from .attribution.paths import as_shares, kept_by_influence
from .basis.bases import Bases
from .basis.interaction_basis import interaction_basis
from .checkpoints.checkpoint import Checkpoint
from .circuits.experiments import ExperimentRecipe
from .degeneracy.ledger import Ledger, parameter_ledger
from .errors import InputError, InterbasisError
from .fields import Count, Loss, Name, Natural, NotNegative, Positive, Share, settle_fields, settled
from .graph.cost import edge_costs
from .graph.forecast import forecast
from .graph.interaction_graph import InteractionGraph
from .graph.skip_paths import has_streams
from .graph.strengths import interaction_graph
from .huggingface.language import CountedAt
from .llc.chains import Sampler
from .llc.coefficient import LearningCoefficient, LearningCoefficientCurve
from .llc.estimate import learning_coefficient, learning_coefficient_curve
from .modules.find_modules import compared, find_modules
from .modules.partition import Partition
from .modules.untrained import ControlRow, drawn_anew
from .network.batches import Batch
from .network.network import Network
from .progress import Progress, ProgressCallback
from .reading.any_graph import graph_of_bytes
from .refined.coefficients import RefinedCoefficients
from .refined.estimating import module_coefficients, refined_coefficients

__all__ = [
    "CompareRecipe",
    "DescribeRecipe",
    "GraphRecipe",
    "ImportRecipe",
    "LedgerRecipe",
    "LlcRecipe",
    "PartitionRecipe",
    "Recipe",
    "build_bases",
    "build_graph",
    "build_ledger",
    "build_llc",
    "controlled",
    "from_choices",
    "imported_graph",
    "partition_graph",
    "read_choices",
]


_MANY_PASSES = 4096  # backward passes per data point, above which sums are estimated

_TOLERANCE = 0.05

_FEWEST_PROBES = 4  # of a tolerance: two rounds

_LONG = 60.0  # seconds, above which the time that an analysis takes is said first

_MOST_PROBES = 64  # where the tolerance is not asked for, what so many reach is said

_CAME_LATER = ("positions", "tolerance", "batch_size", "nulls", "seeds", "untrained", "modules", "parts")

RecipeT = TypeVar(
    "RecipeT", "CompareRecipe", "DescribeRecipe", "ImportRecipe", "LedgerRecipe", "LlcRecipe", ExperimentRecipe
)

_Cuts = Annotated[
    tuple[Name | Annotated[tuple[Name, ...], Field(min_length=1)], ...],
    Field(min_length=1, description="'auto', a name, or a list of names (lists of names are concatenated)"),
]

_Epsilon = Annotated[
    Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] | Literal["graph", "pairs"],
    Field(description="a number above 0, a list of one per pair of cuts, 'graph' or 'pairs'"),
]


_Seeds = Annotated[tuple[Name, ...], Field(min_length=2, description="a list of names of two networks or more")]


def _check_seeds(seeds: tuple[str, ...] | None, epsilon: Any) -> None:
    if seeds is not None and not isinstance(epsilon, float):
        raise InputError(
            f"epsilon is {epsilon!r} and seeds are given: expected the mean distance of these networks as epsilon, a "
            "number; `network_distance([...]).choices` has both"
        )


@dataclass(frozen=True)
class GraphRecipe:
    """The choices that fix an interaction graph; see `interaction_basis` and `interaction_graph`.

    Attributes:
        probes: random probes per data point. With neither probes nor a tolerance sums are exact where that takes at
            most 4,096 backward passes per data point, and else random with a tolerance of 5 %.
        tolerance: relative standard error of the importance of the directions at which no more probes are taken.
    """

    cuts: _Cuts | None = None
    loss: Loss | None = None
    basis: Literal["global", "local", "pca", "neuron"] = "global"
    positions: CountedAt | None = None
    output: Literal["auto", "pca", "neuron"] = "auto"
    rotation: Literal["none", "degenerate", "full"] = "degenerate"
    rank_tolerance: Share = 1e-10
    gap: NotNegative = 0.25
    probes: Count | None = None
    tolerance: Share | None = None
    strengths: Literal["jacobian", "attribution"] = "jacobian"
    points: Count = 1
    seed: Natural = 0

    def __post_init__(self) -> None:
        settle_fields(self)
        if self.probes is not None and self.tolerance is not None:
            raise InputError(f"probes {self.probes} and tolerance {self.tolerance} were given: expected one of them")

    @property
    def sha256(self) -> str:
        """Hash of all choices."""
        return _hash(self)


@dataclass(frozen=True)
class PartitionRecipe:
    """The choices that fix a partition of a given graph; see `find_modules`.

    Attributes:
        control: compare a division that null graphs support with that of an untrained copy of the network. This needs
            the network (`analyze`); a stored graph is divided without the comparison.
        nulls: number of null graphs; None: 20 where the resolution is chosen, else none.
        seeds: the networks whose mean distance epsilon is, see `network_distance`.
        untrained: number of untrained copies that are analysed beside the network whatever the verdict, see
            `controlled`; like `control` this needs the network.
    """

    epsilon: _Epsilon | None = None
    seeds: _Seeds | None = None
    objective: Literal["layered_cpm", "layered_modularity", "kway", "cpm", "modularity"] | None = None
    resolution: NotNegative | None = None
    k: Count | None = None
    min_size: Count | None = None
    max_size: Count | None = None
    mediator_polish: bool = False
    chains: Literal["discount", "count"] = "discount"
    control: bool = True
    nulls: Annotated[int, Field(ge=4, lt=2**63, description="a whole number of at least 4")] | None = None
    untrained: Count | None = None
    seed: Natural = 0

    def __post_init__(self) -> None:
        settle_fields(self)
        _check_seeds(self.seeds, self.epsilon)

    @property
    def search(self) -> dict[str, Any]:
        """The choices as arguments of `find_modules`."""
        others = ("control", "untrained")
        return {"n_null" if name == "nulls" else name: v for name, v in asdict(self).items() if name not in others}

    @property
    def sha256(self) -> str:
        """Hash of all choices."""
        return _hash(self)


@dataclass(frozen=True)
class LedgerRecipe:
    """The choices that fix a parameter ledger; see `parameter_ledger`.

    Attributes:
        positions: which positions count in a model of `save_pretrained`, see `assumed_network`.
        seeds: the networks whose mean distance epsilon is, see `network_distance`.
    """

    loss: Loss | None = None
    positions: CountedAt | None = None
    epsilon: Positive | None = None
    seeds: _Seeds | None = None
    tolerance: Share = 1e-10
    method: Literal["auto", "exact", "estimate"] = "auto"
    seed: Natural = 0

    def __post_init__(self) -> None:
        settle_fields(self)
        _check_seeds(self.seeds, self.epsilon)

    @property
    def sha256(self) -> str:
        """Hash of all choices."""
        return _hash(self)


@dataclass(frozen=True)
class LlcRecipe:
    """The choices that fix a learning coefficient; see `learning_coefficient` and `Sampler`.

    Attributes:
        epsilon, temperature, curve: exactly one: a loss scale, a temperature, or the default range of loss scales.
        seeds: the networks whose mean distance epsilon is, see `network_distance`.
        positions: which positions count in a model of `save_pretrained`, see `assumed_network`.
        parameters: globs on the names of the parameters to vary; None for all.
        modules: a partition, whose modules are counted one by one, see `module_coefficients`; without a loss scale at
            that of the partition.
        parts: sets of parameters that are counted one by one, see `refined_coefficients`: globs, slices, or "auto".
        batch_size: random data points of each step, for sgld, psgld and sgnht; None: see `Sampler`.

    The other options of `Sampler` (control_variate, execution, workers) keep their defaults.

    Raises:
        InputError: none or several of epsilon, temperature and curve, options that exclude each other, or unsuitable
            ones of the sampler.

    >>> LlcRecipe(epsilon=1e-3, chains=2).sampler.chains
    2
    """

    loss: Loss | None = None
    positions: CountedAt | None = None
    epsilon: Positive | None = None
    seeds: _Seeds | None = None
    temperature: Positive | None = None
    curve: bool = False
    parameters: Annotated[tuple[Name, ...], Field(min_length=1, description="a list of names or globs")] | None = None
    modules: Name | None = None
    parts: Annotated[tuple[Name, ...], Field(min_length=1, description="a list of globs or slices")] | None = None
    kernel: str = "auto"
    preconditioner: str = "auto"
    radius: float = 0.02
    gamma: float | None = None
    chains: int = 4
    warmup: int | None = None
    draws: int | None = None
    step_size: float | None = None
    batch_size: Count | None = None
    seed: Natural = 0

    def __post_init__(self) -> None:
        settle_fields(self)
        chosen = [name for name in ("epsilon", "temperature") if getattr(self, name) is not None]
        chosen += ["curve"] if self.curve else []
        counted = [name for name in ("modules", "parts", "parameters") if getattr(self, name) is not None]
        if len(counted) > 1:
            raise InputError(f"{' and '.join(counted)} were given: expected one of them")
        if (self.modules or self.parts) and (self.temperature is not None or self.curve):
            raise InputError(f"{counted[0]}: all parts are counted at one loss scale: give epsilon alone")
        if not chosen and self.modules is None:
            raise InputError("no loss scale: give epsilon for one, or curve for a range of them")
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)} were given: expected one of epsilon, temperature and curve")
        _check_seeds(self.seeds, self.epsilon)
        _ = self.sampler

    @property
    def sampler(self) -> Sampler:
        """The options of the sampler."""
        return Sampler(
            kernel=self.kernel,
            preconditioner=self.preconditioner,
            radius=self.radius,
            gamma=self.gamma,
            chains=self.chains,
            warmup=self.warmup,
            draws=self.draws,
            step_size=self.step_size,
            batch_size=self.batch_size or "auto",
        )

    @property
    def sha256(self) -> str:
        """Hash of all choices."""
        return _hash(self)


@dataclass(frozen=True)
class Recipe:
    """The choices of a whole analysis: of the graph, and of its partition.

    >>> Recipe.from_mapping({"basis": "local", "epsilon": 0.01}).graph.basis
    'local'
    """

    graph: GraphRecipe = GraphRecipe()
    partition: PartitionRecipe = PartitionRecipe()

    @classmethod
    def from_mapping(cls, choices: Mapping[str, Any]) -> Recipe:
        """Build a recipe from flat names; choices that are None keep their defaults, `seed` goes to both parts.

        Raises:
            InputError: a name that no part of the recipe has, or a value of the wrong type.
        """
        given = {k: v for k, v in choices.items() if v is not None}
        _refuse_unknown(given, "recipe", GraphRecipe, PartitionRecipe)
        if isinstance(given.get("cuts"), str):
            given["cuts"] = (given["cuts"],)
        if isinstance(given.get("epsilon"), str) and given["epsilon"] == "graph":
            del given["epsilon"]  # the default

        def part(kind: type[GraphRecipe] | type[PartitionRecipe]) -> Any:
            return kind(**settled(kind, {f.name: given[f.name] for f in fields(kind) if f.name in given}))

        return cls(part(GraphRecipe), part(PartitionRecipe))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe from a .toml or .json file of flat names.

        Raises:
            InputError: the file cannot be read, or holds unknown names.
        """
        return cls.from_mapping(read_choices(path))


@dataclass(frozen=True)
class DescribeRecipe:
    """The choices that fix what is on a card; see `meaning.describe`.

    >>> DescribeRecipe(examples=3).examples
    3
    """

    examples: Count = 8
    deciles: Natural = 2
    sampled: Annotated[int, Field(ge=10, description="a whole number of at least 10")] = 1000
    points: Natural | None = None
    outputs: Count = 10
    neighbours: Natural = 8
    seed: Natural = 0

    def __post_init__(self) -> None:
        settle_fields(self)


@dataclass(frozen=True)
class CompareRecipe:
    """The choices that fix a comparison of two divisions; see `comparison.compare_partitions`.

    >>> CompareRecipe().permutations
    1000
    """

    permutations: Count = 1000
    seed: Natural = 0

    def __post_init__(self) -> None:
        settle_fields(self)


@dataclass(frozen=True)
class ImportRecipe:
    """The choices that fix a graph that is read from a file; see `imported_graph`.

    Attributes:
        format: that of the file; None: as the content says.
        without: types of nodes to leave out; None: no type.
        longest_path: compute layers even where the file names them.
        keep: share of the influence on the outputs that the kept nodes, and then edges, carry; None: all are kept.
        unit: "weight": strengths are the weights of the file; "share": shares of the total weight into their target;
            None: the file's own, which is "weight" but for our own graphs.

    >>> ImportRecipe(keep=0.95).keep
    0.95
    """

    format: Literal["circuit-tracer", "node-link", "graphml", "gexf", "csv", "parquet", "safetensors"] | None = None
    without: Annotated[tuple[Name, ...], Field(min_length=1, description="a list of types of nodes")] | None = None
    longest_path: bool = False
    keep: Share | None = None
    unit: Literal["weight", "share"] | None = None

    def __post_init__(self) -> None:
        settle_fields(self)

    @property
    def sha256(self) -> str:
        """Hash of all choices."""
        return _hash(self)


def from_choices(kind: type[RecipeT], choices: Mapping[str, Any]) -> RecipeT:
    """Build a recipe of one of the small kinds from names and JSON values.

    Raises:
        InputError: a name that it does not have, or an unsuitable value.

    >>> from_choices(LlcRecipe, {"epsilon": 1, "parameters": ["layers.0.*"]}).parameters
    ('layers.0.*',)
    """
    _refuse_unknown(choices, kind.__name__, kind)
    return kind(**settled(kind, choices))


def imported_graph(data: bytes, recipe: ImportRecipe) -> InteractionGraph:
    r"""Read a graph from the content of a file: without some types of nodes, then what carries most influence.

    Raises:
        GraphError: see `read_graph` and `kept_by_influence`.

    >>> table = b"source,target,weight\na,c,3\nb,c,-1\n"
    >>> imported_graph(table, ImportRecipe(unit="share")).blocks[0].tolist()
    [[0.75, 0.25]]
    """
    options: dict[str, Any] = {"without": recipe.without or (), "longest_path": recipe.longest_path}
    graph = graph_of_bytes(data, format=recipe.format, **options)
    if recipe.keep is not None:
        graph = kept_by_influence(graph, recipe.keep)
    return as_shares(graph) if recipe.unit == "share" else replace(graph, unit=recipe.unit or graph.unit)


def build_bases(
    net: Network, batches: Iterable[Batch], recipe: GraphRecipe, *, progress: ProgressCallback | None = None
) -> Bases:
    """Build the bases, the first step of an analysis; cuts and loss are those of the network."""
    probes, tolerance = recipe.probes, recipe.tolerance
    if probes is None and tolerance is None and _backward_passes(net, batches, recipe) > _MANY_PASSES:
        probes, tolerance = _MOST_PROBES, _TOLERANCE
    if callable(progress):
        _tell_time(net, batches, recipe, (probes, tolerance), progress)
    return interaction_basis(
        net,
        batches,
        kind=recipe.basis,
        output=recipe.output,
        rotation=recipe.rotation,
        rank_tolerance=recipe.rank_tolerance,
        gap=recipe.gap,
        probes=probes,
        tolerance=tolerance,
        seed=recipe.seed,
        progress=progress,
    )


def _tell_time(
    net: Network,
    batches: Iterable[Batch],
    recipe: GraphRecipe,
    asked: tuple[int | None, float | None],
    progress: Callable[[Progress], None],
) -> None:
    """Report how long bases and strengths will take, where that is more than a minute."""
    net.check_once(batches)  # first: what is wrong with the network is said there
    probes, tolerance = asked
    drawn = None if asked == (None, None) else (_FEWEST_PROBES if tolerance else probes or 1, probes or _MOST_PROBES)
    points = recipe.points if recipe.strengths == "attribution" else 0
    expected = forecast(net, batches, kind=recipe.basis, probes=drawn, points=points)
    if expected.seconds > _LONG:
        progress(Progress("forecast", 0, message=str(expected)))


def _backward_passes(net: Network, batches: Iterable[Batch], recipe: GraphRecipe) -> int:
    """Count the backward passes per data point that exact sums of M take: one per output and position, at most."""
    if recipe.basis not in ("global", "local"):
        return 0
    output = net.output(next(iter(batches)))
    return output.shape[1] * output.shape[2]


def build_graph(
    net: Network,
    bases: Bases,
    batches: Iterable[Batch],
    recipe: GraphRecipe,
    *,
    progress: ProgressCallback | None = None,
) -> InteractionGraph:
    """Build the graph, the second step of an analysis."""
    estimated = bases.settings.get("seed") is not None
    measured = recipe.basis == "local" and recipe.strengths == "jacobian" and not estimated and bases.measured
    measured = measured and not has_streams(net, batches)
    return interaction_graph(
        net,
        bases,
        None if measured else batches,
        strengths=recipe.strengths,
        points=recipe.points,
        probes=(recipe.probes or 1) if estimated and recipe.strengths == "jacobian" else None,
        seed=recipe.seed,
        progress=progress,
    )


def partition_graph(
    graph: InteractionGraph, recipe: PartitionRecipe, *, progress: ProgressCallback | None = None
) -> Partition:
    """Divide the graph into modules, the third step of an analysis."""
    return find_modules(graph, **recipe.search, progress=progress)


def controlled(
    partition: Partition,
    graph: InteractionGraph,
    net: Network,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    progress: ProgressCallback | None = None,
) -> Partition:
    """Compare a division with those of untrained copies, the last step of an analysis; see `compared`.

    The copies go through the same steps with the same choices: a loss scale that is read off the strengths is read off
    their own. A supported division is compared with one copy, or with the most modular of as many as
    `recipe.partition.untrained` asks for; these are listed as `Partition.controls`, whatever the verdict. Their
    parameters have the seeds seed, seed + 1, ... If no copy can be analysed, the reason says so.
    """
    chosen = recipe.partition
    compare = chosen.control and partition.verdict == "supported"
    rows, found, failed = [_control_row("this network", graph, partition)], [], None
    for i in range(chosen.untrained or int(compare)):
        name, seed = f"untrained copy {i + 1}", chosen.seed + i
        try:
            model, permuted = drawn_anew(net.model, seed=seed)
            untrained = net.with_model(model)
            bases = build_bases(untrained, batches, recipe.graph, progress=progress)
            other = build_graph(untrained, bases, batches, recipe.graph, progress=progress)
            beside = partition_graph(other, chosen, progress=progress)
            drawn = sum(1 for _ in model.parameters()) - len(permuted)
            rows.append(replace(_control_row(name, other, beside), seed=seed, drawn=drawn, permuted=permuted))
            found.append((beside, bases.settings["output"] == "neuron"))
        except InterbasisError as error:
            rows.append(ControlRow(name, seed, reason=str(error)))
            failed = error
    if compare and found:
        beside, outputs_given = max(found, key=lambda each: _modularity(each[0]))
        partition = compared(partition, beside, outputs_given=outputs_given)
    elif compare:
        reason = f"{partition.reason}; an untrained copy of the network could not be compared: {failed}"
        partition = replace(partition, reason=reason)
    return replace(partition, controls=tuple(rows)) if chosen.untrained else partition


def _modularity(partition: Partition) -> float:
    """Return what `compared` compares: the contrast beyond chains of a supported division, else less than any."""
    return (partition.beyond_chains or 0.0) if partition.verdict == "supported" else -math.inf


def _control_row(name: str, graph: InteractionGraph, partition: Partition) -> ControlRow:
    values = {key: getattr(partition, key) for key in ("edge_cost", "normalised_cost", "n_modules", "contrast")}
    edges = len(edge_costs(graph, partition.epsilons))
    return ControlRow(name, epsilon=partition.epsilon, n_edges=edges, verdict=partition.verdict, **values)


def build_ledger(checkpoint: Checkpoint, recipe: LedgerRecipe, *, progress: ProgressCallback | None = None) -> Ledger:
    """Build the parameter ledger of a checkpoint; loss and positions are those of the loaded checkpoint."""
    choices = {name: v for name, v in asdict(recipe).items() if name not in ("loss", "positions", "seeds")}
    return parameter_ledger(checkpoint.network, checkpoint.batches, **choices, progress=progress)


def build_llc(
    checkpoint: Checkpoint,
    recipe: LlcRecipe,
    *,
    divided: tuple[Bases, Partition] | None = None,
    progress: ProgressCallback | None = None,
) -> LearningCoefficient | LearningCoefficientCurve | RefinedCoefficients:
    """Estimate the learning coefficient of a checkpoint, its curve, or those of its parts; loss as loaded.

    Args:
        checkpoint: the network and its data.
        recipe: the choices.
        divided: bases and partition that `recipe.modules` names.
        progress: called as the chains go on.
    """
    network, batches = checkpoint.network, checkpoint.batches
    shared: dict[str, Any] = {"sampler": recipe.sampler, "seed": recipe.seed, "progress": progress}
    if divided is not None:
        bases, partition = divided
        return module_coefficients(network, bases, partition, batches=batches, epsilon=recipe.epsilon, **shared)
    if recipe.parts is not None and recipe.epsilon is not None:
        parts = "auto" if recipe.parts == ("auto",) else recipe.parts
        return refined_coefficients(network, batches, recipe.epsilon, parts=parts, **shared)
    common: dict[str, Any] = {"parameters": recipe.parameters, "sampler": recipe.sampler, "seed": recipe.seed}
    if recipe.curve:
        return learning_coefficient_curve(network, batches, progress=progress, **common)
    return learning_coefficient(
        network, batches, recipe.epsilon, temperature=recipe.temperature, progress=progress, **common
    )


def read_choices(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the flat names of a recipe file.

    Raises:
        InputError: the file cannot be read, or does not hold a table of names.
    """
    file = Path(path)
    try:
        text = file.read_text()
        choices = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the recipe {file}: {error}") from error
    if not isinstance(choices, dict):
        raise InputError(f"the recipe {file} holds a {type(choices).__name__}: expected a table of names")
    return choices


def _refuse_unknown(choices: Mapping[str, Any], what: str, *parts: type[Any]) -> None:
    known = dict.fromkeys(field.name for part in parts for field in fields(part))
    if unknown := sorted(str(name) for name in set(choices) - set(known)):
        raise InputError(f"unknown in a {what}: {', '.join(unknown)}; known are {', '.join(known)}")


def _hash(part: GraphRecipe | ImportRecipe | LedgerRecipe | LlcRecipe | PartitionRecipe) -> str:
    """Hash all choices; those that came later count where they are given, so that earlier results are found."""
    choices = {name: v for name, v in asdict(part).items() if v is not None or name not in _CAME_LATER}
    return hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()
