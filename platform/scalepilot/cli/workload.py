"""`scalepilot workload show|import`: what a workload looks like, and whether a recorded one can be trained on."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalepilot.cli import output

if TYPE_CHECKING:
    from scalepilot_envs.workloads import Part, RateSeries

HELP = "show a workload's statistics; check your own CSV and say how to train on it"
_PLOT_ROWS, _LABEL_COLUMNS = 8, 9
_FEWEST_TO_SPLIT = 4
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PARTS: tuple[Part, ...] = ("train", "validation", "test")
_STATISTICS = ("min", "p50", "mean", "p95", "p99", "max")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `workload`."""
    what = parser.add_subparsers(dest="what", metavar="show|import", required=True)
    showing = what.add_parser("show", help="statistics, split and a plot")
    showing.add_argument("source", type=Path, metavar="CONFIG_OR_CSV", help="experiment YAML, or a trace's CSV")
    importing = what.add_parser("import", help="check a CSV and print the command that trains on it")
    importing.add_argument("source", type=Path, metavar="CSV", help="the trace: timestamp,requests_per_second")
    importing.add_argument("-o", "--out", type=Path, metavar="CSV", help="write the checked trace here, in UTC on a regular grid")
    filling = "fill missing rows of a CSV (default: refuse)"
    for command in (showing, importing):
        command.add_argument("--gaps", choices=("error", "linear", "previous"), default="error", help=filling)
        command.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Show or import."""
    from scalepilot.errors import InputError

    try:
        return _show(arguments) if arguments.what == "show" else _import(arguments)
    except ValueError as error:
        # Workloads name file, line or key, the value and what is allowed.
        raise InputError(str(error)) from None


def _show(arguments: argparse.Namespace) -> int:
    from scalepilot.config import load_config
    from scalepilot_envs.workloads import read_csv

    if arguments.source.suffix.lower() in (".yaml", ".yml"):
        workload = load_config(arguments.source).workload
        kind, series = workload.kind, workload.series()
    else:
        kind, series = "trace", read_csv(arguments.source, arguments.gaps)
    figures = {"source": str(arguments.source), "kind": kind} | describe(series)
    if arguments.json:
        print(json.dumps(figures, indent=1))
    else:
        _print(figures, series)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from scalepilot.errors import InputError
    from scalepilot_envs.workloads import read_csv

    if arguments.gaps != "error" and arguments.out is None:
        raise InputError(f"--gaps {arguments.gaps}: needs --out CSV, where the filled trace is written")
    series = read_csv(arguments.source, arguments.gaps)
    figures = {"source": str(arguments.source), "kind": "trace"} | describe(series)
    if arguments.out is not None:
        _write(series, arguments.out)
    command = train_command(arguments.out or arguments.source, series)
    if arguments.json:
        print(json.dumps(figures | {"written": str(arguments.out) if arguments.out else None, "train": command}, indent=1))
        return 0
    _print(figures, series)
    if arguments.out is not None:
        print(f"written: {arguments.out}")
    print(f"train on it:\n  {command}")
    return 0


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
    import numpy as np

    rates = series.rates_rps
    p50, p95, p99 = np.quantile(rates, [0.5, 0.95, 0.99])
    values = (rates.min(), p50, rates.mean(), p95, p99, rates.max())
    return {name: round(float(value), 6) for name, value in zip(_STATISTICS, values, strict=True)}


def _time(unix_seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(unix_seconds, UTC).isoformat().replace("+00:00", "Z")


def train_command(path: Path, series: RateSeries) -> str:
    """The one command that trains on a trace; a short one gets windows that fit.

    Raises:
        InputError: too short to be split at all.
    """
    import shlex

    from scalepilot.errors import InputError
    from scalepilot_envs.autoscale import AutoscaleParams
    from scalepilot_envs.autoscale.env import EPISODE_STEPS

    interval = AutoscaleParams().interval_seconds
    steps = int((len(series) - 1) * series.interval_seconds / interval)
    longest, episode = int(0.15 * steps) - 2, int(0.70 * steps) - 1
    if longest < 2:
        days = math.ceil(EPISODE_STEPS / 0.15 * interval / 8_640) / 10
        raise InputError(f"{path}: spans {steps} decisions of {interval:g} s; allowed: at least 30, better {days:.1f} days")
    command = f"scalepilot train tune_configs/autoscale-ppo.yaml --trace {shlex.quote(str(path))}"
    if longest < EPISODE_STEPS:
        command += f" --set evaluation.window_steps={longest}"
    if episode < EPISODE_STEPS:
        command += f" --set env.episode_steps={episode}"
    return command


def _write(series: RateSeries, path: Path) -> None:
    from scalepilot.errors import InputError

    if path.exists():
        raise InputError(f"--out {path}: exists already; allowed: a new file")
    times = (_time(series.start_unix_seconds + i * series.interval_seconds) for i in range(len(series)))
    lines = [f"{time},{rate:.10g}\n" for time, rate in zip(times, series.rates_rps.tolist(), strict=True)]
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_text("timestamp,requests_per_second\n" + "".join(lines), encoding="utf-8")
        aside.rename(path)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror})") from None


def _print(figures: dict[str, Any], series: RateSeries) -> None:
    from rich import box
    from rich.table import Table

    console = output.console()
    points = f"{figures['num_points']:,} points every {figures['interval_seconds']:g} s"
    span = f"{figures['days']:.1f} days" if figures["days"] >= 2 else f"{24 * figures['days']:.1f} hours"
    console.print(f"{figures['source']}: {figures['kind']}, {points}", markup=False, soft_wrap=True)
    console.print(f"{figures['start']} to {figures['end']}, {span}")
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
