"""The Knative Pod Autoscaler, on request rate per replica."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import SLACK, Array, Rule, ceil

_CALM = -1.0
_LONGEST_SECONDS = 3600.0


@dataclass(frozen=True)
class KpaParameters:
    """What an operator sets; the defaults are Knative's.

    Attributes:
        target: request rate a replica as a share of its capacity.
        stable_window_seconds: the rate is averaged over so long; panic ends after so long a calm.
        panic_window_seconds: the short window; at 15 s decisions Knative's 6 s are one interval.
        panic_threshold: panic begins when the short window asks for this many times the ready replicas.
        max_scale_up_rate: most replicas as a multiple of the ready ones.
        max_scale_down_rate: fewest replicas are the ready ones divided by this.
        scale_down_delay_seconds: a fall follows the highest recommendation of so long.
    """

    target: float = 0.7
    stable_window_seconds: float = 60.0
    panic_window_seconds: float = 6.0
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_down_delay_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target) and 0 < self.target <= 10):
            raise ValueError(f"target: {self.target!r} is not allowed; allowed: above 0 to 10")
        for name in ("stable_window_seconds", "panic_window_seconds", "scale_down_delay_seconds"):
            value = getattr(self, name)
            if not 0 <= value <= _LONGEST_SECONDS:
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: 0 to {_LONGEST_SECONDS:g}")
        for name in ("panic_threshold", "max_scale_up_rate", "max_scale_down_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 1):
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: finite numbers above 1")


class Kpa(Rule[KpaParameters]):
    """One decision an interval: ⌈rate / target⌉ over a stable and a panic window.

    State: `rates` (n, longest window) newest last; `calm_steps` (n,) since the panic threshold was last met, −1 outside
    panic; `panic_replicas` (n,) the most that was wanted in this panic; `wanted` (n, delay) newest last, −1 where there is
    none yet.

    Source:
        Knative Serving, `pkg/autoscaler/scaling/autoscaler.go`, and its documentation "Configuring concurrency and rate
        limits"; the rate is counted once an interval, so a window shorter than one interval is one interval. Knative decides
        every 2 s and limits each decision's rise and fall; here, as in the shared specification, a decision interval's.
    """

    rule_name = "kpa"
    parameters_type = KpaParameters
    signals = ("total_replicas", "ready_replicas", "demand", "replica_capacity")
    revision = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stable, self._panic = self.steps_by_row("stable_window_seconds"), self.steps_by_row("panic_window_seconds")
        self._window = int(max(self._stable.max(), self._panic.max()))
        age = np.arange(self._window)[::-1]
        self._in_stable, self._in_panic = age < self._stable[:, None], age < self._panic[:, None]
        # Decisions younger than the delay, this one among them.
        delay = np.maximum(1, np.ceil(self.by_row("scale_down_delay_seconds") / self.interval_seconds * (1 - SLACK)))
        self._delay = int(delay.max())
        self._in_delay = np.arange(self._delay)[::-1] < delay[:, None]

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[Array, State | None]:
        """Both windows, panic, rate limits and the delay of a fall."""
        n = len(observation)
        ready = np.maximum(1.0, self.view.ready(observation))
        rate = self.view.signal("demand", observation)
        wanted_per_replica = self.by_row("target") * self.view.signal("replica_capacity", observation)
        state = self._first(rate) if state is None else state
        rates = self.remembered(state, "rates", (n, self._window))
        rates = np.concatenate([rates[:, 1:], rate[:, None]], axis=1)
        stable, panic = (
            ceil(np.where(inside, rates, 0.0).sum(axis=1) / inside.sum(axis=1) / wanted_per_replica)
            for inside in (self._in_stable, self._in_panic)
        )
        in_panic_now = panic / ready >= self.by_row("panic_threshold") * (1 - SLACK)
        most = np.ceil(self.by_row("max_scale_up_rate") * ready)
        fewest = np.floor(ready / self.by_row("max_scale_down_rate"))
        stable, panic = (np.clip(wanted, fewest, most) for wanted in (stable, panic))

        calm = self.remembered(state, "calm_steps", (n,))
        calm = np.where(in_panic_now, 0.0, np.where(calm >= 0, calm + 1, _CALM))
        calm = np.where(calm * self.interval_seconds * (1 - SLACK) > self.by_row("stable_window_seconds"), _CALM, calm)
        panicking = calm >= 0
        # No fall in panic: the highest count it asked for holds until it is over.
        highest = np.maximum(np.maximum(stable, panic), self.remembered(state, "panic_replicas", (n,)))
        highest = np.where(panicking, np.maximum(highest, ready), 0.0)
        wanted = np.where(panicking, highest, stable)

        past = self.remembered(state, "wanted", (n, self._delay))
        past = np.concatenate([past[:, 1:], wanted[:, None]], axis=1)
        delayed = np.where(self._in_delay, past, _CALM).max(axis=1)
        return delayed, {"rates": rates, "calm_steps": calm, "panic_replicas": highest, "wanted": past}

    def _first(self, rate: Array) -> State:
        """Before the first decision: the rate as it is now, no panic."""
        n = len(rate)
        return {
            "rates": np.repeat(rate[:, None], self._window, axis=1),
            "calm_steps": np.full(n, _CALM),
            "panic_replicas": np.zeros(n),
            "wanted": np.full((n, self._delay), _CALM),
        }
