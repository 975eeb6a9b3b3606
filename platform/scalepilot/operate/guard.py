"""What a policy may do to a live deployment, whatever it says. Pure: limits and memory in, a target and the reasons out."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from scalepilot.config.checks import Between, PositiveShare, Section, Share

Replica = Annotated[int, Between(0, 1_000_000)]
Seconds = Annotated[float, Between(0, 604_800)]


@dataclass(frozen=True)
class Limits(Section):
    """Keys of `limits`: what may be done, and when it may not.

    Attributes:
        min_replicas: fewest that are ever asked for; null for the policy's environment's.
        max_replicas: most that are ever asked for; null for the policy's environment's.
        up_factor: one decision may multiply the replicas by this, or
        up_replicas: add as many, whichever is more.
        down_share: one decision may remove this share of the replicas, rounded down, or
        down_replicas: as many, whichever is more.
        reversals_per_hour: changes of direction within an hour after which a move down waits for the stabilisation window.
        stabilisation_seconds: over which the most that was wanted counts, once reversals are used up.
        age_intervals: oldest sample of a required field that is still used, in intervals.
        optional_age_intervals: the same for fields the policy can do without.
        hold_seconds: without telemetry the replicas are held so long; then the fallback rule may raise them.
        fallback_seconds: after so long without telemetry the replicas are at least `safe_replicas`.
        safe_replicas: see `fallback_seconds`; null to keep what there is.
        harm_share: late or failed requests that grow by more than this share after a move down are harm.
        harm_ticks: decisions in a row with harm after which the move down is undone.
        harm_seconds: how long after a move down it can be blamed.
        lock_seconds: no further move down for so long after one was undone.
        from_zero: whether a deployment that people scaled to zero may be raised.
        takeover: whether to go on when others have changed the replicas, or scale the deployment, too.
    """

    min_replicas: Replica | None = None
    max_replicas: Replica | None = None
    up_factor: Annotated[float, Between(1, 1000)] = 2.0
    up_replicas: Annotated[int, Between(1, 1_000_000)] = 4
    down_share: Share = 0.25
    down_replicas: Annotated[int, Between(1, 1_000_000)] = 1
    reversals_per_hour: Annotated[int, Between(0, 10_000)] = 12
    stabilisation_seconds: Seconds = 300.0
    age_intervals: Annotated[float, Between(0, 1000, above=True)] = 3.0
    optional_age_intervals: Annotated[float, Between(0, 1000, above=True)] = 4.0
    hold_seconds: Seconds = 300.0
    fallback_seconds: Seconds = 1800.0
    safe_replicas: Replica | None = None
    harm_share: PositiveShare = 0.05
    harm_ticks: Annotated[int, Between(1, 1000)] = 3
    harm_seconds: Seconds = 300.0
    lock_seconds: Seconds = 900.0
    from_zero: bool = False
    takeover: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.min_replicas, self.max_replicas
        if low is not None and high is not None and high < low:
            raise ValueError(f"max_replicas: {high} is below min_replicas {low}; allowed: from {low}")
        safe = self.safe_replicas
        if safe is not None and not (low or 0) <= safe <= (safe if high is None else high):
            raise ValueError(f"safe_replicas: {safe} is not allowed; allowed: min_replicas to max_replicas")
        if self.fallback_seconds < self.hold_seconds:
            raise ValueError(
                f"fallback_seconds: {self.fallback_seconds:g} is below hold_seconds {self.hold_seconds:g};"
                f" allowed: from {self.hold_seconds:g}"
            )

    def within(self, low: float, high: float) -> Limits:
        """The same with the bounds of the policy's environment, low to high, where none are set.

        Raises:
            ValueError: a bound that is set lies outside them: the policy has never seen so many, or so few.
        """
        bounds: dict[str, Any] = {"min_replicas": int(max(low, 0)), "max_replicas": int(min(high, 1_000_000))}
        for name in bounds:
            value = getattr(self, name)
            if value is None:
                continue
            if not low <= value <= high:
                raise ValueError(f"{name}: {value} is not allowed; allowed: {low:g} to {high:g}, which the policy was made for")
            bounds[name] = value
        return replace(self, **bounds)


@dataclass(frozen=True)
class Watch:
    """A move down that may turn out to do harm.

    Attributes:
        since: Unix seconds of the move.
        level: replicas before it.
        late_share: before it; likewise
        error_share: before it.
        ticks: decisions in a row with harm so far.
    """

    since: float
    level: int
    late_share: float
    error_share: float
    ticks: int = 0


@dataclass(frozen=True)
class GuardState:
    """What the guard remembers.

    Attributes:
        moves: of the last hour: (Unix seconds, from, to).
        wanted: of the stabilisation window: (Unix seconds, replicas).
        watch: the move down that is watched for harm.
        floor: replicas below which nothing goes while `locked_until` lasts.
        locked_until: Unix seconds; no move down before.
    """

    moves: tuple[tuple[float, int, int], ...] = ()
    wanted: tuple[tuple[float, int], ...] = ()
    watch: Watch | None = None
    floor: int = 0
    locked_until: float = 0.0


@dataclass(frozen=True)
class Step:
    """One thing that changed the target.

    Attributes:
        rule: which limit: "bounds", "step up", "step down", "flap budget", "undo", "lock", "rollout", "telemetry", "paused".
        before: replicas without it.
        after: replicas with it.
    """

    rule: str
    before: int
    after: int


@dataclass
class _Chain:
    """The target as it passes the limits."""

    target: int
    steps: list[Step] = field(default_factory=list)

    def at_least(self, floor: int, rule: str) -> None:
        if self.target < floor:
            self._to(floor, rule)

    def at_most(self, ceiling: int, rule: str) -> None:
        if self.target > ceiling:
            self._to(ceiling, rule)

    def _to(self, target: int, rule: str) -> None:
        self.steps.append(Step(rule, self.target, target))
        self.target = target


@dataclass(frozen=True)
class Situation:
    """What the limits depend on at one moment.

    Attributes:
        time: Unix seconds.
        spec: replicas asked for now.
        late_share: of the newest interval; None where it is unknown.
        error_share: likewise.
        without_down: why nothing may be removed, each a rule's name: "telemetry", "rollout".
        paused: directions that people have forbidden: "in", "out".
    """

    time: float
    spec: int
    late_share: float | None = None
    error_share: float | None = None
    without_down: tuple[str, ...] = ()
    paused: frozenset[str] = frozenset()


def guarded(wanted: int, now: Situation, state: GuardState, limits: Limits) -> tuple[int, list[Step], GuardState]:
    """The target that the limits leave of what is wanted.

    Args:
        wanted: replicas.
        now: the situation.
        state: what was before; its clock may have jumped: what lies in the future is forgotten.
        limits: with both bounds set.

    Returns:
        The target, what changed it in order, and the memory for the next time.
    """
    assert limits.min_replicas is not None
    assert limits.max_replicas is not None
    state = _remembered(state, now.time, wanted, limits)
    state, undone = _watched(state, now, limits)
    chain = _Chain(wanted)
    if now.time < state.locked_until:
        chain.at_least(max(state.floor, now.spec), "undo" if undone else "lock")
    for rule in now.without_down:
        chain.at_least(now.spec, rule)
    if chain.target < now.spec and _reversals(state.moves, -1) > limits.reversals_per_hour:
        chain.at_least(min(now.spec, max(replicas for _, replicas in state.wanted)), "flap budget")
    chain.at_most(max(math.floor(now.spec * limits.up_factor), now.spec + limits.up_replicas), "step up")
    chain.at_least(now.spec - max(math.floor(now.spec * limits.down_share), limits.down_replicas), "step down")
    # Last, so that nothing above leads out of the bounds.
    chain.at_least(limits.min_replicas, "bounds")
    chain.at_most(limits.max_replicas, "bounds")
    # Nor may the bounds do what people have forbidden.
    if "in" in now.paused:
        chain.at_least(now.spec, "paused")
    if "out" in now.paused:
        chain.at_most(now.spec, "paused")
    return chain.target, chain.steps, state


def moved(state: GuardState, now: Situation, target: int) -> GuardState:
    """The memory after the target was written."""
    if target == now.spec:
        return state
    moves = (*state.moves, (now.time, now.spec, target))
    if target > now.spec:
        # More replicas again: what was removed is no longer to blame.
        return replace(state, moves=moves, watch=None)
    watch = state.watch
    if watch is None:
        watch = Watch(now.time, now.spec, now.late_share or 0.0, now.error_share or 0.0)
    return replace(state, moves=moves, watch=replace(watch, since=now.time))


def _remembered(state: GuardState, time: float, wanted: int, limits: Limits) -> GuardState:
    hour, window = time - 3600.0, time - limits.stabilisation_seconds
    return replace(
        state,
        moves=tuple(move for move in state.moves if hour < move[0] <= time),
        wanted=(*(past for past in state.wanted if window < past[0] <= time), (time, wanted)),
        # After a jump of the clock a lock would last for ever.
        locked_until=min(state.locked_until, time + limits.lock_seconds),
        watch=None if state.watch is None or state.watch.since > time else state.watch,
    )


def _watched(state: GuardState, now: Situation, limits: Limits) -> tuple[GuardState, bool]:
    """Whether the last move down has done harm: then it is undone, and there is none for a while."""
    watch = state.watch
    if watch is None:
        return state, False
    if now.late_share is None or now.error_share is None:
        # Unknown is neither harm nor health.
        return state, False
    grown = max(now.late_share - watch.late_share, now.error_share - watch.error_share)
    if grown <= limits.harm_share:
        over = now.time - watch.since > limits.harm_seconds
        return replace(state, watch=None if over else replace(watch, ticks=0)), False
    watch = replace(watch, ticks=watch.ticks + 1)
    if watch.ticks < limits.harm_ticks:
        return replace(state, watch=watch), False
    return replace(state, watch=None, floor=watch.level, locked_until=now.time + limits.lock_seconds), True


def _reversals(moves: tuple[tuple[float, int, int], ...], next_direction: int) -> int:
    """Changes of direction among the moves and the one that would follow."""
    directions = [1 if after > before else -1 for _, before, after in moves] + [next_direction]
    return sum(a != b for a, b in itertools.pairwise(directions))


def state_from_json(values: dict[str, Any]) -> GuardState:
    """As `dataclasses.asdict` and JSON leave it."""
    watch = values.get("watch")
    return GuardState(
        moves=tuple((float(t), int(a), int(b)) for t, a, b in values.get("moves", ())),
        wanted=tuple((float(t), int(n)) for t, n in values.get("wanted", ())),
        watch=None if watch is None else Watch(**watch),
        floor=int(values.get("floor", 0)),
        locked_until=float(values.get("locked_until", 0.0)),
    )
