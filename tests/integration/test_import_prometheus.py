"""Weeks of traffic from a real Prometheus by URL: the truth, restarts included, and gaps where pods were not scraped."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
from tests.commands import said
from tests.fleet import backfilled

from scalepilot_envs.workloads import read_trace, trace_notes

STEP, SHORT, LONG = 60, 3, 21


class Recorded:
    """Two pods and, for a while, a third; what a Prometheus has of them, and the truth.

    Args:
        days: of it.
    """

    def __init__(self, days):
        self.minutes = days * 1440
        self.begun = int(time.time() - 3 * 3600) // STEP * STEP - self.minutes * STEP
        # Half of the pods are not scraped in it.
        self.gap = slice(self.minutes // 3, self.minutes // 3 + 60)
        self.restart = self.minutes // 2
        self.third = slice(self.minutes // 4, self.minutes // 4 + 300)
        minute = np.arange(self.minutes)
        rates = 40 + 25 * np.sin(2 * np.pi * minute / 1440) + 10 * np.sin(2 * np.pi * minute / 10_080)
        here = np.ones((3, self.minutes), dtype=bool)
        here[2] = (minute >= self.third.start) & (minute < self.third.stop)
        mean = np.broadcast_to(rates * STEP / here.sum(axis=0), here.shape)
        self.by_pod = np.where(here, np.random.default_rng(1).poisson(mean), 0)
        self.rps = self.by_pod.sum(axis=0) / STEP
        self.here = here
        self.url = ""

    def openmetrics(self):
        lines = ["# TYPE http_requests counter"]
        errors = np.random.default_rng(2).binomial(self.by_pod, 0.01)
        for pod, requests in enumerate(self.by_pod):
            scraped = self.here[pod].copy()
            if pod == 1:
                scraped[self.gap] = False
            for code, counts in (("200", requests - errors[pod]), ("500", errors[pod])):
                total = np.cumsum(counts).astype(float)
                if pod == 0:
                    total[self.restart :] -= total[self.restart - 1]
                stamps = self.begun + STEP * (1 + np.flatnonzero(scraped))
                series = f'http_requests_total{{app="web",pod="web-{pod}",code="{code}"}}'
                lines += [f"{series} {value:.0f} {at}" for at, value in zip(stamps, total[scraped], strict=True)]
        lines.append("# TYPE kube_deployment_status_replicas_ready gauge")
        ready = zip(self.begun + STEP * (1 + np.arange(self.minutes)), self.here.sum(axis=0), strict=True)
        lines += [f'kube_deployment_status_replicas_ready{{deployment="web"}} {number} {at}' for at, number in ready]
        return "\n".join([*lines, "# EOF", ""])

    def span(self, minutes=None):
        return "--start", self.begun, "--end", self.begun + (minutes or self.minutes) * STEP

    def rates(self, series):
        """(minutes,) NaN where the series has nothing."""
        found = np.full(self.minutes, np.nan)
        first = round((series.start_unix_seconds - self.begun) / STEP)
        found[first : first + len(series)] = series.rates_rps
        return found


def running(folder, days):
    recorded = Recorded(days)
    with backfilled(folder, recorded.openmetrics()) as recorded.url:
        yield recorded


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    yield from running(tmp_path_factory.mktemp("short"), SHORT)


@pytest.fixture(scope="module")
def weeks(tmp_path_factory):
    yield from running(tmp_path_factory.mktemp("long"), LONG)


def imported(capsys, folder, recorded, query, *options, name="trace.csv", minutes=None):
    out = folder / name
    asked = ("--prometheus", recorded.url, "--query", query, *recorded.span(minutes), *options)
    text = said(capsys, "workload", "import", *asked, "--out", out, "--json")
    return json.loads(text), read_trace(out)


COUNTER = 'http_requests_total{app="web"}'
PODS = ("--coverage", f"count(count by (pod) ({COUNTER}))")
EXPECTED = ("--expected", 'kube_deployment_status_replicas_ready{deployment="web"}')


def check_truth(capsys, folder, recorded, query, *options):
    asked = ("--prometheus", recorded.url, "--query", query, *recorded.span(), *options)
    refused = said(capsys, "workload", "import", *asked, code=2)
    assert re.search(r"Z to .*Z: .* scraped.* \(\d+ of [\d,]+ steps are not known\); allowed: --gaps linear", refused)
    described, series = imported(capsys, folder, recorded, query, *options, "--gaps", "linear")
    found, expected = recorded.rates(series), recorded.rps
    known = ~np.isnan(found)
    assert known.sum() >= recorded.minutes - 6
    inside = np.zeros(recorded.minutes, dtype=bool)
    # What is left out around the hour was seen by fewer pods, too, or may have been.
    inside[recorded.gap.start - 8 : recorded.gap.stop + 8] = True
    out = known & ~inside
    assert found[out].sum() == pytest.approx(expected[out].sum(), rel=1e-3)
    near = slice(recorded.restart - 5, recorded.restart + 6)
    assert found[near].sum() == pytest.approx(expected[near].sum(), rel=0.05)
    if query == COUNTER:
        np.testing.assert_allclose(found[out], expected[out], rtol=1e-3)
    # Filled from both sides, and not half.
    assert found[recorded.gap].mean() == pytest.approx(expected[recorded.gap].mean(), rel=0.1)
    assert described["provenance"]["query"] == query
    assert any("steps: " in line for line in described["recognised"]["told"])
    assert described["train"].startswith("scalepilot train tune_configs/autoscale-ppo.yaml --workload ")


def test_days_are_the_truth_and_an_unscraped_hour_is_a_gap(capsys, tmp_path, recorded):
    check_truth(capsys, tmp_path, recorded, COUNTER)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "options"),
    [
        (COUNTER, ()),
        (COUNTER, (*PODS, *EXPECTED)),
        (f"sum(rate({COUNTER}[2m]))", (*PODS, *EXPECTED)),
        (f"sum(rate({COUNTER}[5m]))", (*PODS, *EXPECTED)),
        (f"sum(rate({COUNTER}[5m]))", ()),
    ],
)
def test_three_weeks_are_the_truth_and_an_unscraped_hour_is_a_gap(capsys, tmp_path, weeks, query, options):
    check_truth(capsys, tmp_path, weeks, query, *options)


def test_where_the_query_comes_from_is_kept_in_the_file(capsys, tmp_path, recorded):
    import pyarrow.parquet as pq

    query = 'sum(rate(http_requests_total{app="web",code="200"}[5m]))'
    _, series = imported(capsys, tmp_path, recorded, query, minutes=600)
    head = (tmp_path / "trace.csv").read_text().splitlines()[:6]
    assert head[1] == '# query,"sum(rate(http_requests_total{app=""web"",code=""200""}[5m]))"'
    _, again = imported(capsys, tmp_path, recorded, query, minutes=600, name="trace.parquet")
    np.testing.assert_array_equal(series.rates_rps, again.rates_rps)
    assert pq.read_schema(tmp_path / "trace.parquet").metadata[b"query"].decode() == query
    for name in ("trace.csv", "trace.parquet"):
        assert trace_notes(tmp_path / name)["query"] == query


def test_other_steps_and_units_conserve_what_was_counted(capsys, tmp_path, recorded):
    minutes = 700
    total = recorded.by_pod[:, 1 : minutes - 1].sum()
    for query, options in (
        (COUNTER, ("--step", 300)),
        (COUNTER, ("--step", 60, "--interval-seconds", 300)),
        (f"sum(increase({COUNTER}[5m]))", ("--step", 300, "--unit", "count")),
        (f"60 * sum(rate({COUNTER}[5m]))", ("--unit", "rpm")),
        (f"rate({COUNTER}[5m])", ("--sum",)),
    ):
        name = f"{len(list(tmp_path.iterdir()))}.csv"
        _, series = imported(capsys, tmp_path, recorded, query, *options, minutes=minutes, name=name)
        mean = total / ((minutes - 2) * STEP)
        assert series.rates_rps.mean() == pytest.approx(mean, rel=0.01), query


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--query", "http_requests_totl"), "no data"),
        (("--query", "sum(http_requests_total)"), "adds counters up, which loses their restarts"),
        (("--query", "rate(http_requests_total[5m])"), "series (app=web, code=200, pod=web-0, "),
        (("--query", "sum(increase(http_requests_total[5m]))"), "allowed: --step 300"),
        (("--query", "sum(("), "HTTP 400"),
        (("--query", COUNTER, "--coverage", COUNTER), "--coverage: "),
        (("--query", COUNTER, "--coverage", "sum(kube_deployment_status_replicas_ready)"), "which looks like scaling"),
        (("--query", f"sum(rate({COUNTER}[5m]))", "--expected", "1"), "--expected: is compared with --coverage"),
        (("--query", COUNTER, "--step", "0"), "--step: 0 is not allowed"),
        (("--query", COUNTER, "--start", "yesterday"), "--start: 'yesterday' is not a time"),
        (("--query", COUNTER, "--end", "2001-01-01"), "is not two steps"),
        (("--query", COUNTER, "--end", "2101-01-01"), "lies in the future"),
        (("--query", COUNTER, "--timezone", "UTC"), "--timezone: is not used"),
        (("--query", COUNTER, "--user", "me"), "user, password_file"),
        (("--query", COUNTER, "--header", "x"), "--header: 'x' is not allowed"),
        ((), "--query: is missing"),
    ],
)
def test_what_is_not_allowed_is_one_line(capsys, recorded, options, words):
    start, end = recorded.span(1400)[1::2]
    span = {"--start": start, "--end": end}
    span |= dict(zip(options[::2], options[1::2], strict=True))
    text = said(capsys, "workload", "import", "--prometheus", recorded.url, *(w for pair in span.items() for w in pair), code=2)
    assert words in text


def test_a_file_and_a_prometheus_are_told_apart(capsys, tmp_path):
    assert "--query: is used with --prometheus" in said(capsys, "workload", "import", tmp_path / "x.csv", "--query", "x", code=2)
    assert "no source" in said(capsys, "workload", "import", code=2)
    away = ("--prometheus", "http://127.0.0.1:9", "--query", "up", "--start", "now-1d")
    assert "cannot be reached" in said(capsys, "workload", "import", *away, code=1)
