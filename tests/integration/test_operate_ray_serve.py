"""Ray Serve's own controller runs a policy of ours, and its REST interface another deployment: real applications."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from benchmarks.ports import free_port

from scalepilot.operate.ledger import read_entries

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(ray_tmpdir: Path) -> Path:
    found = ray_tmpdir / "o"
    found.mkdir()
    return found


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    import numpy as np
    from tests.conftest import tiny_model_bytes

    from scalepilot.policy import ActionEntry, NetworkPolicy, PolicySpec, autoscale_fields, save_policy
    from scalepilot_envs.autoscale import DEFAULT_MOVES, ENV_ID, AutoscaleParams, MoveTable

    fields = autoscale_fields(AutoscaleParams())
    actions = tuple(ActionEntry(**entry) for entry in MoveTable(DEFAULT_MOVES).to_json())
    spec = PolicySpec(
        name="tiny",
        version="1",
        kind="network",
        env_id=ENV_ID,
        env_params={"interval_seconds": 0.5},
        observation_fields=fields,
        actions=actions,
        decision_rule="argmax_p",
        provenance={"algorithm": "none"},
    )
    path = tmp_path_factory.mktemp("policy") / "tiny"
    weights = np.zeros((len(fields), len(DEFAULT_MOVES)))
    save_policy(NetworkPolicy(spec, tiny_model_bytes(weights, np.arange(len(DEFAULT_MOVES)))), path)
    return path


@pytest.fixture(scope="module")
def happened(folder: Path, artifact: Path, cli_env: dict[str, str], repo: Path) -> dict[str, Any]:
    intervals = {f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.25" for who in ("REPLICA", "HANDLE")}
    ran = subprocess.run(
        [sys.executable, str(repo / "tests" / "serve_application.py"), str(free_port()), str(folder), str(artifact)],
        env={**cli_env, **intervals, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads((folder / "happened.json").read_text())
    return found


def test_replicas_follow_our_policy_both_ways(happened: dict[str, Any]) -> None:
    began = happened["timeline"][0][0]
    changes = [next(group) for _, group in groupby(happened["timeline"], key=lambda point: point[1:])]
    told = "; ".join(f"{time - began:.0f} s: {rate:g}/s, {spec} wanted, {ready} ready" for time, rate, spec, ready in changes)
    assert happened["up"], told
    assert happened["ready"], told
    assert happened["down"], told


def test_its_fields_are_what_the_load_was(happened: dict[str, Any], folder: Path) -> None:
    records = [entry.record for entry in read_entries(folder / "records")]
    known = [record for record in records if record.mode in ("active", "degraded")]
    assert len(known) > 20
    began, ended = happened["surge"]
    values = [
        record.snapshot.readings["request_rate_rps_0"].value
        for record in known
        # Samples come a little later than they were taken.
        if began + 1.5 < record.snapshot.time < ended
    ]
    assert values
    # 45 and not 4; on a busy machine what came late comes at once.
    assert 20 < sum(value for value in values if value is not None) / len(values) < 120
    busiest = max(record.snapshot.readings["cpu_utilisation"].value or 0.0 for record in known)
    assert busiest > 0.5
    errors = [record.snapshot.readings["error_share"].value for record in known]
    assert max(share for share in errors if share is not None) > 0.0
    starting = [record.snapshot.replicas.starting_ages_seconds or () for record in records]
    assert max(len(ages) for ages in starting) >= 1
    assert all("tiny" in record.shadows for record in records)


def test_a_deployment_is_scaled_from_outside(happened: dict[str, Any]) -> None:
    assert (happened["read"]["spec"], happened["read"]["ready"], happened["read"]["owners"]) == (1, 1, [])
    assert happened["check"] == []
    assert (happened["written"], happened["stale"], happened["dry"]) == ("written", "refused", "forbidden")
    assert happened["ext_ready"]


def test_what_may_not_be_scaled_from_outside_is_told_in_a_line(happened: dict[str, Any]) -> None:
    (line,) = happened["shop"]
    assert line == "it is scaled by Ray Serve's autoscaler (autoscaling_config): deploy it without autoscaling_config"
    outcome, detail = happened["shop_write"]
    assert outcome == "forbidden"
    assert "external_scaler_enabled" in detail
    (nobody,), (deployment,) = happened["nobody"]
    assert "there is no application 'nobody'; there are: " in nobody
    assert "has no deployment 'Nobody'; there are: Plain" in deployment
