"""The named physical fields of one moment: what a simulator, an HTTP client and a live cluster all show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.latency import longest_wait_p95_seconds
from scalepilot_envs.autoscale.long_windows import BEFORE_STEPS, CHANGE_STEPS, LATER_STEPS, SOON_STEPS
from scalepilot_envs.autoscale.params import MAX_REPLICAS, AutoscaleParams
from scalepilot_envs.autoscale.services import Services
from scalepilot_envs.description import ObservationField

NUM_STARTING_QUARTERS = 4
MAX_RATE_RPS = 1e6
CLOCK_FIELDS = ("clock_day_sin", "clock_day_cos", "clock_week_sin", "clock_week_cos")
HOUR_FIELDS = ("clock_hour_sin", "clock_hour_cos")
# Turned at serving time: the higher, the safer.
PRICE_FIELD = "late_request_replica_hours"
SERVICE_FIELDS = (
    "startup_seconds",
    "wait_slo_seconds",
    "interval_seconds",
    PRICE_FIELD,
    "min_replicas",
    "max_replicas",
)
MAX_LATE_REQUEST_REPLICA_HOURS = 1000.0
_MAX_SECONDS = 86_400.0
_HOUR_SECONDS, _DAY_SECONDS, _WEEK_SECONDS = 3600.0, 86_400.0, 604_800.0
# 1970-01-01 was a Thursday: weeks are counted from the Monday before it.
_MONDAY_OFFSET_SECONDS = 3 * _DAY_SECONDS


def _duration(seconds: float) -> str:
    """As PromQL writes it, which knows no fractions."""
    return f"{seconds:g}s" if float(seconds).is_integer() else f"{1000 * seconds:.0f}ms"


def _bucket(seconds: float) -> str:
    """Matches the bucket of a bound, which Prometheus 2 writes as 1 and Prometheus 3 as 1.0."""
    text = f"{seconds:g}"
    return 'le=~"' + text.replace(".", "[.]") + ('([.]0)?"' if float(seconds).is_integer() else '"')


def observation_fields(params: AutoscaleParams, capacity_scale: tuple[float, float] = (1.0, 1.0)) -> tuple[ObservationField, ...]:
    """The fields of Autoscale-v0 in the order of the observation vector.

    Args:
        params: history, window, bounds and clock come from here.
        capacity_scale: (low, high) factor on the capacity of a replica that may be shown (randomised training).

    Returns:
        history_steps + 13 fields, 4 more with a clock, 2 more with the time within the hour, 11 more with long windows, 6 more
        with the service's constants.
    """
    p = params
    slowest_rps, fastest_rps = (p.replica_capacity_rps * scale for scale in capacity_scale)
    step, span = _duration(p.interval_seconds), _duration(p.interval_seconds * p.window_steps)
    rate = "sum(rate(http_requests_total{$selector}[$window]))"
    buckets, answered = (f"rate(http_request_duration_seconds_{kind}{{%s$selector}}[$window])" for kind in ("bucket", "count"))
    late = p.wait_slo_seconds + p.service_time_seconds
    count = f"sum({answered % ''})"
    max_latency = p.service_time_seconds + longest_wait_p95_seconds(slowest_rps, p.service_variation) + p.max_wait_seconds
    fields = [
        ObservationField(
            f"request_rate_rps_{i}",
            "requests/s",
            0.0,
            MAX_RATE_RPS,
            f"arrival rate {i} interval{'s' if i > 1 else ''} before the newest" if i else "arrival rate of the newest interval",
            # An offset belongs to the selector, inside rate().
            rate if i == 0 else f"{rate.removesuffix('))')} offset {_duration(p.interval_seconds * i)}))",
        )
        for i in range(p.history_steps)
    ]
    fields += [
        ObservationField(
            "request_rate_mean_rps",
            "requests/s",
            0.0,
            MAX_RATE_RPS,
            f"mean arrival rate of the last {p.window_steps} intervals",
            f"avg_over_time({rate}[{span}:{step}])",
        ),
        ObservationField(
            "request_rate_std_rps",
            "requests/s",
            0.0,
            MAX_RATE_RPS,
            f"standard deviation of the arrival rate over the last {p.window_steps} intervals",
            f"stddev_over_time({rate}[{span}:{step}])",
        ),
        ObservationField(
            "cpu_utilisation",
            "share",
            0.0,
            1.0,
            "mean utilisation of the ready replicas",
            # cAdvisor's rows without a container are sums of the others. Pods that do not serve yet use CPU that is not counted.
            'clamp_max(sum(rate(container_cpu_usage_seconds_total{container!="",container!="POD",$pods}[$window]))'
            ' / sum(kube_pod_container_resource_requests{resource="cpu",$pods}'
            ' and on (namespace, pod) (kube_pod_status_ready{condition="true",$pods} == 1)), 1)',
        ),
        ObservationField(
            "latency_p95_seconds",
            "s",
            0.0,
            max_latency,
            "95 % quantile of the response time",
            # Without requests it is NaN, which no comparison holds for.
            f"histogram_quantile(0.95, sum by (le) ({buckets % ''})) >= 0 or 0 * {count} + {p.service_time_seconds:g}",
        ),
        ObservationField(
            "late_share",
            "share",
            0.0,
            1.0,
            f"share of requests that waited longer than {p.wait_slo_seconds:g} s",
            f"1 - sum({buckets % (_bucket(late) + ',')}) / ({count} > 0) or 0 * {count}",
        ),
        ObservationField(
            "error_share",
            "share",
            0.0,
            1.0,
            "share of requests that were dropped",
            # A service that has never failed has no series of errors.
            f'(sum(rate(http_requests_total{{code=~"5..",$selector}}[$window])) or 0 * {rate}) / ({rate} > 0) or 0 * {rate}',
        ),
        ObservationField(
            "backlog_requests",
            "requests",
            0.0,
            p.max_wait_seconds * fastest_rps * p.max_replicas,
            "requests waiting at the end of the interval",
            "sum(http_requests_queued{$selector})",
        ),
        ObservationField(
            "ready_replicas",
            "replicas",
            0.0,
            float(p.max_replicas),
            "replicas that serve",
            "sum(kube_deployment_status_replicas_ready{$deployment})",
        ),
    ]
    fields += [
        ObservationField(
            f"starting_replicas_{i}",
            "replicas",
            0.0,
            float(p.max_replicas),
            f"replicas in quarter {i + 1} of 4 of the start-up time still to go (1 serves soonest)",
            _starting(p.startup_seconds, i),
        )
        for i in range(NUM_STARTING_QUARTERS)
    ]
    fields.append(ObservationField("replica_capacity_rps", "requests/s", 0.0, MAX_RATE_RPS, "requests/s one replica serves"))
    fields += [
        ObservationField(name, "1", -1.0, 1.0, f"{name[-3:]} of the time of {name[6:-4]} (UTC, weeks begin on Monday)")
        for name in clock_fields(p)
    ]
    fields += _long_window_fields(p, rate, step)
    if p.observe_service:
        fields += _service_fields(p)
    return tuple(fields)


def _long_window_fields(p: AutoscaleParams, rate: str, step: str) -> list[ObservationField]:
    if not p.long_window_steps:
        return []
    change = f"({rate} - {rate.removesuffix('))')} offset {_duration(CHANGE_STEPS * p.interval_seconds)})))"
    fields = []
    for steps in (p.long_window_steps // 4, p.long_window_steps):
        span = _duration(p.interval_seconds * steps)
        for statistic, told, promql in (
            ("mean", "mean arrival rate", f"avg_over_time({rate}[{span}:{step}])"),
            ("max", "highest arrival rate", f"max_over_time({rate}[{span}:{step}])"),
            (
                "change",
                f"root mean square of the rate's change within {CHANGE_STEPS} intervals, over",
                f"sqrt(avg_over_time(({change}^2)[{span}:{step}]))",
            ),
            (
                "rise",
                f"steepest rise of the rate within {CHANGE_STEPS} intervals, over",
                f"clamp_min(max_over_time({change}[{span}:{step}]), 0)",
            ),
        ):
            over = " " if told.endswith("over") else " of "
            name = f"request_rate_{statistic}_rps_{steps}"
            told = f"{told}{over}the last {steps} intervals"
            fields.append(ObservationField(name, "requests/s", 0.0, MAX_RATE_RPS, told, promql))
    ago = p.long_window_steps // 4
    for statistic, told, function, steps, offset in (
        ("lagged", f"mean arrival rate of the {BEFORE_STEPS} intervals up to", "avg", BEFORE_STEPS, ago),
        ("lagged_soon", f"highest arrival rate of the {SOON_STEPS} intervals after", "max", SOON_STEPS, ago - SOON_STEPS),
        ("lagged_later", f"highest arrival rate of the {LATER_STEPS} intervals after", "max", LATER_STEPS, ago - LATER_STEPS),
    ):
        span, back = _duration(p.interval_seconds * steps), _duration(p.interval_seconds * max(0, offset))
        query = f"{function}_over_time({rate}[{span}:{step}] offset {back})"
        told = f"{told} the moment {ago} intervals ago"
        fields.append(ObservationField(f"request_rate_{statistic}_rps_{ago}", "requests/s", 0.0, MAX_RATE_RPS, told, query))
    return fields


def _service_fields(p: AutoscaleParams) -> list[ObservationField]:
    """Constants of the service: no query, whoever runs it knows them."""
    told = (
        ("s", _MAX_SECONDS, "time from ordering a replica until it serves"),
        ("s", _MAX_SECONDS, "a request that waits longer is late"),
        ("s", _MAX_SECONDS, "time between two decisions"),
        ("replica-hours", MAX_LATE_REQUEST_REPLICA_HOURS, "price of a late request: higher is safer, lower is cheaper"),
        ("replicas", float(MAX_REPLICAS), "fewest replicas that may be asked for"),
        ("replicas", float(MAX_REPLICAS), "most replicas that may be asked for"),
    )
    return [ObservationField(name, unit, 0.0, high, text) for name, (unit, high, text) in zip(SERVICE_FIELDS, told, strict=True)]


def service_columns(services: AutoscaleParams | Services, num_envs: int) -> list[NDArray[np.float64]]:
    """The fields of `SERVICE_FIELDS`, each (num_envs,)."""
    s, hour = services, max(services.price_per_replica_hour, 1e-9)
    price = np.minimum(np.asarray(s.price_per_late_request) / hour, MAX_LATE_REQUEST_REPLICA_HOURS)
    values = (s.startup_seconds, s.wait_slo_seconds, s.interval_seconds, price, s.min_replicas, s.max_replicas)
    return [np.broadcast_to(np.asarray(value, dtype=np.float64), (num_envs,)) for value in values]


def _starting(startup_seconds: float, quarter: int) -> str:
    """Pods by age that are not ready; those older than the start-up time are expected at any moment."""
    oldest, youngest = startup_seconds * (4 - quarter) / 4, startup_seconds * (3 - quarter) / 4
    age = "time() - kube_pod_created{$pods}"
    upper = "" if quarter == 0 else f" and {age} < {oldest:g}"
    not_ready = 'unless on (namespace, pod) (kube_pod_status_ready{condition="true",$pods} == 1)'
    # Not vector(0): where kube-state-metrics is away, nothing is known.
    return f"count(({age} >= {youngest:g}{upper}) {not_ready}) or 0 * count(kube_pod_created{{$pods}})"


def clock_fields(params: AutoscaleParams) -> tuple[str, ...]:
    """Names of the clock fields that are shown."""
    return (*(CLOCK_FIELDS if params.observe_clock else ()), *(HOUR_FIELDS if params.observe_hour else ()))


def clock_columns(params: AutoscaleParams, unix_seconds: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The clock fields.

    Args:
        params: says which are shown.
        unix_seconds: (num_envs,) end of the interval just measured.

    Returns:
        Columns in the order of `clock_fields`, each (num_envs,).
    """
    week = (_WEEK_SECONDS, _MONDAY_OFFSET_SECONDS)
    periods = [(_DAY_SECONDS, 0.0), week] if params.observe_clock else []
    if params.observe_hour:
        periods.append((_HOUR_SECONDS, 0.0))
    turns = [(unix_seconds + offset) % period * (2 * np.pi / period) for period, offset in periods]
    return [wave(turn) for turn in turns for wave in (np.sin, np.cos)]
