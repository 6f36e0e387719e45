"""The page over a frozen extract of a store: files that any static web server can serve, with no service behind them.

The folder holds the page's own files, and below `data/` one JSON file for each answer that the page would ask the
service for; `data/index.json` says which is where. Answers are those of the routes, so that their form is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..records.errors import StoreError
from .files import FILES, FOLDER, POLICY

__all__ = ["Read", "write_report"]

Read = Callable[..., Any]
"""Returns the JSON of a route below /api/v1/, by its path and, as keywords, its query."""

_MARK = '<meta charset="utf-8">'

_NODES = 40  # of each module, and of all, whose cards and edges are kept

_OTHERS = 20  # divisions of the same graph with which it is compared

_NEWEST: dict[str, Any] = {"limit": 1000, "newest": True}

_LISTS = ("checkpoints", "graphs", "partitions", "llc", "ledgers", "trackings")  # of the same run


def write_report(read: Read, ref: str, folder: Path, *, force: bool = False) -> Path:
    """Write the page and what it shows of a partition into a folder, whole or not at all.

    Two reports of the same store are the same, byte for byte. Paths of checkpoints are left out.

    Args:
        read: asks the service.
        ref: reference of the partition.
        folder: where to write; it is made.
        force: write anew where the folder has an earlier report.

    Raises:
        StoreError: the folder has something in it, or cannot be written.
        NotFoundError: the partition does not exist.
    """
    occupied = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if occupied and not force:
        raise StoreError(f"{folder} has something in it: name another folder, or --force to replace an earlier report")
    if occupied and not (folder / "data" / "index.json").is_file():
        raise StoreError(f"{folder} is no report, so --force does not replace it: name another folder")
    extract = _Extract(read)
    partition = extract.partition(ref)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            whole, old = Path(place) / "new", Path(place) / "old"
            _write(whole, partition, extract.answers)
            if folder.exists():
                os.rename(folder, old)
            os.rename(whole, folder)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}") from error
    return folder


class _Extract:
    """What the page asks for, by the address that it asks at; see `client.ts`."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.answers: dict[str, Any] = {}

    def _ask(self, path: str, **query: Any) -> Any:
        return self._keep(self._read(path, **query), path, **query)

    def _keep(self, answer: Any, path: str, **query: Any) -> Any:
        given = sorted(
            (name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in query.items()
        )
        text = "&".join(f"{name}={value}" for name, value in given)
        self.answers[f"api/v1/{path}" + (f"?{text}" if text else "")] = answer
        return answer

    def partition(self, ref: str) -> dict[str, Any]:
        """Take a partition with all that the page shows of it, and return it."""
        found: dict[str, Any] = self._read(f"partitions/{ref.replace('/', '%2F')}")
        this = found["id"]
        self._ask("health")
        self._ask(f"partitions/{this}")
        self._ask(f"graphs/{found['graph']}")
        self._ask(f"partitions/{this}/labels", limit=1000)
        self._ask(f"partitions/{this}/profile")
        described = self._ask("descriptions", partition=this, limit=1, newest=True)["items"]
        self._modules(found, bool(described))
        self._training(found)
        self._evidence(found)
        return found

    def _modules(self, found: dict[str, Any], described: bool) -> None:
        this = found["id"]
        drawings = [self._ask(f"partitions/{this}/drawing")]
        for module in (each["index"] for each in found["modules"]):
            drawings.append(self._ask(f"partitions/{this}/drawing", module=module))
            for side in ("earlier", "later"):
                self._ask(f"partitions/{this}/mediators", **{side: module}, limit=1000)
            if described:
                self._ask(f"partitions/{this}/cards", module=module, modules=True, limit=1)
        nodes = {(node["cut"], node["coordinate"]) for drawing in drawings for node in drawing["nodes"][:_NODES]}
        for cut, node in sorted(nodes):
            self._ask(f"partitions/{this}/nodes/{cut}/{node}")
            self._ask(f"graphs/{found['graph']}/nodes/{cut}/{node}/edges", limit=16)
            if described:
                self._ask(f"partitions/{this}/cards", cut=found["cuts"][cut], node=node, limit=1)

    def _training(self, found: dict[str, Any]) -> None:
        """Take the training of the partition, which is all that the first view shows."""
        model = self._ask(f"models/{found['model'].replace('/', '%2F')}")
        self._keep(_listing([model]), "models", **_NEWEST)
        self._keep(_listing([]), "jobs", **_NEWEST)
        of = {"run": found["run"]} if found["run"] else {"model": model["id"]}
        for name in _LISTS:
            listed = self._read(name, **of, **_NEWEST)
            if name == "checkpoints":
                listed = {**listed, "items": [{**row, "path": None} for row in listed["items"]]}
            self._keep(listed, name, **_NEWEST)
            self._keep(listed, name, **of, **_NEWEST)
            for row in listed["items"] if name == "trackings" else ():
                self._ask(f"trackings/{row['id']}")
                self._ask(f"trackings/{row['id']}/flows")

    def _evidence(self, found: dict[str, Any]) -> None:
        this = found["id"]
        for name in ("experiments", "comparisons"):
            self._ask(name, partition=this, **_NEWEST)
        self._ask("llc", checkpoint=found["checkpoint"], **_NEWEST)
        others = self._ask("partitions", graph=found["graph"], **_NEWEST)["items"]
        for other in [row["id"] for row in others if row["id"] != this][:_OTHERS]:
            self._ask(f"partitions/{this}/compare/{other}")


def _listing(items: Iterable[Any]) -> dict[str, Any]:
    found = list(items)
    return {"items": found, "next_cursor": None, "total": len(found)}


def _write(folder: Path, partition: dict[str, Any], answers: dict[str, Any]) -> None:
    """Write page, answers and their index."""
    (folder / "web").mkdir(parents=True)
    (folder / "data").mkdir()
    policy = "; ".join(part for part in POLICY.split("; ") if not part.startswith("frame-ancestors"))  # not in HTML
    marks = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<meta name="report" content="data/">'
    for path, name in FILES.items():
        if path == "/":
            text = (FOLDER / name).read_text("utf-8")
            (folder / name).write_text(text.replace(_MARK, f"{_MARK}\n{marks}", 1), "utf-8")
        elif path.startswith("/web/") and not name.startswith(("swagger", "docs")):
            shutil.copyfile(FOLDER / name, folder / "web" / name)
    places: dict[str, str] = {}
    for address, answer in answers.items():
        content = _json(answer)
        places[address] = f"{hashlib.sha256(content).hexdigest()[:20]}.json"
        (folder / "data" / places[address]).write_bytes(content)
    about = {"partition": partition["id"], "code_version": partition["code_version"], "answers": places}
    (folder / "data" / "index.json").write_bytes(_json(about))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
