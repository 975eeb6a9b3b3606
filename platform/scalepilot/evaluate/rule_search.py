"""A rule's parameters, searched on training workloads and chosen on validation: the baselines a policy must beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from scalepilot.errors import InputError
from scalepilot.policy import Planner, Policy
from scalepilot.policy.rules import (
    RULES,
    Forecast,
    ForecastMpcParameters,
    HpaParameters,
    KpaParameters,
    LookAhead,
    Rule,
    StaticParameters,
    ThresholdParameters,
    TrackingParameters,
    fit_forecast,
)
from scalepilot.simulate import EpisodeSet, Executor, ProtocolData, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams

CandidateT = TypeVar("CandidateT")
Progress = Callable[[int], None]
# Candidates run side by side: enough rows to fill numpy's loops, few enough to stay in the cache.
_ROWS_PER_BATCH = 960
FINALISTS = 10

# The whole parameter space of the search (shared specification, reference/baselines.md).
_TARGETS = (0.3, 0.95)
_TOLERANCES = (0.0, 0.02, 0.05, 0.1)
_DOWN_SECONDS = (15, 60, 120, 180, 300, 600)
_UP_SECONDS = (0, 30, 60)
_COOLDOWN_SECONDS = (0, 15, 30, 60, 120, 300)
_STABLE_SECONDS = (15, 30, 60, 120, 300, 600)
_DELAY_SECONDS = (0, 60, 120, 300, 600)
HORIZONS = (2, 12)
_UTILISATIONS = tuple(float(u) for u in np.arange(0.5, 0.96, 0.05))


@dataclass(frozen=True)
class Tuned(Generic[CandidateT]):
    """What a search found.

    Attributes:
        best: the finalist with the lowest validation J.
        train_J, validation_J: its mean J per hour.
        evaluations: candidates tried on the training windows.
    """

    best: CandidateT
    train_J: float
    validation_J: float
    evaluations: int


def mean_J(
    make: Callable[[list[CandidateT], int], Policy | Planner],
    candidates: Sequence[CandidateT],
    episodes: EpisodeSet,
    params: AutoscaleParams,
    progress: Progress | None = None,
) -> list[float]:
    """Mean J per hour of each candidate over the same episodes, several candidates a batch.

    Args:
        make: builds the policy for candidates run side by side, each for so many consecutive rows.
        candidates: parameter sets.
        episodes: run by every candidate.
        params: the service.
        progress: called with the candidates done.
    """
    per_batch = max(1, _ROWS_PER_BATCH // len(episodes))
    scores: list[float] = []
    for first in range(0, len(candidates), per_batch):
        group = list(candidates[first : first + per_batch])
        results, _ = run_episodes(make(group, len(episodes)), episodes.repeated(len(group)), params)
        scores += [float(x) for x in results["J_per_hour"].reshape(len(group), -1).mean(axis=1)]
        if progress:
            progress(len(scores))
    return scores


@dataclass(frozen=True)
class Search:
    """One rule's parameters to be found on one workload.

    Attributes:
        rule_name: key in RULES.
        candidates: parameter sets to try.
        data: the protocol's episodes; test is not touched.
        params: the service.
    """

    rule_name: str
    candidates: tuple[Any, ...]
    data: ProtocolData
    params: AutoscaleParams


@dataclass(frozen=True)
class _Batch:
    """Candidates of one search run side by side."""

    rule_name: str
    candidates: tuple[Any, ...]
    episodes: EpisodeSet
    params: AutoscaleParams

    def __str__(self) -> str:
        return f"tuning {self.rule_name} on {self.episodes.workload}"


def _score(batch: _Batch) -> list[float]:
    def make(group: list[Any], rows: int) -> Rule[Any]:
        return RULES[batch.rule_name]([candidate for candidate in group for _ in range(rows)], batch.params)

    return mean_J(make, batch.candidates, batch.episodes, batch.params)


def _scores(
    candidates: Sequence[tuple[str, Sequence[Any], EpisodeSet, AutoscaleParams]], executor: Executor, progress: Progress | None
) -> list[list[float]]:
    """Mean J of each search's candidates, in batches that any worker can take."""
    owners, batches = [], []
    for owner, (rule_name, group, episodes, params) in enumerate(candidates):
        # Larger batches cost less a row, but a batch is one worker's: the last, slowest search is for all of them.
        size = max(1, min(_ROWS_PER_BATCH // len(episodes), math.ceil(len(group) / executor.workers)))
        for first in range(0, len(group), size):
            owners.append(owner)
            batches.append(_Batch(rule_name, tuple(group[first : first + size]), episodes, params))
    found: list[list[float]] = [[]] * len(batches)
    for index, scores in executor.run(_score, batches):
        found[index] = scores
        if progress:
            progress(sum(map(len, found)))
    return [
        [x for owner, scores in zip(owners, found, strict=True) if owner == i for x in scores] for i in range(len(candidates))
    ]


def run_searches(searches: Sequence[Search], executor: Executor, progress: Progress | None = None) -> list[Tuned[Any]]:
    """The best of each search's candidates: all on the training windows, the ten best again on validation; test is not touched.

    Args:
        searches: independent of each other.
        executor: runs the candidates, several a batch.
        progress: called with the candidates done.
    """
    train = _scores([(s.rule_name, s.candidates, s.data.train, s.params) for s in searches], executor, progress)
    finalists = [[int(i) for i in np.argsort(scores, kind="stable")[:FINALISTS]] for scores in train]
    again = [[s.candidates[i] for i in best] for s, best in zip(searches, finalists, strict=True)]
    validation = _scores(
        [(s.rule_name, group, s.data.validation, s.params) for s, group in zip(searches, again, strict=True)], executor, None
    )
    found = []
    for search, best, on_train, on_validation in zip(searches, finalists, train, validation, strict=True):
        winner = int(np.argmin(on_validation))
        chosen = best[winner]
        found.append(Tuned(search.candidates[chosen], on_train[chosen], on_validation[winner], len(search.candidates)))
    return found


def draw_hpa(rng: np.random.Generator, metrics: Sequence[str]) -> HpaParameters:
    """One point of HPA's parameter space."""
    return HpaParameters(
        metric=str(rng.choice(metrics)),  # type: ignore[arg-type]
        target=float(rng.uniform(*_TARGETS)),
        tolerance=float(rng.choice(_TOLERANCES)),
        stabilisation_down_seconds=float(rng.choice(_DOWN_SECONDS)),
        stabilisation_up_seconds=float(rng.choice(_UP_SECONDS)),
    )


def hpa_search(data: ProtocolData, params: AutoscaleParams, *, metric: str, evaluations: int, seed: int = 0) -> Search:
    """Random search for the best HPA on one metric.

    Args:
        data: the protocol's episodes; test is not touched.
        params: the service.
        metric: "cpu" or "rps".
        evaluations: points drawn.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    return Search("hpa", tuple(draw_hpa(rng, [metric]) for _ in range(evaluations)), data, params)


def rule_search(rule_name: str, data: ProtocolData, params: AutoscaleParams, *, evaluations: int, seed: int = 0) -> Search:
    """Random search over a rule's whole parameter space.

    Args:
        rule_name: "static" or a key in SPACES.
        data: the protocol's episodes; test is not touched.
        params: the service.
        evaluations: points drawn; a space with fewer points is searched whole.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    if rule_name == "static":
        every = range(max(1, params.min_replicas), params.max_replicas + 1)
        chosen = every if len(every) <= evaluations else sorted(rng.choice(np.array(every), evaluations, replace=False).tolist())
        return Search("static", tuple(StaticParameters(n) for n in chosen), data, params)
    candidates = [SPACES[rule_name](rng) for _ in range(evaluations)]
    if rule_name == "forecast_mpc":
        forecast = fitted_forecast(data, params)
        candidates = [replace(c, forecast=forecast) for c in candidates]
    return Search(rule_name, tuple(candidates), data, params)


def fitted_forecast(data: ProtocolData, params: AutoscaleParams) -> Forecast:
    """The forecast of forecast_mpc, from the training part.

    Raises:
        InputError: it is too short.
    """
    try:
        return fit_forecast(
            data.train_series,
            history_steps=params.history_steps,
            window_steps=params.window_steps,
            num_leads=params.order_steps + HORIZONS[1],
            with_season=params.observe_clock,
            with_hour=params.observe_hour,
            arrival_dispersion=params.arrival_dispersion,
        )
    except ValueError as error:
        raise InputError(f"{data.train.workload}: {error}") from None


def draw_threshold(rng: np.random.Generator) -> ThresholdParameters:
    """One point of the threshold rule's parameter space."""
    lower, upper = np.sort(rng.uniform(0.1, 0.95, 2)).tolist()
    return ThresholdParameters(upper, lower, int(rng.integers(1, 6)), float(rng.choice(_COOLDOWN_SECONDS)))


def draw_tracking(rng: np.random.Generator) -> TrackingParameters:
    """One point of target tracking's parameter space."""
    return TrackingParameters(float(rng.uniform(*_TARGETS)))


def draw_kpa(rng: np.random.Generator) -> KpaParameters:
    """One point of KPA's parameter space."""
    return KpaParameters(
        target=float(rng.uniform(*_TARGETS)),
        stable_window_seconds=float(rng.choice(_STABLE_SECONDS)),
        panic_threshold=float(rng.uniform(1.1, 4.0)),
        max_scale_down_rate=float(rng.choice((1.1, 1.5, 2.0, 10.0))),
        scale_down_delay_seconds=float(rng.choice(_DELAY_SECONDS)),
    )


def draw_forecast_mpc(rng: np.random.Generator) -> ForecastMpcParameters:
    """One point of forecast_mpc's parameter space; the forecast itself is fitted."""
    return ForecastMpcParameters(
        caution=float(rng.uniform(0.7, 1.6)),
        late_weight=float(np.exp(rng.uniform(np.log(0.5), np.log(4.0)))),
        horizon_steps=int(rng.integers(HORIZONS[0], HORIZONS[1] + 1)),
        drain_steps=float(rng.choice((1.0, 2.0, 4.0))),
    )


SPACES: dict[str, Callable[[np.random.Generator], Any]] = {
    "threshold": draw_threshold,
    "tracking": draw_tracking,
    "kpa": draw_kpa,
    "forecast_mpc": draw_forecast_mpc,
}


def tuned_rule(rule_name: str, found: Tuned[Any], params: AutoscaleParams, name: str) -> Rule[Any]:
    """The found parameters as a policy whose provenance says how they were found."""
    provenance = {
        "algorithm": "random_search",
        "evaluations": found.evaluations,
        "train_J_per_hour": found.train_J,
        "validation_J_per_hour": found.validation_J,
        "parameters": {key: value for key, value in asdict(found.best).items() if key != "forecast"},
    }
    return RULES[rule_name](found.best, params, name=name, provenance=provenance)


def tune_look_ahead(data: ProtocolData, params: AutoscaleParams) -> LookAhead:
    """The look-ahead's utilisation, chosen on the training windows."""

    def make(group: list[float], rows: int) -> LookAhead:
        return LookAhead(np.repeat(group, rows)[:, None])

    scores = mean_J(make, _UTILISATIONS, data.train, params)
    return LookAhead(_UTILISATIONS[int(np.argmin(scores))])


def describe_parameters(parameters: Any) -> str:
    """Parameters in one short phrase for a table: "rps 0.57, tolerance 0.02, up 60 s"; defaults left out but HPA's."""
    if isinstance(parameters, HpaParameters):
        return (
            f"{parameters.metric} {parameters.target:.2f}, tolerance {parameters.tolerance:g},"
            f" down {parameters.stabilisation_down_seconds:g} s, up {parameters.stabilisation_up_seconds:g} s"
        )
    ordinary = asdict(type(parameters)())
    values = {key: value for key, value in asdict(parameters).items() if key != "forecast"}
    shown = {key: value for key, value in values.items() if value != ordinary[key]}
    return ", ".join(
        f"{key.removesuffix('_seconds').replace('_', ' ')} {_short(value)}{' s' if key.endswith('_seconds') else ''}"
        for key, value in shown.items()
    ) or ("defaults" if values else "")


def _short(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
