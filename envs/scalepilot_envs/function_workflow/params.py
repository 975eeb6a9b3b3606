"""Every parameter of FunctionWorkflow-v0, in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from scalepilot_envs.checks import check_number

MEAN_SERVICE_SECONDS = 1.5
# An artifact or a config may come from anywhere: what is allocated by them has a bound.
_MAX_WORKERS, _MAX_STEP_SECONDS, _MAX_TASKS_PER_MINUTE = 10_000, 3600.0, 1e6
_MAX_WORKER_PRICE = 1e3
Reward = Literal["source", "late_tasks"]


@dataclass(frozen=True)
class FunctionWorkflowParams:
    """Workers that serve a queue of tasks.

    Attributes:
        step_seconds: time between two decisions, and what the observation looks back on.
        initial_workers: workers at the start.
        min_workers: fewest workers.
        max_workers: most workers.
        base_tasks_per_minute: what the phases of the workload multiply.
        reward: "source", that of the OpenFaaS toolkit; or "late_tasks", minus the tasks that were late in a step or are pending
            in the end, which is what final_qos counts.
        worker_price: taken off either reward for each worker and step. The source has none (0): its reward sees no difference
            below 14 workers.
    """

    step_seconds: float = 8.0
    initial_workers: int = 12
    min_workers: int = 1
    max_workers: int = 32
    base_tasks_per_minute: float = 300.0
    reward: Reward = "source"
    worker_price: float = 0.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_number(self, "step_seconds", 1e-3, _MAX_STEP_SECONDS)
        check_number(self, "min_workers", 1, _MAX_WORKERS, whole=True)
        check_number(self, "max_workers", self.min_workers, _MAX_WORKERS, whole=True)
        check_number(self, "initial_workers", self.min_workers, self.max_workers, whole=True)
        check_number(self, "base_tasks_per_minute", 1e-6, _MAX_TASKS_PER_MINUTE)
        if self.reward not in get_args(Reward):
            raise ValueError(f"reward: {self.reward!r} is not allowed; allowed: {', '.join(get_args(Reward))}")
        check_number(self, "worker_price", 0, _MAX_WORKER_PRICE)
