"""The commands that take in files of other tools: convert (files of `torch.save`) and import (graphs)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...records.errors import ArtifactError, StoreError
from ...records.graphs import GRAPH, GraphRow
from ...records.kinds import Source
from ...terminal.show import err, out, print_json
from ...terminal.tables import counted, table
from ..backends import Given, makes_store, opened_backend
from ..completion import complete_values
from ..options import ArtifactsOption, ForceOption, JsonOption, StoreOption, UrlOption, with_place

__all__ = ["app"]

app = typer.Typer()

_MOST = 1 << 40  # bytes of tensors in one file

_STEP = re.compile(r"(.*?)[-_.]*(?:step|epoch|iter)?[-_.]*(\d{1,18})")


@app.command(rich_help_panel="Start here")
def convert(
    files: Annotated[list[Path], typer.Argument(help="Files of torch.save: .pt, .pth, .bin.")],
    model: Annotated[
        str | None, typer.Option(help="Name of the model.", show_default="the file's name without its step")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that exist.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert .pt files to .safetensors, each with a .json beside it for you to complete.

    A file holds model.state_dict(), or has it as "state_dict", "model_state_dict" or "model". It is read with
    weights_only, so that no code in it runs.

    Example: interbasis convert run/step500.pt --model digits
    """
    for file in files:
        _check(file, force)
    made = [_converted(file, model) for file in files]
    if as_json:
        print_json({"items": made})
        return
    rows = [(row["file"], row["about"]["family"], row["about"]["model"], row["about"]["step"]) for row in made]
    out.print(table(("file", "family", "model", "step"), rows))
    for row in made:
        if row["taken"] is not None:
            err.print(f'{row["file"]} has the tensors of "{row["taken"]}"; the rest was left out', soft_wrap=True)
    own, guessed = (
        ", ".join(str(Path(row["file"]).with_suffix(".json")) for row in made if row["about"]["family"] == family)
        for family in ("torch", "mlp")
    )
    if own:
        err.print(
            f"Complete {own}: config has the arguments of the function that builds the model, which you name with "
            "--factory module:function; data the data set, or give it with --data FILE.",
            soft_wrap=True,
        )
    if guessed:
        err.print(f"Check {guessed}: the activation is a guess; give the data with --data FILE.", soft_wrap=True)


@app.command("import", rich_help_panel="Analyse")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Files of graphs: attribution graphs of circuit-tracer and Neuronpedia, node-link JSON, GraphML, "
            "GEXF, edge lists (.csv, .parquet), our own .safetensors.",
        ),
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"Format of the files: {', '.join(complete_values('import', 'format')(''))}.",
            show_default="as the content says",
            autocompletion=complete_values("import", "format"),
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name of the model that the graphs belong to.", show_default="the file's name"),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Leave out nodes of this type, as error; may be repeated.")
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            help="Keep only the nodes and edges that carry this share of the influence on the outputs, as 0.95.",
            show_default="all",
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="Unit of strengths: weight, or share of the total weight into a node.",
            show_default="weight, of our own graphs their own",
            autocompletion=complete_values("import", "unit"),
        ),
    ] = None,
    longest_path: Annotated[
        bool, typer.Option("--longest-path", help="Compute layers even where the file names them.")
    ] = False,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read graphs that were made elsewhere, and store them to be divided into modules.

    Each file stands for a checkpoint of the model, as MODEL@FILE without its ending. Of files with one name the newest
    is meant by it; the older graphs keep their IDs.

    Example: interbasis import bee.json --without error --keep 0.95
    """
    choices = {"format": form, "model": model, "without": without or None, "keep": keep, "unit": unit}
    choices |= {"longest_path": longest_path or None}
    with opened_backend(store, artifacts, url, create=makes_store("import", files)) as backend:
        made = backend.run("import", files, choices, Given(force=force))
        found = [(backend.source.get_graph(each["graph"]), _types(backend.source, each["graph"])) for each in made]
        notes = dict.fromkeys(filter(None, (_shared(backend.source, row) for row, _ in found)))
    for note in notes:
        err.print(note, soft_wrap=True)
    if as_json:
        print_json({"items": [{**row.to_json(), "types": types} for row, types in found]})
        return
    rows = [(row.id, f"{row.model}@{row.label}", row.n_nodes, row.n_edges, len(row.cuts)) for row, _ in found]
    out.print(table(("graph", "name", "nodes", "edges", "layers"), rows))
    for row, types in found:
        said = ", ".join(counted(count, name) if name else f"{count:,} without a type" for name, count in types.items())
        out.print(f"{row.id}: {said}", highlight=False)
    err.print(with_place(f"next: `interbasis modules {found[-1][0].id}`"), soft_wrap=True)


def _shared(source: Source, row: GraphRow) -> str | None:
    """Say what the name of a graph means where others have the same name; None where it has it alone."""
    name = f"{row.model}@{row.label}"
    same = {each.id: each for each in source.every(GRAPH, model=row.model) if each.label == row.label}
    if len(same) < 2:
        return None
    meant = source.get_graph(name).id
    others = ", ".join(each for each in same if each != meant)
    return f"note: {name} means {meant} now; by their IDs alone: {others}"


def _types(source: Source, graph: str) -> dict[str, int]:
    """Count the nodes of each type, the most frequent first."""
    from ....analysis.graph.interaction_graph import InteractionGraph

    tables = InteractionGraph.from_bytes(source.graph_bytes(graph)).nodes
    return dict(Counter(name for table in tables for name in table.types).most_common())


def _check(file: Path, force: bool) -> None:
    """Refuse a file that is none, or whose results would overwrite others."""
    if not file.is_file():
        raise StoreError(f"there is no file {file}")
    if file.suffix == ".safetensors":
        raise StoreError(f"{file} is a .safetensors file already: expected a file of torch.save")
    for target in (file.with_suffix(".safetensors"), file.with_suffix(".json")):
        if target.exists() and not force:
            raise StoreError(f"{target} exists: give --force to write over it")


def _converted(file: Path, model: str | None) -> dict[str, Any]:
    """Write the two files of a checkpoint; return their name and what stands in the .json."""
    from pickle import UnpicklingError

    from safetensors import safe_open

    from ...api.convert_pt import convert as write

    target = file.with_suffix(".safetensors")
    try:
        place = write(str(file), str(target), _MOST)
    except StoreError as error:
        raise StoreError(f"{file}: {error}; save model.state_dict() with torch.save") from None
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{file} holds more than tensors, or is damaged: save model.state_dict() with torch.save, or the model "
            "with interbasis.analysis.save_checkpoint"
        ) from error
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}") from error
    with safe_open(target, framework="numpy") as opened:
        shapes = {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    about = _about(file, model, shapes)
    try:
        file.with_suffix(".json").write_text(json.dumps(about, indent=1))
    except OSError as error:
        raise ArtifactError(f"cannot write {file.with_suffix('.json')}: {error.strerror or error}") from error
    return {"file": str(target), "about": about, "tensors": shapes, "taken": place}


def _about(file: Path, model: str | None, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Describe a checkpoint as well as its file's name and the shapes of its tensors tell."""
    found = _STEP.fullmatch(file.stem)
    name = (found.group(1) or file.resolve().parent.name) if found else file.stem
    widths = _widths(shapes)
    config = {} if widths is None else {"widths": widths, "activation": "relu"}
    about = {"family": "torch" if widths is None else "mlp", "config": config, "model": model or name}
    return {**about, "label": file.stem, "step": int(found.group(2)) if found else None}


def _widths(shapes: Mapping[str, Sequence[int]]) -> list[int] | None:
    """Return the widths of a multilayer perceptron whose tensors are called as those of family mlp; None for others.

    >>> _widths({"layers.0.weight": [6, 4], "layers.0.bias": [6], "layers.1.weight": [3, 6], "layers.1.bias": [3]})
    [4, 6, 3]
    """
    count = sum(len(shape) == 2 for shape in shapes.values())
    named = {f"layers.{i}.{part}" for i in range(count) for part in ("weight", "bias")}
    if not count or set(shapes) != named:
        return None
    weights = [shapes[f"layers.{i}.weight"] for i in range(count)]
    chained = all(a[0] == b[1] for a, b in zip(weights, weights[1:], strict=False))
    return [weights[0][1], *(shape[0] for shape in weights)] if chained else None
