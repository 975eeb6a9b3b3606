"""The report of recorded decisions, held to days whose truth is known."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.recorded_day import MIDNIGHT, Cluster, dark, decisions, service_of, without

from scalepilot.cli import main
from scalepilot.errors import InputError
from scalepilot.operate.config import Service, load_service, operate_config
from scalepilot.operate.counterfactual import as_recorded, cut, measured_startup_seconds, replayed_replicas
from scalepilot.operate.day_json import to_json
from scalepilot.operate.day_page import render_page
from scalepilot.operate.day_report import HPA_SETTINGS, DayReport, day_report, priced
from scalepilot.operate.day_verdict import judge
from scalepilot.operate.ledger import Entry, Ledger
from scalepilot.operate.recorded import read_recorded
from scalepilot.policy.protocol import Decision
from scalepilot.policy.rules import HpaParameters
from scalepilot.report.charts.day_chart import NARROW, WIDE, DayLines, day_chart
from scalepilot_envs.autoscale import AutoscaleParams

# Coarse, so that a day takes little time.
STEP: dict[str, Any] = {"interval_seconds": 120.0, "startup_seconds": 240.0}
COARSE = {"interval_seconds": 300.0, "startup_seconds": 300.0}
HOUR = 3600.0


def day(
    policy: str = "kpa", hours: float = 3.0, *, dry_run: bool = True, service: Service | None = None, **options: Any
) -> tuple[Cluster, Service, list[Entry]]:
    service = service or service_of(policy, STEP)
    cluster = Cluster(AutoscaleParams(**{**STEP, **options.pop("really", {})}), **options)
    return cluster, service, list(decisions(cluster, service, hours, dry_run=dry_run))


def report_of(service: Service, entries: Iterable[Entry], hpas: Sequence[HpaParameters] = ()) -> DayReport:
    return day_report(read_recorded(entries, service), service, priced(service, {}), hpas)


def simulated(service: Service, entries: Iterable[Entry]) -> float:
    """Currency of what really ran, in the simulator."""
    recorded = read_recorded(entries, service)
    params = as_recorded(recorded, priced(service, {}))
    return float(replayed_replicas(recorded, cut(recorded, params), params)[0].cost.sum())


@pytest.fixture(scope="module")
def wasteful() -> tuple[Cluster, Service, list[Entry]]:
    """A day on which people keep 30 replicas, and a rule looks on."""
    return day("kpa", 24.0, service=service_of("kpa", COARSE), really=COARSE, real="static:replicas=30")


@pytest.fixture(scope="module")
def saved(wasteful: tuple[Cluster, Service, list[Entry]]) -> DayReport:
    _, service, entries = wasteful
    return report_of(service, entries)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("real", "early"), [("hpa", False), ("kpa", True), ("tracking", False)])
def test_what_really_ran_costs_in_the_simulator_what_it_really_cost(real: str, early: bool, seed: int):
    cluster, service, entries = day(hours=2.0, real=real, early=early, seed=seed)
    assert simulated(service, entries) == pytest.approx(cluster.cost, rel=0.01)


def test_rates_that_are_measured_with_errors_still_give_the_cost_within_five_percent():
    rng = np.random.default_rng(7)

    def blurred(_: float, snapshot: Any) -> Any:
        readings = {
            name: replace(r, value=r.value * rng.normal(1.0, 0.03)) if name.startswith("request_rate") else r
            for name, r in snapshot.readings.items()
        }
        return replace(snapshot, readings=readings, extra={})

    cluster, service, entries = day(hours=4.0, real="kpa", changed=blurred, seed=5)
    assert simulated(service, entries) == pytest.approx(cluster.cost, rel=0.05)


def test_samples_that_are_an_interval_old_are_put_where_they_belong():
    shown: list[Any] = []

    def late(_: float, snapshot: Any) -> Any:
        shown.append(snapshot)
        old = shown[-2] if len(shown) > 1 else snapshot
        readings = {n: replace(r, age_seconds=120.0) if r.age_seconds else r for n, r in old.readings.items()}
        return replace(snapshot, readings=readings, extra=old.extra)

    cluster, service, entries = day(hours=3.0, changed=late)
    recorded = read_recorded(entries, service)
    params = as_recorded(recorded, priced(service, {}))
    report = day_report(recorded, service, params, ())
    assert report.agreement.share == pytest.approx(0, abs=1e-6)
    assert simulated(service, entries) == pytest.approx(cluster.cost, rel=0.02)


def test_replicas_that_take_effect_an_interval_late_are_seen_by_when_they_are_ready():
    really = {"actuation_lag_steps": 1}
    cluster, service, entries = day(hours=3.0, real="kpa", really=really)
    assert simulated(service, entries) == pytest.approx(cluster.cost, rel=0.01)


def test_a_policy_that_saves_much_and_does_no_harm_is_to_be_deployed(wasteful, saved):
    cluster, _, _ = wasteful
    verdict = judge(saved)
    assert verdict.answer == "yes", [r.text for r in verdict.reasons if not r.ok]
    ran, ours = saved.of("ran"), saved.of("policy")
    assert ran.J_per_hour.mean == pytest.approx(cluster.cost / 24, rel=0.01)
    assert saved.agreement.share == pytest.approx(0, abs=0.01)
    assert ours.versus.high < 0
    month = 730 * (ours.J_per_hour.mean - ran.J_per_hour.mean)
    assert f"instead of {ran.J_per_hour.mean:,.2f}: {-month:,.0f} a month less" in verdict.sentence


def test_a_rule_in_closed_loop_does_what_it_would_have_done_on_the_same_requests(saved: DayReport):
    alone = Cluster(AutoscaleParams(**COARSE), real="kpa")
    for k in range(24 * 12):
        alone.decide(MIDNIGHT + 300 * k)
        alone.advance(MIDNIGHT + 300 * k)
    ours = saved.runs["policy"].replicas
    assert ours[-200:].tolist() == alone.replicas[-200:]


def test_a_policy_begins_with_the_replicas_that_ran_and_keeps_its_limits(wasteful):
    _, service, entries = wasteful
    report = report_of(service, entries[5:20])
    # Of 30 it may remove a quarter in one decision.
    assert report.runs["policy"].replicas[:3].tolist() == [23, 18, 14]


def test_hpas_run_on_the_same_requests_and_the_cheapest_is_no_dearer_than_the_defaults():
    cluster, service, entries = day(hours=1.0)
    report = report_of(service, entries, HPA_SETTINGS)
    usual, best = report.figures[2:]
    assert usual.J_per_hour.mean == pytest.approx(cluster.cost / 1.0, rel=0.05)
    assert usual.versus.mean == pytest.approx(0, abs=1e-6), "it is what ran"
    assert best.J_per_hour.mean <= usual.J_per_hour.mean
    assert f"would have cost {best.J_per_hour.mean:,.2f} an hour" in judge(report).aside


def test_the_page_needs_nothing_from_outside_and_the_figures_are_plain_data(saved):
    told = to_json(saved)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["answer"] == "yes"
    assert [c["role"] for c in told["contenders"]] == ["ran", "policy"]
    page = render_page(saved, "scalepilot operate report", "operate-records")
    assert "Deploy it? Yes" in page
    assert "default-src &#39;none&#39;" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().replace("tenant", "")
    for moment in re.findall(r"explain (\S+Z)", page):
        assert moment.startswith("20")


def test_a_policy_that_lets_requests_wait_is_not_to_be_deployed():
    _, service, entries = day("static:replicas=1", 6.5, real="kpa")
    verdict = judge(report_of(service, entries))
    assert verdict.answer == "no"
    assert any("late" in r.text for r in verdict.reasons if r.forbids and not r.ok)


@pytest.mark.parametrize(("hours", "answer"), [(7.0, "not yet"), (24.0, "no")])
def test_a_policy_that_costs_more_is_not_to_be_deployed_once_a_whole_day_says_so(hours: float, answer: str):
    _, service, entries = day("kpa", hours, service=service_of("static:replicas=30", COARSE), really=COARSE, real="kpa")
    verdict = judge(report_of(service, entries))
    assert verdict.answer == answer
    assert verdict.reasons[0].text.startswith("It costs more than what ran (95 % interval +")


def test_the_same_rule_as_the_one_that_runs_changes_nothing():
    _, service, entries = day(hours=2.0, real="kpa", service=service_of("kpa", STEP, up_factor=1000.0, down_share=1.0))
    report = report_of(service, entries)
    assert report.of("policy").versus.mean == pytest.approx(0, abs=1e-9)
    assert judge(report).answer == "not yet"


def test_a_record_that_is_too_short_says_so_and_gives_no_interval():
    _, service, entries = day(hours=2.0, real="kpa")
    report = report_of(service, entries)
    verdict = judge(report)
    assert verdict.answer == "not yet"
    assert not report.of("policy").versus.is_known
    assert any(r.text == "Too few hours were recorded to tell a difference to what ran from chance." for r in verdict.reasons)
    assert "too few hours for an interval" in render_page(report, "", "")


def test_hours_without_telemetry_or_without_the_controller_are_gaps_and_not_quiet_hours():
    _, service, entries = day(hours=5.0, real="kpa", changed=dark(1, 2))
    begin = entries[0].record.snapshot.time
    entries = [e for e in entries if not 3 * HOUR < e.record.snapshot.time - begin < 3.5 * HOUR]
    report = report_of(service, entries)
    assert 3.4 <= report.hours <= 3.5
    assert len(report.pieces.episodes) == 3
    assert abs(report.agreement.share) < 0.05
    recorded = report.recorded
    assert len(recorded.gaps(1)) == 1
    assert {"holding", "fallback", "safe"} <= set(recorded.modes)
    assert recorded.fields["request_rate_rps_0"].known_share == pytest.approx(1 - 30 / len(entries))
    unmet = [r.text for r in judge(report).reasons if not r.ok]
    assert any("request_rate_rps_0 and 16 more were known at only" in text for text in unmet)
    page = render_page(report, "", "")
    assert "Prometheus does not answer (30×)" in page
    assert "No decisions from" in page


def test_some_missed_moments_are_passed_over_and_end_no_piece():
    _, service, entries = day(real="kpa")
    kept = [e for i, e in enumerate(entries) if i % 50 not in (10, 11, 12)]
    report = report_of(service, kept)
    assert len(report.pieces.episodes) == 1
    assert report.hours == pytest.approx(len(kept) / 30, abs=0.05)
    assert abs(report.agreement.share) < 0.05


def test_requests_of_missed_moments_are_those_that_the_next_decision_tells_of():
    _, service, entries = day(hours=2.0, real="kpa")
    whole, params = read_recorded(entries, service), priced(service, {})
    holes = read_recorded([e for i, e in enumerate(entries) if i % 20 not in (5, 6, 7, 8)], service)
    every, some = (cut(recorded, params) for recorded in (whole, holes))
    # A sample that is two seconds old leaves a little to the next one.
    assert some.episodes.rates_rps == pytest.approx(every.episodes.rates_rps, rel=0.01)
    assert some.counted.sum() < every.counted.sum()


def test_a_clock_that_was_set_back_or_ahead_changes_no_figure_by_much():
    _, service, entries = day(real="kpa")

    def moved(entry: Entry, seconds: float) -> Entry:
        snapshot = replace(entry.record.snapshot, time=entry.record.snapshot.time + seconds)
        return replace(entry, record=replace(entry.record, snapshot=snapshot))

    back = [*entries[:50], *(moved(e, -1800.0) for e in entries[50:])]
    recorded = read_recorded(back, service)
    assert (np.diff(recorded.moment) > 0).all()
    assert len(recorded) == len(entries) - 15
    assert recorded.left_out == [
        "15 moments were decided on twice (a restart, or a clock that was set back); the later decision counts"
    ]
    years_ahead = [*entries[:50], *(moved(e, 2e9) for e in entries[50:])]
    report = report_of(service, years_ahead)
    assert len(report.pieces.episodes) == 2
    assert abs(report.agreement.share) < 0.05


def test_several_days_are_one_record_and_each_day_begins_as_the_last_one_ended():
    quarters = {"interval_seconds": 900.0, "startup_seconds": 900.0}
    cluster, service, entries = day(hours=50.0, service=service_of("kpa", quarters), really=quarters, real="kpa")
    recorded = read_recorded(entries, service)
    pieces = cut(recorded, priced(service, {}))
    assert len(pieces.episodes) == 3
    assert pieces.rows.tolist() == list(range(1, len(entries)))
    assert simulated(service, entries) == pytest.approx(cluster.cost, rel=0.01)


def test_records_on_disk_are_read_whatever_a_kill_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    _, _, entries = day(hours=1.2)
    late_evening = MIDNIGHT + 24 * HOUR - 2400 - entries[0].record.snapshot.time
    folder = tmp_path / "records"
    ledger = Ledger(folder)
    for i, entry in enumerate(entries):
        snapshot = replace(entry.record.snapshot, time=entry.record.snapshot.time + late_evening)
        ledger.write(replace(entry, record=replace(entry.record, snapshot=snapshot)))
        if i in (5, 25):
            path = max(folder.iterdir())
            line = json.dumps(entry.to_json())
            with path.open("a") as file:
                file.write(line[: line.index("}") + 1] if i == 5 else line[:999])
    assert len([*folder.iterdir()]) == 2
    config = tmp_path / "operate.yaml"
    config.write_text(f"policy: kpa\nservice: {json.dumps(STEP)}\nrecords: records\n")
    assert main(["operate", "report", "--config", str(config), "--json", "--price-per-replica-hour", "0"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decisions"] == len(entries)
    assert told["contenders"][0]["replica_cost_per_hour"] == 0
    assert told["report"] == str(folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "--price-per-replica-hour 0.0" in page
    other = ["operate", "report", "tracking", "--config", str(config), "--out", str(tmp_path / "new" / "page.html")]
    assert main(other) == 0
    said = capsys.readouterr().out
    assert "Deploy it? Not yet. tracking@1 would have cost" in said
    assert "The records are those of kpa@1; what is simulated is tracking@1." in said
    assert main(["operate", "report", "tracking", "--records", str(folder)]) == 2
    assert "records: decisions every 120 s, tracking@1 decides every 15 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report"], "report: no policy; allowed: the --config"),
        (["report", "kpa", "hpa"], "report: takes one policy"),
        (["report", "kpa", "--records", "NOWHERE"], "NOWHERE: not found"),
        (["report", "kpa", "--records", "EMPTY"], "EMPTY: holds no decisions"),
        (["report", "kpa", "--dry-run"], "--dry-run: is not used with `report`"),
        (["report", "kpa", "--last", "3"], "--last: is not used here"),
        (["log", "--out", "x.html"], "--out: is not used here; allowed: scalepilot operate report"),
        (["report", "kpa", "--records", "EMPTY", "--price-per-replica-hour", "-1"], "--price-per-replica-hour: -1"),
        (["report", "kpa", "--records", "EMPTY", "--out", "EMPTY"], "--out: EMPTY is a folder"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir(mode=0o700)
    assert main(["operate", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_start_up_that_takes_longer_than_the_policy_was_made_for_is_measured_and_simulated():
    _, service, entries = day(hours=6.0, real="kpa", really={"startup_seconds": 600.0})
    recorded = read_recorded(entries, service)
    assert measured_startup_seconds(recorded) == pytest.approx(540, abs=61)
    report = report_of(service, entries)
    assert report.service.startup_steps == 5
    assert abs(report.agreement.share) < 0.05
    assert "the policy was made for 240 s" in render_page(report, "", "")


def test_replicas_beyond_what_the_policy_may_ask_for_are_simulated_as_they_ran():
    service = service_of("kpa", {**STEP, "max_replicas": 12})
    cluster, _, entries = day(hours=3.0, service=service, real="static:replicas=50")
    assert simulated(service, entries) == pytest.approx(cluster.cost, rel=0.01)
    assert report_of(service, entries).of("policy").replicas_mean < 13


def test_a_policy_that_ran_itself_is_held_against_an_hpa():
    _, service, entries = day("kpa", 2.0, real="", dry_run=False)
    report = report_of(service, entries, HPA_SETTINGS[:1])
    assert abs(report.agreement.share) < 0.01
    assert report.rival.name == "HPA, defaults"
    assert report.of("ran").J_per_hour.mean == pytest.approx(report.of("policy").J_per_hour.mean, rel=0.02)
    assert "Keep it?" in render_page(report, "", "")
    assert judge(report).sentence.startswith("kpa@1 costs")


def test_orders_of_the_policy_that_take_effect_late_do_so_for_everybody():
    _, service, entries = day("kpa", 3.0, real="", dry_run=False, really={"actuation_lag_steps": 1})
    report = report_of(service, entries, HPA_SETTINGS[:1])
    assert report.agreement.share == pytest.approx(0, abs=0.01)
    assert report.service.actuation_lag_steps == 1
    assert report.of("policy").J_per_hour.mean == pytest.approx(report.of("ran").J_per_hour.mean, rel=0.02)
    assert "120 s late" in render_page(report, "", "")


def test_fields_that_are_never_measured_leave_the_question_open():
    _, service, entries = day(hours=1.0, changed=without("late_share", "latency_p95_seconds"))
    report = report_of(service, entries)
    assert set(report.recorded.modes) == {"degraded"}
    assert math.isnan(report.agreement.share)
    unmet = [r.text for r in judge(report).reasons if not r.ok]
    assert "Late requests were not measured: nothing says whether the simulator is right." in unmet
    assert "never measured" in render_page(report, "", "")


def test_nothing_to_simulate_is_an_error_and_no_empty_page():
    _, service, entries = day(hours=0.2, changed=dark(0, 1))
    with pytest.raises(InputError, match="no two decisions in a row know both requests and replicas"):
        report_of(service, entries)
    with pytest.raises(InputError, match="holds no decisions"):
        read_recorded([], service)


class Unsound:
    """A policy that sometimes gives no number."""

    def __init__(self, policy: Any) -> None:
        self.spec, self._policy, self._calls = policy.spec, policy, 0

    def act(self, observation: Any, state: Any = None, **_: Any) -> tuple[Decision, Any]:
        self._calls += 1
        decision, state = self._policy.act(observation, state)
        return (Decision(decision.desired_replicas * np.nan), state) if self._calls % 10 == 0 else (decision, state)


def test_a_policy_that_gives_no_number_is_a_fault_and_counted():
    service = service_of("kpa", STEP)
    unsound = replace(service, deciders=replace(service.deciders, policy=Unsound(service.deciders.policy)))
    _, _, entries = day(hours=1.0, service=unsound)
    report = report_of(service, entries)
    assert report.recorded.faults == len(entries) // 10
    assert judge(report).answer == "no"


def test_records_of_another_policy_and_another_kind_are_told_apart():
    _, service, dry = day("hpa", 0.5)
    other = service_of("kpa", STEP)
    _, _, live = day(hours=0.5, service=other, real="", dry_run=False)
    report = report_of(service, [*live, *dry])
    assert report.recorded.left_out == [f"{len(live)} decisions that were carried out, every 120 s"]
    report = report_of(other, dry)
    unmet = [r.text for r in judge(report).reasons if not r.ok]
    assert "The records are those of hpa@1; what is simulated is kpa@1." in unmet


def test_a_first_interval_with_few_requests_does_not_make_a_policy_begin_with_few_replicas():
    def few(now: float, snapshot: Any) -> Any:
        if now > MIDNIGHT:
            return snapshot
        readings = {**snapshot.readings, "request_rate_rps_0": replace(snapshot.readings["request_rate_rps_0"], value=1.0)}
        return replace(snapshot, readings=readings, extra={})

    _, service, entries = day("kpa", 1.0, real="kpa", changed=few)
    report = report_of(service, entries)
    assert report.of("policy").replicas_mean == pytest.approx(report.of("ran").replicas_mean, rel=0.02)
    assert report.runs["policy"].replicas[0] == report.runs["ran"].replicas[0] > 2


def test_a_time_without_requests_has_no_late_share_and_says_so():
    class Quiet(Cluster):
        def rate(self, now: float) -> np.ndarray:
            return np.array([0.0])

    service = service_of("kpa", STEP)
    report = report_of(service, decisions(Quiet(AutoscaleParams(**STEP), real="kpa"), service, 1.0))
    assert judge(report).sentence.endswith("as much, and there were no requests.")
    assert "nan" not in render_page(report, "", "").lower()


def test_shadows_are_run_on_the_same_requests():
    config = {"policy": "kpa", "service": STEP, "shadows": ["tracking", "hpa:target=0.3"]}
    service = load_service(operate_config(config))
    _, _, entries = day(hours=1.0, service=service)
    report = report_of(service, entries)
    assert [(f.name, f.role) for f in report.figures[2:]] == [("tracking", "shadow"), ("hpa-target-0.3", "shadow")]
    assert report.figures[3].replicas_mean > report.figures[1].replicas_mean


def test_prices_change_what_is_counted_and_not_what_is_done():
    _, service, entries = day(hours=1.0)
    recorded = read_recorded(entries, service)
    usual = day_report(recorded, service, priced(service, {}), ())
    twice = day_report(recorded, service, priced(service, {"price_per_replica_hour": 2.0}), ())
    assert twice.runs["policy"].replicas.tolist() == usual.runs["policy"].replicas.tolist()
    assert twice.of("ran").replica_cost_per_hour == pytest.approx(2 * usual.of("ran").replica_cost_per_hour)


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("hours", [0.05, 0.5, 26, 24 * 21])
def test_the_picture_holds_any_length_and_its_words_lie_inside(width: int, hours: float):
    n = min(int(hours * 60), 5000)
    time = MIDNIGHT + np.linspace(60, hours * HOUR, n)
    values = np.where(np.arange(n) % 100 < 5, np.nan, np.arange(n) % 37.0)
    lines = DayLines(
        time,
        hours * HOUR / n,
        values * 60,
        {"what ran": values, "a-policy-with-quite-a-long-name@12": values + 1},
        {"what ran": values, "a-policy-with-quite-a-long-name@12": values * np.nan},
        [("active", "#009e73", time[0], time[-1]), ("holding", "#d55e00", time[0], time[1])],
    )
    root = ET.fromstring(day_chart(lines, width))
    texts = [t for t in root.iter("{http://www.w3.org/2000/svg}text") if t.text]
    assert {"requests a second", "replicas", "late requests, %", "mode", "holding"} <= {t.text for t in texts}
    assert all(0 <= float(t.attrib["x"]) <= width for t in texts)
    assert len([t for t in texts if re.fullmatch(r"\d\d:\d\d(:\d\d)?|\d+ \w{3}", t.text)]) >= 2
    assert "nan" not in ET.tostring(root, encoding="unicode")
