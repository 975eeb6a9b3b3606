"""What to deploy: chosen by validation alone, written as an artifact, and never worse on validation than where it began."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalepilot.cli import main
from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.errors import InputError
from scalepilot.evaluate.lineup import gather
from scalepilot.evaluate.recommendation import Candidate, Recommendation, chosen, recommend, scored
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.experiments.run import evaluate_run, run_experiment
from scalepilot.learn.task import Task
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.report.words.recommendation import reason
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import SerialExecutor
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import COST, describe


def config_of(folder: Path, **more: Any) -> ExperimentConfig:
    small = {"window_steps": 120, "drawn_windows": 3, "test_seeds": [0], "tuning_evaluations": 4, "optimum": False, "videos": 0}
    workload = {"kind": "diurnal", "days": 3, "flash_crowd_every_hours": 0}
    return config_from_mapping({"name": "tiny", "workload": workload, "output": str(folder), "evaluation": small, **more})


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(config_of(tmp_path))


def rules(task: Task) -> list[Candidate]:
    given = {"tracking": {"utilisation": 0.7}, "static": {"replicas": 60}, "never": {}}
    return [Candidate(name, "rule", make_rule(name, task.description, p)) for name, p in given.items()]


def test_the_cheapest_on_validation_is_chosen_and_test_is_not_touched(task: Task, tiny_network: Any) -> None:
    class Untouched:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"test.{name}")

    scenario = replace(task.scenario, test=Untouched())
    found = recommend(scenario, [Candidate("tiny", "trained", tiny_network()), *rules(task)], SerialExecutor())
    assert found.name == "tracking" == next(iter(found.scores))
    assert found.versus == "tiny"
    means = found.means["validation"]
    for other, difference in found.differences.items():
        assert difference.mean == pytest.approx(means["tracking"] - means[other])
    assert reason(found).startswith("Deploy: tracking. It costs ")
    assert "less than the trained policy" in reason(found)
    assert "NaN" not in json.dumps(found.to_mapping())


@pytest.mark.parametrize(
    ("validation", "busier", "expected"),
    [
        # Better by more than the noise of the choice.
        ((9.0, 10.0), (20.0, 20.0), "tiny"),
        ((9.9, 10.0), (20.0, 20.0), "kpa"),
        # Better on every day that was recorded, lost on the first one above.
        ((9.0, 10.0), (30.0, 20.0), "kpa"),
        # A service that costs nothing.
        ((0.0, 0.0), (0.0, 0.0), "kpa"),
    ],
)
def test_a_policy_replaces_the_best_rule_where_it_is_better_and_bears_more_traffic(
    validation: tuple[float, float], busier: tuple[float, float], expected: str
) -> None:
    names = ("tiny", "kpa")
    means = {s: dict(zip(names, v, strict=True)) for s, v in (("validation", validation), ("busier", busier))}
    assert chosen(scored(means), {"tiny": "trained", "kpa": "rule"}) == expected


def test_what_speaks_against_the_cheaper_one_on_validation_is_said() -> None:
    def said(busier: float) -> str:
        means = {"validation": {"kpa": 10.0, "tiny": 9.95}, "busier": {"kpa": 20.0, "tiny": busier}}
        origins: dict[str, Any] = {"kpa": "rule", "tiny": "trained"}
        return reason(Recommendation("kpa", "tiny", COST, origins, means, {}, {"tiny": Interval(0.05, -0.1, 0.2)}, {}))

    assert "0.5 % more than the trained policy (95 % interval of the difference −0.10 to +0.20)." in said(30.0)
    assert said(30.0).endswith("But the trained policy costs 50.0 % more where traffic is busier than recorded.")
    assert said(20.0).endswith("A policy takes the place of a rule only where it is more than 1 % better.")


def test_traffic_is_made_busier_as_far_as_the_service_can_follow(task: Task) -> None:
    means = recommend(task.scenario, rules(task), SerialExecutor()).means
    assert set(means) == {"validation", "training", "busier"}
    assert means["busier"]["tracking"] > max(means["validation"]["tracking"], means["training"]["tracking"])
    small = Task(config_of(Path("unused"), env={"params": {"max_replicas": 8}})).scenario
    assert set(recommend(small, [Candidate("kpa", "rule", make_rule("kpa", small.env))], SerialExecutor()).means) == {
        "validation",
        "training",
    }


def test_a_candidate_that_does_not_fit_is_left_out_and_named(task: Task) -> None:
    other = describe(AutoscaleParams(history_steps=4))
    misfit = make_rule("tracking", replace(other, env_id="scalepilot/QueueScaling-v0"))
    found = recommend(task.scenario, [Candidate("other", "init", misfit), *rules(task)], SerialExecutor())
    assert set(found.left_out) == {"other"}
    with pytest.raises(InputError, match="no policy could be evaluated"):
        recommend(task.scenario, [Candidate("other", "init", misfit)], SerialExecutor())


def test_a_run_ends_with_an_artifact_that_works_everywhere(task: Task, tiny_network: Any, capsys: Any) -> None:
    folder = RunFolder.create(task.config)
    save_policy(tiny_network(), folder.policy)
    folder.write_status("finished")
    evaluate_run(task, folder, [c.policy for c in rules(task)])

    stored = json.loads((folder.evaluation / "summary.json").read_text())["deploy"]
    assert stored == folder.read_status()["deploy"]
    assert (stored["name"], stored["origin"]) == ("tracking", "rule")
    deployed = load_policy(folder.deploy).spec
    assert deployed.name == "tracking"
    assert deployed.provenance["deploy"]["reason"] == stored["reason"]
    assert deployed.evaluation["policies"]["tracking"]["J"]["mean"] > 0
    assert load_policy(folder.path).spec.name == "tiny"

    assert main(["runs", str(folder.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["deploy"] == "tracking"
    gathered = gather([str(folder.deploy), str(folder.path)])
    assert [row.name for row in gathered.rows] == ["tracking", "tiny"]
    assert gathered.configs == [task.config]


def test_what_training_began_with_is_a_candidate_for_this_service(tmp_path: Path, tiny_network: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("scalepilot.evaluate.lineup.shipped_names", list)
    task = Task(config_of(tmp_path, env={"params": {"max_replicas": 12}}))
    folder = RunFolder.create(task.config)
    save_policy(tiny_network(3, name="tiny-ppo"), folder.policy)
    save_policy(tiny_network(1, name="tiny-ppo"), folder.init)
    comparison = evaluate_run(task, folder, [])
    assert [c.name for c in comparison.contenders if c.role == "policy"] == ["tiny-ppo", "tiny-ppo (init)"]
    found = folder.read_status()["deploy"]
    assert (found["name"], found["origin"]) == ("tiny-ppo (init)", "init")
    spec = load_policy(folder.deploy).spec
    # Made for sixty replicas, it is described as what serves this service, and its figures are its own.
    assert spec.env_params["max_replicas"] == 12
    assert spec.evaluation["policies"]["tiny-ppo"]["J"]["mean"] == comparison.figure("tiny-ppo (init)").mean


def test_policies_that_a_user_gives_are_evaluated_beside_and_may_be_deployed(tmp_path: Path, tiny_network: Any) -> None:
    task = Task(config_of(tmp_path))
    folder = RunFolder.create(task.config)
    save_policy(tiny_network(3), folder.policy)
    save_policy(tiny_network(1, name="friend"), tmp_path / "friend")
    comparison = evaluate_run(task, folder, [], others=[tmp_path / "friend"])
    assert "friend" in [c.name for c in comparison.contenders if c.role == "policy"]
    found = json.loads((folder.evaluation / "summary.json").read_text())["deploy"]
    assert found["origins"]["friend"] == "given" if "origins" in found else "friend" in found["validation"]


def test_what_is_given_beside_is_refused_before_training(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    for given, said in ((Path("kpa"), "--beside: kpa is a rule"), (tmp_path / "none", "no such folder")):
        folder = RunFolder.create(config)
        with pytest.raises(InputError, match=said):
            run_experiment(config, folder, others=[given])
        assert folder.read_metrics() == []
