"""What the workflow system itself would observe: every collected task is read, at every step."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from scalepilot.operate.workflow.connection import RedisDoor

LISTS = ("input_queue", "worker_queue", "result_queue", "output_queue")


def counted(door: RedisDoor) -> tuple[list[int], int, list[dict[str, Any]]]:
    """Lengths of the four lists, tasks ever put in, and all results, of one moment."""
    *lengths, enqueued, raw = door.ask(
        *(("LLEN", name) for name in LISTS), ("GET", "worker_queue:enqueued_total"), ("LRANGE", "output_queue", 0, -1)
    )
    return [int(length) for length in lengths], int(enqueued or 0), [json.loads(one) for one in raw]


def completed(results: list[dict[str, Any]], now: float, window: float) -> tuple[float, float, float]:
    """Mean and longest time and share in time, of what was collected in the last `window` seconds.

    Args:
        results: all there are.
        now: seconds since the start of the program.
        window: seconds.
    """
    recent = [task for task in results if now - window <= task["task_collect_timestamp"] <= now]
    if not recent:
        return 1.5, 1.5, 1.0
    times = [task["task_completion_time"] for task in recent]
    return float(np.mean(times)), float(np.max(times)), float(np.mean([bool(task["task_QoS"]) for task in recent]))
