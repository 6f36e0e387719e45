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
from pathlib import Path, PurePosixPath, PureWindowsPath
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

_PARTS = ("index.html", "web", "data")  # what a report writes into its folder

_LISTS = ("checkpoints", "graphs", "partitions", "llc", "ledgers", "trackings")  # of the same run


def write_report(read: Read, ref: str, folder: Path, *, force: bool = False) -> Path:
    """Write the page and what it shows of a partition into a folder, whole or not at all.

    Two reports of the same store are the same, byte for byte. Paths of this machine are left out: those of checkpoints,
    folders of the networks that set a loss scale, and what checkpoints tell of themselves but for their `metrics`.

    Args:
        read: asks the service.
        ref: reference of the partition.
        folder: where to write; it is made.
        force: write anew where the folder has an earlier report; what else is in the folder stays.

    Raises:
        StoreError: the folder has something in it, or cannot be written; an earlier report is as it was.
        NotFoundError: the partition does not exist.
    """
    occupied = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if occupied and not force:
        raise StoreError(f"{folder} has something in it: name another folder, or --force to replace an earlier report")
    if occupied and not _is_report(folder):
        raise StoreError(f"{folder} is no report, so --force does not replace it: name another folder")
    extract = _Extract(read)
    partition = extract.partition(ref)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            _write(Path(place) / "new", partition, extract.answers)
            _replace(folder, Path(place) / "new", Path(place) / "old")
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}") from error
    return folder


def _is_report(folder: Path) -> bool:
    """Return whether a folder has the index of a report."""
    try:
        index = json.loads((folder / "data" / "index.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and {"partition", "code_version", "answers"} <= index.keys()


def _replace(folder: Path, new: Path, old: Path) -> None:
    """Move a report into a folder, in place of the one there; where that fails, it is there again."""
    made = not folder.exists()
    if made:
        folder.mkdir()
    old.mkdir()
    undo: list[tuple[Path, Path]] = []
    try:
        for name in _PARTS:
            for source, target in ((folder / name, old / name), (new / name, folder / name)):
                if source.exists():
                    os.rename(source, target)
                    undo.append((target, source))
    except OSError:
        for target, source in reversed(undo):
            os.rename(target, source)
        if made:
            folder.rmdir()
        raise


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
        self.answers[f"api/v1/{path}" + (f"?{text}" if text else "")] = _public(answer)
        return answer

    def _ask_all(self, path: str, **query: Any) -> None:
        """Take a list to its end, as one page."""
        found = page = self._read(path, **query)
        while page.get("next_cursor"):
            page = self._read(path, **query, cursor=page["next_cursor"])
            found = {**found, "items": [*found["items"], *page["items"]], "next_cursor": None}
        self._keep(found, path, **query)

    def partition(self, ref: str) -> dict[str, Any]:
        """Take a partition with all that the page shows of it, and return it."""
        found: dict[str, Any] = self._read(f"partitions/{ref.replace('/', '%2F')}")
        this = found["id"]
        self._ask("health")
        self._ask(f"partitions/{this}")
        self._ask(f"graphs/{found['graph']}")
        self._ask_all(f"partitions/{this}/labels", limit=1000)
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
        address = f"models/{found['model'].replace('/', '%2F')}"
        model = self._keep({**self._read(address), "config": {}}, address)
        self._keep(_listing([model]), "models", **_NEWEST)
        self._keep(_listing([]), "jobs", **_NEWEST)
        runs = self._read("runs", model=model["id"], limit=1000)
        self._keep({**runs, "items": [{**row, "config": {}} for row in runs["items"]]}, "runs", limit=1000)
        of = {"run": found["run"]} if found["run"] else {"model": model["id"]}
        for name in _LISTS:
            listed = self._read(name, **of, **_NEWEST)
            if name == "checkpoints":
                listed = {**listed, "items": [_anonymous(row) for row in listed["items"]]}
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


def _anonymous(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a checkpoint what the page does not read."""
    about = {name: value for name, value in (row.get("about") or {}).items() if name == "metrics"}
    return {**row, "path": None, "config": {}, "about": about}


def _public(value: Any, *, recipe: bool = False) -> Any:
    """Leave out of recipes where files lie on this machine."""
    if isinstance(value, list):
        return [_public(each, recipe=recipe) for each in value]
    if isinstance(value, dict):
        return {key: _public_field(key, each, recipe=recipe) for key, each in value.items()}
    return _base_name(value) if recipe and isinstance(value, str) and _is_absolute(value) else value


def _public_field(key: str, value: Any, *, recipe: bool) -> Any:
    if recipe:
        seeds = key == "seeds" and isinstance(value, list)
        return [_base_name(str(name)) for name in value] if seeds else _public(value, recipe=True)
    return _public(value, recipe=key == "recipe")


def _is_absolute(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or name.startswith("~")


def _base_name(name: str) -> str:
    return PureWindowsPath(name).name or name  # which knows both slashes


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
