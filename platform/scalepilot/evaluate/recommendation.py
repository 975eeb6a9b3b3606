"""What to deploy: the candidate that validation says is best, with the interval and the reason. Test episodes are not touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.statistics.intervals import Interval, paired_difference
from scalepilot.evaluate.store import interval_json, json_number
from scalepilot.policy import Policy
from scalepilot.simulate import Cell, Executor, Scenario, run_cells
from scalepilot_envs.objective import Objective

Array = NDArray[np.float64]
Origin = Literal["trained", "init", "shipped", "rule"]


@dataclass(frozen=True)
class Candidate:
    """What could be deployed.

    Attributes:
        name: in tables; unique among all.
        origin: trained by the run, what the run began with, shipped with Scalepilot, or a rule.
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
        versus: the other candidate that a reader will ask about: the trained policy, or the best one that is not.
        objective: what the figures are.
        origins: candidate → its origin, of those that could be run.
        validation: candidate → mean of the validation episodes, best first.
        training: candidate → mean of the training episodes, which steady the choice; empty where there are none.
        differences: other candidate → the chosen one's figure minus its own on validation, with the 95 % interval.
        left_out: candidate → why it could not be run.
    """

    name: str
    versus: str | None
    objective: Objective
    origins: Mapping[str, Origin]
    validation: Mapping[str, float]
    training: Mapping[str, float]
    differences: Mapping[str, Interval]
    left_out: Mapping[str, str]

    @property
    def origin(self) -> Origin:
        """Of the chosen one."""
        return self.origins[self.name]

    def to_mapping(self) -> dict[str, Any]:
        """Plain data; what is unknown is null."""
        return {
            "name": self.name,
            "origin": self.origin,
            "metric": self.objective.metric,
            "validation": {name: json_number(value) for name, value in self.validation.items()},
            "training": {name: json_number(value) for name, value in self.training.items()},
            "differences": {name: interval_json(found) for name, found in self.differences.items()},
            "left_out": dict(self.left_out),
        }


def recommend(
    scenario: Scenario, candidates: Sequence[Candidate], executor: Executor, *, bootstrap_samples: int = 2000
) -> Recommendation:
    """Choose among candidates by the episodes that may choose, the same arrivals for all; test episodes are not touched.

    Args:
        scenario: whose validation episodes (on Autoscale also those of the training part) are run.
        candidates: each with a name of its own.
        executor: runs them.
        bootstrap_samples: resamples behind the intervals.

    Raises:
        InputError: none of them can be run.
    """
    episodes, shown = scenario.validation, scenario.num_validation
    objective = episodes.objective
    outcomes = run_cells([Cell.of(c.name, c.policy, episodes) for c in candidates], executor)
    origins: dict[str, Origin] = {}
    values: dict[str, Array] = {}
    left_out: dict[str, str] = {}
    for candidate, outcome in zip(candidates, outcomes, strict=True):
        if isinstance(outcome, InputError):
            left_out[candidate.name] = str(outcome)
        else:
            origins[candidate.name] = candidate.origin
            values[candidate.name] = outcome.results[objective.column]
    if not values:
        raise InputError(f"policies: no policy could be evaluated; the first: {next(iter(left_out.values()))}")
    name = chosen(values, shown, objective)
    blocks = episodes.index.blocks[:shown]
    differences = {
        other: paired_difference(values[name][:shown], theirs[:shown], blocks, samples=bootstrap_samples).difference
        for other, theirs in values.items()
        if other != name
    }
    means = {c: float(v[:shown].mean()) for c, v in values.items()}
    ranked = dict(sorted(means.items(), key=lambda item: objective.sign * item[1]))
    training = {c: float(values[c][shown:].mean()) for c in ranked} if len(episodes) > shown else {}
    asked = [c for c in ranked if c != name and (origins[c] == "trained") != (origins[name] == "trained")]
    versus = asked[0] if asked else next((c for c in ranked if c != name), None)
    return Recommendation(name, versus, objective, origins, ranked, training, differences, left_out)


def chosen(values: Mapping[str, Array], shown: int, objective: Objective) -> str:
    """The candidate with the lowest cost relative to the best one, on validation and training episodes alike.

    Args:
        values: candidate → (n,) figures of the same episodes, validation first.
        shown: how many of them are validation's.
        objective: which way a figure is better.
    """

    def loss(name: str) -> float:
        own = objective.sign * values[name]
        return float(own[:shown].mean()) if shown == len(own) else float(own[:shown].mean() + own[shown:].mean()) / 2

    return min(values, key=loss)
