"""Several workloads and several training seeds: standings, their intervals, and their files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.unit.test_compare import contenders, episodes, noisy, results

from scalepilot.errors import InputError
from scalepilot.evaluate import (
    Comparison,
    Contender,
    Member,
    SuiteComparison,
    block_bootstrap,
    compare,
    compare_suite,
    read_evaluation,
    write_evaluation,
)
from scalepilot_envs.autoscale.description import COST
from scalepilot_envs.objective import FROM_ZERO


def member(of, seed, J):
    return Member(f"ppo·{seed}", seed, results(of, J))


def trained(of, levels, name="ppo"):
    return Contender.of_members(name, "policy", "3 seeds", [member(of, seed, J) for seed, J in enumerate(levels)])


def workload(name, policy_J, scale=1.0, bound=None):
    """A comparison of one policy with the rules of `contenders`, every cost times `scale`."""
    of = episodes()
    rows = [replace(c, results=results(of, scale * c.results["J_per_hour"])) for c in contenders(of, policy_J)]
    return compare(name, of, rows, bound=bound)


def test_the_results_of_members_are_their_mean_episode_by_episode():
    of = episodes()
    J = np.arange(len(of), dtype=float)
    ppo = trained(of, [J, J + 3, J + 6])
    np.testing.assert_allclose(ppo.results["J_per_hour"], J + 3)
    np.testing.assert_array_equal(ppo.results.seed, of.seed)
    assert ppo.by_member("J_per_hour").shape == (3, len(of))


def test_training_seeds_widen_the_interval_and_leave_the_estimate():
    of = episodes()
    alike = compare("shop", of, [trained(of, [noisy(9.0)] * 3), *contenders(of, 9.0)[1:]])
    apart = compare("shop", of, [trained(of, [noisy(8.0), noisy(9.0), noisy(10.0)]), *contenders(of, 9.0)[1:]])
    assert apart.rows["ppo"]["J"].mean == pytest.approx(alike.rows["ppo"]["J"].mean)
    assert apart.rows["ppo"]["J"].high > alike.rows["ppo"]["J"].high + 1.0
    # Seeds that are alike add no chance of their own.
    alone = block_bootstrap(noisy(9.0), of.index.blocks, bounds=FROM_ZERO)
    interval = alike.rows["ppo"]["J"]
    assert (interval.low, interval.high) == pytest.approx((alone.low, alone.high))
    versus = apart.versus["ppo"]["hpa-tuned"].difference
    assert versus.low < 0 < versus.high
    assert versus.mean == pytest.approx(-1.0)
    assert apart.gap_closed["ppo"]["hpa-tuned"].share.mean == pytest.approx(0.2)


def test_results_of_a_member_from_other_episodes_are_refused():
    of = episodes()
    wrong = replace(member(of, 1, 9.0), results=replace(results(of, 9.0), seed=of.seed + 1))
    ppo = replace(trained(of, [9.0, 9.0]), members=(member(of, 0, 9.0), wrong))
    with pytest.raises(InputError, match="ppo: its results are not those of these episodes"):
        compare("shop", of, [ppo])


def test_the_yardstick_costs_one_on_every_workload_and_a_large_service_weighs_no_more():
    suite = compare_suite([workload("shop", 9.0), workload("mail", 8.0, scale=100.0)])
    assert suite.yardstick == "hpa-tuned"
    one = suite.standing("hpa-tuned")
    assert (one.relative_cost_mean.low, one.relative_cost_mean.mean, one.relative_cost_mean.high) == pytest.approx((1, 1, 1))
    assert suite.standing("ppo").relative_cost_mean.mean == pytest.approx(0.85)
    assert suite.standing("ppo").relative_cost_iqm.mean == pytest.approx(0.85)
    assert suite.standing("ppo").figures["J"].mean == pytest.approx((9 + 800) / 2)
    assert suite.best("policy").name == "ppo"
    assert [s.name for s in suite.of_role("baseline")] == ["hpa-tuned", "hpa-default"]


def test_one_bad_workload_moves_the_mean_and_not_the_interquartile_mean():
    suite = compare_suite([workload(name, J) for name, J in zip("abcde", (9.0, 9.0, 9.0, 9.0, 30.0), strict=True)])
    ppo = suite.standing("ppo")
    assert ppo.relative_cost_iqm.mean == pytest.approx(0.9)
    assert ppo.relative_cost_mean.mean == pytest.approx((4 * 0.9 + 3.0) / 5)


def test_a_suite_of_one_workload_says_what_its_comparison_says():
    comparison = workload("shop", noisy(7.0), bound=noisy(4.0, 0.1))
    suite = compare_suite([comparison])
    for name, row in comparison.rows.items():
        assert suite.standing(name).figures == pytest.approx(row), name
    assert suite.standing("ppo").gap_closed == comparison.gap_closed["ppo"]
    assert suite.standing("look-ahead").gap_closed == {}


def test_improvement_is_by_window_and_ties_count_half():
    of = episodes()
    # Cheaper in half of the windows by little, dearer in the others by much; equal to hpa-tuned in none.
    J = np.where(of.window % 2 == 0, 9.9, 50.0)
    suite = compare_suite([compare("shop", of, contenders(of, J))])
    assert suite.standing("ppo").improvement["hpa-tuned"].mean == pytest.approx(0.5)
    same = compare_suite([compare("shop", of, contenders(of, 10.0))]).standing("ppo").improvement["hpa-tuned"]
    assert (same.low, same.mean, same.high) == (0.5, 0.5, 0.5)
    sure = compare_suite([compare("shop", of, contenders(of, 9.0))]).standing("ppo").improvement
    assert {b: i.mean for b, i in sure.items()} == {"hpa-default": 1.0, "hpa-tuned": 1.0}


def test_the_gap_of_a_suite_is_a_ratio_of_sums_over_all_pairs():
    suite = compare_suite([workload("shop", 7.5), workload("mail", 9.0, scale=2.0)])
    # Gains 2.5 and 2, of gaps 5 and 10, the same number of pairs each.
    closed = suite.standing("ppo").gap_closed["hpa-tuned"]
    assert closed.share.mean == pytest.approx((2.5 + 2.0) / (5.0 + 10.0))
    assert closed.pairs == 2 * len(episodes())


@pytest.mark.parametrize("change", ["none", "twice", "others", "yardstick"])
def test_what_cannot_be_ranked_together_is_refused(change):
    shop, mail = workload("shop", 9.0), workload("mail", 9.0)
    given, yardstick = {
        "none": ([], None),
        "twice": ([shop, shop], None),
        "others": ([shop, replace(mail, contenders=mail.contenders[:2])], None),
        "yardstick": ([shop, mail], "kpa"),
    }[change]
    with pytest.raises(InputError, match="allowed"):
        compare_suite(given, yardstick=yardstick)


def stored(tmp_path):
    of = episodes()
    rows = [trained(of, [noisy(8.0), noisy(9.0)]), *contenders(of, 9.0)[1:]]
    suite = compare_suite(
        [compare("shop", of, rows), compare("mail", of, rows)], failed={"broken": "model.onnx: was changed"}, bootstrap_samples=50
    )
    write_evaluation(suite, tmp_path)
    return suite


def test_a_suite_is_read_back_as_it_was_written(tmp_path):
    written = stored(tmp_path)
    read = read_evaluation(tmp_path)
    assert isinstance(read, SuiteComparison)
    assert (read.standings, read.yardstick, read.failed) == (written.standings, written.yardstick, written.failed)
    assert read.workloads == ("shop", "mail")
    for ours, theirs in zip(read.comparisons, written.comparisons, strict=True):
        assert (ours.rows, ours.gap_closed, ours.versus) == (theirs.rows, theirs.gap_closed, theirs.versus)
        assert (ours.scope, ours.played_back) == (theirs.scope, theirs.played_back)
        for a, b in zip(ours.contenders, theirs.contenders, strict=True):
            assert [(m.name, m.training_seed) for m in a.members] == [(m.name, m.training_seed) for m in b.members]
            assert set(a.results.columns) == set(b.results.columns)
            for name, column in a.results.columns.items():
                np.testing.assert_allclose(column, b.results[name])
    # What was read can be judged again and gives the same.
    again = compare_suite(read.comparisons, bootstrap_samples=50)
    assert again.standings == written.standings


def test_the_summary_holds_all_workloads_on_top_and_each_below(tmp_path):
    suite = stored(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["workloads"] == ["shop", "mail"]
    assert summary["episodes"] == 2 * len(episodes())
    assert set(summary["policies"]["ppo"]) == set(COST.metrics)
    assert summary["gap_closed"]["ppo"]["hpa-tuned"]["mean"] == suite.standing("ppo").gap_closed["hpa-tuned"].share.mean
    assert summary["failed"] == {"broken": "model.onnx: was changed"}
    assert summary["by_workload"]["mail"]["workloads"] == ["mail"]
    assert summary["by_workload"]["mail"]["members"]["ppo"][1] == {"name": "ppo·1", "training_seed": 1}


def test_each_training_seed_has_its_own_rows_and_a_rule_has_none(tmp_path):
    stored(tmp_path)
    table = pq.read_table(tmp_path / "episodes.parquet").to_pydict()
    seeds = {(p, w, s) for p, w, s in zip(table["policy"], table["workload"], table["training_seed"], strict=True)}
    assert {(w, s) for p, w, s in seeds if p == "ppo"} == {("shop", 0), ("shop", 1), ("mail", 0), ("mail", 1)}
    assert {s for p, _, s in seeds if p == "hpa-default"} == {None}


def test_one_comparison_keeps_its_own_form(tmp_path):
    write_evaluation(workload("shop", 9.0), tmp_path)
    assert isinstance(read_evaluation(tmp_path), Comparison)
    assert "by_workload" not in json.loads((tmp_path / "summary.json").read_text())
