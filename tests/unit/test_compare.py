import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from scalepilot.errors import InputError
from scalepilot.evaluate import (
    Contender,
    block_bootstrap,
    compare,
    paired_difference,
    read_evaluation,
    write_evaluation,
)
from scalepilot.evaluate.comparison import GapReference
from scalepilot.report.words.tables import comparison_table, verdict
from scalepilot.simulate import EpisodeResults, EpisodeSet, Playback
from scalepilot_envs.autoscale.description import COST
from scalepilot_envs.objective import FROM_ZERO

DAY = 86400.0
WINDOWS, STEPS, INTERVAL_SECONDS = 12, 8, 15.0


def episodes(windows=WINDOWS, seeds=(0, 1), days=4):
    """Windows spread evenly over days, arrivals all different."""
    rng = np.random.default_rng(0)
    rates = np.tile(rng.uniform(10, 50, (windows, STEPS)), (len(seeds), 1))
    start = np.tile(np.arange(windows) * days // windows * DAY + 100, len(seeds))
    return EpisodeSet(
        "shop",
        rates,
        rng.poisson(rates * INTERVAL_SECONDS).astype(float),
        np.tile(np.arange(windows), len(seeds)),
        np.repeat(np.asarray(seeds), windows),
        start,
    )


def results(of, J_per_hour, late_share=0.01):
    n = len(of)
    arrived = of.arrived.sum(axis=1)
    late_cost = 0.1 * np.broadcast_to(J_per_hour, n)
    columns = {
        "J_per_hour": np.broadcast_to(J_per_hour, n).astype(float),
        "replica_cost": np.broadcast_to(J_per_hour, n) - late_cost,
        "late_cost": late_cost,
        "move_cost": np.zeros(n),
        "replicas_mean": np.full(n, 9.0),
        "replicas_peak": np.full(n, 12.0),
        "arrived_requests": arrived,
        "late_requests": late_share * arrived,
        "dropped_requests": np.zeros(n),
        "late_share": np.full(n, late_share),
        "latency_p95_seconds": np.full(n, 0.08),
        "actions": np.full(n, 5.0),
        "moved_replicas": np.full(n, 7.0),
    }
    return EpisodeResults(of.window, of.seed, columns)


def playback(of, row=None):
    row = min(3, len(of) - 1) if row is None else row
    flat = np.full(STEPS, 9.0)
    return Playback(of.arrived[row] / INTERVAL_SECONDS, flat, flat, np.zeros(STEPS), flat / 100)


def contenders(of, policy_J, baseline_J=10.0):
    return [
        Contender("ppo", "policy", "seed 0", results(of, policy_J, 0.0067), playback(of)),
        Contender("hpa-default", "baseline", "cpu 0.70", results(of, 20.0, 0.03), playback(of)),
        Contender("hpa-tuned", "baseline", "rps 0.57", results(of, baseline_J, 0.0047), playback(of)),
        Contender("look-ahead", "reference", "u 0.85", results(of, 5.0, 0.004), playback(of)),
    ]


def noisy(level, spread=1.0):
    """J around a level, by day."""
    of = episodes()
    day = (of.start_unix_seconds // DAY).astype(int)
    return level + spread * np.array([-1.0, 1.0, -0.5, 0.5])[day]


def test_every_contender_has_every_metric_with_its_interval():
    comparison = compare("shop", episodes(), contenders(episodes(), noisy(9.0)))
    assert set(comparison.rows) == {"ppo", "hpa-default", "hpa-tuned", "look-ahead"}
    for row in comparison.rows.values():
        assert tuple(row) == tuple(COST.metrics)
        assert all(i.low <= i.mean <= i.high for i in row.values())


def test_days_are_the_blocks_and_all_seeds_of_a_day_stay_together():
    of = episodes()
    J = noisy(9.0)
    day = (of.start_unix_seconds // DAY).astype(int)
    comparison = compare("shop", of, contenders(of, J))
    assert comparison.rows["ppo"]["J"] == block_bootstrap(J, day, bounds=FROM_ZERO)
    assert comparison.versus["ppo"]["hpa-tuned"] == paired_difference(J, np.full(len(of), 10.0), day)
    assert (comparison.scope.days, comparison.scope.block, comparison.scope.num_blocks) == (4, "day", 4)


def test_the_late_share_is_late_requests_over_requests_not_a_mean_of_shares():
    of = episodes()
    mine = results(of, 9.0)
    late = np.where(of.window == 0, 100.0, 0.0)
    comparison = compare(
        "shop", of, [Contender("ppo", "policy", "", replace(mine, columns={**mine.columns, "late_requests": late}))]
    )
    assert comparison.rows["ppo"]["late_share"].mean == pytest.approx(late.sum() / of.arrived.sum())


def test_the_gap_is_closed_towards_the_reference():
    comparison = compare("shop", episodes(), contenders(episodes(), 7.0))
    assert comparison.gap_closed["ppo"]["hpa-tuned"].share.mean == pytest.approx(0.6)
    assert comparison.gap_closed["ppo"]["hpa-default"].share.mean == pytest.approx(13 / 15)


def with_optimum(of, policy_J, plan_J=6.0):
    optimum = Contender("optimum", "reference", "clairvoyant", results(of, plan_J), playback(of))
    return [*contenders(of, policy_J)[:3], optimum, contenders(of, policy_J)[3]]


def test_the_gap_is_closed_towards_the_lower_bound_where_there_is_one_not_towards_the_plan():
    of = episodes()
    comparison = compare("shop", of, with_optimum(of, 7.0), bound=np.full(len(of), 4.0))
    assert comparison.gap_reference == GapReference("optimum", is_bound=True)
    # From 10 to 4, and 7 is half of the way; towards the plan at 6 it would be three quarters.
    assert comparison.gap_closed["ppo"]["hpa-tuned"].share.mean == pytest.approx(0.5)
    assert comparison.gap_closed["ppo"]["hpa-default"].share.mean == pytest.approx(13 / 16)
    without = compare("shop", of, with_optimum(of, 7.0))
    assert without.gap_reference == GapReference("optimum", is_bound=False)
    assert without.gap_closed["ppo"]["hpa-tuned"].share.mean == pytest.approx(0.75)


def test_baselines_close_the_gap_too_but_never_their_own_and_references_none():
    of = episodes()
    closed = compare("shop", of, with_optimum(of, 7.0), bound=np.full(len(of), 4.0)).gap_closed
    assert {name: set(against) for name, against in closed.items()} == {
        "ppo": {"hpa-default", "hpa-tuned"},
        "hpa-default": {"hpa-tuned"},
        "hpa-tuned": {"hpa-default"},
    }
    assert closed["hpa-tuned"]["hpa-default"].share.mean == pytest.approx(10 / 16)
    assert closed["hpa-default"]["hpa-tuned"].share.mean == pytest.approx(-10 / 6)


def test_a_bound_that_differs_by_episode_is_taken_episode_by_episode():
    of = episodes()
    # Where the bound is at the baseline there is no gap to close: half of the pairs.
    bound = np.where(of.seed == 0, 5.0, 10.0)
    closed = compare("shop", of, with_optimum(of, 7.0), bound=bound).gap_closed["ppo"]["hpa-tuned"]
    assert (closed.pairs, closed.left_out) == (WINDOWS, WINDOWS)
    assert closed.share.mean == pytest.approx(0.6)


def test_without_a_reference_no_gap_is_closed():
    of = episodes()
    comparison = compare("shop", of, contenders(of, 9.0)[:3])
    assert (comparison.gap_reference, comparison.gap_closed) == (None, {})


def test_the_bound_is_said_to_be_one_in_the_summary_and_read_back(tmp_path):
    of = episodes()
    written = compare("shop", of, with_optimum(of, noisy(7.0)), bound=noisy(4.0, 0.1))
    write_evaluation(written, tmp_path)
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["gap_reference"] == {"name": "optimum", "is_bound": True}
    read = read_evaluation(tmp_path)
    assert read.gap_reference == written.gap_reference
    assert read.gap_closed == written.gap_closed
    assert read.rows == written.rows


def test_without_a_reference_the_summary_says_null_and_reads_back(tmp_path):
    of = episodes()
    write_evaluation(compare("shop", of, contenders(of, 9.0)[:3]), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["gap_reference"] is None
    assert read_evaluation(tmp_path).gap_reference is None


def test_windows_of_one_day_are_resampled_themselves_and_that_is_said():
    of = episodes(days=1)
    comparison = compare("shop", of, contenders(of, 9.0 + of.window % 3))
    assert (comparison.scope.block, comparison.scope.num_blocks) == ("window", WINDOWS)
    assert comparison.rows["ppo"]["J"].is_known
    assert "single day" in verdict(comparison)


def test_the_playback_tells_which_episode_it_is_and_how_long_a_step():
    of = episodes()
    shown = compare("shop", of, contenders(of, 9.0)).played_back
    assert shown is not None
    assert (shown.window, shown.seed, shown.start_unix_seconds, shown.interval_seconds) == (3, 0, DAY + 100, 15.0)


def test_without_contenders_twice_a_name_or_an_unknown_role_nothing_is_compared():
    of = episodes()
    one = contenders(of, 9.0)[0]
    for wrong, message in (([], "none given"), ([one, one], "twice"), ([replace(one, role="judge")], "judge")):
        with pytest.raises(InputError, match=message):
            compare("shop", of, wrong)


def test_results_or_playbacks_of_other_episodes_are_refused():
    of = episodes()
    one, two = contenders(of, 9.0)[:2]
    others = replace(one, results=replace(one.results, seed=of.seed + 1))
    with pytest.raises(InputError, match="not those of these episodes"):
        compare("shop", of, [others])
    with pytest.raises(InputError, match="different episodes"):
        compare("shop", of, [one, replace(two, playback=playback(of, row=4))])
    with pytest.raises(InputError, match="none of these"):
        compare("shop", of, [replace(one, playback=replace(one.playback, arrival_rate_rps=np.arange(STEPS) + 1.0))])


def test_the_verdict_on_a_cheaper_policy_says_by_how_much_and_how_sure():
    sentence = verdict(compare("shop", episodes(), contenders(episodes(), noisy(9.0, 0.1))))
    assert sentence.startswith(
        "ppo costs 9.00 an hour, 10.0 % less than hpa-tuned, the best of 2 baselines (10.00; 95 % interval"
    )
    assert "difference −1.14 … −0.86)" in sentence
    assert sentence.endswith("with 0.67 % late requests against 0.47 %.")


def test_the_verdict_on_a_dearer_policy_says_so():
    sentence = verdict(compare("shop", episodes(), contenders(episodes(), noisy(11.0, 0.1))))
    assert "10.0 % more than hpa-tuned" in sentence


def test_the_verdict_does_not_claim_what_chance_may_explain():
    sentence = verdict(compare("shop", episodes(), contenders(episodes(), noisy(9.5, 3.0))))
    assert "not distinguishable from hpa-tuned" in sentence
    assert not re.search(r"less than|more than", sentence)


def test_one_window_proves_nothing():
    of = episodes(windows=1, days=1)
    sentence = verdict(compare("shop", of, contenders(of, 5.0)))
    assert "a single test window cannot tell that from chance" in sentence


def test_the_verdict_is_about_the_best_policy_and_the_best_baseline_whatever_they_are_called():
    of = episodes()
    worse = Contender("dqn", "policy", "", results(of, 15.0))
    sentence = verdict(compare("shop", of, [worse, *contenders(of, 9.0, baseline_J=30.0)]))
    assert sentence.startswith("ppo costs")
    assert "hpa-default, the best of 2 baselines (20.00" in sentence


def test_without_a_baseline_or_without_a_policy_the_verdict_says_that():
    of = episodes()
    policy, *rules = contenders(of, 9.0)
    assert "no baseline" in verdict(compare("shop", of, [policy]))
    assert "hpa-tuned costs 10.00 an hour, the least of 2," in verdict(compare("shop", of, rules))


def test_the_table_fits_a_pipe_and_marks_the_best_policy():
    of = episodes()
    odd = Contender("[red]odd[/red]", "policy", "", results(of, 19.0))
    console = Console(width=80, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(comparison_table(compare("shop", of, [odd, *contenders(of, noisy(9.0))])))
    lines = captured.get().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert sum(line.startswith("* ppo") for line in lines) == 1
    assert any("[red]odd[/red]" in line for line in lines)
    assert next(line for line in lines if "hpa-tuned" in line).split()[1:] == [
        "10.00",
        "10.00",
        "-",
        "10.00",
        "9.00",
        "0.47",
        "80",
        "5",
    ]


def test_the_summary_has_the_documented_form(tmp_path):
    write_evaluation(compare("shop", episodes(), contenders(episodes(), noisy(9.0))), tmp_path / "evaluation")
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["workloads"] == ["shop"]
    assert summary["episodes"] == 24
    documented = {"J", "cost", "penalty", "late_share", "replicas", "latency_p95_seconds", "actions"}
    for row in summary["policies"].values():
        assert documented <= set(row)
        assert all(set(interval) == {"mean", "low", "high"} for interval in row.values())
        assert row["J"]["mean"] == pytest.approx(row["cost"]["mean"] + row["penalty"]["mean"])
    assert {"mean", "low", "high"} <= set(summary["gap_closed"]["ppo"]["hpa-tuned"])
    assert summary["gap_reference"] == {"name": "look-ahead", "is_bound": False}
    assert summary["roles"]["look-ahead"] == "reference"


def test_what_is_unknown_is_null_in_the_summary(tmp_path):
    of = episodes(windows=1, days=1)
    write_evaluation(compare("shop", of, contenders(of, 9.0)), tmp_path)
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["policies"]["ppo"]["J"] == {"mean": 9.0, "low": None, "high": None}


def test_the_episodes_are_rows_of_a_parquet_file(tmp_path):
    of = episodes()
    write_evaluation(compare("shop", of, contenders(of, 9.0)), tmp_path)
    table = pq.read_table(tmp_path / "episodes.parquet")
    assert table.column_names[:5] == ["policy", "role", "workload", "window", "seed"]
    assert {"window", "seed", *results(episodes(), 1.0).columns} <= set(table.column_names)
    assert table.num_rows == 4 * len(of)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("windows", [WINDOWS, 1])
def test_a_comparison_read_back_says_the_same(tmp_path, windows):
    of = episodes(windows=windows)
    written = compare("shop", of, contenders(of, 9.0 + of.window % 5))
    write_evaluation(written, tmp_path)
    read = read_evaluation(tmp_path)
    assert verdict(read) == verdict(written)
    assert read.played_back == written.played_back
    assert read.scope == written.scope
    assert [c.name for c in read.contenders] == [c.name for c in written.contenders]
    np.testing.assert_array_equal(read.contenders[0].playback.arrival_rate_rps, written.contenders[0].playback.arrival_rate_rps)
    # Absent, not zero.
    # Writing what was read changes nothing.
    first = (tmp_path / "summary.json").read_bytes()
    write_evaluation(read, tmp_path)
    assert (tmp_path / "summary.json").read_bytes() == first


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign", "role"])
def test_a_damaged_evaluation_is_one_clear_error(tmp_path, damage):
    write_evaluation(compare("shop", episodes(), contenders(episodes(), 9.0)), tmp_path)
    path = tmp_path / "summary.json"
    text = path.read_text()
    if damage == "missing":
        path.unlink()
    else:
        path.write_text({"cut": text[:100], "foreign": "[1]", "role": text.replace('"ppo": "policy"', '"ppo": "judge"')}[damage])
    with pytest.raises(InputError) as caught:
        read_evaluation(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_evaluation_replaces_the_first(tmp_path):
    of = episodes()
    write_evaluation(compare("shop", of, contenders(of, 9.0)), tmp_path)
    write_evaluation(compare("shop", of, [replace(contenders(of, 8.0)[0], playback=None)]), tmp_path)
    read = read_evaluation(tmp_path)
    assert [c.name for c in read.contenders] == ["ppo"]
    assert read.played_back is None
