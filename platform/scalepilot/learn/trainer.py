"""What every trainer is, and how its training ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy import Policy, PolicySpec
from scalepilot.simulate.env_notes import EnvNotes

_MAX_REBUILDS_IN_A_ROW = 3


class Snapshot(Protocol):
    """What acts, as it was at one moment of training."""

    def policy(self, spec: PolicySpec) -> Policy:
        """To be validated: greedy, before any export."""
        ...

    def exported(self, spec: PolicySpec, observations: NDArray[np.float32]) -> Policy:
        """To be stored, held to `policy` on real observations.

        Raises:
            RunError: it decides otherwise.
        """
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its weights by name."""
        ...

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `arrays` gave."""
        ...


class Trainer(Protocol):
    """One algorithm in training; it knows nothing of validation, folders or interrupts."""

    def iterate(self) -> dict[str, float]:
        """Sample and learn once; metrics under the documented names."""
        ...

    def take_notes(self) -> EnvNotes:
        """What was odd about the training environments since the last call."""
        ...

    def start_from(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over a policy's weights before training begins.

        Raises:
            InputError: they do not fit.
        """
        ...

    def snapshot(self) -> Snapshot:
        """A copy of what acts."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that resuming needs."""
        ...

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote."""
        ...

    def close(self) -> None:
        """End its processes."""
        ...


@dataclass(frozen=True)
class TrainingOutcome:
    """How training ended.

    Attributes:
        finished: the budget was used up; false when it was stopped early.
        env_steps: transitions sampled.
        best_value: what validation said of the kept policy, on fresh episodes where several competed; None when none was
            validated.
        best_env_steps: where it stood.
        train_seconds: time in training, validation included, without checkpoints and callbacks.
        notes: what was odd about the environment.
    """

    finished: bool
    env_steps: int
    best_value: float | None
    best_env_steps: int
    train_seconds: float
    notes: EnvNotes = field(default_factory=EnvNotes)


@dataclass
class Rebuilds:
    """How often learners were lost: in a row, without getting further, and since the last row of metrics."""

    in_a_row: int = 0
    unlogged: int = 0
    furthest: int = 0

    def allowed(self, iteration: int) -> bool:
        """Count one that became necessary after so many iterations; false where it is one too many."""
        self.in_a_row = 1 if iteration > self.furthest else self.in_a_row + 1
        self.furthest = max(self.furthest, iteration)
        self.unlogged += 1
        return self.in_a_row <= _MAX_REBUILDS_IN_A_ROW

    def take(self) -> int:
        """Those since the last row."""
        taken, self.unlogged = self.unlogged, 0
        return taken


def noted_metrics(noted: EnvNotes) -> dict[str, float]:
    """What was odd in an iteration, under the documented names; nothing where nothing was."""
    most = max((seen.count for seen in noted.outside.values()), default=0)
    shares = {"rewards_clipped_share": noted.clipped, "observations_outside_share": most}
    found = {name: count / max(1, noted.steps) for name, count in shares.items() if count}
    return found | ({"env_failures": float(noted.failures)} if noted.failures else {})


def widened(spec: PolicySpec, notes: EnvNotes) -> PolicySpec:
    """The description with bounds as wide as what was trained on, so that serving accepts the same; provenance says which."""
    if not notes.outside:
        return spec
    entries = [
        replace(entry, low=min(entry.low, seen.lowest), high=max(entry.high, seen.highest))
        if (seen := notes.outside.get(entry.name)) is not None
        else entry
        for entry in spec.observation_fields
    ]
    seen_outside = notes.to_mapping()["outside"]
    return replace(spec, observation_fields=tuple(entries), provenance={**spec.provenance, "observations_outside": seen_outside})
