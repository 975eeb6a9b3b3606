"""The runs of a study: those that are there already found, the others trained, here or in worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from scalepilot.cluster.connection import connected
from scalepilot.config import ALGORITHMS, ExperimentConfig, config_from_mapping, read_yaml
from scalepilot.errors import InputError, RunError, ScalepilotError
from scalepilot.evaluate.store import EPISODES_FILE
from scalepilot.experiments.run import run_experiment
from scalepilot.files.stop import StopFlag, stop_asked
from scalepilot.progress import Progress
from scalepilot.runs.checkpoints import Checkpoints
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.status import read_run_status
from scalepilot.simulate.executor import Executor, ProcessExecutor, SerialExecutor, Worker, serve

RUNS, LOGS = "runs", "logs"
Outcome = Literal["finished", "interrupted", "failed"]
# A run that is asked to stop ends its iteration, writes a checkpoint and exports what it has.
_STOP_SECONDS = 60.0
# Of a worker process: Ray, started with the first run that needs it, for all of them.
_RAY = contextlib.ExitStack()


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        label: for the person who watches.
        values: the experiment as plain data.
        folder: its run folder, made already.
        resume: go on from its newest checkpoint.
        alone: evaluate its policy beside nobody.
    """

    label: str
    values: Mapping[str, Any]
    folder: Path
    resume: bool = False
    alone: bool = False

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Ended:
    """How a run ended, and why where it failed."""

    outcome: Outcome
    reason: str = ""


class RunExecutor(ProcessExecutor):
    """Runs shared among processes, each of which starts Ray once.

    They have process groups of their own: a terminal's Ctrl-C reaches the study alone, which passes it on, so that a run is
    never asked twice by one key. What they print goes to a log file. A run whose process dies has failed; the others go on.

    Args:
        processes: runs at once.
        logs: folder of the workers' logs.
    """

    look_seconds = 0.3
    worth_processes = 1

    def __init__(self, processes: int, logs: Path) -> None:
        super().__init__(processes)
        self._logs, self._started, self._told = logs, 0, False
        logs.mkdir(parents=True, exist_ok=True)

    def start_worker(self) -> Worker:
        """A process with a log of its own."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        log = self._logs / f"worker-{self._started}.log"
        process = context.Process(target=_serve_runs, args=(there, str(log)), daemon=False)
        process.start()
        there.close()
        self._started += 1
        return Worker(process, here)

    def died(self, worker: Worker, job: object, attempts: int) -> Ended:
        """A run whose process died has failed."""
        worker.process.join()
        return Ended("failed", f"its process ended with exit code {worker.process.exitcode}")

    def look(self, waiting: deque[int]) -> None:
        """Where a signal has asked for the end, pass it on and begin nothing new."""
        if stop_asked():
            waiting.clear()
            if not self._told:
                self._told = True
                self._interrupt()

    def close(self) -> None:
        """End the processes; those that are still at a run are asked to end in order."""
        self._interrupt()
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.process.join(_STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _interrupt(self) -> None:
        for worker in self._workers:
            if worker.job is not None and worker.process.is_alive() and worker.process.pid is not None:
                os.kill(worker.process.pid, signal.SIGINT)


def _serve_runs(pipe: Connection[Any, Any], log: str) -> None:
    """A worker's life: runs until the study closes its end."""
    os.setpgrp()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    with contextlib.suppress(KeyboardInterrupt), _RAY:
        serve(pipe)


def train(job: Job) -> Ended:
    """Do one run; whatever becomes of it must not take the others with it."""
    try:
        config = config_from_mapping(job.values)
        if ALGORITHMS[config.algorithm].needs_ray and multiprocessing.parent_process() is not None:
            # Where Ray is up already this does nothing.
            _RAY.enter_context(connected(config.resources))
        result = run_experiment(config, RunFolder(job.folder), resume=job.resume, alone=job.alone)
        return Ended("finished" if result.finished else "interrupted")
    except KeyboardInterrupt:
        return Ended("interrupted")
    except ScalepilotError as error:
        return Ended("failed", str(error))
    except Exception as error:  # noqa: BLE001 - it is told, and the others go on
        traceback.print_exc()
        return Ended("failed", f"{type(error).__name__}: {error}")


def train_all(
    planned: Mapping[tuple[str, ...], ExperimentConfig],
    folder: Path,
    *,
    what: str = "study",
    jobs: int | None,
    alone: bool = False,
    resume: str,
    result: Callable[[RunFolder], str],
) -> dict[tuple[str, ...], RunFolder]:
    """Train what is not finished yet.

    Args:
        planned: words that name a run → its experiment.
        folder: of the study; finished runs of the same settings in it are used, others resumed.
        what: the whole is called.
        jobs: worker processes at most; None trains here, one run after the other.
        alone: evaluate policies beside nobody.
        resume: command that goes on, for an error.
        result: what a finished run came to, in a few words.

    Returns:
        The finished run of each.

    Raises:
        RunError: a run failed; the others stay.
        KeyboardInterrupt: stopped early; the runs so far stay.
    """
    known = _known_runs(folder / RUNS)
    found = {key: _run_of(config, known, alone=alone, label=" · ".join(key)) for key, config in planned.items()}
    waiting = [job for job, finished in found.values() if not finished]
    progress, count = Progress(what, unit="runs"), len(planned) - len(waiting)
    progress.begin(len(planned), count)
    if count:
        progress.note(f"{what}: {count} of {len(planned)} runs are finished already")
    failed, interrupted = list[tuple[Job, Ended]](), False
    with contextlib.ExitStack() as stack:
        executor: Executor = SerialExecutor()
        if jobs is not None:
            executor = stack.enter_context(RunExecutor(jobs, folder / LOGS))
            stop = StopFlag()
            stack.enter_context(stop.listening())
        for index, ended in executor.run(train, waiting):
            job, count = waiting[index], count + 1
            said = result(RunFolder(job.folder)) if ended.outcome == "finished" else ended.outcome
            progress.note(f"{count} of {len(planned)} · {job.label}: {said}")
            progress.update(count)
            failed += [(job, ended)] if ended.outcome == "failed" else []
            interrupted = interrupted or ended.outcome == "interrupted"
            if interrupted and jobs is None:
                break
        interrupted = interrupted or stop_asked()
    progress.end()
    if interrupted:
        raise KeyboardInterrupt
    if failed:
        job, ended = failed[0]
        logs = f"; logs in {folder / LOGS}" if jobs is not None else ""
        raise RunError(
            f"{len(failed)} of {len(planned)} runs failed, first {job.label}: {ended.reason}{logs}, resume with: {resume}"
        )
    return {key: RunFolder(job.folder) for key, (job, _) in found.items()}


def _known_runs(runs: Path) -> list[tuple[dict[str, Any], RunFolder, str]]:
    """(config without its output folder, folder, status) of every run there is."""
    known: list[tuple[dict[str, Any], RunFolder, str]] = []
    for file in sorted(runs.glob("*/*/config.yaml")):
        folder = RunFolder(file.parent)
        try:
            values, status = read_yaml(file), read_run_status(folder.path)
        except InputError as error:
            # It is trained again in a new folder; why is worth a line.
            print(f"scalepilot study: left out: {error}", file=sys.stderr)
            continue
        # Without a status: a run killed in its first moments.
        if isinstance(values, dict) and status is not None:
            known.append((_comparable(values), folder, status.status))
    return known


def _comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide a run's result: not where it is written."""
    return {key: value for key, value in values.items() if key != "output"}


def _run_of(
    config: ExperimentConfig, known: Sequence[tuple[dict[str, Any], RunFolder, str]], *, alone: bool, label: str
) -> tuple[Job, bool]:
    """The run of an experiment, one to go on with or a new one, and whether it is finished."""
    wanted = config.to_mapping()
    same = [(folder, status) for values, folder, status in known if values == _comparable(wanted)]
    for folder, status in same:
        if status == "finished" and (folder.evaluation / EPISODES_FILE).is_file():
            return Job(label, wanted, folder.path), True
    for folder, status in same:
        if status != "failed" and Checkpoints(folder.checkpoints, 1).newest() is not None:
            return Job(label, wanted, folder.path, resume=True, alone=alone), False
    return Job(label, wanted, RunFolder.create(config).path, alone=alone), False
