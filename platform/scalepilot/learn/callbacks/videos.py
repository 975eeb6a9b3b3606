"""Videos of the policy while it learns, spread over the budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scalepilot.learn.callbacks.base import Callback, PolicyNow, Row
from scalepilot.policy import Policy


class Videos(Callback):
    """Films one greedy episode `count` times, evenly between the beginning and the end of the budget.

    Args:
        folder: of the videos, <env_steps>.gif.
        count: how many.
        total_env_steps: the budget.
        film: writes a video of a policy to a file.
    """

    def __init__(self, folder: Path, count: int, total_env_steps: int, film: Callable[[Policy, Path], None]) -> None:
        self.folder, self.film = folder, film
        self.count = count
        self._every = total_env_steps / (count + 1)
        self._filmed = 0

    def on_begin(self, env_steps: int) -> None:
        """What was due before is there already."""
        self._filmed = self._due(env_steps)

    def on_iteration(self, row: Row, policy: PolicyNow) -> None:
        """Film where one is due."""
        env_steps = int(row["env_steps"] or 0)
        if self._due(env_steps) > self._filmed:
            self._filmed = self._due(env_steps)
            self.folder.mkdir(exist_ok=True)
            self.film(policy(), self.folder / f"{env_steps}.gif")

    def _due(self, env_steps: int) -> int:
        return min(self.count, int(env_steps / self._every + 1e-9))
