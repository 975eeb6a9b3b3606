"""Q-learning and SARSA(λ) on one table, many environments side by side. Neither Ray nor torch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from scalepilot.config import ExperimentConfig, TabularConfig
from scalepilot.errors import ConfigError, InputError, RunError
from scalepilot.files.stored import read_arrays, read_mapping
from scalepilot.learn.initial_weights import completed
from scalepilot.learn.task import Task
from scalepilot.learn.traces import Traces, apply_errors, step_weights
from scalepilot.learn.watched_envs import WatchedEnvs
from scalepilot.policy import Discretiser, PolicySpec, TablePolicy, env_fields
from scalepilot.runs.metrics import episode_column
from scalepilot.simulate import as_rows
from scalepilot.simulate.env_notes import EnvNotes
from scalepilot_envs.episode_metrics import EpisodeMeter
from scalepilot_envs.registration import find_env

_TABLE, _STATE = "table.npz", "trainer.json"


class TableSnapshot:
    """A copied table."""

    def __init__(self, q: NDArray[np.float64], discretiser: Discretiser) -> None:
        self.q, self.discretiser = q, discretiser

    def policy(self, spec: PolicySpec) -> TablePolicy:
        """The greedy policy."""
        return TablePolicy(spec, self.q, self.discretiser)

    def exported(self, spec: PolicySpec, observations: NDArray[np.float32]) -> TablePolicy:
        """The policy as it is read back from its file.

        Raises:
            RunError: the file decides otherwise.
        """
        policy = self.policy(spec)
        exported = TablePolicy.from_bytes(spec, policy.to_bytes())
        native, stored = policy.act(observations)[0].action, exported.act(observations)[0].action
        assert native is not None
        assert stored is not None
        if not np.array_equal(native, stored):
            raise RunError(
                f"export: table.npz decides otherwise on {int((native != stored).sum())} of {len(native)} observations"
            )
        return exported

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The Q-values."""
        return {"q": self.q}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Q-values back."""
        self.q = np.array(arrays["q"], dtype=np.float64).reshape(self.q.shape)


class TabularTrainer:
    """One table shared by `num_envs` environments.

    Episodes are numbered over all environments as they begin; episode k explores with probability
    max(epsilon_end, epsilon_start · epsilon_decay^k) a step. With one environment this is the textbook's loop.

    Args:
        config: the experiment.
        task: what it trains on.

    Raises:
        ConfigError: a field of `tabular` does not fit the environment.

    Source:
        Watkins (1989); Sutton and Barto, Reinforcement Learning, 2nd ed. (2018), 6.5 and 12.7.
    """

    # SARSA(λ) has them, Q-learning has none.
    has_traces: bool

    def __init__(self, config: ExperimentConfig, task: Task) -> None:
        assert isinstance(config.learning, TabularConfig)
        self.config, self.settings = config, config.learning
        s, fields = self.settings, env_fields(task.description)
        self.num_envs, self.num_actions = s.num_envs, len(task.description.actions)
        self._num_masked = task.description.num_masked
        numbered = task.network_inputs()["num_states"] is not None
        try:
            self.discretiser = Discretiser.of_bins(fields, s.bins, s.edges, self.num_actions, numbered=numbered)
            self.traces = Traces(s.num_envs, s.gamma * s.trace_decay, s.trace_threshold) if self.has_traces else None
        except ValueError as error:
            raise ConfigError(f"tabular.{error}") from None
        env = find_env(task.env_id).vector_maker()(num_envs=s.num_envs, **task.training_arguments())
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode != AutoresetMode.NEXT_STEP:
            raise ConfigError(f"env.id: {config.env.id} resets {mode}; allowed: {AutoresetMode.NEXT_STEP}")
        self.watched = WatchedEnvs(env, config.env.id, config.resources.env_timeout_seconds)
        self._names = [f.name for f in task.description.fields]
        self.q = np.full((self.discretiser.num_states, self.num_actions), s.initial_q)
        self._weights = step_weights(s.alpha, s.num_envs)
        self._rng = np.random.default_rng(np.random.SeedSequence((config.seed, 0)))
        self.iterations = self.episodes_ended = 0
        self._started = False

    @property
    def env(self) -> Any:
        """The vector environment."""
        return self.watched.env

    def _start(self) -> None:
        """Begin an episode in every environment."""
        stream = np.random.SeedSequence((self.config.seed, 1, self.iterations))
        observation = self.watched.reset([int(seed) for seed in stream.generate_state(self.num_envs)])
        self._state, valid = self._seen(observation)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.int64)
        self._meter = EpisodeMeter(self.env)
        self._epsilon = np.zeros(self.num_envs)
        self._episodes_begun = self.episodes_ended
        self._begin_episodes(np.arange(self.num_envs))
        if self.traces is not None:
            self.traces.reset(np.arange(self.num_envs))
        lots, coins = 1.0 - self._rng.random((self.num_envs, self.num_actions)), self._rng.random(self.num_envs)
        self._action = self._chosen(self._state, valid, lots, coins)
        self._started = True

    def _seen(self, observation: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """The states (num_envs,) and the actions (num_envs, num_actions) that are valid in them; None where all are."""
        rows = as_rows(np.asarray(observation))
        return self.discretiser.states(rows), rows[:, -self._num_masked :] > 0.5 if self._num_masked else None

    def _worth(self, state: NDArray[np.int64], valid: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """(num_envs, num_actions) Q-values, −∞ where an action is not valid."""
        return self.q[state] if valid is None else np.where(valid, self.q[state], -np.inf)

    def _begin_episodes(self, rows: NDArray[np.int64]) -> None:
        s = self.settings
        numbers = self._episodes_begun + np.arange(len(rows))
        self._epsilon[rows] = np.maximum(s.epsilon_end, s.epsilon_start * s.epsilon_decay**numbers)
        self._episodes_begun += len(rows)

    def _chosen(
        self,
        state: NDArray[np.int64],
        valid: NDArray[np.bool_] | None,
        lots: NDArray[np.float64],
        coin: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """(num_envs,) ε-greedy valid actions, ties broken by `lots` (num_envs, num_actions): who explores ties all of them."""
        values = self._worth(state, valid)
        candidates = values == values.max(axis=1, keepdims=True)
        candidates |= (coin < self._epsilon)[:, None]
        if valid is not None:
            candidates &= valid
        actions: NDArray[np.int64] = (candidates * lots).argmax(axis=1)
        return actions

    def iterate(self) -> dict[str, float]:
        """`rollout_steps` of every environment, the table updated after each."""
        with self.watched.limited():
            return self._iterated()

    def _iterated(self) -> dict[str, float]:
        if not self._started:
            self._start()
        began, sample_seconds = time.perf_counter(), 0.0
        size, gamma, flat = (self.settings.rollout_steps, self.num_envs), self.settings.gamma, self.q.reshape(-1)
        # From (0, 1]: a lot of 0 would lose to an action that is no candidate.
        lots, coins = 1.0 - self._rng.random((*size, self.num_actions)), self._rng.random(size)
        errors, values, valid = np.zeros(size), np.zeros(size), np.ones(size, dtype=np.bool_)
        ended_returns: list[NDArray[np.float64]] = []
        ended_lengths: list[NDArray[np.int64]] = []
        num_traces, largest_trace = 0, 0.0
        for t in range(size[0]):
            stepping = time.perf_counter()
            observation, reward, terminated, truncated, info, failed = self.watched.step(self._action)
            sample_seconds += time.perf_counter() - stepping
            next_state, valid_next = self._seen(observation)
            if failed is not None:
                # No episode of its own: what it collected is forgotten.
                self._ended |= failed
                self._returns[failed], self._lengths[failed] = 0.0, 0
                self._meter.forget(failed)
            restarted = np.flatnonzero(self._ended)
            if len(restarted):
                # This step only reset them: no transition.
                valid[t, restarted] = False
                self._begin_episodes(restarted)
            entry = self._state * self.num_actions + self._action
            # What the successor is worth: nothing after a terminal step, its own worth where the time was merely up.
            if self.traces is None:
                next_value = self._worth(next_state, valid_next).max(axis=1)
            else:
                next_action = self._chosen(next_state, valid_next, lots[t], coins[t])
                next_value = flat[next_state * self.num_actions + next_action]
            values[t] = flat[entry]
            errors[t] = reward + gamma * np.where(terminated, 0.0, next_value) - values[t]
            errors[t, restarted] = 0.0
            if self.traces is None:
                rows = np.flatnonzero(valid[t]) if len(restarted) else slice(None)
                apply_errors(flat, entry[rows], errors[t, rows], self._weights)
                next_action = self._chosen(next_state, valid_next, lots[t], coins[t])
            else:
                self.traces.visit(entry)
                self.traces.reset(restarted)
                entries, envs, sizes = self.traces.active()
                apply_errors(flat, entries, sizes * errors[t, envs], self._weights)
                num_traces += len(sizes)
                largest_trace = max(largest_trace, float(sizes.max(initial=0.0)))
            self._returns += reward * valid[t]
            self._lengths += valid[t]
            self._ended = terminated | truncated
            self._meter.step(info, self._lengths, self._ended)
            if self._ended.any():
                ended_returns.append(self._returns[self._ended])
                ended_lengths.append(self._lengths[self._ended])
                self._returns[self._ended] = 0.0
                self._lengths[self._ended] = 0
            self._state, self._action = next_state, next_action
        self.iterations += 1
        self.episodes_ended += sum(len(r) for r in ended_returns)
        metrics = {
            "q_loss": float(np.abs(errors).sum() / valid.sum()),
            "q_mean": float((values * valid).sum() / valid.sum()),
            "epsilon": float(self._epsilon.mean()),
            "sample_seconds": sample_seconds,
            "learn_seconds": time.perf_counter() - began - sample_seconds,
        }
        if self.traces is not None:
            metrics |= {"active_traces": num_traces / valid.size, "largest_trace": largest_trace}
        if ended_returns:
            metrics["episode_return_mean"] = float(np.concatenate(ended_returns).mean())
            metrics["episode_length_mean"] = float(np.concatenate(ended_lengths).mean())
            metrics |= {episode_column(name): float(values.mean()) for name, values in self._meter.take().items()}
        return metrics

    def take_notes(self) -> EnvNotes:
        """What was odd about the environments since the last call."""
        return self.watched.take_notes().named(self._names)

    def start_from(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over a policy's Q-values.

        Raises:
            InputError: its table has other states.
        """
        own = {"q": self.q, **{f"edges.{name}": edges for name, edges in self.discretiser.edges.items()}}
        given = completed(weights, own, set(own))
        for name, edges in self.discretiser.edges.items():
            if not np.array_equal(given[f"edges.{name}"], edges):
                raise InputError(f"--init: the policy cuts {name} at other edges than tabular.bins or tabular.edges do")
        self.q[:] = given["q"]

    def snapshot(self) -> TableSnapshot:
        """A copy of the table."""
        return TableSnapshot(self.q.copy(), self.discretiser)

    def save(self, folder: Path) -> None:
        """The table, the random stream and the count of episodes; episodes under way are not kept."""
        folder.mkdir(parents=True)
        np.savez(folder / _TABLE, q=self.q)
        state = {"iterations": self.iterations, "episodes_ended": self.episodes_ended, "rng": self._rng.bit_generator.state}
        (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote; every environment begins a new episode, without traces.

        Raises:
            ValueError: a table of another shape.
        """
        state = read_mapping(folder / _STATE, any_whole=True)
        q = read_arrays(folder / _TABLE)["q"]
        if q.shape != self.q.shape:
            raise ValueError(f"its table is {q.shape}, this configuration's {self.q.shape}")
        self.q[:] = q
        self._rng.bit_generator.state = state["rng"]
        self.iterations, self.episodes_ended = int(state["iterations"]), int(state["episodes_ended"])
        self._started = False

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


class QLearningTrainer(TabularTrainer):
    """Q-learning: the successor is worth its best action."""

    has_traces = False


class SarsaTrainer(TabularTrainer):
    """SARSA(λ): the successor is worth the action that is taken there, and errors reach back along traces."""

    has_traces = True
