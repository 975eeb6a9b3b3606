"""What episodes would return at best, for environments whose chance can be known in advance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.policy import Decision
from scalepilot.simulate.executor import Executor
from scalepilot.simulate.optimum.queue_scaling import queue_scaling_optimum
from scalepilot.simulate.optimum.resource_manager import resource_manager_optimum
from scalepilot.simulate.scenario import SeededEpisodes
from scalepilot_envs import grid_world, queue_scaling, resource_manager
from scalepilot_envs.registration import find_env

Array = NDArray[np.float64]
Actions = NDArray[np.int64]


@dataclass(frozen=True)
class PlannedActions:
    """The best sequence of actions of each episode: an `Actor` for the episodes it was made for.

    Attributes:
        name: row label in tables.
        returns: (n,) no policy returns more.
        actions: (n, num_steps) that reach them.
    """

    name: str
    returns: Array
    actions: Actions

    def act(self, observation: NDArray[Any], state: Any = None, **_: Any) -> tuple[Decision, Any]:
        """The planned actions of the next step."""
        step = 0 if state is None else int(state)
        return Decision(action=self.actions[:, min(step, self.actions.shape[1] - 1)]), step + 1


@dataclass(frozen=True)
class _Job:
    """One series to plan for."""

    series: Array
    params: Any
    plan: Callable[[Array, Any], tuple[float, Actions]]

    def __str__(self) -> str:
        return "the clairvoyant optimum"


def known_optimum(episodes: SeededEpisodes, executor: Executor) -> PlannedActions | None:
    """The optimum of each episode.

    Args:
        episodes: of any environment.
        executor: plans them, each different series once.

    Returns:
        None where none is known: of this environment, or of these episodes.
    """
    entry = find_env(episodes.env_id)
    if entry.env_id not in _PLANS:
        return None
    env = entry.describe(**episodes.arguments)
    series_of, plan = _PLANS[entry.env_id]
    series = series_of(episodes, int(env.most_steps(episodes.arguments)))
    if series is None:
        return None
    different, which = np.unique(series, axis=0, return_inverse=True)
    planned: dict[int, tuple[float, Actions]] = {}
    try:
        for i, found in executor.run(_planned, [_Job(row, env.params, plan) for row in different]):
            planned[i] = found
    except InputError:
        return None
    which = which.reshape(-1)
    return PlannedActions("optimum", np.array([planned[int(i)][0] for i in which]), np.array([planned[int(i)][1] for i in which]))


def _planned(job: _Job) -> tuple[float, Actions]:
    return job.plan(job.series, job.params)


def _reported(episodes: SeededEpisodes, steps: int, column: str, action: int) -> Array | None:
    """(n, steps) what the environment reports of its chance, whatever is done; None where an episode ends early."""
    arguments: Mapping[str, Any] = episodes.arguments
    envs: Any = find_env(episodes.env_id).vector_maker()(num_envs=len(episodes), **arguments)
    try:
        envs.reset(seed=episodes.first_seed)
        found = np.empty((len(episodes), steps))
        for t in range(steps):
            _, _, terminated, _, info = envs.step(np.full(len(episodes), action))
            found[:, t] = info[column]
            if terminated.any():
                return None
    finally:
        envs.close()
    return found


def _influx(episodes: SeededEpisodes, steps: int) -> Array | None:
    # Always one instance more: where that queue overflows, no plan has a hope either.
    return _reported(episodes, steps, "influx_requests", action=2)


def _plan_queue(influx: Array, p: queue_scaling.QueueScalingParams) -> tuple[float, Actions]:
    return queue_scaling_optimum(
        np.concatenate([[0], influx.astype(np.int64)]),
        capacity=p.capacity_requests,
        min_instances=p.min_instances,
        max_instances=p.max_instances,
        start_instances=p.start_instances,
        bound_penalty=p.refused_penalty,
    )


def _rates(episodes: SeededEpisodes, steps: int) -> Array | None:
    return _reported(episodes, steps, "request_rate", action=0)


def _plan_instances(rates: Array, p: resource_manager.ResourceManagerParams) -> tuple[float, Actions]:
    # The rate after the last step earns nothing.
    returns, actions = resource_manager_optimum(np.append(rates, rates[-1])[None], p)
    return float(returns[0]), actions[0]


def _no_chance(episodes: SeededEpisodes, steps: int) -> Array | None:
    return np.zeros((len(episodes), steps))


def _plan_walk(series: Array, p: grid_world.GridWorldParams) -> tuple[float, Actions]:
    """Backward induction over the cells."""
    there, reward = grid_world.transitions(p)
    value, choice = np.zeros(grid_world.NUM_CELLS), []
    for _ in series:
        by_action = reward + np.where(there == grid_world.GOAL, 0.0, value[there])
        choice.append(by_action.argmax(axis=1))
        value = by_action.max(axis=1)
    cell, actions = grid_world.START, []
    for best in reversed(choice):
        actions.append(int(best[cell]))
        cell = int(there[cell, actions[-1]])
    return float(value[grid_world.START]), np.array(actions)


_PLANS: dict[str, tuple[Callable[[SeededEpisodes, int], Array | None], Callable[[Array, Any], tuple[float, Actions]]]] = {
    queue_scaling.ENV_ID: (_influx, _plan_queue),
    resource_manager.ENV_ID: (_rates, _plan_instances),
    grid_world.ENV_ID: (_no_chance, _plan_walk),
}
