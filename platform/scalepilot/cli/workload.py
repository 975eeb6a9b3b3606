"""`scalepilot workload`: what one looks like, whether it can be trained on, one to keep, and its requests sent to a service."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalepilot.cli import output, workload_load, workload_prometheus
from scalepilot.cli.workload_source import described

if TYPE_CHECKING:
    from scalepilot_envs.workloads import Imported, Part, RateSeries, Said

HELP = "show a workload, import recorded traffic, generate a file, or send its requests"
_PLOT_ROWS, _LABEL_COLUMNS = 8, 9
_FEWEST_TO_SPLIT = 4
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PARTS: tuple[Part, ...] = ("train", "validation", "test")
_STATISTICS = ("min", "p50", "mean", "p95", "p99", "max")
_READING = (
    "unit", "time_column", "value_column", "sum", "series", "timezone", "delimiter", "decimal", "date_order",
    "gaps", "interval_seconds", "counter_resets",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `workload`."""
    what = parser.add_subparsers(dest="what", metavar="show|import|generate|replay|locust", required=True)
    showing = what.add_parser("show", help="statistics, split and a plot")
    showing.add_argument("source", metavar="SOURCE", help="experiment YAML, a trace's file, or a kind such as spike")
    importing = what.add_parser("import", help="recognise recorded traffic, check it and print the command that trains on it")
    known = (
        "CSV, Parquet, JSON of Prometheus, CloudWatch, Datadog, Azure …, an access log, results of Locust or k6; packed or not"
    )
    importing.add_argument("source", type=Path, nargs="?", metavar="FILE", help=f"{known} (docs/traffic.md)")
    importing.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write the checked trace here, in UTC on a regular grid"
    )
    generating = what.add_parser("generate", help="write a workload to a file")
    generating.add_argument("source", metavar="SOURCE", help="a kind such as diurnal, or experiment YAML")
    generating.add_argument("--seed", type=int, metavar="N", help="other draws of a workload drawn by chance")
    generating.add_argument("--peak-rps", type=float, metavar="RPS", help="scale the 99.5 %% quantile to this many requests/s")
    generating.add_argument("-o", "--out", type=Path, metavar="FILE", required=True, help="a new .csv or .parquet")
    for command in (showing, generating):
        setting = "a key of the kind (num_steps=500), or of the YAML (workload.days=3)"
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
    for command in (showing, importing):
        _add_reading(command)
    workload_prometheus.add_arguments(importing)
    workload_load.add_arguments(what)
    for command in (showing, importing, generating):
        command.add_argument("--json", action="store_true", help="print JSON")


def _add_reading(command: argparse.ArgumentParser) -> None:
    """What the user says of a trace that it does not say itself."""
    reading = command.add_argument_group("reading a trace")
    units = ("rps", "rpm", "rph", "rpd", "count", "counter", "events")
    reading.add_argument(
        "--unit", choices=units, help="of its numbers: rates, a count of each interval, a rising counter, or a request a row"
    )
    reading.add_argument("--time-column", metavar="NAME", help="column of times, by name or number")
    reading.add_argument(
        "--value-column", action="append", default=[], metavar="NAME", help="column of requests; repeatable with --sum"
    )
    reading.add_argument("--sum", action="store_true", help="add several series up")
    reading.add_argument("--series", metavar="NAME", help="take only the series with this in its name")
    reading.add_argument("--timezone", metavar="ZONE", help="of times without a zone, such as Europe/Berlin (default: UTC)")
    reading.add_argument("--delimiter", metavar="CHARACTER", help="between columns")
    reading.add_argument("--decimal", choices=(".", ","), help="mark of decimals")
    reading.add_argument("--date-order", choices=("dmy", "mdy"), help="day or month first")
    gaps = ("error", "linear", "previous", "zero")
    reading.add_argument("--gaps", choices=gaps, default="error", help="fill what is missing (default: refuse)")
    averaging = "average into intervals of this length while reading"
    reading.add_argument("--interval-seconds", type=float, metavar="SECONDS", help=averaging)
    resetting = "a fall of a counter: refuse it (default), or count from zero"
    reading.add_argument("--counter-resets", choices=("error", "restart"), default="error", help=resetting)


def run(arguments: argparse.Namespace) -> int:
    """Show, import, generate, replay, or write a Locust file."""
    from scalepilot.errors import InputError

    try:
        commands = {"show": _show, "import": _import, "generate": _generate, **workload_load.COMMANDS}
        return commands[arguments.what](arguments)
    except ValueError as error:
        # Workloads name file, line or key, the value and what is allowed.
        raise InputError(str(error)) from None


def _show(arguments: argparse.Namespace) -> int:
    from scalepilot.errors import InputError

    workload = described(arguments.source, arguments.set)
    if workload is None:
        imported = _read(arguments, Path(arguments.source))
        figures = {"source": arguments.source, "kind": "trace"} | describe(imported.series) | _recognised(imported)
        _report(arguments, figures, imported.series)
        return 0
    if given := _given(arguments):
        raise InputError(f"{given[0]}: {arguments.source} is no trace's file; allowed: with a recorded trace")
    series = workload.series()
    _report(arguments, {"source": arguments.source, "kind": workload.kind} | describe(series), series)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    import shlex

    from scalepilot.errors import InputError
    from scalepilot_envs.workloads import write_trace

    if arguments.out is not None and arguments.out.exists():
        raise InputError(f"{arguments.out}: exists already; allowed: a new file")
    workload_prometheus.check_source(arguments)
    source, notes = arguments.source, None
    if arguments.prometheus is None:
        imported = _read(arguments, source)
    else:
        source = arguments.prometheus
        imported, notes = workload_prometheus.import_prometheus(arguments, _said(arguments))
    series = imported.series
    figures = {"source": str(source), "kind": "trace"} | describe(series) | _recognised(imported)
    if notes is not None:
        figures["provenance"] = notes
    # What is too short to train on leaves no file behind.
    train = train_command(arguments.out or source, series, arguments.interval_seconds)
    written = {"written": str(arguments.out) if arguments.out else None, "train": train}
    if arguments.out is not None:
        write_trace(series, arguments.out, notes)
    elif (options := _given(arguments)) or notes is not None or not imported.sure:
        words = [*workload_prometheus.given(arguments), *options] if notes is not None else [str(source), *options]
        written["train"] = shlex.join(["scalepilot", "workload", "import", *words, "--out", "trace.csv"])
    _report(arguments, figures, series, written)
    return 0


def _given(arguments: argparse.Namespace) -> list[str]:
    """The options that say something of a trace, as they were typed."""
    given = []
    for option in _READING:
        value = getattr(arguments, option)
        flag = f"--{option.replace('_', '-')}"
        if option in ("gaps", "counter_resets") and value == "error":
            continue
        if value is True:
            given.append(flag)
        elif isinstance(value, list):
            given += [word for one in value for word in (flag, one)]
        elif value not in (None, False):
            given += [flag, f"{value:g}" if isinstance(value, float) else value]
    return given


def _recognised(imported: Imported) -> dict[str, Any]:
    return {"recognised": {"dialect": imported.dialect, "unit": imported.unit, "told": list(imported.told)}}


def _generate(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from scalepilot.errors import InputError
    from scalepilot_envs.workloads import reseeded, write_trace

    workload = described(arguments.source, arguments.set)
    if workload is None:
        raise InputError(
            f"{arguments.source}: is a trace; allowed: a kind or an experiment's YAML (to convert it: workload import)"
        )
    if arguments.seed is not None:
        workload = reseeded(workload, arguments.seed)
    if arguments.peak_rps is not None:
        workload = replace(workload, peak_rps=arguments.peak_rps)
    series = workload.series()
    write_trace(series, arguments.out)
    figures = {"source": arguments.source, "kind": workload.kind} | describe(series)
    _report(arguments, figures, series, {"written": str(arguments.out)})
    return 0


def _read(arguments: argparse.Namespace, path: Path) -> Imported:
    from scalepilot_envs.workloads import import_trace

    return import_trace(path, _said(arguments))


def _said(arguments: argparse.Namespace) -> Said:
    from scalepilot_envs.workloads import Said

    if arguments.interval_seconds is not None and not (
        math.isfinite(arguments.interval_seconds) and arguments.interval_seconds > 0
    ):
        raise ValueError(f"--interval-seconds: {arguments.interval_seconds:g} is not allowed; allowed: above 0")
    if arguments.delimiter is not None:
        delimiter = arguments.delimiter = {"\\t": "\t", "tab": "\t"}.get(arguments.delimiter, str(arguments.delimiter))
        if len(delimiter) != 1 or delimiter in '\r\n"':
            raise ValueError(f"--delimiter: {arguments.delimiter!r} is not allowed; allowed: one character, such as ; or tab")
    options = {option: getattr(arguments, option) for option in _READING if option != "value_column"}
    return Said(**options, value_columns=tuple(arguments.value_column))


def _report(
    arguments: argparse.Namespace, figures: dict[str, Any], series: RateSeries, done: dict[str, str | None] | None = None
) -> None:
    done = done or {}
    if arguments.json:
        print(json.dumps(figures | done, indent=1))
        return
    _print(figures, series)
    if done.get("written"):
        print(f"written: {done['written']}")
    if train := done.get("train"):
        print(f"{'write it, then ' if ' workload import ' in train else ''}train on it:\n  {train}")


def describe(series: RateSeries) -> dict[str, Any]:
    """Span, grid, rates and split of a series, as plain data."""
    parts = {part: series.part(part) for part in _PARTS} if len(series) >= _FEWEST_TO_SPLIT else {}
    return {
        **_span(series),
        "interval_seconds": series.interval_seconds,
        "num_points": len(series),
        "requests_per_second": _rates(series),
        "parts": {part: _span(cut) | {"requests_per_second": _rates(cut)} for part, cut in parts.items()},
    }


def _span(series: RateSeries) -> dict[str, Any]:
    seconds = len(series) * series.interval_seconds
    return {
        "start": _time(series.start_unix_seconds),
        "end": _time(series.start_unix_seconds + seconds),
        "days": round(seconds / 86_400, 4),
    }


def _rates(series: RateSeries) -> dict[str, float]:
    from scalepilot_envs.workloads.quantiles import quantiles

    rates = series.rates_rps
    p50, p95, p99 = quantiles(rates, [0.5, 0.95, 0.99])
    values = (rates.min(), p50, rates.mean(), p95, p99, rates.max())
    return {name: round(float(value), 6) for name, value in zip(_STATISTICS, values, strict=True)}


def _time(unix_seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(unix_seconds, UTC).isoformat().replace("+00:00", "Z")


def train_command(path: Path | str, series: RateSeries, meant_seconds: float | None = None) -> str:
    """The one command that trains on a trace; a short one gets windows that fit.

    Args:
        path: of the trace.
        series: what it holds.
        meant_seconds: the interval that the user asked for; where it or the grid is finer than the usual time between two
            decisions, and the trace is too short for that, it is the time between two decisions.

    Raises:
        InputError: too short to be split at all.
    """
    import shlex

    from scalepilot.errors import InputError
    from scalepilot_envs.autoscale import AutoscaleParams
    from scalepilot_envs.autoscale.env import EPISODE_STEPS

    usual = AutoscaleParams().interval_seconds
    finer = min(usual, meant_seconds or series.interval_seconds)
    for interval in (usual, finer):
        steps = int((len(series) - 1) * series.interval_seconds / interval)
        longest, episode = int(0.15 * steps) - 2, int(0.70 * steps) - 1
        if longest >= 2:
            break
    else:
        days = math.ceil(EPISODE_STEPS / 0.15 * interval / 8_640) / 10
        raise InputError(f"{path}: spans {steps} decisions of {interval:g} s; allowed: at least 30, better {days:.1f} days")
    command = f"scalepilot train tune_configs/autoscale-ppo.yaml --workload {shlex.quote(str(path))}"
    if interval != usual:
        command += f" --set env.params.interval_seconds={interval:g}"
    if longest < EPISODE_STEPS:
        command += f" --set evaluation.window_steps={longest}"
    if episode < EPISODE_STEPS:
        command += f" --set env.episode_steps={episode}"
    return command


def _print(figures: dict[str, Any], series: RateSeries) -> None:
    from rich import box
    from rich.table import Table

    console = output.console()
    points = f"{figures['num_points']:,} points every {figures['interval_seconds']:g} s"
    span = f"{figures['days']:.1f} days" if figures["days"] >= 2 else f"{24 * figures['days']:.1f} hours"
    console.print(f"{figures['source']}: {figures['kind']}, {points}", markup=False, soft_wrap=True)
    console.print(f"{figures['start']} to {figures['end']}, {span}")
    if found := figures.get("recognised"):
        console.print(f"recognised: {found['dialect']}; {found['unit']}", markup=False, soft_wrap=True)
        for line in found["told"]:
            console.print(f"  {line}", markup=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("requests/s", "from", "days"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "days" else "left")
    for name in _STATISTICS:
        table.add_column(name, justify="right", no_wrap=True)
    for name, part in {"all": figures, **figures["parts"]}.items():
        rates = [f"{value:.4g}" for value in part["requests_per_second"].values()]
        table.add_row(name, part["start"][:16].replace("T", " "), f"{part['days']:.2f}", *rates)
    console.print(table)
    for line in plot(series, min(console.width, 160)):
        console.print(line, markup=False, soft_wrap=True)


def plot(series: RateSeries, columns: int) -> list[str]:
    """Bars of the mean rate over time, bursts (the highest point of each column) as dots, and where the parts begin."""
    import numpy as np

    width = min(max(10, columns - _LABEL_COLUMNS), len(series))
    cells = np.array_split(series.rates_rps, width)
    means, peaks = (np.array([reduce(cell) for cell in cells]) for reduce in (np.mean, np.max))
    top = float(peaks.max()) or 1.0
    eighths = np.rint(means / top * _PLOT_ROWS * 8).astype(int)
    burst_row = np.minimum(np.ceil(peaks / top * _PLOT_ROWS) - 1, _PLOT_ROWS - 1).astype(int)
    lines = []
    for row in reversed(range(_PLOT_ROWS)):
        filled = np.clip(eighths - 8 * row, 0, 8)
        text = "".join("·" if f == 0 and b == row else _BLOCKS[f] for f, b in zip(filled, burst_row, strict=True))
        label = f"{top * (row + 1) / _PLOT_ROWS:.4g}" if row % 2 else ""
        lines.append(f"{label:>{_LABEL_COLUMNS - 2}} │{text}".rstrip())
    marks = [" "] * width
    for part, share in zip(_PARTS, (0.0, 0.70, 0.85), strict=True):
        at = round(share * width)
        name = f"└{part}"[: width - at]
        marks[at : at + len(name)] = name
    return [*lines, " " * (_LABEL_COLUMNS - 1) + "".join(marks).rstrip()]
