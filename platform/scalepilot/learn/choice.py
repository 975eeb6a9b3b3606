"""Which policy a run keeps: the best few of the whole run meet fresh episodes, and so does the average of its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.learn.task import Measured, Task
from scalepilot.learn.trainer import Snapshot
from scalepilot.policy import PolicySpec

# The more candidates, the more of them were lucky, and each is measured once more.
_FINALISTS = 3
# Validations behind the average: with the usual fifty a run, its last tenth.
_AVERAGED = 5


@dataclass(frozen=True)
class Candidate:
    """A policy as it was at a validation.

    Attributes:
        snapshot: the policy.
        measured: what validation said.
        env_steps: where training stood; 0 is the policy that it began with.
    """

    snapshot: Snapshot
    measured: Measured
    env_steps: int


@dataclass
class Finalists:
    """The best few candidates of a run, the policy it began with, and the last ones.

    A single validation chooses the lucky, the more of them the luckier (the winner's curse): who is kept is decided on episodes
    by which nobody was chosen.
    """

    best: list[Candidate] = field(default_factory=list)
    last: list[Candidate] = field(default_factory=list)

    def add(self, candidate: Candidate) -> None:
        """Take part in the choice."""
        ranked = sorted([*self.best, candidate], key=lambda c: c.measured.score)
        first = [c for c in ranked if not c.env_steps]
        self.best = [*first, *(c for c in ranked if c.env_steps)][: _FINALISTS + len(first)]
        self.last = [*self.last, candidate][-_AVERAGED:]

    def choose(self, task: Task, spec: PolicySpec, make: Callable[[], Snapshot]) -> Candidate:
        """The best on fresh episodes; its `measured` is what they said.

        Args:
            task: measures.
            spec: of the policies.
            make: a snapshot to fill with the average.

        Raises:
            EnvironmentFailedError: the episodes cannot be run.
        """
        candidates = list(self.best)
        if len(self.last) == _AVERAGED:
            average = make()
            average.load(mean_arrays([c.snapshot.arrays() for c in self.last]))
            found = Candidate(average, task.measure(average.policy(spec)), self.last[-1].env_steps)
            # Worse than all others where these were chosen: not worth another measurement.
            if found.measured.score < max(c.measured.score for c in candidates):
                candidates.append(found)
        again = [replace(c, measured=task.measure(c.snapshot.policy(spec), again=True)) for c in candidates]
        return min(again, key=lambda c: c.measured.score)


def mean_arrays(several: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Weights averaged by name; of what is counted in whole numbers, the last.

    Source:
        Izmailov et al., "Averaging weights leads to wider optima and better generalization" (UAI 2018).
    """
    return {
        name: np.mean([arrays[name] for arrays in several], axis=0, dtype=np.float64).astype(last.dtype)
        if last.dtype.kind == "f"
        else last
        for name, last in several[-1].items()
    }
