"""The loop around a trainer: validate, keep the best, checkpoint, stop when asked."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot.config import ExperimentConfig
from scalepilot.errors import EnvironmentFailedError, InputError, LearnerLostError, RunError
from scalepilot.files.atomic import write_json
from scalepilot.files.ownership import check_own_tree
from scalepilot.files.stop import Stopped
from scalepilot.files.stored import read_arrays
from scalepilot.learn.artifacts import Left, write_policies
from scalepilot.learn.callbacks import Callback, CsvMetrics, Guarded, TensorBoard
from scalepilot.learn.choice import Candidate, Finalists
from scalepilot.learn.live_steps import LiveSteps
from scalepilot.learn.system import SystemMonitor
from scalepilot.learn.task import Measured, Task
from scalepilot.learn.trainer import Rebuilds, Snapshot, Trainer, TrainingOutcome, noted_metrics, widened
from scalepilot.policy import PolicySpec
from scalepilot.progress import Progress
from scalepilot.runs.checkpoints import LAST_FILE, Checkpoints, read_loop
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.stored_metrics import logged_metrics
from scalepilot.simulate.env_notes import EnvNotes

logger = logging.getLogger("scalepilot.training")
_BEST_FILE = "best.npz"


class TrainingLoop:
    """Trains until the budget is used up or `stop()` says so.

    Args:
        config: the experiment.
        trainer: the algorithm.
        folder: the run.
        task: what it trains on and is validated by.
        spec: description of the policy to export.
        progress: the line a person watches.
        callbacks: told beside progress.csv and TensorBoard; their failures are reported once and end nothing.
        make_trainer: makes the algorithm anew when its learners died; None where it has none.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        trainer: Trainer,
        folder: RunFolder,
        task: Task,
        spec: PolicySpec,
        progress: Progress,
        callbacks: Sequence[Callback] = (),
        make_trainer: Callable[[], Trainer] | None = None,
    ) -> None:
        self.config, self.trainer, self.folder = config, trainer, folder
        self.task, self.spec, self.progress = task, spec, progress
        self.make_trainer = make_trainer
        self.learning = config.learning
        self._rebuilds = Rebuilds()
        self.checkpoints = Checkpoints(folder.checkpoints, config.checkpoints.num_to_keep)
        tensorboard = TensorBoard(folder.path / "tensorboard", config.to_mapping())
        guarded = (Guarded(callback, progress.note) for callback in (tensorboard, *callbacks))
        self.callbacks: list[Callback] = [CsvMetrics(folder), *guarded]
        self.system = SystemMonitor()
        self.iteration, self.train_seconds = 0, 0.0
        self.best: Snapshot | None = None
        self.best_value: float | None = None
        self.best_score: tuple[bool, float] | None = None
        self.best_env_steps = 0
        self.last_value: float | None = None
        self.last_score: float | None = None
        self.validations = 0
        self.finalists = Finalists()
        self.notes = EnvNotes()
        self._initial: Mapping[str, Any] | None = None
        self._live = LiveSteps(self)
        # Kinds of oddities that were said already.
        self._said: set[str] = set()

    @property
    def env_steps(self) -> int:
        """Transitions sampled so far."""
        return self.iteration * self.learning.rollout_size

    def start_from(self, weights: Mapping[str, Any]) -> None:
        """Begin with a policy's weights; validated before the first step, they are kept until others are better."""
        self._initial = weights
        self.trainer.start_from(weights)

    def run(self, stop: Callable[[], bool]) -> TrainingOutcome:
        """Train; checkpoint and export in the end, however it ends.

        Args:
            stop: asked after each iteration; true ends training early.
        """
        self.begin()
        try:
            self.advance(stop)
            return self.conclude()
        finally:
            self.end()

    def begin(self) -> None:
        """Say that training begins, or goes on."""
        self._live.begin()
        total = self.learning.num_iterations
        self.progress.begin(total * self.learning.rollout_size, self.env_steps)
        logger.info("iteration %d of %d: training begins; %s", self.iteration, total, json.dumps(self.config.to_mapping()))
        self.tell(lambda callback: callback.on_begin(self.env_steps))

    def advance(self, stop: Callable[[], bool]) -> None:
        """Train until the budget is used up or `stop`, asked after each iteration, is true.

        Raises:
            LearnerLostError: learners died again and again.
            EnvironmentFailedError: the environment cannot be stepped; there is a checkpoint and the policy so far.
        """
        while not self.finished and not stop():
            try:
                if self._initial is not None and not self.iteration and self.best is None and not self.task.is_live:
                    self._validate()
                self._iterate()
            except LearnerLostError as error:
                self._rebuild(error)
            except Stopped:
                # In the middle of sampling: what was learnt before is whole.
                if not stop():
                    raise
            except EnvironmentFailedError as error:
                self._note(self.trainer.take_notes())
                raise self._kept(error) from None

    def conclude(self) -> TrainingOutcome:
        """Validate if nothing was yet, write a checkpoint, export."""
        self.progress.end()
        if self.best is None and self.iteration:
            try:
                self._validate()
            except EnvironmentFailedError as error:
                raise self._kept(error) from None
            except Stopped:
                self._keep_unvalidated()
        elif self.task.is_live:
            self._keep_unvalidated()
        elif len(self.finalists.best) > 1:
            self._choose()
        self.checkpoint()
        self.export()
        said = list(self.notes.lines().values())
        if self.notes.outside and self.best is not None:
            said.append(f"the policy's bounds are widened to what was seen: {', '.join(self.notes.outside)}")
        for line in said:
            logger.warning("all of training: %s", line)
            self.progress.note(f"all of training: {line}")
        return self.outcome

    def end(self) -> None:
        """Say that training ends."""
        self._live.end()
        logger.info("iteration %d of %d: training ends", self.iteration, self.learning.num_iterations)
        self.tell(lambda callback: callback.on_end(self.finished))

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self.iteration >= self.learning.num_iterations

    @property
    def outcome(self) -> TrainingOutcome:
        """How far training came, and what of it is kept."""
        return TrainingOutcome(
            self.finished, self.env_steps, self.best_value, self.best_env_steps, self.train_seconds, self.notes
        )

    def _iterate(self) -> None:
        """Sample and learn once, and whatever is due then."""
        total = self.learning.num_iterations
        began = time.perf_counter()
        metrics = self.trainer.iterate()
        iteration_seconds = time.perf_counter() - began
        self.iteration += 1
        self._live.iterated()
        noted = self.trainer.take_notes()
        self._note(noted)
        validated = self.iteration == total or self._due(self.config.evaluation.validate_every_share)
        if validated:
            try:
                self._validate()
            except Stopped:
                validated = False
        self.train_seconds += time.perf_counter() - began
        row = self._row(metrics | noted_metrics(noted), iteration_seconds, validated)
        if validated:
            logger.info(logged_metrics(row))
        self.tell(lambda callback: callback.on_iteration(row, lambda: self.trainer.snapshot().policy(self.spec)))
        self.progress.update(self.env_steps, self.learning.rollout_size / iteration_seconds, self.last_value, self.best_value)
        if self.iteration < total and self._due(self.config.checkpoints.every_share):
            self.checkpoint()

    def _due(self, share: float) -> bool:
        """Whether what happens every `share` of the budget does so now."""
        return self.iteration % max(1, round(self.learning.num_iterations * share)) == 0

    def tell(self, what: Callable[[Callback], None]) -> None:
        """Tell whoever watches."""
        for callback in self.callbacks:
            what(callback)

    def _row(self, metrics: dict[str, float], iteration_seconds: float, validated: bool) -> dict[str, float | None]:
        episode_return = metrics.get("episode_return_mean")
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "time_seconds": self.train_seconds,
            "steps_per_second": self.learning.rollout_size / iteration_seconds,
            self.task.value_metric: self.last_value if validated else None,
            "learner_restarts": self._rebuilds.take(),
            **({} if episode_return is None else self.task.train_metrics(episode_return)),
            **metrics,
            **self.system.sample(),
        }

    def _note(self, noted: EnvNotes, where: str = "training") -> None:
        """Count what was odd; each kind is said once, in the log and to the person who watches."""
        self.notes += noted
        for kind, line in noted.lines().items():
            if kind not in self._said:
                self._said.add(kind)
                message = f"{where}: {line}"
                logger.warning(message)
                self.progress.note(message)

    def _validate(self) -> None:
        snapshot = self.trainer.snapshot()
        measured = self.task.measure(snapshot.policy(self.spec))
        self._note(measured.notes, "validation")
        self.last_value, self.last_score = measured.value, measured.score
        self.validations += 1
        logger.info("iteration %d: %s %.4f", self.iteration, self.task.value_label, measured.value)
        candidate = Candidate(snapshot, measured, self.env_steps)
        self.finalists.add(candidate)
        kept = self.best_score is None or measured.score < self.best_score[1]
        if kept:
            self._keep(candidate)
        self.tell(lambda callback: callback.on_validation(self.env_steps, measured.value, kept))

    def _keep(self, candidate: Candidate) -> None:
        self.best, self.best_env_steps = candidate.snapshot, candidate.env_steps
        self.best_value, self.best_score = candidate.measured.value, (False, candidate.measured.score)

    def _choose(self) -> None:
        """Keep the best of the finalists on fresh episodes; where these cannot be run, the best so far stays."""
        try:
            kept = self.finalists.choose(self.task, self.spec, self.trainer.snapshot)
        except (EnvironmentFailedError, Stopped):
            return
        self._keep(kept)
        logger.info("kept: of %d steps, %s %.4f on fresh episodes", kept.env_steps, self.task.value_label, kept.measured.value)

    def _rebuild(self, error: LearnerLostError) -> None:
        """Resume from the newest checkpoint with a new trainer.

        Raises:
            LearnerLostError: this did not help three times in a row.
        """
        if self.make_trainer is None or not self._rebuilds.allowed(self.iteration):
            raise error
        logger.warning("iteration %d: %s; going on from the newest checkpoint", self.iteration, error)
        self.trainer.close()
        self.trainer = self.make_trainer()
        self.iteration, self.best, self.best_score, self.best_value = 0, None, None, None
        self.finalists = Finalists()
        self.last_value = self.last_score = None
        self.resume()

    def _keep_unvalidated(self) -> None:
        """The policy of this moment, where none was validated; of a live run also what the first rollout has changed so far."""
        if self.best is None and (self.iteration or self.task.is_live):
            self.best, self.best_env_steps = self.trainer.snapshot(), self.env_steps

    def _kept(self, error: EnvironmentFailedError) -> EnvironmentFailedError:
        """The error once more, after a checkpoint and an export: the last good policy is there."""
        self.progress.end()
        if not self.iteration:
            return error
        self._keep_unvalidated()
        self.checkpoint()
        self.export()
        return EnvironmentFailedError(f"{error}; the policy so far: {self.folder.policy}")

    def checkpoint(self) -> None:
        """Write a checkpoint; where it cannot be written, the last one stays and a line says so."""
        try:
            place = self.checkpoints.write(self.iteration, self.save_to)
        except OSError as error:
            newest = self.checkpoints.newest()
            kept = "there is none before it" if newest is None else f"{newest.name} stays"
            message = f"checkpoint {self.iteration:06d} cannot be written ({error.strerror or error}); {kept}"
            logger.warning(message)
            self.progress.note(message)
        else:
            logger.info("iteration %d: checkpoint %s", self.iteration, place.name)

    def save_to(self, folder: Path) -> None:
        """Write what a checkpoint holds into a folder."""
        self.trainer.save(folder / "trainer")
        if self.best is not None:
            arrays: dict[str, Any] = self.best.arrays()
            np.savez(folder / _BEST_FILE, **arrays)
        write_json(
            folder / LAST_FILE,
            {
                "iteration": self.iteration,
                "train_seconds": self.train_seconds,
                "best_value": self.best_value,
                "best_score": self.best_score,
                "best_env_steps": self.best_env_steps,
                "last_value": self.last_value,
                "last_score": self.last_score,
                "notes": self.notes.to_mapping(),
            },
        )

    def resume(self) -> None:
        """Continue from the newest checkpoint; a run without one starts over.

        Raises:
            InputError: another user could change the checkpoint, or it is damaged.
        """
        self.checkpoints.check_owner()
        checkpoint = self.checkpoints.newest()
        if checkpoint is None:
            self.folder.truncate_metrics(0)
            if self._initial is not None:
                self.trainer.start_from(self._initial)
            return
        try:
            self.resume_from(checkpoint)
        except LearnerLostError:
            raise
        except RunError as error:
            raise InputError(str(error)) from error

    def resume_from(self, checkpoint: Path) -> None:
        """Continue from what `save_to` wrote, by this run or by another one of the same networks.

        Raises:
            InputError: another user could change it.
            RunError: it cannot be read.
        """
        check_own_tree(checkpoint, "resume")
        try:
            loop = read_loop(checkpoint)
            self.trainer.restore(checkpoint / "trainer")
            if os.path.lexists(checkpoint / _BEST_FILE):
                self.best = self.trainer.snapshot()
                self.best.load(read_arrays(checkpoint / _BEST_FILE))
        except LearnerLostError:
            raise
        except Exception as error:
            # Whatever torch, Ray and pickle raise of a damaged file.
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise RunError(
                f"{checkpoint}: the checkpoint cannot be read ({reason}); allowed: remove it to resume from the one before"
            ) from error
        self.iteration, self.train_seconds = loop.iteration, loop.train_seconds
        self.best_value, self.last_value, self.best_env_steps = loop.best_value, loop.last_value, loop.best_env_steps
        self.last_score = loop.last_score
        self.notes = EnvNotes.from_mapping(loop.notes)
        if self.best is not None and loop.best_score is not None and self.best_value is not None:
            # Of the others nothing is stored: what was kept so far competes with what comes.
            self.best_score = False, float(loop.best_score[1])
            self.finalists.add(Candidate(self.best, Measured(self.best_value, self.best_score[1]), self.best_env_steps))
        self.folder.truncate_metrics(self.iteration)
        refilled = self.learning.refills_replay
        self.folder.mark_resumed(self.iteration, replay_refilled=refilled)
        logger.info("resumed at iteration %d%s", self.iteration, ", with an empty replay buffer" if refilled else "")

    def export(self) -> None:
        """Write the best policy and the final one as artifacts.

        Raises:
            RunError: they cannot be written, or decide otherwise than what was trained.
        """
        if self.best is None:
            return
        several = (
            Left(self.folder.policy, self.best, self.best_env_steps, self.best_value),
            Left(self.folder.policy_final, self.trainer.snapshot(), self.env_steps, self.last_value),
        )
        write_policies(self.task, self.folder, widened(self.spec, self.notes), several, self.trainer)
