"""What a policy costs without a field: live operation shows it a service at rest where nothing measures the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy import Decision, Policy, State
from scalepilot.simulate import run_episodes
from scalepilot.simulate.scenario import Scenario, TrafficEpisodes
from scalepilot_envs.autoscale import values_at_rest


def worse_without(policy: Policy, scenario: Scenario) -> dict[str, float]:
    """Field → by what share the cost of the validation windows rises without it; of the fields that not every service can show.

    Args:
        policy: for Autoscale-v0; of another environment there is nothing to tell.
        scenario: whose validation windows are run.
    """
    validation = scenario.validation.first(scenario.num_validation)
    if not isinstance(validation, TrafficEpisodes):
        return {}
    names = {f.name for f in policy.spec.observation_fields}
    shown = {name: value for name, value in values_at_rest(validation.params).items() if name in names}
    # Side by side, as it is and without each: a batch costs little more than one of them.
    episodes = validation.episodes.repeated(1 + len(shown))
    results, _ = run_episodes(_Without(policy, shown), episodes, validation.params)
    usual, *without = results[scenario.objective.column].reshape(1 + len(shown), -1).mean(axis=1).tolist()
    return {name: round(cost / usual - 1.0, 4) for name, cost in zip(shown, without, strict=True)}


class _Without:
    """A policy on a batch of equal parts: the first is shown as it is, in each of the others one field always has the same value.

    Args:
        policy: who decides.
        shown: field → value, in the order of the parts.
    """

    def __init__(self, policy: Policy, shown: Mapping[str, float]) -> None:
        self.spec, self._policy = policy.spec, policy
        names = [f.name for f in policy.spec.observation_fields]
        self._shown = [(names.index(name), value) for name, value in shown.items()]

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """As the policy decides on what is shown; see `Policy.act`."""
        observation = observation.copy()
        part = len(observation) // (1 + len(self._shown))
        for i, (column, value) in enumerate(self._shown, start=1):
            observation[i * part : (i + 1) * part, column] = value
        return self._policy.act(observation, state, deterministic=deterministic, rng=rng)
