"""`scalepilot workload import`: what was recognised is shown, nothing is left behind, and requests are conserved."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.commands import said
from tests.unit.test_import_dialects import DATA, START, TWO_PODS, iso, lines, matrix, samples

from scalepilot_envs.workloads import Said, TraceError, TraceWorkload, import_trace, read_trace


def test_what_was_recognised_is_shown_and_the_next_command_works(capsys, tmp_path):
    text = said(capsys, "workload", "import", DATA / "grafana_formatted.csv")
    assert "recognised: Grafana's CSV; requests per second, as written beside the numbers" in text
    assert "value column 'checkout'" in text
    assert "times without a zone, taken as UTC" in text
    assert f"scalepilot train tune_configs/autoscale-ppo.yaml --workload {DATA / 'grafana_formatted.csv'}" in text
    shown = json.loads(said(capsys, "workload", "import", DATA / "prom_counter_nginx.json", "--json"))
    assert shown["recognised"]["unit"].startswith("a rising counter of requests, 600 whole numbers that rise to 1,660,285")
    assert shown["requests_per_second"]["mean"] == pytest.approx(46.13, abs=0.01)
    # What is read from the numbers alone is written, and so looked at, before it is trained on.
    assert shown["train"] == f"scalepilot workload import {DATA / 'prom_counter_nginx.json'} --out trace.csv"
    out = tmp_path / "trace.csv"
    said(capsys, "workload", "import", DATA / "prom_counter_nginx.json", "--out", out)
    assert read_trace(out).rates_rps.mean() == pytest.approx(46.13, abs=0.01)


def test_one_refusal_names_the_unit_and_the_option_says_it(capsys):
    path = DATA / "cloudwatch_sum_per_minute.csv"
    refused = said(capsys, "workload", "import", path, code=2)
    assert "the unit of 'value' is not told (whole numbers, 2,767.13 on average); allowed: say --unit rps, rpm" in refused
    shown = json.loads(said(capsys, "workload", "import", path, "--unit", "count", "--json"))
    assert shown["requests_per_second"]["mean"] == pytest.approx(46.12, abs=0.01)
    assert shown["train"].endswith("--unit count --out trace.csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_refused_import_leaves_no_file_and_none_is_overwritten(capsys, tmp_path, suffix):
    folder = tmp_path / "out"
    folder.mkdir()
    out = folder / f"out{suffix}"
    short = tmp_path / "short.csv"
    short.write_text(lines(*(f"{iso(i)},{i % 3}" for i in range(6))))
    for source in (short, DATA / "empty_cells.csv", DATA / "cloudwatch_sum_per_minute.csv", tmp_path / "absent"):
        said(capsys, "workload", "import", source, "--out", out, code=2)
        assert list(folder.iterdir()) == []
    out.write_text("mine")
    assert "exists already" in said(capsys, "workload", "import", DATA / "jitter.csv", "--out", out, code=2)
    assert out.read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == [out.name]


def test_a_short_trace_of_a_fine_grid_is_trained_on_at_its_own_interval(capsys, tmp_path):
    path = tmp_path / "load-test.csv"
    path.write_text(lines(*(f"{START + i},{i % 7}" for i in range(120))))
    assert "--set env.params.interval_seconds=1 --set evaluation.window_steps=15" in said(capsys, "workload", "import", path)
    path.write_text(lines(*(f"{START + i},{i % 7}" for i in range(20))))
    assert "spans 19 decisions of 1 s; allowed: at least 30" in said(capsys, "workload", "import", path, code=2)


def test_training_takes_what_says_itself_what_it_is_and_asks_for_an_import_of_the_rest():
    series = TraceWorkload(path=str(DATA / "plain.csv.gz")).series()
    assert series.rates_rps.mean() == pytest.approx(46.12, abs=0.01)
    # Whatever is scaled to a peak may be a rate or a count.
    counts = TraceWorkload(path=str(DATA / "cloudwatch_sum_per_minute.csv"), peak_rps=500.0).series()
    assert np.quantile(counts.rates_rps, 0.995) == pytest.approx(500)
    for name, words in (("cloudwatch_sum_per_minute.csv", "--unit"), ("prom_counter_nginx.json", "scalepilot workload import")):
        with pytest.raises(TraceError, match=words):
            TraceWorkload(path=str(DATA / name)).series()


def test_options_that_nothing_can_use_are_refused(capsys, tmp_path):
    assert "--unit: spike is no trace's file" in said(capsys, "workload", "show", "spike", "--unit", "rps", code=2)
    for option, value in (
        ("--delimiter", "ab"),
        ("--interval-seconds", "0"),
        ("--interval-seconds", "nan"),
        ("--timezone", "Mars"),
    ):
        refused = said(capsys, "workload", "import", DATA / "european.csv", option, value, code=2)
        assert f"{option}:" in refused
    assert refused.count("\n") == 1


RATES = st.lists(st.integers(0, 500_000).map(lambda cents: cents / 100), min_size=4, max_size=60)


@settings(max_examples=15, deadline=None)
@given(rates=RATES, step=st.sampled_from([1, 15, 60, 300]), data=st.data())
def test_requests_are_conserved_in_every_form(tmp_path_factory, rates, step, data):
    start = START + step * data.draw(st.integers(0, 1000))
    stamps = [start + step * i for i in range(len(rates))]
    moments = np.array(stamps, "datetime64[s]").astype(str).tolist()
    counts = [round(rate * step) for rate in rates]
    totals = np.cumsum([data.draw(st.integers(0, 10**9)), *counts]).tolist()
    asked_for, counted = sum(rates) * step, sum(counts)
    swapped = data.draw(st.permutations(range(len(rates))))
    forms = [
        (lines(*(f"{t}Z,{r}" for t, r in zip(moments, rates, strict=True))), {}, asked_for),
        (lines(*(f"{t}000,{r}" for t, r in zip(stamps, rates, strict=True)), header="Time,web"), {"unit": "rps"}, asked_for),
        (lines(*(f"{t};{str(r).replace('.', ',')}" for t, r in zip(moments, rates, strict=True)), header="t;rps"), {}, asked_for),
        (matrix(({}, [[t, str(r)] for t, r in zip(stamps, rates, strict=True)])), {"unit": "rps"}, asked_for),
        (lines(*(f"{t},{c}" for t, c in zip(stamps, counts, strict=True)), header="time,count"), {"unit": "count"}, counted),
        (matrix(({"__name__": "x_requests_total"}, samples(totals, start, step))), {}, counted),
        (json.dumps({"Label": "RequestCount", "Datapoints": [
            {"Timestamp": moments[i] + "Z", "Sum": counts[i], "Unit": "Count"} for i in swapped]}), {}, counted),
        ("".join(f'h - - [{m[8:10]}/Mar/2024:{m[11:]} +0000] "GET /" 200 1\n' for m in moments if m[5:7] == "03"), {}, None),
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("t") / "traffic"
    for text, options, expected in forms:
        path.write_text(text)
        series = import_trace(path, Said(**options)).series
        expected = text.count("GET") if expected is None else expected
        assert series.rates_rps.sum() * series.interval_seconds == pytest.approx(expected, rel=1e-9, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.integers(1, 84), min_size=4, max_size=80), data=st.data())
def test_requests_are_conserved_whenever_samples_come(tmp_path_factory, steps, data):
    """A counter's rise is never lost, and a rate's samples count for as long as they hold."""
    stamps = START + np.cumsum([0, *steps])
    rises = [data.draw(st.integers(0, 5000)) for _ in steps]
    path = tmp_path_factory.mktemp("t") / "traffic"
    path.write_text(lines(*(f"{t},{r}" for t, r in zip(stamps, [*rises, 0], strict=True)), header="time,rps"))
    held = import_trace(path, Said(gaps="previous")).series
    jitter = 0.2 * held.interval_seconds * max(rises) * 2 * len(rises)
    asked_for = sum(rise * step for rise, step in zip(rises, steps, strict=True))
    assert held.rates_rps.sum() * held.interval_seconds == pytest.approx(asked_for, rel=1e-6, abs=jitter + 1e-6)
    totals = np.cumsum([7, *rises])
    path.write_text(lines(*(f"{t},{c}" for t, c in zip(stamps, totals, strict=True)), header="time,requests_total"))
    series = import_trace(path, Said(gaps="linear")).series
    assert series.rates_rps.sum() * series.interval_seconds == pytest.approx(sum(rises), rel=1e-6, abs=1e-6)
    assert series.rates_rps.min() >= 0


def test_rates_at_times_of_their_own_count_for_as_long_as_they_hold(tmp_path):
    rng = np.random.default_rng(1)
    steps = rng.integers(5, 80, 200)
    stamps, rates = START + np.cumsum([0, *steps]), [*rng.integers(0, 1000, 200).tolist(), 0]
    path = tmp_path / "traffic"
    path.write_text(lines(*(f"{t},{r}" for t, r in zip(stamps, rates, strict=True)), header="time,rps"))
    for interval in (None, 60, 45):
        series = import_trace(path, Said(gaps="previous", interval_seconds=interval)).series
        assert interval in (None, series.interval_seconds)
        expected = float(np.dot(rates[:-1], steps))
        assert series.rates_rps.sum() * series.interval_seconds == pytest.approx(expected, rel=1e-6)


def test_a_bomb_is_refused_before_it_is_unpacked_whole(tmp_path):
    path = tmp_path / "bomb.csv.gz"
    head = gzip.compress(b"timestamp,requests_per_second\n2024-01-01T00:00:00Z,1\n2024-01-01T00:01:00Z,1\n")
    path.write_bytes(head + 200 * gzip.compress(b"\n" * 1_000_000))
    with pytest.raises(TraceError, match="gzip unpacks to more than 250 times its size"):
        import_trace(path)


def test_two_pods_are_added_up_by_the_command(capsys, tmp_path):
    path = Path(tmp_path / "pods.json")
    path.write_text(TWO_PODS)
    assert "--sum to add them up" in said(capsys, "workload", "import", path, code=2)
    assert "the sum of 2 series" in said(capsys, "workload", "import", path, "--sum")
