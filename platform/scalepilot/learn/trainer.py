"""What every trainer is, and the loop around it: validate, keep the best, checkpoint, stop when asked."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from scalepilot.config import ExperimentConfig
from scalepilot.errors import RunError
from scalepilot.learn.encoder import ScoresNetwork
from scalepilot.learn.export import PARITY_OBSERVATIONS, TorchPolicy, exported_policy
from scalepilot.learn.run_folder import RunFolder, write_json
from scalepilot.policy import PolicySpec, save_policy
from scalepilot.progress import Progress
from scalepilot.simulate import ProtocolData, run_episodes
from scalepilot_envs.autoscale import AutoscaleBatch

logger = logging.getLogger("scalepilot.training")
KEPT_CHECKPOINTS = 2
# The learning rate has fallen to nearly nothing by then; what came earlier still moves.
_CANDIDATES_FROM = 0.95


class Trainer(Protocol):
    """One algorithm in training; it knows nothing of validation, folders or interrupts."""

    def iterate(self) -> dict[str, float]:
        """Sample and learn once; metrics under the documented names."""
        ...

    def scores_network(self) -> ScoresNetwork:
        """A copy, on the CPU, of the network that acts."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that resuming needs."""
        ...

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote."""
        ...

    def close(self) -> None:
        """End its processes."""
        ...


@dataclass(frozen=True)
class TrainingOutcome:
    """How training ended.

    Attributes:
        finished: the budget was used up; false when it was stopped early.
        env_steps: transitions sampled.
        best_validation_J_per_hour: of the kept policy, the best of the last twentieth on training and validation windows;
            None when none was validated.
        best_env_steps: where it stood.
        train_seconds: time in training, validation included.
    """

    finished: bool
    env_steps: int
    best_validation_J_per_hour: float | None
    best_env_steps: int
    train_seconds: float


class TrainingLoop:
    """Trains until the budget is used up or `stop()` says so.

    Args:
        config: the experiment.
        trainer: the algorithm.
        folder: the run.
        data: the protocol's episodes; test is not touched.
        spec: description of the policy to export.
        progress: the line a person watches.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        trainer: Trainer,
        folder: RunFolder,
        data: ProtocolData,
        spec: PolicySpec,
        progress: Progress,
    ) -> None:
        self.config, self.trainer, self.folder = config, trainer, folder
        self.spec, self.progress = spec, progress
        self.windows, self.num_validation_windows = data.validation.joined(data.train), len(data.validation)
        self.iteration = 0
        self.train_seconds = 0.0
        self.best: ScoresNetwork | None = None
        self.best_J: float | None = None
        self.best_score: tuple[bool, float] | None = None
        self.best_env_steps = 0
        self.last_J: float | None = None

    @property
    def env_steps(self) -> int:
        """Transitions sampled so far."""
        return self.iteration * self.config.ppo.batch_size

    def run(self, stop: Callable[[], bool]) -> TrainingOutcome:
        """Train; checkpoint and export in the end, however it ends.

        Args:
            stop: asked after each iteration; true ends training early.
        """
        total = self.config.ppo.num_iterations
        validate_every = max(1, round(total * self.config.evaluation.validate_every_share))
        checkpoint_every = max(1, round(total * self.config.checkpoint_every_share))
        resumed_at, began = self.train_seconds, time.perf_counter()
        self.progress.begin(total * self.config.ppo.batch_size, self.env_steps)
        while self.iteration < total and not stop():
            iteration_began = time.perf_counter()
            metrics = self.trainer.iterate()
            iteration_seconds = time.perf_counter() - iteration_began
            self.iteration += 1
            validated = self.iteration % validate_every == 0 or self.iteration == total
            if validated:
                self._validate()
            self.train_seconds = resumed_at + time.perf_counter() - began
            row = self._row(metrics, iteration_seconds, validated)
            self.folder.log_metrics(row)
            self.progress.update(self.env_steps, self.config.ppo.batch_size / iteration_seconds, self.last_J, self.best_J)
            if self.iteration % checkpoint_every == 0 and self.iteration < total:
                self.checkpoint()
        self.progress.end()
        if self.best is None and self.iteration:
            self._validate()
        self.checkpoint()
        self.export()
        return TrainingOutcome(self.iteration >= total, self.env_steps, self.best_J, self.best_env_steps, self.train_seconds)

    def _row(self, metrics: dict[str, float], iteration_seconds: float, validated: bool) -> dict[str, float | None]:
        params = self.config.env.params
        hours = self.config.env.episode_steps / params.steps_per_hour
        episode_return = metrics.get("episode_return_mean")
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "time_seconds": self.train_seconds,
            "steps_per_second": self.config.ppo.batch_size / iteration_seconds,
            "validation_J_per_hour": self.last_J if validated else None,
            "train_J_per_hour": None if episode_return is None else -episode_return / params.reward_per_currency / hours,
            **metrics,
        }

    def _validate(self) -> None:
        network = self.trainer.scores_network()
        results, _ = run_episodes(TorchPolicy(self.spec, network), self.windows, self.config.env.params)
        self.last_J = float(results.J_per_hour[: self.num_validation_windows].mean())
        train_J = float(results.J_per_hour[self.num_validation_windows :].mean())
        logger.info("iteration %d: J %.4f an hour on validation, %.4f on training windows", self.iteration, self.last_J, train_J)
        # Few validation windows hold few of the rare hours that decide: the training windows, with arrivals of their own,
        # steady the choice. Early policies are wild and sometimes lucky: any of the last twentieth goes before them.
        late = self.iteration > _CANDIDATES_FROM * self.config.ppo.num_iterations
        score = (not late, (self.last_J + train_J) / 2)
        if self.best_score is None or score < self.best_score:
            self.best, self.best_score, self.best_J, self.best_env_steps = network, score, self.last_J, self.env_steps

    def checkpoint(self) -> None:
        """Write a checkpoint aside, rename it into place, drop the oldest."""
        aside = self.folder.checkpoints / f".{self.iteration:06d}.new"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        self.trainer.save(aside / "trainer")
        if self.best is not None:
            np.savez(aside / "best.npz", **{name: value.numpy() for name, value in self.best.state_dict().items()})
        write_json(
            aside / "loop.json",
            {
                "iteration": self.iteration,
                "train_seconds": self.train_seconds,
                "best_J": self.best_J,
                "best_score": self.best_score,
                "best_env_steps": self.best_env_steps,
                "last_J": self.last_J,
            },
        )
        final = self.folder.checkpoints / f"{self.iteration:06d}"
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        for old in sorted(p for p in self.folder.checkpoints.iterdir() if not p.name.startswith("."))[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)
        logger.info("iteration %d: checkpoint %s", self.iteration, final.name)

    def resume(self) -> None:
        """Continue from the newest checkpoint; a run without one starts over.

        Raises:
            RunError: the checkpoint cannot be read.
        """
        checkpoint = self.folder.newest_checkpoint()
        if checkpoint is None:
            self.folder.truncate_metrics(0)
            return
        try:
            loop: dict[str, Any] = json.loads((checkpoint / "loop.json").read_text())
            self.trainer.restore(checkpoint / "trainer")
            if (checkpoint / "best.npz").exists():
                self.best = self.trainer.scores_network()
                with np.load(checkpoint / "best.npz", allow_pickle=False) as arrays:
                    self.best.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{checkpoint}: the checkpoint cannot be read ({error})") from error
        self.iteration = int(loop["iteration"])
        self.train_seconds = float(loop["train_seconds"])
        self.best_J, self.last_J, self.best_env_steps = loop["best_J"], loop["last_J"], int(loop["best_env_steps"])
        self.best_score = None if loop["best_score"] is None else (bool(loop["best_score"][0]), float(loop["best_score"][1]))
        self.folder.truncate_metrics(self.iteration)
        logger.info("resumed at iteration %d", self.iteration)

    def export(self) -> None:
        """Write the best policy and the final one as artifacts."""
        if self.best is None:
            return
        observations = sample_observations(self.config)
        for folder, network, env_steps, validation_J in (
            (self.folder.policy, self.best, self.best_env_steps, self.best_J),
            (self.folder.policy_final, self.trainer.scores_network(), self.env_steps, self.last_J),
        ):
            provenance = {**self.spec.provenance, "env_steps": env_steps, "validation_J_per_hour": validation_J}
            spec = replace(self.spec, provenance=provenance)
            save_policy(exported_policy(spec, network, observations), folder)


def sample_observations(config: ExperimentConfig) -> NDArray[np.float32]:
    """(1000, num_fields) observations from random play, for the parity of exports."""
    steps, envs = 25, PARITY_OBSERVATIONS // 25
    env = AutoscaleBatch(envs, workload=config.workload, params=config.env.params, episode_steps=steps)
    env.seed_streams(list(range(envs)))
    rng = np.random.default_rng(0)
    observations = [env.reset_batch()]
    for _ in range(steps - 1):
        observations.append(env.step_batch(rng.integers(0, len(env.move_table), envs)).observation)
    return np.concatenate(observations).astype(np.float32)
