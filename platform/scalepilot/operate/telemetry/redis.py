"""The nine fields of FunctionWorkflow-v0 from a workflow's Redis.

Nothing is taken out of a list, and of the collected results only those are read that were not read before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.errors import ConfigError
from scalepilot.operate.snapshot import PENDING, Reading, Replicas, Snapshot
from scalepilot.operate.telemetry import TelemetryContext
from scalepilot.operate.telemetry.asking import Asking, Problem
from scalepilot.operate.workflow.connection import RedisDoor, RedisError, RedisSettings
from scalepilot.operate.workflow.queues import STARTED_KEY, Queues, Result, result_of, started_of
from scalepilot_envs.function_workflow import FunctionWorkflowParams
from scalepilot_envs.function_workflow.params import MEAN_SERVICE_SECONDS

# For everything of one moment.
_SECONDS = 1.8
# Results that are read at a time, and remembered.
_MOST_RESULTS = 5000
_MOST_COUNTS = 256
# So much of an interval the clock of results may differ from ours.
_MOST_SKEW = 0.25
# So much of an interval a moment may be early or late.
_JITTER = 0.25
_FIELDS = (
    "input_queue",
    "worker_queue",
    "result_queue",
    "output_queue",
    "workers",
    "sojourn_mean_seconds",
    "sojourn_max_seconds",
    "arrival_rate_per_second",
    "qos",
)


@dataclass(frozen=True)
class RedisTelemetrySettings(RedisSettings):
    """Keys of `telemetry` with `kind: redis`.

    Attributes:
        queues: the lists' names.
    """

    queues: Queues = field(default_factory=Queues)


_SETTINGS: TypeAdapter[RedisTelemetrySettings] = TypeAdapter(RedisTelemetrySettings)


@dataclass(frozen=True)
class _Seen:
    """What Redis held at a moment, beside the results.

    Attributes:
        lengths: of the four lists.
        enqueued: tasks that were ever put in; None where nobody counts them.
        started: Unix seconds from which the times in results are counted; None where nobody says so.
    """

    lengths: tuple[int, int, int, int]
    enqueued: int | None
    started: float | None


class RedisTelemetry:
    """Reads the fields of FunctionWorkflow-v0.

    Args:
        settings: where.
        context: whose fields are wanted.

    Raises:
        ConfigError: the policy is for another environment.
        InputError: a secret cannot be read, or is within reach of others.
    """

    def __init__(self, settings: RedisTelemetrySettings, context: TelemetryContext) -> None:
        if not isinstance(context.env.params, FunctionWorkflowParams):
            raise ConfigError(f"telemetry.kind: redis has no fields of {context.env.env_id}; allowed: prometheus")
        self._window = context.env.params.step_seconds
        self._names = [f.name for f in context.fields]
        self._queues = settings.queues
        self._door = RedisDoor(settings, "telemetry")
        self._asking = Asking()
        # (moment, tasks ever put in), the newest last.
        self._counts: deque[tuple[float, float]] = deque(maxlen=_MOST_COUNTS)
        # (moment, result), of the last two intervals.
        self._results: deque[tuple[float, Result]] = deque(maxlen=_MOST_RESULTS)
        # Of the collected results: how many there were, and the newest of them.
        self._length = 0
        self._newest: bytes | None = None
        self._read_at: float | None = None
        self._trouble = PENDING
        self._skew = ""

    def read(self, now: float, replicas: Replicas) -> Snapshot:
        """What is known at a moment.

        Args:
            now: Unix seconds of it, by the clock that results are counted by.
            replicas: what the target says.
        """
        seen = self._asking.ask({"redis": lambda seconds: self._seen(float(now))}, _SECONDS)["redis"]
        if isinstance(seen, Problem):
            readings = {name: Reading(None, "redis", None, seen.reason) for name in self._names}
            extra = {name: Reading(None, "redis", None, seen.reason) for name in ("requests", "late_requests")}
        else:
            found = self._readings(seen, float(now))
            readings = {name: found[name] for name in self._names if name in found}
            extra = {name: found[name] for name in ("requests", "late_requests")}
        if "workers" in self._names:
            spec = replicas.spec
            readings["workers"] = Reading(
                None if spec is None else float(spec), "target", 0.0, "" if spec is not None else replicas.problem or "unknown"
            )
        return Snapshot(now, readings, replicas, extra)

    def _seen(self, now: float) -> _Seen:
        """Everything of one moment; also reads the new results."""
        q = self._queues
        asked = [("LLEN", name) for name in q.tasks]
        *lengths, enqueued, started = self._door.ask(*asked, ("GET", q.enqueued), ("GET", STARTED_KEY))
        seen = _Seen(tuple(lengths), _count(enqueued), started_of(started))
        if seen.enqueued is None and enqueued is None and not any(seen.lengths):
            # No task was ever put in.
            seen = _Seen(seen.lengths, 0, seen.started)
        self._take_results(seen, now)
        if seen.enqueued is not None:
            # A counter that begins anew, or a clock that was set back.
            if self._counts and (seen.enqueued < self._counts[-1][1] or now < self._counts[-1][0]):
                self._counts.clear()
            if not self._counts or abs(now - self._counts[-1][0]) > 4 * self._window / _MOST_COUNTS:
                self._counts.append((now, seen.enqueued))
        return seen

    def _take_results(self, seen: _Seen, now: float) -> None:
        """Read results that were not read before. They are found from the tail, which new ones do not move."""
        length, before = seen.lengths[3], self._length
        set_back = self._read_at is not None and now < self._read_at
        follows = self._read_at is not None and length >= before and not set_back
        most = min(length - before if follows else length, _MOST_RESULTS)
        # One more shows whether the newest of last time is where it was.
        overlap = 1 if follows and before and most == length - before else 0
        raw = self._newest_results(length, most + overlap)
        if overlap and raw[-1:] != [self._newest]:
            # Others have taken results out and put others in.
            follows, most = False, min(length, _MOST_RESULTS)
            raw = self._newest_results(length, most)
        new = [result_of(one) for one in raw[:most]]
        self._skew = ""
        trouble = ""
        if set_back:
            trouble = "the clock was set back: results are counted from now on"
        elif not follows and seen.started is None and self._read_at is not None:
            trouble = "results were taken out: they are counted from now on"
        elif not follows and seen.started is None and length:
            trouble = PENDING
        elif None in new:
            trouble = f"{new.count(None)} of {len(new)} new results cannot be read"
        if not follows:
            self._results.clear()
        if not trouble:
            since = self._read_at if follows else None
            self._results.extend((self._moment(one, seen, since, now), one) for one in reversed(new) if one is not None)
        self._trouble = trouble
        self._length, self._read_at = length, now
        if raw or not length:
            self._newest = raw[0] if raw else None

    def _newest_results(self, length: int, most: int) -> list[Any]:
        if not most:
            return []
        (raw,) = self._door.ask(("LRANGE", self._queues.output, -length, -length + most - 1))
        return list(raw)

    def _moment(self, result: Result, seen: _Seen, since: float | None, now: float) -> float:
        """When it was collected; where its clock is not known, or differs from ours, when it was seen."""
        if seen.started is None or result.collected_seconds is None:
            return now
        moment, most = seen.started + result.collected_seconds, _MOST_SKEW * self._window
        # One that was not there last time was collected since.
        if moment > now + most or (since is not None and moment < since - most):
            self._skew = f"{abs(now - moment):.1f} s {'ahead' if moment > now else 'ago'} by their own clock, which differs"
            return now
        return min(now, moment)

    def _readings(self, seen: _Seen, now: float) -> dict[str, Reading]:
        q = self._queues
        found = {
            name: Reading(float(length), f"redis {queue}", 0.0)
            for name, queue, length in zip(_FIELDS[:4], q.tasks, seen.lengths, strict=True)
        }
        rate, requests = self._arrivals(now, seen)
        return found | self._completed(now, seen) | {"arrival_rate_per_second": rate, "requests": requests}

    def _arrivals(self, now: float, seen: _Seen) -> tuple[Reading, Reading]:
        """The rate since an interval ago, and the tasks of an interval."""
        source = f"redis {self._queues.enqueued}"
        if seen.enqueued is None:
            told = "is not there, or is no number: put tasks in with LPUSH and INCR"
            return (Reading(None, source, None, told),) * 2
        least, most = ((1 + sign * 2 * _JITTER) * self._window for sign in (-1, 1))
        older = [at for at in self._counts if now - at[0] >= least]
        if not older:
            return (Reading(None, source, 0.0, PENDING),) * 2
        moment, count = min(older, key=lambda at: abs(now - self._window - at[0]))
        told = ""
        if now - moment > most:
            # Moments were missed: what came in between is spread evenly.
            told = f"nothing was read for {now - moment:.0f} s"
            times, counts = zip(*self._counts, (now, seen.enqueued), strict=True)
            moment, count = now - self._window, float(np.interp(now - self._window, times, counts))
        rate = (seen.enqueued - count) / (now - moment)
        requests = Reading(rate * self._window, source, 0.0, told, bool(told))
        return Reading(rate, source, 0.0, told, bool(told)), requests

    def _completed(self, now: float, seen: _Seen) -> dict[str, Reading]:
        """Of the results of the last interval."""
        source, names = f"redis {self._queues.output}", ("sojourn_mean_seconds", "sojourn_max_seconds", "qos", "late_requests")
        while self._results and self._results[0][0] < now - 2 * self._window:
            self._results.popleft()
        if self._trouble:
            return {name: Reading(None, source, 0.0, self._trouble) for name in names}
        # Where only the moment is known at which a result was seen, that of an interval ago may have been a little late.
        since = now - self._window * (1.0 if seen.started is not None else 1.0 - _JITTER)
        recent = [result for moment, result in self._results if moment > since]
        if not recent:
            source += f": none in the last {self._window:g} s"
            values = (MEAN_SERVICE_SECONDS, MEAN_SERVICE_SECONDS, 1.0, 0.0)
            return {name: Reading(value, source, 0.0) for name, value in zip(names, values, strict=True)}
        sojourns = np.array([result.sojourn_seconds for result in recent])
        late = sum(not result.in_time for result in recent)
        told = ""
        if len(self._results) == self._results.maxlen and self._results[0][0] > since:
            told = f"of the newest {_MOST_RESULTS} results"
        elif self._skew:
            told = f"results are {self._skew}: they count when they are seen"
        values = (float(sojourns.mean()), float(sojourns.max()), 1.0 - late / len(recent), float(late))
        return {name: Reading(value, source, 0.0, told, bool(told)) for name, value in zip(names, values, strict=True)}

    def check(self, now: float) -> list[str]:
        """What an operator should know: whether the tasks are counted, and by which clock."""
        try:
            seen = self._seen(float(now))
        except RedisError as error:
            return [str(error)]
        lines = []
        if seen.enqueued is None:
            lines.append(
                f"{self._queues.enqueued} is not there: arrival_rate_per_second is unknown; put tasks in with LPUSH and INCR"
            )
        if seen.started is None:
            lines.append(
                f"{STARTED_KEY} is not there, or is no time: results count when they are seen;"
                " set it to the Unix seconds that their times begin at"
            )
        return lines

    def close(self) -> None:
        """Let connections go."""
        self._asking.close()
        self._door.close()


def _count(raw: Any) -> int | None:
    text = raw.decode("ascii", errors="replace") if isinstance(raw, bytes) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def make(settings: Mapping[str, Any], context: TelemetryContext) -> RedisTelemetry:
    """The telemetry of these settings.

    Raises:
        ConfigError: a key or value that is not allowed, or a policy for another environment.
        InputError: a secret cannot be read.
    """
    return RedisTelemetry(checked(RedisTelemetrySettings, _SETTINGS, dict(settings), "telemetry"), context)
