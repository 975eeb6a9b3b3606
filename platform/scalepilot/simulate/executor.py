"""Where independent jobs are done: in this process, in several, or wherever an injected executor takes them (Ray)."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, Self, TypeVar

from scalepilot.errors import InputError, RunError, ScalepilotError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
# A job whose worker died is tried once more: memory may have been short for a moment, a crash comes again.
_MOST_ATTEMPTS = 2
_END_SECONDS = 5.0


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Executor(Protocol):
    """Does jobs that do not depend on each other."""

    @property
    def workers(self) -> int:
        """Jobs that are done at the same time."""
        ...

    def run(self, work: Callable[[JobT], ResultT], jobs: Sequence[JobT]) -> Iterator[tuple[int, ResultT]]:
        """Do every job, each in one piece.

        Args:
            work: importable by name, so that another process finds it.
            jobs: what it is called with; `str(job)` names one where something goes wrong.

        Yields:
            (index of the job, its result) as they end, in any order.

        Raises:
            RunError: a worker died, and again when the job was tried once more.
            Exception: what `work` raised.
        """
        ...


class SerialExecutor:
    """One job after the other, here."""

    workers = 1

    def run(self, work: Callable[[JobT], ResultT], jobs: Sequence[JobT]) -> Iterator[tuple[int, ResultT]]:
        """Do every job; see `Executor.run`."""
        for index, job in enumerate(jobs):
            yield index, work(job)


@dataclass
class Worker:
    """A process, the pipe to it, and what it is doing."""

    process: BaseProcess
    pipe: connection.Connection
    job: int | None = None


class ProcessExecutor:
    """Jobs shared among processes, the next one to whoever is free.

    They are spawned, not forked (the caller may run threads, and a forked lock stays locked): a script needs
    `if __name__ == "__main__":` around its work. They start with the first jobs, wait for more, and end with the `with` block or
    the process that started them, however that ends.

    Args:
        processes: how many, at most one a job.
        note: told in one line when a worker died and its job is tried again.
    """

    # Seconds between two looks at what is going on beside the jobs; None looks when one ends.
    look_seconds: float | None = None
    # Jobs that are worth processes; fewer are done here.
    worth_processes = 2

    def __init__(self, processes: int, note: Callable[[str], None] | None = None) -> None:
        if processes < 1:
            raise InputError(f"processes: {processes} is not allowed; allowed: whole numbers from 1")
        self.processes = processes
        self._note = note or (lambda line: None)
        self._workers: list[Worker] = []

    @property
    def workers(self) -> int:
        """Jobs that are done at the same time."""
        return self.processes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; one that is still at a job is ended at once."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.pipe.close()
            if worker.job is not None:
                worker.process.terminate()
        for worker in workers:
            worker.process.join(_END_SECONDS)

    def run(self, work: Callable[[JobT], ResultT], jobs: Sequence[JobT]) -> Iterator[tuple[int, ResultT]]:
        """Do every job; see `Executor.run`."""
        if not jobs or min(self.processes, len(jobs)) < self.worth_processes:
            yield from SerialExecutor().run(work, jobs)
            return
        waiting, attempts = deque(range(len(jobs))), [0] * len(jobs)
        finished = False
        try:
            while waiting or any(w.job is not None for w in self._workers):
                self.look(waiting)
                idle = [w for w in self._workers if w.job is None]
                for _ in range(min(self.processes - len(self._workers), len(waiting) - len(idle))):
                    self._workers.append(self.start_worker())
                for worker in self._workers:
                    if worker.job is None and waiting:
                        worker.job = waiting.popleft()
                        attempts[worker.job] += 1
                        # A worker that died since says so below, where its pipe is read.
                        with contextlib.suppress(OSError):
                            worker.pipe.send((work, jobs[worker.job]))
                busy = {w.pipe: w for w in self._workers if w.job is not None}
                for pipe in connection.wait(list(busy), self.look_seconds):
                    worker = busy[pipe]  # type: ignore[index]
                    index, worker.job = worker.job, None
                    assert index is not None
                    try:
                        done, value = worker.pipe.recv()
                    except (EOFError, OSError):
                        self._workers.remove(worker)
                        value = self.died(worker, jobs[index], attempts[index])
                        if value is None:
                            waiting.appendleft(index)
                            continue
                        done = True
                    if not done:
                        raise value
                    yield index, value
            finished = True
        finally:
            if not finished:
                # Jobs nobody waits for any more must not be taken for the next ones.
                self.close()

    def start_worker(self) -> Worker:
        """A process that waits for jobs."""
        context = get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there,), daemon=True)
        process.start()
        # So that the pipe ends when the worker does.
        there.close()
        return Worker(process, here)

    def look(self, waiting: deque[int]) -> None:
        """Called before jobs are given out.

        Args:
            waiting: indices of the jobs that nobody has yet.
        """

    def died(self, worker: Worker, job: object, attempts: int) -> Any:
        """Say that a worker died, and what of.

        Args:
            worker: that died.
            job: it was at.
            attempts: at this job, this one included.

        Returns:
            What stands for the job's result; None has it tried again.

        Raises:
            RunError: it was not the first on this job.
        """
        worker.process.join(_END_SECONDS)
        code = worker.process.exitcode
        of = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        if attempts >= _MOST_ATTEMPTS:
            raise RunError(f"{job}: its process died {attempts} times ({of}); memory must suffice for {self.processes} at once")
        self._note(f"{job}: its process died ({of}); it is tried again")
        return None


def _serve(pipe: connection.Connection) -> None:
    # Ctrl-C is for the process that started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(pipe)


def serve(pipe: connection.Connection) -> None:
    """A worker's life: jobs until the pipe ends."""
    while True:
        try:
            work, job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[bool, Any] = True, work(job)
        except ScalepilotError as error:
            answer = False, error
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to know
            answer = False, RunError(f"{job}: {type(error).__name__}: {error}\n{traceback.format_exc()}")
        with contextlib.suppress(OSError):
            pipe.send(answer)
