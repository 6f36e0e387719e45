"""A store written before modules had rooms: it opens, and every artifact in it loads with the numbers that it had."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from interbasis.analysis import (
    Bases,
    Experiment,
    InteractionGraph,
    LearningCoefficient,
    Ledger,
    Partition,
    Tracking,
)
from interbasis.service.store import Store


@pytest.fixture
def earlier(tmp_path: Path):
    with tarfile.open(Path(__file__).parent / "store_0.7.0_flat.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    Store.upgrade(url)
    with Store.open(url, str(tmp_path / "store.artifacts")) as store:
        yield store


def test_every_artifact_loads_with_its_numbers(earlier: Store) -> None:
    graph = InteractionGraph.from_bytes(earlier.graph_bytes("g-6444ee45"))
    assert [block.sum() for block in graph.blocks] == pytest.approx([9.056701522226316, 5.773689762070162], rel=1e-12)
    importance = [
        np.asarray(basis.importance).sum() for basis in Bases.from_bytes(earlier.bases_bytes("g-6444ee45")).values()
    ]
    assert importance == pytest.approx([7.596124603912956, 6.2041893277090825, 6.2041893277090825], rel=1e-12)
    parts = {row.id: Partition.from_bytes(earlier.partition_bytes(row.id)) for row in earlier.partitions().items}
    assert {ref: (part.n_modules, part.verdict) for ref, part in parts.items()} == {
        "p-7abf81b4": (1, "one module"),
        "p-66ee97e3": (1, "one module"),
        "p-3a5d4fa9": (2, "untested"),
    }
    assert parts["p-3a5d4fa9"].edge_cost == pytest.approx(18.36709949225429, rel=1e-12)
    ledger = Ledger.from_bytes(earlier.ledger_bytes("l-d4379a45"))
    assert (ledger.nominal, ledger.effective) == (92, 84)
    found = LearningCoefficient.from_bytes(earlier.llc_bytes("l-39468144"))
    assert (found.n_effective, found.verdict) == (pytest.approx(2 * 2.212329336143359), "doubtful")
    tracking = Tracking.from_bytes(earlier.tracking_bytes("t-89738f5e"))
    assert (tracking.tracks, tracking.churn) == (((0,), (0,)), (0.0,))
    told = {row.id: Experiment.from_bytes(earlier.experiment_bytes(row.id)) for row in earlier.experiments().items}
    assert {ref: result.verdict for ref, result in told.items()} == dict.fromkeys(
        ("e-bae565b3", "e-4a008007"), "not told apart from chance"
    )
    assert told["e-bae565b3"].headline[0] == pytest.approx(0.3192409749998312)


def test_its_model_has_one_run(earlier: Store) -> None:
    (model,), (run,) = earlier.models().items, earlier.runs().items
    assert (run.model, run.number, run.config, run.created) == (model.name, 1, model.config, model.created)
    assert (
        {row.run for row in earlier.checkpoints().items} == {row.run for row in earlier.trackings().items} == {run.id}
    )


def test_nothing_in_it_is_damaged(earlier: Store) -> None:
    report = earlier.check()
    assert report.n_artifacts > 0
    assert not (report.artifacts + report.schema + report.foreign_keys + report.integrity + report.uncollected)


def test_what_was_read_packs_to_the_same_bytes(earlier: Store) -> None:
    for row in earlier.partitions().items:
        packed = earlier.partition_bytes(row.id)
        assert Partition.from_bytes(packed).to_bytes() == packed
    for graph in earlier.graphs().items:
        packed = earlier.graph_bytes(graph.id)
        assert InteractionGraph.from_bytes(packed).to_bytes() == packed
