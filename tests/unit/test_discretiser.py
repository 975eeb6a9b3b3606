"""The grid over an observation: which state a value belongs to, and which grids are refused."""

from __future__ import annotations

import numpy as np
import pytest

from scalepilot.policy import Discretiser, FieldEntry

FIELDS = (
    FieldEntry("share", "share", 0.0, 1.0),
    FieldEntry("queue", "requests", 0.0, 1000.0),
    FieldEntry("rate", "1/s", 0.0, 8.0),
)
CELL = (FieldEntry("cell", "1", 3.0, 7.0),)
ENDLESS = (FieldEntry("speed", "m/s", -3.4e38, 3.4e38),)


def row(share=0.0, queue=0.0, rate=0.0):
    return np.array([[share, queue, rate]], dtype=np.float32)


def test_states_are_row_major_in_the_order_of_the_observation_whatever_the_order_of_the_settings():
    grid = Discretiser.of_bins(FIELDS, {"rate": 4}, {"queue": (1.0, 100.0)}, 2)
    assert grid.shape == (3, 4)
    assert grid.num_states == 12
    observation = np.array(
        [[queue_share, queue, rate] for queue in (0, 50, 500) for rate in (1, 3, 5, 7) for queue_share in (0.4,)]
    )
    np.testing.assert_array_equal(grid.states(observation.astype(np.float32)), np.arange(12))


def test_equal_bins_share_the_range_between_the_bounds():
    grid = Discretiser.of_bins(FIELDS, {"rate": 4}, {}, 2)
    np.testing.assert_array_equal(grid.edges["rate"], np.array([2.0, 4.0, 6.0], dtype=np.float32))


def test_a_value_on_an_edge_belongs_above_it_also_where_float32_and_float64_differ():
    grid = Discretiser(FIELDS, {"share": [0.3, 0.7, 1.0]})
    shown = [int(grid.states(row(share=value))[0]) for value in (0.29, 0.3, 0.69, 0.7, 0.99, 1.0)]
    assert shown == [0, 1, 1, 2, 2, 3]
    # The control: float64's 0.7 is above float32's, so a float64 edge would put the environment's own 0.7 below it.
    assert np.searchsorted([0.7], np.float64(np.float32(0.7)), side="right") == 0


def test_values_beyond_the_bounds_count_as_the_outermost_bins():
    grid = Discretiser.of_bins(FIELDS, {"queue": 10}, {}, 2)
    assert grid.states(row(queue=-5.0))[0] == 0
    assert grid.states(row(queue=1e9))[0] == 9


def test_numbered_states_count_from_their_lowest():
    grid = Discretiser(CELL, {})
    assert grid.num_states == 5
    np.testing.assert_array_equal(grid.states(np.array([[3], [7], [5], [99], [-1]])), [0, 4, 2, 4, 0])


@pytest.mark.parametrize(
    ("fields", "bins", "edges", "expected"),
    [
        (FIELDS, {"qeue": 4}, {}, "bins.qeue: unknown field; allowed: share, queue, rate; did you mean queue?"),
        (FIELDS, {}, {"shar": (0.5,)}, "did you mean share?"),
        (FIELDS, {"share": 1000, "queue": 1000, "rate": 10}, {}, "1000 × 1000 × 10 states × 2 actions are 20,000,000 entries"),
        (FIELDS, {}, {}, "bins: is empty; allowed: number of bins by field, one or more of share, queue, rate"),
        (ENDLESS, {"speed": 10}, {}, "allowed: tabular.edges.speed"),
        (FIELDS, {}, {"share": (0.1, 0.1 + 1e-12)}, "edges.share: are not allowed"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_in_one_line(fields, bins, edges, expected):
    with pytest.raises(ValueError) as caught:
        Discretiser.of_bins(fields, bins, edges, 2)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_whole_number_that_is_no_state_needs_bins():
    with pytest.raises(ValueError, match="bins: is empty"):
        Discretiser.of_bins(CELL, {}, {}, 2, numbered=False)
