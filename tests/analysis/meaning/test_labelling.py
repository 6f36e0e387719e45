"""Labels from programs, and their detection score."""

import json

import numpy as np
import pytest
from cases_meaning import two_task_cards

from interbasis.analysis import Cards, detection_auc, label
from interbasis.analysis.errors import DataError, InputError
from interbasis.analysis.meaning.labelling import held_out


@pytest.fixture(scope="module")
def cards() -> Cards:
    return two_task_cards(points=20)


def test_each_card_is_given_as_json(cards: Cards) -> None:
    seen = []

    def labeller(text: str) -> str:
        content = json.loads(text)
        seen.append(content["kind"])
        return f" {content['summary'][:20]} \n" if content["kind"] == "module" else ""

    found = label(cards, labeller)
    assert set(found) == {"module 0", "module 1"}
    assert found["module 0"] == cards.module(0).summary[:20].strip()
    assert seen.count("node") == len(cards.nodes)


@pytest.mark.parametrize(("text", "message"), [("a\nb", "2 lines"), ("x" * 10_001, "10,001 characters"), (3, "a int")])
def test_what_is_no_line_is_refused(cards: Cards, text: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        label(cards.modules, lambda _: text)  # type: ignore[arg-type, return-value]


def test_auc_is_that_of_all_pairs() -> None:
    draws = np.random.default_rng(0)
    values, scores = draws.normal(size=50), draws.integers(0, 5, 50).astype(float)
    found = detection_auc(list(zip(scores, values, strict=True)), lambda _, x: float(x), label="", top=0.3)
    large = values >= np.sort(values)[-15]
    wins = np.sign(scores[large][:, None] - scores[~large])
    assert found.auc == pytest.approx(((wins + 1) / 2).mean())
    assert (found.n_large, found.n_small) == (15, 35)


def test_chance_is_shown() -> None:
    """Predictions that know nothing get one half, and the spread of their AUC is known: Mann and Whitney's."""
    pairs = [(None, float(v)) for v in range(40)]
    draws = np.random.default_rng(1)
    scores = [detection_auc(pairs, lambda *_: float(draws.normal()), label="", top=0.25).auc for _ in range(200)]
    expected = np.sqrt((40 + 1) / (12 * 10 * 30))
    assert abs(np.mean(scores) - 0.5) < 4 * expected / np.sqrt(200)
    found = detection_auc(pairs, lambda *_: float(draws.normal()), label="", top=0.25)
    assert found.chance == 0.5
    assert found.chance_spread == pytest.approx(expected, rel=0.12)


def test_a_label_that_is_true_is_detected_on_held_out_examples(cards: Cards) -> None:
    card = cards.node(0, 0)
    weights = np.array(
        [next((f["weight"] for f in card.content["reads"]["features"] if f["feature"] == j), 0.0) for j in range(6)]
    )
    seen = []

    def predict(text: str, example: dict[str, object]) -> float:
        seen.append(example)
        assert text == "a linear function"
        return float(weights @ np.array(example["input"]))

    found = detection_auc(card, predict, label="a linear function")
    assert found.auc > 0.95
    assert found.p_value < 0.01
    assert not any("value" in example or "values" in example for example in seen)
    assert len(held_out(card)) == 20


def test_impossible_scores_are_refused() -> None:
    with pytest.raises(DataError, match="two or more values"):
        detection_auc([(None, 1.0)] * 5, lambda *_: 0.0, label="")
    with pytest.raises(InputError, match="NaN or infinite"):
        detection_auc([(None, 1.0), (None, 2.0)], lambda *_: float("nan"), label="")
    with pytest.raises(InputError, match="between 0 and 1"):
        detection_auc([(None, 1.0), (None, 2.0)], lambda *_: 0.0, label="", top=1.0)
