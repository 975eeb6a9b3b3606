"""An env runner that steps a native vector environment and returns columns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import ENV_CREATOR, _global_registry

from scalepilot.config import PPOConfig
from scalepilot.errors import ConfigError, EnvironmentFailedError
from scalepilot.files.stop import check_stop
from scalepilot.learn.rllib.counterfactuals import Tried, try_every_action
from scalepilot.learn.rllib.distributions import distribution_of
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot.learn.rllib.settings import learning_of
from scalepilot.simulate.env_notes import EnvNotes, SeenRange
from scalepilot_envs.batch_env import reset_seeded
from scalepilot_envs.episode_metrics import EpisodeMeter
from scalepilot_envs.restarting import ENV_FAILURE, EnvFailedError, shown_error

_ACTION_STREAM = 1
_FAILURES_IN_A_ROW = 10
ENV_FAILURES = "env_failures"
# Sums over the episodes that ended, by metric; the driver divides by their number, over all runners.
EPISODE_SUMS, EPISODE_COUNT = "episode_sums", "count"


def _spawned(stream: np.random.SeedSequence) -> Iterator[np.random.SeedSequence]:
    """The stream itself, then streams of its own for environments made anew."""
    yield stream
    while True:
        yield stream.spawn(1)[0]


class VectorEnvRunner(SingleAgentEnvRunner):
    """Samples `rollout_fragment_length` steps of all its environments into one `Rollout`.

    RLlib's runner builds an episode object a step and environment, which costs nine tenths of its time; this one keeps
    its actor, its fault tolerance, its weight synchronisation and its metrics, and replaces the loop.
    """

    env: Any

    def make_env(self) -> None:
        """Make the native vector environment from Ray's registry, or from gymnasium's by id.

        Raises:
            ConfigError: the environment does not reset itself.
        """
        if self.env is not None:
            # One that has failed may do so again.
            with contextlib.suppress(Exception):
                self.env.close()
        config = self.config
        context = EnvContext(config.env_config, worker_index=self.worker_index or 0, num_workers=self.num_workers)
        num_envs = config.num_envs_per_env_runner
        if isinstance(config.env, str) and not _global_registry.contains(ENV_CREATOR, config.env):
            mode = gym.VectorizeMode(config.gym_env_vectorize_mode)
            self.env = gym.make_vec(config.env, num_envs=num_envs, vectorization_mode=mode, **config.env_config)
        else:
            create = _global_registry.get(ENV_CREATOR, config.env) if isinstance(config.env, str) else config.env
            self.env = create(EnvContext({**context, "num_envs": num_envs}, worker_index=context.worker_index))
        autoreset = AutoresetMode(self.env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        if autoreset is AutoresetMode.DISABLED:
            raise ConfigError(f"env {config.env}: autoreset_mode {autoreset.value} is not allowed; allowed: NextStep, SameStep")
        self._same_step = autoreset is AutoresetMode.SAME_STEP
        self.num_envs = self.env.num_envs
        self._distribution = distribution_of(self.env.single_action_space)
        self._needs_initial_reset = True
        self._seen = SeenRange(self.env.single_observation_space)

    @property
    def envs_per_input(self) -> int:
        """Environments that meet the same traffic."""
        return learning_of(self.config, PPOConfig).envs_per_input

    def _start(self) -> None:
        # seed + worker index would give runner 1's second environment the stream of runner 2's first. A runner that starts
        # later, after a failure or a resumption, has weights of later: it must not see the same traffic again.
        entropy = (self.config.seed or 0, self.worker_index or 0, self._weights_seq_no)
        streams = np.random.SeedSequence(entropy).spawn(2)
        # Environments with the same seed meet the same traffic, whatever they do: the learner compares them.
        group = self.envs_per_input
        self._env_seeds = (np.repeat(s.generate_state(self.num_envs // group), group) for s in _spawned(streams[0]))
        self._generator = torch.Generator().manual_seed(int(streams[_ACTION_STREAM].generate_state(1)[0]))
        self._failures_in_a_row = self._failures = 0
        self._notes = EnvNotes()
        try:
            self._observation = self._reset()
        except Exception as error:  # noqa: BLE001 - an environment may raise anything
            self._observation = self._made_anew(error)
        self._resets = np.zeros(self.num_envs, np.bool_)
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        self._meter = EpisodeMeter(self.env)
        self._needs_initial_reset = False

    def _reset(self) -> np.ndarray:
        observation, info = reset_seeded(self.env, [int(seed) for seed in next(self._env_seeds)])
        self._note_failures(info)
        return np.asarray(observation)

    def _note_failures(self, info: dict[str, Any]) -> NDArray[np.bool_] | None:
        """(num_envs,) which environments failed and were remade; None where none did."""
        failed: NDArray[np.bool_] | None = info.get("_" + ENV_FAILURE)
        if failed is None:
            return None
        count, first = int(failed.sum()), int(np.flatnonzero(failed)[0])
        self._failures += count
        self._notes += EnvNotes(failures=count, failure=str(info[ENV_FAILURE][first]))
        return failed

    def take_notes(self) -> EnvNotes:
        """What was odd about the environments since the last call."""
        taken, self._notes = self._notes + self._seen.take(), EnvNotes()
        return taken

    def _made_anew(self, error: Exception) -> np.ndarray:
        """The first observations of all environments, made anew because one raised.

        Raises:
            EnvironmentFailedError: too many times in a row.
        """
        while True:
            if isinstance(error, EnvFailedError):
                raise EnvironmentFailedError(str(error)) from None
            self._failures += 1
            self._failures_in_a_row += 1
            said = f"env {self.config.env}: {shown_error(error)}"
            self._notes += EnvNotes(failures=1, failure=said)
            if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
                raise EnvironmentFailedError(f"{said}; {self._failures_in_a_row} failures without a good step in between")
            try:
                self.make_env()
                observation = self._reset()
            except Exception as again:  # noqa: BLE001
                error = again
                continue
            self._needs_initial_reset = False
            return observation

    def _step(self, rollout: Rollout, t: int) -> dict[str, Any]:
        """Take step t of all environments; a failed one begins a new episode, and what came before it stays right.

        A failed step is none: not valid, and followed by a reset's observation. The step before is cut: truncated, its value
        bootstrapped from the observation it led to. At t = 0 that step was handed over already, whole; the observation here is
        the new episode's, so that nothing goes on across.

        Returns:
            The vector environment's info.
        """
        info: dict[str, Any] = {}
        try:
            step = self.env.step(self._distribution.to_env(rollout.action[t]))
            self._observation, reward, terminated, truncated, info = step
        except Exception as error:  # noqa: BLE001
            self._observation = self._made_anew(error)
            failed = np.ones(self.num_envs, np.bool_)
            rollout.reward[t], rollout.terminated[t], rollout.truncated[t] = 0.0, False, False
        else:
            self._failures_in_a_row = 0
            rollout.reward[t], rollout.terminated[t], rollout.truncated[t] = reward, terminated, truncated
            found = self._note_failures(info)
            if found is None:
                return info
            failed = found
        rollout.valid[t, failed] = False
        if t:
            rollout.truncated[t - 1, failed] |= rollout.valid[t - 1, failed] & ~rollout.terminated[t - 1, failed]
        else:
            rollout.observation[0, failed] = self._observation[failed]
        self._returns[failed], self._lengths[failed] = 0.0, 0
        self._meter.forget(failed)
        return info

    def _prepare_actions(self, num_steps: int, **kwargs: Any) -> Rollout:
        """An empty rollout; everything random that its actions need is drawn at once."""
        self._noise = self._distribution.noise(num_steps, self.num_envs, self._generator)
        return Rollout.empty(num_steps, self._observation, self.env.single_action_space, self._distribution.num_inputs)

    def _choose_actions(self, rollout: Rollout, t: int, outputs: torch.Tensor) -> None:
        """Fill the actions of step t from the network's outputs (num_envs, num_inputs of the distribution)."""
        assert rollout.action_dist_inputs is not None
        rollout.action_dist_inputs[t] = outputs.numpy()
        rollout.action[t] = self._distribution.draw(outputs, self._noise[t]).numpy()

    def _describe_actions(self, rollout: Rollout) -> None:
        """Fill what is computed from all actions together."""
        assert rollout.action_dist_inputs is not None
        assert rollout.action_logp is not None
        inputs, action = torch.from_numpy(rollout.action_dist_inputs), torch.from_numpy(rollout.action)
        rollout.action_logp[:] = self._distribution.judge(inputs, action)[0].numpy()

    def _outputs(self, observation: NDArray[Any]) -> torch.Tensor:
        outputs: torch.Tensor = self.module._forward({Columns.OBS: torch.from_numpy(observation)})[Columns.ACTION_DIST_INPUTS]
        return outputs

    @property
    def _every(self) -> int | None:
        """Steps between two moments at which every action is tried; None for never."""
        return learning_of(self.config, PPOConfig).counterfactual_every

    def _try_every_action(self) -> Tried:
        """What would come of every action now; copies of one environment meet the same traffic and draw with the same noise."""
        ppo, num_actions = learning_of(self.config, PPOConfig), self._distribution.num_inputs
        noise = self._distribution.noise(ppo.counterfactual_steps, self.num_envs, self._generator)

        def follow(observation: NDArray[Any], step: int) -> NDArray[Any]:
            shared = noise[step].repeat_interleave(num_actions, dim=0)
            return self._distribution.draw(self._outputs(observation), shared).numpy()

        clip = np.inf if ppo.reward_clip is None else ppo.reward_clip
        batch = self.env.unwrapped.batch
        return try_every_action(batch, num_actions, follow, num_steps=ppo.counterfactual_steps, gamma=ppo.gamma, reward_clip=clip)

    def sample(self, **kwargs: Any) -> Rollout:
        """Step every environment `rollout_fragment_length` times with the exploring policy.

        Args:
            **kwargs: what exploration needs to know, such as `epsilon`.
        """
        if self._needs_initial_reset:
            self._start()
        num_steps = self.config.get_rollout_fragment_length(self.worker_index)
        rollout = self._prepare_actions(num_steps, **kwargs)
        ended_returns: list[np.ndarray] = []
        ended_lengths: list[np.ndarray] = []
        finals: list[tuple[int, NDArray[np.intp], NDArray[Any]]] = []
        tried: dict[int, Tried] = {}
        with torch.inference_mode():
            for t in range(num_steps):
                check_stop()
                rollout.observation[t] = self._observation
                rollout.valid[t] = ~self._resets
                self._choose_actions(rollout, t, self._outputs(rollout.observation[t]))
                if self._every and t % self._every == 0:
                    tried[t] = self._try_every_action()
                info = self._step(rollout, t)
                self._returns += rollout.reward[t] * rollout.valid[t]
                self._lengths += rollout.valid[t]
                ended = rollout.terminated[t] | rollout.truncated[t]
                self._meter.step(info, self._lengths, ended)
                if ended.any():
                    ended_returns.append(self._returns[ended])
                    ended_lengths.append(self._lengths[ended])
                    self._returns = np.where(ended, 0.0, self._returns)
                    self._lengths = np.where(ended, 0, self._lengths)
                    if self._same_step:
                        finals.append((t, ended.nonzero()[0], info["final_obs"][ended]))
                self._resets = np.zeros_like(ended) if self._same_step else ended
            self._describe_actions(rollout)
        if finals:
            rollout.add_finals(finals)
        if tried:
            rollout.add_tried(tried)
        rollout.observation[num_steps] = self._observation
        self._look_at(rollout)
        self._log(rollout, ended_returns, ended_lengths)
        return rollout

    def _look_at(self, rollout: Rollout) -> None:
        """Follow where observations lie.

        Raises:
            EnvironmentFailedError: a native vector environment gave what is no number; others are looked at step by step.
        """
        for what, column in (("reward", rollout.reward), ("observation", rollout.observation)):
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                t, env = (int(axis[0]) for axis in np.nonzero(~np.isfinite(column))[:2])
                value = column[t, env] if column.ndim == 2 else column[t, env][~np.isfinite(column[t, env])][0]
                raise EnvironmentFailedError(
                    f"env {self.config.env}: step {t} of the rollout in environment {env} gave the {what} {value}; allowed:"
                    " finite numbers"
                )
        self._seen.add(rollout.observation[:-1])

    def _log(self, rollout: Rollout, returns: list[np.ndarray], lengths: list[np.ndarray]) -> None:
        if returns:
            all_returns, all_lengths = np.concatenate(returns), np.concatenate(lengths)
            self._log_episode_metrics(float(all_lengths.mean()), float(all_returns.mean()), 0.0)
            ended = {"return": all_returns, "length": all_lengths, **self._meter.take()}
            sums = {EPISODE_COUNT: float(len(all_returns)), **{name: float(values.sum()) for name, values in ended.items()}}
            for name, total in sums.items():
                self.metrics.log_value((EPISODE_SUMS, name), total, reduce="sum")
        self.metrics.log_value(ENV_FAILURES, self._failures, reduce="sum")
        self._failures = 0
        self._increase_sampled_metrics(rollout.num_steps * rollout.num_envs, sum(len(r) for r in returns))

    def get_metrics(self) -> Any:
        """What was logged since the last call."""
        return self.metrics.reduce()

    def assert_healthy(self) -> None:
        """Checked by RLlib after a restart."""
        if self.env is None:
            raise RuntimeError("env runner: has no environment")
