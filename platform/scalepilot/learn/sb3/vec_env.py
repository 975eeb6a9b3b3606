"""gymnasium's vector environments behind Stable-Baselines3's `VecEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from scalepilot.learn.reward_scale import RewardScale
from scalepilot.learn.watched_envs import WatchedEnvs
from scalepilot.runs.metrics import episode_column
from scalepilot.simulate import as_rows
from scalepilot.simulate.env_notes import EnvNotes
from scalepilot_envs.episode_metrics import EpisodeMeter
from scalepilot_envs.registration import find_env


def make_same_step_env(env_id: str, num_envs: int, arguments: dict[str, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
    """A vector environment that resets in the step in which an episode ends, as Stable-Baselines3 expects."""
    return find_env(env_id).vector_maker()(num_envs=num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **arguments)


class RowsVecEnv(VecEnv):
    """A SAME_STEP vector environment as a `VecEnv` of rows.

    Observations are (num_envs, num_fields) float32 rows, numbered states one column: encoding is the network's work.
    `terminal_observation` is the true last observation, `TimeLimit.truncated` says that it is to be bootstrapped from.

    Args:
        env: the vector environment.
        num_fields: columns of a row.
        seed: of its streams.
        env_id, step_seconds: as `WatchedEnvs` takes them.
        reward_clip: rewards are cut at ± this before learning; None cuts none.
        reward_scale: and then multiplied by this; the episodes' own returns stay as they are.
        size: and divided by this.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        num_fields: int,
        *,
        seed: int,
        reward_clip: float | None,
        reward_scale: float = 1.0,
        size: RewardScale | None = None,
        env_id: str = "",
        step_seconds: float = 300.0,
    ) -> None:
        self.watched = WatchedEnvs(env, env_id, step_seconds)
        self.env, self.reward_clip, self.reward_scale = env, reward_clip, reward_scale
        self.size = size or RewardScale()
        self.render_mode = None
        rows = gym.spaces.Box(-np.inf, np.inf, (num_fields,), np.float32)
        super().__init__(env.num_envs, rows, env.single_action_space)
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """Give the environments new streams at the next reset."""
        self._next_seeds: list[int] | None = [int(s) for s in np.random.SeedSequence(seed).generate_state(self.num_envs)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Stable-Baselines3 seeds with its own; the streams given at the start stay."""
        return [None] * self.num_envs

    def reset(self) -> NDArray[np.float32]:
        """Begin every episode anew."""
        observation = self.watched.reset(self._next_seeds)
        self._next_seeds = None
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        self._ended: list[tuple[float, int]] = []
        self._meter = EpisodeMeter(self.env)
        self._newest = self._rows(observation)
        return self._newest

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step; (observation, reward, ended, infos)."""
        observation, reward, terminated, truncated, info, failed = self.watched.step(self._actions)
        self._returns += reward
        self._lengths += 1
        ended = terminated | truncated
        self._meter.step(info, self._lengths, ended)
        # Nearly all of them are empty and nobody writes to them: one dictionary for all saves num_envs a step.
        infos: list[dict[str, Any]] = [{}] * self.num_envs
        if ended.any():
            final = info["final_obs"]
            for i in np.flatnonzero(ended):
                last = self._rows(np.asarray(final[i])[None])[0]
                infos[i] = {"terminal_observation": last, "TimeLimit.truncated": bool(truncated[i] and not terminated[i])}
                self._ended.append((float(self._returns[i]), int(self._lengths[i])))
            self._returns[ended], self._lengths[ended] = 0.0, 0
        if failed is not None:
            # Stable-Baselines3 cannot leave a step out: a failed one is cut short, worth what was seen before it.
            for i in np.flatnonzero(failed & ~ended):
                infos[i] = {"terminal_observation": self._newest[i], "TimeLimit.truncated": True}
            self._returns[failed], self._lengths[failed] = 0.0, 0
            self._meter.forget(failed)
            ended = ended | failed
        learnt = self._cut(reward)
        learnt = learnt * (self.reward_scale / self.size.update(len(learnt), float(np.square(learnt).sum())))
        self._newest = self._rows(observation)
        return self._newest, learnt.astype(np.float32), ended, infos

    def _cut(self, reward: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.reward_clip is None:
            return reward
        over = np.abs(reward) > self.reward_clip
        if over.any():
            largest = float(np.abs(reward).max())
            self.watched.note(EnvNotes(clipped=int(over.sum()), clipped_at=self.reward_clip, largest_reward=largest))
        return np.clip(reward, -self.reward_clip, self.reward_clip)

    @staticmethod
    def _rows(observation: NDArray[Any]) -> NDArray[np.float32]:
        return as_rows(np.asarray(observation)).astype(np.float32)

    def take_episodes(self) -> dict[str, float]:
        """Mean return and length of the episodes that ended since the last call; empty when none did."""
        ended, self._ended = self._ended, []
        if not ended:
            return {}
        returns, lengths = zip(*ended, strict=True)
        means = {"episode_return_mean": float(np.mean(returns)), "episode_length_mean": float(np.mean(lengths))}
        return means | {episode_column(name): float(values.mean()) for name, values in self._meter.take().items()}

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """One attribute for each of `indices`: a batch has it once."""
        return [getattr(self.env, attr_name, None)] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not possible for some environments of a batch.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("set_attr: the environments of a batch share their attributes")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Not possible for some environments of a batch.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("env_method: the environments of a batch share their methods")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Never: episodes are counted here."""
        return [False] * self._count(indices)

    def _count(self, indices: Any) -> int:
        return len(list(self._get_indices(indices)))
