"""One way to run episodes of any environment: each whole, from its own seed, whatever fails on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import EnvironmentFailedError
from scalepilot.files.stop import StepLimit, at_once
from scalepilot.policy import Decision, Policy
from scalepilot.simulate.env_notes import EnvNotes, SeenRange
from scalepilot.simulate.episodes import EpisodeResults
from scalepilot.simulate.step_log import StepRecorder
from scalepilot_envs.foreign import ForeignEntry
from scalepilot_envs.objective import LAST_PREFIX
from scalepilot_envs.registration import EnvEntry, find_env
from scalepilot_envs.restarting import CheckedEnv, StepError, derived_seed, shown_error

Array = NDArray[np.float64]
# Where no episode was ever completed, so many attempts and failures are enough to give up; where no step was, so many attempts.
_HOPELESS_ATTEMPTS, _HOPELESS_FAILURES, _BAD_ATTEMPTS = 5, 25, 3


@dataclass(frozen=True)
class EpisodeLimits:
    """What is given up.

    Attributes:
        max_steps: of an episode of an environment that declares no limit of its own.
        step_seconds: of one step of all environments.
        attempts: at one episode.
    """

    max_steps: int = 10_000
    step_seconds: float = 300.0
    attempts: int = 50


def as_rows(observation: NDArray[Any]) -> NDArray[Any]:
    """(n, num_fields): numbered states (n,) become one column, more than two dimensions are kept."""
    return observation[:, None] if observation.ndim == 1 else observation


@dataclass
class Stepped:
    """What one step of several environments brought, each (n,).

    Attributes:
        reward: 0 where it failed.
        ended: the episode is over.
        failed: environment → what failed; its episode is over without a result.
        info: columns of numbers.
    """

    reward: Array
    ended: NDArray[np.bool_]
    failed: dict[int, str]
    info: dict[str, NDArray[Any]]


class Actor(Protocol):
    """Decides for episodes side by side: a policy, or a plan made with what no policy knows."""

    def act(
        self, observation: NDArray[Any], state: Any = None, *, rng: np.random.Generator | None = None
    ) -> tuple[Decision, Any]:
        """Decisions (n, …) for observations (n, …), and what to hand over at the next step."""
        ...


class Envs(Protocol):
    """Environments side by side, each through one episode."""

    observation: NDArray[Any]
    space: gym.Space[Any]

    def reset(self, seeds: Sequence[int]) -> dict[int, str]:
        """Begin; environment → what failed."""
        ...

    def step(self, decision: Decision, running: NDArray[np.bool_]) -> Stepped:
        """Step those that are `running` (n,)."""
        ...

    def close(self) -> None:
        """Let them go."""
        ...


def make_envs(entry: EnvEntry, num_envs: int, arguments: Mapping[str, Any]) -> Envs:
    """Environments side by side: a native batch, or one by one.

    Args:
        entry: of the environment.
        num_envs: how many.
        arguments: what they are made with.
    """
    batch = entry.is_batch_of(**arguments)
    return _Batch(entry, num_envs, arguments) if batch else _OneByOne(entry, num_envs, arguments)


class _Batch:
    """A native vector environment; where it fails all fail."""

    def __init__(self, entry: EnvEntry, num_envs: int, arguments: Mapping[str, Any]) -> None:
        self._envs: Any = entry.vector_maker()(num_envs=num_envs, **arguments)
        self.space, self._id, self._num_envs = self._envs.single_observation_space, entry.env_id, num_envs

    def _all(self, error: Exception) -> dict[int, str]:
        return dict.fromkeys(range(self._num_envs), f"env {self._id}: {shown_error(error)}")

    def reset(self, seeds: Sequence[int]) -> dict[int, str]:
        # Native ones of others take a single seed.
        begun = all(seed == seeds[0] + i for i, seed in enumerate(seeds))
        try:
            self.observation = self._envs.reset(seed=seeds[0] if begun else list(seeds))[0]
        except Exception as error:  # noqa: BLE001 - an environment may raise anything
            return self._all(error)
        return {}

    def step(self, decision: Decision, running: NDArray[np.bool_]) -> Stepped:
        envs, failed = self._envs, dict[int, str]()
        try:
            step = envs.step(decision.action) if decision.action is not None else envs.step_targets(decision.desired_replicas)
            self.observation, reward, terminated, truncated, info = step
            if not (np.isfinite(reward) | ~running).all():
                for i in np.flatnonzero(~np.isfinite(reward) & running).tolist():
                    failed[i] = f"env {self._id}: gave the reward {reward[i]}; allowed: finite numbers"
        except Exception as error:  # noqa: BLE001
            zeros = np.zeros(self._num_envs)
            return Stepped(zeros, zeros.astype(np.bool_), self._all(error), {})
        columns = {
            name: column
            for name, column in info.items()
            if not name.startswith("_") and isinstance(column, np.ndarray) and column.dtype.kind in "fiub" and column.ndim == 1
        }
        return Stepped(reward, terminated | truncated, failed, columns)

    def close(self) -> None:
        self._envs.close()


class _OneByOne:
    """Single environments; those whose episode is over are not stepped any more."""

    def __init__(self, entry: EnvEntry, num_envs: int, arguments: Mapping[str, Any]) -> None:
        self._entry, self._arguments = entry, dict(arguments)
        self._envs: list[CheckedEnv | None] = [None] * num_envs
        self._problems: dict[int, str] = {}
        for i in range(num_envs):
            try:
                self._envs[i] = CheckedEnv(entry.maker()(**self._arguments), entry.env_id)
            except Exception as error:  # noqa: BLE001 - a constructor may raise anything
                self._problems[i] = f"env {entry.env_id}: its constructor {shown_error(error)}"
        made = next((env for env in self._envs if env is not None), None)
        self.space: gym.Space[Any] = gym.spaces.Discrete(1) if made is None else made.observation_space
        if isinstance(self.space, gym.spaces.Box):
            self.observation = np.zeros((num_envs, *self.space.shape), self.space.dtype)
        else:
            self.observation = np.zeros(num_envs, np.int64)

    def reset(self, seeds: Sequence[int]) -> dict[int, str]:
        failed = dict(self._problems)
        for i, (env, seed) in enumerate(zip(self._envs, seeds, strict=True)):
            if env is not None:
                try:
                    self.observation[i] = env.reset(seed=seed)[0]
                except StepError as error:
                    failed[i] = str(error)
        return failed

    def step(self, decision: Decision, running: NDArray[np.bool_]) -> Stepped:
        n = len(self._envs)
        stepped = Stepped(np.zeros(n), np.zeros(n, np.bool_), {}, {})
        # The policy keeps what it was given.
        self.observation = self.observation.copy()
        for i in np.flatnonzero(running).tolist():
            env = self._envs[i]
            assert env is not None
            try:
                if decision.action is None:
                    assert decision.desired_replicas is not None
                    answer = env.step_targets(float(decision.desired_replicas[i]))
                else:
                    answer = env.step(decision.action[i])
            except StepError as error:
                stepped.failed[i] = str(error)
                continue
            self.observation[i], stepped.reward[i], terminated, truncated, info = answer
            stepped.ended[i] = terminated or truncated
            for name, value in info.items():
                if isinstance(value, bool | int | float | np.number | np.bool_):
                    stepped.info.setdefault(name, np.zeros(n))[i] = value
        return stepped

    def close(self) -> None:
        for env in self._envs:
            if env is not None:
                with contextlib.suppress(Exception):
                    env.close()  # type: ignore[no-untyped-call]


class EpisodeRunner:
    """Runs episodes; those that fail are discarded, counted and run again.

    Args:
        env_id: of the environment.
        arguments: what it is made with.
        limits: what is given up.
        log: keeps every step of the episodes that count.
    """

    def __init__(self, env_id: str, arguments: Mapping[str, Any], limits: EpisodeLimits, log: StepRecorder | None = None) -> None:
        self.entry, self.arguments, self.limits, self.log = find_env(env_id), arguments, limits, log
        self._foreign = isinstance(self.entry, ForeignEntry)
        self.max_steps = limits.max_steps
        if not isinstance(self.entry, ForeignEntry):
            # Ours end by themselves; how long they last is their own setting.
            self.max_steps = 10_000_000
        elif (declared := arguments.get("max_episode_steps") or self.entry.spec.max_episode_steps) is not None:
            self.max_steps = max(self.max_steps, int(declared))
        # Of what is live there is one.
        self._side_by_side = 1 if self.entry.is_live else None
        self.notes = EnvNotes()
        # Attempts in a row without one good step.
        self._bad = 0

    def run(self, policy: Actor, num_episodes: int, first_seed: int) -> EpisodeResults:
        """See `run_returns`."""
        numbers = np.arange(num_episodes)
        returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, dtype=np.int64)
        info: dict[str, Array] = {}
        waiting, attempt = np.arange(num_episodes), 0
        with at_once(), StepLimit(self.limits.step_seconds, self._hangs) as clock:
            while len(waiting):
                # Once more what was asked for: a backend that was away may be back. Then what follows from it.
                given = [seed if attempt < 2 else derived_seed(seed, attempt) or 0 for seed in (first_seed + waiting).tolist()]
                rng = np.random.default_rng(first_seed if attempt == 0 else (first_seed, attempt))
                if self.entry.is_live:
                    rng = np.random.default_rng((first_seed, attempt, len(waiting)))
                now = waiting[: self._side_by_side]
                done, round_returns, round_lengths, round_info = self._round(policy, given[: len(now)], rng, clock)
                at = now[done]
                if self.log is not None:
                    self.log.keep(done, at, first_seed + at)
                returns[at], lengths[at] = round_returns[done], round_lengths[done]
                for name, column in round_info.items():
                    info.setdefault(name, np.zeros(num_episodes))[at] = column[done]
                waiting = np.concatenate([now[~done], waiting[len(now) :]])
                attempt += not done.all() or len(now) == len(given)
                self._check_hope(attempt, num_episodes, len(waiting))
        columns = {"return": returns, "length": lengths.astype(np.float64), **info}
        return EpisodeResults(numbers, first_seed + numbers, columns, self.notes)

    def _round(
        self, policy: Actor, seeds: list[int], rng: np.random.Generator, clock: StepLimit
    ) -> tuple[NDArray[np.bool_], Array, NDArray[np.int64], dict[str, Array]]:
        """One attempt at some episodes: which were completed, and their columns."""
        n = len(seeds)
        clock.step()
        envs = make_envs(self.entry, n, self.arguments)
        seen = SeenRange(envs.space) if self._foreign else None
        running, failed = np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        returns, lengths = np.zeros(n), np.zeros(n, dtype=np.int64)
        sums: dict[str, Array] = {}
        last: dict[str, Array] = {}
        state = None
        try:
            self._discard(envs.reset(seeds), running, failed)
            self._bad += 1
            while running.any():
                if int(lengths.max()) >= self.max_steps:
                    raise EnvironmentFailedError(
                        f"env {self.entry.env_id}: an episode has not ended after {self.max_steps} steps; let it end, set"
                        " env.options.max_episode_steps to truncate it, or raise evaluation.max_episode_steps"
                    )
                if seen is not None:
                    seen.add(as_rows(envs.observation[running]))
                decision, state = policy.act(as_rows(envs.observation), state, rng=rng)
                clock.step()
                step = envs.step(decision, running)
                if self.log is not None:
                    self.log.add(decision, step.reward, step.info, running)
                self._discard(step.failed, running, failed)
                self._bad = 0 if running.any() else self._bad
                returns += np.where(running, step.reward, 0.0)
                lengths += running
                for name, column in step.info.items():
                    sums[name] = sums.get(name, np.zeros(n)) + np.where(running, column, 0.0)
                    last[name] = np.where(running, column, last.get(name, 0.0))
                running &= ~step.ended
        finally:
            clock.pause()
            envs.close()
            if seen is not None and isinstance(policy, Policy):
                self.notes += seen.take().named([f.name for f in policy.spec.observation_fields])
        columns = {name: total / np.maximum(lengths, 1) for name, total in sums.items()}
        columns |= {f"{LAST_PREFIX}{name}": values for name, values in last.items()}
        return ~failed, returns, lengths, columns

    def _discard(self, problems: Mapping[int, str], running: NDArray[np.bool_], failed: NDArray[np.bool_]) -> None:
        """Take failed episodes out, and count them."""
        problems = {i: problem for i, problem in problems.items() if running[i]}
        for i, problem in problems.items():
            running[i], failed[i] = False, True
            self.notes += EnvNotes(failures=1, failure=problem)

    def _check_hope(self, attempts: int, num_episodes: int, missing: int) -> None:
        """Give up where trying on is of no use.

        Raises:
            EnvironmentFailedError: naming the environment and what fails.
        """
        # A single episode may begin badly by chance.
        bad = self._bad >= _BAD_ATTEMPTS and (missing > _BAD_ATTEMPTS or self._bad > 2 * _BAD_ATTEMPTS)
        hopeless = attempts >= _HOPELESS_ATTEMPTS and missing == num_episodes and self.notes.failures >= _HOPELESS_FAILURES
        if missing and (attempts >= self.limits.attempts or bad or hopeless):
            done = f"{num_episodes - missing} of {num_episodes} episodes completed"
            raise EnvironmentFailedError(f"{self.notes.failure}; {self.notes.failures} failures, {done}")

    def _hangs(self) -> Exception:
        limit = f"resources.env_timeout_seconds, {self.limits.step_seconds:g} s"
        return EnvironmentFailedError(f"env {self.entry.env_id}: hangs: a step takes more than {limit}")


def run_returns(
    policy: Actor,
    env_id: str,
    num_episodes: int,
    *,
    arguments: Mapping[str, Any] | None = None,
    first_seed: int = 0,
    limits: EpisodeLimits | None = None,
    log: StepRecorder | None = None,
) -> EpisodeResults:
    """Run a policy, greedily, through `num_episodes` episodes side by side.

    Args:
        policy: chooses actions; one that commands targets has them taken where the environment takes targets.
        env_id: of the environment.
        num_episodes: how many.
        arguments: what the environment is made with.
        first_seed: episode i has seed first_seed + i; where it fails it is repeated with it once, then with seeds that follow
            from it.
        limits: what is given up; the defaults if None.
        log: keeps every step.

    Returns:
        The columns return and length, the mean over the episode of each number the environment reports, and `last_…`, its value
        in the end.

    Raises:
        EnvironmentFailedError: an episode fails again and again, or does not end.
    """
    return EpisodeRunner(env_id, dict(arguments or {}), limits or EpisodeLimits(), log).run(policy, num_episodes, first_seed)
