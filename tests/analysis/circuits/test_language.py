"""Experiments on models of tokens: masks, padding, next tokens, batches as mappings, and the small trained decoders."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from cases_masks import padded, reader, texts
from cases_transformers import VOCABULARY, random_tokens, transformer
from torch import Tensor
from train_decoders import sums
from transformers import BatchEncoding

import interbasis
from interbasis.analysis import Network, find_modules, interaction_basis, interaction_graph
from interbasis.analysis.circuits import interventions
from interbasis.analysis.circuits.experiments import KINDS, Experiment, ExperimentRecipe, run_experiment
from interbasis.analysis.circuits.interventions import Interventions
from interbasis.analysis.circuits.mixing import mixed_modules
from interbasis.analysis.errors import DataError
from interbasis.analysis.huggingface.language import IGNORED, numbered

DECODERS = Path(__file__).parents[2] / "decoders"
MASKED = {"loss": "kl", "mask": "attention_mask", "skip_first": True}


def random_masks(study: Interventions, seed: int = 0) -> dict[int, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {p: chance.random(mask.shape) < 0.5 for p, mask in study.without_edges().items()}


@pytest.fixture(scope="module")
def two_tasks() -> tuple[interbasis.Analysis, Tensor, Tensor]:
    model = transformers.AutoModelForCausalLM.from_pretrained(DECODERS / "two_tasks")
    numbers, _ = sums(2)
    numbers = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))[:90]]
    with torch.no_grad():
        answers = model(numbers).logits.argmax(-1)
    choices = {"basis": "pca", "rank_tolerance": 0.02, "control": False}
    found = interbasis.analyze(model, [{"input_ids": numbers[:60]}], **choices)
    return found, numbers[60:], answers[60:]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "epsilon"])  # which measures as "bisect" does
def test_every_experiment_runs_on_a_trained_decoder(
    kind: str, two_tasks: tuple[interbasis.Analysis, Tensor, Tensor]
) -> None:
    found, numbers, answers = two_tasks
    part = find_modules(found.graph, k=2)
    batches = [BatchEncoding({"input_ids": ids}) for ids in numbers.split(13)]
    recipe = ExperimentRecipe(kind=kind, draws=1, tolerance=0.3)
    options = {"partition": part, "recipe": recipe}
    made = run_experiment(found.network, found.bases, found.graph, data=batches, targets=answers, **options)
    assert made.n == len(numbers)
    assert made.metric == ("loss" if kind == "predict" else "accuracy")
    if kind != "predict":
        assert made.result.whole.values["accuracy"].value == 1.0
    assert Experiment.from_bytes(made.to_bytes()).headline == made.headline
    if kind == "modules":
        assert made.result.mixing is not None, "all data points leave out the same position"
        assert made.result.whole_classes.shape == (3, 22), "an answer for each position that counts"
    if kind != "isolate":
        return
    again = run_experiment(
        found.network, found.bases, found.graph, data=[{"input_ids": numbers}], targets=answers, **options
    )
    for a, b in zip(made.outcomes, again.outcomes, strict=True):
        for name, value in a.values.items():
            assert value.value == pytest.approx(b.values[name].value, abs=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("replacement", ["mean", "zero"])
def test_padding_changes_nothing(side: str, replacement: str) -> None:
    parts = texts([3, 6, 4, 6, 3, 5])
    batch = padded(parts, side)
    net = Network(reader(causal=True), ["embed", "blocks.0", "blocks.1"], **MASKED)
    bases = interaction_basis(net, [batch], kind="pca")
    alone = [padded([part], "right") for part in parts]
    options = {"replacement": replacement, "metrics": ["loss"]}
    together, singly = (Interventions(net, bases, batches, **options) for batches in ([batch], alone))
    masks = random_masks(together)
    nodes = {1: np.arange(together.widths[1]) % 2 == 0}
    for intervention in ((None, masks), (nodes, None), (nodes, masks)):
        a, b = (study.measure(*intervention)["kl"] for study in (together, singly))
        assert a.max() > 1e-3
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_padding_of_transformers_changes_nothing(name: str) -> None:
    parts = [ids[:length] for ids, length in zip(random_tokens(6, 6), (3, 6, 4, 6, 4, 5), strict=True)]
    model = transformer(name).double()
    net = Network(model, ["resid_pre.0", "resid_post.*"], **MASKED)
    batches = {side: [padded(parts, side)] for side in ("left", "right")}
    bases = interaction_basis(net, batches["right"], kind="pca")
    batches["alone"] = [padded([part], "right") for part in parts]
    found = []
    for given in batches.values():
        study = Interventions(net, bases, given, metrics=["cross_entropy", "accuracy"])
        found.append(study.measure(None, random_masks(study)))
    for metric in ("kl", "cross_entropy", "accuracy"):
        for one, other in pairwise(found):
            np.testing.assert_allclose(one[metric], other[metric], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_next_tokens_are_the_targets_of_a_decoder(name: str) -> None:
    model = transformer(name).double().eval()
    ids = random_tokens(8, 5)
    net = Network(model, ["resid_pre.0", "resid_post.1"], loss="kl")
    study = Interventions(net, interaction_basis(net, [ids], kind="pca"), [ids], metrics=["cross_entropy"])
    with torch.no_grad():
        expected = [float(model(row[None], labels=row[None]).loss) for row in ids]
    np.testing.assert_allclose(study.whole["cross_entropy"], expected, rtol=1e-6)  # whose mean is in float32
    later = Network(model, ["resid_pre.0", "resid_post.1"], loss="kl", skip_first=True)
    study = Interventions(later, interaction_basis(later, [ids], kind="pca"), [ids], metrics=["accuracy"])
    with torch.no_grad():
        right = model(ids).logits[:, 1:-1].argmax(-1) == ids[:, 2:]
    np.testing.assert_allclose(study.whole["accuracy"], right.double().mean(1))


def test_labels_of_the_batches_are_targets() -> None:
    ids = random_tokens(8, 5)
    labels = torch.where(torch.arange(5) == 2, ids, IGNORED)
    for name, right in (("bert", slice(2, 3)), ("gpt2", slice(1, 2))):
        model = transformer(name).double().eval()
        batch = {"input_ids": ids, "labels": labels}
        net = Network(model, ["resid_pre.0", "resid_post.1"], loss="kl")
        study = Interventions(net, interaction_basis(net, [batch], kind="pca"), [batch], metrics=["accuracy"])
        with torch.no_grad():
            expected = model(ids).logits[:, right].argmax(-1) == ids[:, 2:3]
        np.testing.assert_array_equal(study.whole["accuracy"], expected.double().mean(1))


def test_without_targets_there_is_no_accuracy() -> None:
    ids = random_tokens(8, 5)
    for name, options in (("bert", {}), ("gpt2", {"positions": "last"})):
        net = Network(transformer(name).double(), ["resid_pre.0", "resid_post.1"], loss="kl", **options)
        bases = interaction_basis(net, [ids], kind="pca")
        with pytest.raises(DataError, match="metric 'accuracy' needs targets"):
            Interventions(net, bases, [ids], metrics=["accuracy"])
    net = Network(transformer("gpt2").double(), ["resid_pre.0", "resid_post.1"], loss="kl")
    targets = torch.full_like(ids, IGNORED)
    with pytest.raises(DataError, match="all targets of a data point are -100"):
        Interventions(net, interaction_basis(net, [ids], kind="pca"), [ids], metrics=["accuracy"], targets=targets)


def test_data_points_are_exchanged_where_the_same_positions_count() -> None:
    parts = texts([3, 6, 4, 6, 3, 5, 6])
    net = Network(reader(causal=True), ["embed", "blocks.0", "blocks.1"], **MASKED)
    bases = interaction_basis(net, [padded(parts, "right")], kind="pca")
    study = Interventions(net, bases, [padded(parts[:2], "right"), padded(parts[2:], "right")])
    other = study.partners().tolist()
    assert sorted(other) == list(range(7))
    lengths = [len(part) for part in parts]
    assert [lengths[i] for i in other[2:]] == lengths[2:]
    assert other[5] == 5, "the only text of 5 tokens"
    assert {other[1], other[3], other[6]} == {1, 3, 6}
    for own, given in zip(study.coordinates(), study.coordinates(other=study.partners()), strict=True):
        rows, exchanged = ([row for batch in values for row in batch] for values in (own, given))
        assert all(torch.equal(rows[j], exchanged[i]) for i, j in enumerate(other))
    with pytest.raises(DataError, match="at data point 2 other positions count than at all others"):
        Interventions(net, bases, [padded(parts, "right")], replacement="resample")
    same = Interventions(net, bases, [padded([parts[i] for i in (0, 1, 3, 4, 6)], "right")], replacement="resample")
    assert same.measure(None, random_masks(same))["kl"].max() > 1e-3


def test_a_first_token_that_does_not_count_stays_when_data_are_mixed() -> None:
    ids = random_tokens(12, 4)
    net = Network(transformer("gpt2").double(), ["resid_pre.0", "resid_post.*"], loss="kl", skip_first=True)
    bases = interaction_basis(net, [ids], kind="pca")
    graph = interaction_graph(net, bases, [ids])
    study = Interventions(net, bases, list(ids.split(5)))
    part = find_modules(graph, k=2)
    mixing = mixed_modules(study, graph, part, [np.maximum(labels, 0) for labels in part.labels], draws=0)
    assert mixing is not None
    last = list(bases.values())[-1]
    mixed = torch.cat([ids[:, :1], ids[study.partners()][:, 1:]], 1)
    a, b = (last.coordinates(net.activations(tokens)[last.cut]) for tokens in (ids, mixed))
    assert mixing.variance == pytest.approx(float((a - b).square().sum()) / 2 / len(ids), rel=1e-9)


def test_outputs_that_are_not_kept_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random_tokens(12, 4)
    net = Network(transformer("gpt2").double(), ["resid_pre.0", "resid_post.*"], loss="kl")
    bases = interaction_basis(net, [ids], kind="pca")
    found = []
    for most in (2**27, 5 * 4 * VOCABULARY, 0):
        monkeypatch.setattr(interventions, "_OUTPUTS", most)
        study = Interventions(net, bases, list(ids.split(5)))
        found.append(study.measure(None, random_masks(study))["kl"])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_padding_on_the_left_is_numbered_as_in_an_analysis() -> None:
    parts = [ids[:length] for ids, length in zip(random_tokens(6, 6), (3, 6, 4, 6, 4, 5), strict=True)]
    batch, model = padded(parts, "left"), transformer("gpt2").double()
    net = Network(model, ["resid_pre.0", "resid_post.*"], **MASKED)
    bases = interaction_basis(net, numbered(model, [batch]), kind="pca")
    raw, given = (Interventions(net, bases, batches) for batches in ([batch], numbered(model, [batch])))
    losses = [study.measure(None, random_masks(study))["kl"] for study in (raw, given)]
    np.testing.assert_array_equal(*losses)
