"""Learning coefficients of parts of a stored network: modules of a partition, sets of parameters."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases_checkpoints import save_inputs, save_mlp

from interbasis.analysis.errors import InputError
from interbasis.analysis.recipe import LlcRecipe
from interbasis.analysis.refined.coefficients import RefinedCoefficients
from interbasis.service.cli import app as cli
from interbasis.service.jobs.steps import Steps
from interbasis.service.records.choices import check_choices
from interbasis.service.records.errors import StoreError
from interbasis.service.records.partitions import PARTITION, PartitionDetail
from interbasis.service.store.store import Store
from interbasis.service.tasks.analyze import analyze
from interbasis.service.tasks.estimates import llc
from interbasis.service.tasks.exchange import stored_estimate

SHORT = {"warmup": 9, "draws": 20, "chains": 2, "kernel": "mala"}


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints, their data, and a store with the partition of the first, which tests copy."""
    folder = tmp_path_factory.mktemp("analysed")
    data = save_inputs(folder / "x.npz")
    save_mlp(folder / "other.safetensors", seed=5)
    with Store.open(str(folder / "stored" / "store.sqlite"), str(folder / "stored" / "artifacts")) as store:
        analyze(store, save_mlp(folder / "net.safetensors", blocks=1), {"control": False}, data=data)
    return folder


@pytest.fixture
def store(analysed: Path, tmp_path: Path) -> Iterator[Store]:
    folder = shutil.copytree(analysed / "stored", tmp_path / "stored")
    with Store.open(str(folder / "store.sqlite"), str(folder / "artifacts")) as opened:
        yield opened


@pytest.fixture
def partition(store: Store) -> PartitionDetail:
    return store.get_partition("last")


def run(capsys: pytest.CaptureFixture[str], store: Store, *words: str, code: int = 0) -> tuple[str, str]:
    where = ["--store", str(store.location), "--artifacts", str(store.location.artifacts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["interbasis", *words, *where])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, err
    return out, err


def test_modules_are_counted_stored_and_found_again(
    store: Store, analysed: Path, partition: PartitionDetail, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = LlcRecipe(modules="last", **SHORT)
    row = llc(store, analysed / "net.safetensors", recipe, data=analysed / "x.npz")
    assert (row.mode, row.recipe["modules"]) == ("modules", partition.id)
    assert row.checkpoint == partition.checkpoint
    kinds = [point["kind"] for point in row.points]
    assert kinds[: 3 + partition.n_modules] == ["whole", *["module"] * partition.n_modules, "together", "between"]
    assert row.value == row.points[0]["value"]
    assert set(row.points[0]) >= {"mediators", "interaction", "constraint"}
    assert llc(store, analysed / "net.safetensors", recipe, data=analysed / "x.npz") == row
    found = stored_estimate(store, row.id)
    assert isinstance(found, RefinedCoefficients)
    assert found["whole"].value == row.value
    printed, _ = run(capsys, store, "show", "llc", row.id)
    assert max(map(len, printed.splitlines())) <= 80
    assert "sum of modules" in printed
    assert "between modules" in printed
    picture = tmp_path / "parts.png"
    run(capsys, store, "plot", row.id, "-o", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    _, err = run(capsys, store, "export", row.id, "--format", "netcdf", "-o", str(tmp_path / "x.nc"), code=2)
    assert "load the parts in Python" in err


def test_sets_of_parameters_are_counted_one_by_one(store: Store, analysed: Path) -> None:
    recipe = LlcRecipe(parts=("layers.0*", "*bias"), epsilon=1e-3, **SHORT)
    row = llc(store, analysed / "net.safetensors", recipe, data=analysed / "x.npz")
    assert row.mode == "parts"
    assert [point["part"] for point in row.points] == ["whole", "layers.0*", "*bias"]
    assert row.points[0]["n_parameters"] == row.n_parameters > row.points[1]["n_parameters"] > 0


def test_a_partition_of_another_checkpoint_is_refused(store: Store, analysed: Path) -> None:
    with pytest.raises(InputError, match="name the partition's own checkpoint"):
        llc(store, analysed / "other.safetensors", LlcRecipe(modules="last", **SHORT), data=analysed / "x.npz")


def test_a_job_names_the_partition_by_its_id(store: Store, partition: PartitionDetail, analysed: Path) -> None:
    choices = {"modules": "last", "data": str(analysed / "x.npz"), **SHORT}
    job = store.submit("llc", partition.checkpoint, choices)
    assert job.choices["modules"] == partition.id
    steps = Steps(store, {"task": job.task, "target": job.target, "choices": job.choices}, lambda _: None)
    with steps.files():
        (made,) = steps.take("llc", {})["results"]
    assert store.get_llc(made["id"]).mode == "modules"
    assert store.find_any((PARTITION,), partition.id)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"modules": "last", "parts": ["*"]}, "modules and parts were given"),
        ({"modules": "last", "temperature": 1.0}, "give epsilon alone"),
        ({"parts": ["auto"]}, "no loss scale"),
        ({"parts": ["auto"], "curve": True}, "give epsilon alone"),
    ],
)
def test_choices_that_exclude_each_other_are_refused(choices: dict[str, object], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        check_choices("llc", choices)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in choices.items()}
    with pytest.raises(InputError, match=said):
        LlcRecipe(**given)  # type: ignore[arg-type]
