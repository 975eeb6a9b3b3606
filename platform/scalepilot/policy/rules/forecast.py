"""What the request rate will be, from its own past: a direct linear forecast of every lead, with its uncertainty.

For each lead the logarithm of the rate, less its season of the day and of the hour where a clock shows them, is regressed on
the newest rates, their window's mean and two slow averages. The variance of the error is regressed on how restless the rate
is just now. Both are fitted on a workload's training part only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from scalepilot_envs.autoscale.arrivals import drawn_arrivals
from scalepilot_envs.workloads import RateSeries

Array = NDArray[np.float64]
# Steps behind the two averages that the observation does not show and the rule keeps itself.
SLOW_STEPS = (80, 240)
_KEPT = 1.0 - 1.0 / np.array(SLOW_STEPS)
# A late request costs so much more than a replica that the plan lives in the tail: the nodes are dense there.
_NODE_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1.0)
NODE_WEIGHTS = tuple(high - low for low, high in pairwise(_NODE_EDGES))
_NODE_LEVELS = tuple((high + low) / 2 for low, high in pairwise(_NODE_EDGES))
# Of a day and of an hour: what is scheduled begins on a minute.
SEASON_BINS, HOUR_BINS = 48, 60
_FEWEST_DAYS_OF_SEASON, _FEWEST_HOURS_OF_HOUR = 3.0, 12.0
_RIDGE = 1e-3
_LEAST_VARIANCE = 1e-4
_DAY_SECONDS, _HOUR_SECONDS = 86_400.0, 3600.0


@dataclass(frozen=True)
class Forecast:
    """A fitted forecast as plain numbers, so that an artifact can hold it.

    Attributes:
        weights: [lead][feature] for the logarithm of 1 + rate, the season left out.
        spread: [lead][5] for the variance of its error.
        nodes: standardised errors, rising, each with its NODE_WEIGHTS.
        season: logarithm of the rate relative to the day's mean, SEASON_BINS from midnight UTC; empty for none.
        hour: logarithm of the rate relative to the hour's mean, HOUR_BINS from the full hour; empty for none.
    """

    weights: tuple[tuple[float, ...], ...]
    spread: tuple[tuple[float, ...], ...]
    nodes: tuple[float, ...]
    season: tuple[float, ...] = ()
    hour: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.weights or len({len(row) for row in self.weights}) != 1 or len(self.spread) != len(self.weights):
            raise ValueError("forecast.weights: a row of equal length for every lead is needed, and one of spread")
        if any(len(row) != _NUM_VARIABILITIES for row in self.spread) or len(self.nodes) != len(NODE_WEIGHTS):
            raise ValueError(f"forecast: allowed: {_NUM_VARIABILITIES} columns of spread and {len(NODE_WEIGHTS)} nodes")
        if len(self.season) not in (0, SEASON_BINS):
            raise ValueError(f"forecast.season: {len(self.season)} bins are not allowed; allowed: none or {SEASON_BINS}")
        if len(self.hour) not in (0, HOUR_BINS):
            raise ValueError(f"forecast.hour: {len(self.hour)} bins are not allowed; allowed: none or {HOUR_BINS}")
        numbers = [*self.nodes, *self.season, *self.hour, *(x for row in (*self.weights, *self.spread) for x in row)]
        if not np.isfinite(np.array(numbers, dtype=np.float64)).all():
            raise ValueError("forecast: holds a value that is not finite; allowed: finite numbers")
        if min(x for row in self.spread for x in row) < 0 or list(self.nodes) != sorted(self.nodes):
            raise ValueError("forecast: a negative spread or falling nodes; allowed: spread from 0, nodes rising")


_NUM_VARIABILITIES = 5


def persistence(num_leads: int, history_steps: int) -> Forecast:
    """What holds before anything is fitted: the newest four rates' mean goes on, errors are normal."""
    weights = [0.0] * (history_steps + 4)
    used = min(4, history_steps)
    weights[1 : used + 1] = [1.0 / used] * used
    spread = (0.005, 0.3, 0.1, 0.3, 0.1)
    # Normal quantiles at _NODE_LEVELS.
    nodes = (-1.2816, -0.5244, 0.0, 0.5244, 1.0364, 1.4395, 1.8119, 2.1701, 2.4324, 2.6968, 2.9677, 3.1747, 3.4808)
    return Forecast((tuple(weights),) * num_leads, (spread,) * num_leads, nodes)


def features(newest: Array, mean: Array, slow: Array, season: Array) -> Array:
    """The regression's inputs.

    Args:
        newest: (n, history) rates in requests/s, newest first.
        mean: (n,) mean of the window.
        slow: (n, 2) slow averages, the season left out.
        season: (n,) logarithm of the season now.

    Returns:
        (n, history + 4): a constant, logarithms of the rates and of the mean less the season, the slow averages.
    """
    logs = np.log1p(np.concatenate([newest, mean[:, None]], axis=1)) - season[:, None]
    return np.concatenate([np.ones((len(newest), 1)), logs, slow], axis=1)


def variabilities(newest: Array, mean: Array, deviation: Array) -> Array:
    """(n, 5) what the variance of the errors depends on: how restless the rate was, and how few requests it counts."""
    at_least_one = np.maximum(mean, 1.0)
    recent = newest.std(axis=1) / np.maximum(newest.mean(axis=1), 1.0)
    jump = newest[:, 0] / at_least_one - 1.0
    few = 1.0 / np.maximum(newest[:, 0], 1.0)
    return np.stack([np.ones_like(mean), (deviation / at_least_one) ** 2, few, recent**2, jump**2], axis=1)


def averaged(slow: Array, newest_log: Array) -> Array:
    """The slow averages (n, 2) one interval later, after log(1 + rate) less the season (n,)."""
    return slow * _KEPT + newest_log[:, None] * (1.0 - _KEPT)


def season_at(season: Array, share: Array) -> Array:
    """The season's logarithm at shares of its period in [0, 1), linear between the middles of its bins; 0 without one."""
    if not len(season):
        return np.zeros_like(share)
    middles = (np.arange(len(season)) + 0.5) / len(season)
    return np.interp(share, middles, season, period=1.0)


def fit_forecast(
    series: RateSeries,
    *,
    history_steps: int,
    window_steps: int,
    num_leads: int,
    with_season: bool = False,
    with_hour: bool = False,
    arrival_dispersion: float = 1.0,
    seed: int = 0,
) -> Forecast:
    """Fit on a workload's training part.

    Args:
        series: mean rates on the decision grid; what a monitor would have shown (counts) is drawn from them.
        history_steps: newest rates the observation shows one by one.
        window_steps: intervals behind its mean and deviation.
        num_leads: intervals ahead.
        with_season: learn the season of the day; the policy then needs the clock fields. A short series has none.
        with_hour: learn the season of the hour, likewise.
        arrival_dispersion: variance of the counts over their mean, 1 for Poisson.
        seed: of the counts.

    Raises:
        ValueError: the series is too short.
    """
    interval = series.interval_seconds
    fewest = 4 * (max(SLOW_STEPS) + num_leads)
    if len(series) < fewest:
        raise ValueError(f"forecast: the training part has {len(series)} steps; allowed: from {fewest}")
    rates = drawn_arrivals(series.rates_rps * interval, arrival_dispersion, np.random.default_rng(seed)) / interval
    # An interval is observed at its end.
    ends = series.start_unix_seconds + (np.arange(len(rates)) + 1) * interval
    day_share, hour_share = (np.asarray(ends % p / p, dtype=np.float64) for p in (_DAY_SECONDS, _HOUR_SECONDS))
    seconds = len(rates) * interval
    season = hour = np.empty(0)
    if with_season and seconds >= _FEWEST_DAYS_OF_SEASON * _DAY_SECONDS:
        season = _smoothed(_fitted_season(rates, day_share, SEASON_BINS))
    if with_hour and seconds >= _FEWEST_HOURS_OF_HOUR * _HOUR_SECONDS:
        hour = _fitted_season(rates, hour_share, HOUR_BINS)
    offset = season_at(season, day_share) + season_at(hour, hour_share)
    logs = np.log1p(rates) - offset
    slow = _slow_averages(logs)

    last = np.arange(max(SLOW_STEPS), len(rates) - num_leads)
    windows = sliding_window_view(rates, window_steps)[last - window_steps + 1]
    mean, deviation = windows.mean(axis=1), windows.std(axis=1)
    newest = np.stack([rates[last - i] for i in range(history_steps)], axis=1)
    inputs = features(newest, mean, slow[last], offset[last])
    targets = np.stack([logs[last + lead] for lead in range(1, num_leads + 1)], axis=1)
    # A wrong forecast costs most when most requests come.
    weight = np.sqrt(np.maximum(mean, 1e-3) / max(mean.mean(), 1e-3))[:, None]
    gram = (inputs * weight).T @ (inputs * weight)
    gram += (_RIDGE * gram.diagonal().mean()) * 1e-3 * np.eye(len(gram)) + _RIDGE * np.diag(gram.diagonal())
    weights = np.linalg.solve(gram, (inputs * weight).T @ (targets * weight))
    errors = targets - inputs @ weights
    restless = variabilities(newest, mean, deviation)
    spread = np.stack([_non_negative_fit(restless, squared) for squared in (errors**2).T])
    standard = errors / np.sqrt(restless @ spread.T)
    # The nearest leads are forecast so well that their errors say little about the ones replicas are ordered for.
    nodes = np.quantile(standard[:, num_leads // 4 :], _NODE_LEVELS)
    rows = [tuple(float(x) for x in row) for row in weights.T]
    return Forecast(
        tuple(rows),
        tuple(tuple(float(x) for x in row) for row in spread),
        tuple(float(x) for x in nodes),
        tuple(float(x) for x in season),
        tuple(float(x) for x in hour),
    )


def _fitted_season(rates: Array, share: Array, num_bins: int) -> Array:
    """(num_bins,) logarithm of the mean rate by time within the period, relative to the mean; 0 where there is no step."""
    bins = np.minimum((share * num_bins).astype(int), num_bins - 1)
    sums, counts = (np.bincount(bins, weights=w, minlength=num_bins) for w in (rates, np.ones_like(rates)))
    seen = counts > 0
    logs = np.log1p(sums / np.maximum(counts, 1.0))
    season: Array = np.where(seen, logs - logs[seen].mean(), 0.0)
    return season


def _smoothed(season: Array) -> Array:
    """Over three bins: a day has few of each."""
    smooth: Array = (np.roll(season, 1) + 2.0 * season + np.roll(season, -1)) / 4.0
    return smooth


def _slow_averages(logs: Array) -> Array:
    slow = np.empty((len(logs), len(SLOW_STEPS)))
    at = np.full((1, len(SLOW_STEPS)), logs[0])
    for t in range(len(logs)):
        at = averaged(at, logs[t : t + 1])
        slow[t] = at[0]
    return slow


def _non_negative_fit(inputs: Array, values: Array) -> Array:
    """Least squares with coefficients from 0: what comes out negative is left out, the constant never below a floor."""
    fitted = np.zeros(inputs.shape[1])
    active = list(range(inputs.shape[1]))
    while active:
        solution = np.linalg.lstsq(inputs[:, active], values, rcond=None)[0]
        if (solution >= 0).all():
            fitted[active] = solution
            break
        active = [column for column, value in zip(active, solution, strict=True) if value > 0]
    fitted[0] = max(fitted[0], _LEAST_VARIANCE)
    return fitted
