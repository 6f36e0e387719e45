"""Figures of cards: what a module reads, the examples with the largest share of it, and the outputs that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..meaning.cards import Cards, ModuleCard, NodeCard
from ..meaning.inputs import picture_rows
from ..results import figure
from .style import BLUE, GREY, INK, ORANGE, SMALL, blank, heading, in_style, module_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .picture import Picture

__all__ = ["plot_cards", "plot_module_card", "plot_node_card"]

_PICTURES = 8

_ROWS = 12  # bars of a panel

_LEAST = 0.02  # share of an output that is drawn

_LONGEST = 26  # characters of a label


@figure.register(Cards)
def plot_cards(cards: Cards, *, title: str | None = None) -> Figure:
    """Draw the share of the outputs' first-order effect that goes through each module, and of the classes' energy."""
    return _overview(cards, title)


@in_style
def _overview(cards: Cards, title: str | None) -> Figure:
    outputs = {one["output"]: one["name"] for card in cards.modules for one in card.content["outputs"]}
    chosen = sorted(outputs)[:40]
    rows = len(cards.modules)
    drawn = blank(min(12.0, 3.0 + 0.28 * max(len(chosen), 8)), 1.7 + 0.32 * rows)
    heading(drawn, [f"{len(cards.nodes)} nodes", "share of each output's first-order effect"], title)
    axes = drawn.subplots()
    table = np.zeros((rows, len(chosen)))
    for r, card in enumerate(cards.modules):
        for one in card.content["outputs"]:
            if one["output"] in chosen:
                table[r, chosen.index(one["output"])] = one["share"]
    image = axes.imshow(table, aspect="auto", vmin=0, vmax=1, cmap="viridis")
    axes.set_yticks(range(rows), [card.title for card in cards.modules])
    _coloured(axes, [card.content["module"] for card in cards.modules])
    names = [_short(outputs[o]) for o in chosen]
    axes.set_xticks(range(len(chosen)), names, rotation=90, fontsize=SMALL, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    drawn.colorbar(image, ax=axes, label="share", shrink=0.9)
    return drawn


@figure.register(ModuleCard)
@in_style
def plot_module_card(card: ModuleCard, *, title: str | None = None) -> Figure:
    """Draw the card of a module: its examples, what it reads, the outputs it serves, and its share by class."""
    content = card.content
    colour = module_colours(np.array([content["module"]]))[0]
    panels = [draw for draw in (_reads, _outputs, _classes, _members) if draw(None, card, colour)]
    return _card(card, panels, [f"{content['share']:.0%} of the energy", card.summary], title, colour)


@figure.register(NodeCard)
@in_style
def plot_node_card(card: NodeCard, *, title: str | None = None) -> Figure:
    """Draw the card of a node: its examples, histogram, what it reads, and its effects on outputs."""
    content = card.content
    colour = module_colours(np.array([content["module"]]))[0]
    panels = [draw for draw in (_histogram, _reads, _effects) if draw(None, card, colour)]
    return _card(card, panels, [f"{content['share']:.1%} of the importance", card.summary], title, colour)


def _card(card: Any, panels: Sequence[Any], facts: Sequence[str], title: str | None, colour: Any) -> Figure:
    """Draw panels beside one another, and the examples below them."""
    pictures = [one for one in card.largest if one["point"] in card.inputs][:_PICTURES]
    shape = card.content["image_shape"]
    windows = [one for one in card.largest if one.get("tokens")][:_PICTURES]
    below = bool(pictures and shape) or bool(windows)
    tall = 0.0 if not below else 0.24 * len(windows) + 0.3 if windows else 1.35
    drawn: Picture = blank(max(3.1 * len(panels) + 0.4, 6.4), 3.3 + tall)
    heading(drawn, [card.title, *(part for fact in facts for part in fact.split("; "))], title)
    if not below:
        top: Any = drawn
    else:
        top, bottom = drawn.subfigures(2, 1, height_ratios=[3.0, tall])
        if windows:
            _windows(bottom.subplots(), windows)
        else:
            _pictures(bottom, card, pictures, shape)
    for axes, draw in zip(np.atleast_1d(top.subplots(1, max(len(panels), 1))), panels, strict=False):
        draw(axes, card, colour)
    return drawn


def _pictures(part: Any, card: Any, examples: Sequence[Any], shape: Sequence[int]) -> None:
    word = "share" if isinstance(card, ModuleCard) else "value"
    for axes, one in zip(np.atleast_1d(part.subplots(1, len(examples))), examples, strict=True):
        axes.imshow(picture_rows(card.inputs[one["point"]], shape), cmap="gray_r", interpolation="nearest")
        target = one.get("target")
        named = ", ".join(map(str, target)) if isinstance(target, list) else "" if target is None else str(target)
        axes.set_title(_short(named) or f"#{one['point']}", fontsize=SMALL, parse_math=False)
        axes.set_xlabel(f"{word} {one['value']:.3g}", fontsize=SMALL)
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])


def _windows(axes: Axes, examples: Sequence[Any]) -> None:
    """Write tokens, the darker their background the larger the value there."""
    largest = max((abs(v) for one in examples for v in one["values"] if v is not None), default=1.0) or 1.0
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(examples), 0))
    for row, one in enumerate(examples):
        x = 0.0
        values = one["values"] or [None] * len(one["tokens"])
        for place, (token, value) in enumerate(zip(one["tokens"], values, strict=True)):
            text = token.replace("\n", "\u21b5").replace(" ", "\u00a0")
            shade = 0.0 if value is None else min(abs(value) / largest, 1.0)
            face = (1.0, 0.5, 0.05, 0.75 * shade) if (value or 0) > 0 else (0.12, 0.47, 0.71, 0.75 * shade)
            weight = "bold" if place == one["at"] else "normal"
            box = {"facecolor": face, "edgecolor": "none", "pad": 1.0}
            style: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": SMALL, "parse_math": False}
            axes.text(x, row + 0.5, text, va="center", weight=weight, bbox=box, color=INK, **style)
            x += 0.0098 * max(len(text), 1) + 0.003


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], errors: Any, colour: Any) -> None:
    axes.barh(range(len(names)), values, xerr=errors, color=colour, height=0.7, ecolor=GREY, capsize=2)
    axes.set_yticks(range(len(names)), [_short(name) for name in names], parse_math=False)
    axes.invert_yaxis()


def _outputs(axes: Axes | None, card: Any, colour: Any) -> bool:
    shown = [one for one in card.content["outputs"][:_ROWS] if one["share"] >= _LEAST]
    listed = sorted(shown, key=lambda one: one["output"])
    if axes is not None:
        _bars(axes, [one["name"] for one in listed], [one["share"] for one in listed], None, colour)
        axes.set(xlabel="share of the first-order effect", xlim=(0, 1), title="outputs")
    return bool(listed)


def _classes(axes: Axes | None, card: Any, colour: Any) -> bool:
    """Draw the module's share of energy by class, a line per answer."""
    answers = card.content["classes"]
    if not answers or any(len(rows) > 40 for rows in answers):
        return False
    if axes is not None:
        for a, rows in enumerate(answers):
            x = np.arange(len(rows))
            errors = [row["error"] or 0.0 for row in rows]
            label = f"answer {a + 1}" if len(answers) > 1 else None
            shade = (BLUE, ORANGE, GREY, INK)[a % 4]
            axes.errorbar(x, [r["share"] for r in rows], errors, fmt="o", ms=4, color=shade, label=label, capsize=2)
        names = [str(row["class"]) for row in answers[0]]
        turn = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(len(names)), [_short(name) for name in names], rotation=turn, parse_math=False)
        axes.set(xlabel="class", ylabel="share of energy", title="data of each class")
        if len(answers) > 1:
            axes.legend()
    return True


def _members(axes: Axes | None, card: Any, colour: Any) -> bool:
    if axes is not None:
        cuts = card.content["cuts"]
        _bars(axes, [part["cut"] for part in cuts], [float(len(part["nodes"])) for part in cuts], None, colour)
        axes.set(xlabel="nodes", title="members at each cut")
    return True


def _reads(axes: Axes | None, card: Any, colour: Any) -> bool:
    reads, shape = card.content["reads"], card.content["image_shape"]
    if reads is None:
        return False
    if axes is None:
        return True
    if reads["picture"] is not None and shape is not None:
        values = np.array(reads["picture"])
        limit = np.abs(values).max() or 1.0
        signed = bool((values < 0).any())
        options: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit} if signed else {"cmap": "Oranges", "vmin": 0}
        axes.imshow(picture_rows(values, [*shape]), vmax=limit, interpolation="nearest", **options)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title("what it reads, by pixel")
        axes.spines[:].set_visible(False)
        return True
    listed = reads["features"][:_ROWS]
    _bars(axes, [one["name"] for one in listed], [one["share"] for one in listed], None, colour)
    axes.set(xlabel="share of what it reads", title="features")
    return True


def _histogram(axes: Axes | None, card: Any, colour: Any) -> bool:
    if axes is not None:
        found = card.content["histogram"]
        edges = found["start"] + found["width"] * np.arange(len(found["counts"]) + 1)
        axes.stairs(found["counts"], edges, fill=True, color=colour)
        axes.set(xlabel="value", ylabel="count", title="values")
    return True


def _effects(axes: Axes | None, card: Any, colour: Any) -> bool:
    effects = card.content["effects"]
    if not effects or not (effects["promoted"] or effects["suppressed"]):
        return False
    if axes is not None:
        half = _ROWS // 2
        listed = [*effects["promoted"][:half], *effects["suppressed"][:half][::-1]]
        _bars(axes, [one["name"] for one in listed], [one["up"] for one in listed],
              [one["up_error"] or 0.0 for one in listed], colour)  # fmt: skip
        axes.axvline(0, color=INK, lw=0.8)
        axes.set(xlabel="change for one sd up", title="effects on outputs")
    return True


def _coloured(axes: Axes, modules: Sequence[int]) -> None:
    for text, colour in zip(axes.get_yticklabels(), module_colours(np.array(modules)), strict=True):
        text.set_color(colour)


def _short(name: str) -> str:
    text = name.replace("\n", "\u21b5")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026"
