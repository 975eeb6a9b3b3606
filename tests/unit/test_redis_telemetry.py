"""Telemetry of kind redis: the nine fields of FunctionWorkflow-v0 from a real Redis."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import real_redis, workflow_truth

from scalepilot.cli import main
from scalepilot.errors import ConfigError, RunError
from scalepilot.operate.config import load_operate_config, load_service
from scalepilot.operate.snapshot import PENDING, Reading, Replicas
from scalepilot.operate.telemetry import Telemetry, TelemetryContext, make_telemetry
from scalepilot.operate.workflow.connection import RedisDoor, RedisError, RedisSettings
from scalepilot.operate.workflow.feed import TaskFeed, episode_tasks, task_message
from scalepilot.operate.workflow.queues import STARTED_KEY, started_of
from scalepilot.policy import Discretiser, PolicySpec, TablePolicy, env_actions, env_fields, save_policy
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.function_workflow import FunctionWorkflowBatch, describe

ENV = describe()
DATABASES = itertools.count()
WINDOW = 8.0
START = 1_000_000.0
ENQUEUED = "worker_queue:enqueued_total"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with real_redis.running(tmp_path_factory.mktemp("redis"), "--databases", "200") as port:
        yield port


class Workflow:
    """A database, filled by hand."""

    def __init__(self, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}/{next(DATABASES)}"
        self.door = RedisDoor(RedisSettings(self.url), "test")
        self.made: list[Telemetry] = []

    def telemetry(self, *, started: bool = True, **settings: Any) -> Telemetry:
        if started:
            self.door.ask(("SET", STARTED_KEY, str(START)))
        self.made.append(
            found := make_telemetry({"kind": "redis", "url": self.url, **settings}, TelemetryContext(ENV, ENV.fields))
        )
        return found

    def put(self, count: int) -> None:
        tasks = [task_message(str(i), 0.0, 1.0, 0.0) for i in range(count)]
        self.door.ask(("LPUSH", "worker_queue", *tasks), ("INCRBY", ENQUEUED, count))

    def collect(self, at: float, sojourn: float, in_time: bool = True) -> None:
        body = {"task_id": "x", "task_collect_timestamp": at, "task_completion_time": sojourn, "task_QoS": in_time}
        self.door.ask(("LPUSH", "output_queue", json.dumps(body)))

    def close(self) -> None:
        for telemetry in self.made:
            telemetry.close()
        self.door.close()


@pytest.fixture
def workflow(redis: int) -> Iterator[Workflow]:
    found = Workflow(redis)
    yield found
    found.close()


def read(telemetry: Telemetry, at: float, workers: int | None = 12) -> dict[str, Reading]:
    """At a moment of the program's clock."""
    return dict(telemetry.read(START + at, Replicas(workers, workers, problem="" if workers else "silent")).readings)


def values(readings: dict[str, Reading]) -> list[float | None]:
    return [readings[f.name].value for f in ENV.fields]


def test_the_nine_fields(workflow: Workflow) -> None:
    telemetry = workflow.telemetry()
    workflow.put(3)
    read(telemetry, 10.0)
    workflow.put(16)
    workflow.door.ask(("LPUSH", "input_queue", "phase"), ("LPUSH", "result_queue", "a", "b"))
    for at, sojourn, in_time in [(9.9, 50.0, False), (10.1, 2.0, True), (14.0, 4.0, True), (17.9, 9.0, False)]:
        workflow.collect(at, sojourn, in_time)
    found = read(telemetry, 18.0)
    assert values(found) == pytest.approx([1.0, 19.0, 2.0, 4.0, 12.0, 5.0, 9.0, 2.0, 2 / 3])
    assert all(reading.problem == "" and not reading.assumed for reading in found.values())
    snapshot = telemetry.read(START + 18.0, Replicas(12))
    assert (snapshot.extra["requests"].value, snapshot.extra["late_requests"].value) == (16.0, 1.0)


def test_they_are_what_the_workflow_system_would_observe(workflow: Workflow) -> None:
    telemetry, rng, collected, enqueued = workflow.telemetry(), np.random.default_rng(3), 0.0, 0
    for step in range(40):
        now = WINDOW * (step + 1)
        for gap in rng.exponential(rng.choice([0.2, 1.0, 12.0]), 25):
            if collected + gap > now:
                break
            collected += gap
            workflow.collect(collected, float(rng.gamma(2.0, 3.0)), bool(rng.random() < 0.7))
        collected = max(collected, now - rng.random())
        workflow.put(arrived := int(rng.integers(1, 60)))
        lengths, total, results = workflow_truth.counted(workflow.door)
        found = read(telemetry, now)
        assert values(found)[:4] == lengths
        truth = workflow_truth.completed(results, now, WINDOW)
        assert [found[name].value for name in ("sojourn_mean_seconds", "sojourn_max_seconds", "qos")] == pytest.approx(truth)
        if step:
            assert found["arrival_rate_per_second"].value == pytest.approx(arrived / WINDOW)
        enqueued += arrived
        assert total == enqueued


def test_no_recent_task_is_known_and_no_redis_is_not(workflow: Workflow) -> None:
    telemetry = workflow.telemetry()
    read(telemetry, 10.0)
    found = read(telemetry, 18.0)
    assert values(found) == [0.0, 0.0, 0.0, 0.0, 12.0, 1.5, 1.5, 0.0, 1.0]
    assert found["qos"].source == "redis output_queue: none in the last 8 s"
    assert found["qos"].problem == ""
    nowhere = workflow.telemetry(started=False, url="redis://127.0.0.1:1")
    lost = read(nowhere, 18.0)
    assert values(lost) == [None, None, None, None, 12.0, None, None, None, None]
    assert "redis redis://127.0.0.1:1: " in lost["qos"].problem
    assert read(telemetry, 26.0, workers=None)["workers"].problem == "silent"


def test_only_new_results_are_read_and_nothing_is_taken_out(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = workflow.telemetry()
    for at in range(500):
        workflow.collect(at / 100, 1.0)
    read(telemetry, 5.0)
    asked: list[tuple[Any, ...]] = []
    ask = RedisDoor.ask

    def noted(door: RedisDoor, *commands: Any) -> list[Any]:
        asked.extend(commands)
        return ask(door, *commands)

    monkeypatch.setattr(RedisDoor, "ask", noted)
    for at in (6.0, 6.5, 7.0):
        workflow.collect(at, 2.0)
    asked.clear()
    found = read(telemetry, 13.0)
    assert [command for command in asked if command[0] == "LRANGE"] == [("LRANGE", "output_queue", -503, -500)]
    assert {command[0] for command in asked} == {"LLEN", "GET", "LRANGE"}
    assert found["sojourn_mean_seconds"].value == 2.0
    asked.clear()
    read(telemetry, 14.0)
    assert [command for command in asked if command[0] == "LRANGE"] == [("LRANGE", "output_queue", -503, -503)]
    assert workflow.door.ask(("LLEN", "output_queue")) == [503]


def test_without_a_start_of_the_program_results_count_when_they_are_seen(workflow: Workflow) -> None:
    workflow.collect(3.0, 30.0, False)
    telemetry = workflow.telemetry(started=False)
    first = read(telemetry, 10.0)
    # When it was collected, nobody knows.
    assert (first["qos"].value, first["qos"].problem, first["output_queue"].value) == (None, PENDING, 1.0)
    workflow.collect(5.0, 2.0)
    # A little early, and a little late.
    second = read(telemetry, 17.7)
    assert (second["sojourn_mean_seconds"].value, second["qos"].value) == (2.0, 1.0)
    workflow.collect(6.0, 4.0)
    assert read(telemetry, 26.2)["sojourn_mean_seconds"].value == 4.0
    assert read(telemetry, 34.0)["sojourn_mean_seconds"].value == 1.5


@pytest.mark.parametrize("skew", [-60.0, -3.0, 3.0, 3600.0])
def test_results_of_a_clock_that_differs_count_when_they_are_seen(workflow: Workflow, skew: float) -> None:
    telemetry = workflow.telemetry()
    workflow.collect(50.0, 9.0)
    read(telemetry, 100.0)
    for at in (100.5, 107.5):
        workflow.collect(at + skew, 2.0)
    found = read(telemetry, 108.0)["sojourn_mean_seconds"]
    assert (found.value, found.assumed) == (2.0, True)
    assert "clock, which differs: they count when they are seen" in found.problem
    assert read(telemetry, 116.0)["sojourn_mean_seconds"].value == 1.5


@pytest.mark.parametrize("started", [True, False])
def test_results_that_others_take_out(workflow: Workflow, started: bool) -> None:
    telemetry = workflow.telemetry(started=started)
    for at in range(10):
        workflow.collect(10.0 + at / 10, 1.0)
    read(telemetry, 11.0)
    # As many come as are taken out: the length is the same.
    workflow.door.ask(*[("RPOP", "output_queue")] * 5)
    for at in range(5):
        workflow.collect(18.0 + at / 10, 3.0)
    found = read(telemetry, 19.0)
    # Of those that were there 8 s ago nothing is left but the last one at 11.0 and later.
    if started:
        truth = workflow_truth.completed(workflow_truth.counted(workflow.door)[2], 19.0, WINDOW)
        assert found["sojourn_mean_seconds"].value == pytest.approx(truth[0])
    else:
        assert found["sojourn_mean_seconds"].problem == "results were taken out: they are counted from now on"
    workflow.door.ask(("DEL", "output_queue"))
    read(telemetry, 27.0)
    workflow.collect(30.0, 7.0)
    assert read(telemetry, 35.0)["sojourn_mean_seconds"].value == 7.0


def test_a_counter_that_begins_anew_is_counted_from_there(workflow: Workflow) -> None:
    telemetry = workflow.telemetry()
    workflow.put(100)
    read(telemetry, 8.0)
    workflow.door.ask(("SET", ENQUEUED, 3))
    assert read(telemetry, 16.0)["arrival_rate_per_second"].problem == PENDING
    workflow.put(4)
    assert read(telemetry, 24.0)["arrival_rate_per_second"].value == 0.5


@pytest.mark.parametrize("text", ["1790000000000", "nan", "1e400", "-5", "yesterday", "0001-01-01T00:00:00+00:00"])
def test_a_start_of_the_program_that_is_no_time_is_told(workflow: Workflow, text: str) -> None:
    assert started_of(text) is None
    workflow.door.ask(("SET", STARTED_KEY, text))
    (line,) = [line for line in workflow.telemetry(started=False).check(START) if line.startswith(STARTED_KEY)]
    assert "or is no time: results count when they are seen; set it to the Unix seconds" in line


@pytest.mark.parametrize("started", [True, False])
def test_a_clock_that_is_set_back_makes_nothing_wrong(workflow: Workflow, started: bool) -> None:
    telemetry = workflow.telemetry(started=started)
    for step in range(1, 6):
        workflow.put(16)
        workflow.collect(8.0 * step - 1.0, 20.0, False)
        read(telemetry, 8.0 * step)
    workflow.put(16)
    found = read(telemetry, 16.0)
    assert found["arrival_rate_per_second"].problem == PENDING
    assert found["qos"].problem == "the clock was set back: results are counted from now on"
    workflow.put(8)
    workflow.collect(20.0, 3.0)
    found = read(telemetry, 24.0)
    assert (found["arrival_rate_per_second"].value, found["sojourn_max_seconds"].value, found["qos"].value) == (1.0, 3.0, 1.0)


def test_a_moment_that_was_missed_makes_no_rate_wrong(workflow: Workflow) -> None:
    telemetry = workflow.telemetry()
    for now in (8.0, 16.0, 32.0, 33.0, 40.0):
        workflow.door.ask(("SET", ENQUEUED, int(2 * now)))
        rate = read(telemetry, now)["arrival_rate_per_second"]
        assert rate.value == (None if now == 8.0 else pytest.approx(2.0))
        # Over more than an interval, it is not that of the last one.
        assert rate.assumed == (now in (32.0, 33.0))


def test_tasks_that_nobody_counts_are_unknown(workflow: Workflow) -> None:
    telemetry = workflow.telemetry()
    workflow.door.ask(("LPUSH", "worker_queue", "a task"))
    found = read(telemetry, 8.0)
    assert (found["worker_queue"].value, found["arrival_rate_per_second"].value) == (1.0, None)
    assert "put tasks in with LPUSH and INCR" in found["arrival_rate_per_second"].problem
    workflow.door.ask(("SET", ENQUEUED, "many"))
    assert read(telemetry, 16.0)["arrival_rate_per_second"].value is None
    assert any("arrival_rate_per_second is unknown" in line for line in telemetry.check(START + 20.0))


@pytest.mark.parametrize(
    "raw",
    [
        "no JSON",
        "[]",
        json.dumps({"task_completion_time": "soon", "task_QoS": True}),
        json.dumps({"task_completion_time": -1, "task_QoS": True}),
        json.dumps({"task_completion_time": 1.0}),
        json.dumps({"task_completion_time": 1.0, "task_QoS": 0.5}),
        '{"task_completion_time": NaN, "task_QoS": true}',
        "[" * 5000,
    ],
)
def test_a_result_that_cannot_be_read_makes_the_interval_unknown(workflow: Workflow, raw: str) -> None:
    telemetry = workflow.telemetry()
    read(telemetry, 8.0)
    workflow.collect(9.0, 2.0)
    workflow.door.ask(("LPUSH", "output_queue", raw))
    found = read(telemetry, 16.0)
    assert (found["output_queue"].value, found["qos"].value) == (2.0, None)
    assert found["qos"].problem == "1 of 2 new results cannot be read"
    workflow.collect(17.0, 3.0)
    assert read(telemetry, 24.0)["sojourn_mean_seconds"].value == 3.0


def test_more_results_than_are_read_at_a_time(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalepilot.operate.telemetry.redis._MOST_RESULTS", 50)
    telemetry = workflow.telemetry()
    read(telemetry, 0.5)
    for at in range(120):
        workflow.collect(1.0 + at / 20, float(at))
    found = read(telemetry, 8.0)
    assert (found["sojourn_mean_seconds"].value, found["sojourn_mean_seconds"].assumed) == (pytest.approx(94.5), True)
    assert found["output_queue"].value == 120.0
    workflow.collect(9.5, 1.0)
    assert read(telemetry, 17.0)["sojourn_mean_seconds"].value == 1.0


def test_a_list_that_is_none_is_told(workflow: Workflow) -> None:
    telemetry = workflow.telemetry()
    workflow.door.ask(("SET", "worker_queue", "text"))
    found = read(telemetry, 8.0)
    assert found["worker_queue"].value is None
    assert "WRONGTYPE" in found["worker_queue"].problem


@pytest.mark.slow
def test_a_redis_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    with real_redis.running(tmp_path) as port:
        url = f"redis://127.0.0.1:{port}"
        telemetry = make_telemetry({"kind": "redis", "url": url}, TelemetryContext(ENV, ENV.fields))
        read(telemetry, 8.0)
        process = int(RedisDoor(RedisSettings(url), "test").ask(("INFO", "server"))[0]["process_id"])
        os.kill(process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert read(telemetry, 16.0)["qos"].value is None
            assert time.monotonic() - began < 2.2
        finally:
            os.kill(process, signal.SIGCONT)
        assert read(telemetry, 24.0)["qos"].value == 1.0
        telemetry.close()


def test_a_name_that_resolves_late_sends_nothing_of_long_ago(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalepilot.operate.workflow.connection._ANSWER_SECONDS", 0.2)
    resolve, resolved = socket.getaddrinfo, threading.Event()

    def slowly(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.5)
        resolved.set()
        return resolve(*arguments, **named)

    door = RedisDoor(RedisSettings(workflow.url.replace("127.0.0.1", "localhost")), "test")
    with monkeypatch.context() as slow:
        slow.setattr(socket, "getaddrinfo", slowly)
        with pytest.raises(RedisError, match=r"no answer within 0\.2 s"):
            door.ask(("SET", "late", "yes"))
        assert resolved.wait(5)
    time.sleep(0.2)
    assert workflow.door.ask(("GET", "late")) == [None]
    assert door.ask(("GET", "late")) == [None]
    door.close()


def test_other_names_of_the_lists(workflow: Workflow) -> None:
    telemetry = workflow.telemetry(queues={"worker": "todo"})
    workflow.door.ask(("LPUSH", "todo", "a"), ("SET", "todo:enqueued_total", 1))
    assert read(telemetry, 8.0)["worker_queue"].value == 1.0


def test_a_policy_for_another_environment_is_refused(workflow: Workflow) -> None:
    env = describe_autoscale()
    with pytest.raises(ConfigError, match=r"redis has no fields of scalepilot/Autoscale-v0"):
        make_telemetry({"kind": "redis", "url": workflow.url}, TelemetryContext(env, env.fields))
    with pytest.raises(ConfigError, match="requests"):
        workflow.telemetry(requests={"counter": "x"})


# The emitter.


def test_the_feed_draws_the_simulators_own_tasks() -> None:
    batch = FunctionWorkflowBatch(1)
    batch.seed_streams([7])
    batch.reset_batch()
    drawn = episode_tasks(8.0, 30, seed=7)
    assert len(drawn) == batch.tasks.count[0]
    assert np.array_equal(drawn[:, 0], batch.tasks.arrival_seconds[0, : len(drawn)])
    assert np.array_equal(drawn[:, 1], batch.tasks.service_seconds[0, : len(drawn)])


def test_tasks_come_at_their_moments_and_count(workflow: Workflow) -> None:
    feed = TaskFeed(workflow.door)
    began = time.time()
    feed.start(np.array([[0.0, 1.0], [0.1, 2.0], [0.3, 20.0], [60.0, 1.0]]))
    while feed.put < 3:
        assert time.time() < began + 5
        time.sleep(0.01)
    assert time.time() - began >= 0.3
    feed.stop()
    enqueued, raw = workflow.door.ask(("GET", ENQUEUED), ("LRANGE", "worker_queue", 0, -1))
    assert (int(enqueued), feed.unfinished()) == (3, 3)
    tasks = [json.loads(one) for one in reversed(raw)]
    assert [task["task_gen_timestamp"] for task in tasks] == [0.0, 0.1, 0.3]
    assert [task["task_deadline"] for task in tasks] == [2.0, 4.0, 30.0]
    assert all(task["task_emit_timestamp"] >= task["task_gen_timestamp"] for task in tasks)
    # Whoever was to do the three has never been there.
    assert feed.reset(0.1) == 0
    assert workflow.door.ask(("LLEN", "worker_queue"), ("GET", ENQUEUED)) == [0, None]


def test_a_reset_waits_for_what_workers_have(workflow: Workflow) -> None:
    feed = TaskFeed(workflow.door)
    feed.start(np.full((5, 2), 0.001))
    while feed.put < 5:
        time.sleep(0.01)
    workflow.door.ask(("RPOP", "worker_queue"), ("RPOP", "worker_queue"))
    workflow.collect(1.0, 1.0)
    # One of two taken tasks never comes back.
    assert feed.reset(0.2) == 1


def test_episodes_have_one_clock(workflow: Workflow) -> None:
    feed = TaskFeed(workflow.door)
    first = feed.start(np.zeros((0, 2)))
    assert feed.start(np.zeros((1, 2)) + 1.0, at=first + 100.0) == first + 100.0
    assert float(workflow.door.ask(("GET", STARTED_KEY))[0]) == first
    # Of a program whose clock was ahead of ours, nothing can be counted.
    workflow.door.ask(("SET", STARTED_KEY, str(first + 1e6)))
    feed.start(np.zeros((0, 2)), at=first)
    assert float(workflow.door.ask(("GET", STARTED_KEY))[0]) == first
    feed.stop()


def test_a_feed_that_redis_refuses_says_so(workflow: Workflow) -> None:
    workflow.door.ask(("SET", "worker_queue", "text"))
    feed = TaskFeed(workflow.door)
    feed.start(np.zeros((1, 2)))
    assert feed._thread is not None
    feed._thread.join(5)
    with pytest.raises(RunError, match=r"tasks 0 to 0 may not be in the queue: .*WRONGTYPE"):
        feed.put  # noqa: B018
    with pytest.raises(RedisError):
        workflow.door.ask(("LLEN", "worker_queue"))


# `scalepilot operate` with it.


@pytest.fixture
def operated(workflow: Workflow, tmp_path: Path) -> Path:
    """An operate.yaml of a table that adds a worker whatever it sees, steps of 0.2 s, and 12 workers in a file."""
    env = describe({"step_seconds": 0.2})
    grid = Discretiser(env_fields(env), {"qos": [0.5]})
    spec = PolicySpec(
        name="more",
        version="1",
        kind="table",
        env_id=env.env_id,
        env_params=asdict(env.params),
        observation_fields=env_fields(env),
        actions=env_actions(env),
        decision_rule="argmax_q",
    )
    save_policy(TablePolicy(spec, np.tile([0.0, 0.0, 1.0], (grid.num_states, 1)), grid), tmp_path / "policy")
    (tmp_path / "workers.txt").write_text("12\n")
    workflow.put(3)
    config = {
        "policy": "policy",
        "telemetry": {"kind": "redis", "url": workflow.url},
        "target": {"kind": "file", "path": "workers.txt"},
    }
    (tmp_path / "operate.yaml").write_text(json.dumps(config))
    return tmp_path / "operate.yaml"


def test_a_check_waits_for_what_takes_two_moments(operated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operate", "--config", str(operated), "--check", "--json"]) == 0
    out, err = capsys.readouterr()
    rows = {row["field"]: row for row in json.loads(out)["fields"]}
    assert (rows["worker_queue"]["value"], rows["arrival_rate_per_second"]["value"]) == (3.0, 0.0)
    assert err.startswith("scalepilot operate: counting for 0.2 s: arrival_rate_per_second")


def test_one_decision_by_the_nine_fields(operated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operate", "--config", str(operated), "--once"]) == 0
    assert "12 → 13: +1; 0 tasks/s, 3 tasks wait, 100 % in time" in capsys.readouterr().out
    assert operated.with_name("workers.txt").read_text() == "13\n"


def test_fallbacks_that_nobody_chose_are_left_out_where_they_do_not_fit(operated: Path) -> None:
    config = load_operate_config(operated)
    assert load_service(config).deciders.fallbacks == []
    with pytest.raises(ConfigError, match=r"fallback: .*hpa reads ready_replicas"):
        load_service(replace(config, fallback=("hpa",)))
