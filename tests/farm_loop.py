"""The workflow with real parts: a real Redis, worker processes, a gateway's stand-in, an episode of the simulator's own tasks.

Longer than a test: `python -m tests.farm_loop [STEPS] [SCALE_DOWNS] [PACE]`. At every step the nine fields are held against what
the workflow system would observe, and no scale-down may lose a task.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tests import openfaas_standin, real_redis, workflow_truth
from tests.openfaas_standin import PASSWORD, Standin

from scalepilot.operate.targets import Target, TargetContext, make_target
from scalepilot.operate.telemetry import Telemetry, TelemetryContext, make_telemetry
from scalepilot.operate.twin import Clock
from scalepilot.operate.workflow.connection import RedisDoor, RedisSettings
from scalepilot.operate.workflow.feed import TaskFeed, episode_tasks
from scalepilot_envs.function_workflow import describe

WINDOW = 8.0
TIMES = ("sojourn_mean_seconds", "sojourn_max_seconds", "qos")


@dataclass
class Workflow:
    """Everything running.

    Attributes:
        settings: of `target` and `telemetry`, as an operate.yaml has them.
    """

    standin: Standin
    settings: dict[str, dict[str, Any]]
    door: RedisDoor
    feed: TaskFeed
    target: Target
    telemetry: Telemetry

    @property
    def clock(self) -> Clock:
        """Of the tasks."""
        return self.standin.clock

    def settled(self, count: int) -> None:
        """Wait until so many workers serve."""
        deadline = time.monotonic() + 60
        while (found := self.target.read(self.clock())).ready != count or found.spec != count:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def scaled(self, count: int) -> None:
        """Ask for so many workers."""
        have = self.target.read(self.clock()).spec
        assert have is not None
        while have != count:
            done = self.target.write(count, have)
            assert done.outcome == "written", done
            have = done.replicas

    def finished(self, count: int) -> int:
        """Tasks that were lost or done twice, when all that can be done is done."""
        deadline = time.monotonic() + 120
        while self.feed.put < count or (self.feed.unfinished() and time.monotonic() < deadline):
            time.sleep(0.05)
        done = [task["task_id"] for task in workflow_truth.counted(self.door)[2]]
        return abs(count - len(set(done))) + len(done) - len(set(done))


@contextlib.contextmanager
def running(folder: Path, port: int, database: int = 0, pace: float = 20.0) -> Iterator[Workflow]:
    """The stand-in, the target and the telemetry on a database of a Redis."""
    password = folder / "gateway-password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    clock = Clock(pace)
    with openfaas_standin.running(Standin(("127.0.0.1", port, database), clock)) as standin:
        url = f"redis://127.0.0.1:{port}/{database}"
        workers = {"kind": "openfaas", "url": standin.url, "password_file": str(password), "image": "worker:1"}
        settings = {
            "target": {"kind": "redis_farm", "url": url, "workers": workers},
            "telemetry": {"kind": "redis", "url": url},
        }
        env = describe()
        target = make_target(settings["target"], TargetContext("loop", False, WINDOW))
        telemetry = make_telemetry(settings["telemetry"], TelemetryContext(env, env.fields))
        door = RedisDoor(RedisSettings(url), "test")
        feed = TaskFeed(door, clock=clock, pace=pace)
        try:
            yield Workflow(standin, settings, door, feed, target, telemetry)
        finally:
            feed.stop()
            telemetry.close()
            target.close()
            door.close()


@dataclass
class Compared:
    """What was found at a moment, and how far it is from the truth.

    Attributes:
        now: the clock's.
        enqueued: tasks put in by then.
        fields: the nine.
        wrong: counts that differ.
        error: the largest relative one of a time or share.
    """

    now: float
    enqueued: int
    fields: list[float | None]
    wrong: int = 0
    error: float = 0.0


def compared(workflow: Workflow, started: float) -> Compared:
    """Telemetry and truth of one moment, in which nothing is put in or taken out."""
    replicas = workflow.target.read(workflow.clock())
    workflow.door.ask(("CLIENT", "PAUSE", 2000, "WRITE"))
    try:
        now = workflow.clock()
        readings = workflow.telemetry.read(now, replicas).readings
        lengths, enqueued, results = workflow_truth.counted(workflow.door)
    finally:
        workflow.door.ask(("CLIENT", "UNPAUSE"))
    found = [readings[field.name].value for field in describe().fields]
    wrong = sum(value != truth for value, truth in zip(found[:5], (*lengths, replicas.spec), strict=True))
    truth = workflow_truth.completed(results, now - started, WINDOW)
    errors = [abs((readings[name].value or 0.0) - true) / max(true, 1e-9) for name, true in zip(TIMES, truth, strict=True)]
    return Compared(now, enqueued, found, wrong, max(errors))


def episode(workflow: Workflow, steps: int, seed: int = 0) -> dict[str, Any]:
    """An episode of the workload's phases, with a rule that adds and removes a worker at a time."""
    rng, tasks = np.random.default_rng(seed), episode_tasks(WINDOW, steps, seed=seed)
    workflow.scaled(12)
    workflow.settled(12)
    begin = workflow.feed.start(tasks)
    seen = [compared(workflow, begin)]
    for step in range(steps):
        have = workflow.target.read(workflow.clock()).spec or 0
        workflow.scaled(int(np.clip(have + rng.choice([-1, 1, 1] if step % 8 < 4 else [-1, -1, 1]), 1, 32)))
        workflow.clock.sleep_until(begin + WINDOW * (step + 1), lambda: False)
        seen.append(compared(workflow, begin))
    rates = [
        (b.fields[7] or 0.0) - (b.enqueued - a.enqueued) / (b.now - a.now)
        for a, b in itertools.pairwise(seen)
        if b.now - a.now < 1.5 * WINDOW and b.now - a.now > 0.5 * WINDOW
    ]
    workflow.scaled(20)
    lost = workflow.finished(len(tasks))
    in_time = sum(task["task_QoS"] for task in workflow_truth.counted(workflow.door)[2])
    return {
        "steps": steps,
        "tasks": len(tasks),
        "lost_or_twice": lost,
        "counts_that_differ": sum(one.wrong for one in seen),
        "largest_error_of_times": round(max(one.error for one in seen), 5),
        "largest_error_of_the_rate": round(float(np.abs(rates).max()), 5),
        "rates_compared": len(rates),
        "longest_step": round(max(b.now - a.now for a, b in itertools.pairwise(seen)), 2),
        "mean_workers": round(float(np.mean([one.fields[4] for one in seen[1:]])), 2),
        "final_qos": round(in_time / len(tasks), 4),
    }


def scale_downs(workflow: Workflow, count: int, seed: int = 0) -> dict[str, Any]:
    """Removes workers that work, again and again, of every size."""
    rng, most = np.random.default_rng(seed), 12
    workflow.feed.reset(5.0)
    tasks = np.column_stack([np.sort(rng.uniform(0, 6.0 * count, 20 * count)), rng.gamma(4.0, 0.375, 20 * count)])
    workflow.scaled(most)
    workflow.settled(most)
    workflow.feed.start(tasks)
    removed = 0
    for _ in range(count):
        left = int(rng.integers(0, most))
        workflow.scaled(left)
        removed += most - left
        time.sleep(float(rng.uniform(0.0, 0.2)))
        workflow.scaled(most)
    lost = workflow.finished(len(tasks))
    workflow.settled(most)
    left = {name for name, function in workflow.standin.functions.items() if function.processes}
    return {"scale_downs": count, "workers_removed": removed, "tasks": len(tasks), "lost_or_twice": lost, "functions": len(left)}


def fifty(workflow: Workflow) -> dict[str, Any]:
    """Fifty workers, all at work, ordered to go at once, but for one."""
    workflow.feed.reset(5.0)
    workflow.scaled(50)
    workflow.settled(50)
    workflow.feed.start(np.column_stack([np.zeros(200), np.random.default_rng(1).gamma(4.0, 1.0, 200)]))
    while workflow.feed.put < 200 or workflow.feed.unfinished() > 180:
        time.sleep(0.01)
    workflow.scaled(1)
    workflow.settled(1)
    while len(workflow.standin.functions) > 1:
        workflow.target.read(workflow.clock())
        time.sleep(0.05)
    unfinished = workflow.feed.unfinished()
    workflow.scaled(20)
    return {"from": 50, "to": 1, "tasks": 200, "left_to_the_last": unfinished, "lost_or_twice": workflow.finished(200)}


def main(steps: int, downs: int, pace: float) -> None:
    """Everything, printed."""
    with tempfile.TemporaryDirectory() as name, real_redis.running(Path(name)) as port:
        for database, part in enumerate((lambda w: episode(w, steps), lambda w: scale_downs(w, downs), fifty)):
            with running(Path(name), port, database, pace) as workflow:
                print(json.dumps(part(workflow)), flush=True)


if __name__ == "__main__":
    given = [float(text) for text in sys.argv[1:]]
    main(*(int(value) for value in (given[:2] + [30, 50][len(given[:2]) :])), pace=given[2] if len(given) > 2 else 20.0)
