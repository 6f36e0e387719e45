"""The fewest strongest edges of trained networks, beside those that a peer needs."""

import json
from pathlib import Path

import pytest
from cases_long import SEEDS

from interbasis.analysis import bisect_edges, interaction_basis, interaction_graph, load_checkpoint


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_modular_addition_needs_no_more_edges_than_the_peer_found(real_data: Path, seed: int) -> None:
    """Basis from the training data, accuracy on the test data; per pair of cuts, and all pairs cut at once."""
    loaded = load_checkpoint(real_data / "modadd" / f"modadd_p113_seed{seed}.safetensors")
    bases = interaction_basis(loaded.network, loaded.batches, kind="local", output="neuron", rotation="none")
    graph = interaction_graph(loaded.network, bases)
    found = bisect_edges(loaded.network, bases, graph, batches=loaded.test_batches, tolerance=1e-3, draws=1)
    reference = json.loads((real_data / "modadd" / "reference_seeds_0_1_2.json").read_text())["edge_bisect"]
    rows = [row for row in reference if row["seed"] == seed and row["basis"] == "rib"]
    assert len(rows) == 3
    whole = found.whole.values["accuracy"].value
    assert whole == pytest.approx(rows[0]["base_accuracy"], abs=1e-9)
    for row, required, jointly, pair in zip(
        rows, found.edges_required, found.jointly_required, found.pairs, strict=True
    ):
        assert required <= row["n_edges_required"] + 2
        assert jointly <= 1.25 * row["n_edges_required"]
        assert pair.values["accuracy"].value >= whole - 1e-3
    assert found.jointly.values["accuracy"].value >= whole - 1e-3
    assert found.jointly.controls["accuracy"].value < 0.5
