"""What to deploy: a candidate that is best on validation, and also where traffic is busier than it ever was.

Validation is a few days, and a policy that has learnt one level of traffic may fail on the first day above it, where a rule does
not. So the candidates run through three sets of episodes, none of them of the test: the validation windows, the training
windows with other arrivals, and the busiest of both at half as much traffic again (at most what `max_replicas` serve). A policy
takes the place of the best rule only where it is cheaper by more than the noise of the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.statistics.intervals import Interval, paired_difference
from scalepilot.evaluate.store import interval_json, json_number
from scalepilot.policy import Policy
from scalepilot.simulate import Cell, EpisodeSet, Executor, ProtocolData, Scenario, TrafficEpisodes, run_cells
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.arrivals import drawn_arrivals
from scalepilot_envs.objective import Objective

Array = NDArray[np.float64]
Origin = Literal["trained", "init", "shipped", "given", "rule"]

# Busier: so much more traffic, up to so much of what all replicas serve, in so many windows.
_FACTOR, _MOST_UTILISATION, _BUSIEST_WINDOWS = 1.5, 0.95, 8
# The kept policy is the best of many validations, which flatters it.
MARGIN = 0.01
_BUSIER_SEED = 3_500_000


@dataclass(frozen=True)
class Candidate:
    """What could be deployed.

    Attributes:
        name: in tables; unique among all.
        origin: trained by the run, what the run began with, shipped with Scalepilot, given by the user, or a rule.
        policy: decides.
    """

    name: str
    origin: Origin
    policy: Policy


@dataclass(frozen=True)
class Recommendation:
    """What to deploy, and by which figures.

    Attributes:
        name: of the candidate.
        versus: the other candidate that a reader will ask about: the best policy beside a rule, the best rule beside a policy.
        objective: what the figures are.
        origins: candidate → its origin, of those that could be run, best first.
        means: set ("validation", "training", "busier") → candidate → mean; a set that there is not is left out.
        scores: candidate → its cost relative to the best one, mean over the sets; the lowest is the best.
        differences: other candidate → the chosen one's figure minus its own on validation, with the 95 % interval.
        left_out: candidate → why it could not be run.
    """

    name: str
    versus: str | None
    objective: Objective
    origins: Mapping[str, Origin]
    means: Mapping[str, Mapping[str, float]]
    scores: Mapping[str, float]
    differences: Mapping[str, Interval]
    left_out: Mapping[str, str]

    @property
    def origin(self) -> Origin:
        """Of the chosen one."""
        return self.origins[self.name]

    def to_mapping(self) -> dict[str, Any]:
        """Plain data; what is unknown is null."""
        sets = {name: {c: json_number(value) for c, value in means.items()} for name, means in self.means.items()}
        return {
            "name": self.name,
            "origin": self.origin,
            "metric": self.objective.metric,
            "versus": self.versus,
            **sets,
            "scores": {c: json_number(score) for c, score in self.scores.items()},
            "differences": {c: interval_json(found) for c, found in self.differences.items()},
            "left_out": dict(self.left_out),
        }


def recommend(
    scenario: Scenario, candidates: Sequence[Candidate], executor: Executor, *, bootstrap_samples: int = 2000
) -> Recommendation:
    """Choose among candidates on the same arrivals for all; test episodes are not touched.

    Args:
        scenario: of Autoscale, whose validation and training windows are run.
        candidates: each with a name of its own.
        executor: runs them.
        bootstrap_samples: resamples behind the intervals.

    Raises:
        InputError: none of them can be run.
    """
    assert scenario.traffic is not None
    data, params = scenario.traffic, scenario.env.params
    sets = {"validation": data.validation, "training": data.train} | _busier(data, params)
    joined = sets["validation"]
    for name in list(sets)[1:]:
        joined = joined.joined(sets[name])
    episodes = TrafficEpisodes(joined, params)
    outcomes = run_cells([Cell.of(c.name, c.policy, episodes) for c in candidates], executor)
    values: dict[str, dict[str, Array]] = {}
    left_out: dict[str, str] = {}
    ends = np.cumsum([len(episodes) for episodes in sets.values()])[:-1]
    for candidate, outcome in zip(candidates, outcomes, strict=True):
        if isinstance(outcome, InputError):
            left_out[candidate.name] = str(outcome)
        else:
            parts = np.split(outcome.results[episodes.objective.column], ends)
            values[candidate.name] = dict(zip(sets, parts, strict=True))
    if not values:
        raise InputError(f"policies: no policy could be evaluated; the first: {next(iter(left_out.values()))}")
    means = {s: {name: float(own[s].mean()) for name, own in values.items()} for s in sets}
    scores = scored(means)
    origins: dict[str, Origin] = {c.name: c.origin for c in candidates}
    ranked = sorted(scores, key=lambda name: scores[name])
    name = chosen(scores, origins)
    others = [other for other in ranked if other != name]
    asked = [other for other in others if (origins[other] == "rule") != (origins[name] == "rule")]
    blocks, own = data.validation.index.blocks, values[name]["validation"]
    differences = {
        other: paired_difference(own, values[other]["validation"], blocks, samples=bootstrap_samples).difference
        for other in others
    }
    return Recommendation(
        name=name,
        versus=next(iter([*asked, *others]), None),
        objective=episodes.objective,
        origins={c: origins[c] for c in ranked},
        means={s: {c: means[s][c] for c in ranked} for s in sets},
        scores={c: scores[c] for c in ranked},
        differences=differences,
        left_out=left_out,
    )


def scored(means: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Candidate → mean over the sets of its cost relative to the lowest one; 1 is the best everywhere.

    Args:
        means: set → candidate → mean cost.
    """
    lowest = {s: min(costs.values()) for s, costs in means.items()}
    return {
        name: sum(_relative(costs[name], lowest[s]) for s, costs in means.items()) / len(means)
        for name in next(iter(means.values()))
    }


def _relative(cost: float, lowest: float) -> float:
    """One over the other; where the best costs nothing, any cost counts as it is."""
    return cost / lowest if lowest > 0 else 1.0 + cost


def chosen(scores: Mapping[str, float], origins: Mapping[str, Origin]) -> str:
    """The best candidate; the best rule where no policy is better by the margin."""
    best = min(scores, key=lambda name: scores[name])
    rules = [name for name in scores if origins[name] == "rule"]
    if not rules:
        return best
    rule = min(rules, key=lambda name: scores[name])
    return best if scores[best] < (1.0 - MARGIN) * scores[rule] else rule


def _busier(data: ProtocolData, params: AutoscaleParams) -> dict[str, EpisodeSet]:
    """The busiest windows at a higher level; none where the traffic is as high as all replicas serve already."""
    windows = data.validation.joined(data.train)
    peaks = windows.rates_rps.max(axis=1)
    highest = float(peaks.max())
    most = _MOST_UTILISATION * params.max_replicas * params.replica_capacity_rps
    factor = min(_FACTOR, most / highest) if highest > 0 else 1.0
    if factor <= 1.0:
        return {}
    busiest = windows.at(np.argsort(-peaks, kind="stable")[:_BUSIEST_WINDOWS])
    rates = busiest.rates_rps * factor
    rng = np.random.default_rng(_BUSIER_SEED)
    arrived = drawn_arrivals(rates * params.interval_seconds, params.arrival_dispersion, rng)
    return {"busier": replace(busiest, rates_rps=rates, arrived=arrived)}
