"""Workloads: the same description is the same series, and a bad trace is refused with its file and line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scalepilot_envs.workloads import (
    WORKLOADS,
    DiurnalWorkload,
    MarkovWorkload,
    RateSeries,
    TraceError,
    TraceWorkload,
    Workload,
    part_of,
    read_csv,
    workload_from_mapping,
)

HEADER = "timestamp,requests_per_second\n"


def minute(i):
    return f"2024-01-01T{i // 60:02d}:{i % 60:02d}:00Z"


def rows(*values):
    return "".join(f"{minute(i)},{value}\n" for i, value in enumerate(values))


def trace(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "trace.csv"
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


def test_a_trace_is_read_as_it_stands(tmp_path):
    series = read_csv(trace(tmp_path, HEADER + rows(1, 2.5, 0, 1e2)))
    assert series.rates_rps.tolist() == [1, 2.5, 0, 100]
    assert series.interval_seconds == 60
    assert series.start_unix_seconds == 1_704_067_200


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + HEADER + rows(1, 2, 3),
        (HEADER + rows(1, 2, 3)).replace("\n", "\r\n"),
        HEADER + "\n" + rows(1, 2, 3) + "\n\n",
        "timestamp,requests_per_second,note\n" + rows("1,a", "2,b", "3,c"),
        (HEADER + rows(1, 2, 3)).replace("Z", ""),
        (HEADER + rows(1, 2, 3)).replace("T00:", "T02:").replace("Z", "+02:00"),
        ' timestamp , requests_per_second \n"2024-01-01T00:00:00Z"," 1"\n' + rows(0, 2, 3).split("\n", 1)[1],
    ],
    ids=["byte-order mark", "CRLF", "blank lines", "more columns", "no zone is UTC", "another zone", "quotes and spaces"],
)
def test_a_trace_may_come_from_any_tool(tmp_path, text):
    series = read_csv(trace(tmp_path, text))
    assert series.rates_rps.tolist() == [1, 2, 3]
    assert series.start_unix_seconds == 1_704_067_200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": looks like an empty file, not like a trace; allowed: CSV such as timestamp,requests_per_second"),
        ("time,latency\n" + rows(1, 2), ": 'latency' does not look like requests; allowed: say --unit"),
        (HEADER, ": 0 rows; allowed: at least two"),
        (HEADER + rows(1), ": 1 rows; allowed: at least two"),
        (HEADER + rows(1, -2, 3), ":3: requests_per_second '-2' is not allowed; allowed: finite numbers from 0"),
        (HEADER + rows(1, "nan", 3), ":3: requests_per_second 'nan' is not allowed"),
        (HEADER + rows(1, 2, "inf"), ":4: requests_per_second 'inf' is not allowed"),
        (HEADER + rows(1, 2, "1e400"), ":4: requests_per_second '1e400' is not allowed"),
        (HEADER + rows(1, "", 3), ":3: requests_per_second '' is not allowed"),
        (HEADER + rows(1, "12,5"), ":3: 3 columns, the header has 2; allowed: timestamp,requests_per_second"),
        (HEADER + rows(1, 2) + "yesterday,3\n", ":4: timestamp 'yesterday' is not a time; allowed: ISO-8601"),
        (HEADER + rows(1, 2) + minute(9) + "\n", ":4: 1 columns, the header has 2; allowed: timestamp,requests_per_second"),
        (HEADER + rows(1, 2) + f"{minute(1)},3\n", ":4: timestamp '2024-01-01T00:01:00Z' repeats the time stamp before it"),
        (HEADER + rows(1, 2) + f"{minute(0)},3\n", ":4: timestamp '2024-01-01T00:00:00Z' is earlier than the row before it"),
        (HEADER + rows(1, 2, 3) + f"\n\n{minute(9)},3\n", ":7: 420 s after the row before it, the grid is 60 s (1 such places)"),
    ],
)
def test_a_bad_trace_is_refused_with_its_file_and_line(tmp_path, text, message):
    path = trace(tmp_path, text)
    with pytest.raises(TraceError) as caught:
        read_csv(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_a_trace_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(TraceError, match="no such file"):
        read_csv(tmp_path / "absent.csv")
    with pytest.raises(TraceError, match="cannot be read"):
        read_csv(tmp_path)
    with pytest.raises(TraceError, match="looks like text that begins"):
        read_csv(trace(tmp_path, b"timestamp,requests_per_second\n\xff\xfe\n"))
    with pytest.raises(TraceError, match=r":2: is not CSV \(field larger"):
        read_csv(trace(tmp_path, HEADER + "x" * 200_000 + ",1\n"))


def test_a_file_of_ten_gigabytes_of_nothing_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(TraceError, match="looks like a file of blanks, not like a trace"):
        read_csv(path)


def test_gaps_are_filled_only_when_asked(tmp_path):
    path = trace(tmp_path, HEADER + rows(1, 2, 3) + f"{minute(5)},9\n")
    with pytest.raises(TraceError, match="180 s after the row before it"):
        read_csv(path)
    assert read_csv(path, "linear").rates_rps.tolist() == [1, 2, 3, 5, 7, 9]
    assert read_csv(path, "previous").rates_rps.tolist() == [1, 2, 3, 3, 3, 9]


def test_a_time_stamp_off_the_grid_is_a_gap_like_any_other(tmp_path):
    path = trace(tmp_path, HEADER + rows(1, 2, 3) + "2024-01-01T00:03:30Z,4\n2024-01-01T00:04:00Z,5\n")
    with pytest.raises(TraceError, match=":5: 90 s after the row before it"):
        read_csv(path)


def test_a_gap_of_years_is_refused_before_it_fills_the_memory(tmp_path):
    path = trace(
        tmp_path, HEADER + "2000-01-01T00:00:00Z,1\n2000-01-01T00:00:01Z,1\n2000-01-01T00:00:02Z,1\n9000-01-01T00:00:00Z,1\n"
    )
    with pytest.raises(TraceError, match=r"spans 220898707200 intervals of 1 s; allowed: up to"):
        read_csv(path, "previous")


def test_a_peak_scales_the_upper_quantile_and_nothing_else_about_the_shape(tmp_path):
    path = trace(tmp_path, HEADER + rows(*range(60)))
    recorded, scaled = (TraceWorkload(path=str(path), peak_rps=peak).series() for peak in (None, 500.0))
    assert np.quantile(scaled.rates_rps, 0.995) == pytest.approx(500)
    np.testing.assert_allclose(scaled.rates_rps[1:] / recorded.rates_rps[1:], 500 / np.quantile(recorded.rates_rps, 0.995))


def test_a_silent_trace_cannot_be_scaled(tmp_path):
    with pytest.raises(ValueError, match=r"99.5% quantile is 0 requests/s; it cannot be scaled to 500"):
        TraceWorkload(path=str(trace(tmp_path, HEADER + rows(0, 0, 0))), peak_rps=500.0).series()


RECORDED = {
    "nasa_http_1995_07_1min": (39_692, 60, 0.794),
    "aws_elb_2014_04_5min": (4_040, 300, 0.206),
    "servegen_m_large_10min": (2_016, 600, 195.8),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_traces_have_the_rows_and_the_mean_of_their_readme(traces, name):
    count, interval, mean = RECORDED[name]
    series = read_csv(traces / f"{name}.csv")
    assert (len(series), series.interval_seconds) == (count, interval)
    assert series.rates_rps.mean() == pytest.approx(mean, rel=2e-3)


def test_the_smaller_recorded_traces_are_readable(traces):
    for path in sorted(Path(traces).glob("*.csv")):
        if path.stat().st_size < 500_000:
            assert len(read_csv(path)) > 1000


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_workload_is_its_description(tmp_path, kind):
    path = trace(tmp_path, HEADER + rows(*range(30)))
    description = {"kind": kind} | ({"path": str(path)} if kind == "trace" else {})
    first, second = (workload_from_mapping(description) for _ in range(2))
    assert isinstance(first, Workload)
    assert first == second
    assert first.kind == kind
    np.testing.assert_array_equal(first.series().rates_rps, second.series().rates_rps)
    assert workload_from_mapping(first) is first


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({}, "workload.kind: None is not allowed; allowed: steady, sine_curve, "),
        ({"kind": "diurnl"}, "workload.kind: 'diurnl' is not allowed; allowed: steady, "),
        ({"kind": ["x"]}, "workload.kind: ['x'] is not allowed"),
        ({"kind": "diurnal", "day": 2}, "workload.day: unknown key; allowed: kind, days"),
        ({"kind": "trace"}, "workload.path: is empty"),
        ({"kind": "diurnal", "days": 0}, "workload.days: 0 is not allowed"),
        ({"kind": "diurnal", "days": float("inf")}, "workload.days: inf is not allowed"),
        ({"kind": "diurnal", "low_rps": -1}, "workload.low_rps: -1 is not allowed"),
        ({"kind": "diurnal", "noise_correlation": 1.0}, "workload.noise_correlation: 1.0 is not allowed"),
        ({"kind": "diurnal", "flash_crowd_factor": 0}, "workload.flash_crowd_factor: 0 is not allowed"),
        ({"kind": "diurnal", "seed": -1}, "workload.seed: -1 is not allowed"),
        ({"kind": "diurnal", "peak_rps": 0}, "workload.peak_rps: 0 is not allowed"),
        ({"kind": "markov", "levels_rps": [3]}, "workload.levels_rps: 1 levels are not allowed; allowed: 2 to 32"),
        ({"kind": "markov", "levels_rps": 3}, "workload.levels_rps: 3 is not allowed; allowed: finite numbers from 0"),
        ({"kind": "markov", "levels_rps": [3, -1]}, "workload.levels_rps: [3, -1] is not allowed"),
        (
            {"kind": "markov", "mean_sojourn_seconds": [3, 60]},
            "workload.mean_sojourn_seconds: [3, 60] is not allowed; allowed: 2 times from the interval of 15 s",
        ),
        ({"kind": "markov", "transitions": [[0.5, 0.5]]}, "workload.transitions: [[0.5, 0.5]] is not allowed; allowed: 2 rows"),
        ({"kind": "markov", "transitions": [[0.5, 0.6], [0, 1]]}, "workload.transitions.0: [0.5, 0.6] sums to 1.1; allowed: 2"),
        (
            {"kind": "markov", "transitions": [[1, 0], [0.5, 0.5]]},
            "workload.transitions: some phase is never reached",
        ),
        (
            {"kind": "markov", "transitions": [[0.5, 0.5]] * 2, "mean_sojourn_seconds": [60, 60]},
            "workload.transitions: is given beside mean_sojourn_seconds; allowed: one of both",
        ),
    ],
)
def test_an_unfit_description_is_refused_by_key(description, message):
    with pytest.raises(ValueError) as caught:
        workload_from_mapping(description)
    assert str(caught.value).startswith(message)


def test_a_day_without_noise_swings_from_midnight_to_noon():
    calm = DiurnalWorkload(days=1, low_rps=10, high_rps=30, noise_sigma=0, flash_crowd_every_hours=0).series()
    assert calm.rates_rps[0] == pytest.approx(10)
    assert calm.rates_rps[720] == pytest.approx(30)
    assert calm.rates_rps[360] == pytest.approx(20)
    assert len(calm) == 1440


def test_noise_keeps_the_mean_and_flash_crowds_multiply():
    calm, noisy = (DiurnalWorkload(days=20, noise_sigma=s, flash_crowd_every_hours=0).series().rates_rps for s in (0, 0.25))
    assert noisy.mean() == pytest.approx(calm.mean(), rel=0.02)
    log_noise = np.log(noisy / calm)
    assert log_noise.std() == pytest.approx(0.25, rel=0.05)
    assert np.corrcoef(log_noise[1:], log_noise[:-1])[0, 1] == pytest.approx(0.9, abs=0.02)
    crowded = DiurnalWorkload(days=20, noise_sigma=0, flash_crowd_every_hours=6, flash_crowd_factor=3).series().rates_rps
    factor = crowded / calm
    assert set(np.round(factor, 6)) == {1.0, 3.0}
    assert (factor > 2).mean() == pytest.approx(10 / 360, rel=0.25)


def test_a_markov_chain_moves_as_its_probabilities_say():
    matrix = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.4, 0.0, 0.6]])
    workload = MarkovWorkload(levels_rps=(10, 50, 30), transitions=tuple(map(tuple, matrix.tolist())), num_steps=300_000)
    phases = workload.phases()
    for phase in range(3):
        after = phases[1:][phases[:-1] == phase]
        np.testing.assert_allclose(np.bincount(after, minlength=3) / len(after), matrix[phase], atol=0.01)
    np.testing.assert_allclose(workload.stationary @ matrix, workload.stationary, atol=1e-12)
    np.testing.assert_allclose(np.bincount(phases) / len(phases), workload.stationary, atol=0.01)
    np.testing.assert_array_equal(workload.series().rates_rps, np.array([10.0, 50.0, 30.0])[phases])
    scaled = replace(workload, peak_rps=500.0)
    np.testing.assert_array_equal(scaled.series().rates_rps, scaled.scaled_levels_rps()[phases])
    assert np.quantile(scaled.series().rates_rps, 0.995) == pytest.approx(500)


def test_sojourns_of_a_markov_chain_have_their_mean():
    workload = MarkovWorkload(levels_rps=(10, 50, 90), mean_sojourn_seconds=(600, 60, 15))
    np.testing.assert_allclose(workload.transition_matrix, [[0.975, 0.0125, 0.0125], [0.125, 0.75, 0.125], [0.5, 0.5, 0]])
    assert (workload.phases() != replace(workload, seed=1).phases()).any()


def test_another_seed_is_another_series():
    first, second = (DiurnalWorkload(days=1, seed=s).series().rates_rps for s in (0, 1))
    assert (first != second).all()


def test_the_parts_split_the_time_and_leave_nothing_out():
    series = RateSeries(np.arange(1000.0), 15.0, start_unix_seconds=60.0)
    parts = [series.part(p) for p in ("train", "validation", "test")]
    assert [len(p) for p in parts] == [700, 150, 150]
    np.testing.assert_array_equal(np.concatenate([p.rates_rps for p in parts]), series.rates_rps)
    assert [p.start_unix_seconds for p in parts] == [60, 60 + 700 * 15, 60 + 850 * 15]
    assert len(series.part("all")) == 1000
    with pytest.raises(ValueError, match="part: 'tests' is not allowed; allowed: train, validation, test, all"):
        series.part("tests")


def test_windows_are_disjoint_or_drawn_and_never_leave_the_series():
    series = RateSeries(np.arange(105.0), 15.0)
    starts = series.window_starts(20)
    assert starts.tolist() == [0, 20, 40, 60, 80]
    np.testing.assert_array_equal(series.windows(starts, 20).ravel(), np.arange(100.0))
    drawn = series.drawn_starts(20, 500, np.random.default_rng(0))
    assert (drawn.min(), drawn.max()) == (0, 84)
    with pytest.raises(ValueError, match="window: 200 steps is longer than the series"):
        series.window_starts(200)
    with pytest.raises(ValueError, match="leaves nothing to draw from"):
        series.drawn_starts(105, 1, np.random.default_rng(0))


def test_resampling_is_linear_between_the_points():
    series = RateSeries(np.array([0.0, 4.0, 0.0]), 60.0)
    assert series.resampled(15.0).rates_rps.tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert part_of(series_workload(series), "all", 15.0).interval_seconds == 15
    with pytest.raises(ValueError, match="at least two"):
        RateSeries(np.ones(1), 60.0).resampled(15.0)


def series_workload(series):
    class Ready:
        kind = "ready"

        def series(self):
            return series

    return Ready()


@pytest.mark.parametrize("rates", [[], [[1.0]], [1.0, -1.0], [1.0, np.nan], [np.inf]])
def test_a_series_of_anything_but_rates_is_refused(rates):
    with pytest.raises(ValueError, match=r"rates_rps: .* allowed: "):
        RateSeries(np.array(rates), 15.0)


@pytest.mark.parametrize("interval", [0.0, -15.0, float("nan")])
def test_a_series_without_a_grid_is_refused(interval):
    with pytest.raises(ValueError, match=r"interval_seconds: .* allowed: "):
        RateSeries(np.ones(3), interval)
