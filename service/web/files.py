"""The files of the page, as they are served: at `/`, at `/docs` and below `/web/`."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["FILES", "FOLDER", "POLICY", "StaticFile", "static_file"]

FOLDER = Path(__file__).parent / "static"

FILES = {"/": "index.html", "/docs": "docs.html"} | {
    f"/web/{name}": name
    for name in (
        *("app.css", "app.js", "docs.js", "icon.svg", "licences.txt"),
        *("swagger-ui.css", "swagger-ui-bundle.js"),
    )
}
"""Every path that is answered with a file, which needs no token, and the name of the file."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page: nothing from elsewhere, no script or style within the HTML."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class StaticFile:
    """A file of the page: as it is, compressed with gzip, its media type, and its hash as ETag."""

    body: bytes
    packed: bytes
    kind: str
    etag: str


@cache
def static_file(path: str) -> StaticFile:
    """Return the file that is served at a path of `FILES`; it is read and compressed once.

    >>> static_file("/").kind
    'text/html; charset=utf-8'
    """
    file = FOLDER / FILES[path]
    body = file.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return StaticFile(body, gzip.compress(body, mtime=0), _TYPES[file.suffix], etag)
