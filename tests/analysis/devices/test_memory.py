"""Limits of memory: what is measured, how many data points fit, and that results do not depend on it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_transformers import random_tokens, transformer
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import interbasis
from interbasis.analysis import Network, load_checkpoint
from interbasis.analysis.devices import memory
from interbasis.analysis.devices.memory import (
    bytes_in_words,
    check_memory,
    limited_memory,
    memory_left,
    memory_of,
    points_that_fit,
    saved_bytes,
)
from interbasis.analysis.errors import DataError, InputError

CPU = torch.device("cpu")


def layers(width: int = 100) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 3)).double()


def inputs(n: int = 40) -> torch.Tensor:
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@given(count=st.integers(1, 2**50))
def test_numbers_of_bytes_are_read_as_they_are(count: int) -> None:
    assert memory_of(count) == memory_of(str(count)) == count
    assert memory_of(f"{count}KiB") == 1024 * count


@pytest.mark.parametrize("words", ["", "much", "-1GiB", 0, "8 elephants"])
def test_words_that_are_no_memory_are_refused(words: str | int) -> None:
    with pytest.raises(InputError, match=rf"memory is {re.escape(repr(words))}: expected a number of bytes"):
        memory_of(words)


def test_limits_are_put_back_and_leave_what_the_process_has_not_taken() -> None:
    before = memory_left(CPU)
    with limited_memory("1TiB"):
        left = memory_left(CPU)
        assert left is not None
        assert 2**39 < left < 2**40
        with limited_memory(None):
            assert memory_left(CPU) == pytest.approx(left, rel=0.01), "None leaves the limit as it is"
        with limited_memory(1):
            assert memory_left(CPU) == 0
    assert before is not None
    assert memory_left(CPU) == pytest.approx(before, rel=0.3)


def test_kept_tensors_are_counted_once_and_weights_not() -> None:
    model, x = layers(), inputs(10)
    net = Network(model, ["0:in", "1", "2"])
    kept = saved_bytes(lambda: net.trace(x, joined=True), model.parameters())
    assert 8 * 10 * 100 <= kept <= 3 * 8 * 10 * 100, "the values of tanh, which its derivative needs, and few more"
    double = saved_bytes(lambda: net.trace(torch.cat([x, x]), joined=True), model.parameters())
    assert double == 2 * kept
    with_weights = saved_bytes(lambda: net.trace(x, joined=True))
    assert with_weights > kept


def test_data_points_that_fit_follow_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = layers(), inputs(2)
    net = Network(model, ["0:in", "1", "2"])
    each = 3 * saved_bytes(lambda: net.trace(x, joined=True), model.parameters()) / 2
    block = 2**18 // 3  # cotangents and data points of the output, the smallest target, in a block
    monkeypatch.setattr(memory, "memory_left", lambda device, share: int((block + 0.5) * each))
    assert net.points_that_fit(x) == block
    monkeypatch.setattr(memory, "memory_left", lambda device, share: int(750.5 * each))
    assert net.points_that_fit(x) == 7, "all 100 cotangents of the widest target in one block"
    monkeypatch.setattr(memory, "memory_left", lambda device, share: int(each - 1))
    with pytest.raises(DataError, match="a backward pass of one data point takes about 0 MiB, more than half of what"):
        net.points_that_fit(x)
    monkeypatch.setattr(memory, "memory_left", lambda device, share: None)
    assert net.points_that_fit(x) is None


def test_network_that_cannot_run_is_left_to_its_checks() -> None:
    assert Network(layers(), ["0:in", "1", "2"]).points_that_fit(torch.full((3, 4), torch.nan)) is None


def test_analysis_does_not_depend_on_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"progress": False}
    whole = interbasis.analyze(layers(20), inputs(), **options)
    seen: list[int | None] = []

    def three(run: Any, targets: Any, model: Any) -> int:
        seen.append(points_that_fit(run, targets, model))
        return 3

    monkeypatch.setattr("interbasis.analysis.network.network.points_that_fit", three)
    split = interbasis.analyze(layers(20), inputs(), memory="100GiB", **options)
    assert split.data is not None
    assert [len(b) for b in split.data.batches] == [3] * 13 + [1]
    assert seen[0] is not None
    assert seen[0] > 10**4
    for one, other in zip(whole.graph.blocks, split.graph.blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert split.verdict == whole.verdict


def test_estimates_do_not_depend_on_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = transformer("gpt2"), random_tokens(24, 6)
    options: dict[str, Any] = {"probes": 2, "rotation": "degenerate", "control": False, "progress": False}
    whole = interbasis.analyze(model, tokens, **options)
    monkeypatch.setattr("interbasis.analysis.network.network.points_that_fit", lambda *_: 5)
    split = interbasis.analyze(model, tokens, **options)
    for one, other in zip(whole.graph.blocks, split.graph.blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def test_checkpoint_is_read_in_batches_that_fit_and_not_if_it_is_too_large(tmp_path: Path) -> None:
    transformer("gpt2").save_pretrained(tmp_path / "tiny")
    save_file({"inputs": random_tokens(64, 6)}, tmp_path / "data.safetensors")
    plain = load_checkpoint(tmp_path / "tiny", data=tmp_path / "data.safetensors")
    assert plain.batches.batch_size > 5
    each = 3 * saved_bytes(
        lambda: plain.network.trace(plain.batches.inputs[:1], joined=True), plain.network.model.parameters()
    )
    taken = memory._resident()
    few = load_checkpoint(tmp_path / "tiny", data=tmp_path / "data.safetensors", memory=taken + 2**26 + 3 * each)
    assert 2 <= few.batches.batch_size <= 3 + 2**26 // each + 1
    with pytest.raises(InputError, match=r"the model in .*tiny takes .* MiB of memory, and 0 MiB are available"):
        load_checkpoint(tmp_path / "tiny", data=tmp_path / "data.safetensors", memory=1)
    fixed = load_checkpoint(tmp_path / "tiny", data=tmp_path / "data.safetensors", batch_size=7)
    assert fixed.batches.batch_size == 7


def test_what_is_larger_than_memory_is_refused() -> None:
    check_memory(2**20, "a small model")
    with limited_memory("1GiB"), pytest.raises(InputError, match=r"a large model takes 2.0 GiB of memory, and"):
        check_memory(2**31, "a large model")


PEAK = """
import resource, sys, torch, interbasis
from interbasis.analysis import Network
torch.set_num_threads(1)
torch.manual_seed(0)
wide = [torch.nn.Linear(8, 300000), torch.nn.Tanh(), torch.nn.Linear(300000, 8), torch.nn.Linear(8, 2)]
model = torch.nn.Sequential(*wide).double()
net = Network(model, ["0:in", "2", "3"], check=False)
x = torch.randn(512, 8, dtype=torch.float64)
found = interbasis.analyze(net, x, memory=sys.argv[1], control=False, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, len(found.data.batches))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak in the units of Linux")
def test_peak_of_memory_stays_below_the_limit() -> None:
    def peak(limit: str) -> tuple[int, int]:
        words = subprocess.run([sys.executable, "-c", PEAK, limit], capture_output=True, text=True, check=True).stdout
        return tuple(map(int, words.split()))  # type: ignore[return-value]

    (least, many), (most, few) = peak("1500MiB"), peak("6GiB")
    assert many > few
    assert least < memory_of("1500MiB") < most < memory_of("6GiB"), (bytes_in_words(least), bytes_in_words(most))
