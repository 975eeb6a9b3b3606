"""How LiveScaling-v0 is made and described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from scalepilot.errors import ScalepilotError
from scalepilot.operate.config import load_operate_config
from scalepilot.operate.live.env import FOLLOWERS, LiveScalingEnv
from scalepilot.operate.live.options import LiveOptions, live_options
from scalepilot.operate.live.outcome import judge_of
from scalepilot.operate.live.system import SYSTEMS, LiveSystem, Opening, live_service
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.entry import EnvEntry
from scalepilot_envs.function_workflow import FunctionWorkflowParams
from scalepilot_envs.registration import find_env
from scalepilot_envs.restarting import RestartingEnv

ENV_ID = "scalepilot.operate.live:LiveScaling-v0"
MAKE = "scalepilot.operate.live.entry:make_env"
# Of an environment that does not say how long an episode is.
_EPISODE_STEPS = 240


class LiveEntry(EnvEntry):
    """The deployment that an operate.yaml names, in place of a simulated environment."""

    is_live: ClassVar[bool] = True

    def describe(self, params: Mapping[str, Any] | None = None, **options: Any) -> EnvDescription:
        """The environment it stands in for, evaluated by its return.

        Raises:
            ValueError: a parameter or an option is not allowed, or that environment has no live counterpart.
        """
        return _described(_checked(options), params)

    def maker(self) -> Callable[..., gym.Env[Any, Any]]:
        """Makes the environment; the deployment is not looked at before its first episode."""
        return make_env

    def vector_maker(self) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
        """Makes a vector of one.

        Raises:
            ValueError: when called: more are asked for.
        """

        def make(
            num_envs: int = 1, autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP, **arguments: Any
        ) -> gym.vector.VectorEnv[Any, Any, Any]:
            if num_envs != 1:
                raise ValueError(f"num_envs: {num_envs} is not allowed; allowed: 1, as there is one deployment")
            single = partial(RestartingEnv, partial(make_env, **arguments), self.env_id)
            return gym.vector.SyncVectorEnv([single], autoreset_mode=autoreset_mode)

        return make

    def step_seconds(self, **arguments: Any) -> float:
        """The interval of the grid."""
        env = make_env(**arguments)
        return env.interval_seconds / env.pace

    def follow(self, told: Callable[[Mapping[str, float], Any], None]) -> Callable[[], None]:
        """As `EnvEntry`."""
        FOLLOWERS.append(told)
        return lambda: FOLLOWERS.remove(told)

    def is_batch_of(self, **arguments: Any) -> bool:
        """Never."""
        return False


def make_env(params: Mapping[str, Any] | None = None, **options: Any) -> LiveScalingEnv:
    """A live environment.

    Args:
        params: of the environment that it stands in for.
        options: see `LiveOptions`.

    Raises:
        ValueError: a parameter or an option is not allowed.
    """
    given = _checked(options)
    description = _described(given, params)
    judge = judge_of(description)
    try:
        config = load_operate_config(Path(given.config))
        service = live_service(config, description, judge.needs)
    except ScalepilotError as error:
        raise ValueError(f"options.config: {error}") from None
    if given.tasks is not None and not isinstance(description.params, FunctionWorkflowParams):
        raise ValueError(f"options.tasks: are not put into {description.env_id}; allowed: with like: FunctionWorkflow-v0")
    opening = Opening(config, service, given, given.episode_steps or description.episode_steps or _EPISODE_STEPS)
    key = (str(Path(given.config).resolve()), repr(given), repr(description.params))

    def take(user: object) -> LiveSystem:
        return SYSTEMS.take(key, user, opening)

    return LiveScalingEnv(
        description,
        judge,
        service.interval_seconds,
        take,
        lambda user: SYSTEMS.leave(key, user),
        episode_steps=opening.episode_steps,
        wait_intervals=given.wait_intervals,
        pace=given.pace,
    )


def _checked(options: Mapping[str, Any]) -> LiveOptions:
    try:
        return live_options(options)
    except ScalepilotError as error:
        raise ValueError(str(error).replace("options: ", "options.", 1)) from None


def _described(options: LiveOptions, params: Mapping[str, Any] | None) -> EnvDescription:
    entry = find_env(options.like)
    if entry.is_live:
        raise ValueError(f"options.like: {options.like} is live itself; allowed: a simulated environment")
    described = entry.describe(params)
    judge_of(described)
    # Its figure is computed from what only the simulator knows; the return says the same.
    return replace(described, judged_by=None, episode_steps=options.episode_steps or described.episode_steps or _EPISODE_STEPS)


ENVS = {ENV_ID: LiveEntry(ENV_ID, MAKE, "", "the deployment of an operate.yaml, an interval a step")}
