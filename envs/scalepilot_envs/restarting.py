"""An environment that is made anew when it raises, so that its neighbours in a vector go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gymnasium as gym

# In `info`: what was raised. The observation beside it is a new episode's first.
ENV_FAILURE = "env_failure"
_FAILURES_IN_A_ROW = 10


class RestartingEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Made anew and reset when `step` or `reset` raises; the step that raised is no transition, `info` says so.

    Args:
        make: makes the environment.
        name: its id, for messages.

    Raises:
        Exception: the environment's own, when it raised ten times in a row.
    """

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], name: str | None = None) -> None:
        super().__init__(make())
        self._make = make

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step, or the first observation of a new episode with `info["env_failure"]`."""
        try:
            return self.env.step(action)
        except Exception as error:  # noqa: BLE001 - an environment may raise anything
            observation, info = self._made_anew(error)
            return observation, 0.0, False, False, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as error:  # noqa: BLE001
            return self._made_anew(error)

    def _made_anew(self, error: Exception) -> tuple[Any, dict[str, Any]]:
        for _ in range(_FAILURES_IN_A_ROW - 1):
            with contextlib.suppress(Exception):
                self.env.close()  # type: ignore[no-untyped-call]
            try:
                self.env = self._make()
                observation, info = self.env.reset()
            except Exception as again:  # noqa: BLE001
                error = again
                continue
            return observation, {**info, ENV_FAILURE: f"{type(error).__name__}: {error}"}
        raise error
