"""One decision, pure: a snapshot and what was before in, a record and what comes after out.

`tick` reads no clock, no file and no network: the same snapshot and state give the same record, so that a recorded day can be
repeated, or decided again by another policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.operate.guard import GuardState, Limits, Situation, Step, guarded, moved
from scalepilot.operate.snapshot import Reading, Snapshot
from scalepilot.policy import FieldEntry, Policy
from scalepilot.policy.decoder import in_replicas
from scalepilot.policy.protocol import Decision, State
from scalepilot_envs.description import is_mask

# active: the policy decides. degraded: it decides without a field it can do without; nothing is removed. starting, holding: a
# required field is unknown, the replicas stay; before and after the first decision. fallback: that has lasted, the rule may
# raise them. safe: it has lasted longer, they are at least `safe_replicas`. paused: people said so. contested: others scale it,
# or have changed the replicas. standby: another process leads.
Mode = Literal["starting", "active", "degraded", "holding", "fallback", "safe", "paused", "contested", "standby"]
MODES: tuple[Mode, ...] = ("starting", "active", "degraded", "holding", "fallback", "safe", "paused", "contested", "standby")
# Modes in which the policy decides.
DECIDED: tuple[Mode, ...] = ("active", "degraded")
_ACCEPT = " (POST /v1/acknowledge accepts that, or limits.takeover: true)"
# Of a mode: the first few.
_MOST_REASONS = 3
# No target: nothing may be asked for.
_SILENT = ("paused", "contested", "standby")


@dataclass(frozen=True)
class Deciders:
    """Who decides.

    Attributes:
        policy: whose target is asked for.
        fallbacks: rules on the same fields, where the policy gives nothing sound or a required field is unknown: the first that
            needs nothing unknown decides.
        shadows: whose targets are written down beside it, by name.
        at_rest: field → value that stands in where the policy can do without it: a service without waiting or errors.
    """

    policy: Policy
    fallbacks: Sequence[Policy]
    shadows: Mapping[str, Policy] = field(default_factory=dict)
    at_rest: Mapping[str, float] = field(default_factory=dict)

    @property
    def fields(self) -> Sequence[FieldEntry]:
        """Of the observation, in order."""
        return self.policy.spec.observation_fields


@dataclass(frozen=True)
class TickState:
    """What one decision leaves to the next.

    Attributes:
        guard: the limits' memory.
        policies: decider's name → its own memory, for those that have one.
        asked: replicas asked for when we last looked or wrote; None before the first decision: then nobody else has changed them.
        also_asked: what a write of unknown outcome may have left in its place.
        unknown_since: Unix seconds since a required field is unknown; None while all are known.
        decided: whether a policy has decided before.
        contested_by: what others have done; "" while nobody has.
        pause: whether a person has paused it here.
        offered: when a feed told others a target, and the late and error share then: if the replicas have changed since, they
            have followed it. None where nobody was told any.
    """

    guard: GuardState = field(default_factory=GuardState)
    policies: Mapping[str, State] = field(default_factory=dict)
    asked: int | None = None
    also_asked: int | None = None
    unknown_since: float | None = None
    decided: bool = False
    contested_by: str = ""
    pause: bool = False
    offered: tuple[float, float | None, float | None] | None = None


@dataclass(frozen=True)
class Record:
    """One decision and why.

    Attributes:
        snapshot: what was known.
        mode: see `Mode`.
        reason: why the mode is not "active"; "" where it is.
        decider: who wanted it: the policy's name@version, the rule's, or "" where nobody was asked.
        scores: of the policy's actions, in order; None for rules.
        probability: of the chosen action, where the scores say so (logits); None of Q-values and rules.
        action: index of the chosen action; None for rules.
        label: its name, such as "+25 %".
        wanted: replicas before the limits; None where nobody was asked.
        steps: what the limits changed.
        target: replicas to ask for; None where nothing may be asked for.
        shadows: name → replicas the others would have wanted.
        outcome: what became of it: "same", "dry run", "feed" (others are told), or of the write; set by whoever carries it out.
        detail: of the outcome, one line.
        milliseconds: phase → how long it took.
    """

    snapshot: Snapshot
    mode: Mode
    reason: str = ""
    decider: str = ""
    scores: tuple[float, ...] | None = None
    probability: float | None = None
    action: int | None = None
    label: str = ""
    wanted: int | None = None
    steps: tuple[Step, ...] = ()
    target: int | None = None
    shadows: Mapping[str, int | None] = field(default_factory=dict)
    outcome: str = ""
    detail: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)


def tick(snapshot: Snapshot, state: TickState, deciders: Deciders, limits: Limits, interval: float) -> tuple[Record, TickState]:
    """Decide once.

    Args:
        snapshot: what is known.
        state: what the last decision left.
        deciders: the policy, the fallback rule, the shadows.
        limits: with both bounds set.
        interval: seconds between two decisions.

    Returns:
        The record, its outcome not set yet, and the state for the next decision if nothing is written.
    """
    values, missing, without = known(snapshot, deciders, limits, interval)
    state = _with_health(state, missing, snapshot.time)
    mode, reason, state = _mode(snapshot, state, limits, missing, without)
    record = Record(snapshot, mode, reason)
    observation = _observation(values, deciders)
    state, shadows = _asked_shadows(observation if not missing else None, state, deciders, snapshot.replicas.spec)
    record = replace(record, shadows=shadows)
    spec = snapshot.replicas.spec
    state = _followed(state, spec)
    if spec is None or mode in _SILENT:
        # The memory of a rule goes on, so that it is right when its turn comes.
        _, state = _ask("policy", deciders.policy, observation if not missing else None, state, spec)
        # What is there when its turn comes is taken as it is: others led, or people did what they liked.
        kept = None if mode == "standby" else state.asked if spec is None else spec
        return record, replace(state, asked=kept, also_asked=state.also_asked if spec is None else None)
    record, state = _wanted(record, state, deciders, limits, observation, values, spec)
    down = ("telemetry",) * (mode not in ("active",)) + ("rollout",) * snapshot.replicas.rolling_out
    now = Situation(snapshot.time, spec, values.get("late_share"), values.get("error_share"), down, snapshot.replicas.paused)
    target, steps, guard = guarded(spec if record.wanted is None else record.wanted, now, state.guard, limits)
    state = replace(state, guard=guard, asked=spec, also_asked=None, decided=state.decided or mode in DECIDED)
    return replace(record, target=target, steps=tuple(steps)), state


def _followed(state: TickState, spec: int | None) -> TickState:
    """Others have done what a feed told them: the limits remember it as a move of ours."""
    if state.offered is None or spec is None:
        return state
    guard = state.guard
    if state.asked is not None:
        time, late_share, error_share = state.offered
        guard = moved(guard, Situation(time, state.asked, late_share, error_share), spec)
    return replace(state, guard=guard, offered=None)


def situation(record: Record) -> Situation:
    """Of a record whose target is about to be written, for the limits' memory of it."""
    spec = record.snapshot.replicas.spec
    assert spec is not None
    shares = [record.snapshot.readings.get(name) for name in ("late_share", "error_share")]
    late, errors = (None if reading is None else reading.value for reading in shares)
    return Situation(record.snapshot.time, spec, late, errors)


def known(
    snapshot: Snapshot, deciders: Deciders, limits: Limits, interval: float
) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    """Fields that are known; required ones that are not, and optional ones, each with the reason."""
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    without: dict[str, str] = {}
    for f in deciders.fields:
        if is_mask(f.name):
            values[f.name] = 1.0
            continue
        optional = f.name in deciders.at_rest
        reading = snapshot.readings.get(f.name) or Reading(None, "", None, "nothing measures it")
        problem = problem_of(reading, limits, interval, optional=optional)
        if problem:
            (without if optional else missing)[f.name] = problem
        else:
            assert reading.value is not None
            values[f.name] = min(max(reading.value, f.low), f.high)
    return values, missing, without


def problem_of(reading: Reading, limits: Limits, interval: float, *, optional: bool) -> str:
    """Why a reading is not used; "" where it is."""
    most_seconds = (limits.optional_age_intervals if optional else limits.age_intervals) * interval
    if reading.value is None or not np.isfinite(reading.value):
        return reading.problem or "unknown"
    if reading.age_seconds is None:
        return ""
    if reading.age_seconds > most_seconds:
        return f"{reading.age_seconds:.0f} s old, allowed {most_seconds:.0f} s"
    if reading.age_seconds < -most_seconds:
        return f"{-reading.age_seconds:.0f} s in the future: the clocks differ"
    return ""


def _with_health(state: TickState, missing: Mapping[str, str], time: float) -> TickState:
    if not missing:
        return replace(state, unknown_since=None)
    since = state.unknown_since
    # A clock that was set back begins anew.
    return replace(state, unknown_since=time if since is None or since > time else since)


def _mode(
    snapshot: Snapshot, state: TickState, limits: Limits, missing: Mapping[str, str], without: Mapping[str, str]
) -> tuple[Mode, str, TickState]:
    replicas = snapshot.replicas
    lost = listed(missing, _MOST_REASONS)
    if not replicas.leading:
        # Whoever leads writes: what it leaves is nobody else's doing.
        return "standby", replicas.problem or "another process leads", replace(state, asked=None, contested_by="")
    if replicas.spec is None:
        return "holding" if state.decided else "starting", replicas.problem or "the target does not answer", state
    state = _contested(state, replicas.spec, limits)
    if replicas.owners and not limits.takeover:
        return "contested", f"also scaled by {', '.join(replicas.owners)}", state
    if state.contested_by:
        return "contested", state.contested_by, state
    if state.pause or replicas.paused >= {"in", "out"}:
        return "paused", "at the controller" if state.pause else "at the target", state
    if replicas.spec == 0 and not limits.from_zero:
        return "paused", "scaled to zero; limits.from_zero: true raises it", state
    if missing:
        assert state.unknown_since is not None
        lasted = snapshot.time - state.unknown_since
        if lasted >= limits.fallback_seconds:
            return "safe", lost, state
        if lasted >= limits.hold_seconds:
            return "fallback", lost, state
        return "holding" if state.decided else "starting", lost, state
    return ("degraded", listed(without, _MOST_REASONS), state) if without else ("active", "", state)


def listed(problems: Mapping[str, str], most: int | None = None) -> str:
    """Unknown fields in one line, those of one reason together: "cpu_share and 2 more: no samples".

    Args:
        problems: field → why it is unknown.
        most: reasons that are told; None for all.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in problems.items():
        by_reason.setdefault(reason, []).append(name)
    told = [f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}" for why, names in by_reason.items()]
    return "; ".join(told[:most])


def _contested(state: TickState, spec: int, limits: Limits) -> TickState:
    if state.asked is None or limits.takeover or spec in (state.asked, state.also_asked):
        return replace(state, contested_by="") if limits.takeover else state
    return replace(state, contested_by=f"others changed the replicas from {state.asked} to {spec}{_ACCEPT}")


def _observation(values: Mapping[str, float], deciders: Deciders) -> NDArray[np.float32]:
    """(1, num_fields); a field that is unknown is at rest, or in the middle of nowhere where it must not be used."""
    row = [values.get(f.name, deciders.at_rest.get(f.name, np.nan)) for f in deciders.fields]
    return np.array([row], np.float32)


def _asked_shadows(
    observation: NDArray[np.float32] | None, state: TickState, deciders: Deciders, spec: int | None
) -> tuple[TickState, dict[str, int | None]]:
    targets: dict[str, int | None] = {}
    for name, policy in deciders.shadows.items():
        decision, state = _ask(f"shadow {name}", policy, observation, state, spec)
        targets[name] = None if decision is None else _sound(decision)
    return state, targets


def _ask(
    name: str, policy: Policy, observation: NDArray[np.float32] | None, state: TickState, spec: int | None
) -> tuple[Decision | None, TickState]:
    """A decider's decision, and its memory put away; without an observation its memory stays.

    Of an environment that does not show how many replicas are asked for, an action is applied to `spec`, what the target says.
    """
    if observation is None:
        return None, state
    try:
        decision, memory = policy.act(observation, state.policies.get(name))
    except Exception:  # noqa: BLE001 - whatever fails in a policy, the loop goes on: the fallback rule decides
        return None, state
    if spec is not None:
        decision = in_replicas(decision, policy.spec.actions, spec)
    if memory is None:
        return decision, state
    return decision, replace(state, policies={**state.policies, name: memory})


def _sound(decision: Decision) -> int | None:
    """The replicas of a decision; None where it or its scores are no numbers."""
    if decision.desired_replicas is None or (decision.scores is not None and not np.isfinite(decision.scores).all()):
        return None
    wanted = float(decision.desired_replicas[0])
    return int(wanted) if np.isfinite(wanted) and abs(wanted) <= 1e9 else None


def _wanted(
    record: Record,
    state: TickState,
    deciders: Deciders,
    limits: Limits,
    observation: NDArray[np.float32],
    values: Mapping[str, float],
    spec: int,
) -> tuple[Record, TickState]:
    if record.mode in DECIDED:
        decision, state = _ask("policy", deciders.policy, observation, state, spec)
        wanted = None if decision is None else _sound(decision)
        if decision is not None and wanted is not None:
            return _decided(record, deciders.policy, decision, wanted), state
        record = replace(record, reason=f"{deciders.policy.spec.name} gave no number; a rule decides")
    if record.mode in ("active", "degraded", "fallback"):
        for rule in deciders.fallbacks:
            decision, state = _ask_without(rule, deciders, values, state, spec)
            wanted = None if decision is None else _sound(decision)
            if decision is not None and wanted is not None:
                return _decided(record, rule, decision, wanted), state
    if record.mode == "safe" and limits.safe_replicas is not None:
        return replace(record, decider="limits.safe_replicas", wanted=max(spec, limits.safe_replicas)), state
    return record, state


def _ask_without(
    rule: Policy, deciders: Deciders, values: Mapping[str, float], state: TickState, spec: int
) -> tuple[Decision | None, TickState]:
    """A rule's decision if it needs nothing that is unknown: the same whatever the unknown fields may be."""
    rows = [
        [values.get(f.name, deciders.at_rest.get(f.name, getattr(f, side))) for f in deciders.fields] for side in ("low", "high")
    ]
    found, after = None, state
    for row in rows:
        decision, after = _ask(f"fallback {rule.spec.name}", rule, np.array([row], np.float32), state, spec)
        if decision is None or (found is not None and _sound(found) != _sound(decision)):
            return None, state
        found = decision
    return found, after


def _decided(record: Record, policy: Policy, decision: Decision, wanted: int) -> Record:
    spec = policy.spec
    record = replace(record, decider=f"{spec.name}@{spec.version}", wanted=wanted)
    if decision.action is None or decision.action.ndim > 1:
        return record
    action = int(decision.action[0])
    record = replace(record, action=action, label=spec.actions[action].label if spec.actions else "")
    if decision.scores is None:
        return record
    scores = decision.scores[0].astype(np.float64)
    weights = np.exp(scores - scores.max())
    probability = float(weights[action] / weights.sum()) if spec.decision_rule in ("argmax_p", "sample") else None
    return replace(record, scores=tuple(float(score) for score in scores), probability=probability)
