"""How far a command is and how long it may still take, over all of its phases and targets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PLANS", "Course"]

Name = str | tuple[str, ...]  # what the name of a phase begins with

_DIVIDE: tuple[tuple[Name, float], ...] = (
    *(("moments", 0.1), ("Jacobians", 1.0), (("slopes", "strengths"), 0.7), ("modules", 2.0)),
)

_ANALYZE = _DIVIDE * 2  # of the network, and of an untrained copy

_LLC = (("Hessian", 4.0), *(("warm-up", 4.0),) * 3, ("sampling", 24.0))

PLANS: dict[str, tuple[tuple[Name, float], ...]] = {
    "analyze": _ANALYZE,
    "demo": (("training", 3.0), *_ANALYZE * 6),
    "partition": (("modules", 2.7),),
    "ledger": (("activations and Jacobians", 0.4), ("activations where", 0.8), ("sample", 0.3)),
    "llc": _LLC,
    "track": (("aligning", 0.1), ("checkpoints", 2.0)),
    "compare": (("aligning", 0.1),),
    "distance": (("distances", 0.1),),
    "import": (("importing", 1.0),),
    "describe": (("values of the nodes", 0.5), ("cards", 2.0)),
    "experiment modules": (("modules", 0.9), ("null graphs", 4.5)),
    "experiment isolate": (("isolation", 1.9), ("null graphs", 2.7)),
    **dict.fromkeys(("experiment bisect", "experiment epsilon"), (("bisection", 0.6), ("random edges", 0.4))),
}
"""For each task the phases of one target, by the first words of their names, with seconds measured on the demo."""


_PART = re.compile(r"part (\d+)/(\d+), ")  # at the head of a step's name

_ANY: tuple[tuple[Name, float], ...] = (("", 3.0),)  # of a task without a plan, beside others


@dataclass
class _Phase:
    """A phase of a target.

    Attributes:
        name: the first words of its name.
        expected: seconds that are expected.
        measured: whether these were measured on this machine.
        took: seconds that it took; None while it is not over.
    """

    name: Name
    expected: float
    measured: bool = False
    took: float | None = None


class Course:
    """The phases of a command, those that are over with their times, and those to come with an estimate.

    Several steps that begin with the name of a phase are its parts. A phase that begins again after others is a further
    round: it and those that followed it are expected once more, with the times that they took before. A target whose
    steps begin with "part 2/9, " goes through its phases once for each part.
    """

    def __init__(self, task: str | Sequence[str] = "", targets: int = 1) -> None:
        """Expect the phases of a task, once for each target; or those of several tasks, one for each target."""
        first, *others = (task,) if isinstance(task, str) else task
        self._others = [[_Phase(*each) for each in PLANS.get(other, _ANY)] for other in others]
        self._plan = [_Phase(*each) for each in PLANS.get(first, _ANY if others else ())]
        self._targets, self._target, self._at = max(targets, 1), 0, -1
        self._part, self._of_parts = 1, 1
        self._phases = [_Phase(each.name, each.expected) for each in self._plan]
        self._begun: float | None = None
        self._phase_begun = self._spent = 0.0
        self._fraction: float | None = None
        self._parts = False  # whether the present phase has several parts, so that its share is not known
        self._step, self._share = "", 0.0
        self.round = 1  # of the present target

    def next_target(self, now: float) -> None:
        """Begin the next target: of the same task its phases are those of the one before, and take as long."""
        if self._begun is not None:
            self._begin_again(now)
            self._phases = self._others.pop(0) if self._others else self._phases
            self._target, self._part = self._target + 1, 1

    def note(self, step: str, fraction: float | None, now: float) -> None:
        """Take a report of a phase."""
        if self._begun is None:
            self._begun = self._phase_begun = now
        part_of = _PART.match(step)
        if part_of is not None:
            step, number = step[part_of.end() :], int(part_of[1])
            if number > self._part:
                self._begin_again(now)
            self._part, self._of_parts = number, int(part_of[2])
        again = fraction is not None and self._fraction is not None and fraction < self._fraction
        part = self._at >= 0 and step != self._step and step.startswith(self._phases[self._at].name)
        if (step != self._step or again) and not part:
            self._enter(step, now)
        self._parts = part or (self._parts and step == self._step)
        self._step, self._fraction = step, fraction

    def share(self, now: float) -> float:
        """Return the share of the command that is done, which never goes back; without a plan that of the phase."""
        if not self._plan:
            return self._fraction or 0.0
        if self._begun is not None:
            spent, left = now - self._begun, self.remaining(now)
            self._share = max(self._share, min(spent / (spent + left), 0.999) if spent + left else 0.0)
        return self._share

    def remaining(self, now: float) -> float:
        """Return the seconds that the command may still take."""
        of_phase = self._of_phase(now) if self._at >= 0 else 0.0
        to_come = of_phase + sum(map(self._scaled, self._phases[self._at + 1 :]))
        whole = to_come + sum(map(self._scaled, self._phases[: max(self._at, 0)]))
        whole += now - self._phase_begun if self._at >= 0 else 0.0
        if self._others:
            return to_come + sum(each.expected for other in self._others for each in other)
        return to_come + whole * max((self._targets - self._target) * self._of_parts - self._part, 0)

    def _begin_again(self, now: float) -> None:
        """Expect the phases that are over once more, with the times that they took."""
        self._end(now)
        over = [(each.name, each.took) for each in self._phases if each.took is not None]
        self._phases = [_Phase(name, took, measured=True) for name, took in over] or self._phases
        self._at, self._step, self._fraction, self.round = -1, "", None, 1

    def _enter(self, step: str, now: float) -> None:
        """Go to the next phase of this name; without one add a round, or the phase alone if it is new."""
        self._end(now)
        same = [i for i, phase in enumerate(self._phases) if step.startswith(phase.name)]
        later = [i for i in same if i > self._at]
        if later:
            self._at = later[0]
        elif same and not step.startswith(self._phases[self._at].name):
            self.round += 1
            repeated = self._phases[same[0] :]
            self._at = len(self._phases)
            self._phases += [_Phase(each.name, self._scaled(each), measured=True) for each in repeated]
        elif not same:
            self._at += 1
            self._phases.insert(self._at, _Phase(step, 1.0))
        self._phase_begun = now

    def _end(self, now: float) -> None:
        if self._at >= 0:
            self._phases[self._at].took = now - self._phase_begun

    def _of_phase(self, now: float) -> float:
        """Return the seconds that the present phase may still take."""
        spent = now - self._phase_begun
        if self._fraction and not self._parts:
            return spent * (1 - self._fraction) / self._fraction
        return max(self._scaled(self._phases[self._at]) - spent, 0.0)

    def _scaled(self, phase: _Phase) -> float:
        """Return the seconds that a phase takes on this machine, as far as the phases before tell."""
        if phase.measured or phase.took is not None:
            return phase.expected if phase.took is None else phase.took
        over = [each for each in self._phases[: max(self._at, 0)] if each.took is not None and not each.measured]
        expected = sum(each.expected for each in over)
        pace = sum(each.took or 0.0 for each in over) / expected if expected else 1.0
        return phase.expected * pace
