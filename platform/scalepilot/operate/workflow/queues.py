"""Names of a workflow's lists in Redis, and the messages in them."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scalepilot.config.checks import Section

# Unix seconds from which the times in tasks are counted; ISO 8601 is understood, too.
STARTED_KEY = "workflow:program_start_time"
# What keys of our own begin with.
OWN_KEYS = "scalepilot:"
_LONGEST_MESSAGE, _LATEST_SECONDS = 100_000, 1e11


@dataclass(frozen=True)
class Queues(Section):
    """The lists' names. Each is put in at its head and taken out at its tail (LPUSH, RPOP).

    Attributes:
        input: phases that the emitter makes tasks of.
        worker: tasks that wait for a worker; `NAME:enqueued_total` counts them all.
        result: results that wait for the collector.
        output: collected results.
        order: orders to a worker to go (SYN).
        acknowledged: workers that have gone (ACK).
        started: workers that have started; null where they do not say so.
    """

    input: str = "input_queue"
    worker: str = "worker_queue"
    result: str = "result_queue"
    output: str = "output_queue"
    order: str = "worker_control_syn_queue"
    acknowledged: str = "worker_control_ack_queue"
    started: str | None = "worker_start_queue"

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [name for name in vars(self).values() if name is not None]
        if not all(names) or len({*names, self.enqueued, STARTED_KEY}) < len(names) + 2:
            raise ValueError("names: one is empty or twice there; allowed: a list of its own for each")
        if any(name.startswith(OWN_KEYS) for name in names):
            raise ValueError(f"names: one begins with {OWN_KEYS}; allowed: others, as those keys are the controller's")

    @property
    def enqueued(self) -> str:
        """The counter of tasks put into `worker`."""
        return f"{self.worker}:enqueued_total"

    @property
    def tasks(self) -> tuple[str, str, str, str]:
        """The four a task goes through."""
        return self.input, self.worker, self.result, self.output


@dataclass(frozen=True)
class Result:
    """A collected task.

    Attributes:
        collected_seconds: when, since the start of the program; None where it does not say.
        sojourn_seconds: from its generation to its collection.
        in_time: whether it met its deadline.
    """

    collected_seconds: float | None
    sojourn_seconds: float
    in_time: bool


def result_of(raw: Any) -> Result | None:
    """An element of `output`; None where it is no result."""
    body = message(raw)
    completion, quality = _number(body.get("task_completion_time")), body.get("task_QoS")
    if completion is None or not isinstance(quality, bool | int) or quality not in (0, 1):
        return None
    return Result(_number(body.get("task_collect_timestamp")), completion, bool(quality))


def message(raw: Any) -> dict[str, Any]:
    """A JSON object; empty for anything else."""
    if not isinstance(raw, bytes | str) or len(raw) > _LONGEST_MESSAGE:
        return {}
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def order(now: float) -> tuple[str, str]:
    """An order to a worker to go.

    Args:
        now: Unix seconds.

    Returns:
        Its id, which workers repeat in their acknowledgement, and the message.
    """
    name = uuid.uuid4().hex
    body = {
        "type": "SCALE_DOWN",
        "action": "SYN",
        "message": "Scale down request",
        "SYN_timestamp": now,
        "task_id": name,
    }
    return name, json.dumps(body)


def payload(queues: Queues, started: float | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker is called with.

    Args:
        queues: where it finds its tasks.
        started: Unix seconds from which times are counted; None where nobody has said so.
        more: of the configuration; it has the last word.
    """
    names = {
        "worker_queue_name": queues.worker,
        "result_queue_name": queues.result,
        "worker_control_syn_queue_name": queues.order,
        "worker_control_ack_queue_name": queues.acknowledged,
        "worker_start_queue_name": queues.started,
    }
    when = {} if started is None else {"program_start_time": datetime.fromtimestamp(started).astimezone().isoformat()}
    return {**names, **when, **more}


def started_of(raw: Any) -> float | None:
    """Unix seconds of the start of the program, as `STARTED_KEY` has them; None where it is not there or is no time."""
    if not isinstance(raw, bytes | str):
        return None
    text = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else raw
    try:
        moment = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            return None
    # Milliseconds would be a year that no calendar has.
    return moment if 0 <= moment < _LATEST_SECONDS else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


__all__ = ["OWN_KEYS", "STARTED_KEY", "Queues", "Result", "message", "order", "payload", "result_of", "started_of"]
