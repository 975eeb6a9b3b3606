"""Transfer: what comes from one workload run on all, told in words, tables and a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from scalepilot.errors import ConfigError, InputError
from scalepilot.evaluate.evaluation import Lineup, LineupRow, Trained, evaluate_lineups
from scalepilot.evaluate.transfer import Source, Transfer, transfer_json, transfer_of
from scalepilot.experiments.study import load_study
from scalepilot.experiments.study.config import with_budget
from scalepilot.policy.rules.command_line import rule_from_text
from scalepilot.report.charts.transfer_map import transfer_map
from scalepilot.report.words.transfer_text import claims, tables, transfer_markdown
from scalepilot.simulate import SerialExecutor, scenario_of
from scalepilot_envs.autoscale import AutoscaleParams

PARAMS = AutoscaleParams()
STEADY = "{kind: steady, num_steps: 1500, interval_seconds: 60, offset_requests: 2000, max_requests: 12000}"
SPIKE = STEADY.replace("steady", "spike")
BATCH = "rollout_steps: 32, minibatch_size: 32"
STUDY = f"""
name: two
seeds: [0, 1]
set: {{evaluation.window_steps: 40, evaluation.drawn_windows: 2, evaluation.test_seeds: [0], evaluation.videos: 0}}
arms:
  PPO: {{config: {{algorithm: sb3_ppo, env: {{episode_steps: 40}}, ppo: {{total_env_steps: 512, num_envs: 8, {BATCH}}}}}}}
transfer: {{calibrated: [hpa-tuned, kpa-default], tuning_evaluations: 4}}
tasks:
  calm: {{set: {{workload: {STEADY}}}}}
  spiky: {{set: {{workload: {SPIKE}}}}}
"""


def written(folder: Path, text: str = STUDY) -> Path:
    path = folder / "two.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def transfer(tmp_path_factory: pytest.TempPathFactory) -> Transfer:
    """Two "policies" that are rules: one far too large everywhere, one the best there is, so that the words are known."""
    _, tasks = load_study(written(tmp_path_factory.mktemp("study")))
    on = [scenario_of(task.config, name=task.name) for task in tasks]

    def rule(text: str):
        return rule_from_text(text, PARAMS)

    rows = {}
    for task in tasks:
        source = Source("many", "policy", task.name)
        members = tuple(Trained(f"{source.name}·{n}", n, rule(f"static:replicas={40 + n}")) for n in (0, 1))
        rows[source] = LineupRow(source.name, "policy", "two seeds", members)
        source = Source("hpa", "baseline", task.name)
        rows[source] = LineupRow.single(source.name, "baseline", rule("hpa:target=0.6"))
    rows[Source("small", "baseline", None)] = LineupRow.single("small", "baseline", rule("static:replicas=2"))
    lineups = [Lineup(scenario, tuple(rows.values())) for scenario in on]
    comparisons, _ = evaluate_lineups(lineups, SerialExecutor(), bootstrap_samples=50)
    return transfer_of(tuple(rows), comparisons, "hpa")


def test_the_yardstick_of_the_tested_workload_counts_as_one(transfer: Transfer):
    assert transfer.labels == ("many", "hpa", "small")
    assert transfer.workloads == ("calm", "spiky")
    for workload in transfer.workloads:
        assert transfer.relative(transfer.own("hpa", workload), workload) == 1
        assert transfer.own("small", workload).learnt_on is None
        assert transfer.figure(transfer.own("many", workload), workload, "cost").mean == pytest.approx(40.5)
    assert transfer.away("small", "calm") is None
    assert transfer.away("many", "calm") == pytest.approx(transfer.relative(transfer.own("many", "spiky"), "calm"))


def test_the_cheapest_in_replicas_is_not_the_cheapest_with_late_requests(transfer: Transfer):
    replicas, both = claims(transfer)
    assert replicas.startswith("In replicas alone a rule has least on 2 of 2: calm (small), spiky (small)")
    assert "calm (hpa)" in both
    found = transfer_json(transfer)["cheapest"]["calm"]
    assert found["cost"]["name"] == "small"
    assert found["cost"]["next"] == "many"
    assert found["cost"]["policy_minus_baseline"]["low"] > 0
    assert found["late_share"]["name"] == "many"


def test_json_tables_and_picture_hold_every_origin_on_every_workload(transfer: Transfer):
    stored = json.loads(json.dumps(transfer_json(transfer), allow_nan=False))
    assert [(row["label"], row["learnt_on"]) for row in stored["rows"]] == [(s.label, s.learnt_on) for s in transfer.sources]
    assert all(set(row["on"]) == {"calm", "spiky"} for row in stored["rows"])
    for table in tables(transfer):
        assert all(len(row) == len(table.headings) for row in table.rows)
    text = "\n".join(transfer_markdown(transfer))
    assert "### many: J (late %) by origin (down) and tested traffic (across)" in text
    assert "from spiky" in text
    words = " ".join(ET.fromstring(transfer_map(transfer)).itertext())
    assert words.count("many · ") == 2
    assert "mean of 2 training seeds" in words


def test_a_row_that_was_not_run_is_named(transfer: Transfer):
    with pytest.raises(InputError, match="transfer: DQN from calm could not be evaluated on calm"):
        transfer_of([Source("DQN", "policy", "calm")], transfer.comparisons, "hpa")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("kpa-default", "kap-default", "transfer.calibrated: 'kap-default' is not allowed"),
        ("[hpa-tuned, kpa-default]", "[]", "transfer.calibrated: is empty"),
        ("tuning_evaluations: 4", "fixed: [kpa-default]", "calibrated, fixed, policies: .* allowed: each once"),
        ("tuning_evaluations: 4", "fixed: [kpa-tuned]", "transfer.fixed: 'kpa-tuned' is found on traffic"),
        (f"workload: {SPIKE}", f"workload: {SPIKE}, env.params.startup_seconds: 90", "tasks.spiky has another service than"),
        (f"calm: {{set: {{workload: {STEADY}}}}}", "calm: {set: {env.id: CartPole-v1}}", "transfer: is not used, tasks.calm is"),
        (f"spiky: {{set: {{workload: {SPIKE}}}}}", "spiky: {arms: {PPO: {}}}", "tasks.spiky.arms: 'PPO' is one of the whole"),
        (
            f"spiky: {{set: {{workload: {SPIKE}}}}}",
            "spiky: {arms: {B: {config: {algorithm: sb3_ppo, env: {episode_steps: 40}}}}}",
            "spiky has other arms",
        ),
        ("  PPO: ", "  kpa-default: ", "an arm is called kpa-default, as a rule or policy is"),
        ("tuning_evaluations: 4", "policies: [nowhere]", "nowhere"),
        ("arms:\n  PPO", "x_arms:\n  PPO", "x_arms: unknown key"),
    ],
)
def test_what_a_transfer_cannot_be_is_said(tmp_path: Path, old: str, new: str, problem: str):
    text = STUDY.replace(old, new)
    assert text != STUDY
    if "CartPole" in new:
        text = text.replace("env: {episode_steps: 40}, ", "").replace(
            "set: {evaluation.window_steps: 40, evaluation.drawn_windows: 2,", "set: {"
        )
        text = text.replace(" evaluation.test_seeds: [0],", "")
    with pytest.raises(InputError, match=problem):
        load_study(written(tmp_path, text))


def test_a_budget_is_a_share_of_each_arms_steps(tmp_path: Path):
    _, tasks = load_study(written(tmp_path))
    assert {task.arms["PPO"].ppo.total_env_steps for task in with_budget(tasks, 0.25)} == {128}
    with pytest.raises(ConfigError, match="--budget: 0 is not allowed; allowed: above 0, up to 1"):
        with_budget(tasks, 0)
