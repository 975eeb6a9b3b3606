"""Tabular learning: against the textbook's loop, known Q-values, an analytic value, and itself after a checkpoint."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from scalepilot.config import config_from_mapping
from scalepilot.errors import ConfigError
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.algorithms import make_trainer
from scalepilot.learn.tabular import TabularTrainer
from scalepilot.learn.task import Task
from scalepilot.learn.traces import Traces, apply_errors, step_weights
from scalepilot.policy import TablePolicy, load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.metrics import METRICS

GRID = {"algorithm": "q_learning", "env": {"id": "GridWorld-v0"}}
TEXTBOOK = {"alpha": 0.3, "gamma": 0.99, "epsilon_start": 0.3, "epsilon_end": 0.3, "epsilon_decay": 1.0}
UP, RIGHT, DOWN = 0, 1, 2
KNOWN_Q = {(0, RIGHT): 94.06, (0, DOWN): 94.06, (1, RIGHT): 96.02, (2, DOWN): 98.00, (5, DOWN): 100.0, (0, UP): 83.12}


def trainer_of(algorithm="q_learning", env="GridWorld-v0", seed=0, options=None, **tabular) -> TabularTrainer:
    config = config_from_mapping(
        {"algorithm": algorithm, "seed": seed, "env": {"id": env, "options": options or {}}, "tabular": tabular}
    )
    trainer = make_trainer(config, Task(config))
    assert isinstance(trainer, TabularTrainer)
    return trainer


def test_several_errors_on_an_entry_are_as_many_steps_towards_their_target():
    q, weights = np.array([5.0, 1.0, 2.0]), step_weights(0.3, 16)
    target, k = 11.0, 16
    apply_errors(q, np.array([0] * k + [2]), np.array([target - 5.0] * k + [1.0]), weights)
    one_by_one = 5.0
    for _ in range(k):
        one_by_one += 0.3 * (target - one_by_one)
    np.testing.assert_allclose(q, [one_by_one, 1.0, 2.3], rtol=1e-12)
    # The control: their plain sum would land far beyond the target.
    assert 5.0 + 0.3 * k * (target - 5.0) > target + 20


def test_the_order_of_environments_changes_nothing():
    entries, errors = np.array([1, 0, 1, 1]), np.array([4.0, 1.0, -2.0, 7.0])
    first, second = np.zeros(2), np.zeros(2)
    apply_errors(first, entries, errors, step_weights(0.1, 4))
    apply_errors(second, entries[::-1], errors[::-1], step_weights(0.1, 4))
    np.testing.assert_allclose(first, second, rtol=1e-12)


def test_traces_accumulate_fade_and_are_dropped():
    decay, threshold, rng = 0.8, 1e-3, np.random.default_rng(0)
    traces, dense = Traces(2, decay, threshold), np.zeros((2, 5))
    for step in range(200):
        visited = rng.integers(0, 5, 2)
        traces.visit(visited)
        dense *= decay
        dense[[0, 1], visited] += 1
        if step % 41 == 40:
            traces.reset(np.array([1]))
            dense[1] = 0
        shown = np.zeros((2, 5))
        entries, envs, sizes = traces.active()
        shown[envs, entries] = sizes
        assert len(set(zip(entries.tolist(), envs.tolist(), strict=True))) == len(entries)
        np.testing.assert_allclose(shown, dense, atol=threshold / (1 - decay))
    assert dense.max() > 1.5, "revisits accumulate"
    assert traces.num_steps == 31
    assert decay ** (traces.num_steps - 1) >= threshold > decay**traces.num_steps


@pytest.mark.parametrize(("decay", "threshold", "steps"), [(0.0, 0.1, 1), (0.9, 1.0, 1), (0.5, 0.25, 3), (0.591, 1e-3, 14)])
def test_visits_are_kept_for_as_long_as_they_count(decay, threshold, steps):
    assert Traces(1, decay, threshold).num_steps == steps


class Recorder:
    """An environment that remembers what it was asked and what it answered."""

    def __init__(self, env: Any) -> None:
        self.env, self.steps = env, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, **arguments: Any) -> Any:
        self.first, info = self.env.reset(**arguments)
        return self.first, info

    def step(self, action: np.ndarray) -> Any:
        answer = self.env.step(action)
        self.steps.append((int(action[0]), int(answer[0][0]), *(column[0].item() for column in answer[1:4])))
        return answer


@pytest.mark.parametrize("algorithm", ["q_learning", "sarsa"])
def test_one_environment_learns_exactly_as_the_textbooks_loop(algorithm):
    alpha, gamma, decay = 0.2, 0.95, 0.7
    trainer = trainer_of(
        algorithm, num_envs=1, alpha=alpha, gamma=gamma, trace_decay=decay, trace_threshold=1e-12, epsilon_decay=0.9,
        options={"episode_steps": 7},
    )  # fmt: skip
    trainer.watched.env = Recorder(trainer.env)
    for _ in range(5):
        trainer.iterate()
    q, traces = np.zeros((9, 4)), np.zeros((9, 4))
    state, ended, ends = int(trainer.env.first[0]), False, {"terminated": 0, "truncated": 0}
    steps = trainer.env.steps
    following = [step[0] for step in steps[1:]] + [int(trainer._action[0])]
    for (action, successor, reward, terminated, truncated), next_action in zip(steps, following, strict=True):
        if ended:
            traces[:], ended = 0, False
        else:
            next_value = q[successor].max() if algorithm == "q_learning" else q[successor, next_action]
            error = reward + gamma * next_value * (not terminated) - q[state, action]
            traces *= gamma * decay if algorithm == "sarsa" else 0
            traces[state, action] += 1
            q += alpha * error * traces
            ended = terminated or truncated
            ends["terminated"] += terminated
            ends["truncated"] += truncated
        state = successor
    assert min(ends.values()) > 3, ends
    np.testing.assert_allclose(trainer.q, q, rtol=1e-9, atol=1e-9)
    assert np.abs(q).max() > 1


def test_q_learning_finds_the_known_values_of_the_grid_world():
    trainer = trainer_of(num_envs=16, **TEXTBOOK)
    while trainer.episodes_ended < 10_000:
        trainer.iterate()
    for (cell, action), value in KNOWN_Q.items():
        assert trainer.q[cell, action] == pytest.approx(value, abs=0.05), (cell, action)


def test_sarsa_learns_the_worth_of_the_policy_that_explores_not_of_the_greedy_one():
    trainer = trainer_of("sarsa", num_envs=16, trace_decay=0.6, **{**TEXTBOOK, "alpha": 0.02})
    while trainer.episodes_ended < 4_000:
        trainer.iterate()
    assert trainer.q[5, DOWN] == pytest.approx(100.0, abs=0.5), "the last move is certain"
    assert 84 < trainer.q[0].max() < 93, "three in ten moves are random: less than Q-learning's 94.06"
    state = 0
    for _ in range(4):
        assert state != 8
        action = int(trainer.q[state].argmax())
        state += {RIGHT: 1, DOWN: 3}[action]
    assert state == 8, "the greedy path is a shortest one"


class Endless(gym.Env[Any, Any]):
    """Pays 1 a step for ever; the time limit, or as a control a terminal state, ends it every 5 steps."""

    observation_space, action_space = gym.spaces.Discrete(1), gym.spaces.Discrete(2)

    def __init__(self, terminates: bool = False) -> None:
        self.terminates, self.steps = terminates, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action: int) -> Any:
        self.steps += 1
        ended = self.steps >= 5
        return 0, 1.0, ended and self.terminates, ended and not self.terminates, {}


@pytest.fixture
def endless():
    gym.register("TestEndless-v0", entry_point=Endless)
    yield "TestEndless-v0"
    del gym.registry["TestEndless-v0"]


@pytest.mark.parametrize("algorithm", ["q_learning", "sarsa"])
def test_truncation_bootstraps_to_the_analytic_value_and_termination_does_not(endless, algorithm):
    worth = {}
    for terminates in (False, True):
        trainer = trainer_of(algorithm, endless, num_envs=4, options={"terminates": terminates}, alpha=0.1, gamma=0.9)
        for _ in range(6):
            trainer.iterate()
        worth[terminates] = trainer.q.mean()
    assert worth[False] == pytest.approx(1 / (1 - 0.9), rel=0.01)
    assert worth[True] < 0.6 / (1 - 0.9), "the control: episodes of five steps are not worth that much"


def test_episodes_are_numbered_over_all_environments_and_explore_by_their_number():
    trainer = trainer_of(num_envs=4, epsilon_start=0.8, epsilon_end=0.1, epsilon_decay=0.9)
    trainer._start()
    np.testing.assert_allclose(trainer._epsilon, 0.8 * 0.9 ** np.arange(4))
    trainer._begin_episodes(np.array([2]))
    assert trainer._epsilon[2] == pytest.approx(0.8 * 0.9**4)
    for _ in range(10):
        trainer.iterate()
    np.testing.assert_array_equal(trainer._epsilon, 0.1)


def test_metrics_have_documented_names_and_diagnose_the_traces():
    metrics = trainer_of("sarsa", num_envs=8, trace_decay=0.6, trace_threshold=1e-3, gamma=0.985).iterate()
    assert set(metrics) <= set(METRICS)
    assert 1 < metrics["active_traces"] <= 14
    assert 1 < metrics["largest_trace"] < 1 / (1 - 0.591)
    assert metrics["q_loss"] > 0
    assert "active_traces" not in trainer_of(num_envs=8).iterate()


@pytest.mark.parametrize("algorithm", ["q_learning", "sarsa"])
def test_the_same_seed_gives_the_same_table_and_another_seed_another(algorithm):
    tables = []
    for seed in (0, 0, 1):
        trainer = trainer_of(algorithm, "FunctionWorkflow-v0", seed, num_envs=4, bins={"workers": 8}, edges={"qos": (0.95,)})
        trainer.iterate()
        tables.append(trainer.q)
    np.testing.assert_array_equal(tables[0], tables[1])
    assert (tables[0] != tables[2]).any()


@pytest.mark.parametrize("algorithm", ["q_learning", "sarsa"])
def test_a_checkpoint_restores_table_stream_and_count_and_goes_on_the_same_each_time(tmp_path, algorithm):
    trainer = trainer_of(algorithm, num_envs=4)
    for _ in range(3):
        trainer.iterate()
    trainer.save(tmp_path / "c")
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".npz", ".json"}
    restored = [trainer_of(algorithm, num_envs=4) for _ in range(2)]
    for other in restored:
        other.restore(tmp_path / "c")
        np.testing.assert_array_equal(other.q, trainer.q)
        assert (other.iterations, other.episodes_ended) == (trainer.iterations, trainer.episodes_ended)
        assert other._rng.bit_generator.state == trainer._rng.bit_generator.state
        other.iterate()
    np.testing.assert_array_equal(restored[0].q, restored[1].q)
    with pytest.raises(ValueError, match="its table is"):
        trainer_of(env="QueueScaling-v0", num_envs=4, bins={"load_share": 3}).restore(tmp_path / "c")


def test_a_snapshot_is_a_copy_and_its_arrays_load_back():
    trainer = trainer_of(num_envs=4)
    trainer.iterate()
    snapshot = trainer.snapshot()
    kept = snapshot.arrays()["q"].copy()
    trainer.iterate()
    np.testing.assert_array_equal(snapshot.arrays()["q"], kept)
    assert (trainer.q != kept).any()
    other = trainer.snapshot()
    other.load({"q": kept})
    np.testing.assert_array_equal(other.q, kept)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"env": "QueueScaling-v0", "bins": {"loadshare": 3}}, "tabular.bins.loadshare: unknown field"),
        ({"env": "QueueScaling-v0"}, "tabular.bins: is empty"),
        ({"env": "CartPole-v1", "bins": {"observation_1": 10}}, "tabular.bins.observation_1: its bounds"),
        ({"env": "QueueScaling-v0", "bins": dict.fromkeys(("load_share", "influx_requests", "queue_requests"), 1000)}, "entries"),
        ({"algorithm": "sarsa", "trace_threshold": 0.0}, "tabular.trace_threshold: 0 keeps traces for inf steps"),
        ({"algorithm": "sarsa", "gamma": 1.0, "trace_decay": 1.0}, "tabular.trace_threshold"),
    ],
)
def test_settings_that_do_not_fit_the_environment_are_refused_in_one_line(changes, expected):
    with pytest.raises(ConfigError) as caught:
        trainer_of(**changes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_leaves_a_table_a_picture_and_a_verdict_without_ray(tmp_path):
    config = config_from_mapping(
        {
            **GRID,
            "name": "grid",
            "output": str(tmp_path),
            "tabular": {"total_env_steps": 8 * 100 * 8, "num_envs": 8, **TEXTBOOK},
            "evaluation": {"validate_every_share": 0.5, "validation_episodes": 2, "test_episodes": 4, "bootstrap_samples": 20},
        }
    )
    result = run_experiment(config, RunFolder.create(config))
    assert result.finished
    policy = load_policy(result.folder.path)
    assert isinstance(policy, TablePolicy)
    assert policy.spec.decision_rule == "argmax_q"
    assert policy.spec.provenance["algorithm"] == "q_learning"
    summary = json.loads((result.folder.evaluation / "summary.json").read_text())
    assert summary["policies"]["grid-q_learning"]["return"]["mean"] == 97.0
    picture = (result.folder.path / "plots" / "q_table.svg").read_text()
    assert picture.startswith("<svg")
    assert [row["iteration"] for row in result.folder.read_metrics()] == list(range(1, 9))
    again = run_experiment(config, result.folder, resume=True)
    assert again.finished
