"""What every policy is: named fields in, a decision out, nothing kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.spec import PolicySpec

State = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Decision:
    """What to do for each of n observations.

    Attributes:
        desired_replicas: (n,) float64 whole numbers; None where the environment has no replicas.
        action: (n,) int64 indices of the action table, or (n, k) float32 numbers in the environment's units; None for rules,
            which command targets.
        scores: (n, num_actions) float32 logits or Q-values; None for rules and continuous actions.
    """

    desired_replicas: NDArray[np.float64] | None = None
    action: NDArray[Any] | None = None
    scores: NDArray[np.float32] | None = None


@runtime_checkable
class Policy(Protocol):
    """A pure function with a description.

    What must be remembered between calls is in `state`: arrays with n as the first axis, plain lists as JSON.
    """

    @property
    def spec(self) -> PolicySpec:
        """Name, version, fields and provenance."""
        ...

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """Decide for a batch.

        Args:
            observation: (n, num_fields) in the order of `spec.observation_fields`, or (n, *shape) images.
            state: what the last call returned; None in the beginning.
            deterministic: the greedy action; otherwise sample with `rng` where the decision rule samples.
            rng: needed unless deterministic.

        Returns:
            The decision and the state for the next call (None where nothing is remembered).
        """
        ...


@runtime_checkable
class Planner(Protocol):
    """A reference that knows the future rates: it plans a whole episode ahead. Never deployable."""

    @property
    def name(self) -> str:
        """Row label in tables."""
        ...

    def plan(self, rates_rps: NDArray[np.float64], replica_capacity_rps: float, startup_steps: int) -> NDArray[np.float64]:
        """Targets (n, num_steps) in replicas for known mean rates (n, num_steps)."""
        ...


def state_to_json(state: State | None) -> dict[str, Any] | None:
    """The state of ONE observation (n = 1) as plain JSON."""
    return None if state is None else {name: column[0].tolist() for name, column in state.items()}


def state_from_json(states: Sequence[Mapping[str, Any] | None]) -> State | None:
    """Stack the JSON states of n observations; None where all are None.

    Raises:
        ValueError: some have a state and some do not, or their shapes differ.
    """
    given = [s for s in states if s is not None]
    if not given:
        return None
    if len(given) != len(states) or any(set(s) != set(given[0]) for s in given):
        raise ValueError("state: give one for every observation, all with the same keys, or none")
    return {name: np.stack([np.asarray(s[name], dtype=np.float64) for s in given]) for name in given[0]}
