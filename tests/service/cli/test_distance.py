"""Distances between networks and untrained copies on the command line, and loss scales that are a mean distance."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_inputs, save_mlp

from interbasis.analysis import load_checkpoint, network_distance
from interbasis.service.cli import app as cli
from interbasis.service.records.choices import check_choices
from interbasis.service.records.errors import StoreError

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command in this process, in the folder of the checkpoints; gives what it printed and said."""
    monkeypatch.setenv("INTERBASIS_STORE", str(tmp_path / "store" / "store.sqlite"))
    monkeypatch.chdir(tmp_path)

    def start(*words: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["interbasis", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == code, err
        assert max(map(len, out.splitlines()), default=0) <= 80 or "--json" in words
        return out, " ".join(err.split())

    return start


@pytest.fixture
def seeds(tmp_path: Path) -> list[Path]:
    """Three networks that are close to each other: the same seed, scaled by a little."""
    from safetensors.torch import load_file, save_file

    save_inputs(tmp_path / "data.npz")
    paths = [save_mlp(tmp_path / f"seed{i}.safetensors", model=f"net-{i}", step=9) for i in range(3)]
    for i, path in enumerate(paths):
        save_file({name: (1 + 0.01 * i) * value for name, value in load_file(path).items()}, path)
    return paths


def expected(paths: list[Path], **options: Any) -> Any:
    return network_distance([load_checkpoint(path, data=paths[0].parent / "data.npz", **options) for path in paths])


def test_distance_prints_what_the_library_says(run: Run, seeds: list[Path], tmp_path: Path) -> None:
    words = ("distance", "seed0.safetensors", "seed1.safetensors", "seed2.safetensors", "--data", "data.npz")
    found = json.loads(run(*words, "--json")[0])
    whole = expected(seeds)
    assert (found["names"], found["epsilon"]) == (["seed0", "seed1", "seed2"], whole.epsilon)
    assert found["data"]["matrix"] == whole.data.matrix.tolist()
    assert found["held_out"]["standard_error"] == whole.held_out.standard_error
    out, err = run(*words, "--plot", "d.png", "-o", "d.safetensors")
    assert f"{whole.epsilon:.4g}" in out
    assert "of 3 pairs of 3 networks" in " ".join(out.split())
    assert (tmp_path / "d.png").is_file()
    assert "wrote d.safetensors" in err


def test_stored_checkpoints_go_by_name(run: Run, seeds: list[Path]) -> None:
    run("analyze", *seeds, "--data", "data.npz", "--resolution", 1)
    found = json.loads(run("distance", "net-0@9", "net-1@last", "--data", "data.npz", "--json")[0])
    assert found["epsilon"] == expected(seeds[:2]).epsilon
    _, err = run("distance", "net-0@9", "net-7@9", "--data", "data.npz", code=2)
    assert "net-7" in err


def test_loss_scale_from_seeds_is_stored_with_the_networks(run: Run, seeds: list[Path]) -> None:
    scale = ("--epsilon", "seeds:seed*.safetensors", "--data", "data.npz")
    whole = expected(seeds)
    out, err = run("analyze", "seed0.safetensors", *scale, "--resolution", 1, "--json")
    assert f"loss scale {whole.epsilon:.4g} +- " in err
    assert "mean distance of 3 networks, seed0, seed1, seed2" in err
    part = json.loads(out)["items"][0]["partition"]
    assert (part["epsilon"], part["epsilon_source"]) == (whole.epsilon, "seeds")
    assert part["recipe"]["seeds"] == [f"seed{i} sha256:{h}" for i, h in enumerate(whole.sha256)]
    shown = " ".join(run("show", part["id"])[0].split())
    assert "seeds: the mean distance of seed0, seed1, seed2" in shown
    assert "sha256" not in shown
    again = json.loads(run("analyze", "seed0.safetensors", *scale, "--resolution", 1, "--json")[0])
    assert again["items"][0]["partition"]["id"] == part["id"]
    stored = ("--epsilon", "seeds:net-*@last", "--data", "data.npz")
    run("analyze", *seeds[1:], "--data", "data.npz", "--resolution", 1)
    divided = json.loads(run("modules", "net-0@9", *stored, "--resolution", 1, "--json")[0])
    assert divided["epsilon"] == whole.epsilon
    assert divided["recipe"]["seeds"][0].startswith("net-0@9 sha256:")
    counted = json.loads(run("ledger", "net-0@9", *stored, "--json")[0])["items"][0]
    assert counted["epsilon"] == whole.epsilon
    assert "mean distance of net-0@9, net-1@9, net-2@9" in " ".join(run("show", counted["id"])[0].split())
    short = ("--chains", 1, "--warmup", 9, "--draws", 20)
    estimated = json.loads(run("llc", "seed1.safetensors", *stored, *short, "--json")[0])["items"][0]
    assert estimated["recipe"]["epsilon"] == whole.epsilon
    assert len(estimated["recipe"]["seeds"]) == 3


def test_jobs_and_schedules_take_the_loss_scale_of_seeds(run: Run, seeds: list[Path]) -> None:
    scale = ("--set", "epsilon=seeds:seed*.safetensors", "--data", "data.npz")
    whole = expected(seeds)
    out, err = run("submit", "analyze", "seed0.safetensors", *scale, "--set", "resolution=1", "--json")
    assert "mean distance of 3 networks, seed0, seed1, seed2" in err
    (job,) = json.loads(out)["items"]
    assert job["choices"]["epsilon"] == whole.epsilon
    assert len(job["choices"]["seeds"]) == 3
    added = json.loads(run("schedule", "add", "ledger", "net-0", *scale, "--json")[0])
    assert (added["choices"]["epsilon"], added["choices"]["seeds"]) == (whole.epsilon, job["choices"]["seeds"])
    run("analyze", *seeds, "--data", "data.npz", "--resolution", 1)
    stored = ("--set", "epsilon=seeds:net-*@last", "--data", "data.npz")
    (job,) = json.loads(run("submit", "partition", "net-0@9", *stored, "--json")[0])["items"]
    assert job["choices"]["epsilon"] == whole.epsilon
    _, err = run("submit", "llc", "seed0.safetensors", "--set", "epsilon=seeds:none*", code=2)
    assert "no checkpoint matches" in err
    _, err = run("submit", "llc", "seed0.safetensors", *scale, "--set", "chains=many", code=2)
    assert "chains" in err


def test_refusals_say_what_matched(run: Run, seeds: list[Path]) -> None:
    words = ("analyze", "seed0.safetensors", "--data", "data.npz", "--epsilon")
    _, err = run(*words, "seeds:seed0*", code=2)
    assert "seeds:seed0*: only seed0.safetensors matches, and a distance needs two networks or more" in err
    _, err = run(*words, "seeds:nothing*", code=2)
    assert "no checkpoint matches" in err
    save_mlp(Path("wide.safetensors"), (4, 6, 5, 2), step=9)
    _, err = run("distance", "seed0.safetensors", "wide.safetensors", "--data", "data.npz", code=2)
    assert "outputs of seed0 and wide have shapes" in err
    _, err = run("llc", "seed0.safetensors", "--epsilon", "often", code=2)
    assert "--epsilon is 'often': expected a number, or seeds:GLOB" in err
    with pytest.raises(StoreError, match="give epsilon, a number, too"):
        check_choices("partition", {"seeds": ["a", "b"], "epsilon": "graph"})


def test_untrained_copies_stand_beside_the_network(run: Run, seeds: list[Path], tmp_path: Path) -> None:
    words = ("analyze", "seed0.safetensors", "--data", "data.npz", "--resolution", 1, "--control", "untrained")
    out, _ = run(*words, "--control-copies", 2, "--plot", "m.png")
    assert (tmp_path / "m-control.png").is_file()
    assert [line.split()[:2] for line in out.splitlines()[-3:]] == [["this", "network"], ["copy", "1"], ["copy", "2"]]
    assert "2 untrained copies have" in " ".join(out.split())
    item = json.loads(run(*words, "--control-copies", 2, "--json")[0])["items"][0]
    this, *copies = item["controls"]
    assert (this["edge_cost"], this["n_modules"]) == (item["partition"]["edge_cost"], item["partition"]["n_modules"])
    assert [copy["seed"] for copy in copies] == [0, 1]
    assert item["partition"]["recipe"]["untrained"] == 2
    assert any("untrained copies have" in remark for remark in item["partition"]["remarks"])
    run("plot", item["partition"]["id"], "--figure", "controls", "-o", "c.svg")
    plain = json.loads(run(*words[:-2], "--json")[0])["items"][0]
    assert "controls" not in plain
    assert plain["graph"]["id"] == item["graph"]["id"]
    _, err = run(*words[:-2], "--control", "shuffled", code=2)
    assert "--control is 'shuffled': expected untrained or none" in err
    _, err = run(*words[:-2], "--control-copies", 2, code=2)
    assert "--control-copies goes with --control untrained" in err
