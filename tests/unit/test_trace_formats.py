"""Traces in Parquet and in the JSON of Prometheus: read like a CSV, refused with their row or sample."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from scalepilot_envs.workloads import TraceError, read_trace

START = 1_704_067_200


def written(tmp_path, text, name):
    path = tmp_path / name
    path.write_text(text)
    return path


def refusal(path):
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def table(tmp_path, stamps, values, column="requests_per_second"):
    path = tmp_path / "trace.parquet"
    parquet.write_table(pa.table({"timestamp": stamps, column: values}), path, row_group_size=7)
    return path


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_parquet_is_read_whatever_the_unit_and_the_zone(tmp_path, unit, zone):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    stamps = pa.array([(START + 60 * i) * per_second for i in range(30)], pa.timestamp(unit, zone))
    series = read_trace(table(tmp_path, stamps, pa.array(range(30))))
    assert series.rates_rps.tolist() == list(range(30))
    assert (series.interval_seconds, series.start_unix_seconds) == (60, START)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {20: -1.0}}, ": row 21: requests_per_second -1.0 is not allowed; allowed: finite numbers from 0"),
        ({"values": {9: float("nan")}}, ": row 10: requests_per_second nan is not allowed"),
        ({"values": {9: None}}, ": row 10: requests_per_second None is not allowed"),
        ({"stamps": {9: None}}, ": row 10: timestamp is empty; allowed: a time in every row"),
        ({"stamps": {9: START + 8}}, ": row 10: timestamp '2024-01-01T00:00:08Z' repeats the time stamp before it"),
        ({"stamps": {9: START + 2}}, ": row 10: timestamp '2024-01-01T00:00:02Z' is earlier than the row before it"),
        ({"stamps": {29: START + 99}}, ": row 30: 71 s after the row before it, the grid is 1 s (1 such places)"),
        ({"column": "latency"}, ": 'latency' does not look like requests; allowed: say --unit"),
    ],
)
def test_a_bad_parquet_file_is_refused_with_its_row(tmp_path, change, message):
    stamps, values = list(range(START, START + 30)), [1.0] * 30
    for i, value in change.get("stamps", {}).items():
        stamps[i] = value
    for i, value in change.get("values", {}).items():
        values[i] = value
    stamps = pa.array(stamps, pa.timestamp("s", "UTC"))
    path = table(tmp_path, stamps, pa.array(values, pa.float64()), change.get("column", "requests_per_second"))
    assert refusal(path).startswith(message)


def test_parquet_of_other_types_or_none_at_all_is_refused(tmp_path):
    assert refusal(table(tmp_path, pa.array(["2024"] * 3), pa.array([1.0] * 3))).startswith(": timestamp has the type string")
    moments = pa.array([1, 2, 3], pa.timestamp("s"))
    assert refusal(table(tmp_path, moments, pa.array(["1"] * 3))).startswith(": no column of numbers beside 'timestamp'")
    assert refusal(written(tmp_path, "no table", "text.parquet")).startswith(": is not a Parquet file that can be read")
    assert refusal(tmp_path / "absent.parquet") == ": no such file"


def answer(tmp_path, *series, **changes):
    result = [{"metric": metric, "values": values} for metric, values in series]
    body = {"status": "success", "data": {"resultType": "matrix", "result": result}} | changes
    path = tmp_path / "range.json"
    path.write_text(json.dumps(body))
    return path


def samples(*values, step=15):
    return [[START + step * i, value] for i, value in enumerate(values)]


def test_a_prometheus_answer_is_read(tmp_path):
    series = read_trace(answer(tmp_path, ({}, samples("1.5", "2", "0"))))
    assert series.rates_rps.tolist() == [1.5, 2, 0]
    assert (series.interval_seconds, series.start_unix_seconds) == (15, START)


def test_a_raw_prometheus_counter_is_converted(tmp_path):
    path = answer(tmp_path, ({"__name__": "http_requests_total"}, samples("0", "30", "15", "45")))
    assert refusal(path).startswith(": sample 3: requests_total 15 is below 30 before it, a counter reset")
    assert read_trace(path, counter_resets="restart").rates_rps.tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([], ": holds no series (an empty matrix); allowed: one; check the query's selector and time range"),
        (
            [({"job": "a", "pod": "x"}, samples("1")), ({"job": "a", "pod": "y"}, samples("1"))],
            ': holds 2 series ({job="a",pod="x"}, {job="a",pod="y"}); allowed: one, --sum to add them up',
        ),
        ([({}, [])], ": the series has no values; allowed: at least two"),
        ([({}, samples("1"))], ": 1 rows; allowed: at least two"),
        (
            [({}, samples("1", "NaN", "2"))],
            ": sample 2: value 'NaN' is not allowed (1 such places); allowed: finite",
        ),
        ([({}, samples("1", "2", "+Inf"))], ": sample 3: value '+Inf' is not allowed"),
        ([({}, samples("1", "2", "-2"))], ": sample 3: value '-2' is not allowed"),
        ([({}, samples("1", "x"))], ": sample 2: [1704067215, 'x'] is not allowed; allowed: [unix seconds, \"value\"]"),
        ([({}, [[START, "1"], 7])], ": sample 2: 7 is not allowed"),
        ([({}, [["NaN", "1"], [START, "1"]])], ": sample 1: time 'NaN' is not allowed; allowed: Unix seconds"),
        ([({}, [*samples("1", "1", "1"), [START + 105, "1"]])], ": sample 4: 75 s after the row before it, the grid is 15 s"),
        ([({}, samples("1", "1") + samples("1"))], ": sample 3: timestamp '2024-01-01T00:00:00Z' is earlier than the row"),
    ],
)
def test_an_unfit_prometheus_answer_is_refused_in_one_line(tmp_path, series, message):
    assert refusal(answer(tmp_path, *series)).startswith(message)


def test_what_is_no_successful_answer_of_a_range_query_is_refused(tmp_path):
    failed = answer(tmp_path, status="error", error="query timed out")
    assert refusal(failed) == ": is no successful answer of Prometheus ('query timed out'); allowed: status success"
    vector = answer(tmp_path, data={"resultType": "vector", "result": []})
    assert refusal(vector).startswith(": resultType 'vector' is not allowed; allowed: matrix")
    assert refusal(answer(tmp_path, data=[])).startswith(": resultType None is not allowed")
    for text in ("", "{", "[" * 100_000, "[]", '"x"', "NaN"):
        said = refusal(written(tmp_path, text, "bad.json"))
        assert said.startswith((": is no", ": holds no", ": looks like an empty file", ": looks like text", ": looks like JSON"))
