"""Policies run side by side, step by step, so that somebody can watch: what each one saw, decided and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.policy import Decision, Planner, Policy, PolicySpec, check_shown_fields
from scalepilot.policy.rules import Rule
from scalepilot.policy.spec import env_fields
from scalepilot.simulate import EpisodeSet
from scalepilot.simulate.episodes import planned_targets
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.workloads import RateSeries

_SHOWN_SCORES = 3
_SHOWN_READINGS = 2


@dataclass
class Lane:
    """One policy's replay so far.

    Attributes:
        name: of the policy.
        detail: a phrase about it.
        columns: quantity → one number a step.
        decisions: what it did, one text a step.
        reasons: what made it: its scores, or what a rule read.
        ended: whether its episode is over.
    """

    name: str
    detail: str
    columns: dict[str, list[float]]
    decisions: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    ended: bool = False

    def newest(self, column: str) -> float:
        """The last number of a column; 0 before the first step."""
        values = self.columns[column]
        return values[-1] if values else 0.0


@dataclass(frozen=True)
class Entry:
    """Who flies."""

    name: str
    detail: str
    actor: Policy | Planner


class Replay(Protocol):
    """Several lanes through the same episode."""

    title: str
    num_steps: int
    lanes: list[Lane]

    @property
    def step_index(self) -> int:
        """Steps so far."""
        ...

    def advance(self) -> bool:
        """Fly one step; False where there is none left."""
        ...

    def summary(self) -> list[dict[str, Any]]:
        """A row a lane: what it came to so far."""
        ...


class AutoscaleReplay:
    """Autoscale-v0: everybody meets the same arrivals.

    Args:
        entries: who flies; planners know the rates.
        episodes: one episode.
        params: the service.

    Raises:
        ArtifactError: a policy was made for other observation fields.
        InputError: more than one episode.
    """

    COLUMNS = ("rate_rps", "replicas", "ready_replicas", "late_share", "cost_per_hour", "cost")

    def __init__(self, entries: Sequence[Entry], episodes: EpisodeSet, params: AutoscaleParams) -> None:
        if len(episodes) != 1:
            raise InputError(f"episodes: {len(episodes)} are not allowed; allowed: one")
        env = describe_autoscale(params)
        for entry in entries:
            if isinstance(entry.actor, Policy):
                check_shown_fields(entry.name, entry.actor.spec, env_fields(env))
        n, self.num_steps = len(entries), episodes.num_steps
        self.title, self.params = f"Autoscale-v0 · {episodes.workload}", params
        self.lanes = [Lane(e.name, e.detail, {name: [] for name in self.COLUMNS}) for e in entries]
        self._entries = list(entries)
        series = RateSeries(episodes.rates_rps[0], params.interval_seconds)
        self._env = AutoscaleBatch(n, workload=series, params=params, episode_steps=self.num_steps)
        rates, arrived = (np.tile(rows, (n, 1)) for rows in (episodes.rates_rps, episodes.arrived))
        begin = np.tile(episodes.start_unix_seconds, n)
        self._observation = self._env.reset_batch(None, {"rates_rps": rates, "arrived": arrived, "start_unix_seconds": begin})
        self._states: list[Any] = [None] * n
        self._plans = {
            i: planned_targets(e.actor, episodes.rates_rps, params)[0]
            for i, e in enumerate(entries)
            if not isinstance(e.actor, Policy)
        }
        self._step = 0
        self._arrived, self._late = np.zeros(n), np.zeros(n)

    @property
    def step_index(self) -> int:
        """Steps so far."""
        return self._step

    @property
    def rates_rps(self) -> list[float]:
        """Requests/s that arrived, one number a step."""
        return self.lanes[0].columns["rate_rps"]

    def advance(self) -> bool:
        """Fly one step; False at the end of the episode."""
        if self._step >= self.num_steps:
            return False
        total = self._env.state.total
        desired = np.zeros(len(self.lanes))
        for i, (entry, lane) in enumerate(zip(self._entries, self.lanes, strict=True)):
            row = self._observation[i : i + 1]
            if isinstance(entry.actor, Policy):
                decision, self._states[i] = entry.actor.act(row, self._states[i])
                assert decision.desired_replicas is not None
                desired[i] = decision.desired_replicas[0]
                lane.reasons.append(reason(entry.actor, decision, row))
            else:
                desired[i] = self._plans[i][self._step]
                lane.reasons.append("knows what will come")
        clipped = np.clip(np.rint(desired), self.params.min_replicas, self.params.max_replicas)
        outcome = self._env.advance(desired)
        self._observation = self._env.observe()
        self._step += 1
        self._arrived += outcome.arrived
        self._late += outcome.late
        for i, lane in enumerate(self.lanes):
            change = int(clipped[i] - total[i])
            lane.decisions.append(f"{change:+d} → {clipped[i]:.0f}".replace("-", "−") if change else f"hold {clipped[i]:.0f}")
            cost = float(outcome.cost.total[i])
            values = (
                float(outcome.arrived[i]) / self.params.interval_seconds,
                float(outcome.billed_replicas[i]),
                float(self._env.state.serving[i]),
                float(self._env.state.late_share[i]),
                cost * self.params.steps_per_hour,
                lane.newest("cost") + cost,
            )
            for name, value in zip(self.COLUMNS, values, strict=True):
                lane.columns[name].append(value)
            lane.ended = self._step >= self.num_steps
        return True

    def summary(self) -> list[dict[str, Any]]:
        """J per hour and its causes, the first lane's saving beside."""
        hours = max(self._step, 1) / self.params.steps_per_hour
        rows = []
        for i, lane in enumerate(self.lanes):
            moves = sum(not text.startswith("hold") for text in lane.decisions)
            rows.append(
                {
                    "policy": lane.name,
                    "J_per_hour": lane.newest("cost") / hours,
                    "cost": lane.newest("cost"),
                    "replicas_mean": float(np.mean(lane.columns["replicas"] or [0.0])),
                    "late_share": float(self._late[i] / max(self._arrived[i], 1.0)),
                    "actions": moves,
                    "steps": self._step,
                }
            )
        return rows


def reason(policy: Policy, decision: Decision, observation: NDArray[Any]) -> str:
    """What spoke for a decision: the highest scores, or what a rule read; empty where neither is known.

    Args:
        policy: that decided.
        decision: for one observation.
        observation: (1, num_fields).
    """
    if decision.scores is not None:
        return _scores(policy.spec, decision.scores[0])
    if isinstance(policy, Rule):
        names = [*policy.signals, *policy.fields]
        # What there is to move is said by the decision itself.
        told = [n for n in names if n not in ("total_replicas", "ready_replicas")] or names
        values = [_reading(policy, name, observation) for name in told[:_SHOWN_READINGS]]
        return " · ".join(values)
    return ""


def _reading(rule: Rule[Any], name: str, observation: NDArray[Any]) -> str:
    read = rule.view.signal if name in rule.env.signals else lambda n, o: rule.view.column(o, n)
    value = float(read(name, observation)[0])
    shown = f"{value:.0%}" if name.endswith(("utilisation", "share")) else f"{value:,.4g}"
    return f"{name.replace('_', ' ')} {shown}"


def _scores(spec: PolicySpec, scores: NDArray[np.float32]) -> str:
    order = np.argsort(-scores, kind="stable")[:_SHOWN_SCORES]
    if spec.decision_rule == "argmax_q":
        return "Q " + " · ".join(f"{spec.actions[a].label} {scores[a]:.3g}" for a in order)
    exponents = np.exp(scores.astype(np.float64) - float(scores.max()))
    shares = exponents / exponents.sum()
    return " · ".join(f"{spec.actions[a].label} {shares[a]:.0%}" for a in order)


def finished(replay: Replay) -> Mapping[str, list[dict[str, Any]]]:
    """Fly to the end without showing anything.

    Returns:
        {"policies": the summary}.
    """
    while replay.advance():
        pass
    return {"policies": replay.summary()}
