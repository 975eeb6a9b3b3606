"""How a batch-native algorithm trains: sample in parallel → hand references to the learners → sync the weights."""

from __future__ import annotations

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

from scalepilot.learn.rllib.rollout import Rollout


def _sample_by_reference(runner: Any, **arguments: Any) -> tuple[Any, Any]:
    """On a remote runner: leave the rollout in its node's object store, return the reference."""
    return ray.put(runner.sample(**arguments)), runner.get_metrics()


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

    def training_step(self) -> None:
        """One iteration."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            data = self._sample()
        if not data:
            return
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            sampled = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
            results = self.learner_group.update(
                **data, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: sampled}, **self.update_arguments()
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group, policies=[DEFAULT_MODULE_ID], inference_only=True
            )

    def _sample(self) -> dict[str, Any]:
        """Keyword arguments for `LearnerGroup.update`; empty when every runner failed."""
        arguments = self.sample_arguments()
        if self.env_runner_group.num_remote_workers() == 0:
            runner = self.env_runner_group.local_env_runner
            rollout: Rollout = runner.sample(**arguments)
            self.metrics.aggregate([runner.get_metrics()], key=ENV_RUNNER_RESULTS)
            return {"batch": rollout}
        sample = partial(_sample_by_reference, **arguments)
        sampled = self.env_runner_group.foreach_env_runner(sample, local_env_runner=False)
        if not sampled:
            return {}
        self.metrics.aggregate([metrics for _, metrics in sampled], key=ENV_RUNNER_RESULTS)
        return {"batch_refs": [reference for reference, _ in sampled]}

    def sample_arguments(self) -> dict[str, Any]:
        """What exploration on the runners needs to know now."""
        return {}

    def update_arguments(self) -> dict[str, Any]:
        """What the learner's update takes besides the data."""
        return {}
