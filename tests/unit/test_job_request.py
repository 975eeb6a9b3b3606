"""What is sent to a cluster: the configuration, the trace it names, and nothing too large."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scalepilot.cluster.jobs import JobRequest, Jobs, check_size, working_dir
from scalepilot.config import config_from_mapping
from scalepilot.errors import InputError


def test_the_configuration_and_its_trace_travel_and_nothing_else(tmp_path: Path):
    trace = tmp_path / "mine.csv"
    trace.write_text("timestamp,requests_per_second\n")
    values = config_from_mapping({"workload": {"kind": "trace", "path": str(trace)}}).to_mapping()
    with working_dir(JobRequest("train", values)) as folder:
        assert sorted(path.name for path in folder.rglob("*")) == ["config.yaml", "mine.csv", "traces"]
        sent = yaml.safe_load((folder / "config.yaml").read_text())
        assert sent["workload"]["path"] == "traces/mine.csv"
        assert {**sent, "workload": {**sent["workload"], "path": str(trace)}} == values
    assert not folder.exists()


def test_what_ray_would_refuse_is_refused_before_it_is_sent(tmp_path: Path):
    (tmp_path / "small").write_bytes(b"x" * 1000)
    check_size([tmp_path])
    with (tmp_path / "large").open("wb") as file:
        file.truncate(101 * 2**20)
    with pytest.raises(InputError, match="101 MiB are to be sent; allowed: up to 100 MiB"):
        check_size([tmp_path])


@pytest.mark.parametrize("address", ["10.0.0.5:8265", "ray://10.0.0.5:10001", "auto"])
def test_an_address_that_is_no_dashboards_is_a_line(address: str):
    with pytest.raises(InputError, match="allowed: the dashboard's, such as http"):
        Jobs(address)
