import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from scalepilot.evaluate import Contender, compare, read_evaluation, write_evaluation
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.evaluate.suite import compare_suite
from scalepilot.policy.rules import Hpa, HpaParameters, LookAhead, Static, StaticParameters
from scalepilot.report.charts.action_shares import LABELS, action_shares
from scalepilot.report.html.chart_data import chart_data, interval_bar, learning_data
from scalepilot.report.html.report import LearningCurve, ReportData, write_report
from scalepilot.report.html.report_figures import big_figures, visible
from scalepilot.report.words.tables import verdict
from scalepilot.simulate import Playback, protocol_v1, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload

PARAMS = AutoscaleParams()
ATTACK = "<script>alert(1)</script>"
VOID = {"meta", "line", "input", "link", "br", "img", "path", "circle", "rect"}


class Page(HTMLParser):
    """Elements, text and whether every element that opens also closes."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.scripts, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture(scope="module")
def windows():
    return protocol_v1("shop", DiurnalWorkload(days=10), PARAMS, window_steps=480, drawn_windows=2, test_seeds=(0,)).test


@pytest.fixture(scope="module")
def comparison(windows):
    test = windows
    entries = [
        ("ppo", "policy", Hpa(HpaParameters("rps", 0.6), PARAMS)),
        ("hpa-default", "baseline", Hpa(HpaParameters(), PARAMS)),
        ("static", "baseline", Static(StaticParameters(30), PARAMS)),
        ("look-ahead", "reference", LookAhead(0.8)),
    ]
    flown = [(name, role, run_episodes(rule, test, PARAMS, playback_of=1)) for name, role, rule in entries]
    return compare("shop", test, [Contender(n, role, "a detail", *outcome) for n, role, outcome in flown], bootstrap_samples=200)


def report(comparison, **changes):
    curve = [
        {"env_steps": 1000 * i, "time_seconds": 1.0 * i, "validation_J_per_hour": 30.0 / i if i % 3 == 1 else None}
        | {"train_J_per_hour": float("nan") if i == 4 else 31.0 / i, "steps_per_second": 1000.0}
        for i in range(1, 30)
    ]
    data = ReportData(
        title="demo, seed 0",
        comparison=comparison,
        learning_curves=[LearningCurve("ppo", 0, curve)],
        config_yaml="name: demo\n",
        provenance={"git_sha": "abc", "versions": {"numpy": "2"}, "seeds": [0, 1], "gpu": None},
        reproduce=["scalepilot train tune_configs/demo.yaml --set seed=0"],
        reference_lines={"HPA default": 27.0, "missing": float("nan")},
    )
    return replace(data, **changes)


def written(data, tmp_path):
    path = tmp_path / "run" / "report.html"
    write_report(data, path)
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_html_with_the_verdict_on_top(comparison, tmp_path):
    page = Page(written(report(comparison), tmp_path))
    assert verdict(comparison) in page.text
    assert page.text.index(verdict(comparison)) < page.text.index("Comparison")
    for shown in ("versions.numpy", "0, 1", "name: demo", "--set seed=0", "2 hours played back", "not a bound"):
        assert shown in page.text


def test_the_page_needs_nothing_from_outside(comparison, tmp_path):
    html = written(report(comparison), tmp_path)
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'<]*", html)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    assert not [attributes for _, attributes in Page(html).elements if "src" in attributes or "href" in attributes]
    assert "url(" not in html
    assert "@import" not in html


def test_only_the_pages_own_script_may_run(comparison, tmp_path):
    page = Page(written(report(comparison), tmp_path))
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    # A style or event attribute would be refused by that policy, so there must be none.
    assert not [a for _, a in page.elements if "style" in a or any(name.startswith("on") for name in a)]


def test_a_name_that_is_a_script_does_no_harm(comparison, tmp_path, windows):
    hostile = [replace(c, name=f"{ATTACK}{c.name}", detail=f"</table>{ATTACK}") for c in comparison.contenders]
    data = report(
        compare(f"shop{ATTACK}", windows, hostile, bootstrap_samples=50),
        title=ATTACK,
        config_yaml=f"</code></pre>{ATTACK}",
        provenance={ATTACK: {ATTACK: ATTACK}},
        reproduce=[ATTACK],
        reference_lines={ATTACK: 3.0},
    )
    html = written(data, tmp_path)
    page = Page(html)
    assert ATTACK not in html
    assert [attributes.get("type") for tag, attributes in page.elements if tag == "script"] == ["application/json", None]
    assert ATTACK in page.text
    names = [p["name"] for p in json.loads(page.scripts[0])["workloads"][0]["scatter"]["points"]]
    assert f"{ATTACK}ppo" in names


def test_the_embedded_data_loads_and_holds_no_nan(comparison, tmp_path):
    def refuse(name):
        raise AssertionError(name)

    data = json.loads(Page(written(report(comparison), tmp_path)).scripts[0], parse_constant=refuse)
    assert data["learning"]["lines"] == [{"name": "HPA default", "value": 27}]
    (curve,) = data["learning"]["curves"]
    assert (curve["steps"][:2], curve["mean"][:2], curve["low"]) == ([1000, 4000], [30, 7.5], None)
    assert 4000 not in curve["training"][0]
    playback = data["workloads"][0]["playback"]
    assert [(s["role"], s["shown"]) for s in playback["series"]] == [
        ("policy", True),
        ("baseline", True),
        ("baseline", False),
        ("reference", True),
    ]
    assert len(playback["rate"]) == 480
    assert playback["interval_seconds"] == 15


def test_a_report_without_learning_playback_config_or_rivals_leaves_those_out(comparison, tmp_path, windows):
    alone = replace(comparison.contenders[0], playback=None)
    bare = report(
        compare("shop", windows, [alone]),
        learning_curves=[],
        config_yaml="",
        provenance={},
        reproduce=[],
        reference_lines={},
    )
    page = Page(written(bare, tmp_path))
    headings = " ".join(page.text.split())
    for left_out in ("Learning curve", "played back", "Configuration", "Provenance", "Reproduce", "Against each baseline"):
        assert left_out not in headings
    assert "there is no baseline to compare it with" in headings


def test_a_report_can_be_redrawn_from_the_stored_evaluation(comparison, tmp_path):
    write_evaluation(comparison, tmp_path)
    assert written(report(read_evaluation(tmp_path)), tmp_path) == written(report(comparison), tmp_path)


def test_a_long_window_and_a_long_run_stay_below_two_megabytes(comparison, tmp_path):
    steps = 40_000
    rng = np.random.default_rng(0)
    long = tuple(replace(c, playback=Playback(*rng.uniform(0, 1, (5, steps)))) for c in comparison.contenders)
    curve = [report(comparison).learning_curves[0].rows[0] | {"env_steps": i} for i in range(50_000)]
    html = written(report(replace(comparison, contenders=long), learning_curves=[LearningCurve("ppo", 0, curve)]), tmp_path)
    assert len(html.encode()) < 2_000_000
    shown = json.loads(Page(html).scripts[0])["workloads"][0]["playback"]
    assert len(shown["rate"]) == 4000
    assert shown["interval_seconds"] == 150


def test_five_workloads_with_a_dozen_contenders_stay_below_two_megabytes(comparison, tmp_path, windows):
    rng = np.random.default_rng(0)
    noise = [
        replace(comparison.contenders[0], name=f"p{i}", playback=Playback(*rng.uniform(0, 99, (5, 1920)))) for i in range(11)
    ]
    one = compare("w", windows, [replace(c, playback=None) for c in noise], bootstrap_samples=20)
    many = [replace(one, workload=f"w{k}", contenders=tuple(noise), played_back=comparison.played_back) for k in range(5)]
    html = written(report(compare_suite(many, bootstrap_samples=20)), tmp_path)
    playback = json.loads(Page(html).scripts[0])["workloads"][4]["playback"]
    assert len(playback["series"]) == 11
    assert 600 <= len(playback["rate"]) < 1920
    assert len(html.encode()) < 2_000_000


def test_several_trainings_of_a_name_are_a_mean_with_a_band_as_far_as_all_of_them_went():
    def training(seed, values):
        rows = [{"env_steps": 10.0 * k, "validation_J_per_hour": v} for k, v in enumerate(values) if v is not None]
        return ("ppo", seed, rows)

    (curve,) = learning_data([training(0, [4, 2, None, 2]), training(1, [8, 6, 4])], {})["curves"]
    assert curve["seeds"] == [0, 1]
    assert (curve["steps"], curve["mean"]) == ([0, 10, 20], [6, 4, 3])
    assert (curve["low"], curve["high"]) == ([4, 2, 2], [8, 6, 4])


def test_the_pareto_front_is_who_is_beaten_on_both_by_nobody_that_can_be_deployed(comparison):
    def at(cost, late):
        row = comparison.rows["ppo"]
        return {**row, "cost": Interval(cost, cost, cost), "late_share": Interval(late, late, late)}

    rows = {"ppo": at(3, 0.1), "hpa-default": at(2, 0.3), "static": at(3, 0.2), "look-ahead": at(1, 0.0)}
    points = chart_data([replace(comparison, rows=rows)])[0]["scatter"]["points"]
    assert {p["name"] for p in points if p["front"]} == {"ppo", "hpa-default"}


def test_shares_of_moves_count_the_changes_of_billed_replicas():
    counted = action_shares(np.array([5, 5, 6, 4, 4, 14, 4, 5.0]))
    assert dict(zip(LABELS, counted.shares, strict=True)) == pytest.approx(
        {"hold": 2 / 7, "+1": 2 / 7, "−2 … −4": 1 / 7, "+5 and more": 1 / 7, "−5 and more": 1 / 7, "−1": 0, "+2 … +4": 0}
    )
    assert action_shares(np.array([5.0])) is None


def test_money_a_month_is_the_difference_an_hour_times_730(comparison):
    figures = {f.label: f for f in big_figures(comparison)}
    money = next(f for label, f in figures.items() if label.startswith("A month"))
    best = comparison.best("baseline")
    difference = comparison.versus["ppo"][best.name].difference.mean
    assert money.value == f"{abs(730 * difference):,.0f} {'less' if difference < 0 else 'more'}"
    late = 1e6 * comparison.rows["ppo"]["late_share"].mean
    assert figures["Late requests in a million"].value == f"{late:,.0f}"


def test_a_sign_that_turns_the_text_round_is_shown_and_other_scripts_are_left_alone():
    assert visible("a\u202eb\x00") == "a⟨U+202E⟩b⟨U+0000⟩"
    assert visible("größer → 東京\n") == "größer → 東京\n"


def test_bins_of_a_long_window_keep_the_requests_share_that_was_late(comparison):
    steps = 8000
    rate, late = np.tile([1.0, 3.0], steps // 2), np.tile([0.0, 0.4], steps // 2)
    flat = np.ones(steps)
    long = tuple(replace(c, playback=Playback(rate, flat, flat, late, flat)) for c in comparison.contenders)
    shown = chart_data([replace(comparison, contenders=long)])[0]["playback"]
    assert shown["rate"][0] == 2
    assert shown["series"][0]["late"][0] == pytest.approx(30)


def test_the_line_of_equal_cost_passes_through_the_best_baseline(comparison):
    scatter = chart_data([comparison])[0]["scatter"]
    best = comparison.best("baseline")
    point = next(p for p in scatter["points"] if p["name"] == best.name)
    on_line = point["cost"][0] + point["late"][0] * scatter["equal"]["price_per_percent"]
    assert on_line == pytest.approx(scatter["equal"]["total"], rel=1e-3)


def test_a_bar_without_an_interval_is_a_point_and_one_without_a_mean_is_none():
    nan = float("nan")
    among = [Interval(1.0, 0.0, 2.0), Interval(3.0, nan, nan), Interval(nan, nan, nan)]
    assert interval_bar(among[0], among) == {"mean": 34.67, "low": 4.0, "high": 65.33}
    assert interval_bar(among[1], among) == {"mean": 96.0, "low": 96.0, "high": 96.0}
    assert interval_bar(among[2], among) is None
    assert interval_bar(among[0], among[:1], zero=0.0)["zero"] == 4.0


def test_the_old_report_is_replaced_in_one_step(comparison, tmp_path):
    written(report(comparison), tmp_path)
    assert "second" in Page(written(report(comparison, title="second"), tmp_path)).text
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["report.html"]
