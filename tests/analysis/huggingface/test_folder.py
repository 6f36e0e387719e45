"""Folders of `save_pretrained` as checkpoints: what they hold, how they load, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cases_transformers import CONTEXT, MODELS, VOCABULARY, random_tokens, transformer
from safetensors.torch import load_file, save_file

import interbasis
from interbasis.analysis.errors import CheckpointError, DataError
from interbasis.analysis.huggingface import folder as folders
from interbasis.analysis.huggingface.folder import read_folder
from interbasis.analysis.huggingface.library import library

DECODERS = Path(__file__).parents[2] / "decoders"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.npy"
    np.save(file, random_tokens(6, 4).numpy())
    return file


def saved(folder: Path, name: str = "gpt2", **options) -> Path:
    transformer(name).save_pretrained(folder, **options)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_what_save_pretrained_wrote_is_loaded(name: str, tmp_path: Path, tokens: Path) -> None:
    model = transformer(name)
    model.save_pretrained(tmp_path / name)
    found = interbasis.load_checkpoint(tmp_path / name, tokens=tokens)
    assert (found.label, found.model, found.step, found.family) == (name, name, None, "hf")
    assert list(found.network.streams) == ["resid_pre.0", "resid_post.0", "resid_post.1"]
    assert found.network.loss == "kl"
    assert {p.dtype for p in found.network.model.parameters()} == {torch.float64}
    ids = next(iter(found.batches))
    with torch.no_grad():
        expected = model.eval()(ids).logits
    assert torch.allclose(found.network.model(ids).logits.float(), expected, rtol=1e-4, atol=1e-5)
    assert interbasis.load_checkpoint(tmp_path / name / "model.safetensors", tokens=tokens).sha256 == found.sha256


def test_steps_and_models_are_in_the_names_of_folders(tmp_path: Path, tokens: Path) -> None:
    folder = saved(tmp_path / "my-gpt2" / "checkpoint-1000")
    found = interbasis.load_checkpoint(folder, tokens=tokens)
    assert (found.model, found.step, found.label) == ("my-gpt2", 1000, "my-gpt2 checkpoint-1000")


def test_several_files_of_weights_are_one_checkpoint(tmp_path: Path, tokens: Path) -> None:
    one, several = saved(tmp_path / "one"), saved(tmp_path / "several", max_shard_size="2KB")
    assert len(read_folder(several).files) > 1
    whole, parts = (interbasis.load_checkpoint(folder, tokens=tokens) for folder in (one, several))
    ids = next(iter(whole.batches))
    assert torch.equal(whole.network.output(ids), parts.network.output(ids))
    assert len(parts.sha256) == 64
    read_folder(several).files[0].unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00001-of-.*copy the whole folder"):
        interbasis.load_checkpoint(several, tokens=tokens)


def test_text_is_cut_into_windows(tmp_path: Path) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("The with statement is used to wrap the execution of a block with methods defined. " * 40)
    found = interbasis.load_checkpoint(DECODERS / "text", text=text, context=16, points=8)
    assert found.batches.inputs.shape == (8, 16)
    assert repr(found.batches) == "Dataset('corpus.txt, windows of 16 tokens', 8 data points)"
    again = interbasis.load_checkpoint(DECODERS / "text", text=text, context=16, points=8, seed=1)
    assert again.batches.sha256 != found.batches.sha256
    lines = found.network.assumed
    assert lines[0] == "The loss is kl: the output is as wide as the vocabulary (1280)."
    assert found.positions == "later"
    everything = interbasis.load_checkpoint(DECODERS / "text", text=text, context=16, points=8, positions="all")
    assert not everything.network.masked


def test_the_trained_decoder_predicts_its_text() -> None:
    from pydoc_data.topics import topics

    found = library()
    tokenizer = found.AutoTokenizer.from_pretrained(DECODERS / "text")
    model = found.AutoModelForCausalLM.from_pretrained(DECODERS / "text", dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode(topics["assert"])[:128]])
    with torch.no_grad():
        loss = float(model(ids, labels=ids).loss)
    assert loss < 3.5, "7.2 before training"
    assert 150_000 < model.num_parameters() < 250_000


@pytest.mark.parametrize(("name", "streams"), [("one_task", 1), ("two_tasks", 2)])
def test_the_trained_decoders_add(name: str, streams: int) -> None:
    from train_decoders import sums

    model = library().AutoModelForCausalLM.from_pretrained(DECODERS / name)
    numbers, answers = sums(streams)
    with torch.no_grad():
        likeliest = model(numbers).logits.topk(streams).indices
    assert torch.equal(likeliest.sort().values, answers)


def test_what_is_missing_is_said(tmp_path: Path, tokens: Path) -> None:
    empty, text = tmp_path / "empty", tmp_path / "corpus.txt"
    empty.mkdir()
    with pytest.raises(CheckpointError, match=r"a folder without config.json: expected one that save_pretrained wrote"):
        interbasis.load_checkpoint(empty, tokens=tokens)
    folder = saved(tmp_path / "model")
    with pytest.raises(DataError, match=r"holds no data: give a text with --text FILE"):
        interbasis.load_checkpoint(folder)
    text.write_text("words")
    with pytest.raises(DataError, match=r"has no tokenizer: save it there .* --tokens FILE"):
        interbasis.load_checkpoint(folder, text=text)
    text.write_text(" \n")
    with pytest.raises(DataError, match=r"corpus.txt holds no text"):
        interbasis.load_checkpoint(DECODERS / "text", text=text)
    text.write_text("a few words")
    with pytest.raises(DataError, match=r"tokens, fewer than two windows of 128"):
        interbasis.load_checkpoint(DECODERS / "text", text=text)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"as pickles \(pytorch_model.bin\).*save_pretrained\(folder\)"):
        interbasis.load_checkpoint(folder, tokens=tokens)


def test_tokens_and_lengths_that_do_not_fit_are_refused(tmp_path: Path, tokens: Path) -> None:
    folder = saved(tmp_path / "model")
    np.save(tokens, random_tokens(4, 3).numpy() + VOCABULARY)
    with pytest.raises(DataError, match=rf"model has embeddings of {VOCABULARY} tokens"):
        interbasis.load_checkpoint(folder, tokens=tokens)
    np.save(tokens, random_tokens(1, 20 * CONTEXT)[0].numpy())
    with pytest.raises(DataError, match=rf"128 tokens, and the model has {CONTEXT} positions.*--context {CONTEXT}"):
        interbasis.load_checkpoint(folder, tokens=tokens)
    with pytest.raises(DataError, match=r"80 windows of 4 tokens, and 99 were asked for: .* --points 80"):
        interbasis.load_checkpoint(folder, tokens=tokens, context=4, points=99)
    np.save(tokens, np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"float64 of shape \(2, 2\): expected whole numbers"):
        interbasis.load_checkpoint(folder, tokens=tokens)


def test_code_of_a_folder_is_never_run(tmp_path: Path, tokens: Path) -> None:
    folder = saved(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    ran = tmp_path / "ran"
    (folder / "modeling.py").write_text(f"open({str(ran)!r}, 'w')")
    changes = {"architectures": ["MyModel"], "auto_map": {"AutoModel": "modeling.MyModel"}}
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=r"has no MyModel: install a version that has it; code .* is never run"):
        interbasis.load_checkpoint(folder, tokens=tokens)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mine"}))
    with pytest.raises(CheckpointError, match="knows no model_type 'mine': install a version"):
        interbasis.load_checkpoint(folder, tokens=tokens)
    assert not ran.exists()


def test_tensors_that_are_missing_are_named(tmp_path: Path, tokens: Path) -> None:
    folder = saved(tmp_path / "model")
    held = load_file(folder / "model.safetensors")
    del held["transformer.ln_f.weight"]
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks the tensors transformer.ln_f.weight"):
        interbasis.load_checkpoint(folder, tokens=tokens)
    (folder / "model.safetensors").write_bytes(b"none")
    with pytest.raises(CheckpointError, match="it is no safetensors file, or incomplete"):
        interbasis.load_checkpoint(folder, tokens=tokens)


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "model")
    monkeypatch.setattr(folders, "_available", lambda: 1000)
    with pytest.raises(
        CheckpointError, match=r"a model of 0.0 GB as it is loaded, and 0.0 GB of memory are free: take"
    ):
        interbasis.load_checkpoint(folder, tokens=tokens)
    monkeypatch.setattr(folders, "_available", lambda: None)
    interbasis.load_checkpoint(folder, tokens=tokens)


def test_mixed_types_are_read_exactly(tmp_path: Path, tokens: Path) -> None:
    folder = saved(tmp_path / "model")
    held = load_file(folder / "model.safetensors")
    held["transformer.wte.weight"] = held["transformer.wte.weight"].bfloat16()
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    found = interbasis.load_checkpoint(folder, tokens=tokens).network.model
    assert torch.equal(found.transformer.wte.weight, held["transformer.wte.weight"].double())
    assert torch.equal(found.transformer.wpe.weight, held["transformer.wpe.weight"].double())


def test_without_transformers_it_is_named(monkeypatch: pytest.MonkeyPatch, tokens: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CheckpointError, match=r'need the package transformers: pip install "interbasis\[hf\]"'):
        interbasis.load_checkpoint(DECODERS / "one_task", tokens=tokens)


def test_transformers_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, interbasis.analysis; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
