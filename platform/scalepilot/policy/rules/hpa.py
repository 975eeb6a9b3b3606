"""The Kubernetes HorizontalPodAutoscaler (autoscaling/v2), on CPU utilisation, on request rate per replica, or on both."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import Array, Rule
from scalepilot.policy.rules.hpa_replicas import cpu_recommendation, rate_recommendation

METRICS = ("cpu", "rps")
_BOTH = "cpu+rps"
SYNC_SECONDS = 15.0
# Windows reach back an hour at most: of a longer decision interval only the last hour's syncs matter.
_MOST_SYNCS = 240
_ROUNDING = 1e-9
_POLICY = re.compile(r"(\d{1,9})(%| ?pods?)?/(\d{1,4})s?")
_LONGEST_PERIOD_SECONDS = 1800
_SELECTIONS = ("Max", "Min", "Disabled")


class ScalingPolicy(NamedTuple):
    """At most `value` replicas, or percent of them, in `period_seconds`."""

    value: int
    is_percent: bool
    period_seconds: int


def scaling_policies(text: str) -> tuple[ScalingPolicy, ...]:
    """Policies from their text, such as "4/15+100%/15": 4 pods in 15 s, 100 % in 15 s.

    Raises:
        ValueError: it is not of that form.
    """
    policies = []
    for part in text.split("+") if isinstance(text, str) else [""]:
        found = _POLICY.fullmatch(part.strip())
        policy = found and ScalingPolicy(int(found[1]), found[2] == "%", int(found[3]))
        if not policy or not (policy.value > 0 and 0 < policy.period_seconds <= _LONGEST_PERIOD_SECONDS):
            raise ValueError(
                f"{text!r:.80} is not allowed; allowed: PODS/SECONDS or PERCENT%/SECONDS (1 to {_LONGEST_PERIOD_SECONDS} s),"
                " several joined by +, such as 4/15+100%/15"
            )
        policies.append(policy)
    return tuple(policies)


@dataclass(frozen=True)
class HpaParameters:
    """What an operator sets; the defaults are those of Kubernetes' `behavior`.

    Attributes:
        metric: "cpu" (utilisation of ready replicas), "rps" (request rate a replica, as a share of its capacity), or
            "cpu+rps": both are computed and the larger recommendation wins.
        target: of the metric, as a share.
        tolerance: the count is kept while the metric is within this share of the target.
        stabilisation_down_seconds: a fall follows the highest recommendation of so long.
        stabilisation_up_seconds: a rise follows the lowest recommendation of so long.
        target_rps: the request rate's own target beside the CPU's; None for `target`.
        tolerance_down, tolerance_up: of one direction alone; None for `tolerance`.
        policies_up, policies_down: `behavior`'s policies: PODS/SECONDS or PERCENT%/SECONDS, several joined by "+".
        select_up, select_down: which policy counts: "Max" (the largest change), "Min", or "Disabled" (no move that way).
    """

    metric: Literal["cpu", "rps", "cpu+rps"] = "cpu"
    target: float = 0.7
    tolerance: float = 0.1
    stabilisation_down_seconds: float = 300.0
    stabilisation_up_seconds: float = 0.0
    target_rps: float | None = None
    tolerance_down: float | None = None
    tolerance_up: float | None = None
    policies_up: str = "4/15+100%/15"
    policies_down: str = "100%/15"
    select_up: Literal["Max", "Min", "Disabled"] = "Max"
    select_down: Literal["Max", "Min", "Disabled"] = "Max"

    def __post_init__(self) -> None:
        if self.metric not in (*METRICS, _BOTH):
            raise ValueError(f"metric: {self.metric!r} is not allowed; allowed: {', '.join((*METRICS, _BOTH))}")
        for name in ("target", "target_rps"):
            value = getattr(self, name)
            if value is None and name == "target_rps":
                continue
            if not (math.isfinite(value) and 0 < value <= 10):
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: above 0 to 10")
        if self.target_rps is not None and self.metric != _BOTH:
            raise ValueError(f"target_rps: goes with metric {_BOTH} alone, not with {self.metric}; allowed: target")
        for name in ("tolerance", "tolerance_down", "tolerance_up"):
            value = getattr(self, name)
            if not (value is None and name != "tolerance") and not 0 <= value < 1:
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: 0 to below 1")
        for name in ("stabilisation_down_seconds", "stabilisation_up_seconds"):
            if not 0 <= getattr(self, name) <= 3600:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not allowed; allowed: 0 to 3600")
        for name in ("policies_up", "policies_down"):
            try:
                scaling_policies(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        for name in ("select_up", "select_down"):
            if getattr(self, name) not in _SELECTIONS:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not allowed; allowed: {', '.join(_SELECTIONS)}")


class _Limits:
    """One direction's scaling policies, for rows of parameters: how far replicas may go in one sync.

    Args:
        texts: `policies_up` or `policies_down` of every row.
        selections: `select_up` or `select_down` of every row.
        sign: +1 for growing, −1 for shrinking.
    """

    def __init__(self, texts: list[str], selections: list[str], sign: int) -> None:
        rows = [scaling_policies(text) for text in texts]
        most = max(map(len, rows))
        # A row with fewer policies repeats its first, which changes neither a maximum nor a minimum.
        padded = np.array([[*row, *row[:1] * (most - len(row))] for row in rows], dtype=np.float64)
        value, self._is_percent, self.period = padded[..., 0], padded[..., 1] > 0, padded[..., 2]
        self._factor, self._change = 1.0 + sign * value / 100.0, sign * value
        self.longest = self.period.max(axis=1)
        self._sign = sign
        # The largest change is the highest count when growing, the lowest when shrinking.
        self._highest = np.array([(s == "Max") == (sign > 0) for s in selections])
        self._disabled = np.array([s == "Disabled" for s in selections])

    def limit(self, current: Array, started: Array) -> Array:
        """The count no move goes beyond.

        Args:
            current: (n,) replicas.
            started: (n, policies) replicas when each policy's period began.
        """
        by_percent = started * self._factor
        by_percent = np.ceil(by_percent) if self._sign > 0 else np.trunc(by_percent)
        proposed = np.where(self._is_percent, by_percent, started + self._change)
        several = proposed.shape[1] > 1
        chosen = np.where(self._highest, proposed.max(axis=1), proposed.min(axis=1)) if several else proposed[:, 0]
        # What was moved in the period already may lie beyond the limit: then nothing moves, and nothing turns back.
        beyond = np.maximum(chosen, current) if self._sign > 0 else np.minimum(chosen, current)
        return np.where(self._disabled, current, beyond)


class Hpa(Rule[HpaParameters]):
    """The HPA's control loop: the published algorithm, synced every 15 s whatever the decision interval.

    Syncs are due 0, 15, 30 … seconds after the first decision, as the controller's clock has it. A decision runs those that
    came due since the last one, in their order and with their own timestamps, on the newest metrics: at 5 s every third
    decision syncs and the others keep the count; at 15 s each syncs once; at 30 and 60 s two and four syncs make one decision,
    so that growth limits, periods and windows, all in seconds, allow in a minute what Kubernetes allows in a minute. Between
    the syncs of one decision the load stays what was measured, on the replicas that are left; what was just ordered is not
    ready. The first decision is the first sync: it records the count as it is as the first recommendation, so a fall waits
    for its whole window. A decision without state is a first sync.

    As in Kubernetes: with no ready replica CPU says nothing, and nothing is recommended; where one of two metrics says nothing
    the count may grow but not shrink; out of the bounds the count goes back to them at once; a count of 0 is left alone unless
    `min_replicas` is 0, and then needs the request rate (Kubernetes refuses an HPA on CPU alone there: its fewest are 1 here,
    also at the start). An HPA without `behavior` limits growth to max(2 × count, 4) instead of the documented
    max(2 × count, count + 4), which is used here.

    State, each row's own: `seconds` (n,) of this decision since the first; `recommendations` and `recommendation_seconds`
    (n, longest window) newest last, the first one repeated while there are fewer; and, where a scaling policy looks back
    further than a sync, `ups`, `up_seconds`, `downs`, `down_seconds` (n, events): replicas added and removed and when, 0 where
    there was nothing.

    Source:
        Kubernetes, `pkg/controller/podautoscaler/horizontal.go` and `replica_calculator.go`.
    """

    rule_name = "hpa"
    parameters_type = HpaParameters
    signals = ("total_replicas", "ready_replicas", "utilisation")
    revision = 2
    short_names = {"down": "stabilisation_down_seconds", "up": "stabilisation_up_seconds"}  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = self._rows
        self._target = self.by_row("target")
        self._target_rps = np.array([p.target if p.target_rps is None else p.target_rps for p in rows])
        self._down, self._up = (
            np.array([p.tolerance if getattr(p, name) is None else getattr(p, name) for p in rows])
            for name in ("tolerance_down", "tolerance_up")
        )
        metric = self.by_row("metric")
        self._on_cpu, self._on_rate = metric != "rps", metric != "cpu"
        self._any_on_cpu, self._any_on_rate = bool(self._on_cpu.any()), bool(self._on_rate.any())
        low, high = self._bounds
        self._low, self._high = np.where(self._on_rate, low, np.maximum(low, 1.0)), high
        self._scales_from_zero = low <= 0
        self._down_window, self._up_window = (
            self.by_row(f"stabilisation_{way}_seconds").astype(np.float64)[:, None] for way in ("down", "up")
        )
        # What lies in a window stands in so many of the newest places.
        self._in_down, self._in_up = (
            math.ceil(window.max() / SYNC_SECONDS - _ROUNDING) for window in (self._down_window, self._up_window)
        )
        self._remembered = max(1, self._in_down, self._in_up)
        self._grows, self._shrinks = (
            _Limits([getattr(p, f"policies_{way}") for p in rows], [getattr(p, f"select_{way}") for p in rows], sign)
            for way, sign in (("up", 1), ("down", -1))
        )
        # A change is a sync old at the next one: shorter periods never see it.
        self._looks_back = max(self._grows.longest.max(), self._shrinks.longest.max()) > SYNC_SECONDS

    def without_memory(self) -> Hpa:
        """Without stabilisation, which would keep the count for its whole window after every first sync."""
        rows = [replace(p, stabilisation_down_seconds=0.0, stabilisation_up_seconds=0.0) for p in self._rows]
        named = self.spec
        return Hpa(rows, self.env, name=named.name, version=named.version, provenance=named.provenance)

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[NDArray[np.float64], State | None]:
        """Every sync that came due: recommend, stabilise both ways, limit."""
        view = self.view
        current = view.total(observation)
        readings = _Readings.of(self, observation, current)
        if state is None:
            memory, last = self._first(current), np.full(len(observation), -1.0)
            due = np.ones(len(observation), dtype=np.int64)
        else:
            memory = self._checked(state, len(observation))
            before = memory["seconds"]
            memory["seconds"] = before + self.interval_seconds
            newest = _syncs(memory["seconds"])
            due = np.minimum(newest - _syncs(before), _MOST_SYNCS).astype(np.int64)
            last = newest - due
        for sync in range(int(due.max(initial=0))):
            current = self._sync((last + sync + 1) * SYNC_SECONDS, due > sync, current, readings, memory)
        return current, memory

    def _first(self, current: Array) -> State:
        """Before the first sync: the count as it is, recorded as a recommendation."""
        n, slots = len(current), self._remembered
        memory = {
            "seconds": np.zeros(n),
            "recommendations": np.repeat(current[:, None], slots, axis=1),
            "recommendation_seconds": np.zeros((n, slots)),
        }
        return memory | {name: np.zeros((n, slots)) for name, slots in self._event_slots().items()}

    def _event_slots(self) -> dict[str, int]:
        """Columns of remembered changes: as many as syncs fit into the longest period, and one."""
        if not self._looks_back:
            return {}
        ups, downs = (int(limits.longest.max() // SYNC_SECONDS) + 1 for limits in (self._grows, self._shrinks))
        return {"ups": ups, "up_seconds": ups, "downs": downs, "down_seconds": downs}

    def _checked(self, state: State, n: int) -> State:
        slots = {"recommendations": self._remembered, "recommendation_seconds": self._remembered, **self._event_slots()}
        columns = {name: self.remembered(state, name, (n, width)) for name, width in slots.items()}
        return {"seconds": self.remembered(state, "seconds", (n,)), **columns}

    def _sync(self, now: Array, due: NDArray[np.bool_], current: Array, readings: _Readings, memory: State) -> Array:
        """One pass of the controller over the rows where it is due; `memory` is replaced column by column, never written into.

        Args:
            now: (n,) seconds since the first decision.
            due: (n,).
            current: (n,) replicas asked for so far.
            readings: of this decision.
            memory: the state.

        Returns:
            (n,) replicas asked for now.
        """
        recommended, known = readings.recommend(self, current)
        enabled = due & ((current > 0) | self._scales_from_zero)
        above, below = enabled & (current > self._high), enabled & (current < self._low)
        computed = enabled & known & ~(above | below)
        wanted = self._limited(self._stabilised(recommended, now, current, memory), now, current, memory)
        all_computed = bool(computed.all())
        if not all_computed:
            wanted = np.where(computed, wanted, np.where(above, self._high, np.where(below, self._low, current)))
        for name, newest in (("recommendations", recommended), ("recommendation_seconds", now)):
            shifted = np.concatenate([memory[name][:, 1:], newest[:, None]], axis=1)
            memory[name] = shifted if all_computed else np.where(computed[:, None], shifted, memory[name])
        if not self.env.commands_targets:
            # The environment takes one step a decision, whatever is asked for.
            wanted = np.clip(wanted, readings.total - 1, readings.total + 1)
        if self._looks_back:
            for way, limits, change in (("up", self._grows, wanted - current), ("down", self._shrinks, current - wanted)):
                memory[f"{way}s"], memory[f"{way}_seconds"] = _stored(
                    memory[f"{way}s"], memory[f"{way}_seconds"], change, now, limits.longest
                )
        return wanted

    def _stabilised(self, recommended: Array, now: Array, current: Array, memory: State) -> Array:
        """No higher than the lowest recommendation of the up window, no lower than the highest of the down window."""
        past, seconds = memory["recommendations"], memory["recommendation_seconds"]
        lowest = highest = recommended
        if self._in_up:
            inside = seconds[:, -self._in_up :] > now[:, None] - self._up_window + _ROUNDING
            lowest = np.minimum(lowest, np.where(inside, past[:, -self._in_up :], np.inf).min(axis=1))
        if self._in_down:
            inside = seconds[:, -self._in_down :] > now[:, None] - self._down_window + _ROUNDING
            highest = np.maximum(highest, np.where(inside, past[:, -self._in_down :], -np.inf).max(axis=1))
        return np.minimum(np.maximum(current, lowest), highest)

    def _limited(self, stabilised: Array, now: Array, current: Array, memory: State) -> Array:
        """Within what the scaling policies allow from the replicas at the start of their periods, and within the bounds."""

        def started(limits: _Limits) -> Array:
            if not self._looks_back:
                return current[:, None]
            added, removed = (
                _changed(memory[f"{way}s"], now[:, None] - memory[f"{way}_seconds"], limits.period) for way in ("up", "down")
            )
            return current[:, None] - added + removed

        most = np.minimum(self._grows.limit(current, started(self._grows)), self._high)
        fewest = np.maximum(self._shrinks.limit(current, started(self._shrinks)), self._low)
        return np.where(
            stabilised > current,
            np.minimum(stabilised, most),
            np.where(stabilised < current, np.maximum(stabilised, fewest), stabilised),
        )


@dataclass(frozen=True)
class _Readings:
    """What one observation says, each (n,); `used` is the CPU in use, in replicas."""

    total: Array
    ready: Array
    used: Array
    rate_rps: Array
    capacity_rps: Array

    @classmethod
    def of(cls, rule: Hpa, observation: NDArray[Any], total: Array) -> _Readings:
        view = rule.view
        ready = view.ready(observation)
        nothing = np.zeros(len(observation))
        cpu = view.column(observation, "cpu_utilisation") if rule._any_on_cpu else nothing
        rate, capacity = (
            view.column(observation, name) if rule._any_on_rate else nothing
            for name in ("request_rate_rps_0", "replica_capacity_rps")
        )
        return cls(total, ready, cpu * ready, rate, capacity)

    def recommend(self, rule: Hpa, current: Array) -> tuple[Array, NDArray[np.bool_]]:
        """The larger of the metrics' recommendations, and whether there is one, for replicas asked for so far (n,)."""
        on_cpu, on_rate = rule._on_cpu, rule._on_rate
        by_cpu = nothing = np.full(len(current), -np.inf)
        cpu_known = np.zeros(len(current), dtype=bool)
        if rule._any_on_cpu:
            ready = np.minimum(self.ready, current)
            cpu = self.used / np.maximum(ready, 1.0)
            cpu_known = (ready > 0) & np.isfinite(cpu) & on_cpu
            found = cpu_recommendation(cpu, ready, current, rule._target, rule._down, tolerance_up=rule._up)
            if not rule._any_on_rate:
                return np.where(cpu_known, found, current), cpu_known
            by_cpu = np.where(cpu_known, found, nothing)
        rate_known = np.isfinite(self.rate_rps) & on_rate
        target, up = rule._target_rps, rule._up
        found = rate_recommendation(self.rate_rps, self.capacity_rps, current, target, rule._down, tolerance_up=up)
        by_rate = np.where(rate_known, found, nothing)
        largest = np.maximum(by_cpu, by_rate)
        all_known = (cpu_known | ~on_cpu) & (rate_known | ~on_rate)
        known = (cpu_known | rate_known) & (all_known | (largest >= current))
        return np.where(known, largest, current), known


def _syncs(seconds: Array) -> Array:
    """Which sync was the last to come due; the first is number 0."""
    whole: Array = np.floor(seconds / SYNC_SECONDS * (1.0 + _ROUNDING) + _ROUNDING)
    return whole


def _changed(replicas: Array, age: Array, period: Array) -> Array:
    """(n, policies) replicas changed within each policy's period."""
    inside = age[:, None, :] < period[:, :, None] - _ROUNDING
    total: Array = np.where(inside, replicas[:, None, :], 0.0).sum(axis=2)
    return total


def _stored(replicas: Array, seconds: Array, change: Array, now: Array, longest: Array) -> tuple[Array, Array]:
    """Events with the changes above 0 (n,) added, as Kubernetes stores them.

    One goes into the place of the last event that is older than the longest period of its own direction, though that may still
    lie within a period of the other direction; else behind the others.
    """
    happened = change > 0
    if not happened.any():
        return replicas, seconds
    slots = np.arange(replicas.shape[1])
    taken = replicas > 0
    outdated = taken & (now[:, None] - seconds > longest[:, None] + _ROUNDING)
    place = np.where(outdated.any(axis=1), np.where(outdated, slots, -1).max(axis=1), taken.sum(axis=1))
    here = happened[:, None] & (slots == np.minimum(place, len(slots) - 1)[:, None])
    return np.where(here, change[:, None], replicas), np.where(here, now[:, None], seconds)
