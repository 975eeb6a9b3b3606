"""What a training survives, and how it ends where it cannot: processes really killed, environments that really fail."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
import ray
import torch
from ray import cloudpickle

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.errors import EnvironmentFailedError, LearnerLostError, RunError
from scalepilot.learn.algorithms import make_trainer, policy_spec
from scalepilot.learn.loop import TrainingLoop
from scalepilot.learn.preflight import check_environment
from scalepilot.learn.rllib.trainer import RLlibTrainer
from scalepilot.learn.rllib.transitions import NStepBuilder
from scalepilot.learn.task import Task
from scalepilot.learn.trainer import TrainingOutcome
from scalepilot.progress import Progress
from scalepilot.runs.checkpoints import Checkpoints
from scalepilot.runs.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
# The environments below live in workers, which cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
EPISODE_STEPS = 20


class Faulty(gym.Env[np.ndarray, int]):
    """Observes (number of the episode in this process, steps of it); fails as `mode` says.

    Args:
        mode: never, at_7 (the seventh step of the first episode), no_reset (after the first two), or both of sometimes
            (p = 0.01) and hangs (once for good, if `flag` does not exist, which it makes), or one of them.
        flag: a file.
    """

    episodes = 0
    observation_space = gym.spaces.Box(0.0, 1e6, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, mode: str = "never", flag: str = "") -> None:
        self.mode, self.flag, self.steps = mode, flag, 0

    def observation(self) -> np.ndarray:
        return np.array([self.episode, self.steps], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        type(self).episodes += 1
        self.episode, self.steps = type(self).episodes, 0
        if self.mode == "no_reset" and self.episode > 2:
            raise OSError("the simulator's licence has run out")
        return self.observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if "sometimes" in self.mode and self.np_random.random() < 0.01:
            raise ValueError("a negative queue")
        if self.mode == "at_7" and self.episode == 1 and self.steps == 7:
            raise ValueError("a negative queue")
        if "hangs" in self.mode and self.steps == 9 and not Path(self.flag).exists():
            Path(self.flag).touch()
            time.sleep(600)
        return self.observation(), 1.0, self.steps == EPISODE_STEPS, False, {}


@pytest.fixture(autouse=True)
def _registered() -> Any:
    Faulty.episodes = 0
    gym.register("Faulty-v0", entry_point=Faulty)
    yield
    del gym.registry["Faulty-v0"]


def config_of(tmp_path: Path, options: dict[str, Any] | None = None, **changes: Any) -> ExperimentConfig:
    values: dict[str, Any] = {
        "name": "faults",
        "output": str(tmp_path),
        "env": {"id": "Faulty-v0", "options": options or {}},
        "ppo": {
            "total_env_steps": 8 * 32 * 12,
            "num_envs": 8,
            "rollout_steps": 32,
            "minibatch_size": 64,
            "num_epochs": 1,
            "envs_per_input": 1,
            "hidden": [8],
        },
        "evaluation": {"validate_every_share": 1.0, "validation_episodes": 2},
        "checkpoints": {"every_share": 0.25},
    }
    return config_from_mapping({**values, **changes})


def train(config: ExperimentConfig, each_iteration: Callable[[TrainingLoop], None]) -> tuple[RunFolder, TrainingOutcome]:
    """Train to the end as an experiment does, doing something after each iteration."""
    folder, task = RunFolder.create(config), Task(config)
    folder.start_logging()
    trainer = make_trainer(config, task)
    make = partial(make_trainer, config, task)
    loop = TrainingLoop(config, trainer, folder, task, policy_spec(config, folder, task), Progress("test"), make_trainer=make)

    def stop() -> bool:
        each_iteration(loop)
        return False

    try:
        return folder, loop.run(stop)
    finally:
        loop.trainer.close()
        folder.close()


def nothing(loop: TrainingLoop) -> None:
    """No harm done."""


def pids_of_runners(trainer: Any) -> list[int]:
    return trainer.algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)


def total(folder: RunFolder, name: str) -> float:
    return sum(row[name] or 0.0 for row in folder.read_metrics())


def test_a_step_that_raises_is_no_transition_and_what_was_before_stays_right(tmp_path: Path):
    config = config_of(tmp_path, {"mode": "at_7"})
    trainer = RLlibTrainer(config, Task(config))
    try:
        runner = trainer.algorithm.env_runner_group.local_env_runner
        Faulty.episodes = 0
        rollout = runner.sample()
    finally:
        trainer.close()
    # Environment 0 had episode 1; its seventh step, t = 6, raised.
    assert rollout.observation[:7, 0, 1].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert rollout.truncated[5, 0]
    assert not rollout.terminated[5, 0]
    assert rollout.observation[6, 0].tolist() == [1, 6], "the value of the cut step comes from the observation it led to"
    assert not rollout.valid[6, 0]
    assert rollout.observation[7, 0, 1] == 0
    assert rollout.observation[7, 0, 0] == 9, "a new episode, after the first of all eight"
    assert rollout.valid[7:27, 0].all()
    assert rollout.reward[6, 0] == 0
    # The neighbours noticed nothing.
    assert rollout.valid[:EPISODE_STEPS, 1:].all()
    assert rollout.terminated[EPISODE_STEPS - 1, 1:].all()
    assert not rollout.truncated[:, 1:].any()


def test_a_rollout_that_begins_with_a_failure_goes_on_from_nothing_before_it(tmp_path: Path):
    config = config_of(tmp_path, {"mode": "never"})
    trainer = RLlibTrainer(config, Task(config))
    try:
        runner = trainer.algorithm.env_runner_group.local_env_runner
        before = runner.sample()
        whole, healthy_step = before, runner.env.step
        failures = iter([True])

        def step(action: np.ndarray) -> Any:
            if next(failures, False):
                raise RuntimeError("the whole vector")
            return healthy_step(action)

        runner.env.step = step
        after = runner.sample()
        assert not after.valid[0].any()
        assert (after.observation[0, :, 1] == 0).all()
        assert (after.observation[0, :, 0] != whole.observation[-1, :, 0]).all()
        assert after.valid[1:].any()
        builder = NStepBuilder(3, 0.5, 1e9, torch.device("cpu"))
        builder(before)
        transitions = builder(after)
        # No transition leads from one episode into another, nor is there one out of the failed step.
        assert (transitions.observation[:, 0] == transitions.next_observation[:, 0]).all()
        steps = transitions.next_observation[:, 1] - transitions.observation[:, 1]
        assert set(steps.tolist()) <= {1.0, 2.0, 3.0}
    finally:
        trainer.close()


@pytest.mark.parametrize("num_env_runners", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_environment_whose_reset_always_fails_ends_the_run_in_a_line(tmp_path: Path, num_env_runners: int):
    config = config_of(tmp_path, {"mode": "no_reset"}, resources={"num_env_runners": num_env_runners})
    began = time.monotonic()
    with pytest.raises(EnvironmentFailedError, match=r"env Faulty-v0: reset\(\).*OSError: the simulator's licence") as raised:
        train(config, nothing)
    assert len(str(raised.value).splitlines()) == 1
    # RLlib by itself would try a thousand times, a minute apart.
    assert time.monotonic() - began < 120


def test_an_environment_that_hangs_in_the_driver_ends_the_run_and_keeps_a_checkpoint(tmp_path: Path):
    flag = tmp_path / "flag"
    flag.touch()
    config = config_of(tmp_path, {"mode": "hangs", "flag": str(flag)}, resources={"env_timeout_seconds": 1.5})

    def hang_later(loop: TrainingLoop) -> None:
        if loop.iteration == 2:
            flag.unlink(missing_ok=True)

    with pytest.raises(EnvironmentFailedError, match=r"env Faulty-v0: hangs.*resources\.env_timeout_seconds, 1\.5 s"):
        train(config, hang_later)
    checkpoint = Checkpoints(next((tmp_path / "faults").iterdir()) / "checkpoints", num_to_keep=2).newest()
    assert checkpoint is not None
    assert checkpoint.name == "000002"


@pytest.mark.slow
def test_env_runners_that_hang_and_die_are_restarted_steps_that_raise_are_counted_and_the_run_completes(tmp_path: Path):
    check_environment("Faulty-v0", {"mode": "sometimes"})
    options = {"mode": "sometimes hangs", "flag": str(tmp_path / "flag")}
    # On a busy machine a runner that has just started may take some seconds for its first steps: that is no hang.
    config = config_of(tmp_path, options, resources={"num_env_runners": 2, "env_timeout_seconds": 8})
    (tmp_path / "flag").touch()

    def harm(loop: TrainingLoop) -> None:
        if loop.iteration == 2:
            (tmp_path / "flag").unlink(missing_ok=True)
        if loop.iteration == 8:
            wait_until_restored(loop)
            kill_runner(loop)
        if loop.iteration == 11:
            wait_until_restored(loop)

    folder, outcome = train(config, harm)
    assert outcome.finished
    assert [row["iteration"] for row in folder.read_metrics()] == list(range(1, 13))
    assert "Faulty-v0, that hangs" in (folder.path / "logs" / "training.log").read_text()
    # What raises restarts nobody: the one that hung, and the one that was killed.
    assert total(folder, "env_runner_restarts") == 2
    steps = outcome.env_steps
    assert 0.3 * 0.01 * steps < total(folder, "env_failures") < 3 * 0.01 * steps


def kill_runner(loop: TrainingLoop) -> None:
    """In the middle of its rollout."""
    os.kill(pids_of_runners(loop.trainer)[-1], signal.SIGKILL)


def wait_until_restored(loop: TrainingLoop) -> None:
    """Wait for the runner that is being restarted: this training is over in a second."""
    pool = loop.trainer.algorithm._pool
    deadline = time.monotonic() + 60
    while any(state.down for state in pool._runners.values()):
        assert time.monotonic() < deadline
        pool._revive()
        time.sleep(0.1)


@pytest.mark.slow
def test_with_its_only_env_runner_killed_dqn_goes_on_when_another_is_there_and_completes_with_every_step(tmp_path: Path):
    dqn = {"total_env_steps": 8 * 16 * 12, "num_envs": 8, "rollout_steps": 16, "learning_starts": 50, "hidden": [8], "n_step": 3}
    config = config_of(tmp_path, algorithm="dqn", dqn=dqn, resources={"num_env_runners": 1})

    def kill(loop: TrainingLoop) -> None:
        if loop.iteration == 3:
            kill_runner(loop)
        if loop.iteration == 11:
            wait_until_restored(loop)

    folder, outcome = train(config, kill)
    assert outcome.finished
    assert total(folder, "env_runner_restarts") == 1
    assert [row["iteration"] for row in folder.read_metrics()] == list(range(1, 13))


@pytest.mark.slow
def test_lost_rollouts_are_sampled_again_and_closing_after_a_death_leaves_no_process(tmp_path: Path):
    @ray.remote(num_cpus=0, max_retries=0)
    def gone() -> None:
        os._exit(1)

    config = config_of(tmp_path, resources={"num_env_runners": 2})
    trainer = RLlibTrainer(config, Task(config))
    try:
        pool = trainer.algorithm._pool
        sample, asked = pool.sample, []

        def flaky(count: int, **arguments: Any) -> Any:
            asked.append(count)
            # Lost between sampling and learning.
            return [s._replace(pieces=[gone.remote()]) if len(asked) == 1 else s for s in sample(count, **arguments)]

        pool.sample = flaky
        assert trainer.iterate()["lost_rollouts"] == 2
        assert asked == [2, 2]
        assert trainer.iterate()["lost_rollouts"] == 0
        pids = pids_of_runners(trainer)
        os.kill(pids[0], signal.SIGKILL)
        began = time.monotonic()
    finally:
        trainer.close()
    assert time.monotonic() - began < 20
    _, alive = psutil.wait_procs([psutil.Process(pids[1])] if psutil.pid_exists(pids[1]) else [], timeout=20)
    assert not alive


def kill_learner(loop: TrainingLoop) -> None:
    pids = loop.trainer.algorithm.learner_group.foreach_learner(lambda learner: os.getpid())
    os.kill([result.get() for result in pids][-1], signal.SIGKILL)


@pytest.mark.slow
def test_with_one_of_two_learners_killed_both_are_rebuilt_from_the_checkpoint_and_steps_stay_monotonic(tmp_path: Path):
    config = config_of(tmp_path, resources={"num_learners": 2})
    killed: list[int] = []

    def kill_once(loop: TrainingLoop) -> None:
        if loop.iteration == 5 and not killed:
            killed.append(loop.iteration)
            kill_learner(loop)

    folder, outcome = train(config, kill_once)
    assert outcome.finished
    rows = folder.read_metrics()
    # Checkpoints are at 3, 6, 9.
    assert [row["iteration"] for row in rows] == list(range(1, 13))
    assert [row["learner_restarts"] for row in rows] == [0, 0, 0, 1, *[0] * 8]
    assert np.all(np.diff([row["env_steps"] for row in rows]) > 0)
    assert "a learner died" in (folder.path / "logs" / "training.log").read_text()


def test_learners_that_die_again_and_again_end_the_run(tmp_path: Path):
    class Dies:
        """A trainer whose learner dies in its first iteration."""

        made = 0

        def __init__(self) -> None:
            type(self).made += 1

        def iterate(self) -> dict[str, float]:
            raise LearnerLostError("a learner died")

        def close(self) -> None:
            """Nothing to end."""

    config = config_of(tmp_path)
    folder, task = RunFolder.create(config), Task(config)
    loop = TrainingLoop(config, Dies(), folder, task, policy_spec(config, folder, task), Progress("test"), make_trainer=Dies)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="a learner died"):
        loop.run(lambda: False)
    assert Dies.made == 4
