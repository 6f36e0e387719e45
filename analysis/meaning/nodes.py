"""The content of a node's card, and the line that sums it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..basis.bases import Bases
from ..modules.partition import Partition
from ..results import by_value
from .effects import Effects, Lens, lens_of, top_outputs
from .inputs import runs
from .passes import Sources
from .surroundings import LEAST, Surroundings

__all__ = ["NodeFacts", "effect_in_sd", "frequencies_in_words", "node_content", "reads_in_words"]

_SURE = 2  # standard errors by which an effect is not 0

_SIDES = {"promoted": "raises", "suppressed": "lowers"}

_MOST_NAMED = 4  # features, tokens and outputs in a summary

_MAIN = 0.8  # share of a group of features that names it

_NAMED = 0.2  # of the largest effect, below which a summary does not name an output

_FREQUENT = 0.3  # share of frequencies that a summary names


@by_value
@dataclass
class NodeFacts:
    """All that the cards of nodes are made from.

    Attributes:
        bases, partition: as given.
        sources: what was recorded in the pass.
        effects: on the outputs; None where they are left out.
        around: neighbours and features.
        lens: maps between tokens and the residual stream; None where there are none.
        outputs: outputs that are listed at each end.
    """

    bases: Bases
    partition: Partition
    sources: Sources
    effects: Effects | None
    around: Surroundings
    lens: Lens | None
    outputs: int
    frequencies: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def frequencies_of(self, p: int) -> list[dict[str, Any]] | None:
        """Return the frequencies of the nodes of a cut, for cyclic inputs."""
        found = self.sources.seen.cuts[p].frequencies
        if found is None:
            return None
        if p not in self.frequencies:
            self.frequencies[p] = found.facts()
        return self.frequencies[p]


def node_content(facts: NodeFacts, p: int, i: int) -> dict[str, Any]:
    """Write the content of the card of node i at cut p."""
    seen, basis = facts.sources.seen, facts.bases[p]
    histogram = seen.cuts[p].histogram
    variance = float(histogram.variance[i])
    step = float(np.sqrt(variance))
    whole = float(basis.importance.sum())
    frequencies = facts.frequencies_of(p)
    content: dict[str, Any] = {
        "kind": "node",
        "cut": basis.cut,
        "node": i,
        "module": int(facts.partition.labels[p][i]),
        "summary": "",
        "n": seen.n,
        "inputs_are": seen.kind,
        "image_shape": None if facts.sources.wording.image_shape is None else list(facts.sources.wording.image_shape),
        "sampled": len(seen.sample.points),
        "mean": float(histogram.mean[i]),
        "variance": variance,
        "smallest": float(histogram.smallest[i]),
        "largest": float(histogram.largest[i]),
        "importance": float(basis.importance[i]),
        "share": float(basis.importance[i]) / whole if whole > 0 else 0.0,
        "histogram": histogram.of(i),
        "examples": facts.sources.examples(p, i),
        "effects": _effects(facts, p, i, step),
        "reads": facts.around.reads(p, i),
        "direction": _direction(facts, p, i, step),
        "neighbours": facts.around.neighbours(p, i),
        "frequencies": None if frequencies is None else frequencies[i],
    }
    content["summary"] = _summary(content)
    return content


def _effects(facts: NodeFacts, p: int, i: int, step: float) -> dict[str, Any] | None:
    """List the outputs that a node raises and lowers most: those that differ from 0 by two standard errors."""
    if facts.effects is None or not step > 0:
        return None
    effect = facts.effects.of(p, i)
    both = (effect.up - effect.down) / 2
    by = both if effect.slope is None or effect.slope_error is None else effect.slope * step
    errors = (effect.up_error + effect.down_error) / 2
    errors = errors if effect.slope is None or effect.slope_error is None else effect.slope_error * step
    values, spread = by.numpy(), np.nan_to_num(errors.numpy())
    listed = (np.abs(values) > _SURE * spread) & (np.abs(values) >= LEAST * np.abs(values).max(initial=0.0))
    listed &= values != 0
    order = np.argsort(-values, kind="stable")
    known = facts.sources.wording

    def one(o: int) -> dict[str, Any]:
        slope = None if effect.slope is None else float(effect.slope[o])
        numbers = {"up": effect.up, "up_error": effect.up_error, "down": effect.down, "down_error": effect.down_error}
        found = {"output": o, "name": known.output(o), "slope": slope}
        found["slope_error"] = None if effect.slope_error is None else _finite(effect.slope_error[o])
        return found | {name: _finite(value[o]) for name, value in numbers.items()}

    raised = [int(o) for o in order if listed[o] and values[o] > 0][: facts.outputs]
    lowered = [int(o) for o in order[::-1] if listed[o] and values[o] < 0][: facts.outputs]
    return {
        "points": facts.sources.seen.n_probed,
        "step": step,
        "centred": facts.effects is not None and facts.effects.net.loss == "kl",
        "promoted": [one(o) for o in raised],
        "suppressed": [one(o) for o in lowered],
    }


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def _direction(facts: NodeFacts, p: int, i: int, step: float) -> dict[str, Any] | None:
    """Return the direction of a node as features at the first cut, or as tokens in the residual stream."""
    basis, lens = facts.bases[p], facts.lens
    if lens is not None and basis.cut in lens.cuts:
        values = lens_of(lens, basis.to_basis[i], basis.from_basis[:, i], step=step)
        name = facts.sources.wording.token
        return {side: top_outputs(found, facts.outputs, name) for side, found in values.items()}
    return facts.around.direction(i, step) if p == 0 else None


def effect_in_sd(one: Mapping[str, Any], step: float) -> float:
    """Return the change of an output for one standard deviation of a node: to first order, or half of up minus down."""
    if one["slope"] is None:
        return float(((one["up"] or 0.0) - (one["down"] or 0.0)) / 2)
    return float(one["slope"]) * step


def frequencies_in_words(found: Mapping[str, Any]) -> str:
    """Name the frequencies of a node.

    >>> one = {"frequency": 15, "share": 0.991, "arguments": ["x", "y"]}
    >>> frequencies_in_words({"frequencies": [one], "random": [0.2, 0.3, 0.4]})
    'cos/sin of 15 (x, y), 99 % (a random direction: 20 %)'
    """
    listed = [one for one in found["frequencies"] if one["share"] >= _FREQUENT] or found["frequencies"][:1]
    if not listed:
        return ""
    arguments = list(dict.fromkeys(name for one in listed for name in one["arguments"]))
    named = " and ".join(str(one["frequency"]) for one in listed)
    share, random = sum(one["share"] for one in listed), found["random"][len(listed) - 1]
    words = f"cos/sin of {named} ({', '.join(arguments)}), {share:.0%} (a random direction: {random:.0%})"
    return words.replace("%", " %")


def reads_in_words(reads: Mapping[str, Any] | None) -> str:
    """Name the group of features that a node reads, or else its strongest features."""
    if reads is None:
        return ""
    best = max(reads["groups"], key=lambda group: group["share"], default=None)
    if best is not None:
        return f"reads {best['name']} ({best['share']:.0%})" if best["share"] >= _MAIN else "reads all groups"
    if reads["picture"] is not None:
        return ""
    return f"reads {', '.join(one['name'] for one in reads['features'][:_MOST_NAMED])}"


def _tokens_in_words(examples: Sequence[Mapping[str, Any]]) -> str:
    at = Counter(one["tokens"][one["at"]] for one in examples if one.get("tokens") and one["position"] is not None)
    return f"largest at {', '.join(repr(token) for token, _ in at.most_common(_MOST_NAMED))}" if at else ""


def _outputs_in_words(effects: Mapping[str, Any], side: str, *, quoted: bool) -> str:
    """Name the outputs that a node moves most in one direction."""
    most = max(abs(effect_in_sd(one, effects["step"])) for s in _SIDES for one in effects[s])
    listed = [one for one in effects[side] if abs(effect_in_sd(one, effects["step"])) >= _NAMED * most][:_MOST_NAMED]
    names = {one["output"]: repr(one["name"]) if quoted else one["name"] for one in listed}
    return runs(names, names.__getitem__)


def _summary(content: Mapping[str, Any]) -> str:
    """Sum up a node in one line, by rule."""
    parts = [frequencies_in_words(content["frequencies"])] if content["frequencies"] else []
    if content["frequencies"] is None:
        parts += [reads_in_words(content["reads"]), _tokens_in_words(content["examples"]["largest"])]
        effects, quoted = content["effects"] or dict.fromkeys(_SIDES, ()), content["inputs_are"] == "tokens"
        named = {side: _outputs_in_words(effects, side, quoted=quoted) if effects[side] else "" for side in _SIDES}
        parts += [f"{_SIDES[side]} {names}" for side, names in named.items() if names]
    found = [part for part in parts if part]
    return "; ".join(found) or "no effect that differs from 0 was found"
