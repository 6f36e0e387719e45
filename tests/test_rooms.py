"""Architecture: rooms use the rooms below them only, names and folders agree, public names exist."""

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("package", "analysis", "service", "migrations")  # package is `interbasis` itself
# From the ground up; rooms and files of one floor do not know each other.
FLOORS = {
    "analysis": (
        ("errors", "progress", "compiled", "seeds"),
        ("devices",),
        ("notebook",),
        ("fields", "results", "derivatives", "names"),
        ("linalg", "edges"),
        ("network",),
        ("huggingface",),
        ("checkpoints", "basis"),
        ("degeneracy", "graph"),
        ("reading",),
        ("attribution",),
        ("search",),
        ("modules",),
        ("llc", "circuits", "meaning", "comparison"),
        ("refined",),
        ("exchange", "figures"),
        ("recipe", "landscape"),
        ("pipeline",),
    ),
    "service": (
        ("records",),
        ("logs", "labels", "storage", "terminal", "web"),
        ("store", "client"),
        ("tasks",),
        ("jobs", "api"),
        ("cli",),
    ),
}
USED = {"analysis": {"analysis"}, "service": {"service", "analysis", "migrations"}}  # packages that each may import
MOST_FILES = 12
MOST_LINES = 45  # of code in a function
LONGER = {"_moves"}  # the innermost loop of Leiden's kernel, compiled: calls in it would cost time
COMPUTING = ("service.tasks", "service.jobs.compute", "service.jobs.steps")  # may import analysis at the top of a file


def files(top: str) -> list[Path]:
    return [path for path in sorted((ROOT / top).rglob("*.py")) if "__pycache__" not in path.parts]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    inside = parts[1:] if parts[0] == "package" else parts
    return ".".join(("interbasis", *inside)).removesuffix(".__init__")


def modules() -> list[str]:
    return [dotted(path) for top in TOPS for path in files(top) if path.stem != "env"]


MODULES = frozenset(modules())
PUBLIC = [
    n
    for n in modules()
    if n != "interbasis.__main__" and not n.startswith(("interbasis.migrations", "interbasis.service.cli.__main__"))
]


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Modules of ours that a file imports, anywhere in it, and the name that it takes of each."""
    package = dotted(path).split(".") if path.stem == "__init__" else dotted(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("interbasis"))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names if module.startswith("interbasis") else ():
                whole = f"{module}.{alias.name}"
                yield (whole, "") if whole in MODULES else (module, alias.name)


def room(module: str) -> tuple[str, str]:
    """Package and room of a module; a file on the ground floor is a room of its own, a package's face has none."""
    _, top, *rest = [*module.split("."), "", ""]
    return top, rest[0]


@pytest.mark.parametrize("top", FLOORS)
def test_rooms_use_rooms_below_them_only(top: str) -> None:
    floor = {name: number for number, names in enumerate(FLOORS[top]) for name in names}
    found = {room(dotted(path))[1] for path in files(top)} - {""}
    assert found == set(floor), "every room and every file beside them has its floor"
    for path in files(top):
        here = room(dotted(path))[1]
        for module, name in imports(path):
            package, there = room(module)
            assert package in USED[top], f"{path}: {top} imports {module}"
            if package == top and here not in ("", there):
                assert there, f"{path}: imports {name} from the face of its own package"
                assert floor[there] < floor[here], f"{path}: {here} imports {there} ({module})"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {
        dotted(path): {module for module, _ in imports(path) if module != dotted(path)}
        for top in TOPS
        for path in files(top)
        if path.stem != "__init__"
    }
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_no_private_name_leaves_its_room() -> None:
    for top in TOPS:
        for path in files(top):
            for module, name in imports(path):
                inside = room(module) == room(dotted(path))
                assert inside or not name.startswith("_") or name == "__version__", f"{path}: {name} of {module}"


def test_nothing_depends_on_the_builtin_hash() -> None:
    """It may differ between versions of Python, and of text between two runs; `analysis/seeds.py` derives seeds."""
    for top in TOPS:
        for path in files(top):
            names = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)]
            assert not [node.lineno for node in names if node.id == "hash"], path


def test_rooms_are_small_and_say_what_they_are_for() -> None:
    for top in FLOORS:
        for folder in {path.parent for path in files(top)}:
            face = folder / "__init__.py"
            assert ast.get_docstring(ast.parse(face.read_text())), folder
            assert len(list(folder.glob("*.py"))) <= MOST_FILES, folder


def test_no_name_of_a_face_hides_a_file_of_its_room() -> None:
    for top in FLOORS:
        for face in (path for path in files(top) if path.stem == "__init__" and path.parent != ROOT / top):
            inside = {path.stem for path in face.parent.glob("*.py")} | {path.name for path in face.parent.glob("*/")}
            nodes = [node for node in ast.parse(face.read_text()).body if isinstance(node, ast.ImportFrom)]
            taken = {alias.asname or alias.name for node in nodes for alias in node.names}
            assert not taken & inside, face


def test_every_room_is_packaged() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert listed == {dotted(path.parent / "__init__.py") for top in TOPS for path in files(top)}


@pytest.mark.parametrize("top", FLOORS)
def test_tests_stand_in_folders_of_the_same_names(top: str) -> None:
    rooms = {path.parent.name for path in files(top) if path.parent.parent == ROOT / top}
    tested = {path.name for path in (ROOT / "tests" / top).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert tested == rooms


def test_only_computing_modules_import_analysis() -> None:
    for path in files("service"):
        at_top = {node.module or "" for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)}
        if any(module.split(".")[0] == "analysis" for module in at_top):
            assert dotted(path).removeprefix("interbasis.").startswith(COMPUTING)


def test_service_starts_without_torch_and_numpy() -> None:
    names = [n for n in modules() if n.startswith(("interbasis.service", "interbasis.migrations"))]
    code = "import importlib, sys\n"
    light = [n for n in names if not n.removeprefix("interbasis.").startswith(COMPUTING)]
    code += "\n".join(f"importlib.import_module({n!r})" for n in light)
    code += "\nassert not {'torch', 'numpy', 'interbasis.analysis'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_listed_exist_and_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    listed = getattr(module, "__all__", None)
    if listed is None:
        assert "__path__" in vars(module), f"{name} lists no public names"
        return
    assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    for public in module.__all__:
        value = getattr(module, public)
        if callable(value) and getattr(value, "__module__", "") == name:
            assert value.__doc__, f"{name}.{public} has no docstring"


def test_folders_are_not_imported_under_their_own_names() -> None:
    for name in modules():
        importlib.import_module(name)
    assert not set(TOPS) & set(sys.modules)


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> int:
    """Lines of a function without blank ones, comments and docstrings; its signature counts as one line."""
    inner = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    documented = [node.body[0] for node in inner if ast.get_docstring(node) is not None]
    left_out = {number for node in documented for number in range(node.lineno, (node.end_lineno or 0) + 1)}
    body = range(function.body[0].lineno, (function.end_lineno or 0) + 1)
    code = [lines[number - 1].strip() for number in body if number not in left_out]
    return 1 + sum(bool(line) and not line.startswith("#") for line in code)


def test_lines_of_code_are_counted() -> None:
    text = 'def f(\n    a: int,\n) -> int:\n    """Doc.\n\n    On.\n    """\n    # why\n\n    b = a\n    return b\n'
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    assert lines_of_code(function, text.splitlines()) == 3


@pytest.mark.parametrize("top", FLOORS)
def test_functions_are_short(top: str) -> None:
    for path in files(top):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in LONGER:
                count = lines_of_code(node, text.splitlines())
                assert count <= MOST_LINES, f"{path}: {node.name} has {count} lines of code: part it"


def test_no_run_of_ten_lines_stands_in_two_files_of_the_service() -> None:
    seen: dict[tuple[str, ...], Path] = {}
    for path in files("service"):
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        for start in range(len(lines) - 9):
            other = seen.setdefault(tuple(lines[start : start + 10]), path)
            assert other == path, f"{path} and {other} share ten lines from {lines[start]!r}: write them once"


def test_no_assert_guards_input() -> None:
    for folder in TOPS:
        for path in (ROOT / folder).rglob("*.py"):
            assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text()))), path
