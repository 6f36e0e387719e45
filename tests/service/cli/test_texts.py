"""Folders of save_pretrained on the command line: text and tokens in, results and windows kept, tracking and jobs."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cases_transformers import random_tokens, transformer
from safetensors.torch import load_file, save_file

from interbasis.service.cli import app as cli
from interbasis.service.jobs.steps import Steps
from interbasis.service.store.store import Store

DECODERS = Path(__file__).parents[2] / "decoders"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    place = str(tmp_path / "store.db")
    monkeypatch.setenv("INTERBASIS_STORE", place)
    return place


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["interbasis", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code or 0) == code, err
    return out, err


def steps(folder: Path) -> list[str]:
    """Two checkpoints of one training, the weights of the first in one file, those of the second in several."""
    for step, size in ((10, "1GB"), (20, "4KB")):
        transformer("gpt2", seed=step).save_pretrained(folder / f"checkpoint-{step}", max_shard_size=size)
    return [str(folder / f"checkpoint-{step}") for step in (10, 20)]


def test_folders_are_analysed_tracked_and_taken_by_jobs(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = tmp_path / "tokens.npy"
    np.save(tokens, random_tokens(1, 48)[0].numpy())
    folders = steps(tmp_path / "tiny")
    choices = ["--basis", "pca", "--context", "4", "--points", "8", "--json"]
    out, err = run(capsys, "analyze", *folders, "--tokens", str(tokens), *choices)
    found = json.loads(out)["items"]
    assert [item["checkpoint"]["step"] for item in found] == [10, 20]
    assert {item["checkpoint"]["model"] for item in found} == {"tiny"}
    recipe = found[0]["graph"]["recipe"]
    assert (recipe["loss"], recipe["positions"]) == ("kl", "later")
    data = err.split("--data")[1].split()[0]
    assert data.startswith("sha256:")
    remarks = found[0]["partition"]["remarks"]
    assert "residual stream" in " ".join(remarks).lower()
    shown, _ = run(capsys, "show", found[0]["partition"]["id"])
    assert " ".join(remarks) in " ".join(shown.split())
    again, _ = run(capsys, "analyze", "tiny@20", "--data", data, "--basis", "pca", "--json")
    assert json.loads(again)["items"][0]["graph"]["id"] == found[1]["graph"]["id"], "the same windows, the same graph"
    tracked, _ = run(capsys, "track", "tiny", "--data", data, "--json")
    assert [step["step"] for step in json.loads(tracked)["steps"]] == [10, 20]
    with Store.open(store) as opened:
        job = opened.submit("analyze", Path(folders[1]), {"basis": "pca", "data": data})
        work = Steps(opened, {"task": job.task, "choices": job.choices, "target": job.target}, lambda _: None)
        with work.files():
            assert work.take("load", {})["graph"] == found[1]["graph"]["id"]


def test_text_is_split_by_the_tokenizer_of_the_folder(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, text = tmp_path / "reader", tmp_path / "corpus.txt"
    shutil.copytree(DECODERS / "text", folder)
    text.write_text("The with statement wraps the execution of a block. " * 20)
    run(capsys, "register", str(folder))
    run(capsys, "analyze", "reader", "--text", str(text), "--context", "200", code=2)
    _, err = run(capsys, "analyze", str(folder), "--text", str(text), "--context", "300", "--json", code=2)
    assert "give more text, or a smaller --context" in err
    out, _ = run(capsys, "ls", "graphs", "--json")
    assert json.loads(out)["items"] == [], "nothing half-stored"


def test_what_does_not_go_together_is_refused(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder, _), tokens = steps(tmp_path / "tiny"), tmp_path / "tokens.npy"
    np.save(tokens, random_tokens(8, 4).numpy())
    _, err = run(capsys, "analyze", folder, "--tokens", str(tokens), "--data", str(tokens), code=2)
    assert "several of --data, --text and --tokens were given" in err
    _, err = run(capsys, "analyze", folder, "--points", "3", code=2)
    assert "--points goes with --text or --tokens" in err
    _, err = run(capsys, "analyze", folder, code=2)
    assert "give a text with --text FILE" in err
    empty = tmp_path / "empty"
    empty.mkdir()
    _, err = run(capsys, "register", str(empty), code=2)
    assert "a folder without config.json" in err


def test_a_folder_that_has_changed_is_not_taken_for_the_checkpoint(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, folder), tokens = steps(tmp_path / "tiny"), tmp_path / "tokens.npy"
    np.save(tokens, random_tokens(8, 4).numpy())
    run(capsys, "register", folder)
    file = sorted(Path(folder).glob("*.safetensors"))[-1]
    save_file({name: value + 1 for name, value in load_file(file).items()}, file, {"format": "pt"})
    _, err = run(capsys, "analyze", "tiny@20", "--tokens", str(tokens), code=2)
    assert "its content has changed" in err.replace("\n", " ")


def test_measurements_and_experiments_take_tokens_too(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder, _), tokens = steps(tmp_path / "tiny"), tmp_path / "tokens.npy"
    np.save(tokens, random_tokens(1, 64)[0].numpy())
    words = [folder, "--tokens", str(tokens), "--context", "4"]
    sampled = ["--temperature", "5", "--kernel", "sgld", "--preconditioner", "none", "--batch-size", "3"]
    sampled += ["--parameters", "transformer.ln_f.*"]
    out, err = run(
        capsys, "llc", *words, *sampled, "--chains", "2", "--warmup", "3", "--draws", "8", "--points", "12", "--json"
    )
    found = json.loads(out)["items"][0]
    assert (found["n"], found["recipe"]["batch_size"], found["recipe"]["positions"]) == (12, 3, "later")
    assert err.split("--data")[1].split()[0].startswith("sha256:")
    _, err = run(capsys, "llc", *words, "--temperature", "5", "--kernel", "hmc", "--batch-size", "3", code=2)
    assert "hmc needs all the data in each step" in err.replace("\n", " ")
    out, _ = run(capsys, "ledger", *words, "--points", "2", "--json")
    found = json.loads(out)["items"][0]
    assert (found["n"], found["model"], found["recipe"]["positions"]) == (2, "tiny", "later")
    out, _ = run(capsys, "ledger", *words, "--points", "2", "--positions", "later")
    assert out.startswith(found["id"])
    assert "Positions that count (later): all but the first" in out
    out, _ = run(capsys, "ledger", *words, "--points", "2", "--positions", "all")
    assert "Positions that count (all): every position" in out
    assert found["id"] not in out
    _, err = run(capsys, "ledger", folder, "--points", "2", code=2)
    assert "--points goes with --text or --tokens" in err
    out, err = run(capsys, "analyze", *words, "--basis", "pca", "--k", "2", "--json")
    part = json.loads(out)["items"][0]["partition"]["id"]
    data = err.split("--data")[1].split()[0]
    words = ["experiment", part, "--kind", "isolate", "--draws", "2", "--data", data]
    out, _ = run(capsys, *words, "--metric", "cross_entropy", "--json")
    found = json.loads(out)["items"][0]
    assert (found["metric"], found["n"]) == ("cross_entropy", 16)
    assert found["summary"]["rows"][0]["values"]["cross_entropy"]["value"] > 1


def test_padded_data_come_from_a_file(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands at padding changes no number; the mask is part of the data."""
    transformer("bert").save_pretrained(tmp_path / "tiny")
    ids, mask = random_tokens(8, 5).numpy(), np.arange(5) < 3 + np.arange(8)[:, None] % 3
    edges = []
    for name, inputs in (("zeros", ids * mask), ("others", np.where(mask, ids, 7))):
        np.savez(tmp_path / f"{name}.npz", inputs=inputs, attention_mask=mask)
        words = [str(tmp_path / "tiny"), "--data", str(tmp_path / f"{name}.npz")]
        out, _ = run(capsys, "analyze", *words, "--basis", "pca", "--k", "2", "--json")
        found = json.loads(out)["items"][0]
        assert found["graph"]["recipe"]["positions"] == "mask"
        edges.append(found["partition"]["edge_cost"])
    assert edges[0] == pytest.approx(edges[1], rel=1e-6)
    out, _ = run(capsys, "ledger", *words, "--json")
    assert json.loads(out)["items"][0]["recipe"]["positions"] == "mask"


def test_blocks_are_told_as_heads_and_mlps(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder, _), tokens = steps(tmp_path / "tiny"), tmp_path / "tokens.npy"
    np.save(tokens, random_tokens(6, 3).numpy())
    out, err = run(capsys, "analyze", folder, "--tokens", str(tokens), "--basis", "pca", "--k", "2", "--json")
    part, data = json.loads(out)["items"][0]["partition"]["id"], err.split("--data")[1].split()[0]
    file = tmp_path / "components.json"
    words = ["export", part, "--data", data, "-o", str(file), "--format"]
    run(capsys, *words, "components")
    rows = json.loads(file.read_text())["components"]
    assert {row["component"] for row in rows} == {"a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"}
    for module in (0, 1):
        shares = [row["share"] for row in rows if row["module"] == module and row["component"][1] == "0"]
        assert shares == [None] * 3 or sum(shares) == pytest.approx(1)
    run(capsys, *words, "components", "--module", "1")
    assert {row["module"] for row in json.loads(file.read_text())["components"]} == {1}
    run(capsys, *words, "components", "--module", "1", "--neurons", "3")
    listed = json.loads(file.read_text())["neurons"]
    assert [(row["component"], row["module"]) for row in listed] == [("m0", 1)] * 3 + [("m1", 1)] * 3
    assert listed[0]["transformer_lens"] == f"blocks.0.mlp.hook_post[{listed[0]['neuron']}]"
    _, err = run(capsys, *words, "components", "--neurons", "0", code=2)
    assert "neurons is 0: expected how many" in err
    _, err = run(capsys, *words, "eap", "--neurons", "2", code=2)
    assert "neurons: only for the format components, not for eap" in err
    _, err = run(capsys, *words, "components", "--module", "7", code=2)
    assert "there is no module 7" in err
    run(capsys, *words, "eap")
    found = json.loads(file.read_text())
    assert found["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
    assert max(edge["score"] for edge in found["edges"].values()) > 0
    run(capsys, *words, "autocircuit")


def test_cards_of_stored_windows_show_the_tokens_of_the_folder(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, text = tmp_path / "reader", tmp_path / "corpus.txt"
    shutil.copytree(DECODERS / "text", folder)
    text.write_text("The with statement wraps the execution of a block. " * 20)
    choices = ["--context", "6", "--points", "4", "--probes", "1", "--basis", "pca"]
    _, err = run(capsys, "analyze", str(folder), "--text", str(text), *choices)
    data = "".join(err.split("--data")[1].split())
    out, _ = run(capsys, "describe", "reader@last", "--data", data, "--points", "0", "--node", "transformer.h.1/0")
    window = out.split("largest values")[1]
    assert any(word in window for word in ("with", "state", "exec", "block")), out
    assert "#" not in window
