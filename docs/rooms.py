"""Draw the rooms of analysis/ and service/ from the imports in their files, and list them in ARCHITECTURE.md.

    python docs/rooms.py            write docs/rooms.png and the table in ARCHITECTURE.md
    python docs/rooms.py --check    compare table and picture with the code; exit code 1 where they differ

The syntax tree of each file is read, imports inside functions too; nothing of the project is imported.
"""

import ast
import hashlib
import itertools
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "ARCHITECTURE.md", ROOT / "docs" / "rooms.png"
TOPS = ("service", "analysis", "migrations")
DRAWN = TOPS[:2]
BEGIN, END = "<!-- written by docs/rooms.py: begin -->\n", "<!-- written by docs/rooms.py: end -->\n"

FILL = {"service": "#fdf3e3", "analysis": "#e8f1fa"}
EDGE = {"service": "#c98a2b", "analysis": "#3b78b0"}
INK, GREY = "#222222", "#777777"
COLUMNS = 3
WIDTH, HEIGHT = 2.95, 0.86  # of a room, in inches
ACROSS, DOWN = 3.3, 1.33  # from one room to the next
HEAD, FOOT, MARGIN = 0.52, 0.56, 0.18


@dataclass(frozen=True)
class Room:
    """A folder of a package, or a file beside its folders."""

    name: str
    purpose: str
    files: int
    imports: frozenset[tuple[str, str]]  # package and room
    defines: bool  # anything of its own, or only hands names on

    @property
    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.name.endswith(".py")


def rooms(top: str) -> dict[str, Room]:
    """Rooms of a package by name."""
    entries = [path for path in sorted((ROOT / top).iterdir()) if path.suffix == ".py" or path.is_dir()]
    return {path.name: _room(top, path) for path in entries if path.name not in ("__init__.py", "__pycache__")}


def _room(top: str, path: Path) -> Room:
    files = [file for file in sorted(path.rglob("*.py")) if "__pycache__" not in file.parts] or [path]
    trees = {file: ast.parse(file.read_text()) for file in files}
    found = {target for file, tree in trees.items() for target in _imports(file, tree)} - {(top, path.name), (top, "")}
    face = trees[path if path.suffix else path / "__init__.py"]
    purpose = (ast.get_docstring(face) or "").split("\n\n")[0].replace("\n", " ").split("; ")[0].rstrip(".")
    made = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defines = any(isinstance(node, made) for tree in trees.values() for node in tree.body)
    return Room(path.name, purpose, len(files), frozenset(found), defines)


def _imports(file: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Package and room of each import of ours; the room is empty where the package itself is imported."""
    package = ("interbasis", *file.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*module, alias.name) for alias in node.names]
        for name in names:
            if len(name) > 1 and name[0] == "interbasis" and name[1] in TOPS:
                yield name[1], _entry(name[1], name[2] if len(name) > 2 else "")


def _entry(top: str, name: str) -> str:
    if (ROOT / top / name).is_dir():
        return name
    return f"{name}.py" if (ROOT / top / f"{name}.py").is_file() else ""


def graph_of(top: str, found: Mapping[str, Room]) -> tuple[nx.DiGraph, list[str]]:
    """Which rooms import which; and, apart from it, the files that import no room, which every room may use."""
    graph = nx.DiGraph()
    graph.add_nodes_from(found)
    graph.add_edges_from((name, to) for name, room in found.items() for package, to in room.imports if package == top)
    ground = [n for n, room in found.items() if room.is_file and all(to.endswith(".py") for to in _below(graph, n))]
    graph.remove_nodes_from(ground)
    return graph, ground


def _below(graph: nx.DiGraph, name: str) -> set[str]:
    return set(nx.descendants(graph, name))


def table() -> str:
    """The table of rooms and their imports, in Markdown."""
    lines = ["| room | imports |", "| --- | --- |"]
    for top in DRAWN:
        found = rooms(top)
        graph, ground = graph_of(top, found)
        for name in (name for floor in floors(graph) for name in floor):
            below = [f"`{to}`" for to in sorted(graph[name])]
            others = [f"`{package}/`" for package in sorted({p for p, _ in found[name].imports if p != top})]
            path = f"{top}/{name}" if found[name].is_file else f"{top}/{name}/"
            lines.append(f"| `{path}` | {', '.join(below + others) or 'no other room'} |")
        if ground:
            lines.append(f"| {', '.join(f'`{top}/{name}`' for name in ground)} | no room; every room may import them |")
    return "\n".join(lines) + "\n"


def floors(graph: nx.DiGraph) -> list[list[str]]:
    """Rooms from the top down, each above all that it imports and as low as that allows."""
    return [sorted(floor) for floor in nx.topological_generations(graph.reverse())][::-1]


def columns(graph: nx.DiGraph) -> dict[str, tuple[int, int]]:
    """Row and column of each room, so that arrows are short: two neighbouring rows at a time are placed anew."""
    rows = floors(graph)
    count = max(COLUMNS, *map(len, rows))
    chosen = [tuple(range(len(row))) for row in rows]
    least = _length(graph, _places(rows, chosen))
    while True:
        before = least
        for i in range(len(rows)):
            near = rows[i : i + 2]
            for choice in itertools.product(*(itertools.permutations(range(count), len(row)) for row in near)):
                tried = [*chosen[:i], *choice, *chosen[i + 2 :]]
                length = _length(graph, _places(rows, tried))
                if length < least:
                    chosen, least = tried, length
        if least == before:
            return _places(rows, chosen)


def _places(rows: list[list[str]], chosen: list[tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    return {n: (i, c) for i, row in enumerate(rows) for n, c in zip(row, chosen[i], strict=True)}


def _length(graph: nx.DiGraph, at: Mapping[str, tuple[int, int]]) -> float:
    lanes = [(at[one][1], _lane(at, one, other), at[other][1]) for one, other in graph.edges]
    return sum((a - lane) ** 2 + (lane - b) ** 2 for a, lane, b in lanes)


def _lane(at: Mapping[str, tuple[int, int]], one: str, other: str) -> float:
    """Column in which an arrow runs down past the rows between two rooms: one without rooms, or between columns."""
    (row, a), (to_row, b) = at[one], at[other]
    taken = {column for between, column in at.values() if row < between < to_row}
    last = max(column for _, column in at.values())
    lanes = [lane / 2 for lane in range(2 * last + 1) if lane % 2 or lane / 2 not in taken]
    return min(lanes, key=lambda lane: ((a - lane) ** 2 + (lane - b) ** 2, abs(lane - b)))


def draw() -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    found = {top: rooms(top) for top in DRAWN}
    graphs = {top: graph_of(top, found[top]) for top in DRAWN}
    for top, (graph, _) in graphs.items():
        graph.remove_nodes_from([name for name in graph if not found[top][name].defines])
    places = {top: columns(nx.transitive_reduction(graph)) for top, (graph, _) in graphs.items()}
    heights = {top: _height(places[top], graphs[top][1]) for top in DRAWN}
    width = max(column for at in places.values() for _, column in at.values()) * ACROSS + WIDTH + 4 * MARGIN
    height = sum(heights.values()) + (len(DRAWN) + 1) * MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    y = MARGIN
    for top in DRAWN:
        _draw_box(axes, MARGIN, y, width - 2 * MARGIN, heights[top], fc="white", ec="#cccccc", zorder=1)
        _draw_package(axes, top, found[top], *graphs[top], places[top], y)
        y += heights[top] + MARGIN
    figure.savefig(PICTURE, dpi=150, metadata={"Comment": drawn()})


def drawn() -> str:
    """What the picture shows, as a hash that is kept in its file."""
    found = [[(room.name, room.purpose, room.files, sorted(room.imports)) for room in rooms(t).values()] for t in DRAWN]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def shown() -> str | None:
    """The hash in the picture's file."""
    from PIL import Image

    with Image.open(PICTURE) as picture:
        return picture.info.get("Comment")


def _height(at: Mapping[str, tuple[int, int]], ground: list[str]) -> float:
    return HEAD + max(row for row, _ in at.values()) * DOWN + HEIGHT + (FOOT if ground else 0) + MARGIN


def _draw_package(
    axes: "Axes",
    top: str,
    found: Mapping[str, Room],
    graph: nx.DiGraph,
    ground: list[str],
    at: Mapping[str, tuple[int, int]],
    y: float,
) -> None:
    """Draw the rooms of a package, the arrows that do not follow from others, and its files on the ground."""
    right = axes.get_xlim()[1] - 2 * MARGIN
    axes.text(2 * MARGIN, y + 0.27, f"{top}/", size=15, weight="bold", color=EDGE[top], va="center")
    files = sum(room.files for room in found.values())
    axes.text(right, y + 0.27, f"{files} files", size=9, color=GREY, va="center", ha="right")
    corner = {name: (2 * MARGIN + column * ACROSS, y + HEAD + row * DOWN) for name, (row, column) in at.items()}
    for path in _paths(nx.transitive_reduction(graph), at, corner):
        _draw_arrow(axes, path, EDGE[top])
    for name, (left, upper) in corner.items():
        _draw_room(axes, top, found[name], left, upper)
    if ground:
        names = "   ".join(name.removesuffix(".py") for name in ground)
        lower = y + _height(at, ground) - 0.34 - MARGIN
        _draw_box(axes, 2 * MARGIN, lower, right - 2 * MARGIN, 0.34, fc="#f4f4f4", ec="#cccccc", zorder=1)
        text = f"files that every room may import:   {names}"
        axes.text((right + 2 * MARGIN) / 2, lower + 0.17, text, size=9, color=INK, ha="center", va="center")


def _paths(
    graph: nx.DiGraph, at: Mapping[str, tuple[int, int]], corner: Mapping[str, tuple[float, float]]
) -> Iterator[list[tuple[float, float]]]:
    """Corners of each arrow; those that leave or reach the same room stand beside each other, and so do lanes."""
    lane = {edge: _lane(at, *edge) for edge in graph.edges}
    long = {(one, other) for one, other in graph.edges if at[other][0] - at[one][0] > 1}
    straight = {e for e in lane if at[e[0]][1] == lane[e] == at[e[1]][1]}
    for edge in graph.edges:
        one, other = edge
        leaving = sorted(graph.out_edges(one), key=lambda e: (lane[e], at[e[1]][1]))
        coming = sorted(graph.in_edges(other), key=lambda e: (lane[e], at[e[0]][1]))
        beside = sorted((e for e in long if lane[e] == lane[edge]), key=lambda e: (at[e[1]][1], -at[e[0]][0], e))
        start = corner[one][0] + WIDTH / 2 + _spread(leaving, edge, straight, 0.3), corner[one][1] + HEIGHT
        end = corner[other][0] + WIDTH / 2 + _spread(coming, edge, straight, 0.3), corner[other][1]
        if edge not in long:
            yield [start, end]
            continue
        x = 2 * MARGIN + lane[edge] * ACROSS + WIDTH / 2 + _spread(beside, edge, straight, 0.08)
        yield [start, (x, start[1] + DOWN - HEIGHT), (x, end[1] - DOWN + HEIGHT), end]


def _spread(edges: list[tuple[str, str]], edge: tuple[str, str], straight: set[tuple[str, str]], step: float) -> float:
    """How far from the middle an arrow stands among others; one that runs straight down stands in the middle."""
    middle = next((i for i, other in enumerate(edges) if other in straight), (len(edges) - 1) / 2)
    return (edges.index(edge) - middle) * step


def _draw_arrow(axes: "Axes", path: list[tuple[float, float]], colour: str) -> None:
    """Draw an arrow through some points, vertical at each."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    points, codes = [path[0]], [Line.MOVETO]
    for (x, y), (u, v) in itertools.pairwise(path):
        points += [(x, (y + v) / 2), (u, (y + v) / 2), (u, v)]
        codes += [Line.CURVE4] * 3
    style = {"arrowstyle": "-|>,head_length=4,head_width=2", "color": colour, "lw": 0.9, "zorder": 2}
    axes.add_patch(FancyArrowPatch(path=Line(points, codes), **style))


def _draw_room(axes: "Axes", top: str, room: Room, left: float, upper: float) -> None:
    """Draw a room: its name, its size, what it is for, and the other packages that it imports."""
    _draw_box(axes, left, upper, WIDTH, HEIGHT, fc="white" if room.is_file else FILL[top], ec=EDGE[top], zorder=3)
    count = "" if room.is_file else f"{room.files} files"
    axes.text(left + 0.1, upper + 0.16, room.name, size=11.5, weight="bold", color=INK, va="center", zorder=4)
    axes.text(left + WIDTH - 0.1, upper + 0.16, count, size=8, color=GREY, ha="right", va="center", zorder=4)
    text = "\n".join(textwrap.wrap(room.purpose, 44))
    axes.text(left + 0.1, upper + 0.31, text, size=8.5, color=INK, linespacing=1.2, va="top", zorder=4)
    for package in sorted({package for package, _ in room.imports} - {top}):
        colour = EDGE.get(package, GREY)
        tag = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": colour, "lw": 0.8}
        place = left + WIDTH - 0.12, upper + HEIGHT
        axes.text(*place, f"imports {package}/", size=7.5, color=colour, ha="right", va="center", bbox=tag, zorder=5)


def _draw_box(axes: "Axes", left: float, upper: float, width: float, height: float, **style: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    shape = "round,pad=0,rounding_size=0.07"
    axes.add_patch(FancyBboxPatch((left, upper), width, height, boxstyle=shape, lw=1, **style))


def main() -> int:
    """Check the table and the picture, or write both."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    listed, after = rest.split(END)
    if sys.argv[1:] == ["--check"]:
        if listed == table() and shown() == drawn():
            return 0
        print("ARCHITECTURE.md or docs/rooms.png is not of the code as it is: run `python docs/rooms.py`")
        return 1
    PAGE.write_text(before + BEGIN + table() + END + after)
    draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
