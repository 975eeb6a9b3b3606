"""A vector environment in the trainer's own process: signals and time limits reach it, and what is odd is noted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import EnvironmentFailedError
from scalepilot.files.stop import StepLimit, at_once, check_stop
from scalepilot.simulate.env_notes import EnvNotes, SeenRange
from scalepilot_envs.batch_env import BatchVectorEnv, reset_seeded
from scalepilot_envs.restarting import ENV_FAILURE, EnvFailedError, shown_error


class WatchedEnvs:
    """Steps a vector environment for a trainer that has no env runners.

    Args:
        env: the environment; single ones inside are remade where they fail.
        env_id: for messages.
        step_seconds: a step that takes longer hangs.

    Raises:
        EnvironmentFailedError: by `reset` and `step`: it fails again and again, or hangs.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], env_id: str, step_seconds: float) -> None:
        self.env, self.env_id = env, env_id
        # Our own batches neither raise nor wait.
        self._foreign = not isinstance(env.unwrapped, BatchVectorEnv)
        self._seen, self._notes = SeenRange(env.single_observation_space), EnvNotes()
        self._step_seconds = step_seconds
        self._clock: StepLimit | None = None

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Within, steps that hang are given up."""
        if not self._foreign:
            yield
            return
        with StepLimit(self._step_seconds, self._hangs) as clock:
            self._clock = clock
            try:
                yield
            finally:
                self._clock = None

    def _hangs(self) -> Exception:
        limit = f"resources.env_timeout_seconds, {self._step_seconds:g} s"
        return EnvironmentFailedError(f"env {self.env_id}: hangs: a step takes more than {limit}")

    def reset(self, seeds: Sequence[int] | None) -> NDArray[Any]:
        """Begin an episode in every environment, None on the streams they have."""
        with self._stepping():
            observation, info = self.env.reset() if seeds is None else reset_seeded(self.env, seeds)
        self._failed(info)
        return np.asarray(observation)

    def step(self, action: NDArray[Any]) -> tuple[Any, Any, Any, Any, dict[str, Any], NDArray[np.bool_] | None]:
        """What the environment's step returns, and (num_envs,) which failed: their observation begins a new episode."""
        check_stop()
        with self._stepping():
            observation, reward, terminated, truncated, info = self.env.step(action)
        if self._foreign and not np.isfinite(reward).all():
            at = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise EnvironmentFailedError(f"env {self.env_id}: gave the reward {reward[at]}; allowed: finite numbers")
        self._seen.add(np.asarray(observation))
        return observation, reward, terminated, truncated, info, self._failed(info)

    @contextlib.contextmanager
    def _stepping(self) -> Iterator[None]:
        if not self._foreign:
            yield
            return
        if self._clock is not None:
            self._clock.step()
        try:
            with at_once():
                yield
        except EnvFailedError as error:
            raise EnvironmentFailedError(str(error)) from None
        except Exception as error:
            raise EnvironmentFailedError(f"env {self.env_id}: {shown_error(error)}") from error
        finally:
            if self._clock is not None:
                self._clock.pause()

    def _failed(self, info: dict[str, Any]) -> NDArray[np.bool_] | None:
        failed: NDArray[np.bool_] | None = info.get("_" + ENV_FAILURE)
        if failed is not None:
            first = int(np.flatnonzero(failed)[0])
            self._notes += EnvNotes(failures=int(failed.sum()), failure=str(info[ENV_FAILURE][first]))
        return failed

    def note(self, noted: EnvNotes) -> None:
        """Something odd."""
        self._notes += noted

    def take_notes(self) -> EnvNotes:
        """What was odd since the last call."""
        taken, self._notes = self._notes + self._seen.take(), EnvNotes()
        return taken
