"""Access logs, k6's JSON lines and the text formats of Prometheus, line by line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import numpy as np

from scalepilot_envs.workloads.traces.json_samples import metric_name
from scalepilot_envs.workloads.traces.meaning import Meaning
from scalepilot_envs.workloads.traces.parsed import Parsed
from scalepilot_envs.workloads.traces.rows import Rows, TraceError
from scalepilot_envs.workloads.traces.source import Source
from scalepilot_envs.workloads.traces.times import TimeFormat, number_kind

_MONTHS = {
    m: i + 1
    for i, m in enumerate((b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"))
}
# host ident user [04/Mar/2024:10:00:00 +0000] "GET /a HTTP/1.0" 200 7538 …: a request's line may hold quotes and any byte.
_COMMON = re.compile(rb'^(\S+ \S+ .{1,200}?|\S+ )\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] +".*" \d{3} (?:\d+|-)')
_ISO = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))")
_ALB = re.compile(rb"^(?:https?|h2|grpcs?|wss?) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z) \S+ \S+ \S+ ")
_ELB = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z) \S+ \d+\.\d+\.\d+\.\d+:\d+ \S+ -?[\d.]+ ")
_LINES_TO_KNOW = 200
_EVENTS_AT_ONCE = 100_000
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)?(\{.*\})?\s+([-+.\deE]+|[+-]?Inf|NaN)(?:\s+@?\[?(-?[\d.]+)\]?)?(?:\s+#.*)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MAX_SAMPLES = 20_000_000


@dataclass(frozen=True)
class LogDialect:
    """A log with a request a line.

    Attributes:
        name: for messages.
        stamp: a line → Unix seconds and how many requests it is, or None where it is no request's.
        strange: lines that are no request's are part of the format, not malformed.
    """

    name: str
    stamp: Callable[[bytes], tuple[float, float] | None]
    strange: bool = False


def _clock_reader() -> Callable[[bytes], float]:
    """Reads Apache's times; the same second and the same day are not read twice."""
    days: dict[bytes, float] = {}

    def read(text: bytes) -> float:
        # "04/Mar/2024:10:00:00 +0000"
        key = text[:11] + text[20:]
        if key not in days:
            sign = -1 if text[21:22] == b"-" else 1
            zone = timezone(sign * timedelta(hours=int(text[22:24]), minutes=int(text[24:26])))
            days[key] = datetime(int(text[7:11]), _MONTHS[text[3:6]], int(text[:2]), tzinfo=zone).timestamp()
        return days[key] + int(text[12:14]) * 3600 + int(text[15:17]) * 60 + int(text[18:20])

    return read


def _common() -> Callable[[bytes], tuple[float, float] | None]:
    read = _clock_reader()

    def stamp(line: bytes) -> tuple[float, float] | None:
        found = _COMMON.match(line)
        if found is None:
            return None
        try:
            return read(found[2]), 1.0
        except (ValueError, KeyError):
            return None

    return stamp


def _iso(pattern: re.Pattern[bytes]) -> Callable[[bytes], tuple[float, float] | None]:
    def stamp(line: bytes) -> tuple[float, float] | None:
        found = pattern.match(line)
        try:
            return (datetime.fromisoformat(found[1].decode()).timestamp(), 1.0) if found else None
        except ValueError:
            return None

    return stamp


def _k6(line: bytes) -> tuple[float, float] | None:
    if b'"http_reqs"' not in line:
        return None
    try:
        point = json.loads(line)
        if point["type"] != "Point" or point["metric"] != "http_reqs":
            return None
        moment = re.sub(r"(\.\d{6})\d+", r"\1", point["data"]["time"])
        return datetime.fromisoformat(moment).timestamp(), float(point["data"]["value"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _json_line(line: bytes) -> tuple[float, float] | None:
    """A request as a JSON object with a time, as nginx, Caddy and Traefik can log it."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not any(key in entry for key in _REQUEST_KEYS):
        return None
    for key in (
        "time",
        "@timestamp",
        "timestamp",
        "ts",
        "time_iso8601",
        "StartUTC",
        "time_local",
        "msec",
        "datetime",
        "start_time",
    ):
        value = entry.get(key)
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                kind = number_kind(value)
                return (TimeFormat(kind).seconds(value), 1.0) if kind and kind != "excel" else None
            if isinstance(value, str):
                form = TimeFormat(number_kind(float(value)) or "text") if re.fullmatch(r"[\d.]+", value) else TimeFormat("text")
                return form.read(value.replace(":", " ", 1) if "/" in value[:4] else value, "")[0], 1.0
        except (ValueError, TraceError):
            return None
    return None


_REQUEST_KEYS = (
    "request",
    "request_uri",
    "uri",
    "RequestPath",
    "path",
    "status",
    "request_method",
    "method",
    "remote_addr",
    "url",
)
LOGS: tuple[tuple[str, Callable[[], Callable[[bytes], tuple[float, float] | None]]], ...] = (
    ("an access log (common or combined)", _common),
    ("an ALB's access log", lambda: _iso(_ALB)),
    ("a classic ELB's access log", lambda: _iso(_ELB)),
    ("a log of JSON lines", lambda: _json_line),
)


def parse_log(source: Source) -> Parsed | None:
    """Requests of a log, each at its own time; None where it is none."""
    lines = [line.rstrip(b"\r") for line in source.raw_head.split(b"\n")[:_LINES_TO_KNOW] if line.strip()]
    if not lines or source.encoding != "utf-8":
        return None
    if _is_k6(lines[0]) and any(_is_k6(line) for line in lines[1:] or lines):
        return _events("k6's JSON lines (http_reqs)", _k6, source, strange=True)
    if (fields := next((line for line in lines[:10] if line.startswith(b"#Fields:")), None)) is not None:
        return _w3c(fields, source)
    for name, make in LOGS:
        stamp = make()
        if sum(stamp(line) is not None for line in lines) >= 0.5 * len(lines):
            return _events(name, make(), source)
    return None


def _is_k6(line: bytes) -> bool:
    try:
        entry = json.loads(line) if line.startswith(b"{") and b'"metric"' in line else None
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and entry.get("type") in ("Metric", "Point") and isinstance(entry.get("data"), dict)


def _w3c(fields: bytes, source: Source) -> Parsed:
    """IIS and CloudFront: the line #Fields names the columns; their times are UTC."""
    names = fields.split(b":", 1)[1].split()
    if b"date" not in names or b"time" not in names:
        raise TraceError(f"{source.name}: a W3C log without date and time; allowed: both among its #Fields")
    day, clock = names.index(b"date"), names.index(b"time")

    def stamp(line: bytes) -> tuple[float, float] | None:
        cells = line.split(b"\t") if b"\t" in line else line.split(b" ")
        try:
            return datetime.fromisoformat(f"{cells[day].decode()}T{cells[clock].decode()}+00:00").timestamp(), 1.0
        except (ValueError, IndexError, UnicodeDecodeError):
            return None

    return _events("a W3C log (IIS, CloudFront)", stamp, source)


def _events(
    dialect: str, stamp: Callable[[bytes], tuple[float, float] | None], source: Source, *, strange: bool = False
) -> Parsed:
    parsed = Parsed(dialect, iter(()), lambda line: f"{source.name}:{line}", events=True)
    parsed.blocks = _event_blocks(stamp, source, parsed, strange)
    return parsed


def _event_blocks(
    stamp: Callable[[bytes], tuple[float, float] | None], source: Source, parsed: Parsed, strange: bool
) -> Iterator[tuple[str, Rows]]:
    stamps: list[float] = []
    weights: list[float] = []
    lines: list[int] = []
    malformed, first = 0, 0
    total = 0
    for number, line in enumerate(source.lines(), 1):
        found = stamp(line)
        if found is not None:
            stamps.append(found[0])
            weights.append(found[1])
            lines.append(number)
        elif line.strip() and not strange and not line.startswith(b"#"):
            malformed += 1
            first = first or number
        if len(stamps) >= _EVENTS_AT_ONCE:
            yield "", Rows(np.array(stamps), np.array(weights), np.array(lines))
            total += len(stamps)
            stamps, weights, lines = [], [], []
    total += len(stamps)
    if malformed:
        parsed.told.append(f"{malformed:,} malformed lines are not counted, the first is line {first}")
    if malformed > total:
        raise TraceError(
            f"{source.name}:{first}: {malformed:,} of {malformed + total:,} lines are no requests; allowed: at most half"
        )
    if stamps:
        yield "", Rows(np.array(stamps), np.array(weights), np.array(lines))


def parse_samples(source: Source) -> Parsed | None:
    """OpenMetrics or `promtool tsdb dump`, or the lists that promtool prints; None where it is none of them."""
    lines = [line for line in source.head.splitlines()[:_LINES_TO_KNOW] if line.strip()]
    plain = [line for line in lines if not line.startswith("#")]
    if not plain or source.head.lstrip()[:1] == "[" or source.head.lstrip()[:2] in ('{"', "{\n", "{ "):
        return None
    if plain[0].rstrip().endswith("=>"):
        return _promtool_text(source)
    timed = [found for line in plain if (found := _SAMPLE.match(line.strip())) and (found[1] or found[2])]
    if len(timed) < 0.9 * len(plain):
        return None
    if not all(found[4] for found in timed):
        raise TraceError(f"{source.name}: is one scrape of metrics without times; allowed: a history, such as promtool tsdb dump")
    types = {found[1]: found[2] for line in lines if (found := re.match(r"# TYPE (\S+) (\S+)", line))}
    series: dict[str, tuple[list[float], list[float], list[int]]] = {}
    names: dict[str, str] = {}
    total = 0
    for number, raw in enumerate(source.lines(), 1):
        line = source.decode(raw).strip()
        if not line or line.startswith("#"):
            continue
        found = _SAMPLE.match(line)
        if found is None or not found[4]:
            raise TraceError(f"{source.name}:{number}: {line[:80]!r} is not allowed; allowed: name{{labels}} value time")
        labels = dict(_LABEL.findall(found[2] or ""))
        metric = found[1] or labels.pop("__name__", "")
        label = metric_name({"__name__": metric, **labels})
        names[label] = metric
        stamps, values, places = series.setdefault(label, ([], [], []))
        seconds, value = float(found[4]), float(found[3])
        kind = number_kind(seconds)
        if kind in (None, "excel"):
            raise TraceError(f"{source.name}:{number}: time {found[4]!r} is not allowed; allowed: Unix seconds or milliseconds")
        if value < 0 or value == float("inf"):
            raise TraceError(f"{source.name}:{number}: value {found[3]!r} is not allowed; allowed: finite numbers from 0")
        stamps.append(TimeFormat(str(kind)).seconds(seconds))
        values.append(value)
        places.append(number)
        total += 1
        if total > _MAX_SAMPLES:
            raise TraceError(f"{source.name}: more than {_MAX_SAMPLES:,} samples; allowed: so many, or one series as CSV")
    blocks = [(k, Rows(np.array(t), np.array(v), np.array(p), "value NaN")) for k, (t, v, p) in series.items()]
    kinds = {types.get(name) or types.get(name.removesuffix("_total")) for name in names.values()}
    stated = Meaning("counter", "as its # TYPE says") if kinds == {"counter"} else None
    return Parsed(
        "Prometheus's text of samples",
        iter(blocks),
        lambda line: f"{source.name}:{line}",
        stated=stated,
        names=names,
        raw_metric=True,
        unordered=True,
    )


def _promtool_text(source: Source) -> Parsed:
    """`promtool query range`: a line "name{labels} =>" and below it "value @[time]"."""
    from scalepilot_envs.workloads.traces.json_text import prometheus

    results: list[dict[str, object]] = []
    for number, raw in enumerate(source.lines(), 1):
        line = source.decode(raw).strip()
        if line.endswith("=>"):
            head = line.removesuffix("=>").strip()
            name, _, labels = head.partition("{")
            metric = dict(_LABEL.findall(labels)) | ({"__name__": name} if name else {})
            results.append({"metric": metric, "values": []})
        elif found := re.fullmatch(r"(\S+) @\[([\d.]+)\]", line):
            values = results[-1]["values"]
            assert isinstance(values, list)
            values.append([float(found[2]), found[1]])
        elif line:
            raise TraceError(f"{source.name}:{number}: {line[:80]!r} is not allowed; allowed: value @[time]")
    return prometheus(results, source.name, "promtool's text")


def utc(seconds: float) -> str:
    """A moment for messages."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
