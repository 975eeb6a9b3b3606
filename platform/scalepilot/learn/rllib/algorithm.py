"""How a batch-native algorithm trains: sample in parallel → hand references to the learners → sync the weights."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from scalepilot.learn.rllib.learner import LearnerCalls, RolloutsLostError
from scalepilot.learn.rllib.runner_pool import RunnerPool
from scalepilot.learn.rllib.settings import EngineSettings
from scalepilot.learn.rllib.watchdog import Watchdog
from scalepilot.simulate.env_notes import EnvNotes

logger = logging.getLogger("scalepilot.training")
# Results besides RLlib's own: each counts what happened in one iteration.
ENV_RUNNER_RESTARTS, LOST_ROLLOUTS = "env_runner_restarts", "lost_rollouts"
# Of the slowest env runner.
PUT_SECONDS = "put_seconds"


class NoHomeFolder:
    """Mixin that keeps RLlib from making a folder under ~/ray_results: results live in the run's folder."""

    _storage: Any
    _logdir: str

    def _setup_logdir(self) -> None:
        if self._storage:
            super()._setup_logdir()  # type: ignore[misc]
        else:
            self._logdir = str(Path.cwd())


class RolloutAlgorithm(NoHomeFolder):
    """Mixin over an RLlib `Algorithm`; algorithms differ only in their learner."""

    metrics: Any
    env_runner_group: Any
    learner_group: Any
    config: Any
    _pool: RunnerPool | None = None

    def setup(self, config: Any) -> None:
        """Start the env runners and learners."""
        super().setup(config)  # type: ignore[misc]
        self.notes = EnvNotes()
        self.learners, self._pieces = LearnerCalls(self.learner_group), max(1, self.config.num_learners)
        self._time_limit_seconds = EngineSettings.of(self.config).resources.env_timeout_seconds
        self._watchdog = Watchdog(f"env {self.config.env}", "resources.env_timeout_seconds")
        if self.env_runner_group.num_remote_workers():
            self._pool = RunnerPool(self.env_runner_group, self.config.env, self._time_limit_seconds, self._pieces)

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Nothing: the pool restores runners while the others sample."""
        return []

    def training_step(self) -> None:
        """One iteration; rollouts that were lost on the way are sampled again."""
        lost = 0
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts = self._sample(max(1, self.config.num_env_runners))
        while True:
            try:
                with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
                    self._update(rollouts)
                break
            except RolloutsLostError as error:
                lost += len(error.positions)
                logger.warning(
                    "%d rollouts were lost with the process or node that held them; sampled again", len(error.positions)
                )
                with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
                    kept = [rollout for i, rollout in enumerate(rollouts) if i not in error.positions]
                    rollouts = kept + self._sample(len(error.positions))
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group, policies=[DEFAULT_MODULE_ID], inference_only=True
            )
        self.metrics.log_value(LOST_ROLLOUTS, lost, window=1)
        self.metrics.log_value(ENV_RUNNER_RESTARTS, self._pool.take_restarts() if self._pool else 0, window=1)

    def _sample(self, count: int) -> list[list[Any]]:
        """So many rollouts, each as a piece for each learner: a reference, or the rollout itself where all is in one process."""
        arguments = self.sample_arguments()
        if self._pool is not None:
            sampled = self._pool.sample(count, **arguments)
            self.metrics.aggregate([rollout.metrics for rollout in sampled], key=ENV_RUNNER_RESULTS)
            self.notes = sum((rollout.notes for rollout in sampled), self.notes)
            self.metrics.log_value(PUT_SECONDS, max(rollout.put_seconds for rollout in sampled), window=1)
            return [rollout.pieces for rollout in sampled]
        runner = self.env_runner_group.local_env_runner
        rollout = self._watchdog(partial(runner.sample, **arguments), self._time_limit_seconds)
        self.metrics.aggregate([runner.get_metrics()], key=ENV_RUNNER_RESULTS)
        self.notes += runner.take_notes()
        pieces: list[Any] = rollout.split(self._pieces)
        return [[ray.put(piece) for piece in pieces] if self.config.num_learners else pieces]

    def _update(self, rollouts: list[list[Any]]) -> None:
        shares = [[pieces[learner] for pieces in rollouts] for learner in range(self._pieces)]
        sampled = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: sampled}
        results = self.learners.update(shares, timesteps=timesteps, **self.update_arguments())
        self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def sample_arguments(self) -> dict[str, Any]:
        """What exploration on the runners needs to know now."""
        return {}

    def take_notes(self) -> EnvNotes:
        """What was odd about the environments since the last call."""
        taken, self.notes = self.notes, EnvNotes()
        return taken

    def update_arguments(self) -> dict[str, Any]:
        """What the learner's update takes besides the data."""
        return {}

    def cleanup(self) -> None:
        """End the learners and env runners; those that do not answer are killed."""
        if self._pool is not None:
            self._pool.forsake()
        if hasattr(self, "_watchdog"):
            self._watchdog.end()
        if hasattr(self, "learners"):
            self.learners.end()
        super().cleanup()  # type: ignore[misc]
