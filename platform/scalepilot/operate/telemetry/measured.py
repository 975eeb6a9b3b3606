"""What was measured at one moment, as readings: a value with its source and age, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from scalepilot.operate.snapshot import Reading, Replicas
from scalepilot.operate.telemetry.asking import Problem
from scalepilot.operate.telemetry.counters import Array, Counters, Samples, newest_values
from scalepilot.operate.telemetry.histograms import Buckets, buckets_of
from scalepilot.operate.telemetry.memory import Memory
from scalepilot.operate.telemetry.settings import PrometheusSettings

# Labels by which clients and proxies tell how a request ended.
_CLIENTS = ("code", "status", "status_code", "response_code", "http_status_code")
STATUS_LABELS = (*_CLIENTS, "http_response_status_code", "http.response.status_code")
_BUSY = 0.9
_SPREAD = "spread evenly over a time without samples"
# Of the replicas that serve: what so few that are not scraped serve is estimated.
_MOST_UNSEEN = 0.25
_ERRORS = "scalepilot_errors"


@dataclass(frozen=True)
class Measured:
    """Everything that was asked for one moment.

    Attributes:
        now: Unix seconds.
        interval_seconds: of a step.
        window_steps: intervals that are looked back on.
        replicas: what the target says.
        settings: which sources there are.
        answers: source → its series, or a `Problem`.
        labels: source → how a person would name it.
        memory: of earlier moments.
    """

    now: float
    interval_seconds: float
    window_steps: int
    replicas: Replicas
    settings: PrometheusSettings
    answers: Mapping[str, Any]
    labels: Mapping[str, str]
    memory: Memory = field(repr=False)

    def reading(self, source: str, value: float | None, newest: float | None, problem: str = "", note: str = "") -> Reading:
        """A reading of a source's, at its newest sample."""
        label = self.labels.get(source, source) + (f" ({note})" if note else "")
        age = None if newest is None else self.now - newest
        if value is not None and not math.isfinite(value):
            value, problem = None, problem or "no samples tell of the whole interval"
        return Reading(value, label, age, problem)

    def remember(self) -> None:
        """Keep what later moments need of this one."""
        self.memory.see(self.now, self.num_ready)
        if self.memory.rates is not None and self.requests is not None:
            self.memory.rates.keep(self.now, self.filled, self.now - self.requests.newest)

    def missing(self, source: str) -> Reading:
        """Why a source tells nothing."""
        answer = self.answers.get(source)
        if isinstance(answer, Problem):
            return Reading(None, self.labels.get(source, source), None, answer.reason)
        if answer is None:
            return Reading(None, "", None, f"nothing measures it: telemetry.{source} is not set")
        return Reading(None, self.labels[source], None, "no samples: no such series, or not scraped any more")

    def series(self, source: str) -> Sequence[Samples]:
        """The series of a source; none where they are not known."""
        answer = self.answers.get(source)
        return answer if isinstance(answer, list) else ()

    def counters(self, source: str) -> Counters | None:
        """The counters of a source; None where they are not known."""
        series = self.series(source)
        return Counters(series, self.interval_seconds, self.num_ready) if series else None

    # Requests

    @cached_property
    def requests(self) -> Counters | None:
        """The counter of requests."""
        return self.counters("requests")

    @cached_property
    def unseen(self) -> int:
        """Replicas that serve and are not scraped."""
        wanted = self.settings.requests
        if self.requests is None or wanted is None:
            return 0
        return self.memory.unseen(self.requests, self.num_ready, wanted.per_replica)

    @cached_property
    def counts(self) -> Array:
        """(window_steps,) requests of each interval, newest first; NaN where unknown."""
        if self.requests is None:
            return np.full(self.window_steps, np.nan)
        ends = self.requests.ends(self.now, self.interval_seconds, self.window_steps)
        counted = self.requests.counted(ends, self.interval_seconds)
        return counted + self.requests.of_unseen(ends, self.interval_seconds, self.unseen) if self.unseen else counted

    @cached_property
    def filled(self) -> Array:
        """The same; where nothing was scraped, such as while Prometheus was restarted, the mean over that time stands in.

        The counters tell how many came in all, if only the newest interval is known.
        """
        missing = np.isnan(self.counts)
        if self.requests is None or missing[0] or not missing.any():
            return self.counts
        ends = self.requests.ends(self.now, self.interval_seconds, self.window_steps)
        return np.where(missing, self.requests.spread(ends, self.interval_seconds), self.counts)

    def count(self, back: int = 0, per: float = 1.0) -> Reading:
        """Requests of an interval, so many before the newest, divided by `per`."""
        value, spread = float(self.counts[back]), float(self.filled[back])
        if math.isnan(value) and not math.isnan(spread):
            return self.counted(spread / per, _SPREAD, assumed=True)
        return self.counted(value / per)

    def counted(self, value: float | None, problem: str = "", *, assumed: bool = False) -> Reading:
        """A reading of the requests; replicas that are not scraped are told of."""
        if self.requests is None:
            return self.missing("requests")
        if not self.unseen:
            return replace(self.reading("requests", value, self.requests.newest, problem), assumed=assumed)
        seen = self.requests.num_live
        told = f"{seen} of {seen + self.unseen} replicas that serve are scraped"
        if self.unseen > _MOST_UNSEEN * (seen + self.unseen):
            # Of whoever counts for all, which nobody can tell from a loss.
            hint = " (requests.per_replica: false where they do not count by themselves)"
            return self.reading("requests", None, self.requests.newest, told + hint)
        told += ": the others are taken to serve as much each"
        return replace(self.reading("requests", value, self.requests.newest, told), assumed=True)

    def count_statistic(self, steps: int, fewest: int, per: float, *, deviation: bool = False) -> Reading:
        """Mean, or standard deviation, of the requests of the newest intervals, divided by `per`.

        Args:
            steps: intervals.
            fewest: of them that must be known.
            per: divisor.
            deviation: the standard deviation.
        """
        known = self.counts[:steps][~np.isnan(self.counts[:steps])] / per
        told = "" if len(known) == steps else f"{len(known)} of {steps} intervals are known"
        if len(known) < min(fewest, steps):
            spread = self.filled[:steps][~np.isnan(self.filled[:steps])] / per
            if len(spread) < min(fewest, steps):
                return self.counted(None, told)
            return self.counted(
                float(spread.std() if deviation else spread.mean()), f"{told}, the others {_SPREAD}", assumed=True
            )
        # A young service has no more, and the simulator begins its episodes in the same way.
        return self.counted(float(known.std() if deviation else known.mean()), told, assumed=2 * len(known) < steps)

    # Errors

    def error_share(self) -> Reading:
        """Share of the newest interval's requests that failed."""
        known = self.count()
        if self.requests is None or known.value is None:
            return known
        # Of those that were seen.
        total = float(self.requests.counted(self.requests.ends(self.now, self.interval_seconds, 1), self.interval_seconds)[0])
        failed = self._failed() if total > 0 else 0.0
        if isinstance(failed, Reading):
            return failed
        return self.reading("errors", float(np.minimum(1.0, failed / total)) if total > 0 else 0.0, self.requests.newest)

    def _failed(self) -> float | Reading:
        assert self.requests is not None
        end = self.requests.ends(self.now, self.interval_seconds, 1)
        if "errors" not in self.answers:
            statuses = [name for name in STATUS_LABELS if any(name in one.labels for one in self.series("requests"))]
            if not statuses:
                told = f"no label {' or '.join(STATUS_LABELS[:2])} tells which requests failed: set telemetry.errors"
                return self.reading("requests", None, None, told)
            return float(
                self.requests.counted(
                    end, self.interval_seconds, lambda labels: any(labels.get(name, "").startswith("5") for name in statuses)
                )[0]
            )
        if isinstance(self.answers["errors"], Problem):
            return self.missing("errors")
        # Beside the requests, which tell that errors would have been seen: none at all, or a first one, counts from zero.
        errors = [Samples({**one.labels, _ERRORS: "yes"}, one.times, one.values) for one in self.series("errors")]
        both = Counters([*self.series("requests"), *errors], self.interval_seconds, self.num_ready)
        return float(both.counted(end, self.interval_seconds, lambda labels: _ERRORS in labels)[0])

    # Response times

    @cached_property
    def latency(self) -> tuple[Buckets, float] | None:
        """The histogram of the newest interval, and its newest sample; None where it is not known."""
        counters, wanted = self.counters("latency"), self.settings.latency
        if counters is None or wanted is None:
            return None
        end = float(counters.ends(self.now, self.interval_seconds, 1)[0])
        buckets = buckets_of(counters, end, self.interval_seconds, 0.001 if wanted.unit == "ms" else 1.0)
        return None if buckets is None else (buckets, counters.newest)

    def quantile_seconds(self, share: float, at_rest: float) -> Reading:
        """The response time within which a share of the newest interval's requests was answered."""
        found = self._of_latency(at_rest)
        if isinstance(found, Reading):
            return found
        buckets, newest = found
        value = buckets.quantile(share)
        note = "at least: beyond the last bucket" if value is not None and value >= float(buckets.bounds[-2]) else ""
        return self.reading("latency", value, newest, "" if value is not None else "the histogram has no finite bucket", note)

    def mean_seconds(self, at_rest: float) -> Reading:
        """Mean response time of the newest interval."""
        found = self._of_latency(at_rest)
        if isinstance(found, Reading):
            return found
        buckets, newest = found
        sums, wanted = self.counters("latency_sum"), self.settings.latency
        if sums is None or wanted is None:
            return self.missing("latency_sum")
        end = sums.ends(self.now, self.interval_seconds, 1)
        unit = 0.001 if wanted.unit == "ms" else 1.0
        return self.reading("latency", float(sums.counted(end, self.interval_seconds)[0]) * unit / buckets.total, newest)

    def late_share(self, seconds: float) -> Reading:
        """Share of the newest interval's requests that took longer."""
        found = self._of_latency(0.0)
        if isinstance(found, Reading):
            return found
        buckets, newest = found
        value = buckets.share_above(seconds)
        low, high = buckets.bracket(seconds)
        if value is None:
            return self.reading("latency", None, newest, f"the last bucket ends at {low:g} s, below {seconds:g} s")
        return self.reading("latency", value, newest, note="" if low == high else f"between buckets {low:g} and {high:g} s")

    def _of_latency(self, at_rest: float) -> Reading | tuple[Buckets, float]:
        """The histogram, or the reading where it tells nothing."""
        count = self.count()
        if self.latency is None:
            # Without requests nobody waits, whether a histogram has begun to exist or not.
            if count.value == 0 and not isinstance(self.answers.get("latency"), Problem) and "latency" in self.answers:
                return Reading(at_rest, f"{self.labels['latency']} (no requests)", count.age_seconds)
            if self.series("latency"):
                return self.reading("latency", None, None, 'no buckets: it has no series with le="+Inf"')
            return self.missing("latency")
        buckets, newest = self.latency
        if math.isnan(buckets.total):
            return self.reading("latency", math.nan, newest)
        if buckets.total <= 0:
            return self.reading("latency", at_rest, newest, note="no requests")
        return buckets, newest

    # CPU, memory, queues

    def cpu_share(self) -> Reading:
        """CPU time of the newest interval, of what the replicas that served in it may use."""
        counters = self.counters("cpu")
        if counters is None:
            return self.missing("cpu")
        cores = self._cores()
        if isinstance(cores, Reading):
            return cores
        end = counters.ends(self.now, self.interval_seconds, 1)
        used = float(counters.counted(end, self.interval_seconds)[0]) / self.interval_seconds
        # Compared with a number, NaN would become 1 or 0.
        if math.isnan(used):
            return self.reading("cpu", None, counters.newest)
        ready = self.memory.ready_between(float(end[0]) - self.interval_seconds, float(end[0]))
        if ready is None:
            return self.reading("cpu", None, counters.newest, "how many replicas serve is unknown")
        if all("pod" in one.labels for one in self.series("cpu")):
            seen = counters.num_live
            if seen < ready / 2:
                told = f"CPU of {seen} of {ready:g} replicas that serve is measured"
                return self.reading("cpu", None, counters.newest, told)
            # A new pod is not seen at once: the mean over those that are.
            ready = min(ready, seen)
        if ready <= 0:
            return self.reading("cpu", float(used > 0), counters.newest, note="no replica serves")
        return self.reading("cpu", float(np.minimum(1.0, used / (cores * ready))), counters.newest)

    def _cores(self) -> float | Reading:
        wanted = self.settings.cpu
        assert wanted is not None
        if wanted.requests is None:
            return wanted.cores_per_replica or 1.0
        answer = self.answers["cpu_requests"]
        if isinstance(answer, Problem):
            return Reading(None, self.labels["cpu_requests"], None, answer.reason)
        by_pod: dict[str, float] = {}
        for labels, value in answer:
            pod = labels.get("pod", "")
            by_pod[pod] = by_pod.get(pod, 0.0) + value
        cores = float(np.mean(list(by_pod.values()))) if by_pod else 0.0
        if not (math.isfinite(cores) and cores > 0):
            return Reading(None, self.labels["cpu_requests"], None, "gives no number of cores")
        return cores

    def gauge(self, source: str) -> Reading:
        """The sum of a gauge over its series."""
        if not (series := self.series(source)):
            return self.missing(source)
        values, newest = newest_values(series)
        return self.reading(source, math.fsum(value for _, value in values), newest)

    def backlog(self, service_seconds: float, slo_seconds: float) -> Reading:
        """Requests that wait: measured, or derived from the response times of a service where most are late."""
        if self.settings.backlog is not None:
            return self.gauge("backlog")
        median, rate = self.quantile_seconds(0.5, service_seconds), self.count(per=self.interval_seconds)
        told = "no gauge (telemetry.backlog): derived from the response times"
        if median.value is None or rate.value is None:
            return Reading(None, median.source, median.age_seconds, median.problem or rate.problem)
        waits = median.value - service_seconds
        value = rate.value * waits if waits > slo_seconds else 0.0
        return Reading(value, median.source, median.age_seconds, told, assumed=True)

    # Replicas

    def ready(self) -> Reading:
        """Replicas that serve."""
        if self.replicas.ready is not None:
            return Reading(float(self.replicas.ready), "target", 0.0)
        if self.settings.replicas is None:
            return Reading(None, "target", None, self.replicas.problem or "the target does not tell how many replicas serve")
        return self.gauge("replicas")

    @property
    def num_ready(self) -> int | None:
        """Replicas that serve; None where nobody knows."""
        value = self.ready().value
        return None if value is None else round(value)

    def starting_ages(self) -> tuple[list[float], str, str] | Reading:
        """Ages of the replicas that do not serve yet, their source, and what was assumed; or why they are unknown."""
        spec, ready = self.replicas.spec, self.ready().value
        ages = self.replicas.starting_ages_seconds
        source = "target"
        if ages is None and self.settings.starting is not None:
            found = self._pod_ages()
            if isinstance(found, Reading):
                return found
            ages, source = found, self.labels["starting"]
        if spec is None or ready is None:
            if ages is not None:
                return list(ages), source, ""
            return Reading(None, "target", None, self.replicas.problem or "the target does not tell its replicas")
        known = list(ages or ())
        # Those that were asked for, and that nobody has made yet, have the whole of their start-up before them.
        unmade = max(0, int(spec - ready) - len(known))
        told = "" if ages is not None or not unmade else "the ages are unknown: taken as just asked for"
        return known + [0.0] * unmade, source, told

    def _pod_ages(self) -> tuple[float, ...] | Reading:
        series = self.series("starting")
        created = [one for one in series if one.labels.get("__name__", "").endswith("_created")]
        if not created:
            return self.missing("starting")
        values, _ = newest_values(series)

        def pods(name: str, **wanted: str) -> dict[tuple[str, str], float]:
            return {
                (labels.get("namespace", ""), labels.get("pod", "")): value
                for labels, value in values
                if labels["__name__"].endswith(name) and all(labels.get(key) == text for key, text in wanted.items())
            }

        made, serving = pods("_created"), pods("_status_ready", condition="true")
        gone = set(pods("_deletion_timestamp"))
        gone |= {pod for phase in ("Failed", "Succeeded") for pod, is_so in pods("_status_phase", phase=phase).items() if is_so}
        return tuple(self.now - at for pod, at in made.items() if pod not in gone and not serving.get(pod))

    # Capacity

    def capacity(self, trained_rps: float) -> Reading:
        """Requests/s that one replica serves: as configured, as learned where replicas are busy, or as the policy was told."""
        if self.settings.capacity_rps is not None:
            return Reading(self.settings.capacity_rps, "config")
        rate, ready, cpu = self.count(per=self.interval_seconds), self.ready(), self.cpu_share()
        if rate.value and ready.value and cpu.value is not None and cpu.value >= _BUSY:
            served_by = self.memory.ready_between(self.now - self.interval_seconds, self.now) or ready.value
            self.memory.learn_capacity(rate.value / served_by)
        if self.memory.capacity_rps is not None:
            return Reading(self.memory.capacity_rps, "learned: highest rate a replica served with its CPU at 0.9 or above")
        told = "not learned yet, as no replica was busy (telemetry.capacity_rps): that which the policy was made for"
        return Reading(trained_rps, "policy", None, told, assumed=True)


__all__ = ["STATUS_LABELS", "Measured"]
