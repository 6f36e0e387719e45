"""The wheel holds everything: installed alone, it works from another folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_rooms import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in tracked:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_has_every_module_and_the_migrations(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("analysis", "service", "migrations"):
        for path in (ROOT / folder).rglob("*.py"):
            assert f"interbasis/{path.relative_to(ROOT)}" in inside
    static = {path.name for path in (ROOT / "service" / "web" / "static").iterdir()}
    assert {f"interbasis/service/web/static/{name}" for name in static} <= inside
    assert not any("/source/" in name for name in inside)
    assert {f"interbasis/{path.name}" for path in (ROOT / "package").iterdir() if path.is_file()} <= inside
    assert not any(name.startswith(("package/", "analysis/", "service/", "migrations/", "tests/")) for name in inside)


def test_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """Unpacked before everything else on the path, with the dependencies of this environment."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
sys.meta_path = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
import interbasis.service.cli as cli, interbasis.analysis, interbasis
assert cli.__file__.startswith({str(site)!r}), cli.__file__
sys.argv = ["interbasis", "ls", "partitions", "--store", {str(tmp_path / "store.sqlite")!r}]
cli.main()
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "nothing stored yet in" in shown.stdout, shown.stderr
