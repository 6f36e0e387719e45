"""Feature files: their names are those that the graph's nodes carry, and examples keep value and place."""

import json

import torch
from hypothesis import given
from hypothesis import strategies as st

from interbasis.analysis import analyze
from interbasis.analysis.exchange.feature_files import feature_files, feature_number
from interbasis.analysis.exchange.graph_files import export


@given(
    first=st.tuples(st.integers(0, 60), st.integers(0, 10**6)),
    second=st.tuples(st.integers(0, 60), st.integers(0, 10**6)),
)
def test_numbers_tell_nodes_apart(first: tuple[int, int], second: tuple[int, int]) -> None:
    assert (feature_number(*first) == feature_number(*second)) == (first == second)


def test_files_of_tokens_have_the_values_and_names_of_the_graph() -> None:
    from cases_transformers import random_tokens, transformer

    found = analyze(transformer("gpt2"), random_tokens(12, 5), probes=1, control=False)
    cards = found.describe(points=0, examples=3)
    files = dict(feature_files(cards))
    assert len(files) == len(cards.nodes)
    graph = json.loads(export(found.graph, found.partition, "circuit-tracer"))
    assert {f"{node['feature']}.json" for node in graph["nodes"]} <= set(files)
    card = cards.nodes[-1]
    number = feature_number(len(found.graph.cuts) - 1, card.content["node"])
    content = json.loads(json.dumps(files[f"{number}.json"], allow_nan=False))
    assert (content["act_min"], content["act_max"]) == (card.content["smallest"], card.content["largest"])
    assert content["description"].startswith(card.title)
    top = content["examples_quantiles"][0]
    assert top["quantile_name"] == "Top activations"
    for shown, example in zip(top["examples"], card.largest, strict=True):
        assert len(shown["tokens"]) == len(shown["tokens_acts_list"])
        assert shown["tokens_acts_list"][shown["train_token_ind"]] == example["value"]


def test_files_of_other_data_name_the_data_point() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    found = analyze(model, (torch.randn(30, 3), torch.randint(0, 2, (30,))), control=False)
    cards = found.describe(examples=2)
    (_, content), *_ = feature_files(cards)
    example = content["examples_quantiles"][0]["examples"][0]
    first = cards.nodes[0].largest[0]
    assert example["tokens"][0] == f"data point {first['point']}"
    assert example["tokens_acts_list"][0] == first["value"]
    assert len(example["tokens"]) == len(example["tokens_acts_list"]) == 2, "and the target"
