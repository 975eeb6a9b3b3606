"""Traces are read as a stream: any size in little memory, any fault with its line."""

from __future__ import annotations

import csv
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot_envs.workloads import RateSeries, TraceError, TraceWorkload, read_csv, read_trace, write_trace
from scalepilot_envs.workloads.quantiles import order_statistics, quantiles

START = 1_704_067_200
HEADER = "timestamp,requests_per_second"
# More rows than one chunk holds, so that a fault in the last ones has chunks before it.
MANY = 200_000


def stamp(i, step=1):
    return datetime.fromtimestamp(START + i * step, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def many():
    """The lines of a long trace: a header and MANY rows, one a second."""
    moments = np.datetime_as_string(np.arange(START, START + MANY).astype("datetime64[s]"))
    return [HEADER] + [f"{moment}Z,{i % 97}.5" for i, moment in enumerate(moments)]


def written(tmp_path, lines, name="trace.csv", end="\n"):
    path = tmp_path / name
    path.write_bytes(end.join([*lines, ""]).encode())
    return path


def refusal(path, *arguments, **options):
    with pytest.raises(TraceError) as caught:
        read_trace(path, *arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_a_long_trace_is_read_to_the_last_row(tmp_path, many):
    series = read_csv(written(tmp_path, many))
    assert (len(series), series.interval_seconds, series.start_unix_seconds) == (MANY, 1, START)
    np.testing.assert_array_equal(series.rates_rps, np.arange(MANY) % 97 + 0.5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{stamp},-3", ":{line}: requests_per_second '-3' is not allowed; allowed: finite numbers from 0"),
        ("{stamp},nan", ":{line}: requests_per_second 'nan' is not allowed"),
        ("{stamp},1e999", ":{line}: requests_per_second '1e999' is not allowed"),
        ("{stamp},", ":{line}: requests_per_second '' is not allowed"),
        ("{stamp},1 2", ":{line}: requests_per_second '1 2' is not allowed"),
        ("{stamp},1-2", ":{line}: requests_per_second '1-2' is not allowed"),
        ("{stamp}", ":{line}: 1 columns, the header has 2"),
        ("{stamp},1,2", ":{line}: 3 columns, the header has 2"),
        ("2024-13-01T00:00:00Z,1", ":{line}: timestamp '2024-13-01T00:00:00Z' is not a time; allowed: ISO-8601"),
        ("2024-01-01T00:61:00Z,1", ":{line}: timestamp '2024-01-01T00:61:00Z' is not a time"),
        ("{before},1", ":{line}: timestamp '{before}' repeats the time stamp before it; allowed: rising time stamps"),
        ("2023-12-31T23:59:59Z,1", ":{line}: timestamp '2023-12-31T23:59:59Z' is earlier than the row before it"),
        ("{naive},1", ":{line}: timestamp '{naive}' has no zone, those before it have one; allowed: one way for all rows"),
        (
            "{naive} Europe/Berlin,1",
            ":{line}: timestamp '{naive} Europe/Berlin' has the zone 'Europe/Berlin'; allowed: Z, UTC, an",
        ),
        ("{naive}CEST,1", ":{line}: timestamp '{naive}CEST' has the zone 'CEST'; allowed: Z, UTC, an offset such as +02:00"),
        ("{stamp},\xff", ":{line}: requests_per_second 'ÿ' is not allowed"),
        ('{stamp},"1', ":{line}: "),
    ],
)
@pytest.mark.parametrize("row", [3, MANY - 10])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_fault_anywhere_is_named_with_its_line(tmp_path, many, line, message, row, end):
    known = {"stamp": stamp(row), "before": stamp(row - 1), "naive": stamp(row)[:-1], "line": row + 2}
    lines = list(many) if row > 10 else many[:20]
    lines[row + 1] = line.format(**known)
    path = tmp_path / "trace.csv"
    path.write_bytes(end.join([*lines, ""]).encode("latin-1"))
    said = refusal(path)
    if line.endswith('"1'):
        # An open quotation runs on to the end of the file, or until it is too long for a field.
        assert said.startswith(":")
        assert int(said.split(":")[1]) >= row + 2
    else:
        assert said.startswith(message.format(**known))


def test_a_gap_is_named_with_its_line_and_counted_to_the_end(tmp_path, many):
    lines = many[:150_002] + many[150_102:199_000] + many[199_001:]
    path = written(tmp_path, lines)
    assert refusal(path).startswith(":150003: 101 s after the row before it, the grid is 1 s (2 such places); allowed: ")


@pytest.mark.parametrize("gaps", ["linear", "previous"])
def test_gaps_across_chunks_are_filled_as_if_read_at_once(tmp_path, many, gaps):
    keep = np.ones(MANY, dtype=bool)
    keep[np.random.default_rng(0).integers(1, MANY - 1, 300)] = False
    keep[60_000:140_000] = False
    path = written(tmp_path, [many[0]] + [line for line, kept in zip(many[1:], keep, strict=True) if kept])
    points, values = np.flatnonzero(keep), (np.arange(MANY) % 97 + 0.5)[keep]
    expected = (
        np.interp(np.arange(MANY), points, values)
        if gaps == "linear"
        else values[np.searchsorted(points, np.arange(MANY), side="right") - 1]
    )
    np.testing.assert_allclose(read_csv(path, gaps).rates_rps, expected, rtol=1e-9)


VALUES = st.floats(0, 1e12, allow_nan=False) | st.integers(0, 10**6).map(float)


@settings(max_examples=50, deadline=None)
@given(
    rates=st.lists(VALUES, min_size=2, max_size=40),
    interval=st.sampled_from([0.5, 1.0, 15.0, 60.0, 300.0, 86400.0]),
    start=st.integers(0, 4_000_000_000),
    suffix=st.sampled_from([".csv", ".parquet"]),
)
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path_factory, rates, interval, start, suffix):
    path = tmp_path_factory.mktemp("t") / f"trace{suffix}"
    series = RateSeries(np.array(rates), interval, float(start))
    write_trace(series, path)
    back = read_trace(path)
    np.testing.assert_array_equal(back.rates_rps, series.rates_rps)
    assert (back.interval_seconds, back.start_unix_seconds) == (interval, start)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), end=st.sampled_from(["\n", "\r\n", "\r"]), count=st.integers(2, 12))
def test_however_a_row_is_written_it_means_the_same(tmp_path_factory, data, end, count):
    numbers = st.sampled_from(["0", "7", "1.5", "1e2", "+3", " 4", "5 ", "0.1", "12345678.875", "00.50", "1E-3", ".5", "6."])
    quoted = st.sampled_from(["{}", "{}", "{}", '"{}"'])
    lines = [HEADER]
    expected = []
    for i in range(count):
        number = data.draw(numbers)
        lines.append(f"{data.draw(quoted).format(stamp(i, 3600))},{data.draw(quoted).format(number)}")
        lines += [""] * data.draw(st.integers(0, 1))
        expected.append(float(number))
    path = written(tmp_path_factory.mktemp("t"), lines, end=end)
    assert read_csv(path).rates_rps.tolist() == expected


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%S.000Z",
        "%Y-%m-%dT%H:%M:%S+00:00",
        "%Y-%m-%d %H:%M:%S UTC",
        "%Y-%m-%dT%H:%M",
        "%Y%m%dT%H%M%SZ",
    ],
)
def test_every_iso_form_is_read(tmp_path, form):
    lines = [HEADER] + [f"{datetime.fromtimestamp(START + 60 * i, UTC).strftime(form)},{i}" for i in range(2000)]
    series = read_csv(written(tmp_path, lines))
    assert (len(series), series.interval_seconds, series.start_unix_seconds) == (2000, 60, START)


def test_a_change_of_offset_is_no_jump_in_time(tmp_path):
    lines = [HEADER, "2024-03-31T01:30:00+01:00,1", "2024-03-31T03:00:00+02:00,2", "2024-03-31T03:30:00+02:00,3"]
    series = read_csv(written(tmp_path, lines))
    assert series.rates_rps.tolist() == [1, 2, 3]
    assert series.interval_seconds == 1800


def test_quoted_line_breaks_do_not_shift_the_line_numbers(tmp_path, many):
    notes = ['"a\nb"', '"one\n","\ntwo"', "c"]
    rows = [f"{row},{notes[i % 3] if i % 3 == 1 else notes[i % 3] + ','}" for i, row in enumerate(many[1:])]
    path = written(tmp_path, [f"{HEADER},note,more", *rows])
    np.testing.assert_array_equal(read_csv(path).rates_rps, np.arange(MANY) % 97 + 0.5)
    rows[-1] = f"{stamp(MANY - 1)},-1,,"
    last = 1 + "\n".join(rows).count("\n") + 1
    assert refusal(written(tmp_path, [f"{HEADER},note,more", *rows])).startswith(f":{last}: requests_per_second '-1'")


def test_a_line_of_megabytes_is_refused(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(f"{HEADER}\n{stamp(0)},".encode() + b"1" * 9_000_000)
    assert refusal(path).startswith(":2: is not CSV (field larger than field limit")


def test_reading_into_coarser_intervals_takes_their_means(tmp_path, many):
    path = written(tmp_path, many)
    series = read_csv(path, interval_seconds=15)
    whole = MANY // 15
    expected = (np.arange(MANY) % 97 + 0.5)[: whole * 15].reshape(whole, 15).mean(axis=1)
    np.testing.assert_allclose(series.rates_rps, expected)
    assert (series.interval_seconds, series.start_unix_seconds) == (15, START)
    workload = TraceWorkload(path=str(path), interval_seconds=15, peak_rps=500.0)
    assert np.quantile(workload.series().rates_rps, 0.995) == pytest.approx(500)


@pytest.mark.parametrize("seconds", [0.5, 1.5, 7.00001])
def test_an_interval_that_is_no_multiple_of_the_grid_is_refused(tmp_path, many, seconds):
    path = written(tmp_path, many[:50])
    message = f": interval_seconds {seconds:g} is not allowed; allowed: multiples of the recorded grid, 1 s"
    assert refusal(path, interval_seconds=seconds) == message
    assert refusal(path, interval_seconds=3600).startswith(": spans 49 intervals of 1 s; allowed: at least 3600 s")


COUNTER = "timestamp,requests_total"


def test_a_counter_becomes_the_mean_rates_between_its_rows(tmp_path):
    lines = [COUNTER] + [f"{stamp(i, 60)},{count}" for i, count in enumerate([100, 160, 160, 400, 1000])]
    series = read_csv(written(tmp_path, lines))
    assert series.rates_rps.tolist() == [1, 0, 4, 10]
    assert series.start_unix_seconds == START


def test_a_long_counter_loses_nothing_between_chunks(tmp_path, many):
    counts = np.cumsum(np.arange(MANY) % 11)
    lines = [COUNTER] + [f"{line.split(',')[0]},{count}" for line, count in zip(many[1:], counts, strict=True)]
    np.testing.assert_array_equal(read_csv(written(tmp_path, lines)).rates_rps, np.diff(counts))


def test_a_counter_reset_is_refused_with_its_line_or_counted_from_zero(tmp_path):
    lines = [COUNTER] + [f"{stamp(i, 10)},{count}" for i, count in enumerate([1000, 1100, 50, 60])]
    path = written(tmp_path, lines)
    message = (
        ":4: requests_total 50 is below 1100 before it, a counter reset;"
        " allowed: a rising counter, or --counter-resets restart (counter_resets: in YAML)"
    )
    assert refusal(path) == message
    assert read_csv(path, counter_resets="restart").rates_rps.tolist() == [10, 5, 1]
    assert TraceWorkload(path=str(path), counter_resets="restart").series().rates_rps.tolist() == [10, 5, 1]


@pytest.mark.parametrize("at", [[0, 60, 120, 300], [0, 180, 240, 300]])
def test_a_gap_in_a_counter_keeps_the_requests_counted_across_it(tmp_path, at):
    lines = [COUNTER] + [f"{stamp(1, seconds)},{2 * seconds}" for seconds in at]
    path = written(tmp_path, lines)
    assert "180 s after the row before it" in refusal(path)
    assert read_csv(path, "previous").rates_rps.tolist() == [2, 2, 2, 2, 2]


@settings(max_examples=50, deadline=None)
@given(values=st.lists(VALUES | st.just(0.0), min_size=1, max_size=60), share=st.floats(0, 1))
def test_order_statistics_are_those_of_the_sorted_values(values, share):
    array = np.array(values)
    ranks = {0, len(values) - 1, int(share * (len(values) - 1))}
    assert order_statistics(array, ranks) == {rank: np.sort(array)[rank] for rank in ranks}


def test_quantiles_of_a_large_array_are_numpys():
    values = np.random.default_rng(0).gamma(2.0, 30.0, 2_000_001)
    shares = [0.0, 0.5, 0.95, 0.995, 1.0]
    np.testing.assert_allclose(quantiles(values, shares), np.quantile(values, shares), rtol=1e-14)


MEASURE = """
import resource, sys
from pathlib import Path
from scalepilot_envs.workloads import TraceWorkload
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
options = {"interval_seconds": float(sys.argv[2])} if len(sys.argv) > 2 else {"peak_rps": 500.0}
series = TraceWorkload(path=sys.argv[1], **options).series()
print(len(series), 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.slow
def test_memory_grows_by_eight_bytes_a_point_and_not_with_the_file(tmp_path):
    rows, path = 2_400_000, tmp_path / "big.csv"
    write_trace(RateSeries(np.random.default_rng(0).integers(0, 999, rows) / 8, 1.0, START), path)
    assert path.stat().st_size > 60_000_000

    def growth(*options):
        command = [sys.executable, "-c", MEASURE, str(path), *options]
        points, num_bytes = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        return points, num_bytes

    # A gigabyte has at most 46 million rows: 8 bytes each, the 60 MB here and Python's own 50 MB stay below 500 MB.
    points, num_bytes = growth()
    assert points == rows
    assert num_bytes < 8 * rows + 60_000_000
    points, num_bytes = growth("60")
    assert points == rows // 60
    assert num_bytes < 60_000_000


def test_a_trace_is_what_the_csv_module_reads(traces):
    path = traces / "nasa_http_1995_07_1min.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    np.testing.assert_array_equal(read_csv(path).rates_rps, [float(row[1]) for row in rows])
