"""The clock of a batch's episodes, and numbers drawn for many episodes at once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from scalepilot_envs.episodes import EpisodeClock, EpisodeDraws, integers, uniform, write_columns
from scalepilot_envs.streams import Streams

TABLE = np.arange(12.0).reshape(4, 3)


def test_environments_that_start_together_see_rows_and_end_together():
    clock = EpisodeClock(3, 3)
    seen, ended = [], []
    for _ in range(3):
        seen.append(clock.of(TABLE))
        ended.append(clock.advance().tolist())
    np.testing.assert_array_equal(seen, TABLE[:3])
    assert ended == [[False] * 3, [False] * 3, [True] * 3]
    assert clock.step_index.tolist() == [3, 3, 3]


@pytest.mark.parametrize("table", [TABLE, TABLE[:, 0]], ids=["each its own", "one for all"])
def test_environments_that_start_apart_see_their_own_steps(table):
    clock = EpisodeClock(3, 3)
    clock.advance()
    clock.reset(np.array([1]))
    ended = clock.advance()
    clock.advance()
    assert clock.step_index.tolist() == [3, 2, 3]
    assert ended.tolist() == [False, False, False]
    wide = np.broadcast_to(table[:, None], (4, 3)) if table.ndim == 1 else table
    np.testing.assert_array_equal(clock.of(table), [wide[3, 0], wide[2, 1], wide[3, 2]])
    assert clock.advance().tolist() == [True, True, True]
    clock.advance()
    np.testing.assert_array_equal(clock.of(table), wide[3])
    clock.reset(np.arange(3))
    assert clock.step_index.tolist() == [0, 0, 0]


def test_a_row_is_a_copy():
    clock = EpisodeClock(3, 3)
    clock.of(TABLE)[:] = -1
    assert TABLE.min() == 0


def drawn(num_envs, rows, times, num_values=3, draw=uniform, dtype=np.float64):
    """(times, len(rows), num_values) from streams seeded 0, 1, …"""
    streams = Streams(["a"])
    streams.seed(range(num_envs))
    draws = EpisodeDraws(streams, "a", num_envs, num_values, draw, dtype)
    return np.array([draws.take(np.array(rows)) for _ in range(times)])


@pytest.mark.parametrize(
    ("draw", "dtype"),
    [(uniform, np.float64), (partial(integers, high=1 << 31), np.int64), (partial(integers, high=97), np.int64)],
)
def test_an_environment_draws_the_same_in_any_batch_across_blocks(draw, dtype):
    times = 150
    alone = drawn(1, [0], times, draw=draw, dtype=dtype)
    np.testing.assert_array_equal(drawn(5, range(5), times, draw=draw, dtype=dtype)[:, :1], alone)
    generator = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0,)))
    np.testing.assert_array_equal(alone.ravel(), draw(generator, times * 3))


def test_an_environment_that_resets_less_often_loses_nothing():
    streams = Streams(["a"])
    streams.seed([0, 1])
    draws = EpisodeDraws(streams, "a", 2, 3, uniform)
    for _ in range(100):
        draws.take(np.array([0]))
    np.testing.assert_array_equal(draws.take(np.array([1])), drawn(2, [1], 1)[0])


def test_a_new_seed_forgets_the_rest_of_the_block():
    streams = Streams(["a"])
    streams.seed([0, 1])
    draws = EpisodeDraws(streams, "a", 2, 3, uniform)
    first = draws.take(np.arange(2))
    second = draws.take(np.array([1]))
    streams.seed([0, None])
    draws.forget(np.array([0]))
    again = draws.take(np.arange(2))
    np.testing.assert_array_equal(again[0], first[0])
    assert not np.array_equal(again[1], second[0])


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 2]])
def test_columns_are_written_where_they_belong(rows):
    table, values = np.zeros((4, 3)), np.arange(4.0 * len(rows)).reshape(len(rows), 4) + 1
    write_columns(table, np.array(rows), values)
    np.testing.assert_array_equal(table[:, rows], values.T)
    assert (table == 0).sum() == 12 - values.size
