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
# ruff: noqa: E501
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
    "rpd by name": (table(iso, lambda i: COUNTS[i] * 1440, "minute,requests per day"), {}, EXACT),
    "an index without a name": (lines(*(f"{i},{iso(i)},{RATES[i]}" for i in range(N)), header="Unnamed: 0,time,value"), {}, EXACT),
    "CloudWatch data of two targets": (
        json.dumps({"MetricDataResults": [{"Id": k, "Label": f"RequestCount {k}", "Timestamps": [iso(i) for i in range(N)], "Values": SPLIT[j]}
                                          for j, k in enumerate("ab")]}), {"sum": True}, EXACT,
    ),
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
    "Prometheus histogram's count": (matrix(({"__name__": "http_request_duration_seconds_count"}, samples(TOTALS))), {}, EXACT),
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
    "Parquet with series in rows": (
        columns(time=pa.array([(START + 60 * (i // 2)) for i in range(2 * N)], pa.timestamp("s")), pod=pa.array(["a", "b"] * N),
                count=pa.array([SPLIT[i % 2][i // 2] for i in range(2 * N)])), {"sum": True}, EXACT,
    ),
    "Parquet with a dictionary": (columns(time=pa.array([iso(i) for i in range(N)]).dictionary_encode(), qps=pa.array(RATES)), {}, EXACT),
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


def access_log(line, count=lambda i: COUNTS[i] // 60):
    return "\n".join(line(i, n) for i in range(N) for n in range(count(i))) + "\n"


def common(i, n, host="10.0.0.7", tail='"GET /a?b=\\"c\\" HTTP/1.1" 200 512'):
    return f"{host} - - [{MOMENTS[i] + timedelta(seconds=n % 60):%d/%b/%Y:%H:%M:%S} +0000] {tail}"


EVENTS = {
    "common": access_log(common),
    "combined with IPv6": access_log(lambda i, n: common(i, n, "2001:db8::1", '"GET / HTTP/2.0" 304 0 "-" "curl/8 (x; \\"y\\")"')),
    "nginx with a virtual host": access_log(lambda i, n: common(i, n, "shop.example:443 10.0.0.7")),
    "TLS garbage and no size": access_log(lambda i, n: common(i, n, tail='"\\x16\\x03\\x01" 400 -')),
    "packed": gzip.compress(access_log(common).encode()),
    "another zone": access_log(
        lambda i, n: f'h - u [{MOMENTS[i] - timedelta(hours=4):%d/%b/%Y:%H:%M}:{n % 60:02d} -0400] "GET / HTTP/1.0" 200 1'
    ),
    "ALB": access_log(lambda i, n: f'https {MOMENTS[i]:%Y-%m-%dT%H:%M}:{n % 60:02d}.186641Z app/lb/50 1.2.3.4:5 10.0.0.1:80 0 0 0 200 200 1 2 "GET x"'),
    "IIS": "#Software: IIS\n#Fields: date time cs-method sc-status\n" + access_log(lambda i, n: f"{MOMENTS[i]:%Y-%m-%d %H:%M}:{n % 60:02d} GET 200"),
    "nginx's JSON": access_log(lambda i, n: json.dumps({"time": MOMENTS[i].isoformat(), "request": "GET /", "status": 200})),
    "k6's CSV": lines(
        *(f"{metric},{START + 60 * i + n % 60},{value},,,,GET,x,200,u" for i in range(N) for n in range(COUNTS[i] // 60)
          for metric, value in (("http_reqs", "1.000000"), ("http_req_duration", "12.5"))), header=K6_HEADER + ",extra"),
    "k6's JSON lines": "\n".join([
        '{"type":"Metric","data":{"name":"http_reqs","type":"counter"},"metric":"http_reqs"}',
        *(json.dumps({"type": "Point", "data": {"time": f"{MOMENTS[i]:%Y-%m-%dT%H:%M}:{n % 60:02d}.625742514+00:00", "value": 1, "tags": {}},
                      "metric": metric}) for i in range(N) for n in range(COUNTS[i] // 60) for metric in ("vus", "http_reqs")),
    ]),
    "JMeter": lines(*(f"{(START + 60 * i + n % 60) * 1000},37,home,200" for i in range(N) for n in range(COUNTS[i] // 60)),
                    header="timeStamp,elapsed,label,responseCode"),
}  # fmt: skip


def test_requests_at_their_own_times_are_all_counted(folder):
    expected = np.array([count // 60 for count in COUNTS])
    for name, content in EVENTS.items():
        series = import_trace(written(folder, content)).series
        assert (series.interval_seconds, series.start_unix_seconds) == (60, START), name
        np.testing.assert_allclose(series.rates_rps * 60, expected, err_msg=name)
    rows = lines(*(f"{iso(i)},{n}" for i in range(N) for n in range(expected[i])), header="TIMESTAMP,ContextTokens")
    np.testing.assert_allclose(import_trace(written(folder, rows), Said(unit="events")).series.rates_rps * 60, expected)


def test_a_log_of_a_month_out_of_order_with_broken_lines_in_latin_1_is_counted_by_the_minute(folder):
    # As the public log of NASA's server: one second of resolution, −0400, a few lines late, a few broken.
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.integers(0, 28 * 86_400, 6000))
    late = seconds.copy()
    late[100:200] = late[100:200][::-1]
    zone = timezone(timedelta(hours=-4))
    log = []
    for k, second in enumerate(late):
        moment = datetime.fromtimestamp(804_571_200 + int(second), zone)
        log.append(
            f'host{k % 81}.gov - - [{moment:%d/%b/%Y:%H:%M:%S} -0400] "GET /shuttle/\xe9 HTTP/1.0" 200 {k}'.encode("latin-1")
        )
    log[50:50] = [b"alyssa.p", b"\xb7\x00broken", b'h - - [99/Jul/1995:00:00:00 -0400] "GET / HTTP/1.0" 200 1']
    imported = import_trace(written(folder, b"\n".join(log)))
    series = imported.series
    assert series.interval_seconds == 60
    assert series.rates_rps.sum() * 60 == pytest.approx(6000)
    expected = np.bincount((seconds // 60 - seconds[0] // 60).astype(int))
    np.testing.assert_allclose(series.rates_rps * 60, expected)
    assert any("3 malformed lines are not counted, the first is line 51" in line for line in imported.told)


FIELD = {
    "prom_counter_nginx.json": ({}, 599, 46.128, 67.87),
    "prom_sparse_burst.json": ({}, None, None, 2505),
    "prom_nan.json": ({"gaps": "linear"}, 592, 46.16, 67.87),
    "empty_cells.csv": ({"gaps": "linear"}, 600, 46.12, 67.87),
    "grafana_raw_ms.csv": ({}, 600, 46.12, 67.87),
    "grafana_formatted.csv": ({}, 600, 46.12, 67.9),
    "european.csv": ({}, 600, 46.12, 67.87),
    "cloudwatch_statistics.json": ({}, 600, 46.12, 67.87),
    "cloudwatch_sum_per_minute.csv": ({"unit": "count"}, 600, 46.12, 67.87),
    "extra_columns_order.csv": ({}, 600, 46.12, 67.87),
    "plain.csv.gz": ({}, 600, 46.12, 67.87),
    "plain.parquet": ({}, 600, 46.12, 67.87),
    "jitter.csv": ({}, 600, 46.12, 67.87),
    "dst_naive_spring.csv": ({"timezone": "Europe/Berlin"}, 288, None, 56),
    "access.log.gz": ({}, 200, 1, 1),
    "locust_stats_history.csv": ({}, 600, 46.12, 67.87),
    "azure_functions_wide.csv": ({}, 1440, 0.7502, 1.45),
}


def test_the_inputs_of_the_outside_world_are_read_right():
    for name, (said, points, mean, peak) in FIELD.items():
        series = import_trace(DATA / name, Said(**said)).series
        assert points in (None, len(series)), name
        assert mean is None or series.rates_rps.mean() == pytest.approx(mean, abs=0.01), name
        assert series.rates_rps.max() == pytest.approx(peak, abs=0.01), name
    jitter = import_trace(DATA / "jitter.csv").series
    assert (jitter.interval_seconds, jitter.start_unix_seconds) == (15, START)


def test_requests_between_the_points_of_the_grid_are_counted():
    values = json.loads((DATA / "prom_sparse_burst.json").read_text())["data"]["result"][0]["values"]
    stamps, rates = np.array([v[0] for v in values]), np.array([float(v[1]) for v in values])
    series = import_trace(DATA / "prom_sparse_burst.json").series
    asked_for = (rates * np.diff(stamps, append=stamps[-1] + 120)).sum()
    assert series.interval_seconds == 120
    assert series.rates_rps.sum() * 120 == pytest.approx(asked_for, rel=1e-12)
    # A coarser interval loses none either, but for a last one that is not whole.
    assert import_trace(
        DATA / "prom_sparse_burst.json", Said(interval_seconds=240)
    ).series.rates_rps.sum() * 240 == pytest.approx(asked_for, rel=1e-12)


def test_numbers_that_do_not_say_what_they_are_are_asked_about(folder):
    rising = list(range(10, 10 + N))
    asked = {
        "whole numbers": table(iso, lambda i: COUNTS[i], "timestamp,value"),
        "requests without a time": table(iso, lambda i: COUNTS[i], "timestamp,requests"),
        "a sum of counters": matrix(({}, samples(TOTALS))),
        "a gauge that rises": matrix(({"__name__": "replica_target"}, samples(rising))),
        "a column that rises": table(iso, lambda i: rising[i] + 0.5, "timestamp,value"),
        "a counter without a name": table(iso, lambda i: TOTALS[i], "timestamp,value"),
        "a total that falls": matrix(({"__name__": "http_requests_total"}, samples(COUNTS))),
        "a counter that restarts": matrix(({"job": "web"}, samples(RESTARTED))),
    }
    for name, content in asked.items():
        assert "say --unit rps, rpm, rph, rpd, count (per interval) or counter" in refusal(folder, content), name
    assert import_trace(written(folder, asked["a gauge that rises"]), Said(unit="rps")).series.rates_rps.tolist() == rising
    assert "counter reset" in refusal(folder, matrix(({"__name__": "x_requests_total"}, samples(RESTARTED))))
    # What is told by its name is not asked about, however it moves.
    assert (
        import_trace(written(folder, matrix(({"__name__": "job:requests:rate5m"}, samples(rising))))).series.rates_rps.tolist()
        == rising
    )


def test_what_was_inferred_is_shown(folder):
    imported = import_trace(written(folder, READ["Prometheus counter of another name"][0]))
    assert imported.unit.startswith("a rising counter of requests, 241 whole numbers that rise to 384,")
    assert not imported.sure
    told = import_trace(written(folder, table(iso, lambda i: f"12.5,{RATES[i]}", "timestamp,latency_ms,rps"))).told
    assert "not used: latency_ms" in told
    assert "times without a zone, taken as UTC (else: --timezone)" in import_trace(written(folder, PLAIN.replace("Z", ""))).told


REFUSED = {
    "two columns": (table(iso, lambda i: f"{RATES[i]},2.5", "timestamp,shop,cart"), {}, "2 columns could be the requests (shop, cart)"),
    "two rates": (table(iso, lambda i: f"{RATES[i]},2.5", "timestamp,rps,qps"), {}, "--value-column NAME, or --sum to add them up"),
    "no such column": (PLAIN, {"value_columns": ("rate",)}, "--value-column 'rate' is not a column; allowed: timestamp, requests"),
    "a time column of text": (table(iso, lambda i: f"{RATES[i]},x", "a,rps,b"), {"time_column": "b"}, "--time-column 'b' holds no times"),
    "two series": (TWO_PODS, {}, 'holds 2 series (http_requests_total{pod="a"}, http_requests_total{pod="b"}); allowed: one, --sum'),
    "an unknown series": (TWO_PODS, {"series": "c"}, "--series 'c' is none of its series; allowed: http_requests_total{pod="),
    "series in rows": (READ["Grafana series in rows"][0], {}, "holds 2 series (a, b); allowed: one, --sum"),
    "a skipped hour": (table(form("2024-03-31 %H:%M:00")), {"timezone": "America/New_York", "delimiter": ","}, ""),
    "a zone twice": (PLAIN, {"timezone": "Europe/Berlin"}, "--timezone Europe/Berlin: its times have a zone"),
    "an unknown zone": (PLAIN.replace("Z", ""), {"timezone": "Berlin"}, "--timezone: 'Berlin' is not known"),
    "day or month": (
        lines("03/04/2024 10:00,1.5", "04/05/2024 10:00,2.5", "05/06/2024 10:00,2", header="time,rps"), {}, "--date-order dmy or",
    ),
    "comma of what": (table(iso, lambda i: f"{1 + i % 9},{100 + i}", "time;rps", ";"), {}, "--decimal , or --decimal ."),
    "milliseconds": (table(iso, lambda i: f"{RATES[i]} ms", "Time,shop"), {}, "'shop' is in 'ms', no rate of requests"),
    "latency": (table(iso, lambda i: RATES[i], "time,p95_latency"), {}, "'p95_latency' does not look like requests"),
    "an option without use": (matrix(({}, samples(RATES))), {"delimiter": ";"}, "--delimiter is not used"),
    "gaps in a log": (access_log(common), {"gaps": "zero"}, "--gaps zero is not used: where there is no request the rate is 0"),
    "an error of Prometheus": (json.dumps({"status": "error", "errorType": "bad_data", "error": "parse error"}), {}, "'parse error'"),
    "an instant query": (
        json.dumps({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [START, "3"]}]}}),
        {}, "resultType 'vector' is not allowed; allowed: matrix",
    ),
    "promtool's instant": (json.dumps([{"metric": {}, "value": [START, "3"]}]), {}, "is one moment (an instant query"),
    "Loki": (json.dumps({"status": "success", "data": {"resultType": "streams", "result": []}}), {}, "Loki's log lines"),
    "CloudWatch's average": (
        json.dumps({"Label": "RequestCount", "Datapoints": [{"Timestamp": iso(0), "Average": 2.0, "Unit": "Count"}]}),
        {}, "is an Average",
    ),
    "CloudWatch's CPU": (
        json.dumps({"Label": "CPUUtilization", "Datapoints": [{"Timestamp": iso(0), "Sum": 2.0, "Unit": "Percent"}]}),
        {}, "is in Percent, not requests",
    ),
    "CloudWatch's average as CSV": (
        lines("Statistic,Average", "Period,60", "Timestamp,RequestCount", *(f"{iso(i)},1" for i in range(9)), header=None), {}, "its statistic is 'average'",
    ),
    "Azure's average": (azure(average=lambda i: 2.0), {}, "is an average, which is no number of requests"),
    "Datadog without values": (json.dumps({"status": "ok", "series": []}), {}, "holds no series"),
    "a scrape": ('# TYPE http_requests_total counter\nhttp_requests_total{code="200"} 1027\n', {}, "one scrape of metrics without times"),
    "HTML": ("<!DOCTYPE html><html><head><title>Sign in</title></head></html>", {}, "an HTML page ('Sign in'), such as a login"),
    "XML": ("<?xml version='1.0'?><a/>", {}, "looks like XML"),
    "PDF": (b"%PDF-1.7\n\x00\x01", {}, "looks like a PDF"),
    "Excel": (packed("<x/>", "xl/workbook.xml"), {}, "an Excel workbook (.xlsx); allowed: save the sheet as CSV"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), {}, "an old Excel file (.xls)"),
    "two in a zip": (packed(PLAIN).replace(b"x", b"x"), {}, ""),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(100), {}, "a PNG picture"),
    "binary": (bytes(range(256)) * 9, {}, "a binary file"),
    "empty": ("", {}, "an empty file"),
    "blanks": (" \n\n\t\n", {}, "a file of blanks"),
    "an error log": ("[Mon Mar 04 10:00:00 2024] [core:error] x\n" * 9, {}, "looks like text that begins '[Mon Mar 04"),
    "Grafana short without a unit": (table(iso, lambda i: f"{COUNTS[i] / 1000:.2f} K", '"Time","shop"'), {}, "the unit of 'shop' is not told"),
    "Locust's totals": ("Type,Name,Request Count\nGET,/,100\n,Aggregated,100\n", {}, "Locust's totals, without times"),
    "seconds since the start": (lines("0,1.5", "1,2.5", "2,1.5", header="t,rps"), {}, "a table without a column of dates and times"),
    "a count with fractions": (table(iso, lambda i: RATES[i], "time,count"), {}, "is named like a count, but its numbers have fractions"),
    "prose": ("Dear all,\nplease find attached\n", {}, "looks like text that begins 'Dear all,'"),
    "other JSON": (json.dumps({"a": 1, "b": {"c": 2}}), {}, "JSON with the keys a, b"),
    "half a JSON": (matrix(({}, samples(RATES)))[:900], {}, "is no JSON"),
    "half a gzip": (gzip.compress(PLAIN.encode() * 9)[:400], {}, "is gzip that is cut off or damaged"),
    "only a header": ("timestamp,requests_per_second\n", {}, "0 rows; allowed: at least two"),
    "Locust without totals": (
        table(lambda i: START + i, lambda i: f"5,GET,/,{RATES[i]}", "Timestamp,User Count,Type,Name,Requests/s"), {}, "without a row of 'Aggregated'",
    ),
    "counts off their grid": (lines(f"{iso(0)},5", f"{iso(1)},3", f"{iso(2)},6", "2024-03-04T10:02:31Z,6", header="t,count"), {}, "is not known"),
    "mixed units": (table(iso, lambda i: f"{RATES[i]} " + ("req/s" if i % 2 else "req/min"), "Time,shop"), {}, "several units"),
}  # fmt: skip
for _name in ("a skipped hour", "two in a zip"):
    REFUSED.pop(_name)


def test_what_cannot_be_known_or_read_is_refused_in_one_line_that_says_why(folder):
    wrong = []
    for name, (content, said, words) in REFUSED.items():
        try:
            imported = import_trace(written(folder, content), Said(**said))
            wrong.append(f"{name}: read as {imported.dialect}, {imported.unit}")
        except TraceError as error:
            if words not in str(error) or "\n" in str(error):
                wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join(wrong)


def test_missing_numbers_and_rows_are_filled_only_when_asked_and_never_as_zero_unless_said(folder):
    holed = table(iso, lambda i: "" if i in (0, 50, 51) else "NaN" if i == 60 else RATES[i])
    assert "(4 such places)" in refusal(folder, holed)
    assert "--gaps linear | previous | zero" in refusal(folder, holed)
    path = written(folder, holed)
    linear, zero = (import_trace(path, Said(gaps=gaps)).series for gaps in ("linear", "zero"))
    assert len(linear) == len(zero) == N - 1
    assert linear.rates_rps[49:51].tolist() == pytest.approx(np.interp([50, 51], [49, 52], [RATES[49], RATES[52]]).tolist())
    assert zero.rates_rps[[49, 50, 59]].tolist() == [0, 0, 0]
    # A count's interval is the shortest step, however many rows are left out: CloudWatch has none where nothing was asked.
    sparse = lines(*(f"{iso(i)},{COUNTS[i]}" for i in range(N) if i % 3 == 0 or i == 4), header="time,count")
    assert "180 s after the row before it" in refusal(folder, sparse) or "the grid is 60 s" in refusal(folder, sparse)
    rates = import_trace(written(folder, sparse), Said(gaps="zero")).series.rates_rps
    assert rates.sum() * 60 == pytest.approx(sum(COUNTS[i] for i in range(N) if i % 3 == 0 or i == 4))


def test_clocks_that_change_are_named_and_read_with_a_zone(folder):
    berlin = ZoneInfo("Europe/Berlin")
    for start, count, words in ((1_711_836_000, 288, "clocks go forward"), (1_729_980_000, 288, "clocks go back")):
        rows = [f"{datetime.fromtimestamp(start + 300 * i, berlin):%Y-%m-%d %H:%M:%S},{50 + i % 7}.5" for i in range(count)]
        text = lines(*rows)
        said = refusal(folder, text)
        assert words in said
        assert "--timezone" in said
        series = import_trace(written(folder, text), Said(timezone="Europe/Berlin")).series
        assert (len(series), series.interval_seconds, series.start_unix_seconds) == (count, 300, start)
    skipped = lines("2024-03-31 01:30:00,1", "2024-03-31 02:00:00,1", "2024-03-31 02:30:00,2")
    assert ":3: timestamp '2024-03-31 02:00:00' does not exist in Europe/Berlin" in refusal(
        folder, skipped, timezone="Europe/Berlin"
    )


def test_counters_are_added_up_each_with_its_own_restart_and_its_own_time(folder):
    a = [0, 60, 120, 30, 90, 150]
    b = [1000, 1120, 1240, 1360, 1480, 1600]
    text = matrix(
        ({"__name__": "http_requests_total", "pod": "a"}, samples(a)),
        ({"__name__": "http_requests_total", "pod": "b"}, samples(b, START + 60)),
    )
    imported = import_trace(written(folder, text), Said(sum=True, counter_resets="restart"))
    assert imported.series.rates_rps.tolist() == pytest.approx([1, 3, 2.5, 3, 3, 2])
    assert any("2 of them do not span the whole time" in line or "1 of them" in line for line in imported.told)
    # Scraped at moments of their own, nothing is lost either.
    text = matrix(
        ({"__name__": "http_requests_total", "pod": "a"}, samples([0, 150, 600, 900], START, 15)),
        ({"__name__": "http_requests_total", "pod": "b"}, samples([0, 300, 300, 450], START + 7, 15)),
    )
    series = import_trace(written(folder, text), Said(sum=True)).series
    assert series.rates_rps.sum() * series.interval_seconds == pytest.approx(900 + 450)
