"""Architecture: imports go one way, names and folders agree, public names exist."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANALYSIS = [
    *("errors", "fields", "values", "linalg", "progress", "batches", "masks", "files", "tensors", "weights"),
    *("cuts", "layouts", "hooks", "checks", "scan", "transitions", "derivatives", "network", "components", "models"),
    *(
        "places",
        "datasets",
        "families",
        "moments",
        "rotation",
        "basis",
        "skips",
        "graph",
        "compiled",
        "cost",
        "objectives",
        "leiden",
        "kway",
    ),
    *(
        "multiplex",
        "search",
        "mediators",
        "significance",
        "scales",
        "beyond_chains",
        "resolution",
        "modules",
        "partition",
        "tracking",
    ),
    *("layers", "gradients", "hessian", "synchronisation", "directions", "census", "degeneracy", "sparsify"),
    *("pairs", "batch_loss", "ways", "landscape"),
    *("curvature", "sampling", "chains", "diagnostics", "coefficient", "llc"),
    *("metrics", "order", "receivers", "interventions", "controls", "mixing", "ablation"),
    *("faithfulness", "bisection", "prediction"),
    *("experiments", "projection", "attribution_graphs", "exchange", "circuit_files", "imports", "plots"),
    *("circuit_plots", "untrained", "recipe", "demo"),
]
COMPUTING = ("worker", "estimates", "experiments", "compute", "draw")  # of the service: those that may import analysis


def modules() -> list[str]:
    return [
        f"interbasis.{folder}.{path.stem}"
        for folder in ("analysis", "service", "migrations")
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.stem not in ("__init__", "env")
    ]


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports when it is imported itself, as "folder.module"."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parent.name if node.level == 1 else ""
            if node.module is None or (base == "" and "." not in (node.module or "")):
                found |= {f"{base or node.module}.{alias.name}".strip(".") for alias in node.names}
            else:
                found.add(f"{base}.{node.module}".strip("."))
    return found


@pytest.mark.parametrize("name", ANALYSIS)
def test_analysis_imports_downwards_only(name: str) -> None:
    allowed = {f"analysis.{earlier}" for earlier in ANALYSIS[: ANALYSIS.index(name)]}
    assert imported(ROOT / "analysis" / f"{name}.py") <= allowed


def test_every_analysis_module_has_its_place() -> None:
    assert {path.stem for path in (ROOT / "analysis").glob("*.py")} - {"__init__"} == set(ANALYSIS)


def test_only_computing_modules_import_analysis() -> None:
    for path in (ROOT / "service").glob("*.py"):
        if any(name.startswith("analysis") for name in imported(path)):
            assert path.stem in COMPUTING


def test_service_starts_without_torch_and_numpy() -> None:
    names = [n for n in modules() if n.startswith(("interbasis.service", "interbasis.migrations"))]
    code = "import importlib, sys\n"
    code += "\n".join(f"importlib.import_module({n!r})" for n in names if not n.endswith(COMPUTING))
    code += "\nassert not {'torch', 'numpy', 'interbasis.analysis'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", modules())
def test_public_names_are_listed_exist_and_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    for public in module.__all__:
        value = getattr(module, public)
        if callable(value) and getattr(value, "__module__", "") == name:
            assert value.__doc__, f"{name}.{public} has no docstring"


def test_folders_are_not_imported_under_their_own_names() -> None:
    for name in modules():
        importlib.import_module(name)
    assert not {"analysis", "service", "migrations"} & set(sys.modules)


def test_no_assert_guards_input() -> None:
    for folder in ("analysis", "service", "migrations"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text()))), path
