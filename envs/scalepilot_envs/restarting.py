"""An environment that is remade when it fails, so that its neighbours in a vector go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from scalepilot_envs.flat_env import FlatEnv

# In `info`: what failed. The observation beside it is a new episode's first. An environment may say so itself of a step that is
# no transition, such as one whose outcome nobody has measured; its episode is then over.
ENV_FAILURE = "env_failure"
# Failures of one environment without a single good step in between.
FAILURES_IN_A_ROW = 10
_LARGEST = float(np.finfo(np.float32).max)
_SHOWN_CHARACTERS = 200


class EnvFailedError(RuntimeError):
    """An environment that fails again and again; `str()` is one line with its id, the step and what it raised."""


class _InvalidStepError(ValueError):
    """What `step` or `reset` returned is not allowed."""


def shown_error(error: BaseException) -> str:
    """What was raised, in one line: "ConnectionError: simulator gone"; the text alone where we say it ourselves."""
    lines = str(error).strip().splitlines()
    text = lines[0][:_SHOWN_CHARACTERS] if lines else ""
    if isinstance(error, _InvalidStepError):
        return text
    return f"raised {type(error).__name__}: {text}" if text else f"raised {type(error).__name__}"


def checked_reward(reward: Any) -> float:
    """A reward as a number that a learner can take.

    Raises:
        ValueError: it is none: another type or shape, not finite, or too large for 32 bits.
    """
    allowed = f"allowed: one finite number, at most {_LARGEST:.3g} in size"
    if isinstance(reward, str | bytes | complex | np.complexfloating) or np.ndim(reward) != 0:
        raise _InvalidStepError(f"gave the reward {_shown(reward)}; {allowed}")
    try:
        number = float(reward)
    except (TypeError, ValueError, OverflowError):
        raise _InvalidStepError(f"gave the reward {_shown(reward)}; {allowed}") from None
    if not abs(number) <= _LARGEST:
        raise _InvalidStepError(f"gave the reward {_shown(number)}; {allowed}")
    return number


def checked_observation(observation: Any, space: gym.Space[Any], names: Sequence[str] = ()) -> Any:
    """An observation that a learner can take; bounds of a Box are not looked at.

    Raises:
        ValueError: it is none: another type or shape, not finite, or too large for 32 bits.
    """
    if isinstance(space, gym.spaces.Discrete):
        if not (np.ndim(observation) == 0 and space.contains(_whole(observation))):
            raise _InvalidStepError(f"gave the observation {_shown(observation)}; allowed: {space}")
        return observation
    if not isinstance(space, gym.spaces.Box):
        return observation
    try:
        array = np.asarray(observation)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiub":
        shown = _shown(observation) if array.dtype == object else f"of dtype {array.dtype}"
        raise _InvalidStepError(f"gave an observation {shown}; allowed: numbers {space.shape} {space.dtype}")
    if array.shape != space.shape:
        raise _InvalidStepError(f"gave an observation of shape {array.shape}; allowed: {space.shape}")
    if array.dtype.kind == "f":
        # NaN compares false, too.
        bad = ~(np.abs(array) <= _LARGEST)
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            value = array.reshape(-1)[at]
            name = names[at] if at < len(names) else f"observation_{at}"
            raise _InvalidStepError(f"gave {name} = {value}; allowed: finite numbers, at most {_LARGEST:.3g} in size")
    return array


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, np.ndarray) and value.dtype.kind in "iu" else value


def _shown(value: Any) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


class StepError(Exception):
    """A step or reset that failed; `str()` is one line: environment, step, what it raised or gave."""


class CheckedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose every step and reset is looked at.

    Args:
        env: the environment.
        name: its id, for messages.

    Raises:
        StepError: by `step` and `reset`, where the environment raises or gives what is no number.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str | None = None) -> None:
        super().__init__(env)
        self._id = name or (env.spec.id if env.spec is not None else type(env.unwrapped).__name__)
        # Of the adapter that makes it flat.
        fields = env.spaces.observation.fields if isinstance(env, FlatEnv) else ()
        self._names = [field.name for field in fields]
        self._seed: int | None = None
        self._episode = self._step = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A step."""
        return self._checked(self.env.step, action)

    def step_targets(self, target: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A step of an environment that takes targets."""
        taken: Any = self.env.unwrapped
        return self._checked(taken.step_targets, target)

    def _checked(self, step: Callable[[Any], Any], given: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        try:
            answer = step(given)
            if not (isinstance(answer, tuple) and len(answer) == 5):
                count = len(answer) if isinstance(answer, tuple) else 1
                raise _InvalidStepError(f"returned {count} values; allowed: 5, gymnasium's API")
            observation, reward, terminated, truncated, info = answer
            if ENV_FAILURE in info:
                raise _InvalidStepError(f"is no transition: {info[ENV_FAILURE]}")
            observation = checked_observation(observation, self.observation_space, self._names)
            return observation, checked_reward(reward), bool(terminated), bool(truncated), info
        except Exception as error:
            raise StepError(self._said(error)) from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._episode, self._step = 1 if seed is not None else self._episode + 1, 0
        self._seed = self._seed if seed is None else seed
        try:
            answer: Any = self.env.reset(seed=seed, options=options)
            if not (isinstance(answer, tuple) and len(answer) == 2):
                raise _InvalidStepError("must return (observation, info)")
            return checked_observation(answer[0], self.observation_space, self._names), answer[1]
        except Exception as error:
            raise StepError(self._said(error)) from error

    def _said(self, error: Exception) -> str:
        at = "reset()" if self._step == 0 else f"step {self._step}"
        where = "" if self._seed is None else f" of episode {self._episode} from seed {self._seed}"
        return f"env {self._id}: {at}{where} {shown_error(error)}"


class RestartingEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that is remade and reset when `step` or `reset` fails: when it raises, or gives what is no number.

    The failed step is no transition and its episode is over without a result; `info[ENV_FAILURE]` says what failed. Its seed is
    derived from the last one given, so that what happens is the same each time.

    Args:
        make: makes the environment.
        name: its id, for messages.

    Raises:
        EnvFailedError: ten failures without one good step in between.
    """

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], name: str | None = None) -> None:
        super().__init__(CheckedEnv(make(), name))
        self._make, self._name = make, name
        self._seed: int | None = None
        self._failures = self._in_a_row = 0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step, or the first observation of a new episode with `info[ENV_FAILURE]`."""
        try:
            answer = self.env.step(action)
        except StepError as error:
            observation, info = self._remade(error)
            return observation, 0.0, False, False, info
        self._in_a_row = 0
        return answer

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        if seed is not None:
            self._seed, self._failures = seed, 0
        try:
            return self.env.reset(seed=seed, options=options)
        except StepError as error:
            return self._remade(error)

    def _remade(self, error: Exception) -> tuple[Any, dict[str, Any]]:
        first = str(error)
        while True:
            self._failures += 1
            self._in_a_row += 1
            if self._in_a_row >= FAILURES_IN_A_ROW:
                raise EnvFailedError(f"{error}; {self._in_a_row} failures without a good step in between")
            with contextlib.suppress(Exception):
                self.env.close()  # type: ignore[no-untyped-call]
            try:
                self.env = CheckedEnv(self._make(), self._name)
                observation, info = self.env.reset(seed=derived_seed(self._seed, self._failures))
            except StepError as again:
                error = again
            except Exception as again:  # noqa: BLE001 - a constructor may raise anything, too
                error = StepError(f"env {self._name or 'environment'}: its constructor {shown_error(again)}")
            else:
                return observation, {**info, ENV_FAILURE: first}


def derived_seed(seed: int | None, count: int) -> int | None:
    """A seed of 31 bits that follows from another and a number; None stays None."""
    return None if seed is None else int(np.random.SeedSequence((seed, count)).generate_state(1)[0] >> 1)
