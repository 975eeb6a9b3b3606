"""Runs of a study in worker processes: each starts Ray once and trains one run after the other.

Workers have process groups of their own: a terminal's Ctrl-C reaches the study alone, which passes it on, so that a run is
never asked twice by one key. What they print goes to a log file.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from scalepilot.cluster.connection import connected
from scalepilot.config import ALGORITHMS, ExperimentConfig, config_from_mapping
from scalepilot.errors import ScalepilotError
from scalepilot.experiments.run import run_experiment
from scalepilot.files.stop import StopFlag
from scalepilot.runs.folder import RunFolder

Outcome = Literal["finished", "interrupted", "failed"]
_POLL_SECONDS = 0.3
# A run that is asked to stop ends its iteration, writes a checkpoint and exports what it has.
_STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        label: for the person who watches.
        config: the experiment.
        folder: its run folder, made already.
        resume: go on from its newest checkpoint.
    """

    label: str
    config: ExperimentConfig
    folder: Path
    resume: bool = False


@dataclass(frozen=True)
class Ended:
    """How a run ended, and why where it failed."""

    job: Job
    outcome: Outcome
    reason: str = ""


class _Worker:
    def __init__(self, log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, str(log)), daemon=False)
        self.process.start()
        theirs.close()
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job
        self.connection.send((job.config.to_mapping(), str(job.folder), job.resume))

    def answer(self) -> Ended:
        assert self.job is not None
        job, self.job = self.job, None
        try:
            outcome, reason = self.connection.recv()
        except EOFError:
            self.process.join()
            return Ended(job, "failed", f"its process ended with exit code {self.process.exitcode}")
        return Ended(job, outcome, reason)

    def interrupt(self) -> None:
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        self.connection.close()
        self.process.join(_STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_jobs(jobs: Sequence[Job], num_workers: int, logs: Path, on_end: Callable[[Ended], None]) -> list[Ended]:
    """Run them all, in order, as many at once as there are workers.

    Args:
        jobs: what to run.
        num_workers: processes at most.
        logs: folder of the workers' logs.
        on_end: called with each run that ended.

    Returns:
        How each ended, in the order in which they did.

    Raises:
        KeyboardInterrupt: stopped early; the runs were asked to end in order and can be gone on with.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, ended, stop = list(jobs), list[Ended](), StopFlag()
    workers = [_Worker(logs / f"worker-{i}.log") for i in range(min(num_workers, len(jobs)))]
    try:
        with stop.listening():
            asked = False
            for worker in workers:
                worker.give(waiting.pop(0))
            while busy := [worker for worker in workers if worker.job is not None]:
                if stop.asked and not asked:
                    asked = True
                    for worker in busy:
                        worker.interrupt()
                ready = wait([worker.connection for worker in busy], timeout=_POLL_SECONDS)
                for worker in busy:
                    if worker.connection not in ready:
                        continue
                    ended.append(worker.answer())
                    on_end(ended[-1])
                    if waiting and not stop.asked:
                        if not worker.process.is_alive():
                            workers[workers.index(worker)] = worker = _Worker(logs / f"worker-{len(ended)}-again.log")
                        worker.give(waiting.pop(0))
    except KeyboardInterrupt:
        for worker in workers:
            worker.interrupt()
        raise
    finally:
        for worker in workers:
            worker.end()
    if stop.asked:
        raise KeyboardInterrupt
    return ended


def _work(connection: Connection[Any, Any], log: str) -> None:
    """A worker's life: runs until the study closes its end."""
    os.setpgrp()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError), contextlib.ExitStack() as stack:
        is_connected = False
        while True:
            mapping, folder, resume = connection.recv()
            config = config_from_mapping(mapping)
            try:
                if ALGORITHMS[config.algorithm].needs_ray and not is_connected:
                    stack.enter_context(connected(config.resources))
                    is_connected = True
                result = run_experiment(config, RunFolder(Path(folder)), resume=resume)
                connection.send(("finished" if result.finished else "interrupted", ""))
            except KeyboardInterrupt:
                connection.send(("interrupted", ""))
                raise
            except ScalepilotError as error:
                connection.send(("failed", str(error)))
            except Exception as error:  # noqa: BLE001 - one run that fails must not take the others with it
                traceback.print_exc()
                connection.send(("failed", f"{type(error).__name__}: {error}"))
