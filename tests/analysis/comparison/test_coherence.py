"""Label coherence: values by hand, a plain reference with the same draws, planted labels, nodes without, refusals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases_figures import partition_of
from sklearn.feature_extraction.text import TfidfVectorizer

from interbasis.analysis.comparison.coherence import Coherence, label_coherence
from interbasis.analysis.errors import DataError, GraphError

ANIMALS, TOOLS = ("red cat", "black cat", "cat food", "wild cat"), ("steel saw", "saw blade", "hand saw", "old saw")


def reference(module: Any, cut: Any, alike: Any, draws: int, seed: int) -> tuple[float, float, float, float]:
    """Every pair of nodes, in a loop over draws."""
    rng = np.random.default_rng(seed)
    np.fill_diagonal(alike, 0)

    def mean(g: Any) -> float:
        same = g[:, None] == g[None]
        np.fill_diagonal(same, False)
        return float(alike[same].mean())

    null = []
    for _ in range(draws):
        g = module.copy()
        for k in np.unique(cut):
            here = np.flatnonzero(cut == k)
            g[here] = g[rng.permutation(here)]
        null.append(mean(g))
    value = mean(module)
    z = (value - np.mean(null)) / np.std(null)
    return value, float(np.mean(null)), z, (1 + (np.array(null) >= value - 1e-12).sum()) / (1 + draws)


def labelled(n: int = 90, seed: int = 0, signal: float = 0.4) -> tuple[list[Any], list[list[str | None]]]:
    """Modules at three cuts, and labels of which some share are of the module's theme; some nodes have none."""
    rng = np.random.default_rng(seed)
    modules, texts = [], []
    for cut in range(3):
        modules.append(rng.integers(-1, 3 if cut else 2, n // 3))
        words = [
            f"theme{m if rng.random() < signal else rng.integers(4)} word{rng.integers(9)} the" for m in modules[-1]
        ]
        texts.append([None if rng.random() < 0.2 else word for word in words])
    return modules, texts


@pytest.mark.parametrize("embedding", ["tfidf", "callable"])
def test_numbers_are_those_of_the_plain_reference(embedding: str) -> None:
    modules, texts = labelled()
    rng = np.random.default_rng(5)
    vectors = {text: rng.normal(size=4) for part in texts for text in part if text}
    embed = None if embedding == "tfidf" else (lambda given: np.array([vectors[text] for text in given]))
    found = label_coherence(modules, texts, embed=embed, n_permutations=40, seed=7)
    flat = [text for part in texts for text in part]
    module, cut = np.concatenate(modules), np.repeat([0, 1, 2], 30)
    named = np.array([text is not None for text in flat]) & (module >= 0)
    kept = [text for text, here in zip(flat, named, strict=True) if here]
    if embed is None:
        rows = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(kept).toarray()
    else:
        rows = embed(kept) / np.linalg.norm(embed(kept), axis=1, keepdims=True)
    expected = reference(module[named], cut[named], rows @ rows.T, 40, 7)
    np.testing.assert_allclose((found.value, found.null_mean, found.z, found.p_value), expected, atol=1e-9)
    assert (found.n_labelled, found.n_without) == (len(kept), int((module[~named] >= 0).sum()))
    together = sum((m.value or 0) * m.n_labelled * (m.n_labelled - 1) for m in found.modules)
    pairs = sum(m.n_labelled * (m.n_labelled - 1) for m in found.modules)
    assert together / pairs == pytest.approx(found.value)
    alike = rows @ rows.T
    apart = module[named][:, None] != module[named]
    assert found.across == pytest.approx(alike[apart].mean())


def test_labels_of_modules_are_told_from_labels_dealt_out() -> None:
    part = partition_of([0, 0, 0, 0, 1, 1, 1, 1], [0, 1])
    found = label_coherence(part, [[*ANIMALS, *TOOLS], [None, None]])
    assert found.verdict == "labels agree more within modules"
    assert found.across == pytest.approx(0.0, abs=1e-12)
    assert [m.n_labelled for m in found.modules] == [4, 4]
    mixed = label_coherence(part, [[*ANIMALS[:2], *TOOLS[:2], *ANIMALS[2:], *TOOLS[2:]], [None, None]])
    assert mixed.verdict == "no more than chance"


def test_labels_that_layers_explain_are_no_evidence() -> None:
    part = [np.zeros(4, dtype=int), np.ones(4, dtype=int)]
    found = label_coherence(part, [list(ANIMALS), list(TOOLS)])
    assert (found.z, found.p_value, found.verdict) == (None, 1.0, "no more than chance")


def test_labels_by_name() -> None:
    part = partition_of([0, 0, 1, 1], [0, 1])
    cut = part.cuts[0]
    texts = {f"{cut}/{i}": text for i, text in enumerate(("a cat", "b cat", "c saw", " "))}
    found = label_coherence(part, {**texts, "elsewhere": "cat"})
    assert (found.n_labelled, found.n_without, found.n_unknown) == (3, 3, 1)
    listed = label_coherence(part, [["a cat", "b cat", "c saw", None], [None, None]])
    assert listed == replace(found, n_unknown=0)
    names = [["p", "q", "r", "s"], ["t", "u"]]
    named = label_coherence(part, dict(zip("pqr", texts.values(), strict=False)), nodes=names)
    assert (named.value, named.null_mean) == (found.value, found.null_mean)


def test_round_trip_and_tables() -> None:
    pytest.importorskip("pandas")
    found = label_coherence(*labelled(), n_permutations=9)
    assert Coherence.from_bytes(found.to_bytes()) == found
    assert len(found.to_frame()) == len(found.modules)
    assert "n labelled" in found._repr_html_()
    assert "p = " in repr(found)


@pytest.mark.parametrize(
    ("labels", "options", "error", "said"),
    [
        ([["a"]], {}, GraphError, "expected \\[4\\]"),
        ([["cat", None, "cat", None]], {}, GraphError, "no two of them in one module"),
        ([["the", "of", "and", "a"]], {}, DataError, "stop words"),
        ([["p", "q", "r", "s"]], {"embed": lambda texts: np.ones(4)}, DataError, "expected 4 rows"),
        ([["p", "q", "r", "s"]], {"embed": lambda texts: np.full((4, 2), np.nan)}, DataError, "finite"),
        ([["p", "q", "r", "s"]], {"n_permutations": 0}, GraphError, "at least 1"),
    ],
)
def test_refusals(labels: Any, options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        label_coherence([np.array([0, 0, 1, 1])], labels, **options)
