"""Jobs shared among the cores of a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from scalepilot.errors import RunError, ScalepilotError

_JOBS_PER_CORE = 2

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


class RayExecutor:
    """Jobs as tasks of a Ray cluster, one core each; Ray must be up."""

    @property
    def workers(self) -> int:
        """Cores of the cluster."""
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, work: Callable[[JobT], ResultT], jobs: Sequence[JobT]) -> Iterator[tuple[int, ResultT]]:
        """Do every job; see `scalepilot.simulate.Executor`. One whose worker dies is tried once more."""
        import ray

        task = ray.remote(num_cpus=1, max_retries=1)(work)
        # Jobs carry their episodes: no more of them at once than keeps every core busy.
        most = _JOBS_PER_CORE * self.workers
        waiting, running = deque(enumerate(jobs)), dict[Any, int]()
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    index, job = waiting.popleft()
                    running[task.remote(job)] = index
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                index = running.pop(done)
                try:
                    result: ResultT = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, ScalepilotError):
                        raise error.cause from None
                    raise RunError(f"{jobs[index]}: {str(error).splitlines()[-1]}") from error
                except ray.exceptions.RayError as error:
                    raise RunError(f"{jobs[index]}: its process or node died twice ({str(error).splitlines()[0]})") from None
                yield index, result
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
