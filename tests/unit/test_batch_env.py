"""The wrappers around one transition function, on the smallest environment there is."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from scalepilot_envs import BatchEnv, BatchStep, BatchVectorEnv, SingleEnv
from scalepilot_envs.batch_env import seeds_of


class Countdown(BatchEnv):
    """Environment i starts at its seed and counts down by the action; 0 ends it, 5 steps cut it."""

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Box(-100, 100, (1,), np.float32)
        self.single_action_space = gym.spaces.Discrete(3)
        self.metadata = {"render_modes": ["ansi"], "render_fps": 1}
        self.seeds = np.zeros(num_envs)
        self.at = np.zeros(num_envs)
        self.steps = np.zeros(num_envs, dtype=int)
        self.closed = False

    def seed_streams(self, seeds):
        self.seeds = np.array([own if s is None else s for s, own in zip(seeds, self.seeds, strict=True)], dtype=float)

    def reset_batch(self, mask=None, options=None):
        mask = np.ones(self.num_envs, dtype=bool) if mask is None else mask
        self.at[mask] = self.seeds[mask] + (options or {}).get("more", 0)
        self.steps[mask] = 0
        return self.at[:, None].astype(np.float32)

    def step_batch(self, actions):
        self.at = self.at - actions
        self.steps += 1
        seen = self.at[:, None].astype(np.float32)
        return BatchStep(seen, np.ones(self.num_envs), self.at <= 0, self.steps >= 5, {"at": self.at.copy()})

    def render_one(self, index, mode):
        return f"at {self.at[index]:g}"

    def close(self):
        self.closed = True


def test_environment_i_is_seeded_with_the_seed_plus_i():
    observation, info = BatchVectorEnv(Countdown(3)).reset(seed=10)
    assert observation[:, 0].tolist() == [10, 11, 12]
    assert info == {}
    assert BatchVectorEnv(Countdown(3)).reset(seed=[5, 1, 9])[0][:, 0].tolist() == [5, 1, 9]


def test_a_reset_without_a_seed_keeps_the_streams():
    env = BatchVectorEnv(Countdown(2))
    env.reset(seed=3)
    assert env.reset()[0][:, 0].tolist() == [3, 4]
    assert env.reset(seed=[None, 9])[0][:, 0].tolist() == [3, 9]


def test_options_reach_the_batch_without_the_mask():
    env = BatchVectorEnv(Countdown(2), "Disabled")
    env.reset(seed=3)
    options = {"reset_mask": np.array([False, True]), "more": 50}
    assert env.reset(options=options)[0][:, 0].tolist() == [3, 54]
    assert "reset_mask" in options


def test_a_seed_with_a_mask_touches_only_the_named():
    env = BatchVectorEnv(Countdown(2), "Disabled")
    env.reset(seed=3)
    env.reset(seed=70, options={"reset_mask": np.array([False, True])})
    assert env.reset()[0][:, 0].tolist() == [3, 71]


def test_next_step_resets_in_a_step_of_its_own():
    env = BatchVectorEnv(Countdown(2))
    env.reset(seed=2)
    observation, reward, terminated, truncated, info = env.step(np.array([2, 1]))
    assert observation[:, 0].tolist() == [0, 2]
    assert terminated.tolist() == [True, False]
    assert info["_at"].tolist() == [True, True]
    observation, reward, terminated, truncated, info = env.step(np.array([2, 1]))
    assert observation[:, 0].tolist() == [2, 1]
    assert reward.tolist() == [0, 1]
    assert not terminated.any()
    assert not truncated.any()
    assert info["at"].tolist() == [0, 1]
    assert info["_at"].tolist() == [False, True]


def test_same_step_resets_at_once_and_hands_the_end_over():
    env = BatchVectorEnv(Countdown(2), AutoresetMode.SAME_STEP)
    env.reset(seed=2)
    observation, reward, terminated, _, info = env.step(np.array([2, 1]))
    assert observation[:, 0].tolist() == [2, 2]
    assert reward.tolist() == [1, 1]
    assert terminated.tolist() == [True, False]
    assert info["final_obs"][0].tolist() == [0]
    assert info["_final_obs"].tolist() == [True, False]
    assert info["final_info"]["at"].tolist() == [0, 0]
    assert info["final_info"]["_at"].tolist() == [True, False]
    assert info["_at"].tolist() == [False, True]
    assert "final_obs" not in env.step(np.array([0, 0]))[-1]


def test_a_truncation_ends_like_a_termination():
    env = BatchVectorEnv(Countdown(1), AutoresetMode.SAME_STEP)
    env.reset(seed=50)
    for _ in range(4):
        assert not env.step(np.array([1]))[3][0]
    observation, _, terminated, truncated, info = env.step(np.array([1]))
    assert (terminated[0], truncated[0]) == (False, True)
    assert (observation[0, 0], info["final_obs"][0, 0]) == (50, 45)


def test_disabled_refuses_to_step_on_and_names_who_ended():
    env = BatchVectorEnv(Countdown(3), "Disabled")
    env.reset(seed=2)
    env.step(np.array([2, 0, 0]))
    with pytest.raises(gym.error.ResetNeeded, match=r"environments \[0\] have ended"):
        env.step(np.array([0, 0, 0]))
    env.reset(options={"reset_mask": np.array([True, False, False])})
    assert env.step(np.array([0, 0, 0]))[0][:, 0].tolist() == [2, 3, 4]


def test_closing_closes_the_batch_once():
    batch = Countdown(2)
    BatchVectorEnv(batch).close()
    assert batch.closed


def test_the_single_environment_is_a_batch_of_one():
    env = SingleEnv(Countdown(1), "ansi")
    assert env.reset(seed=4)[0].tolist() == [4]
    observation, reward, terminated, truncated, info = env.step(1)
    assert observation.tolist() == [3]
    assert (reward, terminated, truncated, info) == (1.0, False, False, {"at": 3.0})
    assert [type(x) for x in (reward, terminated, truncated, info["at"])] == [float, bool, bool, float]
    assert env.render() == "at 3"
    assert SingleEnv(Countdown(1)).render() is None


def test_the_single_environment_refuses_several_and_unknown_ways_to_draw():
    with pytest.raises(ValueError, match="num_envs: 2; a single environment is a batch of 1"):
        SingleEnv(Countdown(2))
    with pytest.raises(ValueError, match="render_mode: 'huuman'; allowed: "):
        SingleEnv(Countdown(1), "huuman")


def test_seeds_are_drawn_where_none_is_given_and_differ():
    drawn = seeds_of(None, 50, fresh=True)
    assert len(set(drawn)) == 50
    assert seeds_of([4, None], 2, fresh=False) == [4, None]
    assert seeds_of(np.int64(4), 2, fresh=False) == [4, 5]
