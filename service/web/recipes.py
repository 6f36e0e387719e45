"""What the form of a job shows: the JSON schema of each task's choices, with defaults and explanations.

Names, types and bounds are those of `records.choices`; the defaults are those of the recipes in `interbasis.analysis`,
written out here because the service answers without loading it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter

from ..records.base import Record
from ..records.choices import CHOICES

__all__ = ["TaskForm", "task_forms"]

_ABOUT = {
    "analyze": ("checkpoint", "Interaction graph of a checkpoint, and its modules."),
    "partition": ("graph", "Modules of a stored graph."),
    "experiment": ("partition", "A circuit experiment on the modules, on held-out data."),
    "describe": ("partition", "Cards of all nodes and modules: examples, histograms, effects."),
    "compare": ("partition", "How far two divisions agree, and whether more than by chance."),
    "ledger": ("checkpoint", "Effective parameters, and why the others are free."),
    "llc": ("checkpoint", "Learning coefficient, of all parameters or of parts of them."),
    "track": ("run", "Which modules of a training continue, appear, split and merge."),
    "import": ("file", "A graph that was made elsewhere; `interbasis import FILE` uploads it."),
}
"""Of each task: what its target is, and what it makes."""

_EXPLAINED = {
    "epsilon": "Loss scale: interactions that change the loss by less do not count. Default: graph.",
    "seeds": "Names of the networks whose mean distance epsilon is.",
    "objective": "What a good division is. Default: the better of layered_cpm and layered_modularity.",
    "resolution": "Larger values give more and smaller modules. Default: chosen against chance.",
    "seed": "Seed of the random numbers.",
    "k": "Number of modules, with objective kway.",
    "min_size": "Least number of nodes of a module.",
    "max_size": "Largest number of nodes of a module.",
    "mediator_polish": "Lower the mediator cost by moves of single nodes.",
    "chains": "discount: one-to-one edges and skip paths are no evidence of modules.",
    "control": "Compare a supported division with that of an untrained copy of the network.",
    "nulls": "Number of null graphs. Default: 20 where the resolution is chosen, else none.",
    "untrained": "Number of untrained copies that are analysed beside the network. Default: none.",
    "labels": "A division made elsewhere, in place of a search.",
    "cuts": "Cuts of the network between which interactions are measured. Default: those of the model.",
    "loss": "Distance of outputs from the checkpoint's own. Default: that of the checkpoint, or mse.",
    "positions": "Which positions of a save_pretrained model count. Default: later for decoders, else mask.",
    "basis": "Coordinates at the cuts: the interaction basis towards the outputs (global) or the next cut (local), "
    "principal components, or neurons.",
    "output": "Coordinates of the last cut. auto: its own where they are the outputs, else pca.",
    "rotation": "degenerate: rotate where eigenvalues nearly agree, so that few outputs depend on each coordinate.",
    "rank_tolerance": "Directions below this share of the largest eigenvalue are dropped.",
    "gap": "Relative gap of neighbouring eigenvalues that ends a rotation.",
    "probes": "Random probes per data point. Default: exact sums where they are cheap.",
    "tolerance": "Relative standard error of importance at which no more probes are taken.",
    "strengths": "How the strength of an edge is measured.",
    "points": "Gauss-Legendre points of attributions.",
    "data": "Default: the data that the checkpoint names.",
    "force": "Compute again where the result is stored already.",
    "like": "Track graphs with the recipe and data of this one. Default: as most were made.",
    "coupling": "Weight between a node and its copy at the next checkpoint, in mean costs per node.",
    "align": "Match nodes of different checkpoints by their values; otherwise node i is node i.",
    "kind": "What is done to the network.",
    "metric": "What is measured. Default: accuracy where targets are classes, else the loss.",
    "replacement": "Values in place of ablated ones.",
    "adversarial": "Also search for the worst partial cut, by so many steps of gradient ascent. Default: not.",
    "examples": "Data points at each end of a card.",
    "deciles": "Data points from each decile of a random sample.",
    "sampled": "Size of that sample.",
    "outputs": "Outputs that are listed at each end.",
    "neighbours": "Edges that are listed in each direction.",
    "other": "The partition to compare with: this or labels.",
    "name": "What the labels are called.",
    "permutations": "Permutations of labels within cuts.",
    "model": "Name of the model that the graph belongs to. Default: the file's name.",
    "label": "A name for this graph.",
    "format": "Default: as the content says.",
    "without": "Types of nodes to leave out. Default: none.",
    "longest_path": "Compute layers even where the file names them.",
    "keep": "Share of the influence on the outputs that the kept nodes and edges carry. Default: all are kept.",
    "unit": "Unit of strengths: weights, or shares of the total weight into a node. Default: the file's own.",
    "method": "How the rank of the Hessian is found.",
    "temperature": "Inverse temperature n beta, instead of a loss scale.",
    "curve": "A curve over a range of loss scales, instead of one.",
    "parameters": "Vary only parameters with these names. Default: all.",
    "modules": "Count the parameters of each module of this partition, at its loss scale unless one is given.",
    "parts": "Count these sets of parameters one by one; auto: each head and layer.",
    "kernel": "Sampling kernel. auto: by the size of the network.",
    "preconditioner": "Metric of the kernel. auto: by the size of the network.",
    "radius": "Distance to explore along free directions, relative to the size of the parameters.",
    "gamma": "Strength of the localiser, instead of the radius.",
    "warmup": "Steps of each chain before the draws. Default: 300, sgld 600.",
    "draws": "Draws of each chain. Default: 500, sgld 4,000.",
    "step_size": "Step size of the kernel. Default: adapted, or a safe one.",
    "batch_size": "Random data points of each step of sgld, psgld and sgnht. Default: 256 where the network is large.",
    "labels of compare": "The module of each node: this or other.",
    "tolerance of experiment": "Change of the metric that counts as none, for bisect and epsilon.",
    "draws of experiment": "Random interventions to compare with. Default: 20, of predict 5.",
    "points of describe": "Data points on which effects are measured. Default: 256, of long sequences 16.",
    "tolerance of ledger": "Relative cutoff of singular values, where there is no loss scale.",
    "epsilon of ledger": "Loss scale at which parameters are counted. Default: none, ranks alone.",
    "epsilon of llc": "Loss scale: this, a temperature or a curve is needed.",
    "chains of llc": "Number of chains.",
}
"""What each choice does; of a task alone where its choice of that name does something else."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "division": {"mediator_polish": False, "chains": "discount", "control": True, "seed": 0},
    "analyze": {
        **{"basis": "global", "output": "auto", "rotation": "degenerate", "rank_tolerance": 1e-10, "gap": 0.25},
        **{"strengths": "jacobian", "points": 1},
    },
    "track": {"coupling": 0.0, "align": True},
    "experiment": {"kind": "modules", "tolerance": 1e-3, "replacement": "mean", "seed": 0},
    "describe": {"examples": 8, "deciles": 2, "sampled": 1000, "outputs": 10, "neighbours": 8, "seed": 0},
    "compare": {"permutations": 1000, "align": True, "seed": 0},
    "import": {"longest_path": False},
    "ledger": {"tolerance": 1e-10, "method": "auto", "seed": 0},
    "llc": {"curve": False, "kernel": "auto", "preconditioner": "auto", "radius": 0.02, "chains": 4, "seed": 0},
}

_DIVIDING = ("analyze", "partition", "track")


@dataclass(frozen=True, kw_only=True)
class TaskForm(Record):
    """A task as a form shows it.

    Attributes:
        task: its name.
        target: what its target is: a checkpoint, graph, partition, run or file.
        about: what it makes, in one sentence.
        choices: JSON Schema of its choices; of each the default, where it is a value, and what it does.
    """

    task: Annotated[str, Field(examples=["partition"])]
    target: Annotated[str, Field(examples=["graph"])]
    about: Annotated[str, Field(examples=["Modules of a stored graph."])]
    choices: Annotated[
        dict[str, Any],
        Field(examples=[{"type": "object", "properties": {"k": {"type": "integer", "minimum": 1}}}]),
    ]


@cache
def task_forms() -> tuple[TaskForm, ...]:
    """Return the form of every task.

    >>> [form.task for form in task_forms()][:2]
    ['analyze', 'partition']
    >>> task_forms()[1].choices["properties"]["chains"]["default"]
    'discount'
    """
    return tuple(
        TaskForm(task=task, target=target, about=about, choices=_schema(task))
        for task, (target, about) in _ABOUT.items()
    )


def _schema(task: str) -> dict[str, Any]:
    schema = copy.deepcopy(TypeAdapter(CHOICES[task]).json_schema())
    defaults = {"force": False, **(_DEFAULTS["division"] if task in _DIVIDING else {}), **_DEFAULTS.get(task, {})}
    properties = {}
    for name in sorted(get_type_hints(CHOICES[task]), key=lambda each: each in ("seed", "data", "force")):
        found = schema["properties"][name]
        found.pop("title")
        said = _EXPLAINED.get(f"{name} of {task}") or _EXPLAINED[name]
        if found.get("type") not in ("boolean", "integer", "number") and "description" in found:
            said += f" Expected: {found['description']}."
        properties[name] = found | {"description": said}
        if name in defaults:
            properties[name]["default"] = defaults[name]
    return {"type": "object", "properties": properties, "additionalProperties": False}
