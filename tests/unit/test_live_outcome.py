"""The rewards of live environments are the simulators' where the same is measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scalepilot.operate.live.outcome import Lived, judge_of
from scalepilot.operate.snapshot import Reading
from scalepilot_envs.registration import find_env


def lived(description: Any, observation: np.ndarray, **given: Any) -> Lived:
    values = {f.name: float(value) for f, value in zip(description.fields, observation, strict=True)}
    return Lived(values=values, **given)


@pytest.mark.parametrize(("reward", "price"), [("source", 0.0), ("late_tasks", 0.1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_workflow(reward: str, price: float, seed: int):
    params = {"reward": reward, "worker_price": price, "base_tasks_per_minute": 60.0}
    entry = find_env("FunctionWorkflow-v0")
    env: Any = entry.maker()(params=params, episode_steps=12)
    description = entry.describe(params)
    observation, _ = env.reset(seed=seed)
    tasks, judge, load = env.unwrapped.batch.tasks, judge_of(description), SimpleNamespace(put=0, total=0)
    load.total = int(tasks.count[0])
    judge.begin(lived(description, observation, action=1, replicas=12, change=0).values, {}, load)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    for step in range(12):
        action = int(rng.integers(3))
        observation, there, terminated, truncated, info = env.step(action)
        load.put = int(tasks.arrived[0, step + 1])
        workers, change = int(info["workers"]), int(info["change"])
        here = judge.outcome(
            lived(description, observation, action=action, replicas=workers, change=change, is_last=bool(truncated))
        )
        assert here.reward == pytest.approx(there, abs=1e-4)
        assert here.terminated == terminated
        for name, value in here.columns.items():
            if name != "unfinished":
                assert value == pytest.approx(float(info[name]), abs=1e-5), name
        if terminated or truncated:
            break
    assert here.columns["unfinished"] == float(info["unfinished"])


def test_traffic():
    entry = find_env("Autoscale-v0")
    description = entry.describe({"price_per_move": 0.01})
    env: Any = entry.maker()(params={"price_per_move": 0.01}, episode_steps=20)
    env.reset(seed=0)
    judge = judge_of(description)
    rng = np.random.default_rng(0)
    for _ in range(20):
        observation, there, _, _, info = env.step(int(rng.integers(8)))
        extra = {"requests": Reading(float(info["arrived_requests"]), "test")}
        replicas, change = int(info["billed_replicas"]), int(info["change_replicas"])
        here = judge.outcome(lived(description, observation, action=0, replicas=replicas, change=change, extra=extra))
        assert here.reward == pytest.approx(there, rel=1e-4)


def test_a_queue_that_others_fill_is_followed_from_the_beginning_of_the_episode():
    description = find_env("FunctionWorkflow-v0").describe()
    judge = judge_of(description)
    names = [f.name for f in description.fields]
    values = dict.fromkeys(names, 0.0) | {"output_queue": 0.0, "qos": 1.0, "worker_queue": 4.0}
    judge.begin(values, {}, None)
    step = Lived(1, 12, 0, {**values, "output_queue": 10.0, "qos": 0.8}, {"requests": Reading(16.0, "test")})
    assert judge.outcome(step).columns == {
        "qos": 0.8,
        "workers": 12,
        "change": 0,
        "completed": 10.0,
        "on_time": 8.0,
        "final_qos": 0.4,
        "queue": 4.0,
        "unfinished": 10.0,
    }
