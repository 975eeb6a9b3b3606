"""Replay: transitions and the ring against plain Python, and draws in proportion to priority."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from scalepilot.learn.rllib.replay import Priorities, ReplayRing
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot.learn.rllib.transitions import NStepBuilder, Transitions

CPU = torch.device("cpu")
GAMMA = 0.9
Expected = tuple[float, int, float, float, float]


def experience(steps: int, envs: int, seed: int = 0, dtype: Any = np.float32) -> Rollout:
    """NEXT_STEP experience with terminations and truncations; every observation is another number."""
    rng = np.random.default_rng(seed)
    terminated, truncated, valid = (np.zeros((steps, envs), bool) for _ in range(3))
    ended = np.zeros(envs, bool)
    for t in range(steps):
        valid[t] = ~ended
        terminated[t] = valid[t] & (rng.random(envs) < 0.15)
        truncated[t] = valid[t] & ~terminated[t] & (rng.random(envs) < 0.15)
        ended = terminated[t] | truncated[t]
    return Rollout(
        observation=np.arange((steps + 1) * envs).reshape(steps + 1, envs, 1).astype(dtype),
        action=rng.integers(0, 4, (steps, envs)),
        # A reset step's reward belongs to nobody: here it would be noticed.
        reward=np.where(valid, rng.normal(size=(steps, envs)), 1e6).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        valid=valid,
    )


def part(rollout: Rollout, first: int, last: int) -> Rollout:
    names = ("action", "reward", "terminated", "truncated", "valid")
    return Rollout(
        observation=rollout.observation[first : last + 1], **{name: getattr(rollout, name)[first:last] for name in names}
    )


def expected_transitions(rollout: Rollout, n_step: int) -> list[Expected]:
    """One environment and one step after the other."""
    found: list[Expected] = []
    for t, env in itertools.product(range(rollout.num_steps), range(rollout.num_envs)):
        if not rollout.valid[t, env]:
            continue
        total, steps, ended, terminated = 0.0, 0, False, False
        for at in range(t, min(t + n_step, rollout.num_steps)):
            total += GAMMA**steps * float(rollout.reward[at, env])
            steps += 1
            terminated = bool(rollout.terminated[at, env])
            ended = terminated or bool(rollout.truncated[at, env])
            if ended:
                break
        if steps == n_step or ended:
            observation, after = rollout.observation[t, env, 0], rollout.observation[t + steps, env, 0]
            discount = 0.0 if terminated else GAMMA**steps
            found.append((float(observation), int(rollout.action[t, env]), total, discount, float(after)))
    return found


def rows(transitions: Transitions) -> list[Expected]:
    columns = [column.reshape(-1).tolist() for column in transitions]
    return list(zip(*columns, strict=True))


def assert_same(found: list[Expected], expected: list[Expected]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(sorted(found), sorted(expected), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_step", [1, 2, 3, 7])
@pytest.mark.parametrize("rollout_steps", [1, 2, 5, 40])
def test_transitions_of_rollouts_in_a_row_are_those_of_plain_python_and_none_is_lost(seed: int, n_step: int, rollout_steps: int):
    whole = experience(40, 3, seed)
    builder = NStepBuilder(n_step, GAMMA, 1e9, CPU)
    found: list[Expected] = []
    for first in range(0, 40, rollout_steps):
        found += rows(builder(part(whole, first, first + rollout_steps)))
    assert_same(found, expected_transitions(whole, n_step))


def test_a_truncation_bootstraps_from_its_true_last_observation_and_a_termination_from_nothing():
    rollout = experience(3, 2)
    rollout.terminated[:] = [[False, False], [True, False], [False, False]]
    rollout.truncated[:] = [[False, False], [False, True], [False, False]]
    rollout.valid[:] = [[True, True], [True, True], [False, False]]
    found = NStepBuilder(2, GAMMA, 1e9, CPU)(rollout)
    # Observations are numbered 0 1 / 2 3 / 4 5 / …, by step and environment.
    assert found.observation[:, 0].tolist() == [0, 1, 2, 3]
    assert found.next_observation[:, 0].tolist() == [4, 5, 4, 5]
    assert found.discount.tolist() == pytest.approx([0, GAMMA**2, 0, GAMMA])


def test_an_env_runner_that_was_restarted_does_not_continue_its_old_episode():
    builder = NStepBuilder(3, GAMMA, 1e9, CPU)
    first, second = experience(6, 3, 0), experience(6, 3, 1)
    for rollout in (first, second):
        rollout.terminated[:], rollout.truncated[:], rollout.valid[:] = False, False, True
    second.observation += 1000
    second.observation[0, 0] = first.observation[-1, 0]
    found = rows(builder(first)) + rows(builder(second))
    starts = [row[0] for row in found]
    # Environment 0 goes on: its two waiting steps (observations 12 and 15) are completed by the second rollout.
    assert {12.0, 15.0} <= set(starts)
    assert not {13.0, 14.0, 16.0, 17.0} & set(starts)
    for observation, _, _, _, after in found:
        assert (observation >= 1000) == (after >= 1000) or observation in (12.0, 15.0, 18.0)
    assert len(found) == 3 * 4 + 2 + 3 * 4


def test_rewards_are_cut_one_by_one_before_they_are_summed():
    rollout = experience(3, 1)
    rollout.terminated[:], rollout.truncated[:], rollout.valid[:] = False, False, True
    rollout.reward[:] = [[5.0], [-5.0], [0.5]]
    assert NStepBuilder(3, 1.0, 1.0, CPU)(rollout).reward.tolist() == pytest.approx([0.5])


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_the_ring_keeps_the_newest_in_their_own_dtype(dtype: Any):
    ring = ReplayRing(17, CPU)
    remembered: list[Expected] = []
    builder = NStepBuilder(1, GAMMA, 1e9, CPU)
    for seed in range(12):
        transitions = builder(experience(2 if seed % 3 else 5, 3, seed, dtype))
        indices = ring.add(transitions)
        remembered = (remembered + rows(transitions))[-17:]
        assert ring.size == min(17, len(remembered))
        assert_same(rows(ring[torch.arange(ring.size)]), remembered)
        assert rows(ring[indices]) == rows(transitions)[-17:]
    assert ring[torch.arange(3)].observation.dtype == (torch.uint8 if dtype is np.uint8 else torch.float32)


def test_more_than_fits_leaves_the_newest():
    ring = ReplayRing(5, CPU)
    transitions = NStepBuilder(1, GAMMA, 1e9, CPU)(experience(20, 1))
    ring.add(transitions)
    assert_same(rows(ring[torch.arange(5)]), rows(transitions)[-5:])


def test_a_restored_ring_goes_on_writing_where_it_was():
    ring, restored = ReplayRing(11, CPU), ReplayRing(11, CPU)
    builder = NStepBuilder(1, GAMMA, 1e9, CPU)
    first, second = builder(experience(8, 2)), builder(experience(3, 2, 1))
    ring.add(first)
    restored.set_state(ring.get_state())
    ring.add(second)
    restored.add(second)
    assert rows(ring[torch.arange(11)]) == rows(restored[torch.arange(11)])


@pytest.mark.parametrize("size", [1, 10, 97, 1000])
def test_indices_are_drawn_in_proportion_to_their_priorities(size: int):
    rng = np.random.default_rng(0)
    errors = torch.tensor(rng.exponential(size=size))
    priorities = Priorities(1000, 0.6, CPU)
    priorities.add(torch.arange(size))
    priorities.update(torch.arange(size), errors)
    share = (errors + 1e-6) ** 0.6
    share /= share.sum()
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(size)
    draws = 50
    for _ in range(draws):
        indices, probability = priorities.draw(4000, size, generator)
        counts += torch.bincount(indices, minlength=size)
        torch.testing.assert_close(probability, share[indices])
    total = draws * 4000
    # Drawn one from each equal share of the sum, counts vary less than a multinomial's: five of its deviations never.
    assert bool(((counts - total * share).abs() <= 5 * (total * share).sqrt() + 1).all())


def test_what_is_new_is_drawn_with_the_largest_priority_and_sums_follow_every_change():
    priorities = Priorities(50, 1.0, CPU)
    priorities.add(torch.arange(30))
    priorities.update(torch.tensor([3, 7, 3]), torch.tensor([9.0, 0.0, 9.0]))
    priorities.add(torch.tensor([30]))
    _, probability = priorities.draw(4000, 31, torch.Generator().manual_seed(0))
    total = 28 + 9 + 9
    assert float(probability.max()) == pytest.approx(9 / total, rel=1e-5)
    indices, _ = priorities.draw(4600, 31, torch.Generator().manual_seed(1))
    counts = torch.bincount(indices, minlength=31)
    assert counts[3] == pytest.approx(900, abs=2)
    assert counts[30] == pytest.approx(900, abs=2)
    assert counts[7] <= 1


def test_only_what_is_filled_is_drawn():
    priorities = Priorities(100, 1.0, CPU)
    priorities.add(torch.arange(13))
    indices, _ = priorities.draw(10_000, 13, torch.Generator().manual_seed(0))
    assert indices.unique().tolist() == list(range(13))
