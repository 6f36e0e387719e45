"""Names of data: given, read from files and from checkpoints, and never part of the fingerprint."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from interbasis.analysis import Dataset, Names, load_checkpoint, save_checkpoint
from interbasis.analysis.checkpoints.datasets import load_dataset, modular_addition, read_dataset, two_digits
from interbasis.analysis.checkpoints.mlp import MLP
from interbasis.analysis.errors import DataError

NAMED: dict[str, Any] = {"feature_names": ["a", "b"], "output_names": ["x"], "class_names": ["no", "yes"]}


def test_names_do_not_change_the_fingerprint() -> None:
    data = Dataset("d", torch.zeros(3, 2), torch.zeros(3))
    assert replace(data, **NAMED).sha256 == data.sha256
    assert replace(data, **NAMED).with_batch_size(2).names == Names.of(NAMED)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_names_are_read_from_files(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"data.{kind}"
    inputs = torch.arange(8.0).reshape(4, 2)
    if kind == "npz":
        np.savez(file, inputs=inputs.numpy(), test_inputs=inputs.numpy(), image_shape=[1, 2], **NAMED)
    else:
        shape = {"image_shape": [1, 2]}
        save_file(
            {"inputs": inputs, "test_inputs": inputs.clone()},
            file,
            {k: json.dumps(v) for k, v in (NAMED | shape).items()},
        )
    train, test = read_dataset(file)
    assert train.names == test.names == Names.of(NAMED | {"image_shape": [1, 2]})


def test_names_in_the_json_of_a_checkpoint(tmp_path: Path) -> None:
    train, test = load_dataset({"name": "two_digits", "n": 20, "n_test": 10, "output_names": list("abcdefghij" * 2)})
    assert train.names.output_names == test.names.output_names == tuple("abcdefghij" * 2)
    assert train.names.image_shape == (2, 8, 8)
    file = tmp_path / "model.safetensors"
    model = MLP((2, 3, 1), "relu")
    np.savez(tmp_path / "data.npz", inputs=np.random.default_rng(0).normal(size=(9, 2)), feature_names=["u", "v"])
    config = {"widths": [2, 3, 1], "activation": "relu"}
    save_checkpoint(model, file, family="mlp", config=config, data={"output_names": ["y"], "feature_names": ["a", "b"]})
    run = load_checkpoint(file, data=tmp_path / "data.npz")
    assert run.batches.names == Names(feature_names=("u", "v"), output_names=("y",))


def test_built_in_data_name_themselves() -> None:
    digits, _ = two_digits(10, 5)
    assert digits.names.feature_names is not None
    assert digits.names.output_names is not None
    assert (digits.names.feature_names[64], digits.names.output_names[10]) == ("right 0,0", "right 0")
    sums, _ = modular_addition(5, 0.4, 0)
    assert sums.names.modulus == 5
    assert sums.names.token_strings == ("0", "1", "2", "3", "4", "=")


def test_tokens_of_a_folder_are_named() -> None:
    folder = Path(__file__).parents[1] / "decoders" / "text"
    from interbasis.analysis.huggingface.text import token_strings

    names = token_strings(folder)
    assert names is not None
    assert len(names) == 1280
    assert " of" in names
    assert token_strings(folder.parent / "one_task") is None


def test_a_tokenizer_that_cannot_be_loaded_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(Path(__file__).parents[1] / "decoders" / "one_task", folder)
    (folder / "tokenizer.json").write_text("{}")
    np.save(tmp_path / "tokens.npy", np.arange(40) % 11)
    run = load_checkpoint(folder, tokens=tmp_path / "tokens.npy", context=2)
    assert run.batches.names == Names()
    assert any("Tokens have numbers instead of names: the tokenizer of" in note for note in run.notes)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"feature_names": "ab"}, "expected a list of text"),
        ({"output_names": [1, 2]}, "expected a list of text"),
        ({"feature_names": ["a"]}, "1 features, and an input has 2"),
        ({"image_shape": (3, 3)}, "9 features, and an input has 2"),
        ({"image_shape": (2,)}, "expected .rows, columns."),
        ({"image_shape": (0, 2)}, "expected .rows, columns."),
        ({"modulus": 1}, "whole number of 2 or more"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset("d", torch.zeros(3, 2), **vars(Names.of(names)))
