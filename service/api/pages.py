"""Two pages of ours: `/` links to what there is, `/docs` describes every route of the OpenAPI document.

They are made from the code alone, name nothing that is stored, load nothing from elsewhere and run no script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["PAGES", "POLICY", "docs_page", "start_page"]

PAGES = ("/", "/docs")
"""Paths that are answered without a token."""

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "code,pre{font:14px/1.5 ui-monospace,monospace}pre{background:#f4f4f4;padding:.7rem;overflow:auto}"
    "h2{margin-top:2.5rem;border-bottom:1px solid #ccc}h3{margin-bottom:.2rem}h3 code{font-weight:600}"
    "table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.15rem 1.2rem .15rem 0}"
    "a{color:#0b57a4}nav a{margin-right:1rem}"
)

POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of the pages: their own style, nothing else."""

_TOKEN = (
    "<p>Where the service has a token, every request but those for these two pages needs one:</p>"
    "<pre>curl -H 'Authorization: Bearer ib_...' http://127.0.0.1:8422/api/v1/models\n"
    "INTERBASIS_TOKEN=ib_... interbasis ls models --url http://127.0.0.1:8422</pre>"
)


def start_page(document: Mapping[str, Any]) -> str:
    """Make the page at `/`: links to the documentation and to the lists."""
    lists = [path for path in document["paths"] if path.count("/") == 3 and "get" in document["paths"][path]]
    links = "".join(f'<li><a href="{escape(path)}"><code>{escape(path)}</code></a></li>' for path in sorted(lists))
    return _page(
        "interbasis",
        "<h1>interbasis</h1><p>This service keeps interaction graphs, their modules and learning coefficients, and "
        "runs the jobs that compute them.</p>"
        '<ul><li><a href="/docs">Documentation of the API</a></li>'
        '<li><a href="/api/v1/openapi.json">The same as an OpenAPI document</a></li></ul>'
        f"<h2>Lists and states</h2><ul>{links}</ul><h2>Tokens</h2>{_TOKEN}",
    )


def docs_page(document: Mapping[str, Any]) -> str:
    """Make the page at `/docs`: every route with its parameters, body and answer, and every schema."""
    routes: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            routes.setdefault(operation["tags"][0], []).append(_route(method, path, operation))
    schemas = document["components"]["schemas"]
    menu = "".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in (*routes, "schemas"))
    parts = [f"<h1>API of interbasis</h1><p>{escape(document['info']['description'])}</p>{_TOKEN}<nav>{menu}</nav>"]
    parts += [f'<h2 id="{escape(tag)}">{escape(tag)}</h2>{"".join(said)}' for tag, said in routes.items()]
    parts.append('<h2 id="schemas">schemas</h2>')
    parts += [_schema(name, schemas[name]) for name in sorted(schemas)]
    return _page("API of interbasis", "".join(parts))


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>'


def _route(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """Describe one route."""
    said = [f"<h3><code>{method.upper()} {escape(path)}</code></h3>{_text(operation.get('description', ''))}"]
    rows = [(p["name"], p["in"], _type(p["schema"]), p.get("description", "")) for p in operation.get("parameters", ())]
    if rows:
        said.append(_table(("parameter", "in", "type", ""), rows))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        said.append(f"<p>Body: {_type(content.get('schema', {}))}</p>")
    for status, answer in operation["responses"].items():
        for kind, content in answer.get("content", {}).items() if status.startswith("2") else ():
            said.append(f"<p>{escape(status)}: {_type(content.get('schema', {}))} ({escape(kind)})</p>")
    return "".join(said)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    """Describe the fields of one schema."""
    rows = [
        (field, _type(about), about.get("description", ""), _example(about))
        for field, about in schema.get("properties", {}).items()
    ]
    table = _table(("field", "type", "", "example"), rows) if rows else ""
    return f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>{_text(schema.get("description", ""))}{table}'


def _example(about: Mapping[str, Any]) -> str:
    return str(next(iter(about.get("examples", ())), ""))[:80]


def _type(schema: Mapping[str, Any]) -> str:
    """Describe the type of a value as HTML, with links to schemas."""
    return " or ".join(dict.fromkeys(_types(schema))) or "any"


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        yield f'<a href="#{name}">{name}</a>'
    elif "enum" in schema or "const" in schema:
        yield ", ".join(f"<code>{escape(str(value))}</code>" for value in schema.get("enum", [schema.get("const")]))
    elif "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from _types(part)
    elif schema.get("type") == "array":
        yield f"list of {_type(schema.get('items', {}))}"
    elif "type" in schema:
        yield escape(str(schema["type"]))


def _table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Make a table; the cell with the type is HTML already."""
    typed = names.index("type")
    head = "".join(f"<th>{name}</th>" for name in names)
    cells = ("".join(f"<td>{cell if i == typed else escape(cell)}</td>" for i, cell in enumerate(row)) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _text(text: str) -> str:
    """Turn a description into paragraphs."""
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part.strip())
