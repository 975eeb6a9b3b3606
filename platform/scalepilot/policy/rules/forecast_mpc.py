"""Forecast and plan (model-predictive control): the strongest rival that does not learn by trial."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import Array, Rule, parameters_from_json
from scalepilot.policy.rules.forecast import (
    SLOW_STEPS,
    Forecast,
    averaged,
    features,
    persistence,
    season_at,
    variabilities,
)
from scalepilot.policy.rules.plan import LateCosts, plan_target

_MOST_LEADS, _MOST_REPLICAS = 240, 1000
# Beyond so many standard deviations a forecast is an extrapolation: no rate is taken to grow by more in one plan.
_MOST_GROWTH = 1.5
# Traffic that no longer behaves as in training shows in the errors: they widen the forecast within half an hour.
_CALIBRATION_STEPS = 120
_LARGEST_ERROR, _LARGEST_CALIBRATION, _LEAST_DEVIATION = 8.0, 16.0, 1e-3


@dataclass(frozen=True)
class ForecastMpcParameters:
    """What is searched, and the forecast that is fitted.

    Attributes:
        caution: factor on the forecast's standard deviation.
        late_weight: factor on the price of late requests in the plan.
        horizon_steps: intervals planned beyond the start-up.
        drain_steps: intervals within which a backlog is to be worked off.
        forecast: fitted on training traffic; None takes the newest rates to go on.
    """

    caution: float = 1.0
    late_weight: float = 1.0
    horizon_steps: int = 8
    drain_steps: float = 2.0
    forecast: Forecast | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("caution", 0, 10), ("late_weight", 0, 1000), ("drain_steps", 0, 1000)):
            value = getattr(self, name)
            if not (math.isfinite(value) and low < value <= high):
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: above {low} to {high}")
        if not isinstance(self.horizon_steps, int) or not 1 <= self.horizon_steps <= _MOST_LEADS:
            allowed = f"whole numbers from 1 to {_MOST_LEADS}"
            raise ValueError(f"horizon_steps: {self.horizon_steps!r} is not allowed; allowed: {allowed}")
        if not isinstance(self.forecast, Forecast | None):
            raise ValueError(f"forecast: {self.forecast!r:.60} is not allowed; allowed: a fitted forecast, or null")


class ForecastMpc(Rule[ForecastMpcParameters]):
    """Forecasts the coming rates with their uncertainty and starts the plan that costs least in expectation.

    State: `slow` (n, 2): slow averages of the logarithm of the rate; `expected`, `deviations` (n, order steps + 1): what was
    forecast for the coming intervals when an order would still have served them; `calibration` (n,): mean squared
    standardised error of those forecasts; `ordered` (n,), with a lag of more than one step: the rule's last target, which
    limits may have changed since.

    Source:
        Of the kind of OptScaler (Zou et al., VLDB 2024): a proactive forecast, its uncertainty, and an optimiser.
    """

    rule_name = "forecast_mpc"
    parameters_type = ForecastMpcParameters
    signals = ("total_replicas", "ready_replicas")
    fields = ("request_rate_rps_0", "request_rate_mean_rps", "request_rate_std_rps", "backlog_requests")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        p = self.env.params
        self._history = [f"request_rate_rps_{i}" for i in range(p.history_steps)]
        if p.max_replicas - p.min_replicas > _MOST_REPLICAS:
            raise ArtifactError(
                f"rule: forecast_mpc plans over at most {_MOST_REPLICAS} replicas; max_replicas is {p.max_replicas}"
            )
        horizon = p.order_steps + max(row.horizon_steps for row in self._rows)
        # The forecast is fitted, not searched: rows differ in the rest.
        if any(row.forecast is not self.parameters.forecast and row.forecast != self.parameters.forecast for row in self._rows):
            raise ArtifactError("rule.parameters: forecast: differs between parameter sets; allowed: the same in all")
        forecast = self.parameters.forecast or persistence(horizon, p.history_steps)
        if len(forecast.weights) < horizon or len(forecast.weights[0]) != p.history_steps + 4:
            raise ArtifactError(
                f"rule.parameters: forecast.weights: {len(forecast.weights)} leads of {len(forecast.weights[0])} features;"
                f" allowed: {horizon} (steps from order to service + horizon_steps) of {p.history_steps + 4}"
            )
        self._season, self._hour = np.array(forecast.season), np.array(forecast.hour)
        if len(self._season) and not p.observe_clock:
            raise ArtifactError("rule.parameters: forecast.season: needs the clock; allowed: none, or observe_clock: true")
        if len(self._hour) and not p.observe_hour:
            raise ArtifactError("rule.parameters: forecast.hour: needs the clock; allowed: none, or observe_hour: true")
        self._weights, self._spread = np.array(forecast.weights).T, np.array(forecast.spread).T
        self._late = LateCosts(p, forecast.nodes)

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[Array, State | None]:
        """Forecast, then plan."""
        p = self.env.params
        mean, deviation, backlog = (self.view.column(observation, name) for name in self.fields[1:])
        newest = np.stack([self.view.column(observation, name) for name in self._history], axis=1)
        season, ahead = self._seasons(observation)
        followed = self._followed(state, np.log1p(newest[:, 0]), np.log1p(mean), season)

        highest = np.log1p(np.maximum(newest.max(axis=1), mean)) + _MOST_GROWTH
        log_rate = features(newest, mean, followed["slow"], season) @ self._weights + ahead
        log_rate = np.clip(log_rate, 0.0, highest[:, None])
        sigma = np.sqrt(variabilities(newest, mean, deviation) @ self._spread)
        for name, value in (("expected", log_rate), ("deviations", sigma)):
            followed[name] = np.concatenate([followed[name][:, 1:], value[:, p.order_steps, None]], axis=1)

        widened = self.by_row("caution") * np.sqrt(np.clip(followed["calibration"], 1.0, _LARGEST_CALIBRATION))
        target = plan_target(
            p,
            self._late,
            self._with_backlog(np.expm1(log_rate), backlog, self.view.ready(observation)),
            sigma * widened[:, None],
            # With a lag of two steps or more, the observation does not show the newest order yet.
            followed.get("ordered", self.view.total(observation)),
            p.order_steps + self.by_row("horizon_steps"),
            self.by_row("late_weight").astype(np.float64),
        )
        return target, followed | ({"ordered": target} if p.actuation_lag_steps > 1 else {})

    def _followed(self, state: State | None, log_rate: Array, log_mean: Array, season: Array) -> State:
        """The state with the newest rate (n,) counted in: averages, and how wrong the forecast of it was."""
        n, leads = len(log_rate), self.env.params.order_steps + 1
        if state is None:
            return {
                "slow": np.repeat((log_mean - season)[:, None], len(SLOW_STEPS), axis=1),
                "expected": np.repeat(log_rate[:, None], leads, axis=1),
                "deviations": np.ones((n, leads)),
                "calibration": np.ones(n),
            }
        shapes = {"slow": (n, len(SLOW_STEPS)), "expected": (n, leads), "deviations": (n, leads), "calibration": (n,)}
        if self.env.params.actuation_lag_steps > 1:
            shapes["ordered"] = (n,)
        old = {name: self.remembered(state, name, shape) for name, shape in shapes.items()}
        # Only rates above the forecast hurt: twice their squares are the variance of a symmetric error.
        error = (log_rate - old["expected"][:, 0]) / np.maximum(old["deviations"][:, 0], _LEAST_DEVIATION)
        squared = 2.0 * np.clip(error, 0.0, _LARGEST_ERROR) ** 2
        return old | {
            "slow": averaged(old["slow"], log_rate - season),
            "calibration": old["calibration"] + (squared - old["calibration"]) / _CALIBRATION_STEPS,
        }

    def _seasons(self, observation: NDArray[Any]) -> tuple[Array, Array]:
        """The season's logarithm now (n,) and at every lead (n, num_leads); zeros without one."""
        ahead = np.arange(self._weights.shape[1] + 1) * self.interval_seconds
        logs = np.zeros((len(observation), len(ahead)))
        for season, period, seconds in ((self._season, "day", 86_400.0), (self._hour, "hour", 3600.0)):
            if len(season):
                sine, cosine = (self.view.column(observation, f"clock_{period}_{part}") for part in ("sin", "cos"))
                share = np.arctan2(sine, cosine) / (2 * np.pi) % 1.0
                logs += season_at(season, (share[:, None] + ahead / seconds) % 1.0)
        return logs[:, 0], logs[:, 1:]

    def _with_backlog(self, rate: Array, backlog: Array, ready: Array) -> Array:
        """The forecast plus what must be worked off: the backlog now, and what of it is left when an order made now serves."""
        p = self.env.params
        left = backlog
        for lead in range(p.order_steps):
            left = np.maximum(0.0, left + (rate[:, lead] - ready * p.replica_capacity_rps) * p.interval_seconds)
        seconds = self.by_row("drain_steps") * p.interval_seconds
        rate[:, 0] += backlog / seconds
        rate[:, p.order_steps] += left / seconds
        return rate

    @staticmethod
    def parameters_from_json(values: dict[str, Any]) -> dict[str, Any]:
        """The stored forecast as its own type."""
        forecast = values.get("forecast")
        if isinstance(forecast, dict):
            forecast = parameters_from_json(Forecast, forecast)
        return {**values, "forecast": forecast}
