"""What monitoring systems answer as JSON: one record a dialect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalepilot_envs.workloads.traces.json_samples import metric_name, parsed_of, rows_of, unique
from scalepilot_envs.workloads.traces.meaning import Meaning
from scalepilot_envs.workloads.traces.numbers import per_seconds
from scalepilot_envs.workloads.traces.parsed import Parsed
from scalepilot_envs.workloads.traces.rows import Rows, TraceError
from scalepilot_envs.workloads.traces.source import Source

# Prometheus itself answers at most 11,000 samples a series: about 350 kB.
MAX_JSON_BYTES = 50_000_000


@dataclass(frozen=True)
class Dialect:
    """A kind of JSON.

    Attributes:
        name: for messages.
        knows: whether a decoded file is of this kind.
        parse: (file, its name, its dialect's name) → its series.
    """

    name: str
    knows: Callable[[Any], bool]
    parse: Callable[[Any, str, str], Parsed]


def json_of(source: Source) -> Any:
    """What a JSON file holds.

    Raises:
        TraceError: no JSON, or too much of it.
    """
    try:
        return json.loads(source.whole(MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{source.name}: is no JSON ({str(error)[:120]})") from None


def parse_json(value: Any, name: str) -> Parsed | None:
    """The series that a JSON file's value holds; None where no dialect knows it.

    Raises:
        TraceError: a dialect's, that holds no series that can be used.
    """
    dialect = next((dialect for dialect in DIALECTS if dialect.knows(value)), None)
    if dialect is None:
        return None
    try:
        return dialect.parse(value, name, dialect.name)
    except TraceError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise TraceError(f"{name}: looks like {dialect.name}, but is laid out otherwise ({str(error)[:80]})") from None


def prometheus(results: Any, name: str, dialect: str, told: list[str] | None = None) -> Parsed:
    """The series of a matrix: [{"metric": {…}, "values": [[unix, "1.5"], …]}, …]."""
    if not results:
        raise TraceError(f"{name}: holds no series (an empty matrix); allowed: one; check the query's selector and time range")
    series = []
    for n, result in enumerate(results):
        values = result.get("values")
        if values is None and "value" in result:
            raise TraceError(
                f"{name}: is one moment (an instant query, a vector); allowed: a range, as /api/v1/query_range answers"
            )
        if values is None and "histograms" in result:
            raise TraceError(f"{name}: holds native histograms; allowed: numbers, such as histogram_count(rate(…))")
        if not isinstance(values, list) or not values:
            raise TraceError(f"{name}: the series has no values; allowed: at least two")
        for i, sample in enumerate(values):
            if not isinstance(sample, list) or len(sample) != 2:
                raise TraceError(f'{name}: sample {i + 1}: {str(sample)[:80]} is not allowed; allowed: [unix seconds, "value"]')
            if isinstance(sample[1], str) and sample[1] not in ("NaN", "+Inf", "-Inf", "Inf"):
                try:
                    float(sample[1])
                except ValueError:
                    raise TraceError(
                        f'{name}: sample {i + 1}: {str(sample)[:80]} is not allowed; allowed: [unix seconds, "value"]'
                    ) from None
        label = metric_name(result.get("metric") or {}) or f"series {n + 1}"
        series.append((label, rows_of(values, name)))
    named = [str((result.get("metric") or {}).get("__name__", "")) for result in results]
    for bucket in named:
        if bucket.endswith(("_bucket", "_sum")):
            raise TraceError(f"{name}: {bucket} is a histogram's part, not requests; allowed: its _count, or sum(rate(…))")
    names = {label: metric for (label, _), metric in zip(series, named, strict=True)}
    raw = any(named)
    told = told or []
    return parsed_of(dialect, name, unique(series), names=names, raw_metric=raw, expression=not raw, told=told, unordered=False)


def _prometheus_answer(value: Any, name: str, dialect: str) -> Parsed:
    if value.get("status") != "success":
        said = value.get("error", value.get("status"))
        raise TraceError(f"{name}: is no successful answer of Prometheus ({str(said)[:120]!r}); allowed: status success")
    data = value.get("data")
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, Mapping) else (None, None)
    if kind == "streams":
        raise TraceError(f"{name}: holds Loki's log lines; allowed: a metric, such as sum(count_over_time(…[1m]))")
    if kind != "matrix" or not isinstance(result, list) or not all(isinstance(series, Mapping) for series in result):
        raise TraceError(f"{name}: resultType {kind!r} is not allowed; allowed: matrix, as /api/v1/query_range answers")
    told = [f"Prometheus warns: {w}"[:200] for w in value.get("warnings") or []]
    return prometheus(result, name, dialect, told)


def _statistics(value: Any, name: str, dialect: str) -> Parsed:
    points, label = value["Datapoints"], str(value.get("Label", ""))
    units = {str(point.get("Unit", "None")) for point in points}
    statistic = next((s for s in ("Sum", "SampleCount", "Average") if any(s in point for point in points)), None)
    if statistic is None:
        raise TraceError(f"{name}: holds no Sum ({dialect} of {label!r}); allowed: --statistics Sum")
    other = units - {"Count", "None", "Count/Second"}
    if other and statistic != "SampleCount":
        raise TraceError(
            f"{name}: {label!r} is in {', '.join(sorted(other))}, not requests ({dialect}); allowed: a count of requests"
        )
    if statistic == "Average" and units != {"Count/Second"}:
        raise TraceError(
            f"{name}: {label!r} is an Average, which is no number of requests ({dialect}); allowed: --statistics Sum"
        )
    unit: Any = "rps" if units == {"Count/Second"} and statistic == "Average" else "count"
    rows = rows_of(((point["Timestamp"], point.get(statistic)) for point in points), name, "data point")
    meaning = Meaning(unit, f"as its statistic {statistic} says")
    return parsed_of(dialect, name, [(label, rows)], stated=meaning, place=lambda i: f"{name}: data point {i}")


def _metric_data(value: Any, name: str, dialect: str) -> Parsed:
    series: list[tuple[str, Rows]] = []
    told = []
    for result in value["MetricDataResults"]:
        if len(result["Timestamps"]) != len(result["Values"]):
            raise TraceError(
                f"{name}: {len(result['Timestamps'])} times, {len(result['Values'])} values; allowed: as many of both"
            )
        label = str(result.get("Label") or result.get("Id") or f"series {len(series) + 1}")
        series.append((label, rows_of(zip(result["Timestamps"], result["Values"], strict=True), name, "value")))
        if result.get("StatusCode") == "PartialData":
            told.append(f"{label}: CloudWatch says PartialData: it is not all")
    if value.get("NextToken"):
        told.append("it has a NextToken: the rest of the answer is not in it")
    every = np.concatenate([rows.values for _, rows in series]) if series else np.empty(0)
    every = every[~np.isnan(every)]
    whole = len(every) > 0 and bool((every == np.floor(every)).all())
    stated = None
    counted = r"(?i)request|count|invocations|sum\b|hits"
    if whole and all(re.search(counted, label) and not re.search(r"(?i)latency|cpu|percent|/s", label) for label, _ in series):
        stated = Meaning("count", "whole numbers of a metric that counts, as its statistic Sum gives them", sure=False)
    return parsed_of(dialect, name, unique(series), stated=stated, told=told)


def _datadog(value: Any, name: str, dialect: str) -> Parsed:
    if value.get("status") == "error" or value.get("error"):
        raise TraceError(f"{name}: is an error of Datadog ({str(value.get('error'))[:120]!r}); allowed: an answer with series")
    series: list[tuple[str, Rows]] = []
    stated, period, names = None, None, {}
    if not value["series"]:
        raise TraceError(f"{name}: holds no series ({dialect}); allowed: one; check the query and its time range")
    for one in value["series"]:
        label = str(one.get("expression") or one.get("display_name") or one.get("metric") or f"series {len(series) + 1}")
        series.append((label, rows_of(one["pointlist"], name, "point")))
        names[label] = str(one.get("metric") or label)
        period = float(one["interval"]) if one.get("interval") else period
        stated = _datadog_unit(str(one.get("expression", "")), one.get("unit")) or stated
    series = unique(series)
    return parsed_of(dialect, name, series, stated=stated, period=period, names=names, place=lambda i: f"{name}: point {i}")


def _datadog_unit(expression: str, unit: Any) -> Meaning | None:
    if "as_rate()" in expression or "per_second(" in expression:
        return Meaning("rps", "as as_rate() or per_second() says")
    if "per_minute(" in expression:
        return Meaning("rpm", "as per_minute() says")
    if "as_count()" in expression:
        return Meaning("count", "as as_count() says")
    units = unit if isinstance(unit, list) else []
    words = [str(u.get("name", "")) for u in units if isinstance(u, Mapping)]
    if len(words) == 2 and (seconds := per_seconds(f"/{words[1]}")):
        known: Any = {1.0: "rps", 60.0: "rpm", 3600.0: "rph"}[seconds]
        return Meaning(known, f"as its unit {words[0]}/{words[1]} says")
    return None


def _datadog_timeseries(value: Any, name: str, dialect: str) -> Parsed:
    attributes = value["data"]["attributes"]
    series: list[tuple[str, Rows]] = []
    stated = None
    for one, values in zip(attributes["series"], attributes["values"], strict=True):
        label = ", ".join(one.get("group_tags") or []) or f"query {one.get('query_index', len(series))}"
        series.append((label, rows_of(zip(attributes["times"], values, strict=True), name, "point")))
        stated = _datadog_unit("", one.get("unit")) or stated
    return parsed_of(dialect, name, unique(series), stated=stated)


def _azure(value: Any, name: str, dialect: str) -> Parsed:
    interval = _iso_duration(str(value.get("interval", "")))
    series, meanings = [], []
    for metric in value["value"]:
        named = metric["name"]["value"] if isinstance(metric.get("name"), Mapping) else str(metric.get("name"))
        unit = str(metric.get("unit", ""))
        if unit not in ("Count", "CountPerSecond", ""):
            raise TraceError(f"{name}: {named!r} is in {unit}, not requests ({dialect}); allowed: a count of requests")
        for one in metric["timeseries"]:
            data = one["data"]
            aggregation = next((a for a in ("total", "count", "average") if any(a in point for point in data)), "total")
            if aggregation == "average" and unit != "CountPerSecond":
                raise TraceError(f"{name}: {named!r} is an average, which is no number of requests; allowed: --aggregation Total")
            labels = [f"{m['name']['value']}={m['value']}" for m in one.get("metadatavalues") or []]
            rows = rows_of(((point["timeStamp"], point.get(aggregation)) for point in data), name, "data point")
            series.append((" ".join([named, *labels]), rows))
            meanings.append((unit, aggregation))
    unit, aggregation = meanings[0] if meanings else ("Count", "total")
    known: Any = "rps" if unit == "CountPerSecond" and aggregation == "average" else "count"
    stated = Meaning(known, f"as its unit {unit or 'Count'} and aggregation {aggregation} say")
    return parsed_of(dialect, name, unique(series), stated=stated, period=interval)


def _iso_duration(text: str) -> float | None:
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", text)
    seconds = sum(int(n or 0) * s for n, s in zip(found.groups(), (86_400, 3600, 60, 1), strict=True)) if found else 0
    return float(seconds) or None


def _graphite(value: Any, name: str, dialect: str) -> Parsed:
    series = [(str(one["target"]), rows_of(((t, v) for v, t in one["datapoints"]), name, "point")) for one in value]
    return parsed_of(dialect, name, unique(series))


def _google(value: Any, name: str, dialect: str) -> Parsed:
    series, kinds = [], set()
    for one in value if isinstance(value, list) else value["timeSeries"]:
        labels = {**one.get("metric", {}).get("labels", {}), **one.get("resource", {}).get("labels", {})}
        kind = one.get("metricKind", "GAUGE")
        ends = [(p["interval"]["startTime" if kind == "DELTA" else "endTime"], p["value"]) for p in one["points"]]
        numbers = [(t, next(iter(v.values()))) for t, v in ends]
        kinds.add(kind)
        series.append((metric_name({"__name__": one["metric"]["type"], **labels}), rows_of(numbers, name, "point")))
    known: Any = {"DELTA": "count", "CUMULATIVE": "counter"}.get(next(iter(kinds)) if len(kinds) == 1 else "")
    stated = Meaning(known, f"as its metricKind {next(iter(kinds))} says") if known else None
    return parsed_of(dialect, name, unique(series), stated=stated)


def _influx(value: Any, name: str, dialect: str) -> Parsed:
    series = []
    names = {}
    for result in value["results"]:
        if "error" in result:
            raise TraceError(f"{name}: is an error of InfluxDB ({str(result['error'])[:120]!r}); allowed: an answer with series")
        for one in result.get("series", []):
            at = one["columns"].index("time")
            columns = [i for i in range(len(one["columns"])) if i != at]
            for i in columns:
                label = " ".join(filter(None, (one.get("name", ""), one["columns"][i], *(one.get("tags") or {}).values())))
                names[label] = f"{one.get('name', '')} {one['columns'][i]}"
                series.append((label, rows_of(((row[at], row[i]) for row in one["values"]), name, "row")))
    return parsed_of(dialect, name, unique(series), names=names)


def _elastic(value: Any, name: str, dialect: str) -> Parsed:
    aggregations = value.get("aggregations") or value["aggs"]
    label, found = next((key, a) for key, a in aggregations.items() if isinstance(a, Mapping) and "buckets" in a)
    rows = rows_of(((b["key"], b["doc_count"]) for b in found["buckets"]), name, "bucket")
    return parsed_of(dialect, name, [(str(label), rows)], stated=Meaning("count", "as its doc_count says"))


def _has(*keys: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(key in value for key in keys)


def _list_of(*keys: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(_has(*keys)(one) for one in value)


def _is_datadog_v2(value: Any) -> bool:
    return _has("data")(value) and _has("attributes")(value["data"]) and _has("times", "values")(value["data"]["attributes"])


def _is_azure(value: Any) -> bool:
    return _has("value")(value) and _list_of("timeseries")(value["value"])


def _is_elastic(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("aggregations", value.get("aggs")), Mapping)


def _victoria(value: Any, name: str, dialect: str) -> Parsed:
    results = [
        {"metric": one["metric"], "values": [[t / 1000, v] for t, v in zip(one["timestamps"], one["values"], strict=True)]}
        for one in (value if isinstance(value, list) else [value])
    ]
    return prometheus(results, name, dialect)


def _is_victoria(value: Any) -> bool:
    return _has("metric", "values", "timestamps")(value) or _list_of("metric", "values", "timestamps")(value)


def _is_promtool_list(value: Any) -> bool:
    return value == [] or _list_of("metric", "values")(value) or _list_of("metric", "value")(value)


DIALECTS = (
    Dialect("CloudWatch's get-metric-statistics", _has("Datapoints"), _statistics),
    Dialect("CloudWatch's get-metric-data", _has("MetricDataResults"), _metric_data),
    Dialect("Datadog's timeseries query", _is_datadog_v2, _datadog_timeseries),
    Dialect(
        "Datadog's query",
        lambda v: _has("series")(v) and (_list_of("pointlist")(v["series"]) or not v["series"]),
        _datadog,
    ),
    Dialect("Azure Monitor's metrics", _is_azure, _azure),
    Dialect("Google Cloud Monitoring's time series", lambda v: _has("timeSeries")(v) or _list_of("metric", "points")(v), _google),
    Dialect("InfluxDB's answer", lambda v: _has("results")(v) and isinstance(v["results"], list), _influx),
    Dialect("an Elasticsearch histogram", _is_elastic, _elastic),
    Dialect("Graphite's render", _list_of("target", "datapoints"), _graphite),
    Dialect("VictoriaMetrics' export", _is_victoria, _victoria),
    Dialect("promtool's list", _is_promtool_list, prometheus),
    Dialect(
        "a Prometheus answer",
        lambda v: _has("status")(v) or _has("resultType", "result")(v),
        lambda v, n, d: _prometheus_answer(v if "status" in v else {"status": "success", "data": v}, n, d),
    ),
)
