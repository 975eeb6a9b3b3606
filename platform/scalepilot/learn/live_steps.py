"""What watches a run is told of every step on a live environment, as it is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from scalepilot.policy import Policy
from scalepilot_envs.registration import find_env

if TYPE_CHECKING:
    from scalepilot.learn.loop import TrainingLoop


class LiveSteps:
    """Follows the steps of a loop's environment; of a simulated one there is nothing to follow.

    Args:
        loop: the training.
    """

    def __init__(self, loop: TrainingLoop) -> None:
        self._loop = loop
        self.end: Callable[[], None] = lambda: None
        # Said once.
        self._failed = False
        self.iterated()

    def begin(self) -> None:
        """Training begins."""
        self.end = find_env(self._loop.config.env.id).follow(self._followed)

    def iterated(self) -> None:
        """An iteration is done: another policy acts."""
        self._since = 0
        self._acting: Policy | None = None

    def _followed(self, row: Mapping[str, float], observation: NDArray[Any]) -> None:
        """A step: its numbers, and the Q-values of the policy that acts."""
        loop = self._loop
        self._since += 1
        if row.get("decision/failed_write") and not self._failed:
            self._failed = True
            loop.progress.note("a change of replicas failed; the episode goes on (logs/training.log says why)")
        # Those of validations and resets are no further than the rollout.
        step = loop.env_steps + min(self._since, loop.learning.rollout_size)
        if loop.spec.decision_rule == "argmax_q":
            if self._acting is None:
                self._acting = loop.trainer.snapshot().policy(loop.spec)
            scores = self._acting.act(observation[None])[0].scores
            if scores is not None:
                row = {**row, "train/q_value_mean": float(scores.mean()), "train/q_value_max": float(scores.max())}
        loop.tell(lambda callback: callback.on_decision(step, row))
