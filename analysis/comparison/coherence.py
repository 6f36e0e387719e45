"""Label coherence: do the labels of nodes in one module agree more than those of nodes dealt out at random?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from ..errors import DataError, GraphError
from ..modules.partition import Partition
from ..notebook.tables import Columns, html_table
from ..results import Result, decode, encode
from .agreement import relabellings
from .divisions import NodeNames, key_of_names, nodes_of

__all__ = ["Coherence", "Embedding", "ModuleCoherence", "label_coherence"]

Embedding: TypeAlias = Callable[[list[str]], Float[np.ndarray, "n dims"]]
"""A function from n texts to n vectors."""

_LEVEL = 0.05


@dataclass(frozen=True)
class ModuleCoherence:
    """The coherence of one module.

    Attributes:
        index: label of the module.
        n_labelled: number of its nodes that have a label.
        value: mean cosine of the labels of two of its nodes; None with fewer than two labels.
        null_mean: mean of the value over the relabellings.
        z: (value - null_mean) / standard deviation; None where relabellings change nothing.
        p_value: (1 + relabellings with at least as much) / (1 + relabellings).
    """

    index: int
    n_labelled: int
    value: float | None
    null_mean: float | None
    z: float | None
    p_value: float | None


@dataclass(frozen=True, repr=False)
class Coherence(Result):
    """Whether labels within modules agree more than across them.

    Attributes:
        value: mean cosine of the labels of two nodes of one module, over all such pairs.
        across: the same over pairs of nodes of two modules; None if there is one module.
        null_mean: mean of the value over relabellings that keep the number of nodes of each module at each cut.
        z: (value - null_mean) / standard deviation; None where relabellings change nothing.
        p_value: one-sided, (1 + relabellings with at least as much) / (1 + relabellings).
        n_labelled: number of nodes that have a label and a module.
        n_without: number of nodes in a module that have no label; they are left out.
        n_unknown: number of labels of no node, of a name that several nodes have, or of a node in no module.
        n_permutations: number of relabellings.
        seed: seed of the relabellings.
        modules: one `ModuleCoherence` per module.
    """

    value: float
    across: float | None
    null_mean: float
    z: float | None
    p_value: float
    n_labelled: int
    n_without: int
    n_unknown: int
    n_permutations: int
    seed: int
    modules: tuple[ModuleCoherence, ...]

    @property
    def verdict(self) -> str:
        """Whether labels agree more within modules, at the 5 % level."""
        return "labels agree more within modules" if self.p_value <= _LEVEL else "no more than chance"

    @property
    def summary(self) -> str:
        """Verdict and main numbers in a sentence."""
        z = "" if self.z is None else f", z {self.z:.1f}"
        test = f"p = {self.p_value:.3g} in {self.n_permutations:,} relabellings within cuts"
        return (
            f"{self.verdict}: mean cosine {self.value:.4f} within modules, {self.null_mean:.4f} by chance{z}, {test}, "
            f"{self.n_labelled:,} labelled nodes"
        )

    def __repr__(self) -> str:
        """Describe verdict and numbers."""
        return f"Coherence: {self.summary}"

    def _columns(self) -> Columns:
        """Return a row per module."""
        return {f.name: [getattr(m, f.name) for m in self.modules] for f in fields(ModuleCoherence)}

    def _repr_html_(self) -> str:
        """Return a table of the modules, and the summary."""
        return html_table(
            "Label coherence", {k.replace("_", " "): v for k, v in self._columns().items()}, [self.summary]
        )

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        return encode("coherence", {}, asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Coherence:
        """Rebuild a coherence from `to_bytes`."""
        _, meta = decode("coherence", data)
        values = {f.name: meta[f.name] for f in fields(cls)}
        return cls(**{**values, "modules": tuple(ModuleCoherence(**row) for row in values["modules"])})


def label_coherence(
    partition: Partition | Sequence[Int[np.ndarray, " _"]],
    labels: Mapping[str, str | None] | Sequence[Sequence[str | None]],
    *,
    nodes: NodeNames | None = None,
    embed: Embedding | None = None,
    n_permutations: int = 500,
    seed: int = 0,
) -> Coherence:
    """Compute whether the labels of a module's nodes agree more than by chance.

    Texts become unit vectors x_i. With s_g the sum and n_g the number of those in module g, the mean cosine over pairs
    of nodes of one module is

        sum_g (|s_g|^2 - sum_{i in g} |x_i|^2) / sum_g n_g (n_g - 1)

    Chance: modules of labelled nodes are permuted within each cut, so that every module keeps its number of them there.

    Args:
        partition: a partition, or an int array of labels per cut, -1 for none.
        labels: texts by node, named "cut/place" or as in `nodes`; or per cut one text or None per node.
        nodes: names of the nodes per cut, or `graph.nodes`.
        embed: function from a list of texts to an array with a row for each; TF-IDF of words by default (sublinear
            term frequency, without English stop words).
        n_permutations: number of relabellings.
        seed: seed of the relabellings.

    Raises:
        GraphError: labels or names that do not fit, or no module with two labelled nodes.
        DataError: vectors that do not fit or are not finite, or texts without words.

    >>> found = label_coherence([np.array([0, 0, 1, 1])], [["cat", "cat", "dog", "dog"]], n_permutations=99)
    >>> found.value, found.across, found.modules[0].n_labelled
    (1.0, 0.0, 2)
    """
    arrays = [np.asarray(part) for part in (partition.labels if isinstance(partition, Partition) else partition)]
    if n_permutations < 1:
        raise GraphError(f"n_permutations is {n_permutations}: expected at least 1")
    names = partition.cuts if isinstance(partition, Partition) else tuple(map(str, range(len(arrays))))
    texts, unknown = _texts(labels, names, [len(part) for part in arrays], nodes)
    module, cut = np.concatenate(arrays), np.repeat(np.arange(len(arrays)), [len(part) for part in arrays])
    held = np.array([text is not None for text in texts], dtype=bool)
    named = held & (module >= 0)
    kept, group = np.unique(module[named], return_inverse=True)
    sizes = np.bincount(group, minlength=len(kept))
    if not (sizes > 1).any():
        raise GraphError(
            f"{int(named.sum())} nodes have a label and a module, no two of them in one module: expected at least one "
            "module with two labelled nodes"
        )
    vectors = _embedded([text for text, here in zip(texts, named, strict=True) if here and text], embed)
    together, everyone = _drawn(vectors, group, len(kept), cut[named], n_permutations, seed)
    n, pairs = len(group), int((sizes * (sizes - 1)).sum())
    value, mean, z, p = _against(together.sum(1) / pairs)
    apart = n * (n - 1) - pairs
    return Coherence(
        value=value,
        across=float(everyone - together[0].sum()) / apart if apart else None,
        null_mean=mean,
        z=z,
        p_value=p,
        n_labelled=n,
        n_without=int((~held & (module >= 0)).sum()),
        n_unknown=unknown + int((held & (module < 0)).sum()),
        n_permutations=n_permutations,
        seed=seed,
        modules=tuple(_module(int(m), int(sizes[k]), together[:, k]) for k, m in enumerate(kept)),
    )


def _texts(
    labels: Mapping[str, str | None] | Sequence[Sequence[str | None]],
    cuts: Sequence[str],
    widths: Sequence[int],
    nodes: NodeNames | None,
) -> tuple[list[str | None], int]:
    """Return the text of each node or None, and the number of labels of other nodes."""
    if not isinstance(labels, Mapping):
        if [len(part) for part in labels] != list(widths):
            raise GraphError(f"there are {[len(p) for p in labels]} labels per cut, expected {list(widths)}")
        return [(text or "").strip() or None for part in labels for text in part], 0
    table = nodes_of(cuts, widths, nodes)
    lookup = key_of_names([table])
    place = {key: i for i, key in enumerate(key for part in table.keys for key in part)}
    texts: list[str | None] = [None] * len(place)
    unknown = 0
    for name, text in labels.items():
        key = lookup.get(name)
        unknown += key is None
        if key is not None:
            texts[place[key]] = (text or "").strip() or None
    return texts, unknown


def _embedded(texts: list[str], embed: Embedding | None) -> Any:
    """Return a row of length 1 per text; rows of zeros stay."""
    if embed is None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second

        try:
            return csr_array(TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(texts))
        except ValueError as error:
            raise DataError("the labels hold no words but stop words: give embed=, a function to vectors") from error
    vectors = np.asarray(embed(texts), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise DataError(
            f"embed returned an array of shape {vectors.shape}, finite: {bool(np.isfinite(vectors).all())}: expected "
            f"{len(texts)} rows of finite numbers"
        )
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def _drawn(
    vectors: Any, group: Int[np.ndarray, " n"], count: int, cuts: Int[np.ndarray, " n"], n_permutations: int, seed: int
) -> tuple[Float[np.ndarray, "draws groups"], float]:
    """Return sums of cosines over ordered pairs of nodes: by draw and group, the true one first; and over all pairs."""
    own = np.asarray(vectors.multiply(vectors).sum(1) if isinstance(vectors, csr_array) else (vectors**2).sum(1))

    def sums(labels: Int[np.ndarray, " n"], k: int) -> Float[np.ndarray, " groups"]:
        total = csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(k, len(labels))) @ vectors
        squares = total.multiply(total).sum(1) if isinstance(total, csr_array) else (total**2).sum(1)
        return np.asarray(squares).ravel() - np.bincount(labels, weights=own.ravel(), minlength=k)

    rows = [sums(group, count), *(sums(group[order], count) for order in relabellings(cuts, n_permutations, seed))]
    return np.array(rows), float(sums(np.zeros_like(group), 1)[0])


def _against(values: Float[np.ndarray, " draws"]) -> tuple[float, float, float | None, float]:
    """Return the first value, the mean of the others, z and p."""
    value, null = float(values[0]), values[1:]
    sd = float(null.std())
    z = (value - float(null.mean())) / sd if sd > 1e-12 else None
    return value, float(null.mean()), z, float(1 + (null >= value - 1e-12).sum()) / (1 + len(null))


def _module(index: int, size: int, sums: Float[np.ndarray, " draws"]) -> ModuleCoherence:
    if size < 2:
        return ModuleCoherence(index, size, None, None, None, None)
    return ModuleCoherence(index, size, *_against(sums / (size * (size - 1))))
