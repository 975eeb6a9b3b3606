"""`scalepilot workload replay|locust`: a workload's requests, sent to a service."""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalepilot.cli import streams
from scalepilot.errors import InputError

if TYPE_CHECKING:
    from scalepilot.operate.load.schedule import Schedule
    from scalepilot.operate.load.target import Request

_NOTHING_ANSWERED = 1
_MOST_BODY_BYTES = 16_000_000
# Option → lowest, highest.
_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "minutes": (0.001, 1440.0),
    "pace": (0.001, 1e6),
    "start_hours": (0.0, 1e6),
    "peak_rps": (1e-6, 1e9),
    "max_rps": (0.001, 1e5),
    "max_open": (1, 100_000),
    "timeout_seconds": (0.01, 3600.0),
    "slo_seconds": (1e-4, 3600.0),
    "interval_seconds": (0.1, 3600.0),
}
# Of an interval, where none is asked for.
_SHORTEST_SECONDS, _LONGEST_SECONDS, _FEWEST_INTERVALS = 1.0, 60.0, 10


def add_arguments(what: argparse._SubParsersAction[Any]) -> None:
    """The two commands of `workload`."""
    replaying = what.add_parser("replay", help="send a workload's requests to a service, whether or not it keeps up")
    writing = what.add_parser("locust", help="write a locustfile.py whose shape is a workload")
    for command in (replaying, writing):
        command.add_argument("source", metavar="WORKLOAD", help="a trace's file, a kind such as spike, or experiment YAML")
        setting = "a key of the kind (num_steps=500), or of the YAML (workload.days=3)"
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
        command.add_argument("--peak-rps", type=float, metavar="RPS", help="scale the 99.5 %% quantile to this many requests/s")
        parts = ("train", "validation", "test", "all")
        command.add_argument("--part", choices=parts, default="all", help="of the workload's time (default: all)")
        command.add_argument("--start-hours", type=float, default=0.0, metavar="H", help="leave out its first H hours")
        command.add_argument("--minutes", type=float, default=10.0, metavar="M", help="how long at most (default: %(default)g)")
        pace = "workload seconds in a second; the rates stay as they are (default: %(default)g)"
        command.add_argument("--pace", type=float, default=1.0, metavar="N", help=pace)
    _add_sending(replaying)
    writing.add_argument("-o", "--out", type=Path, metavar="FILE", required=True, help="a new file")


def _add_sending(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", required=True, help="of this machine, such as http://127.0.0.1:8000/path")
    command.add_argument("--allow-host", metavar="HOST", help="the host of --url, where it is another machine")
    command.add_argument("--method", default="GET", help="default: %(default)s")
    command.add_argument("--body", type=Path, metavar="FILE", help="sent with every request")
    command.add_argument(
        "--header", metavar="NAME=VALUE", action="append", default=[], help="such as Content-Type=application/json"
    )
    command.add_argument("--token-file", type=Path, metavar="FILE", help="bearer token")
    command.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to check the service's own against")
    arrivals = "recorded: in every second as many as the workload says; poisson: their number varies, too (default: recorded)"
    command.add_argument("--arrivals", choices=("recorded", "poisson"), default="recorded", help=arrivals)
    command.add_argument("--seed", type=int, default=0, metavar="N", help="other arrivals")
    command.add_argument("--max-rps", type=float, default=1000.0, metavar="RPS", help="refuse more (default: %(default)g)")
    most_open = "requests on their way at a time; the others wait, and the wait counts (default: %(default)s)"
    command.add_argument("--max-open", type=int, default=1000, metavar="N", help=most_open)
    timeout = "a request is given up so long after its moment (default: %(default)g)"
    command.add_argument("--timeout-seconds", type=float, default=10.0, metavar="S", help=timeout)
    command.add_argument("--slo-seconds", type=float, metavar="S", help="answers after that are late")
    interval = "of the figures by interval (default: the workload's; from 1 to 60, ten or more of them)"
    command.add_argument("--interval-seconds", type=float, metavar="S", help=interval)
    command.add_argument("-o", "--out", type=Path, metavar="FILE", help="figures of each interval, as a new CSV file")
    command.add_argument("--json", action="store_true", help="print JSON")


def _schedule(arguments: argparse.Namespace) -> Schedule:
    """The stretch of the workload that is asked for.

    Raises:
        InputError, ValueError: what is asked for is not there.
    """
    from scalepilot.cli.workload_source import described
    from scalepilot.operate.load.schedule import schedule_of
    from scalepilot_envs.workloads import Said, import_trace

    for name, (low, high) in _BOUNDS.items():
        value = getattr(arguments, name, None)
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"--{name.replace('_', '-')}: {value:g} is not allowed; allowed: {low:g} to {high:g}")
    workload = described(arguments.source, arguments.set)
    series = import_trace(Path(arguments.source), Said(asked=False)).series if workload is None else workload.series()
    series = series.part(arguments.part)
    if arguments.peak_rps is not None:
        series = series.scaled_to_peak(arguments.peak_rps)
    return schedule_of(series, arguments.pace, 3600 * arguments.start_hours, 60 * arguments.minutes)


def _replay(arguments: argparse.Namespace) -> int:
    """Send them; 1 where nothing was answered."""
    import sys

    import numpy as np

    from scalepilot.files.stop import StopFlag
    from scalepilot.operate.load.replay import Limits, Plan, replay
    from scalepilot.operate.load.tally import Tally
    from scalepilot.progress import Progress, duration

    request = _request(arguments)
    schedule = _schedule(arguments)
    limits = Limits(arguments.max_rps, arguments.max_open, arguments.timeout_seconds)
    plan = Plan(request, schedule, arguments.arrivals, arguments.seed, limits)
    longest = min(schedule.interval_seconds, _LONGEST_SECONDS, schedule.seconds / _FEWEST_INTERVALS)
    interval = arguments.interval_seconds or max(_SHORTEST_SECONDS, longest)

    def expected(begin: float, end: float) -> float:
        return float(np.diff(schedule.cumulated(np.array([begin, end])))[0])

    asked = f"{schedule.expected:,.0f} requests in {duration(schedule.seconds)}"
    progress = Progress("sending", "s")
    stop = StopFlag("Stopping: nothing more is sent")

    def began() -> None:
        print(f"{arguments.source}: {asked} to {request.method} {request.url}", file=sys.stderr, flush=True)
        progress.begin(math.ceil(schedule.seconds))

    tally = Tally(interval, arguments.slo_seconds, expected, _Rows(arguments.out))
    with stop.listening():
        try:
            figures = replay(plan, tally, stop, began, lambda seconds: progress.update(int(seconds)))
        finally:
            progress.end()
    if arguments.json:
        print(json.dumps({"source": arguments.source, "url": request.url, "arrivals": arguments.arrivals} | figures, indent=1))
    else:
        _tell(figures, arguments)
    return 0 if figures["answered"] or not figures["intended"] else _NOTHING_ANSWERED


def _request(arguments: argparse.Namespace) -> Request:
    from scalepilot.operate.credentials import secret_line
    from scalepilot.operate.load.target import METHODS, Request

    method = arguments.method.upper()
    if method not in METHODS:
        raise InputError(f"--method: {arguments.method[:20]!r} is not allowed; allowed: {', '.join(METHODS)}")
    headers = {}
    for text in arguments.header:
        name, mark, value = text.partition("=")
        if not (mark and name.strip()):
            raise InputError(f"--header: {text[:80]!r} is not allowed; allowed: NAME=VALUE")
        headers[name.strip()] = value.strip()
    if arguments.token_file is not None:
        headers["Authorization"] = f"Bearer {secret_line(str(arguments.token_file), '--token-file')}"
    body = b""
    if arguments.body is not None:
        if method in ("GET", "HEAD"):
            raise InputError(f"--body: is not used by {method}; allowed: with --method POST, PUT, PATCH or DELETE")
        body = arguments.body.read_bytes()
        if len(body) > _MOST_BODY_BYTES:
            raise InputError(f"--body: {arguments.body} has {len(body)} bytes; allowed: up to {_MOST_BODY_BYTES}")
    return Request(arguments.url, method, headers, body, arguments.allow_host, arguments.ca_file)


class _Rows:
    """Takes each interval's figures, and writes them where a file is wanted.

    Args:
        path: a new file; it is made with the first row.

    Raises:
        InputError: it is there already, or its folder is not.
    """

    def __init__(self, path: Path | None) -> None:
        if path is not None and path.exists():
            raise InputError(f"{path}: exists already; allowed: a new file")
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{path}: {path.parent} is not a directory; allowed: a new file in one that is there")
        self._path = path

    def __call__(self, row: dict[str, Any]) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            # The summary is worth more than its parts: what is sent goes on.
            streams.note("workload", f"{self._path}: no more intervals are written ({error.strerror})")
            self._path = None


def _tell(figures: dict[str, Any], arguments: argparse.Namespace) -> None:
    from scalepilot.cli.output import console
    from scalepilot.progress import duration

    lines = [
        f"{'stopped after' if figures['stopped'] else 'sent for'} {duration(figures['seconds'])}:"
        f" {figures['intended']:,} intended, {figures['sent']:,} sent, {figures['answered']:,} answered"
    ]
    errors = ", ".join(f"{kind} {many:,}" for kind, many in figures["errors"].items())
    lines.append(f"errors: {errors or 'none'}")
    if (share := figures["late_share"]) is not None:
        lines.append(f"late: {100 * share:.3g} % above {figures['slo_seconds']:g} s or without an answer")
    latencies = {name: value for name, value in figures["latency_seconds"].items() if value is not None}
    if latencies:
        told = ", ".join(f"{name.replace('p999', 'p99.9')} {_seconds(value)}" for name, value in latencies.items())
        lines.append(f"latency, from the moment to send at: {told}")
    if (error := figures["sent_error"]) is not None:
        worst, step = figures["worst_interval_sent_error"], figures["interval_seconds"]
        by_interval = (
            "" if worst is None else f"; at worst {100 * worst:.2f} % off what was intended, in an interval of {step:g} s"
        )
        lines.append(f"rate: {100 * error:.2f} % off the workload{by_interval}")
    if late := figures["sent_late"]:
        behind = _seconds(figures["behind_seconds"])
        lines.append(
            f"{late:,} were sent over 0.1 s late: the service took no more connections, all {arguments.max_open:,} were busy,"
            f" or this machine was behind (by {behind} at most)"
        )
    if arguments.out is not None:
        lines.append(f"by interval: {arguments.out}")
    out = console()
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def _seconds(value: float) -> str:
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def _locust(arguments: argparse.Namespace) -> int:
    """Write the file."""
    from scalepilot.operate.load.locust import locustfile

    text = locustfile(_schedule(arguments), arguments.source)
    try:
        with arguments.out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{arguments.out}: exists already; allowed: a new file") from None
    print(f"written: {arguments.out}\n  locust --headless -f {arguments.out} --host http://127.0.0.1:8000")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"replay": _replay, "locust": _locust}
