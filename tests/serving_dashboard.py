"""What cluster/grafana and cluster/prometheus ask Prometheus, as Grafana and Prometheus would ask it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DASHBOARD = "cluster/grafana/serving.json"
RULES = "cluster/prometheus/serving-rules.yaml"
SCRAPE = "cluster/prometheus/serving-scrape.yaml"
_METRIC = re.compile(r"\b(?:scalepilot_serve|process|ray)_[A-Za-z0-9_]+")
# The comparison that makes an alert of a number.
_THRESHOLD = re.compile(r"\s*[<>]\s*[0-9.]+\s*$")


@dataclass(frozen=True)
class Query:
    """One expression and where it stands."""

    where: str
    expr: str

    @property
    def metrics(self) -> set[str]:
        """Names of the series it reads."""
        return set(_METRIC.findall(self.expr))

    def filled(self, variables: Mapping[str, str]) -> Query:
        """With values in place of the dashboard's variables; one that has none stays, and Prometheus refuses it."""
        text = re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1], match[0]), self.expr)
        return Query(self.where, text)


def dashboard(repo: Path, file: str = DASHBOARD) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repo / file).read_text(encoding="utf-8"))
    return found


def panels(repo: Path, file: str = DASHBOARD) -> Iterator[dict[str, Any]]:
    """Every panel that is no row."""
    return (panel for panel in dashboard(repo, file)["panels"] if panel["type"] != "row")


def panel_queries(repo: Path, file: str = DASHBOARD) -> list[Query]:
    return [Query(f"panel {panel['title']}", target["expr"]) for panel in panels(repo, file) for target in panel["targets"]]


def annotation_queries(repo: Path, file: str = DASHBOARD) -> list[Query]:
    found = dashboard(repo, file)["annotations"]["list"]
    return [Query(f"annotation {entry['name']}", entry["expr"]) for entry in found if "expr" in entry]


def alerts(repo: Path, file: str = RULES) -> list[dict[str, Any]]:
    groups = yaml.safe_load((repo / file).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert_queries(repo: Path, file: str = RULES) -> list[Query]:
    return [Query(f"alert {rule['alert']}", rule["expr"]) for rule in alerts(repo, file)]


def without_threshold(query: Query) -> Query:
    """The number an alert looks at, whether or not it is high enough."""
    expr, count = _THRESHOLD.subn("", query.expr.strip())
    assert count == 1, f"{query.where}: ends with no comparison"
    return Query(f"{query.where}, its number", expr)
