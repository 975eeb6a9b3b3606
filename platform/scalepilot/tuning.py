"""A rule's parameters, searched on training workloads and chosen on validation: the rivals a policy must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from scalepilot.policy import Planner, Policy
from scalepilot.policy.rules import Hpa, HpaParameters, LookAhead
from scalepilot.simulate import EpisodeSet, ProtocolData, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams

CandidateT = TypeVar("CandidateT")
Progress = Callable[[int], None]
# Candidates flown side by side: enough rows to fill numpy's loops, few enough to stay in the cache.
_ROWS_PER_BATCH = 960
FINALISTS = 10

# The whole parameter space of the search (shared specification, reference/baselines.md).
_TARGETS = (0.3, 0.95)
_TOLERANCES = (0.0, 0.02, 0.05, 0.1)
_DOWN_SECONDS = (15, 60, 120, 180, 300, 600)
_UP_SECONDS = (0, 30, 60)
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
        make: builds the policy for candidates flown side by side, each for so many consecutive rows.
        candidates: parameter sets.
        episodes: flown by every candidate.
        params: the service.
        progress: called with the candidates done.
    """
    per_batch = max(1, _ROWS_PER_BATCH // len(episodes))
    scores: list[float] = []
    for first in range(0, len(candidates), per_batch):
        group = list(candidates[first : first + per_batch])
        results, _ = run_episodes(make(group, len(episodes)), episodes.repeated(len(group)), params)
        scores += [float(x) for x in results.J_per_hour.reshape(len(group), -1).mean(axis=1)]
        if progress:
            progress(len(scores))
    return scores


def _hpa_rows(group: list[HpaParameters], rows: int, params: AutoscaleParams) -> Hpa:
    return Hpa([candidate for candidate in group for _ in range(rows)], params)


def draw_hpa(rng: np.random.Generator, metrics: Sequence[str]) -> HpaParameters:
    """One point of HPA's parameter space."""
    return HpaParameters(
        metric=str(rng.choice(metrics)),  # type: ignore[arg-type]
        target=float(rng.uniform(*_TARGETS)),
        tolerance=float(rng.choice(_TOLERANCES)),
        stabilisation_down_seconds=float(rng.choice(_DOWN_SECONDS)),
        stabilisation_up_seconds=float(rng.choice(_UP_SECONDS)),
    )


def tune_hpa(
    data: ProtocolData,
    params: AutoscaleParams,
    *,
    metric: str,
    evaluations: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned[HpaParameters]:
    """Random search for the best HPA on one metric: training windows first, the ten best again on validation.

    Args:
        data: the protocol's episodes; test is not touched.
        params: the service.
        metric: "cpu" or "rps".
        evaluations: points drawn.
        seed: of the draw.
        progress: called with the candidates done.
    """
    rng = np.random.default_rng(seed)
    candidates = [draw_hpa(rng, [metric]) for _ in range(evaluations)]

    def make(group: list[HpaParameters], rows: int) -> Hpa:
        return _hpa_rows(group, rows, params)

    train = mean_J(make, candidates, data.train, params, progress)
    finalists = [int(i) for i in np.argsort(train)[:FINALISTS]]
    validation = mean_J(make, [candidates[i] for i in finalists], data.validation, params)
    winner = int(np.argmin(validation))
    return Tuned(candidates[finalists[winner]], train[finalists[winner]], validation[winner], evaluations)


def tuned_hpa_rule(found: Tuned[HpaParameters], params: AutoscaleParams, name: str) -> Hpa:
    """The found parameters as a policy whose provenance says how they were found."""
    provenance = {
        "algorithm": "random_search",
        "evaluations": found.evaluations,
        "train_J_per_hour": found.train_J,
        "validation_J_per_hour": found.validation_J,
        "parameters": asdict(found.best),
    }
    return Hpa(found.best, params, name=name, provenance=provenance)


def tune_look_ahead(data: ProtocolData, params: AutoscaleParams) -> LookAhead:
    """The look-ahead's utilisation, chosen on the training windows."""

    def make(group: list[float], rows: int) -> LookAhead:
        return LookAhead(np.repeat(group, rows)[:, None])

    scores = mean_J(make, _UTILISATIONS, data.train, params)
    return LookAhead(_UTILISATIONS[int(np.argmin(scores))])


def describe_parameters(parameters: Any) -> str:
    """Parameters in one short phrase for a table: "rps 0.57, tolerance 0.02, down 600 s, up 60 s"."""
    if isinstance(parameters, HpaParameters):
        return (
            f"{parameters.metric} {parameters.target:.2f}, tolerance {parameters.tolerance:g},"
            f" down {parameters.stabilisation_down_seconds:g} s, up {parameters.stabilisation_up_seconds:g} s"
        )
    return ", ".join(f"{key} {value}" for key, value in asdict(parameters).items())
