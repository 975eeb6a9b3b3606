"""Recorded traffic in the shapes that people bring: read with the right mean and peak, or refused in a line that says why."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from scalepilot_envs.workloads import Said, TraceError, import_trace

DATA = Path(__file__).parents[1] / "data" / "traffic"
START = 1_709_546_400
N = 240
# Requests counted in each minute, up and down as traffic goes.
COUNTS = [int(1500 + 900 * np.sin(i / 37) + 211 * ((i * 7919) % 13) / 13) for i in range(N)]
RATES = [round(count / 60, 2) for count in COUNTS]
MOMENTS = [datetime.fromtimestamp(START + 60 * i, UTC) for i in range(N)]
TOTALS = np.cumsum([987, *COUNTS]).tolist()


def lines(*rows, header="timestamp,requests_per_second", end="\n"):
    return end.join([*([header] if header else []), *rows, ""])


def table(stamp, value=lambda i: RATES[i], header="timestamp,requests_per_second", mark=","):
    return lines(*(f"{stamp(i)}{mark}{value(i)}" for i in range(N)), header=header)


def iso(i):
    return MOMENTS[i].strftime("%Y-%m-%dT%H:%M:%SZ")


def form(text):
    return lambda i: MOMENTS[i].strftime(text)


def comma(number):
    return str(number).replace(".", ",")


def excel(i):
    return f"{(START + 60 * i) / 86_400 + 25_569:.6f}"


def matrix(*series, **more):
    result = [{"metric": metric, "values": values} for metric, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}} | more)


def samples(values, start=START, step=60):
    return [[start + step * i, str(value)] for i, value in enumerate(values)]


def azure(**point):
    data = [{"timeStamp": iso(i)} | {key: value(i) for key, value in point.items()} for i in range(N)]
    metric = {"name": {"value": "Requests"}, "unit": "Count", "timeseries": [{"metadatavalues": [], "data": data}]}
    return json.dumps({"interval": "PT1M", "namespace": "Microsoft.Web/sites", "value": [metric]})


def datadog(values, **more):
    points = [[(START + 60 * i) * 1000.0, values[i]] for i in range(N)]
    return json.dumps({"status": "ok", "series": [{"metric": "trace.web.hits", "pointlist": points, "interval": 60} | more]})


def packed(text, name="traffic.csv"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, text)
    return out.getvalue()


def columns(**data):
    out = io.BytesIO()
    parquet.write_table(pa.table(data), out)
    return out.getvalue()


PLAIN = table(iso)
SPLIT = [[count // 3 for count in COUNTS], [count - count // 3 for count in COUNTS]]
RESTARTED = [total if i < 100 else total - TOTALS[99] for i, total in enumerate(TOTALS)]
TWO_PODS = matrix(
    ({"__name__": "http_requests_total", "pod": "a"}, samples(np.cumsum([5, *SPLIT[0]]).tolist())),
    ({"__name__": "http_requests_total", "pod": "b"}, samples(np.cumsum([9, *SPLIT[1]]).tolist())),
)
K6_HEADER = "metric_name,timestamp,metric_value,check,error,method,name,status,url"
MEAN, PEAK = float(np.mean(COUNTS)) / 60, max(COUNTS) / 60
# Only one of the two decimals of the rates is lost in a text with one.
EXACT, ROUNDED, COARSE = 0.006, 0.06, 0.6

READ = {
    "plain": (PLAIN, {}, EXACT),
    "byte-order mark": ("\ufeff" + PLAIN, {}, EXACT),
    "UTF-16": (PLAIN.encode("utf-16"), {}, EXACT),
    "UTF-16 big-endian without a mark": (PLAIN.encode("utf-16-be"), {}, EXACT),
    "latin-1 header": (table(iso, header="Zeitstempel,Aufrufe/s für Köln").encode("latin-1"), {}, EXACT),
    "gzip": (gzip.compress(PLAIN.encode()), {}, EXACT),
    "bzip2": (bz2.compress(PLAIN.encode()), {}, EXACT),
    "xz": (lzma.compress(PLAIN.encode()), {}, EXACT),
    "zip": (packed(PLAIN), {}, EXACT),
    "Zstandard": (pa.Codec("zstd").compress(PLAIN.encode(), asbytes=True), {}, EXACT),
    "Excel's sep line": ("sep=;\r\n" + table(iso, mark=";", header="timestamp;rps"), {}, EXACT),
    "tabs": (table(iso, mark="\t", header="time\treq/s"), {}, EXACT),
    "bars": (table(iso, mark="|", header="time|requests/sec"), {}, EXACT),
    "a comma said": (table(iso), {"delimiter": ","}, EXACT),
    "Unix seconds": (table(lambda i: START + 60 * i, header="ts,qps"), {}, EXACT),
    "Unix seconds with a fraction": (table(lambda i: f"{START + 60 * i}.000", header="ts,qps"), {}, EXACT),
    "Unix milliseconds": (table(lambda i: (START + 60 * i) * 1000, header="epoch_ms,tps"), {}, EXACT),
    "Unix microseconds": (table(lambda i: (START + 60 * i) * 10**6, header="time,tps"), {}, EXACT),
    "Unix nanoseconds": (table(lambda i: (START + 60 * i) * 10**9, header="time,tps"), {}, EXACT),
    "Excel's days": (table(excel, header="Date,Requests/s"), {}, EXACT),
    "Excel's days with commas": (
        table(lambda i: comma(excel(i)), lambda i: comma(RATES[i]), "Datum;Anfragen/s", ";"), {}, EXACT,
    ),
    "day first": (table(form("%d.%m.%Y %H:%M"), lambda i: comma(RATES[i]), "Datum;Anfragen pro Sekunde", ";"), {}, EXACT),
    "day first, said": (table(form("%d/%m/%Y %H:%M:%S")), {"date_order": "dmy"}, EXACT),
    "month first with AM and PM": (table(form("%m/%d/%Y %I:%M:%S %p"), header="Time,rps"), {}, EXACT),
    "names of months": (table(form("%d %b %Y %H:%M:%S")), {}, EXACT),
    "JavaScript's dates": (table(form("%a %b %d %Y %H:%M:%S GMT+0000 (UTC)")), {}, EXACT),
    "HTTP dates": (table(lambda i: f'"{MOMENTS[i]:%a, %d %b %Y %H:%M:%S} GMT"'), {}, EXACT),
    "slashes, year first": (table(form("%Y/%m/%d %H:%M:%S")), {}, EXACT),
    "compact times": (table(form("%Y%m%d%H%M%S")), {}, EXACT),
    "date and clock apart": (table(form("%Y-%m-%d,%H:%M:%S"), header="Date,Time,rps"), {}, EXACT),
    "another zone": (table(lambda i: MOMENTS[i].astimezone(timezone(timedelta(hours=-4))).isoformat()), {}, EXACT),
    "a zone that is said": (
        table(lambda i: MOMENTS[i].astimezone(ZoneInfo("Europe/Berlin")).strftime("%Y-%m-%d %H:%M:%S")),
        {"timezone": "Europe/Berlin"}, EXACT,
    ),
    "without a header": (table(iso, header=None), {}, EXACT),
    "values first": (lines(*(f"{RATES[i]},{iso(i)}" for i in range(N)), header="requests_per_second,timestamp"), {}, EXACT),
    "columns said": (table(iso, lambda i: f"1.5,{RATES[i]}", "when,a,b"), {"time_column": "when", "value_columns": ("b",)}, EXACT),
    "columns by number": (table(iso, lambda i: f"1.5,{RATES[i]}", "x,x,x"), {"time_column": "1", "value_columns": ("3",), "unit": "rps"}, EXACT),
    "newest first": (lines(*(f"{iso(i)},{RATES[i]}" for i in reversed(range(N)))), {}, EXACT),
    "trailing commas": (table(iso, lambda i: f"{RATES[i]},"), {}, EXACT),
    "per minute by name": (table(iso, lambda i: COUNTS[i], "minute,requests per minute"), {}, EXACT),
    "rpm said": (table(iso, lambda i: COUNTS[i], "minute,web"), {"unit": "rpm"}, EXACT),
    "rph said": (table(iso, lambda i: COUNTS[i] * 60, "minute,web"), {"unit": "rph"}, EXACT),
    "count by name": (table(iso, lambda i: COUNTS[i], "minute,count"), {}, EXACT),
    "count said": (table(iso, lambda i: COUNTS[i], "timestamp,value"), {"unit": "count"}, EXACT),
    "thousands": (table(iso, lambda i: f'"{COUNTS[i]:,}"', "minute,requests/min"), {}, EXACT),
    "thousands with points": (table(iso, lambda i: f"{COUNTS[i]:,}".replace(",", ".") + ",0", "minute;requests/min", ";"), {}, EXACT),
    "thousands with blanks": (table(iso, lambda i: f"{COUNTS[i]:,}".replace(",", "\u202f"), "minute;requests/min", ";"), {}, EXACT),
    "counter by name": (lines(*(f"{START + 60 * i},{t}" for i, t in enumerate(TOTALS)), header="time,http_requests_total"), {}, EXACT),
    "counter said": (lines(*(f"{START + 60 * i},{t}" for i, t in enumerate(TOTALS)), header="time,value"), {"unit": "counter"}, EXACT),
    "Grafana with units": (table(form("%Y-%m-%d %H:%M:%S"), lambda i: f"{RATES[i]:.1f} req/s", '"Time","shop"'), {}, ROUNDED),
    "Grafana with thousands": (
        table(form("%Y-%m-%d %H:%M:%S"), lambda i: f"{RATES[i] / 1000:.3f} kreq/s", '"Time","shop"'), {}, COARSE,
    ),
    "Grafana per minute": (table(form("%Y-%m-%d %H:%M:%S"), lambda i: f"{COUNTS[i] / 1000:.2f} K req/min", '"Time","shop"'), {}, COARSE),
    "Grafana short": (table(lambda i: (START + 60 * i) * 1000, lambda i: f"{COUNTS[i] / 1000:.2f} K", '"Time","shop"'), {"unit": "rpm"}, COARSE),
    "Grafana joined by time": (
        table(lambda i: (START + 60 * i) * 1000, lambda i: f"{SPLIT[0][i] / 60:.3f},{SPLIT[1][i] / 60:.3f}", '"Time","shop","cart"'),
        {"sum": True}, EXACT,
    ),
    "Grafana one of two": (table(iso, lambda i: f"{RATES[i]},7.5", '"Time","shop","cart"'), {"value_columns": ("shop",)}, EXACT),
    "Grafana series in rows": (
        lines(*(f"{s};{MOMENTS[i]:%Y-%m-%dT%H:%M:%S+00:00};{SPLIT[k][i] / 60:.4f}" for k, s in enumerate("ab") for i in range(N)),
              header="Series;Time;Value"),
        {"sum": True}, EXACT,
    ),
    "series beside one another in rows": (
        lines(*(f"{iso(i)},{s},{SPLIT[k][i]}" for i in range(N) for k, s in enumerate("ab")), header="time,pod,count"),
        {"sum": True}, EXACT,
    ),
    "one series of several": (
        lines(*(f"{iso(i)},{s},{COUNTS[i] * k}" for i in range(N) for k, s in enumerate("abc")), header="time,pod,count"),
        {"series": "b"}, EXACT,
    ),
    "Prometheus rate": (matrix(({}, samples(RATES))), {}, EXACT),
    "Prometheus infos": (matrix(({}, samples(RATES)), infos=["x"], warnings=[]), {}, EXACT),
    "Prometheus counter": (matrix(({"__name__": "http_requests_total"}, samples(TOTALS))), {}, EXACT),
    "Prometheus counter of another name": (matrix(({"__name__": "nginx_ingress_controller_requests"}, samples(TOTALS))), {}, EXACT),
    "Prometheus counters added up": (TWO_PODS, {"sum": True}, EXACT),
    "Prometheus one of two": (matrix(({"pod": "x-1"}, samples(RATES)), ({"pod": "y-1"}, samples([1.5] * N))), {"series": "x-"}, EXACT),
    "Prometheus counter that restarts": (
        matrix(({"__name__": "http_requests_total"}, samples(RESTARTED))), {"counter_resets": "restart"}, EXACT,
    ),
    "promtool's list": (json.dumps([{"metric": {"job": "web"}, "values": samples(RATES)}]), {}, EXACT),
    "promtool's text": ("\n".join(['{job="web"} =>', *(f"{v} @[{t}]" for t, v in samples(RATES))]), {}, EXACT),
    "promtool tsdb dump": (
        "\n".join(f'{{__name__="http_requests_total", pod="a"}} {v} {t}000' for t, v in samples(TOTALS)), {}, EXACT,
    ),
    "OpenMetrics": (
        "\n".join(["# TYPE http_requests counter", *(f'http_requests_total{{a="b c"}} {v} {t}' for t, v in samples(TOTALS)), "# EOF"]),
        {}, EXACT,
    ),
    "VictoriaMetrics export": (
        json.dumps({"metric": {"__name__": "http_requests_total"}, "values": TOTALS, "timestamps": [(START + 60 * i) * 1000 for i in range(N + 1)]}),
        {}, EXACT,
    ),
    "CloudWatch statistics": (
        json.dumps({"Label": "RequestCount", "Datapoints": [
            {"Timestamp": MOMENTS[i].isoformat(), "Sum": float(COUNTS[i]), "Unit": "Count"} for i in sorted(range(N), key=lambda i: i * 7 % N)
        ]}), {}, EXACT,
    ),
    "CloudWatch data": (
        json.dumps({"MetricDataResults": [{
            "Id": "m1", "Label": "RequestCount", "Timestamps": [iso(i) for i in reversed(range(N))],
            "Values": [float(c) for c in reversed(COUNTS)], "StatusCode": "Complete",
        }], "Messages": []}), {}, EXACT,
    ),
    "CloudWatch console": (
        lines('Full label,"RequestCount"', "Region,us-east-1", "Statistic,Sum", "Period,60", "Unit,Count", "", "Timestamp,RequestCount",
              *(f"{MOMENTS[i]:%Y/%m/%d %H:%M:%S},{COUNTS[i]}" for i in range(N)), header=None),
        {}, EXACT,
    ),
    "Datadog rate": (datadog(RATES, expression="sum:trace.web.hits{*}.as_rate()"), {}, EXACT),
    "Datadog count": (datadog(COUNTS, expression="sum:trace.web.hits{*}.as_count()"), {}, EXACT),
    "Datadog unit": (datadog(COUNTS, unit=[{"name": "request"}, {"name": "minute"}]), {}, EXACT),
    "Datadog timeseries": (
        json.dumps({"data": {"type": "timeseries_response", "attributes": {
            "series": [{"group_tags": ["env:prod"], "query_index": 0, "unit": [{"name": "request"}, {"name": "second"}]}],
            "times": [(START + 60 * i) * 1000 for i in range(N)], "values": [RATES],
        }}}), {}, EXACT,
    ),
    "Datadog CSV": (table(lambda i: (START + 60 * i) * 1000, lambda i: f"env:prod,{RATES[i]}", "time,tags,requests/s"), {}, EXACT),
    "Azure Monitor": (azure(total=lambda i: float(COUNTS[i])), {}, EXACT),
    "Azure Monitor CSV": (table(form("%m/%d/%Y %I:%M:%S %p"), lambda i: COUNTS[i], "Timestamp (UTC),Requests (Sum)"), {}, EXACT),
    "Google Cloud": (
        json.dumps({"timeSeries": [{
            "metric": {"type": "run.googleapis.com/request_count", "labels": {}}, "metricKind": "DELTA", "valueType": "INT64",
            "points": [{"interval": {"startTime": iso(i), "endTime": MOMENTS[i].isoformat()}, "value": {"int64Value": str(COUNTS[i])}}
                       for i in reversed(range(N))],
        }]}), {}, EXACT,
    ),
    "InfluxDB": (
        json.dumps({"results": [{"series": [{"name": "http", "columns": ["time", "requests_per_second"],
                                             "values": [[iso(i), RATES[i]] for i in range(N)]}]}]}), {}, EXACT,
    ),
    "InfluxDB CSV": (
        lines("#datatype,string,long,dateTime:RFC3339,double,string", "#group,false,false,false,false,true", "#default,_result,,,,",
              ",result,table,_time,_value,_field", *(f",,0,{iso(i)},{RATES[i]},rps" for i in range(N)), header=None),
        {}, EXACT,
    ),
    "Graphite": (json.dumps([{"target": "web.rps", "datapoints": [[RATES[i], START + 60 * i] for i in range(N)]}]), {}, EXACT),
    "Elasticsearch": (
        json.dumps({"took": 3, "aggregations": {"per_minute": {"buckets": [
            {"key_as_string": iso(i), "key": (START + 60 * i) * 1000, "doc_count": COUNTS[i]} for i in range(N)]}}}), {}, EXACT,
    ),
    "JSON records": (json.dumps([{"timestamp": iso(i), "requests_per_second": RATES[i]} for i in range(N)]), {}, EXACT),
    "JSON columns": (json.dumps({"timestamp": [iso(i) for i in range(N)], "rps": RATES}), {}, EXACT),
    "JSON lines": ("\n".join(json.dumps({"ts": START + 60 * i, "rps": RATES[i]}) for i in range(N)), {}, EXACT),
    "Locust": (
        table(lambda i: START + 60 * i, lambda i: f"5,,Aggregated,{RATES[i]},0,12,40,{i}",
              "Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,95%,Total Request Count"), {}, EXACT,
    ),
    "Parquet in milliseconds": (
        columns(time=pa.array([(START + 60 * i) * 1000 for i in range(N)], pa.timestamp("ms")), rps=pa.array(RATES)), {}, EXACT,
    ),
    "Parquet with Unix time": (columns(ts=pa.array([START + 60 * i for i in range(N)]), count=pa.array(COUNTS)), {}, EXACT),
    "Parquet with text": (columns(time=pa.array([iso(i) for i in range(N)]), qps=pa.array(RATES, pa.float32())), {}, EXACT),
    "a space before each number": (table(iso, lambda i: f" {RATES[i]}", "timestamp, requests_per_second"), {}, EXACT),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("traffic")


def written(folder, content):
    path = folder / "traffic"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(folder, content, **said):
    with pytest.raises(TraceError) as caught:
        import_trace(written(folder, content), Said(**said))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_what_people_bring_is_read_with_its_mean_its_peak_and_its_times(folder):
    wrong = []
    for name, (content, said, within) in READ.items():
        try:
            imported = import_trace(written(folder, content), Said(**said))
        except TraceError as error:
            wrong.append(f"{name}: {error}")
            continue
        series = imported.series
        right = (len(series), series.interval_seconds, series.start_unix_seconds) == (N, 60, START)
        if not (right and abs(series.rates_rps.mean() - MEAN) < within and abs(series.rates_rps.max() - PEAK) < within):
            wrong.append(f"{name}: {len(series)} {series.interval_seconds} {series.start_unix_seconds} {series.rates_rps.mean()}")
    assert not wrong, "\n".join(wrong)
