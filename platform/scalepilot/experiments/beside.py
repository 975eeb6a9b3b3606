"""What evaluating a run needs and training does not, found beside training by processes on cores that it leaves idle.

The tuned baselines and the clairvoyant optimum depend on the configuration alone. The processes only fill folders that the
evaluation looks into before it searches and plans itself, so that every figure is the same with and without them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from scalepilot.cluster.connection import cpus_of
from scalepilot.config import ExperimentConfig
from scalepilot.errors import RunError, ScalepilotError
from scalepilot.evaluate.baselines import baseline_names, experiment_baselines
from scalepilot.evaluate.evaluation import OptimumOptions, optimum_of
from scalepilot.files.stop import at_once
from scalepilot.policy.rules import Rule
from scalepilot.progress import Progress
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import ProcessExecutor, Scenario, scenario_of, usable_cores

logger = logging.getLogger("scalepilot.training")
_EVALUATIONS_PER_PROCESS = 25
# Steps of the simulator in one rule's search. Less is over before other processes have started.
_WORTH_PROCESSES = 500_000


def tuned_baselines(config: ExperimentConfig, scenario: Scenario, folder: RunFolder, cores: int | None = None) -> list[Rule[Any]]:
    """The rules that the run's policy is compared against; those to be tuned are stored beside the run.

    Args:
        config: the experiment.
        scenario: of it.
        folder: the run's, whose stored rules are not searched again.
        cores: processes to search with; None for as many as there are cores.
    """
    evaluation = config.evaluation
    # A small search is over before another process has started.
    processes = min(cores or usable_cores(), max(1, evaluation.tuning_evaluations // _EVALUATIONS_PER_PROCESS))
    with ProcessExecutor(processes) as executor:
        return experiment_baselines(scenario, evaluation.baselines, evaluation.tuning_evaluations, folder.baselines, executor)


@contextlib.contextmanager
def prepared(config: ExperimentConfig, scenario: Scenario, folder: RunFolder) -> Iterator[Preparation]:
    """The baselines and the optimum, begun now; what is not done when the block ends is given up.

    Without an idle core, or where it is little, the baselines are tuned here and now.
    """
    evaluation, traffic = config.evaluation, scenario.traffic
    with tempfile.TemporaryDirectory(prefix="scalepilot-") as optima:
        preparation = Preparation(Path(optima))
        if traffic is not None:
            # What is misspelt is said before anything is begun.
            baseline_names(evaluation.baselines, scenario, "evaluation.baselines")
            idle = usable_cores() - cpus_of(config.resources)
            steps = evaluation.tuning_evaluations * len(traffic.train) * traffic.train.num_steps
            if idle < 1 or steps < _WORTH_PROCESSES:
                with at_once():
                    tuned_baselines(config, scenario, folder)
            else:
                preparation.begin(config, folder, idle)
        try:
            yield preparation
        finally:
            preparation.end()


class Preparation:
    """Processes that fill folders.

    Args:
        optima: folder for the optimum's plans.
    """

    def __init__(self, optima: Path) -> None:
        self.optima = optima
        self._process: BaseProcess | None = None
        self._tuned = True

    def begin(self, config: ExperimentConfig, folder: RunFolder, cores: int) -> None:
        """Start the processes; the folder's baselines are theirs until `wait` returns."""
        context = get_context("spawn")
        self._pipe, there = context.Pipe()
        # Not a daemon: those have no processes of their own. It ends with the pipe.
        self._process = context.Process(target=_prepare, args=(there, config, folder.path, self.optima, cores))
        # Ctrl-C on a terminal is for this process; blocked here, it is in all of those from their start.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        self._tuned = False
        Progress("").note(f"Tuning {', '.join(config.evaluation.baselines)} beside training")

    def or_stop(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """A `stop` that also raises what ended the search: no training for a comparison that will not be."""

        def asked() -> bool:
            if not self._tuned and self._pipe.poll():
                self._take()
            if not stop():
                return False
            # A run that is stopped is compared with nobody.
            self.end()
            return True

        return asked

    def wait(self) -> None:
        """Until the baselines are tuned.

        Raises:
            ScalepilotError: they cannot be.
            OSError: they cannot be written.
        """
        if not self._tuned:
            if not self._pipe.poll():
                Progress("").note("Waiting for the baselines")
            self._take()

    def _take(self) -> None:
        try:
            error = self._pipe.recv()
        except (EOFError, OSError):
            # Killed, for want of memory perhaps: who looks for its results and finds none searches again.
            logger.warning("the processes that tune the baselines ended early; what is missing is tuned after training")
            error = None
        self._tuned = True
        if error is not None:
            raise error

    def end(self) -> None:
        """End the processes at once."""
        process, self._process, self._tuned = self._process, None, True
        if process is None or process.pid is None:
            return
        # Its group holds the processes that it has started; before it has one, it has started none.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        self._pipe.close()


def _prepare(pipe: Connection, config: ExperimentConfig, path: Path, optima: Path, cores: int) -> None:
    """What the first of the processes does: tells of the baselines, then goes on with the optimum."""
    # A group of its own, which ends as one.
    os.setsid()
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - whose progress would run into that of training
    scenario, folder = scenario_of(config), RunFolder(path)
    try:
        tuned_baselines(config, scenario, folder, cores)
        pipe.send(None)
    except (ScalepilotError, OSError) as error:
        pipe.send(error)
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the run has to know
        pipe.send(RunError(f"tuning baselines: {type(error).__name__}: {error}\n{traceback.format_exc()}"))
        return
    if config.evaluation.optimum and scenario.traffic is not None and scenario.env.params.one_queue:
        with ProcessExecutor(cores) as executor:
            optimum_of(scenario.traffic, scenario.env.params, OptimumOptions(optima), executor)


def _end_with(pipe: Connection) -> None:
    """End the whole group with the process that has started it, however that ended."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os.killpg(0, signal.SIGKILL)
