"""The workflow with real parts, shortly; `python -m tests.farm_loop` runs it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import farm_loop, real_redis


@pytest.mark.slow
def test_the_nine_fields_are_the_truth_and_no_task_is_lost(tmp_path: Path) -> None:
    with real_redis.running(tmp_path) as port, farm_loop.running(tmp_path, port) as workflow:
        found = farm_loop.episode(workflow, 8)
        assert (found["counts_that_differ"], found["lost_or_twice"]) == (0, 0)
        assert found["largest_error_of_times"] < 1e-6
        assert found["largest_error_of_the_rate"] < 1e-6
        downs = farm_loop.scale_downs(workflow, 4)
        assert downs["workers_removed"] >= 4
        assert downs["lost_or_twice"] == 0
