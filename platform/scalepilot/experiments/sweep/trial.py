"""One trial of a sweep: an experiment in an actor of Ray Tune, in a run folder of its own.

Its state is the run folder's: an actor that begins in a folder with checkpoints goes on from the newest, and one that finds the
run finished says what it came to. So neither a killed driver, nor a killed actor, nor a state of Tune's that is seconds old
trains anything twice.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from ray.tune import Trainable

from scalepilot.errors import InputError, ScalepilotError
from scalepilot.experiments.run import evaluate_run
from scalepilot.experiments.sweep.plan import PLAN, SEED, PlannedSweep, Point
from scalepilot.experiments.sweep.space import decode
from scalepilot.experiments.training import open_loop
from scalepilot.files.atomic import write_bytes
from scalepilot.learn.loop import TrainingLoop
from scalepilot.learn.task import Task
from scalepilot.progress import Progress
from scalepilot.runs.folder import RunFolder

# Metrics of a result, beside those of docs/metrics.md; the score is minimised.
SCORE, ENV_STEPS, PERCENT = "score", "env_steps", "percent"
STOPPED = "stopped"
# Where Ray's tools look for the metrics of a trial, a line of JSON an iteration.
RESULTS = "result.json"
# Ray ends what belonged to a dead driver within seconds.
_FORMER_SECONDS = 30.0
logger = logging.getLogger("scalepilot.training")


@dataclass(frozen=True)
class Assignment:
    """What an actor must know beside the configuration that Tune hands over.

    Attributes:
        sweep: the sweep.
        trials: (point, seed) of each trial that was planned; Tune's configuration is an index into it. Empty where Tune draws.
        driver: of the process that runs the sweep, another one each time.
    """

    sweep: PlannedSweep
    trials: tuple[tuple[Point, int], ...]
    driver: str = ""

    def of(self, config: Mapping[str, Any]) -> tuple[Point, int]:
        """Point and seed that a configuration of Tune's stands for."""
        if self.trials:
            return self.trials[config[PLAN]]
        return decode(self.sweep.sweep.space, config), self.sweep.sweep.seeds[0]


class Trial(Trainable):
    """Trains one experiment; a step is what lies between two validations."""

    def setup(self, config: dict[str, Any], assignment: Assignment) -> None:
        """Take the first trial up; see `Trainable.setup`."""
        self._assignment = assignment
        self._loop: TrainingLoop | None = None
        self._folder: RunFolder | None = None
        # RLlib's and torch's notices are not for a person who watches a sweep.
        warnings.simplefilter("ignore")
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial up in the same process: what is imported stays."""
        self._close()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next validation.

        Raises:
            Exception: the trial failed, as its run.json says; Tune begins it again.
        """
        if self._finished is not None:
            return self._finished
        assert self._folder is not None
        try:
            if self._loop is None:
                self._make_loop()
            return self._advance()
        except Exception as error:
            self._folder.write_status("failed", error=_line(error))
            logger.error("failed: %s", _line(error), exc_info=True)
            if isinstance(error, InputError):
                # What is not allowed will not be the next time: the last of sweeps, and no other attempt.
                return {SCORE: math.inf, ENV_STEPS: 0, PERCENT: 100.0, "done": True}
            raise

    def cleanup(self) -> None:
        """End the trial; see `Trainable.cleanup`."""
        self._close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """What another member of the population may go on from."""
        if self._loop is not None:
            self._loop.save_to(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a member's checkpoint, with the configuration that is set now."""
        self._make_loop(Path(str(checkpoint)))

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._finished: dict[str, Any] | None = None
        self._result: dict[str, Any] | None = None
        self._loop = None
        self._point, self._seed = self._assignment.of(config)
        self._folder = RunFolder(Path(self._storage.trial_fs_path))
        self._folder.path.mkdir(parents=True, exist_ok=True)
        known = self._folder.read_status()
        if known.get("status") == "finished":
            self._finished = {**self._measured(), **known["result"], "done": True}
            return
        former, driver = known.get("sweep") or {}, self._assignment.driver
        if former.get("driver") not in (None, driver):
            _wait_for_end_of(known.get("process") or {})
        # A member of a population is put aside and taken up again all the time: that is no other attempt.
        paused = known.get("status") == STOPPED and former.get("driver") == driver
        attempts = former.get("attempts", 0) + (0 if paused else 1)
        noted = {"point": dict(self._point), "seed": self._seed, "attempts": attempts, "driver": driver}
        self._folder.write_status("running", sweep=noted)

    def _make_loop(self, checkpoint: Path | None = None) -> None:
        """Everything that trains, going on from a checkpoint: the given one, or the newest in the folder."""
        assert self._folder is not None
        config = self._assignment.sweep.config(self._point, self._seed)
        folder = self._folder
        write_bytes(folder.config_file, config.to_yaml().encode())
        folder.start_logging()
        task = Task(config)
        progress = Progress("trial", stream=io.StringIO(), value_label=task.value_label)
        self._config, self._task = config, task
        folder.write_status("running", sweep=folder.read_status()["sweep"] | {"total_env_steps": config.learning.env_steps})
        self._loop = open_loop(config, folder, task, progress, resume=checkpoint or True)
        if checkpoint is not None:
            changes = folder.read_status().get("changes", [])
            now = {"env_steps": self._loop.env_steps, "point": dict(self._point)}
            folder.write_status("running", changes=[*changes, now])
        self._loop.begin()

    def _advance(self) -> dict[str, Any]:
        assert self._loop is not None
        assert self._folder is not None
        loop = self._loop
        before = loop.validations
        loop.advance(lambda: loop.validations > before)
        result: dict[str, Any] = {
            SCORE: loop.last_score,
            "value": loop.last_value,
            ENV_STEPS: loop.env_steps,
            PERCENT: 100 * loop.iteration / loop.learning.num_iterations,
            "training_iteration": loop.iteration,
        }
        if loop.finished:
            outcome = loop.conclude()
            loop.end()
            # Among equals in the search the kept policy counts, not the last validation.
            result |= {SCORE: loop.best_score[1] if loop.best_score else loop.last_score, "value": outcome.best_value}
            evaluate_run(self._task, self._folder, [], alone=True)
            self._folder.write_metrics_parquet()
            self._folder.write_status("finished", training=asdict(outcome), result=result)
        self._result = result
        reported = self._measured() | result | {"done": loop.finished}
        self._write_results(reported)
        return reported

    def _measured(self) -> dict[str, Any]:
        """What the newest iteration measured, of docs/metrics.md."""
        assert self._folder is not None
        # A finished trial whose progress.csv was damaged since is still finished.
        rows: list[dict[str, float | None]] = []
        with contextlib.suppress(InputError):
            rows = self._folder.read_metrics()
        return _known(rows[-1]) if rows else {}

    def _write_results(self, reported: dict[str, Any]) -> None:
        """progress.csv in the form and place in which Ray's tools read it, with the scores that were reported.

        Args:
            reported: of the newest iteration.
        """
        assert self._folder is not None
        path, former = self._folder.path / RESULTS, dict[int, Any]()
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            former = {line["training_iteration"]: line for line in map(json.loads, path.read_text().splitlines())}
        same = {"trial_id": self.trial_id, "config": {**self._point, SEED: self._seed}}
        # Written whole each time: what came after the checkpoint that a trial went on from is no longer in progress.csv.
        lines = []
        for row in map(_known, self._folder.read_metrics()):
            before = former.get(row["iteration"], {})
            scored = {name: before[name] for name in (SCORE, "value", PERCENT) if name in before}
            lines.append(row | scored | {"training_iteration": row["iteration"]} | same)
        lines[-1:] = [reported | same]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _close(self) -> None:
        """End what trains; a trial that was not finished can go on from where it is."""
        loop, folder = self._loop, self._folder
        self._loop = None
        if loop is None or folder is None:
            return
        try:
            if not loop.finished:
                if loop.iteration and loop.checkpoints.newest_iteration != loop.iteration:
                    loop.checkpoint()
                loop.end()
                if folder.read_status().get("status") == "running":
                    folder.write_status(STOPPED, training=asdict(loop.outcome), result=self._result)
        except (ScalepilotError, OSError) as error:
            logger.warning("the trial ends without a last checkpoint (%s)", _line(error))
        finally:
            loop.trainer.close()
            folder.close()


def _wait_for_end_of(process: Mapping[str, Any]) -> None:
    """Let an actor that was left behind by a killed driver end: two must not write into one folder."""
    if process.get("host") != platform.node() or process.get("pid") in (None, os.getpid()):
        return
    with contextlib.suppress(psutil.Error):
        former = psutil.Process(process["pid"])
        if "ray::" in " ".join(former.cmdline()):
            former.wait(_FORMER_SECONDS)


def _known(row: Mapping[str, float | None]) -> dict[str, Any]:
    """What was measured of a row of progress.csv."""
    whole = {"iteration", "env_steps"}
    return {name: int(value) if name in whole else value for name, value in row.items() if value is not None}


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text and not isinstance(error, ScalepilotError) else text


__all__ = ["ENV_STEPS", "SCORE", "STOPPED", "Assignment", "Trial"]
