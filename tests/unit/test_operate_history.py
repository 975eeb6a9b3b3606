"""Counters read a part at a time, as `workload import --prometheus` does: nothing is lost between the parts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.cli.times import moment
from scalepilot.config import config_from_mapping
from scalepilot.errors import InputError
from scalepilot.learn.algorithms import _trace_notes
from scalepilot.operate.telemetry.counters import Samples
from scalepilot.operate.telemetry.history import Wanted, _long_enough, _ranges
from scalepilot.operate.telemetry.tally import Tally
from scalepilot_envs.workloads import RateSeries, read_trace, trace_notes, write_trace

STEP, NUM = 60.0, 120


def tallied(series, cuts=()):
    """The tally of series that are read in parts, cut at these times; a sample on a cut comes twice, as Prometheus 2 gives it."""
    tally = Tally(0.0, STEP, NUM)
    bounds = [-np.inf, *sorted(cuts), np.inf]
    for low, high in itertools.pairwise(bounds):
        part = []
        for labels, times, values in series:
            within = (times >= low) & (times <= high)
            if within.any():
                part.append(Samples(labels, times[within], values[within]))
        tally.add(part)
    return tally


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_requests_are_conserved_wherever_the_parts_are_cut(data):
    series, total = [], 0.0
    for pod in range(data.draw(st.integers(1, 3))):
        scrape = data.draw(st.sampled_from([15.0, 60.0]))
        # From before the first step to after the last.
        times = -120 + data.draw(st.floats(0, 0.99)) * scrape + scrape * np.arange(int(7500 / scrape))
        rises = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 500, len(times)).astype(float)
        values = np.cumsum(rises) + data.draw(st.integers(0, 10**8))
        if data.draw(st.booleans()):
            at = data.draw(st.integers(3, len(times) - 3))
            values[at:] -= values[at - 1]
        series.append(({"pod": str(pod)}, times, values))
        total += np.diff(np.interp([0.0, STEP * NUM], times, np.cumsum(rises)))[0]
    whole = tallied(series)
    assert whole.counts.sum() == pytest.approx(total, rel=1e-9)
    assert whole.whole() == (0, NUM)
    assert not whole.in_hole.any()
    cuts = data.draw(st.lists(st.sampled_from(list(np.concatenate([times for _, times, _ in series]))), max_size=5))
    parts = tallied(series, cuts)
    np.testing.assert_allclose(parts.counts, whole.counts, rtol=1e-9, atol=1e-6)
    np.testing.assert_array_equal(parts.num_seen, whole.num_seen)


def line(start, end, scrape=15.0, rate=10.0, since=None):
    times = np.arange(start, end, scrape)
    return times, rate * (times - (start if since is None else since))


def test_a_pod_that_was_not_scraped_for_a_while_is_a_hole_and_one_that_was_not_there_is_none():
    all_day = ({"pod": "a"}, *line(-60, 7260, since=-9e5))
    times, values = line(-60, 7260, since=-9e5)
    hole = (times > 1800) & (times < 5400)
    found = tallied([all_day, ({"pod": "b"}, times[~hole], values[~hole])], cuts=[3000.0, 4000.0])
    assert found.in_hole[31:89].all()
    assert not found.in_hole[:29].any()
    assert not found.in_hole[91:].any()
    assert found.counts.sum() == pytest.approx(2 * 10 * 7200)
    assert found.num_seen[60] == 1
    # The same pod again from zero: it had been scaled away.
    back = np.where(times >= 5400, 10 * (times - 5395), values)
    found = tallied([all_day, ({"pod": "b"}, times[~hole], back[~hole])])
    assert not found.in_hole.any()
    np.testing.assert_allclose(found.counts[32:88], 600)
    np.testing.assert_allclose(found.counts[92:], 1200)


def test_a_new_pod_counts_from_zero_and_an_old_one_scraped_for_the_first_time_does_not():
    all_day = ({"pod": "a"}, *line(-60, 7260, since=-9e5))
    found = tallied([all_day, ({"pod": "b"}, *line(3605, 7260, since=3595))])
    assert found.counts.sum() == pytest.approx(10 * 7200 + 10 * (7200 - 3595))
    found = tallied([all_day, ({"pod": "b"}, *line(3605, 7260, since=-9e5))])
    assert found.counts.sum() == pytest.approx(10 * 7200 + 10 * (7200 - 3605))
    assert found.counts.max() <= 1201


def test_losses_count_where_they_last():
    lost = np.zeros(60, dtype=bool)
    lost[[5, 20, 21, 22]] = True
    found = np.flatnonzero(_long_enough(lost, 60.0, 120.0, 60.0))
    assert found.tolist() == [18, 19, 20, 21, 22, 23]


def test_ranges_of_an_expression_are_read_as_promql_writes_them():
    assert _ranges("sum(rate(a[5m])) + max_over_time(b[1h30m:1m]) + c[250ms]") == [300, 5400, 0.25]
    assert _ranges("sum(a)") == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-01", 1793491200.0),
        ("2026-11-01T06:00Z", 1793512800.0),
        ("2026-11-01T06:00+02:00", 1793505600.0),
        ("1793491200", 1793491200.0),
        # 1.8e9 is 15 January 2027, 08:00.
        ("07:45", 1.8e9 - 900),
        ("07:45:30Z", 1.8e9 - 870),
        ("7:45", 1.8e9 - 900),
        ("07:45+02:00", 1.8e9 - 900 - 7200),
        ("now", 1.8e9),
        ("now-21d", 1.8e9 - 21 * 86_400),
        ("now - 1.5h", 1.8e9 - 5400),
    ],
)
def test_times_are_read_as_people_write_them(text, seconds):
    assert moment(text, "--start", 1.8e9) == seconds


@pytest.mark.parametrize("text", ["yesterday", "now+1d", "21d", "2026-13-01", "2026", "7", "", "nan", "1e9"])
def test_other_times_are_refused(text):
    with pytest.raises(InputError, match="--start: "):
        moment(text, "--start", 1.8e9)


def test_too_many_or_too_few_steps_are_refused():
    with pytest.raises(InputError, match="is not two steps"):
        Wanted("x", 0.0, 60.0)
    with pytest.raises(InputError, match="by a longer --step"):
        Wanted("x", 0.0, 3e8, 60.0)


def test_a_trace_says_where_it_comes_from_and_its_policy_keeps_that(tmp_path):
    notes = {"prometheus": "http://p:9090", "query": 'sum(rate(a{b="c, d"}[5m]))\n  / 2'}
    series = RateSeries(np.arange(400.0), 60.0, 1.7e9)
    for name in ("a.csv", "a.parquet"):
        write_trace(series, tmp_path / name, notes)
        assert trace_notes(tmp_path / name)["query"].split() == notes["query"].split()
        np.testing.assert_array_equal(read_trace(tmp_path / name).rates_rps, series.rates_rps)
    write_trace(series, tmp_path / "plain.csv")
    for name in ("plain.csv", "absent.csv", "."):
        assert trace_notes(tmp_path / name) == {}
    config = config_from_mapping({"workload": {"kind": "trace", "path": str(tmp_path / "a.csv")}})
    assert _trace_notes(config)["prometheus"] == "http://p:9090"
