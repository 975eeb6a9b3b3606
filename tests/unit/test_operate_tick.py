"""A decision: what holds whatever a policy says, whatever is unknown, and whatever the clock does."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.operate.config import load_service, operate_config
from scalepilot.operate.guard import GuardState, Limits, Situation, guarded, moved
from scalepilot.operate.ledger import (
    Entry,
    Given,
    Ledger,
    day_files,
    newest_first,
    read_entries,
    sentence,
    state_to_json,
    tick_state_from_json,
)
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot
from scalepilot.operate.tick import Deciders, TickState, tick
from scalepilot.policy.protocol import Decision, State
from scalepilot.policy.spec import PolicySpec

SERVICE = load_service(operate_config({"policy": "hpa"}))
NAMES = [f.name for f in SERVICE.deciders.fields]
OPTIONAL = set(SERVICE.deciders.at_rest)
INTERVAL = 15.0
HEALTHY = {
    **dict.fromkeys((f"request_rate_rps_{i}" for i in range(8)), 100.0),
    "request_rate_mean_rps": 100.0,
    "request_rate_std_rps": 1.0,
    "cpu_utilisation": 0.6,
    "latency_p95_seconds": 0.05,
    "late_share": 0.0,
    "error_share": 0.0,
    "backlog_requests": 0.0,
    "ready_replicas": 8.0,
    **dict.fromkeys((f"starting_replicas_{i}" for i in range(4)), 0.0),
    "replica_capacity_rps": 20.0,
}


class Wants:
    """A policy that wants what it is told, and counts how often it is asked."""

    def __init__(self, *wanted: float, scores: Any = None) -> None:
        self.wanted, self.scores, self.asked = list(wanted), scores, 0
        self.spec: PolicySpec = replace(SERVICE.deciders.policy.spec, name="wants")

    def act(
        self, observation: Any, state: State | None = None, *, deterministic: bool = True, rng: Any = None
    ) -> tuple[Decision, State | None]:
        del observation, deterministic, rng
        wanted = self.wanted[min(self.asked, len(self.wanted) - 1)]
        self.asked += 1
        return Decision(np.array([wanted]), None if self.scores is None else np.array([0]), self.scores), state


def deciders(policy: Any) -> Deciders:
    return replace(SERVICE.deciders, policy=policy)


def snapshot(
    time: float = 1e9, spec: int | None = 8, *, without: tuple[str, ...] = (), old: float = 1.0, **values: Any
) -> Snapshot:
    """A healthy moment; fields in `without` are unknown, `values` in place of the healthy ones."""
    changes = {name: values.pop(name) for name in list(values) if name in HEALTHY}
    readings = {
        name: Reading(None, "prometheus", None, "time-out")
        if name in without
        else Reading(float(changes.get(name, value)), "prometheus", old)
        for name, value in HEALTHY.items()
    }
    return Snapshot(time, readings, Replicas(spec, spec, (), **values))


def decide(policy: Any, shown: Snapshot, state: TickState | None = None, **limits: Any) -> Any:
    return tick(shown, state or TickState(), deciders(policy), Limits(min_replicas=1, max_replicas=60, **limits), INTERVAL)


WANTED = st.one_of(st.integers(0, 100).map(float), st.sampled_from([math.nan, math.inf, -math.inf, -5.0, 1e30]))
SHARES = st.floats(0.0, 1.0)


@st.composite
def moments(draw: st.DrawFn) -> Snapshot:
    time = 1e9 + draw(st.integers(-7200, 7200))
    # Half of the moments are healthy: what holds there must be met, too.
    healthy = draw(st.booleans())
    without = () if healthy else tuple(draw(st.sets(st.sampled_from(NAMES), max_size=3)))
    return snapshot(
        time,
        draw(st.integers(1, 45) if healthy else st.one_of(st.none(), st.integers(0, 60))),
        without=without,
        old=1.0 if healthy else draw(st.sampled_from([0.0, 10.0, 50.0, 1e4, -1e4])),
        late_share=draw(SHARES),
        error_share=draw(SHARES),
        cpu_utilisation=draw(SHARES),
        rolling_out=draw(st.booleans()),
        paused=draw(st.sampled_from([frozenset(), frozenset({"in"}), frozenset({"out"}), frozenset({"in", "out"})])),
        owners=() if healthy else draw(st.sampled_from([(), ("HorizontalPodAutoscaler web",)])),
        leading=healthy or draw(st.booleans()),
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(moments(), min_size=1, max_size=12), st.lists(WANTED, min_size=1, max_size=12), st.booleans())
def test_what_holds_at_every_decision(shown: list[Snapshot], wanted: list[float], takeover: bool):
    state, policy = TickState(), Wants(*wanted)
    limits = Limits(min_replicas=2, max_replicas=40, takeover=takeover)
    for moment in shown:
        before = json.dumps(state_to_json(state))
        record, after = tick(moment, state, deciders(policy), limits, INTERVAL)
        spec = moment.replicas.spec
        unknown = any(r.value is None or abs(r.age_seconds or 0) > 60 for r in moment.readings.values())
        lost = any(r.value is None or abs(r.age_seconds or 0) > 45 for n, r in moment.readings.items() if n not in OPTIONAL)
        # 6 one record a tick, with a sentence; it can be written down and read again.
        assert sentence(record)
        entry = Entry(record, after, "wants@1", False, INTERVAL, Given.of(state))
        assert Entry.from_json(json.loads(json.dumps(entry.to_json(), allow_nan=False))).to_json() == entry.to_json()
        # Pure: the state that was given is as it was.
        assert json.dumps(state_to_json(state)) == before
        silent = record.mode in ("paused", "contested", "standby")
        assert (record.target is None) == (silent or spec is None)
        if record.target is not None and spec is not None:
            paused = moment.replicas.paused
            # 2 within the bounds, but where people have forbidden the way there.
            assert 2 <= record.target <= 40 or (record.target == spec and paused)
            inside = 2 <= spec <= 40
            # 1 what is lost or stale removes nothing.
            assert not (inside and unknown and record.target < spec)
            # 4 a step at a time.
            assert not inside or spec - max(spec // 4, 1) <= record.target <= max(2 * spec, spec + 4)
            # 11 nothing is removed during a rollout.
            assert not (inside and moment.replicas.rolling_out and record.target < spec)
            assert not ("in" in paused and record.target < spec)
            assert not ("out" in paused and record.target > spec)
            # 7 no target without a number: what is wanted is finite, or nobody was asked.
            assert record.wanted is None or -1e9 <= record.wanted <= 1e9
        # 3, 8, 9: who may not ask asks for nothing.
        if not moment.replicas.leading:
            assert record.mode == "standby"
        elif spec is not None and moment.replicas.owners and not takeover:
            assert record.mode == "contested"
        elif spec == 0 and record.mode not in ("contested", "paused"):
            raise AssertionError(record)
        if lost:
            assert record.mode not in ("active", "degraded")
        # 10 the same snapshot and state give the same decision.
        policy.asked -= 1 if policy.asked else 0
        assert tick(moment, TickState(), deciders(Wants(7.0)), limits, INTERVAL) == tick(
            moment, TickState(), deciders(Wants(7.0)), limits, INTERVAL
        )
        if record.target is not None and spec is not None and record.target != spec:
            now = Situation(moment.time, spec)
            after = replace(after, asked=record.target, guard=moved(after.guard, now, record.target))
        state = after


def test_the_policy_decides_where_everything_is_known():
    record, state = decide(Wants(9.0), snapshot())
    assert (record.mode, record.wanted, record.target, record.decider) == ("active", 9, 9, "wants@1")
    assert state.asked == 8
    assert sentence(record).startswith("8 → 9: wants@1 wants 9; 100 rps, 60 % CPU")


def test_it_decides_without_what_it_can_do_without_but_removes_nothing():
    assert decide(Wants(6.0), snapshot(without=("late_share",)))[0].target == 8
    record, _ = decide(Wants(9.0), snapshot(without=("late_share",)))
    assert (record.mode, record.target, record.reason) == ("degraded", 9, "late_share: time-out")


def test_lost_telemetry_holds_then_lets_the_rule_raise_then_keeps_a_safe_level():
    state, modes = TickState(), []
    for second in range(0, 2400, 60):
        record, state = decide(
            Wants(9.0),
            snapshot(1e9 + second, without=("request_rate_rps_0",), cpu_utilisation=1.0),
            state,
            safe_replicas=20,
        )
        modes.append((record.mode, record.target))
        state = replace(state, asked=8)
    # hpa reads the CPU, which is known: 8 × 1.0 / 0.7.
    assert [mode for mode, _ in modes] == ["starting"] * 5 + ["fallback"] * 25 + ["safe"] * 10
    assert {target for mode, target in modes if mode == "fallback"} == {12}
    assert {target for mode, target in modes if mode == "safe"} == {16}


def test_a_rule_is_not_asked_what_it_cannot_know():
    state = TickState(unknown_since=1e9 - 400)
    # hpa reads the CPU, tracking the requests.
    record, _ = decide(Wants(9.0), snapshot(without=("cpu_utilisation",), request_rate_rps_0=200.0), state)
    assert (record.mode, record.decider, record.target) == ("fallback", "tracking-utilisation-0.7@1", 15)
    record, _ = decide(Wants(9.0), snapshot(without=("cpu_utilisation", "request_rate_rps_0")), state)
    assert (record.mode, record.wanted, record.target) == ("fallback", None, 8)


@pytest.mark.parametrize("policy", [Wants(math.nan), Wants(9.0, scores=np.array([[np.nan]])), None])
def test_a_policy_that_gives_no_number_or_fails_is_replaced_by_the_rule(policy: Any):
    if policy is None:
        policy = Wants(9.0)
        policy.act = lambda *given, **options: 1 / 0
    record, _ = decide(policy, snapshot(cpu_utilisation=1.0))
    assert record.decider == "hpa@1"
    assert record.target == 12
    assert "gave no number" in record.reason


def test_what_others_changed_is_left_alone_until_acknowledged():
    state = TickState(asked=8)
    record, state = decide(Wants(9.0), snapshot(spec=5), state)
    assert (record.mode, record.target, record.reason) == (
        "contested",
        None,
        "others changed the replicas from 8 to 5 (POST /v1/acknowledge accepts that, or limits.takeover: true)",
    )
    record, state = decide(Wants(9.0), snapshot(spec=5), state)
    assert record.mode == "contested"
    assert decide(Wants(9.0), snapshot(spec=5), state, takeover=True)[0].target == 9
    assert decide(Wants(9.0), snapshot(spec=5), replace(state, contested_by="", asked=None))[0].target == 9
    # A write of unknown outcome was ours, whatever became of it.
    assert decide(Wants(9.0), snapshot(spec=5), TickState(asked=8, also_asked=5))[0].mode == "active"


def test_an_owner_that_goes_away_is_forgotten():
    state = TickState(asked=8)
    record, state = decide(Wants(9.0), snapshot(owners=("ScaledObject web",)), state)
    assert record.reason == "also scaled by ScaledObject web"
    assert decide(Wants(9.0), snapshot(), state)[0].target == 9


def test_zero_is_peoples_word():
    assert decide(Wants(9.0), snapshot(spec=0))[0].mode == "paused"
    assert decide(Wants(3.0), snapshot(spec=0), from_zero=True)[0].target == 3


def test_harm_after_a_move_down_is_undone_and_locks():
    limits = {"harm_ticks": 2, "lock_seconds": 600}
    record, state = decide(Wants(6.0), snapshot(), **limits)
    assert record.target == 6
    state = replace(state, asked=6, guard=moved(state.guard, Situation(1e9, 8, 0.0, 0.0), 6))
    targets = []
    for k in range(1, 45):
        late = 0.3 if k < 4 else 0.0
        spec = targets[-1] if targets else 6
        record, state = decide(Wants(6.0), snapshot(1e9 + 15 * k, spec=spec, late_share=late), state, **limits)
        targets.append(record.target)
        state = replace(state, asked=record.target)
    assert targets[:3] == [6, 8, 8]
    assert {*targets[3:41]} == {8}
    assert targets[-1] == 6
    # Late before as well: not the move's doing.
    _, state = decide(Wants(6.0), snapshot(late_share=0.3), **limits)
    state = replace(state, asked=6, guard=moved(state.guard, Situation(1e9, 8, 0.3, 0.0), 6))
    for k in range(1, 5):
        record, state = decide(Wants(6.0), snapshot(1e9 + 15 * k, spec=6, late_share=0.3), state, **limits)
        assert record.target == 6


def test_turning_round_too_often_waits_for_the_window():
    limits = Limits(min_replicas=1, max_replicas=60, reversals_per_hour=3, stabilisation_seconds=60)
    state, spec, targets = GuardState(), 10, []
    for k in range(12):
        now = Situation(1e9 + 15 * k, spec, 0.0, 0.0)
        target, steps, state = guarded(12 if k % 2 else 10, now, state, limits)
        state = moved(state, now, target)
        targets.append(target)
        spec = target
    assert targets[:5] == [10, 12, 10, 12, 10]
    assert {*targets[6:]} == {12}
    assert steps or targets[-1] == 12


def test_a_clock_set_back_an_hour_leaves_no_lock_and_no_window_behind():
    state = GuardState(locked_until=1e9 + 900, floor=8, wanted=((1e9, 50),), moves=((1e9, 8, 6),))
    target, _, after = guarded(6, Situation(1e9 - 3600, 8, 0.0, 0.0), state, Limits(min_replicas=1, max_replicas=60))
    assert target == 8
    assert after.locked_until <= 1e9 - 3600 + 900
    assert after.moves == ()
    assert [n for _, n in after.wanted] == [6]


def test_limits_outside_of_what_the_policy_knows_are_refused():
    with pytest.raises(Exception, match=r"limits\.max_replicas: 100 is not allowed; allowed: 1 to 60"):
        load_service(operate_config({"policy": "hpa", "limits": {"max_replicas": 100}}))
    with pytest.raises(Exception, match="max_replicas: 3 is below min_replicas 5"):
        operate_config({"policy": "hpa", "limits": {"min_replicas": 5, "max_replicas": 3}})
    with pytest.raises(Exception, match="safe_replicas: 100 is not allowed"):
        operate_config({"policy": "hpa", "limits": {"safe_replicas": 100, "max_replicas": 40}})
    with pytest.raises(Exception, match="assume: 'nope' is not a field of hpa"):
        load_service(operate_config({"policy": "hpa", "assume": {"nope": 1}}))


def test_decisions_are_read_again_whatever_a_kill_left(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    ledger, state = Ledger(tmp_path / "records"), TickState()
    for k in range(5):
        record, state = decide(Wants(9.0), snapshot(1e9 + 15 * k), state)
        ledger.write(Entry(record, state, "wants@1", False, INTERVAL, Given.of(state)))
        if k == 2:
            (path,) = (tmp_path / "records").iterdir()
            with path.open("ab") as file:
                file.write(b'{"version": 1, "time": 10')
    found = list(read_entries(tmp_path / "records"))
    assert [entry.record.snapshot.time - 1e9 for entry in found] == [0, 15, 30, 45, 60]
    assert found[-1].state == state
    assert tick_state_from_json(json.loads(json.dumps(state_to_json(state)))) == state
    last = ledger.last(1e9 + 50)
    assert last is not None
    assert last.record.snapshot.time == 1e9 + 60
    assert ledger.last(1e9 + 100) is None
    with path.open("a") as file:
        file.write('{"version": 7}\n[1, 2]\nnull\nmore\n')
    assert len(list(read_entries(tmp_path / "records"))) == 5
    assert caplog.text.count("3 lines are not decisions of this version; left out") == 1
    with ledger.held(), pytest.raises(Exception, match="is in use by another process"), Ledger(tmp_path / "records").held():
        pass
    with ledger.held():
        pass


def test_the_newest_decisions_are_found_from_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ledger, state = Ledger(tmp_path / "records"), TickState()
    # From one day into the next.
    midnight = 1e9 // 86_400 * 86_400
    for k in range(-30, 30):
        record, state = decide(Wants(9.0), snapshot(midnight + 15 * k), state)
        ledger.write(Entry(record, state, "wants@1", False, INTERVAL, Given.of(state)))
    assert len(day_files(ledger.folder)) == 2
    all_of_them = [entry.to_json() for entry in read_entries(ledger.folder)]
    assert [entry.to_json() for entry in newest_first(ledger.folder)] == all_of_them[::-1]
    with day_files(ledger.folder)[-1].open("ab") as file:
        file.write(b"[1, 2]\n\n" + b"x" * 3_000_000 + b'\n{"version": 1, "time": 10')
    read: list[float] = []
    made = Entry.from_json.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Entry, "from_json", classmethod(lambda kind, values: read.append(1) or made(kind, values)))
    last = ledger.last(midnight)
    assert last is not None
    assert last.to_json() == all_of_them[-1]
    assert len(read) == 2
    assert ledger.last(midnight + 15 * 30) is None
