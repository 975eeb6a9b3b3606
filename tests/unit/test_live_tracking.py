"""Every decision of a live run reaches TensorBoard, Weights & Biases and MLflow, and none of these can hold it up."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.real_kubernetes import until
from tests.unit.test_live_env import INTERVAL, Deployment, make, system_of

from scalepilot.learn.callbacks import Beside, Callback, LivePlots
from scalepilot.operate.ledger import Entry
from scalepilot.operate.live import LiveScalingEnv, judge_of
from scalepilot.operate.live.env import FOLLOWERS
from scalepilot.operate.numbers import numbers_of
from scalepilot.operate.tracking import OperateTracking, tracked
from scalepilot.report.charts.live_chart import live_chart
from scalepilot_envs.cluster_deployment import describe


def entries(count: int, **changes: Any) -> list[Entry]:
    env = make(Deployment(**changes))
    env.reset()
    for i in range(count):
        env.step(i % 3)
    return list(env.system.controller.entries)


def test_a_decision_in_numbers_leaves_out_what_is_unknown():
    entry = entries(2)[-1]
    numbers = numbers_of(entry)
    assert numbers["metrics/pod_count"] == 5.0
    assert numbers["decision/target"] == 6.0
    assert numbers["metrics/throughput_req_per_sec"] == pytest.approx(1500.0 / INTERVAL)
    assert numbers["metrics/cpu_usage_percent"] == pytest.approx(100 * numbers["field/cpu_share"])
    assert numbers["metrics/latency_ms"] == pytest.approx(1000 * numbers["field/latency_seconds"])
    scored = replace(entry, record=replace(entry.record, scores=(1.0, 3.0, 2.0)))
    assert (numbers_of(scored)["decision/q_value_mean"], numbers_of(scored)["decision/q_value_max"]) == (2.0, 3.0)
    unknown = replace(entry, record=replace(entry.record, snapshot=replace(entry.record.snapshot, readings={}, extra={})))
    assert not [name for name in numbers_of(unknown) if "latency" in name or "field" in name or "throughput" in name]


def test_every_step_is_told_with_its_reward():
    told: list[tuple[Any, Any]] = []
    FOLLOWERS.append(follow := lambda row, seen: told.append((row, seen)))
    try:
        described, deployment = describe(), Deployment()
        system = system_of(deployment, described)
        env = LiveScalingEnv(described, judge_of(described), INTERVAL, lambda user: system, episode_steps=9)
        first, _ = env.reset()
        rewards = [env.step(action)[1] for action in (0, 1)]
    finally:
        FOLLOWERS.remove(follow)
    assert [row["train/reward"] for row, _ in told] == rewards
    assert told[-1][0]["train/episode_reward"] == pytest.approx(sum(rewards))
    assert (told[0][1] == first).all()


def test_tensorboard_gets_the_decisions_of_a_controller_and_plots_are_drawn(tmp_path: Path):
    pytest.importorskip("tensorboard")
    with tracked(OperateTracking(tensorboard=True, plot_decisions=2), "demo@1", {}, tmp_path) as follow:
        for entry in entries(3):
            follow(entry)
    (events,) = tmp_path.glob("tracking/*/tensorboard/*")
    assert events.read_bytes().count(b"metrics/pod_count") == 3
    picture = (tmp_path / "plots/live.svg").read_text()
    assert all(word in picture for word in ("latency, ms", "replicas", "demo@1"))
    assert "Q-values" not in picture


@pytest.mark.slow
def test_weights_and_biases_keeps_them_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("no wandb (pip install wandb)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with tracked(OperateTracking(wandb_project="scaling", plot_decisions=0), "demo@1", {"a": 1}, tmp_path) as follow:
        for entry in entries(3):
            follow(entry)
    assert not caplog.records
    (stored,) = tmp_path.glob("tracking/*/wandb/offline-run-*/run-*.wandb")
    # Its own process writes, and may be a little behind.
    until(lambda: b"metrics/pod_count" in stored.read_bytes())


@pytest.mark.slow
def test_mlflow_keeps_them_in_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("no mlflow (pip install mlflow)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with tracked(OperateTracking(mlflow_experiment="scaling", plot_decisions=0), "demo@1", {"a": 1}, tmp_path) as follow:
        for entry in entries(3):
            follow(entry)
    (stored,) = (tmp_path / "mlruns").glob("*/*/metrics/metrics/pod_count")
    assert [line.split()[1] for line in stored.read_text().splitlines()] == ["5.0", "5.0", "6.0"]


class Stuck(Callback):
    def __init__(self) -> None:
        self.released, self.told = threading.Event(), list[int]()

    def on_decision(self, env_steps: int, row: Any) -> None:
        self.released.wait(60)
        self.told.append(env_steps)


def test_a_service_that_does_not_answer_holds_nothing_up():
    inner, notes = Stuck(), list[str]()
    beside = Beside(inner, notes.append)
    beside.on_begin(0)
    for step in range(1200):
        beside.on_decision(step, {})
    assert notes == ["Stuck is too slow; what it is not told is left out"]
    inner.released.set()
    beside.on_end(True)
    assert inner.told == sorted(inner.told)
    assert len(inner.told) >= 990


def test_plots_are_drawn_every_so_many_decisions_and_in_the_end(tmp_path: Path):
    drawn: list[int] = []
    plots = LivePlots(tmp_path / "plots/live.svg", 3, lambda rows: str(drawn.append(len(rows))))
    for step in range(7):
        plots.on_decision(step, {"train/reward": 1.0})
    plots.on_end(False)
    assert drawn == [3, 6, 7]
    assert "Q-values" in live_chart([{"train/q_value_mean": 1.0, "train/q_value_max": 2.0}, {}], "x")
