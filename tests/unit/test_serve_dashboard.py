"""The dashboard and the alerts without a Prometheus: they read series that the server has, and explain themselves."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import yaml
from tests.haproxy_stats import admin_socket
from tests.serving_dashboard import (
    RULES,
    SCRAPE,
    Query,
    alert_queries,
    alerts,
    annotation_queries,
    dashboard,
    panel_queries,
    panels,
    without_threshold,
)

from scalepilot.policy import save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyStore
from scalepilot.serve.http.metrics import Metrics
from scalepilot_envs.autoscale import AutoscaleParams

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


@pytest.fixture
def exposed(tmp_path: Path) -> set[str]:
    """Names of every series the server has."""
    save_policy(make_rule("hpa", AutoscaleParams()), tmp_path / "hpa")
    with admin_socket() as proxy:
        text = Metrics(proxy=proxy).text(PolicyStore.load([tmp_path / "hpa"]).catalogue, ready=True, in_flight=0).decode()
    kinds = [line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE")]
    return {name.removesuffix("_total") + suffix for name, kind in kinds for suffix in SUFFIXES[kind]}


def check_known(queries: list[Query], exposed: set[str]) -> None:
    for query in queries:
        unknown = query.metrics - exposed
        assert not unknown, f"{query.where}: the server has no {sorted(unknown)}"


def test_every_expression_reads_series_that_the_server_has(repo: Path, exposed: set[str]) -> None:
    queries = panel_queries(repo) + annotation_queries(repo) + alert_queries(repo)
    check_known(queries, exposed)
    used = set().union(*(query.metrics for query in queries))
    assert len(used) > 15


def test_a_misspelt_metric_is_found(repo: Path, exposed: set[str]) -> None:
    query = panel_queries(repo)[0]
    misspelt = Query(query.where, query.expr.replace("scalepilot_serve_requests_total", "scalepilot_serve_request_total"))
    assert misspelt != query
    with pytest.raises(AssertionError, match="has no"):
        check_known([misspelt], exposed)


def test_everything_the_server_counts_is_shown_somewhere(repo: Path, exposed: set[str]) -> None:
    shown = set().union(*(query.metrics for query in panel_queries(repo)))
    histograms = {name.removesuffix("_bucket") for name in exposed if name.endswith("_bucket")}
    counted = {name for name in exposed if name.startswith("scalepilot_") and not name.startswith(tuple(histograms))}
    assert counted - shown == set()
    assert {name for name in histograms if not any(metric.startswith(name) for metric in shown)} == set()


def test_every_panel_has_a_unit_a_description_and_the_datasource_of_the_variable(repo: Path) -> None:
    assert len(list(panels(repo))) > 20
    for panel in panels(repo):
        assert len(panel["description"]) > 30, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert [target["refId"] for target in panel["targets"]] == list("ABCDE"[: len(panel["targets"])])
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_no_two_panels_share_an_id_a_title_or_a_place(repo: Path) -> None:
    everything = dashboard(repo)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    rows: dict[str, set[str]] = {}
    row = ""
    for panel in everything:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        assert panel["title"] not in rows.setdefault(row, set()), panel["title"]
        rows[row].add(panel["title"])
    for one, other in combinations((panel["gridPos"] for panel in everything), 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in everything)


def test_variables_are_those_the_expressions_use(repo: Path) -> None:
    names = {variable["name"] for variable in dashboard(repo)["templating"]["list"]}
    assert names == {"datasource", "instance", "policy"}
    grafanas = {"__rate_interval": "1m"}
    for query in panel_queries(repo) + annotation_queries(repo):
        assert "$" not in query.filled(dict.fromkeys(names, "x") | grafanas).expr, query.where


def test_every_alert_says_what_it_means_and_whom_it_wakes(repo: Path) -> None:
    found = alerts(repo)
    names = [rule["alert"] for rule in found]
    assert len(set(names)) == len(names) >= 6
    for rule in found:
        assert rule["alert"].startswith("Scalepilot")
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert len(rule["annotations"]["summary"]) < 120
    for query in alert_queries(repo):
        without_threshold(query)


def test_the_scrape_config_takes_its_key_from_a_file_and_loads_the_rules(repo: Path) -> None:
    config = yaml.safe_load((repo / SCRAPE).read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert set(job["authorization"]) == {"type", "credentials_file"}
    assert config["rule_files"] == [Path(RULES).name]
    # Alerts on targets that do not answer find them by the job's name.
    assert f'job="{job["job_name"]}"' in (repo / RULES).read_text(encoding="utf-8")


def test_the_page_names_every_metric_with_its_labels(repo: Path, tmp_path: Path) -> None:
    save_policy(make_rule("hpa", AutoscaleParams()), tmp_path / "hpa")
    with admin_socket() as proxy:
        families = list(Metrics(proxy=proxy)._families([], PolicyStore.load([tmp_path / "hpa"]).catalogue))
    exposed = {family.name.removeprefix("scalepilot_serve_"): family for family in families if "scalepilot" in family.name}
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (repo / "docs" / "observability.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    documented = {row[0].strip("`").removesuffix("_total"): row[1].split(", ") if row[1] else [] for row in rows}
    assert documented.keys() == exposed.keys()
    for name, family in exposed.items():
        assert documented[name] == list(family._labelnames), name
