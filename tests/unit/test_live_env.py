"""A live environment: the simulated one's fields, actions and reward on a deployment, within the limits of operate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

from scalepilot.config import config_from_mapping
from scalepilot.errors import ConfigError, InputError
from scalepilot.operate.config import operate_config
from scalepilot.operate.ledger import Ledger, read_entries
from scalepilot.operate.live import ENV_ID, LiveScalingEnv, LiveSystem, LiveUnknownError, judge_of, live_service
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot
from scalepilot.operate.targets import Written
from scalepilot_envs.cluster_deployment import describe
from scalepilot_envs.cluster_deployment.measurement import LOAD_SCALE, measure, node_share
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.registration import find_env
from scalepilot_envs.restarting import ENV_FAILURE, RestartingEnv

INTERVAL = 0.05
NAME = "deployment shop/web"
OPEN = {"reversals_per_hour": 10_000, "harm_ticks": 1000}


@dataclass
class Deployment:
    """A target whose pods serve at once, and its telemetry; what it answers may be set."""

    name = NAME
    replicas: int = 5
    writes: list[int] = field(default_factory=list)
    answer: Written | None = None
    problems: list[str] = field(default_factory=list)
    load: float = 1500.0
    shown: Any = None
    lost: Callable[[], dict[str, str]] = dict
    silent: Callable[[], bool] = bool
    leading: Callable[[], bool] = lambda: True

    def check(self, *, dry_run: bool) -> list[str]:
        return self.problems

    def tell(self, reason: str, message: str) -> None: ...
    def close(self) -> None: ...

    def write(self, replicas: int, expected: int) -> Written:
        self.writes.append(replicas)
        if self.answer is not None:
            return self.answer
        if self.replicas != expected:
            return Written("refused", self.replicas, f"{self.replicas} are asked for, not {expected}")
        self.replicas = replicas
        return Written("written", replicas)

    def read(self, now: float, replicas: Replicas | None = None) -> Any:
        if replicas is None:
            return Replicas(None if self.silent() else self.replicas, self.replicas, (), leading=self.leading())
        pods = np.array([float(self.replicas)])
        values = measure(np.array([self.load]), pods)[:, 0]
        values[4:6] = node_share(pods)[0], self.load / LOAD_SCALE
        values = values if self.shown is None else self.shown
        names = [f.name for f in describe().fields]
        lost = self.lost()
        readings = {
            name: Reading(None, "test", None, lost[name]) if name in lost else Reading(float(value), "test", 0.0)
            for name, value in zip(names, values, strict=True)
        }
        extra = {"requests": Reading(None, "test", None, lost["requests"]) if "requests" in lost else Reading(self.load, "test")}
        return Snapshot(now, readings, replicas, extra)


def system_of(deployment: Deployment, env: EnvDescription, ledger: Ledger | None = None, **config: Any) -> LiveSystem:
    explore_on = config.pop("explore_on", NAME)
    given = operate_config({"limits": OPEN, "telemetry": {"interval_seconds": INTERVAL}, **config})
    service = live_service(given, env, judge_of(env).needs)
    return LiveSystem(service, deployment, deployment, explore_on, ledger=ledger)


def make(deployment: Deployment, *, params: dict[str, Any] | None = None, ledger: Ledger | None = None, **arguments: Any) -> Any:
    env, given = describe(params or {}), {name: arguments.pop(name) for name in ("limits", "explore_on") if name in arguments}
    system = system_of(deployment, env, ledger, **given)
    return LiveScalingEnv(env, judge_of(env), INTERVAL, lambda user: system, **{"episode_steps": 100, **arguments})


def test_a_reset_looks_and_never_scales():
    deployment = Deployment(replicas=60)
    env = make(deployment)
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert not deployment.writes
    assert info["waited"] == 0


def test_actions_are_those_of_the_environments_table_and_every_one_leaves_its_record(tmp_path: Path):
    deployment = Deployment()
    env = make(deployment, ledger=Ledger(tmp_path / "records"))
    env.reset()
    told = []
    for action, label in enumerate(["hold", "+1", "−1"]):
        assert describe().actions[action].label == label
        *_, info = env.step(action)
        told.append((deployment.replicas, info["record"]["label"], info["record"]["outcome"]))
    assert told == [(5, "hold", "same"), (6, "+1", "written"), (5, "−1", "written")]
    assert [entry.record.label for entry in read_entries(tmp_path / "records")] == ["hold", "+1", "−1"]


def test_the_reward_is_the_simulators_where_the_same_is_measured():
    loads, actions = [1500.0, 1500.0, 1900.0, 1200.0, 2600.0, 2700.0, 6000.0, 6000.0, 6000.0], [0, 1, 0, 2, 1, 1, 0, 2, 1]
    params = {"failure_probability": 0.0}
    simulated = find_env("ClusterDeployment-v0").maker()(params=params, episode_steps=9)
    simulated.reset(seed=0, options={"loads": np.array([[1500.0, *loads]])})
    deployment = Deployment()
    env = make(deployment, params=params, episode_steps=1000)
    env.reset()
    for load, action in zip(loads, actions, strict=True):
        there = simulated.step(action)
        deployment.load, deployment.shown = load, there[0]
        live = env.step(action)
        assert live[0] == pytest.approx(there[0])
        assert live[1:3] == pytest.approx(there[1:3])
        assert {name: live[4][name] for name in ("pods", "change_pods", "overloaded_steps")} == {
            name: float(there[4][name]) for name in ("pods", "change_pods", "overloaded_steps")
        }
    assert live[2]


def test_an_episode_is_over_when_its_time_is():
    env = make(Deployment(), episode_steps=4)
    env.reset()
    began, steps, truncated = time.time(), 0, False
    while not truncated:
        *_, truncated, _ = env.step(0)
        steps += 1
    # However many moments a busy machine misses.
    assert 1 <= steps <= 4
    assert time.time() - began > 3 * INTERVAL


def test_a_step_takes_an_interval_on_the_grid():
    env = make(Deployment())
    env.reset()
    env.step(0)
    began = time.time()
    for _ in range(4):
        env.step(0)
    assert 3.5 * INTERVAL < time.time() - began < 40 * INTERVAL


@pytest.mark.parametrize("given", [None, "deployment shop/other", ""])
def test_nothing_is_explored_on_that_is_not_named(given: str | None):
    with pytest.raises(InputError, match=rf'^explore_on: .*every step would scale {NAME}.*explore_on: "{NAME}"'):
        make(Deployment(), explore_on=given)


def test_who_else_scales_it_stands_in_the_way():
    with pytest.raises(InputError, match="it is scaled by HorizontalPodAutoscaler web"):
        make(Deployment(problems=["it is scaled by HorizontalPodAutoscaler web: remove one of the two"]))


def test_the_limits_and_bounds_hold_for_every_action():
    deployment = Deployment(replicas=4)
    env = make(deployment, limits={**OPEN, "max_replicas": 5, "min_replicas": 4})
    env.reset()
    for action, replicas, limited in ((2, 4, 1.0), (1, 5, 0.0), (1, 5, 1.0)):
        *_, info = env.step(action)
        assert (deployment.replicas, info["limited"]) == (replicas, limited)


@pytest.mark.parametrize("outcome", ["refused", "forbidden", "throttled", "unknown"])
def test_a_write_that_fails_ends_no_episode_and_is_told(outcome: Any, caplog: pytest.LogCaptureFixture):
    deployment = Deployment(answer=Written(outcome, detail="HTTP 403: no"))
    env = make(deployment)
    env.reset()
    for _ in range(3):
        _, reward, terminated, truncated, info = env.step(1)
        assert (terminated, truncated, info["failed_write"], info["pods"]) == (False, False, 1.0, 5.0)
        assert np.isfinite(reward)
        assert info["record"]["outcome"] in (outcome, "throttled")
    assert sum("the episode goes on" in record.message for record in caplog.records) == 1
    deployment.answer = None
    *_, info = env.step(1)
    assert (deployment.replicas, info["failed_write"]) == (6, 0.0)


def test_replicas_that_others_have_changed_stay_until_the_next_episode():
    deployment = Deployment()
    env = make(deployment)
    env.reset()
    env.step(1)
    deployment.replicas = 9
    for _ in range(2):
        *_, info = env.step(1)
        assert (info["record"]["mode"], info["failed_write"], info["pods"]) in (("active", 1.0, 6.0), ("contested", 1.0, 9.0))
    assert deployment.replicas == 9
    env.reset()
    *_, info = env.step(1)
    assert (info["record"]["mode"], info["failed_write"], deployment.replicas) == ("active", 0.0, 10)


def test_a_step_waits_while_something_is_unknown_and_nothing_is_scaled():
    deployment, asked = Deployment(), iter([{}, {"cpu_share": "no samples"}, {"requests": "no samples"}])
    deployment.lost = lambda: next(asked, {})
    env = make(deployment)
    env.reset()
    observation, _, _, truncated, info = env.step(1)
    assert deployment.writes == [6]
    assert (info["waited"], truncated) == (2.0, False)
    assert (observation > 0).sum() == 6


def test_a_step_whose_outcome_stays_unknown_says_so_and_is_no_transition():
    deployment = Deployment()
    env = make(deployment, wait_intervals=1)
    before, _ = env.reset()
    deployment.lost = lambda: {"cpu_share": "no samples"}
    observation, reward, terminated, truncated, info = env.step(1)
    assert info[ENV_FAILURE] == "cpu_share: no samples"
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert observation[0] == before[0] > 0
    with pytest.raises(LiveUnknownError, match="reset: cpu_share: no samples, for 14 moments"):
        env.reset()


def test_a_target_that_does_not_answer_or_is_anothers_ends_no_episode_but_begins_none():
    deployment, led = Deployment(), iter([False, False, True])
    deployment.leading = lambda: next(led, True)
    env = make(deployment, wait_intervals=0)
    assert env.reset()[1]["waited"] == 2
    deployment.silent = lambda: True
    _, _, terminated, truncated, info = env.step(1)
    assert not terminated
    assert not truncated
    # What was decided on was known; what followed was not.
    assert (info["pods"], deployment.writes) == (6.0, [6])
    *_, info = env.step(1)
    assert (info["pods"], info["failed_write"], deployment.writes) == (6.0, 1.0, [6])
    with pytest.raises(LiveUnknownError, match="reset: replicas: unknown, for 13 moments"):
        env.reset()


def test_the_houses_algorithms_leave_such_a_step_out():
    deployment = Deployment()
    env = RestartingEnv(lambda: make(deployment, wait_intervals=0))
    env.reset(seed=0)
    lost = iter([{"cpu_share": "no samples"}])
    deployment.lost = lambda: next(lost, {})
    _, _, terminated, truncated, info = env.step(0)
    assert "is no transition: cpu_share: no samples" in info[ENV_FAILURE]
    assert not terminated
    assert not truncated


def test_an_episode_in_between_is_no_step_of_the_one_before():
    deployment = Deployment()
    described = describe()
    system = system_of(deployment, described)
    training, validation = (
        LiveScalingEnv(described, judge_of(described), INTERVAL, lambda user: system, episode_steps=9) for _ in range(2)
    )
    training.reset()
    validation.reset()
    validation.step(1)
    _, _, _, truncated, info = training.step(1)
    assert "another episode" in info[ENV_FAILURE]
    assert truncated
    assert deployment.writes == [6]


def configured(tmp_path: Path, **options: Any) -> dict[str, Any]:
    (tmp_path / "operate.yaml").write_text(
        yaml.safe_dump({"telemetry": {"kind": "scrape", "interval_seconds": 1, "url": "http://127.0.0.1:1"}})
    )
    given = {"config": str(tmp_path / "operate.yaml"), "like": "ClusterDeployment-v0", **options}
    return {
        "algorithm": "dqn",
        "env": {"id": "LiveScaling-v0", "options": given},
        "dqn": {"num_envs": 1},
        "evaluation": {"validation_episodes": 1, "test_episodes": 2},
    }


def test_an_experiment_names_it_and_policies_are_made_for_what_it_stands_in_for(tmp_path: Path):
    config = config_from_mapping(configured(tmp_path))
    assert config.env.id == ENV_ID
    described = config.env.description
    assert (described.env_id, described.options) == ("scalepilot/ClusterDeployment-v0", {})
    assert [f.name for f in described.fields] == [f.name for f in describe().fields]
    assert find_env(ENV_ID).is_live
    made = gym.make(ENV_ID, **config.env.arguments)
    assert isinstance(made.unwrapped, LiveScalingEnv)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dqn": {"num_envs": 4}}, "dqn.num_envs: 4 is not allowed on .*; allowed: 1, as there is one deployment"),
        ({"resources": {"num_env_runners": 1}}, "resources.num_env_runners: 1 is not allowed"),
        ({"evaluation": {"validation_episodes": 64}}, "evaluation.validation_episodes: 64 is not allowed.*allowed: up to 20"),
        ({"dqn": {"num_envs": 1, "rollout_steps": 400}}, "env_timeout_seconds: 300 is too short.*allowed: from 416"),
        ({"env": {"id": "LiveScaling-v0"}}, "env.options.config: none given; allowed: an operate.yaml"),
    ],
)
def test_what_one_deployment_cannot_do_is_refused_in_a_line(tmp_path: Path, change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        config_from_mapping({**configured(tmp_path), **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"like": "QueueScaling-v0"}, "options.like: scalepilot/QueueScaling-v0 has no live counterpart; allowed: Autoscale-v0"),
        ({"config": "/nowhere.yaml"}, "options.config: .*nowhere.yaml"),
        ({"explore": True}, "options.explore: .*allowed: config, like"),
    ],
)
def test_options_that_are_not_allowed_are_named(tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        config_from_mapping(configured(tmp_path, **options))
