"""Make the page: the types of its client from the OpenAPI document, its bundle from service/web/source.

    python docs/web.py            write service/web/source/api.d.ts and service/web/static/; needs node 20
    python docs/web.py --check    exit code 1 where either is not what is made now; needs no node

With node, `--check --rebuild` also makes everything again and compares every byte.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE, STATIC = ROOT / "service" / "web" / "source", ROOT / "service" / "web" / "static"
TYPES, MADE_FROM = SOURCE / "api.d.ts", SOURCE / "made_from.json"
WORK = ROOT / "build" / "web"  # with node_modules, kept between runs


def shape() -> dict[str, Any]:
    """The OpenAPI document without its words: no descriptions, examples or version, only what types follow from."""
    from interbasis.service.api.app import create_app
    from interbasis.service.store.store import Store

    with tempfile.TemporaryDirectory() as folder, Store.open(f"{folder}/store.sqlite") as store:
        document = create_app(store).openapi()
    document["info"] = {"title": "interbasis", "version": "1"}
    return dict(_bare(document))


def _bare(value: Any, *, names: bool = False) -> Any:
    """Leave out words; `names` says that keys are names of things and no keywords."""
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    left_out = () if names else ("description", "example", "examples", "summary", "title", "operationId")
    kept = {key: item for key, item in value.items() if key not in left_out or (key == "title" and "version" in value)}
    return {key: _bare(item, names=key in ("properties", "schemas", "paths")) for key, item in kept.items()}


def made_from() -> dict[str, str]:
    """Hashes of what types and bundle are made from."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    document = json.dumps(shape(), sort_keys=True)
    return {"openapi": hashlib.sha256(document.encode()).hexdigest(), "sources": digest.hexdigest()}


def _sources() -> Iterator[Path]:
    return (path for path in sorted(SOURCE.iterdir()) if path.is_file() and path != MADE_FROM)


def build(source: Path, static: Path) -> None:
    """Write api.d.ts and the files of the page."""
    WORK.mkdir(parents=True, exist_ok=True)
    lock = (SOURCE / "package-lock.json").read_bytes()
    installed = WORK / "node_modules" / ".installed"
    if not installed.is_file() or installed.read_bytes() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, WORK)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=WORK, check=True)
        installed.write_bytes(lock)
    shutil.rmtree(WORK / "source", ignore_errors=True)
    (WORK / "source").mkdir()
    for path in _sources():
        shutil.copy(path, WORK / "source")
    (WORK / "openapi.json").write_text(json.dumps(shape(), sort_keys=True))
    shutil.rmtree(WORK / "static", ignore_errors=True)
    subprocess.run(["node", "source/build.mjs"], cwd=WORK, check=True)
    shutil.copy(WORK / "source" / "api.d.ts", source)
    shutil.copytree(WORK / "static", static, dirs_exist_ok=True)


def stale() -> list[str]:
    """What has to be made again, as sentences."""
    recorded, now = json.loads(MADE_FROM.read_text()), made_from()
    said = {"openapi": "the API has other types than api.d.ts", "sources": "the bundle was made from other sources"}
    return [said[name] for name in said if recorded[name] != now[name]]


def differing() -> list[str]:
    """Files that are not byte for byte what is made now."""
    with tempfile.TemporaryDirectory() as folder:
        source, static = Path(folder) / "source", Path(folder) / "static"
        source.mkdir()
        build(source, static)
        pairs = {TYPES: source / "api.d.ts"} | {STATIC / path.name: path for path in static.iterdir()}
        return [
            str(old.relative_to(ROOT))
            for old, new in pairs.items()
            if not old.is_file() or old.read_bytes() != new.read_bytes()
        ]


def main(options: list[str]) -> int:
    """Make the page, or say what is stale."""
    if "--check" not in options:
        build(SOURCE, STATIC)
        MADE_FROM.write_text(json.dumps(made_from(), indent=2) + "\n")
        return 0
    found = stale() + ([f"{name} differs" for name in differing()] if "--rebuild" in options else [])
    for fault in found:
        print(f"{fault}: run `python docs/web.py`, which needs node 20")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
