"""Cells on a real local Ray: the same results as here, and a job that kills its worker is tried again."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from scalepilot.cluster.executor import RayExecutor
from scalepilot.errors import ArtifactError
from scalepilot.policy.rules import Hpa, HpaParameters, Static, StaticParameters
from scalepilot.simulate import Cell, SerialExecutor, TrafficEpisodes, poisson_episodes, run_cells
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import RateSeries

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_cells_flown_on_ray_are_those_flown_here():
    params = AutoscaleParams(max_replicas=20)
    series = RateSeries(100 + 50 * np.sin(np.arange(400) / 20), 15.0)
    episodes = poisson_episodes("waves", series, np.array([0, 150]), 60, (0, 1))
    rules = {"hpa": Hpa(HpaParameters(), params), "five": Static(StaticParameters(5), params)}
    cells = [Cell.of(name, rule, TrafficEpisodes(episodes, params)) for name, rule in rules.items()]
    for here, there in zip(run_cells(cells, SerialExecutor()), run_cells(cells, RayExecutor()), strict=True):
        np.testing.assert_array_equal(here.results["J_per_hour"], there.results["J_per_hour"])


def test_what_a_job_raises_reaches_the_caller_and_a_dead_worker_is_replaced(tmp_path):
    # Nested, so that they travel by value: Ray's workers do not know the tests.
    def refuse(number):
        raise ArtifactError(f"model {number}: was changed")

    def die_once(marker):
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return marker.name

    with pytest.raises(ArtifactError, match="model 1: was changed"):
        list(RayExecutor().run(refuse, [1]))
    assert dict(RayExecutor().run(die_once, [tmp_path / "a", tmp_path / "b"])) == {0: "a", 1: "b"}
