"""GridWorld-v0: its table of moves, the known answer of Q-learning on it, and what surrounds its transition."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from scalepilot_envs.grid_world import GridWorldBatch, GridWorldParams, describe, make_env, make_vector_env, transitions
from scalepilot_envs.testing import check_scaling_env

UP, RIGHT, DOWN, LEFT = range(4)
GAMMA, ALPHA, EPSILON, EPISODES = 0.99, 0.3, 0.3, 10_000
# (cell, action) → Q, as the specification publishes them.
KNOWN = {(0, RIGHT): 94.06, (0, DOWN): 94.06, (1, RIGHT): 96.02, (2, DOWN): 98.00, (5, DOWN): 100.0, (0, UP): 83.12}


def walk(actions, **arguments):
    env = make_env(**arguments)
    env.reset(seed=0)
    return [env.step(action)[:4] for action in actions]


@pytest.mark.parametrize("path", [(RIGHT, RIGHT, DOWN, DOWN), (DOWN, DOWN, RIGHT, RIGHT)])
def test_both_shortest_paths_reach_the_goal_in_four_moves(path):
    steps = walk(path)
    assert [s[0] for s in steps][-1] == 8
    assert [s[1] for s in steps] == [-1, -1, -1, 100]
    assert [s[2] for s in steps] == [False, False, False, True]
    assert not any(s[3] for s in steps)


@pytest.mark.parametrize(
    ("way", "blocked"),
    [((), UP), ((), LEFT), ((RIGHT,), DOWN), ((DOWN,), RIGHT), ((RIGHT, RIGHT), RIGHT), ((RIGHT, RIGHT, DOWN), LEFT)],
    ids=[
        "edge above",
        "edge to the left",
        "obstacle below",
        "obstacle to the right",
        "edge to the right",
        "obstacle to the left",
    ],
)
def test_the_edge_and_the_obstacle_stop_a_move_and_cost_ten(way, blocked):
    before = walk(way)[-1][0] if way else 0
    assert walk((*way, blocked))[-1] == (before, -10.0, False, False)


def test_an_episode_is_cut_after_its_steps():
    steps = walk([UP] * 100)
    assert [s[3] for s in steps] == [False] * 99 + [True]
    assert not any(s[2] for s in steps)
    assert [s[3] for s in walk([UP] * 3, episode_steps=3)] == [False, False, True]


def test_a_batch_moves_every_walker_for_itself():
    envs = make_vector_env(4)
    assert envs.reset(seed=0)[0].tolist() == [0, 0, 0, 0]
    assert envs.step(np.array([UP, RIGHT, DOWN, LEFT]))[0].tolist() == [0, 1, 3, 0]
    assert envs.step(np.array([DOWN, RIGHT, DOWN, UP]))[0].tolist() == [3, 2, 6, 0]


def optimal_values():
    """(9, 4) Q by value iteration."""
    next_cell, reward = transitions(GridWorldParams())
    q = np.zeros((9, 4))
    for _ in range(200):
        value = q.max(axis=1)
        value[8] = 0.0
        q = reward + GAMMA * value[next_cell]
    return q


def test_value_iteration_gives_the_published_values():
    q = optimal_values()
    for (cell, action), known in KNOWN.items():
        assert q[cell, action] == pytest.approx(known, abs=0.005)


def q_learning(gamma):
    """(9, 4) Q after tabular Q-learning; 50 walkers share one table, which each updates in turn."""
    rng = np.random.default_rng(0)
    walkers = 50
    envs = make_vector_env(walkers, "SameStep")
    q, episodes = np.zeros((9, 4)), 0
    cells, _ = envs.reset(seed=0)
    while episodes < EPISODES:
        greedy = q[cells].argmax(axis=1)
        actions = np.where(rng.random(walkers) < EPSILON, rng.integers(0, 4, walkers), greedy)
        after, reward, terminated, truncated, info = envs.step(actions)
        ended = terminated | truncated
        seen = np.where(ended, info.get("final_obs", after), after)
        for cell, action, r, then, end in zip(cells, actions, reward, seen, terminated, strict=True):
            target = r + (0.0 if end else gamma * q[then].max())
            q[cell, action] += ALPHA * (target - q[cell, action])
        episodes += int(ended.sum())
        cells = after
    return q


def test_q_learning_converges_to_the_published_values_and_follows_a_shortest_path():
    q = q_learning(GAMMA)
    for (cell, action), known in KNOWN.items():
        assert q[cell, action] == pytest.approx(known, abs=0.05)
    cell, path = 0, []
    while cell != 8:
        path.append(int(q[cell].argmax()))
        cell = int(transitions(GridWorldParams())[0][cell, path[-1]])
    assert len(path) == 4


def test_q_learning_with_another_discount_misses_the_published_values():
    q = q_learning(0.95)
    assert abs(q[0, RIGHT] - KNOWN[0, RIGHT]) > 5


def test_results_of_a_step_are_not_changed_by_later_steps_and_resets():
    batch = GridWorldBatch(3)
    first = batch.reset_batch()
    step = batch.step_batch(np.array([RIGHT, DOWN, UP]))
    batch.reset_batch(np.array([True, False, True]))
    batch.step_batch(np.array([DOWN, DOWN, DOWN]))
    assert first.tolist() == [0, 0, 0]
    assert step.observation.tolist() == [1, 3, 0]
    assert step.reward.tolist() == [-1, -1, -10]


def test_what_a_caller_does_to_the_results_leaves_the_environments_alone():
    batches = [GridWorldBatch(3), GridWorldBatch(3)]
    for batch in batches:
        batch.seed_streams([0, 1, 2])
        batch.reset_batch()
    for _ in range(3):
        steps = [batch.step_batch(np.array([1, 2, 1])) for batch in batches]
        np.testing.assert_array_equal(steps[0].observation, steps[1].observation)
        np.testing.assert_array_equal(steps[0].reward, steps[1].reward)
        for array in (steps[0].observation, steps[0].reward, steps[0].truncated, *steps[0].info.values()):
            array[:] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": {"size": 4}}, "params.size: unknown key; allowed: goal_reward"),
        ({"params": {"goal_reward": -1}}, "goal_reward: -1 is not allowed; allowed: finite numbers from 0"),
        ({"params": {"step_penalty": float("nan")}}, "step_penalty: nan is not allowed"),
        ({"episode_steps": 0.5}, "episode_steps: 0.5 is not allowed; allowed: whole numbers from 1"),
        ({"num_envs": 0}, "num_envs: 0 is not allowed"),
    ],
)
def test_unfit_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        GridWorldBatch(**{"num_envs": 1} | arguments)


def test_unknown_arguments_and_options_raise():
    with pytest.raises(TypeError, match="size"):
        make_env(size=4)
    with pytest.raises(ValueError, match=r"^options.start: unknown key; allowed: none"):
        make_env().reset(seed=0, options={"start": 3})


@pytest.mark.parametrize("actions", [np.array([0, 4]), np.array([-1, 0]), np.array([0.0, 1.0])])
def test_unfit_actions_are_refused(actions):
    envs = make_vector_env(2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"^actions: .* is not allowed; allowed"):
        envs.step(actions)


def test_the_description_fits_spaces_and_observations():
    description = describe({"goal_reward": 7})
    env = make_env()
    assert description.env_id == "scalepilot/GridWorld-v0"
    assert [a.label for a in description.actions] == ["up", "right", "down", "left"]
    assert {(a.kind, a.size) for a in description.actions} == {("plain", 0)}
    (field,) = description.fields
    assert (field.low, field.high) == (0, env.observation_space.n - 1)
    assert field.unit
    assert field.description
    assert "+7 on" in description.reward
    assert not description.commands_targets
    assert walk((RIGHT, RIGHT, DOWN, DOWN), params={"goal_reward": 7})[-1][1] == 7


def test_the_text_shows_walker_goal_and_obstacle():
    env = make_env(render_mode="ansi")
    env.reset(seed=0)
    env.step(RIGHT)
    assert env.render() == ". A .\n. # .\n. . G\nstep 1 of 100  cell 1  reward -1"


def test_the_picture_shows_the_walker_where_it_is():
    env = make_env(render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.step(DOWN)
    picture = env.render()
    assert picture.shape == (400, 400, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    rows = np.flatnonzero((first != picture).any(axis=(1, 2)))
    assert rows.min() < 150 < rows.max()


def test_the_contract_is_kept():
    check_scaling_env(
        lambda: make_env(episode_steps=15),
        lambda num_envs, autoreset_mode: make_vector_env(num_envs, autoreset_mode, episode_steps=15),
        num_steps=50,
        batch_sizes=(1, 2, 9),
        stochastic=False,
    )


def test_both_libraries_check_it_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("scalepilot_envs:scalepilot/GridWorld-v0", render_mode="rgb_array")
        gym.utils.env_checker.check_env(env.unwrapped)
        sb3_check_env(env.unwrapped, warn=True)
