"""The alerts of `scalepilot operate`: what they ask for is what it tells, and each cause raises its own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.real_prometheus import check_rules
from tests.serving_dashboard import panel_queries
from tests.unit.test_operate_controller import Bench
from tests.unit.test_operate_tick import Wants

RULES = "cluster/prometheus/operate-rules.yaml"
DASHBOARD = "cluster/grafana/operate.json"
AT = '{job="scalepilot-operate", instance="shop"}'


def mode(name: str) -> str:
    return f'scalepilot_operate_mode{{job="scalepilot-operate", instance="shop", mode="{name}"}}'


WRITES = 'scalepilot_operate_writes_total{job="scalepilot-operate", instance="shop", outcome="forbidden"}'
NEWEST = f"scalepilot_operate_last_decision_timestamp_seconds{AT}"
WANTED, TARGET = (f"scalepilot_operate_{name}_replicas{AT}" for name in ("wanted", "target"))
LOST = f"scalepilot_operate_lost_records_total{AT}"
GOOD_HOUR = {
    f"up{AT}": "1x60",
    NEWEST: "0+60x60",
    mode("active"): "1x60",
    mode("holding"): "0x60",
    mode("contested"): "0x60",
    WRITES: "0x60",
    WANTED: "8x60",
    TARGET: "8x60",
    LOST: "0x60",
}
CAUSES: list[tuple[str, dict[str, str], set[str]]] = [
    ("nothing", {}, set()),
    ("the loop hangs", {NEWEST: "0+60x50 3000x9"}, {"ScalepilotOperateStopped"}),
    ("it is gone", {f"up{AT}": "1x50 0x9"}, {"ScalepilotOperateDown"}),
    ("Prometheus lost its targets", {mode("holding"): "0x50 1x9"}, {"ScalepilotOperateNoTelemetry"}),
    ("one scrape failed", {mode("holding"): "0x50 1 0x8"}, set()),
    ("an HPA appeared", {mode("contested"): "0x50 1x9"}, {"ScalepilotOperateContested"}),
    ("a right is missing", {WRITES: "0x50 0+1x9"}, {"ScalepilotOperateWritesFail"}),
    ("max_replicas is too low", {WANTED: "8x30 20x29"}, {"ScalepilotOperateHeldBack"}),
    ("the disk is full", {LOST: "0x50 0+1x9"}, {"ScalepilotOperateRecordsLost"}),
]


@pytest.mark.parametrize(("cause", "series", "fired"), CAUSES, ids=[cause for cause, _, _ in CAUSES])
def test_each_cause_raises_its_alert_and_no_other(
    repo: Path, tmp_path: Path, cause: str, series: dict[str, str], fired: set[str]
) -> None:
    check_rules(repo / RULES, tmp_path, GOOD_HOUR | series, fired)


def test_every_metric_they_ask_for_is_told(repo: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, 40.0)
    deciders = replace(bench.service.deciders, shadows={"other": Wants(9.0)})
    bench.controller.service = replace(bench.service, deciders=deciders)
    bench.step()
    told = bench.controller.metrics.text().decode()
    rules = yaml.safe_load((repo / RULES).read_text(encoding="utf-8"))
    expressions = [rule["expr"] for rule in rules["groups"][0]["rules"]] + [q.expr for q in panel_queries(repo, DASHBOARD)]
    asked = {name for expression in expressions for name in re.findall(r"scalepilot_operate_\w+", expression)}
    assert len(asked) >= 12
    for name in asked:
        assert re.search(rf"^{name}(\{{.*)? [0-9]", told, re.MULTILINE), name
