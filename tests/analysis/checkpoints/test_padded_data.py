"""Data files with attention masks: the same as the call in Python, whatever stands at padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_checkpoints import save_mlp
from cases_transformers import PAD, random_tokens, transformer
from safetensors.torch import save_file

from interbasis.analysis import Dataset, analyze, load_checkpoint
from interbasis.analysis.checkpoints.datasets import read_dataset
from interbasis.analysis.errors import DataError
from interbasis.analysis.recipe import GraphRecipe, build_bases, build_graph

LENGTHS = 3 + torch.arange(8) % 3


def padded(side: str, value: int = PAD) -> tuple[torch.Tensor, torch.Tensor]:
    places = torch.arange(5)
    mask = (places < LENGTHS[:, None]) if side == "right" else (places >= 5 - LENGTHS[:, None])
    return torch.where(mask, random_tokens(8, 5), value), mask


def written(file: Path, inputs: torch.Tensor, mask: torch.Tensor) -> Path:
    np.savez(file, inputs=inputs.numpy(), attention_mask=mask.numpy())
    return file


@pytest.mark.parametrize(("name", "side"), [("bert", "right"), ("gpt2", "left")])
def test_masks_of_files_count_as_in_python(name: str, side: str, tmp_path: Path) -> None:
    model = transformer(name).double()
    model.save_pretrained(tmp_path / "saved")
    recipe = GraphRecipe(basis="pca")

    def blocks(value: int) -> list[np.ndarray]:
        file = written(tmp_path / f"{value}.npz", *padded(side, value))
        loaded = load_checkpoint(tmp_path / "saved", data=file, batch_size=3)
        assert loaded.positions == ("later" if name == "gpt2" else "mask")
        assert "attention_mask" in " ".join(loaded.network.assumed)
        bases = build_bases(loaded.network, loaded.batches, recipe)
        return list(build_graph(loaded.network, bases, loaded.batches, recipe).blocks)

    ids, mask = padded(side)
    found = analyze(model, {"input_ids": ids, "attention_mask": mask.long()}, basis="pca", k=2)
    for here, other, expected in zip(blocks(PAD), blocks(7), found.graph.blocks, strict=True):
        np.testing.assert_allclose(here, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(other, here, rtol=1e-6, atol=1e-9)


def test_fingerprints_include_masks(tmp_path: Path) -> None:
    ids, mask = padded("right")
    plain, with_mask = Dataset("a", ids), Dataset("a", ids, attention_mask=mask)
    assert Dataset("a", ids, attention_mask=mask.long()).sha256 == with_mask.sha256
    others = [Dataset("a", ids, attention_mask=torch.ones_like(mask)), Dataset("a", ids, mask)]
    assert len({data.sha256 for data in (plain, with_mask, *others)}) == 4
    save_file({"inputs": ids, "attention_mask": mask}, tmp_path / "x.safetensors")
    arrays = {"inputs": ids, "attention_mask": mask, "test_inputs": ids[:2], "test_attention_mask": mask[:2]}
    np.savez(tmp_path / "y.npz", **{key: value.numpy() for key, value in arrays.items()})
    (first, again), (train, test) = read_dataset(tmp_path / "x.safetensors"), read_dataset(tmp_path / "y.npz")
    assert first.sha256 == again.sha256 == train.sha256 == with_mask.sha256
    assert test.sha256 != train.sha256
    (batch,) = test
    assert torch.equal(batch["attention_mask"], mask[:2])


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    ids, mask = padded("right")
    empty = mask & (torch.arange(8) != 2)[:, None]
    for inputs, given, message in (
        (ids, mask[:, :3], r"attention_mask of 'a' is of bool \(8, 3\): expected 1 or true where a token counts"),
        (ids, 2 * mask.long(), "expected 1 or true where a token counts"),
        (ids, empty, "counts no token of data point 2"),
        (ids.double(), mask, "'a' has an attention_mask, and inputs of float64"),
    ):
        with pytest.raises(DataError, match=message):
            Dataset("a", inputs, attention_mask=given)
    arrays: dict[str, Any] = {"inputs": ids, "attention_mask": mask, "test_inputs": ids}
    np.savez(tmp_path / "x.npz", **{key: value.numpy() for key, value in arrays.items()})
    with pytest.raises(DataError, match="has attention_mask alone: expected a mask of both"):
        read_dataset(tmp_path / "x.npz")
    checkpoint = save_mlp(tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="has an attention_mask, which models of save_pretrained take"):
        load_checkpoint(checkpoint, data=written(tmp_path / "y.npz", ids, mask))
