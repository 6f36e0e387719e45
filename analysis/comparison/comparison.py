"""Compare divisions of the same nodes pair by pair: AMI, ARI, a permutation test, overlaps, and matched modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from textwrap import wrap
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from ..errors import GraphError
from ..modules.alignment import Alignment
from ..notebook.tables import Columns, html_table
from ..results import Result, by_value, decode, encode
from .agreement import agreement
from .divisions import Division, DivisionLike, NodeNames, name_of, read_divisions

__all__ = ["AGREEMENTS", "Best", "Comparison", "Match", "Pair", "Persistence", "compare_partitions", "join_comparisons"]

AGREEMENTS = ("same division", "agree more than chance", "no more than chance")

"""Possible verdicts on two divisions."""

_LEVEL = 0.05

_LEFT_OUT = {
    "in_no_module": "in no module",
    "in_several": "in more than one module",
    "ambiguous": "with a name that several nodes have",
}

_PER_DIVISION = ("names", "n_modules", *_LEFT_OUT)

_TABLE = ("first", "second", "first_module", "second_module", "nodes", "jaccard", "matched")

_WIDTH = 80


@dataclass(frozen=True)
class Match:
    """A module of the first division and the one of the second that it is matched with.

    Attributes:
        first, second: names of the modules.
        shared: number of nodes in both.
        jaccard: shared nodes / nodes in either.
    """

    first: str
    second: str
    shared: int
    jaccard: float


@dataclass(frozen=True)
class Best:
    """A module of one division and the module of the other that overlaps it most.

    Attributes:
        module, match: names of the modules.
        nodes: number of nodes of the module that are compared.
        jaccard: shared nodes / nodes in either.
        by_chance: mean of the largest Jaccard overlap of this module when labels are permuted within each cut.
        p_value: (1 + permutations in which that is at least as large) / (1 + permutations).
    """

    module: str
    match: str
    nodes: int
    jaccard: float
    by_chance: float
    p_value: float

    @property
    def matched(self) -> bool:
        """Whether the overlap is more than chance, at the 5 % level."""
        return self.p_value <= _LEVEL


@dataclass(frozen=True)
class Persistence:
    """How often other divisions have a module of one, too.

    Attributes:
        module: name of the module.
        best: for each other division its name and the best match there; None where no node of the module is compared.
    """

    module: str
    best: tuple[tuple[str, Best | None], ...]

    @property
    def matched(self) -> int:
        """The number of other divisions with a module that overlaps this one more than by chance."""
        return sum(found is not None and found.matched for _, found in self.best)

    @property
    def jaccard(self) -> float:
        """The mean overlap with the best match, 0 where no node is compared."""
        return sum(0.0 if found is None else found.jaccard for _, found in self.best) / len(self.best)

    @property
    def by_chance(self) -> float:
        """The mean overlap with the best match when labels are permuted."""
        return sum(0.0 if found is None else found.by_chance for _, found in self.best) / len(self.best)


@by_value
@dataclass(frozen=True)
class Pair:
    """Two divisions on the nodes that both put into a module.

    Attributes:
        first, second: names of the divisions.
        n_nodes: number of nodes compared.
        only_first, only_second: number of nodes that only one of them puts into a module; they are left out.
        ami, ari: adjusted mutual information and adjusted Rand index: 1 for the same division.
        ami_by_chance, ari_by_chance: their means when labels are permuted within each cut.
        z: (ami - ami_by_chance) / standard deviation; None where permutations change nothing.
        p_value, ari_p_value: one-sided, (1 + permutations with at least as much) / (1 + permutations).
        first_modules, second_modules: names of the modules, of rows and columns of the overlap.
        overlap: number of nodes by module of the first and of the second.
        matches: modules matched one to one with the largest sum of Jaccard overlaps, those that share nodes.
        verdict: one of `AGREEMENTS`.
        reason: reason for the verdict, one sentence.
        best: for each module of the first, then of the second, the best match in the other, whatever else it matches.
    """

    first: str
    second: str
    n_nodes: int
    only_first: int
    only_second: int
    ami: float
    ari: float
    ami_by_chance: float
    ari_by_chance: float
    z: float | None
    p_value: float
    ari_p_value: float
    first_modules: tuple[str, ...]
    second_modules: tuple[str, ...]
    overlap: Int[np.ndarray, "k l"]
    matches: tuple[Match, ...]
    verdict: str
    reason: str
    best: tuple[tuple[Best, ...], tuple[Best, ...]] = ((), ())

    @property
    def jaccard(self) -> Float[np.ndarray, "k l"]:
        """Shared nodes / nodes in either, by module of the first and of the second."""
        return _jaccard(self.overlap)


@by_value
@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Divisions of the same nodes, compared pair by pair.

    Attributes:
        names: names of the divisions.
        n_modules: number of modules of each.
        in_no_module: number of nodes that each names, but puts into no module; they are left out.
        in_several: number of nodes that each puts into more than one module; they are left out.
        ambiguous: number of names in each that several nodes have, as an id that two layers use; they are left out.
        n_permutations: number of permutations of each test.
        seed: seed of the permutations.
        pairs: one per pair of divisions.
    """

    names: tuple[str, ...]
    n_modules: tuple[int, ...]
    in_no_module: tuple[int, ...]
    in_several: tuple[int, ...]
    ambiguous: tuple[int, ...]
    n_permutations: int
    seed: int
    pairs: tuple[Pair, ...]

    @property
    def verdict(self) -> str:
        """The verdict on the pair of divisions that agrees least."""
        return max((pair.verdict for pair in self.pairs), key=AGREEMENTS.index)

    @property
    def summary(self) -> str:
        """Verdict and main numbers of each pair, and which nodes were left out."""
        lines = [f"{p.first} and {p.second}: {p.verdict}. {p.reason}." for p in self.pairs]
        for i, name in enumerate(self.names):
            counts = {what: getattr(self, field)[i] for field, what in _LEFT_OUT.items()}
            said = [f"{count:,} {what}" for what, count in counts.items() if count]
            lines += [f"Left out of {name}: {', '.join(said)}."] if said else []
        lines += [
            f"Only in {name}, not compared: {count:,} nodes."
            for p in self.pairs[:1] * (len(self.pairs) == 1)
            for name, count in ((p.first, p.only_first), (p.second, p.only_second))
            if count
        ]
        if len(self.names) > 2 and (kept := self.persistence()):
            said = [
                f"{m.module} in {m.matched} (Jaccard {m.jaccard:.2f}, {m.by_chance:.2f} by chance)" for m in kept[:12]
            ]
            said += [f"and {len(kept) - 12} more"] if len(kept) > 12 else []
            lines.append(f"Modules of {self.names[0]} in the {len(self.names) - 1} others: {', '.join(said)}.")
        wrapped = (wrap(line, _WIDTH, subsequent_indent="  ", break_long_words=False) for line in lines)
        return "\n".join(part for parts in wrapped for part in parts)

    def __repr__(self) -> str:
        """Describe each pair on a line or two."""
        return f"Comparison: {len(self.names)} divisions, {self.verdict}\n{self.summary}"

    def pair(self, first: str, second: str) -> Comparison:
        """Return the comparison of two of the divisions, first the one that was given first.

        Raises:
            GraphError: names of no pair.
        """
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                chosen = [self.names.index(pair.first), self.names.index(pair.second)]
                counts: dict[str, Any] = {n: tuple(getattr(self, n)[i] for i in chosen) for n in _PER_DIVISION}
                return replace(self, **counts, pairs=(pair,))
        raise GraphError(f"there is no pair of {first!r} and {second!r}: expected two of {list(self.names)}")

    def persistence(self, *, name: str | None = None) -> tuple[Persistence, ...]:
        """Say of each module of a division in how many of the others there is one that overlaps it more than chance.

        Chance permutes labels within each cut; the best match of a module is compared with its best match in each
        permutation, at the 5 % level, not corrected for the number of modules.

        Args:
            name: the division; default: the first.

        Raises:
            GraphError: there is no division of this name.

        >>> a, b, c = (dict(zip("wxyz", labels, strict=True)) for labels in ("0011", "0011", "0101"))
        >>> found = compare_partitions(a, b, c).persistence()
        >>> [(each.module, [best.jaccard for _, best in each.best]) for each in found]
        [('0', [1.0, 0.3333333333333333]), ('1', [1.0, 0.3333333333333333])]
        """
        wanted = self.names[0] if name is None else name
        if wanted not in self.names:
            raise GraphError(f"there is no division {wanted!r}: expected one of {list(self.names)}")
        found: dict[str, dict[str, Best]] = {}
        for pair in self.pairs:
            if wanted in (pair.first, pair.second):
                side = 0 if pair.first == wanted else 1
                found[(pair.second, pair.first)[side]] = {best.module: best for best in pair.best[side]}
        modules = list(dict.fromkeys(module for of in found.values() for module in of))
        if all(module.isdecimal() for module in modules):
            modules.sort(key=int)
        return tuple(Persistence(m, tuple((other, of.get(m)) for other, of in found.items())) for m in modules)

    def _columns(self) -> Columns:
        """Return a row per pair of modules that share nodes."""
        columns: dict[str, list[Any]] = {name: [] for name in _TABLE}
        for p in self.pairs:
            share, matched = p.jaccard, {(match.first, match.second) for match in p.matches}
            for k, m in np.argwhere(p.overlap).tolist():
                modules = p.first_modules[k], p.second_modules[m]
                row = (p.first, p.second, *modules, int(p.overlap[k, m]), float(share[k, m]), modules in matched)
                for name, value in zip(_TABLE, row, strict=True):
                    columns[name].append(value)
        return columns

    def _repr_html_(self) -> str:
        """Return a table of the pairs of divisions; of one pair, a table of the matched modules."""
        if len(self.pairs) > 1:
            shown = ("first", "second", "n_nodes", "ami", "ami_by_chance", "ari", "p_value", "verdict")
            columns = {name.replace("_", " "): [getattr(p, name) for p in self.pairs] for name in shown}
        else:
            (pair,) = self.pairs
            columns = {
                pair.first: [m.first for m in pair.matches],
                pair.second: [m.second for m in pair.matches],
                "shared nodes": [m.shared for m in pair.matches],
                "Jaccard": [m.jaccard for m in pair.matches],
            }
        return html_table(f"Comparison: {self.verdict}", columns, self.summary.split("\n"))

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        values["pairs"] = [{**asdict(pair), "overlap": None} for pair in self.pairs]
        return encode("comparison", {f"overlap.{i}": p.overlap for i, p in enumerate(self.pairs)}, values)

    @classmethod
    def from_bytes(cls, data: bytes) -> Comparison:
        """Rebuild a comparison from `to_bytes`."""
        arrays, meta = decode("comparison", data)
        values = {f.name: meta[f.name] for f in fields(cls)}
        values |= {name: tuple(values[name]) for name in _PER_DIVISION}
        values["pairs"] = tuple(
            Pair(
                **{
                    **pair,
                    "overlap": arrays[f"overlap.{i}"],
                    "first_modules": tuple(pair["first_modules"]),
                    "second_modules": tuple(pair["second_modules"]),
                    "matches": tuple(Match(**match) for match in pair["matches"]),
                    "best": tuple(tuple(Best(**best) for best in side) for side in pair.get("best", ((), ()))),
                }
            )
            for i, pair in enumerate(meta["pairs"])
        )
        return cls(**values)


def compare_partitions(
    a: DivisionLike,
    b: DivisionLike,
    *more: DivisionLike,
    names: Sequence[str] | None = None,
    nodes: Sequence[NodeNames | None] | None = None,
    alignments: Sequence[Alignment | None] | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare divisions of the same nodes, each with each: AMI, ARI, and whether they agree more than by chance.

    A division is a partition; an int array of labels per cut, -1 for none; or a mapping {node: module}, as
    `read_groups` reads from a file, with nodes named "cut/place" or as in `nodes`. A module may be a tuple of several
    ("a", "b"): AMI and ARI are of divisions, so nodes in several modules are left out and counted, as are nodes in
    none, and nodes that only one of two divisions puts into a module. Of mappings alone, nodes other than "cut/place"
    are all at one cut, as the reason of the verdict says.

    Chance: the labels of one division are permuted within each cut, so that every module keeps its number of nodes at
    each cut. p = (1 + k) / (1 + N) for k of N permutations with at least as much mutual information, not corrected for
    the number of pairs.

    Args:
        a: a division.
        b: another one.
        *more: further ones.
        names: names of the divisions; "a", "b", ... by default.
        nodes: per division names of the nodes per cut, `graph.nodes`, or None: divisions of different graphs are
            compared on the nodes of the same cut and name. Without names they are compared by place, for divisions of
            one graph.
        alignments: per division after the first, per cut for each node the node of the first division that it
            continues, -1 for none, as `align_nodes` matches checkpoints or seeds by their values; or None.
        n_permutations: number of permutations N.
        seed: seed of the permutations.

    Raises:
        GraphError: divisions that share no node, or names, nodes or alignments that do not fit.

    Source: Vinh, Epps and Bailey, JMLR 11 (2010); Hubert and Arabie, Journal of Classification 2 (1985).

    >>> found = compare_partitions({"x": 0, "y": 0, "z": 1}, {"x": "p", "y": "p", "z": "q", "w": "q"})
    >>> found.verdict, found.pairs[0].ami, found.pairs[0].overlap.tolist(), found.pairs[0].only_second
    ('same division', 1.0, [[2, 0], [0, 1]], 1)
    """
    given = (a, b, *more)
    called = tuple(map(str, names)) if names is not None else tuple(_letter(i) for i in range(len(given)))
    if len(called) != len(given) or len(set(called)) < len(called):
        raise GraphError(f"the names are {list(called)}: expected {len(given)} different ones, one per division")
    if n_permutations < 1:
        raise GraphError(f"n_permutations is {n_permutations}: expected at least 1")
    divisions = read_divisions(given, nodes, alignments)
    pairs = tuple(
        _compared(called[i], called[j], divisions[i], divisions[j], n_permutations, seed)
        for i, j in combinations(range(len(given)), 2)
    )
    return Comparison(
        names=called,
        n_modules=tuple(len(set(d.modules.values())) for d in divisions),
        in_no_module=tuple(d.in_none for d in divisions),
        in_several=tuple(d.in_several for d in divisions),
        ambiguous=tuple(d.ambiguous for d in divisions),
        n_permutations=n_permutations,
        seed=seed,
        pairs=pairs,
    )


def join_comparisons(found: Sequence[Comparison]) -> Comparison:
    """Put comparisons of pairs of divisions together, as if all had been compared at once.

    Divisions of one name are the same; where their counts of left out nodes differ, the first stay.

    Args:
        found: at least one comparison; number and seed of permutations are those of the first.

    >>> one = compare_partitions({"x": 0, "y": 0, "z": 1}, {"x": 1, "y": 1, "z": 0}, names=["p", "q"])
    >>> other = compare_partitions({"x": 0, "y": 0, "z": 1}, {"x": 1, "y": 0, "z": 0}, names=["p", "r"])
    >>> joined = join_comparisons([one, other])
    >>> joined.names, joined.n_modules, [(pair.first, pair.second) for pair in joined.pairs]
    (('p', 'q', 'r'), (2, 2, 2), [('p', 'q'), ('p', 'r')])
    """
    counts: dict[str, dict[str, Any]] = {}
    for one in found:
        for i, name in enumerate(one.names):
            counts.setdefault(name, {field: getattr(one, field)[i] for field in _PER_DIVISION})
    columns: dict[str, Any] = {field: tuple(of[field] for of in counts.values()) for field in _PER_DIVISION}
    return replace(found[0], **columns, pairs=tuple(pair for one in found for pair in one.pairs))


def _letter(i: int) -> str:
    return chr(ord("a") + i) if i < 26 else f"division {i}"


def _compared(first: str, second: str, one: Division, other: Division, count: int, seed: int) -> Pair:
    shared = sorted(one.modules.keys() & other.modules.keys(), key=lambda key: (key[0], str(key[1])))
    if not shared:
        seen = [next(map(name_of, d.modules), "none") for d in (one, other)]
        raise GraphError(
            f"{first!r} and {second!r} put no node into a module in common: they name nodes like {seen[0]!r} and "
            f"{seen[1]!r}"
        )
    rows, a = _numbered([one.modules[key] for key in shared])
    columns, b = _numbered([other.modules[key] for key in shared])
    _, cuts = np.unique([key[0] for key in shared], return_inverse=True)
    found = agreement(a, b, cuts, count, seed)
    where = "within cuts" if any(cut for cut, _ in shared) else "over all nodes"
    verdict, reason = _verdict(found, len(shared), count, where)
    return Pair(
        first=first,
        second=second,
        n_nodes=len(shared),
        only_first=len(one.modules) - len(shared),
        only_second=len(other.modules) - len(shared),
        first_modules=rows,
        second_modules=columns,
        matches=_matches(found.overlap, rows, columns),
        verdict=verdict,
        reason=reason,
        best=(_best(found, 0, rows, columns), _best(found, 1, columns, rows)),
        **{f.name: getattr(found, f.name) for f in fields(found) if not f.name.startswith("best")},
    )


def _best(found: Any, side: int, modules: Sequence[str], others: Sequence[str]) -> tuple[Best, ...]:
    """Return the best match of each module of one side; of equal ones the first."""
    overlap = found.overlap if side == 0 else found.overlap.T
    share = _jaccard(overlap)
    return tuple(
        Best(
            module=module,
            match=others[int(share[k].argmax())],
            nodes=int(overlap[k].sum()),
            jaccard=float(found.best[side][k]),
            by_chance=float(found.best_by_chance[side][k]),
            p_value=float(found.best_p[side][k]),
        )
        for k, module in enumerate(modules)
    )


def _numbered(modules: Sequence[str]) -> tuple[tuple[str, ...], Int[np.ndarray, " n"]]:
    """Number modules: numbers in their order, names by falling size."""
    sizes: dict[str, int] = {}
    for module in modules:
        sizes[module] = sizes.get(module, 0) + 1
    digits = all(module.isdecimal() for module in sizes)
    ordered = sorted(sizes, key=lambda m: (int(m), m) if digits else (-sizes[m], m))
    number = {module: i for i, module in enumerate(ordered)}
    return tuple(ordered), np.array([number[module] for module in modules], dtype=np.int64)


def _jaccard(overlap: Int[np.ndarray, "k l"]) -> Float[np.ndarray, "k l"]:
    either = overlap.sum(1)[:, None] + overlap.sum(0) - overlap
    return np.asarray(overlap / either)


def _matches(overlap: Int[np.ndarray, "k l"], rows: Sequence[str], columns: Sequence[str]) -> tuple[Match, ...]:
    share = _jaccard(overlap)
    chosen = [(int(k), int(m)) for k, m in zip(*linear_sum_assignment(share, maximize=True), strict=True)]
    return tuple(Match(rows[k], columns[m], int(overlap[k, m]), float(share[k, m])) for k, m in chosen if overlap[k, m])


def _verdict(found: Any, n: int, count: int, where: str) -> tuple[str, str]:
    """Return the verdict and its reason, without a full stop; `where` says among which nodes labels were permuted."""
    overlap = found.overlap
    test = f"p = {found.p_value:.3g} in {count:,} permutations {where}"
    numbers = f"AMI {found.ami:.3f} ({found.ami_by_chance:.3f} by chance), ARI {found.ari:.3f}, {test}, {n:,} nodes"
    fixed = "; no permutation changes their overlap" if found.z is None else ""
    if overlap.shape[0] == overlap.shape[1] == np.count_nonzero(overlap):
        return AGREEMENTS[0], f"Every module of one is a module of the other on {n:,} nodes ({test}{fixed})"
    if 1 in overlap.shape:
        return AGREEMENTS[2], f"One of them is a single module on the {n:,} nodes, which says nothing of the other"
    return AGREEMENTS[1 if found.p_value <= _LEVEL else 2], numbers + fixed
