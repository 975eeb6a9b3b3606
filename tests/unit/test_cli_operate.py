"""`scalepilot operate` as it is typed: a check, a dry run, a look back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.commands import refused, said

from scalepilot.cli import main
from scalepilot.operate.twin import Clock, Twin, exporter
from scalepilot_envs.autoscale import AutoscaleParams

CONFIG = """
policy: hpa:target=0.6
service: {{interval_seconds: 15, replica_capacity_rps: 20}}
shadows: [tracking]
telemetry:
  kind: scrape
  url: {page}
  requests: {{selector: 'app="web"', per_replica: false}}
  latency: {{selector: 'app="web"'}}
  cpu: {{selector: 'namespace="shop"'}}
  capacity_rps: 20
target: {{kind: file, path: replicas}}
limits: {{max_replicas: 30}}
listen: null
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    clock = Clock()
    twin = Twin(AutoscaleParams(), np.full(1000, 100.0), clock() // 15 * 15)
    with exporter(twin, clock) as page:
        path = tmp_path / "operate.yaml"
        path.write_text(CONFIG.format(page=page))
        (tmp_path / "replicas").write_text("8\n")
        yield path


def test_a_check_shows_every_field_and_says_what_is_missing(config: Path, capsys: pytest.CaptureFixture[str]):
    # A page that has been looked at once tells no rates.
    assert main(["operate", "--config", str(config), "--check", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    verdicts = {row["field"]: row["verdict"] for row in found["fields"]}
    assert verdicts["request_rate_rps_0"] == "missing"
    assert verdicts["ready_replicas"] == "ok"
    assert verdicts["late_share"] == "stands in"
    assert found["ready"] is False
    assert main(["operate", "--config", str(config), "--check"]) == 2
    text = capsys.readouterr().out
    assert "request_rate_rps_0 … 7" in text
    assert "replicas: 8 asked for, 8 ready" in text
    assert not (config.parent / "operate-records").exists()


def test_a_dry_run_leaves_a_record_that_is_explained_and_repeated(config: Path, capsys: pytest.CaptureFixture[str]):
    records = config.parent / "operate-records"
    # Nothing was decided.
    assert main(["operate", "--config", str(config), "--dry-run", "--once"]) == 1
    assert "8 stays: starting, request_rate_rps_0" in capsys.readouterr().out
    assert main(["operate", "--config", str(config), "--dry-run", "--once", "--json"]) == 1
    assert capsys.readouterr().out.count("\n") == 1
    assert (config.parent / "replicas").read_text() == "8\n"
    assert said(capsys, "operate", "log", "--records", records).count("\n") == 2
    moment = json.loads(said(capsys, "operate", "log", "--records", records, "--last", 1, "--json"))["at"]
    told = said(capsys, "operate", "explain", moment, "--records", records)
    assert "(dry run)" in told
    assert "request_rate_rps_0 … 7" in told
    assert main(["operate", "--config", str(config), "--replay", str(records)]) == 0
    assert "2 decisions, 2 the same" in capsys.readouterr().err
    assert main(["operate", "kpa", "--config", str(config), "--replay", str(records)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "config: none given"),
        (("--config", "{config}", "--workload", "spike"), "--workload: is not used without --twin"),
        (("a", "b", "--config", "{config}"), "b: one policy too many"),
        (("explain",), "explain: needs one time"),
        (("explain", "noon", "--records", "{folder}"), "explain: 'noon' is not a time"),
        (("log", "--records", "{folder}/none"), "none: not found"),
        (("log", "--last", "0", "--records", "{folder}"), "last: 0 is not allowed"),
        (("nothing", "--config", "{config}"), "nothing: no such folder"),
        (("hpa:taget=1", "--config", "{config}"), "did you mean target?"),
        (("hpa", "--twin", "--pace", "1000"), "--pace: 1000 is not allowed"),
        (("hpa", "--twin", "--workload", "spyke"), "--workload spyke"),
    ],
)
def test_what_is_wrong_is_one_line(config: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str):
    filled = [text.format(config=config, folder=config.parent) for text in arguments]
    assert message in refused(capsys, "operate", *filled)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("limits: {max_replicas: 100}", "limits.max_replicas: 100 is not allowed; allowed: 1 to 60"),
        ("limits: {min_replicas: -1}", "min_replicas"),
        ("target: {kind: fil}", "target.kind: 'fil' is not allowed"),
        ("telemetry: {kind: none}", "telemetry.kind: 'none' is not allowed"),
        ("fallback: [nope]", "fallback: rule: 'nope' is not allowed"),
        ("shadows: [nope]", "nope: no such folder"),
        ("listn: x", "listn"),
        ("service: {replica_capacity: 3}", "service.replica_capacity: unknown key"),
    ],
)
def test_a_wrong_key_is_named(config: Path, capsys: pytest.CaptureFixture[str], change: str, message: str):
    key = change.partition(":")[0]
    kept = [line for line in config.read_text().splitlines() if not line.startswith((f"{key}:", "  "))]
    telemetry = [line for line in config.read_text().splitlines() if line.startswith("  ")] if key != "telemetry" else []
    at = kept.index("telemetry:") + 1 if "telemetry:" in kept else 0
    config.write_text("\n".join([*kept[:at], *telemetry, *kept[at:], change]) + "\n")
    assert message in refused(capsys, "operate", "--config", config, "--check")


@pytest.mark.slow
def test_a_trial_on_the_twin_ends_with_what_it_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--minutes", "0.2", "--pace", "60", "--records", str(tmp_path / "r"), "--json"]
    assert main(["operate", "tracking:utilisation=0.7", "--twin", *arguments]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    here, simulated, hpa = json.loads(last)["results"]
    assert len(lines) > 30
    modes = [json.loads(line)["mode"] for line in lines]
    assert modes.count("active") > 20
    # Its monitoring fails for a while.
    assert 1 <= modes.count("holding") <= 6
    assert here["J_per_hour"] > 0
    assert simulated["name"] == "tracking-utilisation-0.7, in the simulator"
    assert hpa["name"] == "hpa-default"
