"""Progress within an item that takes long: what is reported, how often, and that an exception stops the work there."""

import re

import pytest
import torch
from cases_transformers import random_tokens, transformer

from interbasis.analysis import interaction_basis, interaction_graph, progress
from interbasis.analysis.huggingface.language import assumed_network
from interbasis.analysis.progress import Progress, Watched


def test_parts_are_reported_with_their_step_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    seen: list[Progress] = []
    watched = Watched(seen.append)
    watched(Progress("strengths", 1, 3))
    for part in range(1, 11):
        clock[0] += 0.2
        watched.part(part, 10, "passes")
    assert seen == [
        Progress("strengths", 1, 3),
        Progress("strengths", 1, 3, "3 of 10 passes"),
        Progress("strengths", 1, 3, "6 of 10 passes"),
        Progress("strengths", 1, 3, "9 of 10 passes"),
    ], "twice a second at most, and not the last part, with which the item is done"
    silent = Watched(None)
    silent(Progress("strengths", 1, 3))
    silent.part(1, 10, "passes")


@pytest.mark.parametrize("probes", [None, 2])
def test_work_stops_within_a_batch(probes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch only: an exception at the third of its parts ends basis and graph there."""
    tokens = random_tokens(4, 5)
    net, _ = assumed_network(transformer("gpt2"), [tokens], cuts="auto")
    bases = interaction_basis(net, [tokens], probes=probes)
    monkeypatch.setattr(progress, "_PAUSE", -1.0)
    monkeypatch.setattr("interbasis.analysis.basis.cotangents._rows_per_block", lambda entries, block=1: 1)
    monkeypatch.setattr("interbasis.analysis.basis.jacobians._rows_per_block", lambda entries, block=1: 1)

    class StoppedError(Exception):
        pass

    seen: list[str] = []

    def stop(report: Progress) -> None:
        if re.search(r"\d of [\d,]+ (passes|probes) of a batch", report.message):
            seen.append(report.message)
            if len(seen) == 2:
                raise StoppedError

    with pytest.raises(StoppedError):
        interaction_basis(net, [tokens], probes=None if probes is None else 8, progress=stop)
    assert len(seen) == 2
    seen.clear()
    with pytest.raises(StoppedError):
        interaction_graph(net, bases, [tokens], probes=probes, progress=stop)
    assert len(seen) == 2


def test_reports_change_nothing() -> None:
    tokens = random_tokens(4, 5)
    net, _ = assumed_network(transformer("gpt2"), [tokens], cuts="auto")
    bases = interaction_basis(net, [tokens], probes=2)
    plain, told = (interaction_graph(net, bases, [tokens], probes=1, progress=p) for p in (False, lambda _: None))
    for one, other in zip(plain.blocks, told.blocks, strict=True):
        assert torch.equal(torch.from_numpy(one), torch.from_numpy(other))
