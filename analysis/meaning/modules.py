"""The content of a module's card, made from the cards of its members and what was recorded of it in the pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..graph.interaction_graph import InteractionGraph
from .inputs import runs
from .nodes import NodeFacts, effect_in_sd, reads_in_words

__all__ = ["module_contents"]

_SHOWN = 20  # outputs, mediators, and features that are listed

_PAIRS = 5  # of similar members

_MOST_NAMED = 6

_MAIN = 0.5  # share of an output's effect by which a module serves it

_STRONG = 0.3  # share of a frequency by which a member holds it


def module_contents(
    facts: NodeFacts, graph: InteractionGraph, nodes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Write the content of the card of each module.

    Args:
        facts: what the cards of nodes were made from.
        graph: the graph.
        nodes: the contents of the cards of nodes; facts of members without a card are left out.
    """
    shares = _output_shares(facts, nodes)
    summaries = {(node["cut"], node["node"]): node["summary"] for node in nodes}
    return [_content(facts, graph, m, nodes, shares, summaries) for m in range(facts.partition.n_modules)]


def _content(
    facts: NodeFacts,
    graph: InteractionGraph,
    m: int,
    nodes: Sequence[Mapping[str, Any]],
    shares: Float[np.ndarray, "modules outputs"],
    summaries: Mapping[tuple[str, int], str],
) -> dict[str, Any]:
    seen = facts.sources.seen
    own = [node for node in nodes if node["module"] == m]
    cuts = [
        {"cut": cut, "nodes": np.flatnonzero(labels == m).tolist()}
        for cut, labels in zip(graph.cuts, facts.partition.labels, strict=True)
        if (labels == m).any()
    ]
    mean = float(seen.share_sum[m]) / seen.n
    content: dict[str, Any] = {
        "kind": "module",
        "module": m,
        "summary": "",
        "size": sum(len(part["nodes"]) for part in cuts),
        "cuts": cuts,
        "n": seen.n,
        "inputs_are": seen.kind,
        "image_shape": None if facts.sources.wording.image_shape is None else list(facts.sources.wording.image_shape),
        "sampled": len(seen.sample.points),
        "energy": {"mean": float(seen.energies.mean[m]), "histogram": seen.energies.of(m)},
        "share": mean,
        "share_error": _error(mean, float(seen.share_squares[m]) / seen.n, seen.n),
        "examples": facts.sources.module_examples(m),
        "outputs": _outputs(facts, own, shares, m),
        "serves": np.flatnonzero(shares[m] > _MAIN).tolist(),
        "classes": _classes(facts, m),
        "reads": _reads(facts, own),
        "mediators": _mediators(facts, graph, m, summaries),
        "similar": _similar(facts, m),
        "frequencies": _frequencies(own),
    }
    content["summary"] = _summary(facts, content)
    return content


def _error(mean: float, mean_square: float, n: int) -> float | None:
    return float(np.sqrt(max(mean_square - mean**2, 0.0) / (n - 1))) if n > 1 else None


def _output_shares(facts: NodeFacts, nodes: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, "modules outputs"]:
    """Return which share of each output's first-order effect goes through each module, the mean over cuts.

    The effect of a node on an output is its slope squared times the node's variance, of the outputs on its card.
    """
    n, outputs = facts.partition.n_modules, facts.sources.seen.outputs
    by_cut: dict[str, np.ndarray] = {}
    for node in nodes:
        if node["effects"]:
            table = by_cut.setdefault(node["cut"], np.zeros((n + 1, outputs)))
            for one in (*node["effects"]["promoted"], *node["effects"]["suppressed"]):
                table[node["module"], one["output"]] += effect_in_sd(one, node["effects"]["step"]) ** 2
    total, known = np.zeros((n, outputs)), np.zeros(outputs)
    for table in by_cut.values():
        whole = table.sum(0)
        total += np.divide(table[:n], whole, out=np.zeros((n, outputs)), where=whole > 0)
        known += whole > 0
    return np.asarray(np.divide(total, known, out=np.zeros_like(total), where=known > 0))


def _outputs(
    facts: NodeFacts,
    own: Sequence[Mapping[str, Any]],
    shares: Float[np.ndarray, "modules outputs"],
    m: int,
) -> list[dict[str, Any]]:
    """List the outputs on which the members have the largest effect, with the module's share of it."""
    effect: Counter[int] = Counter()
    for node in own:
        for one in (*node["effects"]["promoted"], *node["effects"]["suppressed"]) if node["effects"] else ():
            effect[one["output"]] += effect_in_sd(one, node["effects"]["step"]) ** 2  # type: ignore[assignment]
    return [
        {"output": o, "name": facts.sources.wording.output(o), "effect": float(value), "share": float(shares[m, o])}
        for o, value in effect.most_common(_SHOWN)
    ]


def _classes(facts: NodeFacts, m: int) -> list[list[dict[str, Any]]] | None:
    """Return for each answer and class the module's mean share of energy, with its standard error."""
    sums = facts.sources.seen.class_sums
    if sums is None:
        return None
    found = []
    for a in range(sums.shape[2]):
        rows = []
        for c in range(sums.shape[3]):
            total, squares, n = (float(sums[s, m, a, c]) for s in range(3))
            if n:
                error = _error(total / n, squares / n, int(n))
                rows.append({"class": facts.sources.wording.target(c), "share": total / n, "error": error, "n": int(n)})
        found.append(rows)
    return found


def _reads(facts: NodeFacts, own: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the features that the members read, each weighed by its importance."""
    known = [node for node in own if node["reads"] is not None]
    whole = sum(node["importance"] for node in known)
    if not known or not whole > 0:
        return None
    features: Counter[int] = Counter()
    groups: Counter[str] = Counter()
    pictures: list[np.ndarray] = []
    for node in known:
        weight = node["importance"] / whole
        for one in node["reads"]["features"]:
            features[one["feature"]] += weight * one["share"]
        for group in node["reads"]["groups"]:
            groups[group["name"]] += weight * group["share"]
        if node["reads"]["picture"] is not None:
            squares = np.square(node["reads"]["picture"])
            pictures.append(weight * squares / max(squares.sum(), 1e-300))
    names = facts.sources.wording.features
    return {
        "by": known[0]["reads"]["by"],
        "features": [{"feature": j, "name": names[j], "share": float(s)} for j, s in features.most_common(_SHOWN)],
        "groups": [{"name": name, "share": float(share)} for name, share in groups.items()],
        "picture": [float(f"{v:.4g}") for v in np.sum(pictures, 0).tolist()] if pictures else None,
    }


def _mediators(
    facts: NodeFacts, graph: InteractionGraph, m: int, summaries: Mapping[tuple[str, int], str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the nodes through which other modules feed this one, and it feeds others, with what they carry."""
    found: dict[str, list[dict[str, Any]]] = {"in": [], "out": []}
    for v in sorted(facts.partition.mediators, key=lambda v: -v.strength):
        for side, here, other in (("in", v.later, v.earlier), ("out", v.earlier, v.later)):
            if here == m and len(found[side]) < _SHOWN:
                name = graph.cuts[v.cut]
                carries = summaries.get((name, v.coordinate))
                one = {"cut": name, "node": v.coordinate, "strength": v.strength, "carries": carries}
                found[side].append({"module": other, **one})
    return found


def _similar(facts: NodeFacts, m: int) -> dict[str, Any] | None:
    """Return how alike the members are: the correlation of their values over the sampled data points.

    Within a cut the values of a basis are uncorrelated, so that only members of different cuts are compared.
    """
    values, where = [], []
    for p, labels in enumerate(facts.partition.labels):
        own = np.flatnonzero(labels == m)
        values.append(facts.sources.seen.cuts[p].values.numpy()[own])
        where += [(p, int(i)) for i in own]
    rows = np.concatenate(values)[:2000]
    rows = rows - rows.mean(1, keepdims=True)
    norm = np.sqrt((rows**2).sum(1))
    rows = rows / np.where(norm > 0, norm, 1.0)[:, None]
    cut = np.array([p for p, _ in where])[: len(rows)]
    across = (cut[:, None] < cut) & (norm > 0)[:, None] & (norm > 0)
    if not across.any():
        return None
    correlation = rows @ rows.T
    strength = np.where(across, np.abs(correlation), -1.0)
    best = np.argsort(-strength, axis=None, kind="stable")[:_PAIRS]
    pairs = [np.unravel_index(int(b), strength.shape) for b in best]
    names = facts.bases[:]
    return {
        "mean": float(np.abs(correlation)[across].mean()),
        "pairs": [
            {
                "first": f"{names[where[a][0]].cut}/{where[a][1]}",
                "second": f"{names[where[b][0]].cut}/{where[b][1]}",
                "correlation": float(correlation[a, b]),
            }
            for a, b in ((int(a), int(b)) for a, b in pairs)
            if across[a, b]
        ],
    }


def _frequencies(own: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the frequencies that members hold, with the share of the members' importance that each has."""
    if not own or all(node["frequencies"] is None for node in own):
        return None
    whole = sum(node["importance"] for node in own) or 1.0
    found: Counter[int] = Counter()
    for node in own:
        for one in node["frequencies"]["frequencies"] if node["frequencies"] else ():
            if one["share"] >= _STRONG:
                found[one["frequency"]] += one["share"] * node["importance"] / whole
    return [{"frequency": k, "share": float(share)} for k, share in found.most_common(_SHOWN)]


def _summary(facts: NodeFacts, content: Mapping[str, Any]) -> str:
    """Sum up a module in one line, by rule."""
    size, n_cuts = content["size"], len(content["cuts"])
    parts = [f"{size} node{'s' * (size != 1)} at {n_cuts} cut{'s' * (n_cuts != 1)}"]
    parts.append(reads_in_words(content["reads"]))
    name = facts.sources.wording.output
    serves = [o for o in content["serves"] if any(o == one["output"] for one in content["outputs"])]
    if serves and len(serves) == facts.sources.seen.outputs > 1:
        parts.append("all outputs")
    elif serves:
        quoted = content["inputs_are"] == "tokens" and content["frequencies"] is None
        most = [one["output"] for one in content["outputs"] if one["output"] in serves]
        few = serves if len(serves) <= _SHOWN else most
        shown = runs(few, lambda o: repr(name(o)) if quoted else name(o)).split(", ")
        parts.append(f"outputs {', '.join(shown[:_MOST_NAMED])}{' ...' * (len(shown) > _MOST_NAMED)}")
    if content["frequencies"]:
        named = [str(one["frequency"]) for one in content["frequencies"] if one["share"] >= 0.05][:_MOST_NAMED]
        parts.append(f"frequenc{'ies' if len(named) > 1 else 'y'} {', '.join(named)}" if named else "")
    feeds = dict.fromkeys(one["module"] for one in content["mediators"]["out"])
    for other in list(feeds)[:3]:
        through = next(one for one in content["mediators"]["out"] if one["module"] == other)
        parts.append(f"feeds module {other} through {through['cut']}/{through['node']}")
    return "; ".join(part for part in parts if part)
