"""Export the cards of nodes as feature files, the JSON that circuit-tracer's page shows beside an attribution graph.

The page asks for `features/{scan}/{feature}.json`, with the `feature` of a node of the graph, see `feature_number`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..meaning.cards import Cards

__all__ = ["feature_files", "feature_number"]


def feature_number(cut: int, node: int) -> int:
    """Number a node by Cantor's pairing of its cut and coordinate, as circuit-tracer does: (a + b)(a + b + 1) / 2 + b.

    >>> feature_number(0, 0), feature_number(1, 0), feature_number(0, 1), feature_number(3, 7)
    (0, 1, 2, 62)
    """
    return (cut + node) * (cut + node + 1) // 2 + node


def feature_files(cards: Cards) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and content of the feature file of each node.

    Examples come with the node's value at each token; of other data, the number of the data point and its target stand
    in place of tokens. The logits are the outputs that the node raises and lowers most.
    """
    cuts = list(cards.settings.get("cuts") or dict.fromkeys(card.content["cut"] for card in cards.nodes))
    for card in cards.nodes:
        content = card.content
        number = feature_number(cuts.index(content["cut"]), content["node"])
        found, effects = content["examples"], content["effects"] or {"promoted": (), "suppressed": ()}
        deciles = found.get("deciles") or ()
        parts = [("Top activations", found["largest"]), ("Bottom activations", found["smallest"])]
        parts += [(f"Decile {number}", own) for number, own in reversed([*enumerate(deciles, 1)])]
        yield (
            f"{number}.json",
            {
                "index": content["node"],
                "layer": cuts.index(content["cut"]),
                "description": f"{card.title}: {card.summary}",
                "act_min": content["smallest"],
                "act_max": content["largest"],
                "top_logits": [one["name"] for one in effects["promoted"]],
                "bottom_logits": [one["name"] for one in effects["suppressed"]],
                "histogram": content["histogram"]["counts"],
                "quantile_values": [],
                "examples_quantiles": [
                    {"quantile_name": name, "examples": [_example(one) for one in own]} for name, own in parts if own
                ],
            },
        )


def _example(one: Mapping[str, Any]) -> dict[str, Any]:
    tokens: Sequence[str] = one.get("tokens") or ()
    if not tokens:
        target = one.get("target")
        words = "" if target is None else ", ".join(map(str, target)) if isinstance(target, list) else str(target)
        tokens, values, at = [f"data point {one['point']}", *([f" ({words})"] if words else [])], [one["value"]], 0
        values += [0.0] * (len(tokens) - 1)
    else:
        values, at = [0.0 if value is None else value for value in one["values"]], one["at"]
    return {"tokens": list(tokens), "tokens_acts_list": values, "train_token_ind": at, "is_repeated_datapoint": False}
