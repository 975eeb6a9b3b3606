"""The clairvoyant optimum of QueueScaling-v0: a known answer, and what no sequence of actions beats."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from scalepilot.errors import InputError
from scalepilot.simulate.optimum import queue_scaling_optimum

SINE_CURVE = np.array([math.ceil((math.sin(0.01 * step) + 1) * 2175) for step in range(201)])


def replay(influx, actions, capacity=87, start=50, bounds=(2, 100)):
    """The environment's rules once more, plainly: return of a sequence of actions."""
    instances, queue, pending, total = start, 0, 0, 0.0
    for arriving, action in zip(influx[1:], actions, strict=True):
        work, served = int(arriving) + queue, capacity * instances
        processed = min(work, served)
        queue = work - processed
        refused = not bounds[0] <= instances + pending <= bounds[1]
        instances += 0 if refused else pending
        pending = int(action) - 1
        total -= (1 - math.ceil(processed / served * 100) / 100) * instances / bounds[1] + 0.1 * refused + queue / (1 + queue)
    return total


def test_the_sine_curve_has_its_known_answer():
    best, actions = queue_scaling_optimum(SINE_CURVE)
    assert best == pytest.approx(-3.0948, abs=5e-5)
    assert replay(SINE_CURVE, actions) == pytest.approx(best, abs=1e-9)
    # Neither a longer queue nor anything but these actions helps.
    assert queue_scaling_optimum(SINE_CURVE, longest_queue=400)[0] == best
    assert replay(SINE_CURVE, np.roll(actions, 1)) < best - 0.1


@pytest.mark.parametrize("pattern", ["SINE_CURVE", "SINUSOIDAL", "STEADY", "SPIKE"])
def test_the_specification_pays_the_planned_actions_what_was_promised(golden, pattern):
    reference = golden("queue_scaling")
    influx = np.array([reference.influx_of(pattern, step) for step in range(81)])
    best, actions = queue_scaling_optimum(influx)
    service = reference.QueueScaling()
    service.reset(pattern)
    assert sum(service.step(int(action))[1] for action in actions) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_no_sequence_of_actions_returns_more(seed):
    rng = np.random.default_rng(seed)
    influx, bounds = rng.integers(0, 40, 8), (1, 4)
    best, actions = queue_scaling_optimum(influx, capacity=10, min_instances=1, max_instances=4, start_instances=2)
    returns = [replay(influx, a, 10, 2, bounds) for a in itertools.product(range(3), repeat=7)]
    assert best == pytest.approx(max(returns), abs=1e-12)
    assert replay(influx, actions, 10, 2, bounds) == pytest.approx(best, abs=1e-12)


def test_an_overload_that_no_plan_avoids_needs_a_longer_queue():
    influx = np.full(4, 4700)
    with pytest.raises(InputError, match="longest_queue: 300 is not allowed"):
        queue_scaling_optimum(influx)
    assert queue_scaling_optimum(influx, longest_queue=1500)[0] < -2


@pytest.mark.parametrize("influx", [np.array([5]), np.array([5.0, 6.0]), np.array([5, -1]), np.ones((2, 2), dtype=int)])
def test_influx_must_be_whole_requests(influx):
    with pytest.raises(InputError, match="influx: "):
        queue_scaling_optimum(influx)


def test_the_start_must_lie_within_the_bounds():
    with pytest.raises(InputError, match="start_instances: 1 is not allowed; allowed: from 2 to 100"):
        queue_scaling_optimum(SINE_CURVE, start_instances=1)
