"""The training dashboard and its alerts without Ray or Prometheus: they read series that there are, and explain themselves."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import yaml
from tests.serving_dashboard import (
    Query,
    alert_queries,
    alerts,
    annotation_queries,
    dashboard,
    panel_queries,
    panels,
    without_threshold,
)
from tests.training_dashboard import DASHBOARD, KUBERNETES_SCRAPE, RULES, SCRAPE, on_ray

from scalepilot.learn.rllib.prometheus import PREFIX, RUNNING, SERIES, series_of
from scalepilot.runs.metrics import METRICS

OURS = f"ray_{PREFIX}"


def known() -> set[str]:
    return {f"ray_{series.name}" for series in SERIES.values()} | {f"ray_{RUNNING}"}


def check_known(query: Query) -> None:
    unknown = {name for name in query.metrics if name.startswith(OURS)} - known() - {f"{OURS}episode_"}
    assert not unknown, f"{query.where}: a run has no {sorted(unknown)}"


def test_every_documented_metric_has_one_series_under_prometheus_conventions() -> None:
    assert SERIES.keys() == set(METRICS)
    assert len(known()) == len(METRICS) + 1
    assert (SERIES["memory_megabytes"].name, SERIES["memory_megabytes"].factor) == (f"{PREFIX}memory_bytes", 1e6)
    assert (SERIES["gpu_percent"].name, SERIES["gpu_percent"].factor) == (f"{PREFIX}gpu_ratio", 0.01)
    assert SERIES["env_steps"].name == f"{PREFIX}env_steps"
    assert SERIES["validation_J_per_hour"].name == f"{PREFIX}validation_j_per_hour"
    assert not any(series.name.endswith(("_percent", "_megabytes")) for series in SERIES.values())
    assert all(series.summed == (name.endswith(("restarts", "failures", "rollouts"))) for name, series in SERIES.items())


def test_every_expression_reads_series_that_runs_have(repo: Path) -> None:
    for query in panel_queries(repo, DASHBOARD) + annotation_queries(repo, DASHBOARD) + alert_queries(repo, RULES):
        check_known(query)
    query = panel_queries(repo, DASHBOARD)[0]
    with pytest.raises(AssertionError, match="has no"):
        check_known(Query(query.where, query.expr.replace("running", "runing")))


def test_every_metric_of_the_algorithms_on_ray_is_shown(repo: Path) -> None:
    shown = set().union(*(query.metrics for query in panel_queries(repo, DASHBOARD)))
    of_environments = {f"ray_{SERIES[name].name}" for name in METRICS if name.startswith("episode_")}
    wanted = {f"ray_{SERIES[name].name}" for name in on_ray()} - of_environments
    assert wanted - shown == set()
    assert f"{OURS}episode_" in shown, "environments' own are asked for by their prefix"


def test_panels_explain_themselves_and_stand_apart(repo: Path) -> None:
    everything = dashboard(repo, DASHBOARD)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything) > 30
    titles = [panel["title"] for panel in everything]
    assert len(set(titles)) == len(titles)
    for panel in panels(repo, DASHBOARD):
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} == {"${datasource}"}
    for one, other in combinations((panel["gridPos"] for panel in everything), 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in everything)


def test_variables_are_those_the_expressions_use(repo: Path) -> None:
    names = {variable["name"] for variable in dashboard(repo, DASHBOARD)["templating"]["list"]}
    assert names == {"datasource", "experiment", "algorithm", "run"}
    filled = dict.fromkeys(names | {"__rate_interval"}, "x")
    for query in panel_queries(repo, DASHBOARD) + annotation_queries(repo, DASHBOARD):
        # A regular expression's own group is no variable.
        assert "$" not in query.filled(filled).expr.replace('"$1"', ""), query.where


def test_every_alert_says_what_it_means_and_whom_it_wakes(repo: Path) -> None:
    found = alerts(repo, RULES)
    names = [rule["alert"] for rule in found]
    assert len(set(names)) == len(names) >= 6
    for rule in found:
        assert rule["alert"].startswith(("ScalepilotTraining", "ScalepilotRay"))
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert len(rule["annotations"]["summary"]) < 120
    for query in alert_queries(repo, RULES):
        without_threshold(query)


def test_scrape_configs_load_the_rules_and_name_the_jobs_that_alerts_know(repo: Path) -> None:
    for file in (SCRAPE, KUBERNETES_SCRAPE):
        config = yaml.safe_load((repo / file).read_text(encoding="utf-8"))
        jobs = {job["job_name"] for job in config["scrape_configs"]}
        assert "scalepilot-ray" in jobs
        assert Path(RULES).name in config["rule_files"]
        assert all((repo / "cluster" / "prometheus" / name).is_file() for name in config["rule_files"])
        for name in config["rule_files"]:
            text = (repo / "cluster" / "prometheus" / name).read_text(encoding="utf-8")
            assert any(f'job="{job}"' in text for job in jobs), name


def test_an_environments_own_column_has_a_series_too() -> None:
    from scalepilot.runs.metrics import Metric

    assert series_of(Metric("episode_moves_mean", "1", "moves")).name == f"{PREFIX}episode_moves_mean"
