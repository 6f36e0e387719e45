"""Learning coefficients of parts of a network at one temperature, as a result that can be stored."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from ..llc.coefficient import LearningCoefficient, LearningCoefficientCurve, packed, unpacked
from ..notebook.tables import Columns, html_table
from ..results import Result, by_value, decode, encode

__all__ = ["KINDS", "Estimate", "MediatorDegrees", "Part", "RefinedCoefficients", "estimate_from_bytes"]

KINDS = ("whole", "module", "together", "between", "weighted", "held", "parameters", "data")

"""What a part is: all parameters; those inside a module, inside any, or between modules; a module whose mediating
nodes are held by their strength (eq. 32) or at full strength (eq. 31); a set of parameters; or a data set."""

_APART = 3.0  # standard errors by which a sum and the whole may differ by chance


@dataclass(frozen=True)
class Part:
    """One part with its learning coefficient.

    Attributes:
        name: name of the part.
        kind: one of `KINDS`.
        estimate: the learning coefficient at the temperature that all parts share.
        module: the module, for the kinds "module", "weighted" and "held".
    """

    name: str
    kind: str
    estimate: LearningCoefficient
    module: int | None = None


@dataclass(frozen=True)
class MediatorDegrees:
    """Degrees of freedom that one mediating node takes from its module, measured and predicted (paper, eq. 34).

    gamma = -log(Z_C / Z) / log(full strength / sqrt(epsilon)), where Z_C / Z = E[exp(-t w^2 P)] over the chains of the
    module without constraint, P the mean squared movement of the node in standard deviations. This is the secant of
    the log volume, as eq. 34 means it, not the slope of eq. 8.

    Attributes:
        module, cut, coordinate: the node.
        strength: w, its total strength into all modules that it feeds.
        measured, standard_error: gamma; None where too few draws say something about it.
        at_full_strength: gamma~, the same for w = full strength; None likewise.
        share: predicted gamma / gamma~ = log(w / sqrt(epsilon)) / log(full strength / sqrt(epsilon)).
    """

    module: int
    cut: str
    coordinate: int
    strength: float
    measured: float | None
    standard_error: float | None
    at_full_strength: float | None
    share: float

    @property
    def predicted(self) -> float | None:
        """The prediction of eq. 34, share times gamma~."""
        return None if self.at_full_strength is None else self.share * self.at_full_strength


@by_value
@dataclass(frozen=True, repr=False)
class RefinedCoefficients(Result):
    """Learning coefficients of parts of a network, all at the temperature and with the localiser of the whole.

    At one temperature the coefficients of parameters that do not interact add up exactly: L = L_1 + L_2 gives
    t E[L] = t E[L_1] + t E[L_2].

    Attributes:
        parts: the whole first.
        mediators: what mediating nodes take, for modules.
        epsilon: loss scale of the whole.
        temperature, gamma: inverse temperature and strength of the localiser.
        others: names of layers whose parameters are in no module.
        seed: seed of the chains.
    """

    parts: tuple[Part, ...]
    mediators: tuple[MediatorDegrees, ...]
    epsilon: float
    temperature: float
    gamma: float
    others: tuple[str, ...]
    seed: int

    def __getitem__(self, name: str) -> LearningCoefficient:
        """Return the learning coefficient of a part by its name."""
        for part in self.parts:
            if part.name == name:
                return part.estimate
        raise KeyError(name)

    def of_kind(self, kind: str) -> tuple[Part, ...]:
        """Return the parts of a kind."""
        return tuple(part for part in self.parts if part.kind == kind)

    @property
    def verdict(self) -> str:
        """The worst verdict of the parts."""
        order = ("reliable", "doubtful", "failed")
        return max((part.estimate.verdict for part in self.parts), key=order.index)

    @property
    def interaction(self) -> tuple[float, float] | None:
        """N_eff of all modules together minus the sum over modules, with its standard error.

        Modules whose degeneracies do not interact have 0 (section 5.2.1). None with fewer than two modules, and where
        an estimate of them has failed.
        """
        together, modules = self.of_kind("together"), self.of_kind("module")
        if not together or len(modules) < 2 or _failed(*together, *modules):
            return None
        difference = together[0].estimate.n_effective - sum(part.estimate.n_effective for part in modules)
        errors = [part.estimate.standard_error for part in (*together, *modules)]
        return difference, 2 * math.sqrt(sum(error**2 for error in errors))

    @property
    def constraint(self) -> tuple[float, float] | None:
        """What holding the mediating nodes adds to N_eff over all modules, with its standard error (eq. 32).

        None without mediating nodes, and where an estimate of them has failed.
        """
        held = self.of_kind("weighted")
        if not held or _failed(*held, *self.of_kind("module")):
            return None
        free = {part.module: part.estimate for part in self.of_kind("module")}
        pairs = [(part.estimate, free[part.module]) for part in held]
        added = sum(a.n_effective - b.n_effective for a, b in pairs)
        return added, 2 * math.sqrt(sum(a.standard_error**2 + b.standard_error**2 for a, b in pairs))

    @property
    def reason(self) -> str:
        """What the numbers say, in one sentence or two."""
        unsure = [part for part in self.parts if part.estimate.verdict != "reliable"]
        doubtful = [f"{part.name}: {part.estimate.reason}" for part in unsure]
        said = [_on_interaction(*self.interaction, self.constraint)] if self.interaction else []
        if doubtful:
            more = f", and {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
            said.append(f"not all parts are reliable ({doubtful[0]}{more})")
        return "; ".join(said) or "all parts are reliable"

    def __repr__(self) -> str:
        """Describe each part on a line."""
        head = f"RefinedCoefficients at epsilon {self.epsilon:.3g}, {self.verdict}"
        lines = [
            f"  {part.name}: N_eff {part.estimate.n_effective:.4g} +- {2 * part.estimate.standard_error:.2g} of "
            f"{part.estimate.n_parameters:,} parameters, {part.estimate.verdict}"
            for part in self.parts
        ]
        return "\n".join([head, *lines, f"  {self.reason}"])

    def _columns(self) -> Columns:
        """Return a row per part."""
        estimates = [part.estimate for part in self.parts]
        return {
            "part": [part.name for part in self.parts],
            "kind": [part.kind for part in self.parts],
            "n_effective": [found.n_effective for found in estimates],
            "standard_error": [2 * found.standard_error for found in estimates],
            "low": [2 * found.interval[0] for found in estimates],
            "high": [2 * found.interval[1] for found in estimates],
            "n_parameters": [found.n_parameters for found in estimates],
            "verdict": [found.verdict for found in estimates],
        }

    def _repr_html_(self) -> str:
        """Return a table of the parts, and what they say."""
        return html_table("Effective parameters of parts", self._columns(), [f"{self.verdict} ({self.reason})"])

    def to_bytes(self) -> bytes:
        """Pack the result into one safetensors file in memory."""
        arrays, points = packed([part.estimate for part in self.parts])
        about: dict[str, Any] = {"points": points, "mediators": [asdict(mediator) for mediator in self.mediators]}
        about["parts"] = [{"name": part.name, "kind": part.kind, "module": part.module} for part in self.parts]
        about |= {name: getattr(self, name) for name in ("epsilon", "temperature", "gamma", "others", "seed")}
        return encode("refined-coefficients", arrays, about)

    @classmethod
    def from_bytes(cls, data: bytes) -> RefinedCoefficients:
        """Rebuild a result from `to_bytes`."""
        arrays, about = decode("refined-coefficients", data)
        points = unpacked(arrays, about["points"])
        parts = [Part(**row, estimate=point) for row, point in zip(about["parts"], points, strict=True)]
        mediators = tuple(MediatorDegrees(**row) for row in about["mediators"])
        rest = {name: about[name] for name in ("epsilon", "temperature", "gamma", "seed")}
        return cls(parts=tuple(parts), mediators=mediators, others=tuple(about["others"]), **rest)


Estimate: TypeAlias = LearningCoefficient | LearningCoefficientCurve | RefinedCoefficients

"""What is stored as a learning coefficient."""


def estimate_from_bytes(mode: str, data: bytes) -> Estimate:
    """Rebuild an estimate that was stored as a "point", a "curve", or of "parts" or "modules"."""
    kinds: dict[str, type[Estimate]] = {"point": LearningCoefficient, "curve": LearningCoefficientCurve}
    return kinds.get(mode, RefinedCoefficients).from_bytes(data)


def _failed(*parts: Part) -> bool:
    return any(part.estimate.verdict == "failed" for part in parts)


def _on_interaction(difference: float, error: float, constraint: tuple[float, float] | None) -> str:
    apart = abs(difference) > _APART * error
    said = (
        f"all modules together have {difference:+.3g} +- {error:.2g} effective parameters beside their sum: "
        f"{'their degeneracies interact' if apart else 'no interaction of their degeneracies is seen'}"
    )
    return said if constraint is None else f"{said}, and holding their mediating nodes adds {constraint[0]:.3g}"
