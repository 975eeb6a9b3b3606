"""Training on live deployments with real parts; longer: `python -m tests.live_training`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tests import live_training
from tests.live_training import Place, train
from tests.real_kubernetes import Kubernetes, until
from tests.unit.test_live_env import Deployment

from scalepilot.config import load_config
from scalepilot.experiments.run import run_experiment
from scalepilot.operate.config import load_service, operate_config
from scalepilot.operate.controller import Controller
from scalepilot.policy import load_policy
from scalepilot.policy.spec import env_of
from scalepilot.report.replay.env_replay import EnvReplay
from scalepilot.report.replay.lineup import DemoOptions, make_replay
from scalepilot.runs.folder import RunFolder
from scalepilot.verify.policy_checks import observations_of
from scalepilot_envs.registration import find_env

pytestmark = pytest.mark.slow


def test_sarsa_on_a_real_queue_that_is_stopped_half_way_leaves_policy_log_and_plot(tmp_path: Path):
    with live_training.workflow(tmp_path, 20.0, episode_steps=5) as (place, _):
        tabular = {"bins": {"worker_queue": 4, "workers": 4}, "rollout_steps": 100}
        process = train(place.experiment("sarsa", 100, tabular=tabular), "--no-evaluation")
        until(lambda: (tmp_path / "records").exists() and len(place.entries()) >= 7, 120.0)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 130, output
        entries = place.entries()
    (run,) = (tmp_path / "runs/live").iterdir()
    policy = load_policy(run / "policy")
    assert policy.spec.env_id == "scalepilot/FunctionWorkflow-v0"
    assert [action.label for action in policy.spec.actions] == ["−1", "hold", "+1"]
    assert (run / "plots/live.svg").is_file()
    assert "training ends" in (run / "logs/training.log").read_text()
    assert {entry.record.mode for entry in entries} == {"active"}
    scalars = event_accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    steps = {scalar.step for scalar in scalars.Scalars("metrics/pod_count")}
    assert steps == set(range(1, len(steps) + 1)), "one a decision"
    assert {"metrics/latency_ms", "train/q_value_mean", "train/reward", "field/qos"} <= set(scalars.Tags()["scalars"])
    # Elsewhere nothing of the deployment is there: the policy is one of the simulator's.
    place.operate.unlink()
    assert observations_of(policy.spec, env_of(policy.spec)).shape[1] == 9
    assert isinstance(make_replay(DemoOptions([str(run)], alone=True, steps=2)), EnvReplay)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_dqn_trains_and_its_policy_runs_in_the_simulator(tmp_path: Path):
    dqn = {"learning_starts": 10, "batch_size": 8, "rollout_steps": 5}
    with live_training.page(tmp_path, 0.2) as place:
        config = load_config(place.experiment("dqn", 20, dqn=dqn), [])
        folder = RunFolder.create(config)
        assert run_experiment(config, folder, evaluate=False).finished
    policy = load_policy(folder.policy)
    env = find_env("ClusterDeployment-v0").maker()()
    decision, _ = policy.act(env.reset(seed=0)[0][None])
    assert decision.action is not None
    # And it can be operated, on what the target says of its pods.
    service = load_service(operate_config({"policy": str(folder.policy), "telemetry": {"interval_seconds": 0.2}}))
    deployment = Deployment(replicas=40)
    entry = Controller(service, deployment, deployment).step()
    assert entry.record.decider == f"{policy.spec.name}@{policy.spec.version}"
    assert entry.record.wanted == 40 + {"hold": 0, "+1": 1, "−1": -1}[entry.record.label]
    assert entry.record.target <= 40
    assert json.loads((folder.path / "run.json").read_text())["status"] == "finished"


def stepped(place: Place, env: Any, action: int) -> dict[str, Any]:
    _, _, terminated, truncated, info = env.step(action)
    assert not terminated
    assert not truncated
    return dict(info)


def test_a_right_that_is_taken_away_ends_no_episode_on_a_real_cluster(kubernetes: Kubernetes, tmp_path: Path):
    with live_training.cluster(tmp_path, kubernetes, 0.5) as (place, pods):
        arguments = {"params": place.env["params"], **place.env["options"]}
        env = find_env(place.env_id).maker()(**arguments)
        env.reset()
        assert stepped(place, env, 1)["record"]["outcome"] == "written"
        with live_training.forbidden(kubernetes):
            info = stepped(place, env, 1)
            assert (info["record"]["outcome"], info["failed_write"], info["pods"]) == ("forbidden", 1.0, 6.0)
            assert "patch deployments/scale" in info["record"]["detail"]
        info = stepped(place, env, 1)
        assert (info["record"]["outcome"], info["pods"]) == ("written", 7.0)
        until(lambda: pods.ready == 7)
        env.close()
