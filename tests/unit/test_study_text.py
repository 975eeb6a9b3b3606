"""The written analysis says what the numbers say, and nothing else."""

from __future__ import annotations

import pytest
from tests.unit.study_results import arm, task, text

from scalepilot.report.words.study_text import analysis, conclusion, learns, verdict, winner


def test_where_dqn_wins_the_text_says_so_with_figures():
    found = task("T", arm("DQN", 490.0), arm("PPO", 300.0, draw=1))
    words = text(analysis(found))
    assert verdict(found).startswith("On T take DQN: it ends higher than PPO.")
    assert "DQN ends higher than PPO: the difference of the means is +19" in words["Final performance"]
    assert "DQN in all and PPO in none" in words["Success rate"]
    assert "PPO's validation never reaches 475 in 10,000 steps" in words["Sample efficiency"]
    assert "DQN's validation reaches 475 with 5 of 5 seeds, in the median after 5,000 steps" in words["Sample efficiency"]
    assert winner(found) == "DQN"


def test_where_ppo_wins_the_same_sentences_name_ppo():
    found = task("T", arm("DQN", 300.0), arm("PPO", 490.0, draw=1))
    words = text(analysis(found))
    assert verdict(found).startswith("On T take PPO: it ends higher than DQN.")
    assert "PPO ends higher than DQN" in words["Final performance"]
    assert "DQN's validation never reaches 475" in words["Sample efficiency"]
    assert winner(found) == "PPO"


def test_where_neither_wins_they_cannot_be_told_apart():
    found = task("T", arm("DQN", 400.0, between_seeds=40.0), arm("PPO", 402.0, between_seeds=40.0, draw=1))
    words = text(analysis(found))
    assert "cannot be told apart" in verdict(found)
    assert "cannot be told apart" in words["Final performance"]
    assert "more seeds would be needed" in words["Final performance"]
    assert "ends higher" not in words["Final performance"]
    assert winner(found) is None


def test_a_tie_within_five_per_cent_says_that_more_is_ruled_out():
    found = task("T", arm("DQN", 400.0), arm("PPO", 400.0, draw=1))
    assert "rules out more than 5% either way" in text(analysis(found))["Final performance"]


def test_an_arm_that_never_learns_is_named():
    found = task("T", arm("DQN", 15.0), arm("PPO", 490.0, draw=1))
    learning = text(analysis(found))["Does it learn?"]
    assert "DQN never learns" in learning
    assert "PPO learns" in learning
    assert learns(found.arm("DQN"), found) is False
    assert winner(found) == "PPO"


def test_where_nobody_learns_nobody_is_recommended():
    found = task("T", arm("DQN", 14.0), arm("PPO", 10.0, draw=1))
    assert verdict(found) == "On T neither DQN nor PPO ends better than a random agent: give it more steps or other settings."
    assert winner(found) is None
    assert "no arm collects 475" in text(analysis(found))["Success rate"]


def test_an_arm_that_may_be_random_is_said_to_be_so():
    found = task("T", arm("DQN", 30.0, between_seeds=40.0, seeds=3), arm("PPO", 490.0, draw=1, seeds=3))
    assert learns(found.arm("DQN"), found) is None
    assert "DQN cannot be told from a random agent" in text(analysis(found))["Does it learn?"]


@pytest.mark.parametrize(("quick", "slow"), [("DQN", "PPO"), ("PPO", "DQN")])
def test_among_equals_the_quicker_and_the_steadier_are_named(quick: str, slow: str):
    found = task("T", arm(quick, 480.0, reached_after=0.1, fall=200.0), arm(slow, 480.0, reached_after=0.9, draw=1))
    words = text(analysis(found))
    assert f"{quick} learns faster than {slow}" in words["Sample efficiency"]
    assert f"{quick} falls further than {slow}" in words["Stability"]
    assert f"{quick} learns faster and {slow} is steadier" in verdict(found)


def test_seeds_that_end_apart_are_named():
    wide = task("T", arm("DQN", 300.0, between_seeds=90.0), arm("PPO", 300.0, draw=1))
    stability = text(analysis(wide))["Stability"]
    assert "What DQN ends with depends on the seed" in stability
    assert "What PPO ends with depends on the seed" not in stability


def test_actions_are_compared_by_their_shares():
    alike = text(analysis(task("T", arm("DQN", 400.0), arm("PPO", 300.0, shares=(0.48, 0.52), draw=1))))
    apart = text(analysis(task("T", arm("DQN", 400.0), arm("PPO", 300.0, shares=(0.95, 0.05), draw=1))))
    assert "use their actions alike" in alike["What the policies do"]
    assert "PPO nearly always chooses left (95%)" in apart["What the policies do"]
    assert "differ most in" in apart["What the policies do"]


def test_one_seed_decides_nothing():
    found = task("T", arm("DQN", 490.0, seeds=1), arm("PPO", 300.0, seeds=1, draw=1))
    assert verdict(found) == "On T one seed an arm decides nothing: run more."
    assert "One seed says nothing of the next" in text(analysis(found))["Does it learn?"]


def test_many_arms_are_held_against_the_leader_in_one_sentence():
    found = task("T", arm("a", 490.0), *(arm(f"b{i}", 100.0 + i, draw=i + 1) for i in range(5)))
    final = text(analysis(found))["Final performance"]
    assert "a ends higher than every other arm" in final
    assert verdict(found) == "On T take a: it ends higher than all 5 others."
    tied = task("T", *(arm(f"b{i}", 100.0, between_seeds=30.0, draw=i) for i in range(5)))
    assert "leads, and cannot be told apart from" in verdict(tied)


def test_a_task_without_a_threshold_has_no_success_rate():
    one = task("T", arm("DQN", 300.0, success_return=None), arm("PPO", 200.0, draw=1, success_return=None), success_return=None)
    assert "Success rate" not in text(analysis(one))
    assert "reaches" not in text(analysis(one))["Sample efficiency"]


def test_the_conclusion_is_drawn_from_all_tasks():
    dqn = task("A", arm("DQN", 490.0), arm("PPO", 300.0, draw=1))
    ppo = task("B", arm("DQN", 300.0), arm("PPO", 490.0, draw=1))
    tie = task("C", arm("DQN", 400.0, between_seeds=40.0), arm("PPO", 402.0, between_seeds=40.0, draw=1))
    assert conclusion([dqn]) == ""
    assert conclusion([dqn, dqn]) == "DQN wins on both tasks."
    assert conclusion([dqn, ppo]) == "Which is better depends on the environment: DQN on A; PPO on B."
    assert conclusion([dqn, tie]) == "One arm wins, but not everywhere: DQN on A; nobody on C."
    assert conclusion([tie, tie]).startswith("No arm wins on any of the two tasks")
