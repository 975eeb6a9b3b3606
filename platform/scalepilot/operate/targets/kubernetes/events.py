"""Notes on the object, where `kubectl describe` and dashboards look."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scalepilot.operate.snapshot import utc
from scalepilot.operate.targets.kubernetes.api import MERGE_PATCH, Api
from scalepilot.operate.targets.kubernetes.resource import Resource

_LONGEST_NOTE = 1000
# People are to look at these; all others are what it does all day.
_NORMAL = frozenset(
    {"ScaledUp", "ScaledDown", "TelemetryRestored", "Started", "Stopped", "Leading", "Standby", "Recovered", "Paused"}
)


@dataclass
class _Told:
    name: str
    message: str
    count: int


class Events:
    """Tells of one object. A state that lasts is one event that is counted up; each move is an event of its own.

    Args:
        api: of the cluster.
        instance: of this process.
        interval_seconds: between two decisions: one note in each at most.
        clock: monotonic seconds.
    """

    def __init__(self, api: Api, instance: str, interval_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._instance, self._clock = api, instance, clock
        self._pause_seconds = interval_seconds / 2
        self._last = float("-inf")
        self._told: dict[str, _Told] = {}
        self.problem = ""

    def tell(self, resource: Resource, uid: str, reason: str, message: str) -> None:
        """Leave a note; whatever becomes of it, `problem` says it and nothing is raised."""
        if self._clock() - self._last < self._pause_seconds:
            return
        self._last = self._clock()
        message = message[:_LONGEST_NOTE]
        told = self._told.get(reason)
        lasts = told is not None and (told.message == message or not reason.startswith("Scaled"))
        if told is None or not lasts or not self._count_up(resource, told, message):
            self._create(resource, uid, reason, message)

    def _count_up(self, resource: Resource, told: _Told, message: str) -> bool:
        path = f"{_path(resource)}/{told.name}"
        body = {"count": told.count + 1, "message": message, "lastTimestamp": utc(time.time())}
        answer = self._api.ask("PATCH", path, body=body, content_type=MERGE_PATCH)
        self.problem = answer.problem and f"events: {answer.problem}"
        if not answer.problem:
            told.count, told.message = told.count + 1, message
        # Servers drop events after an hour. Anything else is not mended by another event.
        return answer.status != 404

    def _create(self, resource: Resource, uid: str, reason: str, message: str) -> None:
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{resource.name[:200]}.", "namespace": resource.namespace},
            "involvedObject": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "namespace": resource.namespace,
                "name": resource.name,
                "uid": uid,
            },
            "reason": reason,
            "message": message,
            "type": "Normal" if reason in _NORMAL else "Warning",
            "source": {"component": "scalepilot"},
            "reportingComponent": "scalepilot.io/operate",
            "reportingInstance": self._instance[:128],
            "firstTimestamp": utc(time.time()),
            "lastTimestamp": utc(time.time()),
            "count": 1,
        }
        answer = self._api.ask("POST", _path(resource), body=body)
        self.problem = answer.problem and f"events: {answer.problem}"
        if not answer.problem:
            self._told[reason] = _Told(str((answer.body.get("metadata") or {}).get("name")), message, 1)


def _path(resource: Resource) -> str:
    return f"/api/v1/namespaces/{resource.namespace}/events"


__all__ = ["Events"]
