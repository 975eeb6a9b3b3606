"""What a policy costs without a field: live operation shows it a service at rest where nothing measures the field."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from scalepilot.policy import Policy, Shown
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
    names = [f.name for f in policy.spec.observation_fields]
    shown = {name: value for name, value in values_at_rest(validation.params).items() if name in names}
    columns = [names.index(name) for name in shown]

    def show(observation: NDArray[Any]) -> NDArray[Any]:
        """The batch in equal parts: the first unchanged, each other with one field at its resting value."""
        parts = observation.reshape(1 + len(shown), -1, observation.shape[1]).copy()
        for part, column, value in zip(parts[1:], columns, shown.values(), strict=True):
            part[:, column] = value
        return parts.reshape(observation.shape)

    # Side by side, as it is and without each: a batch costs little more than one of them.
    episodes = validation.episodes.repeated(1 + len(shown))
    results, _ = run_episodes(Shown(policy, show), episodes, validation.params)
    usual, *without = results[scenario.objective.column].reshape(1 + len(shown), -1).mean(axis=1).tolist()
    # Where it costs nothing as it is, any cost is too much.
    worse = [cost / usual - 1.0 if usual > 0 else float(cost > 0) for cost in without]
    return {name: round(share, 4) for name, share in zip(shown, worse, strict=True)}
