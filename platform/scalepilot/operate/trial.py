"""`scalepilot operate --twin`: a policy runs a simulated service through everything a real one would go through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.operate.config import Service
from scalepilot.operate.controller import Controller
from scalepilot.operate.ledger import Entry, Ledger
from scalepilot.operate.telemetry import TelemetryContext
from scalepilot.operate.telemetry.prometheus import PrometheusTelemetry
from scalepilot.operate.telemetry.scrape import ScrapedPage
from scalepilot.operate.telemetry.settings import prometheus_settings
from scalepilot.operate.twin import Clock, Twin, TwinTarget, exporter, living
from scalepilot.policy import Policy, Shown
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot.simulate import EpisodeSet, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams

Array = NDArray[np.float64]
# Scrapes an interval, as advised for a real one.
_SCRAPES = 3
# When monitoring fails, a share of the trial, and for how many intervals.
_OUTAGE_AT, _OUTAGE_INTERVALS = 0.6, 5


@dataclass(frozen=True)
class Trial:
    """What is tried.

    Attributes:
        rates_rps: (n,) mean rate of each interval.
        pace: simulated seconds in a second.
        seed: of the arrivals.
        outage: whether monitoring fails for a while.
    """

    rates_rps: Array
    pace: float
    seed: int = 0
    outage: bool = True


@dataclass(frozen=True)
class Result:
    """What one who ran the service would have paid.

    Attributes:
        name: who.
        J_per_hour: money.
        replicas: mean.
        late_share: of the requests.
    """

    name: str
    J_per_hour: float
    replicas: float
    late_share: float


@contextlib.contextmanager
def running(service: Service, trial: Trial, ledger: Ledger | None) -> Iterator[tuple[Controller, Twin, Callable[[], bool]]]:
    """The twin alive, its page scraped, and a controller that is ready to run it.

    Yields:
        The controller, the twin, and whether its traffic has ended.

    Raises:
        InputError: the policy is for another environment.
    """
    params = service.env.params
    if not isinstance(params, AutoscaleParams):
        raise InputError(f"{service.policy}: was made for {service.env.env_id}; allowed with --twin: scalepilot/Autoscale-v0")
    clock, interval = Clock(trial.pace), params.interval_seconds
    # A little ahead, until everything stands.
    start = ((clock() + trial.pace) // interval + 1) * interval
    # It has been running for a while: nobody waits for a history before the first decision.
    before = params.window_steps + 2
    rates = np.concatenate([np.full(before, trial.rates_rps[0]), trial.rates_rps])
    twin = Twin(params, rates, start - before * interval, trial.seed)
    outage = start + _OUTAGE_AT * len(trial.rates_rps) * interval

    def broken() -> bool:
        return trial.outage and outage <= clock() < outage + _OUTAGE_INTERVALS * interval

    with exporter(twin, clock, broken=broken) as address:
        settings = prometheus_settings(
            {
                "url": address,
                "requests": {"selector": 'app="web"', "per_replica": False},
                "latency": {"selector": 'app="web"'},
                "cpu": {"selector": 'pod=~"web-.*"'},
                "backlog": {"gauge": "http_requests_queued", "selector": 'app="web"'},
                "capacity_rps": params.replica_capacity_rps,
            }
        )
        page = ScrapedPage(settings, interval / _SCRAPES, clock, trial.pace)
        for moment in np.arange(start - before * interval, start, interval / _SCRAPES).tolist():
            twin.advance(moment)
            page.take(twin.page(moment), moment)
        telemetry = PrometheusTelemetry(settings, TelemetryContext(service.env, service.deciders.fields), page)
        try:
            clock.sleep_until(start, lambda: False)
            with living(twin, clock):
                page.start()
                # A feed is for whoever scales the real one.
                alone = replace(service, feeds=False)
                controller = Controller(alone, telemetry, TwinTarget(twin, clock), ledger, clock=clock, pace=trial.pace)
                yield controller, twin, lambda: twin.over
        finally:
            telemetry.close()


def results(service: Service, twin: Twin, entries: Iterable[Entry]) -> list[Result]:
    """What the trial cost, beside the simulator on the same arrivals: the same policy, and the HPA with its defaults.

    Args:
        service: that was operated.
        twin: what it ran on.
        entries: its decisions.
    """
    lived = twin.intervals
    arrived = sum(interval.arrived for interval in lived)
    name = service.deciders.policy.spec.name
    live = Result(
        f"{name}, here",
        twin.J_per_hour,
        sum(interval.billed for interval in lived) / len(lived),
        sum(interval.late for interval in lived) / max(arrived, 1.0),
    )
    hpa, ages = Hpa(HpaParameters(), service.env, name="hpa-default"), sample_ages(entries, len(lived))
    return [
        live,
        simulated(f"{name}, in the simulator", service.deciders.policy, twin, ages),
        simulated(hpa.spec.name, hpa, twin, ages),
    ]


def sample_ages(entries: Iterable[Entry], steps: int) -> Array:
    """(steps,) intervals between the newest sample and each decision; where it is unknown, the mean of the others."""
    ages = np.full(steps, np.nan)
    for at, entry in zip(reversed(range(steps)), reversed(list(entries)), strict=False):
        reading = entry.record.snapshot.readings.get("request_rate_rps_0")
        if reading is not None and reading.age_seconds is not None:
            ages[at] = reading.age_seconds / entry.interval_seconds
    known = ages[np.isfinite(ages)]
    filled: Array = np.nan_to_num(ages, nan=float(known.mean()) if len(known) else 0.0)
    return filled


def simulated(name: str, policy: Policy, twin: Twin, ages: Array) -> Result:
    """A policy in the simulator on the twin's arrivals, with the twin's delays.

    Observations are as old as monitoring's (at most one interval; outages are not repeated), orders are taken up an interval
    late.

    Args:
        name: of the result.
        policy: who decides.
        twin: whose arrivals; its orders are taken up an interval late.
        ages: (steps,) intervals between the newest sample and each decision.
    """
    steps = len(twin.intervals)
    row = np.zeros(1, np.int64)
    start = np.array([twin.intervals[0].start])
    episode = EpisodeSet(name, twin.rates_rps[None, :steps], twin.arrived[None, :steps], row, row, start)
    params = replace(twin.params, actuation_lag_steps=1)
    columns = run_episodes(_as_measured(policy, ages), episode, params)[0].columns
    found = {key: float(columns[key][0]) for key in ("J_per_hour", "replicas_mean", "late_share")}
    return Result(name, found["J_per_hour"], found["replicas_mean"], found["late_share"])


def _as_measured(policy: Policy, ages: Array) -> Policy:
    """The policy as it sees the simulator through monitoring: windows end at the newest sample, not at the moment."""
    names = [f.name for f in policy.spec.observation_fields]
    # Replicas are the deployment's own word, and the clock is ours.
    measured = np.where(["replicas" in name or name.startswith("clock_") for name in names], 0.0, 1.0)
    # A gauge is as it was at the sample, and the twin's backlog that of the last whole interval.
    gauges = np.array([name == "backlog_requests" for name in names])
    each, before = iter(ages.tolist()), list[NDArray[Any]]()

    def show(observation: NDArray[Any]) -> NDArray[Any]:
        age = min(1.0, next(each))
        weight_of_last = np.where(gauges & (age > 0.0), 1.0, age * measured)
        last = before.pop() if before else observation
        before.append(observation.copy())
        shown: NDArray[Any] = ((1.0 - weight_of_last) * observation + weight_of_last * last).astype(observation.dtype)
        return shown

    return Shown(policy, show)
