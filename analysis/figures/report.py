"""A report: text and pictures in one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page"]

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font-family: system-ui, sans-serif; color: #222 }}
pre {{ font-size: 0.9rem; line-height: 1.4; white-space: pre-wrap }}
img {{ max-width: 100% }}
body > div {{ overflow-x: auto }}
table {{ min-width: 34rem; border-collapse: collapse; font-size: 0.9rem; margin: 0.5rem 0 }}
th, td {{ padding: 0.15rem 1rem 0.15rem 0; text-align: left; vertical-align: top }}
summary {{ cursor: pointer; margin: 0.3rem 0 }}
footer {{ color: #666; font-size: 0.85rem; margin-top: 2rem }}
</style>
</head>
<body>
<h1>{title}</h1>
<pre>{text}</pre>
{sections}
{pictures}
{below}
<h2>Terms</h2>
<p>{terms} A
<em>module</em> is a set of nodes with few and weak edges to others. <em>Null graphs</em> have the same strengths
per node and are otherwise random; z is the distance of the division from theirs in standard deviations.</p>
<footer>{footer}</footer>
</body>
</html>
"""


_OF_FILES = """A <em>cut</em> is a layer of the file that the graph was read from. A <em>node</em> is one of that file,
named by its cut and its number there; id, type, position and label are the file's. An <em>edge</em> is a link of the
file; its <em>strength</em> is {strength}, and the sign before it that of its weight. Edges up to the <em>cutoff</em>
are left out. <em>Costs</em> are sums of strengths, and no losses."""

_TERMS = {
    "loss": """A <em>cut</em> is a place where the network is read. A <em>node</em> is a coordinate of the interaction
basis there, which does not depend on how the network is parametrised. An <em>edge</em> is how much a node moves a node
of the next cut, in units of the loss; weaker ones than the square root of the <em>loss scale</em> are left out.""",
    "weight": _OF_FILES.format(strength="the size of its weight, |w|"),
    "share": _OF_FILES.format(strength="the size of its weight as a share of all weights into its target"),
}
"""What cuts, nodes and edges are, as HTML, by the unit of the strengths."""


def page(
    title: str,
    text: str,
    figures: Mapping[str, Figure],
    footer: str = "",
    *,
    sections: Mapping[str, str] | None = None,
    below: Mapping[str, str] | None = None,
    unit: str = "loss",
) -> str:
    """Write text, sections and figures, by their captions, into one HTML page that needs nothing from elsewhere.

    Args:
        title: of the page.
        text: its first lines, as they stand.
        figures: by their captions.
        footer: its last line.
        sections: HTML by headings, before the figures; the caller has escaped what it holds.
        below: the same, after the figures.
        unit: unit of the strengths, see `InteractionGraph`: the page ends with what its terms mean.

    >>> page("A & B", "1 < 2", {}).count("&amp;"), page("A", "1 < 2", {}).count("1 &lt; 2")
    (2, 1)
    """
    pictures = []
    for caption, figure in figures.items():
        stream = BytesIO()
        figure.savefig(stream, format="png", dpi=150, bbox_inches="tight")
        image = base64.b64encode(stream.getvalue()).decode()
        named = escape(caption)
        pictures.append(f'<h2>{named}</h2>\n<img alt="{named}" src="data:image/png;base64,{image}">')
    parts = {"title": escape(title), "text": escape(text), "footer": escape(footer), "terms": _TERMS[unit]}
    parts |= {name: "\n".join(_headed(own)) for name, own in (("sections", sections), ("below", below))}
    return _PAGE.format(**parts, pictures="\n".join(pictures))


def _headed(sections: Mapping[str, str] | None) -> list[str]:
    return [f"<h2>{escape(heading)}</h2>\n{html}" for heading, html in (sections or {}).items()]
