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
pre {{ font-size: 0.9rem; line-height: 1.4; overflow-x: auto }}
img {{ max-width: 100% }}
</style>
</head>
<body>
<h1>{title}</h1>
<pre>{text}</pre>
{pictures}
</body>
</html>
"""


def page(title: str, text: str, figures: Mapping[str, Figure]) -> str:
    """Write text and figures, by their captions, into one HTML page that needs nothing from elsewhere.

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
    return _PAGE.format(title=escape(title), text=escape(text), pictures="\n".join(pictures))
