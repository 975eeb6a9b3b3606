"""`scalepilot workload import --prometheus URL`: what a Prometheus has recorded, as a trace."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING

from scalepilot.cli.times import ALLOWED, moment
from scalepilot.errors import InputError

if TYPE_CHECKING:
    from scalepilot.operate.telemetry.client import Connection
    from scalepilot_envs.workloads import Imported, Said

_NEEDED = ("query", "start")
_OPTIONAL = ("end", "step", "coverage", "expected", "token_file", "user", "password_file", "ca_file")
# What only a file has.
_OF_FILES = ("time_column", "value_column", "series", "timezone", "delimiter", "decimal", "date_order")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Options of `workload import` for a Prometheus."""
    group = command.add_argument_group("reading a Prometheus (docs/operate.md)")
    group.add_argument("--prometheus", metavar="URL", help="up to its /api/v1, such as http://prometheus:9090")
    query = "a counter with its labels, such as 'http_requests_total{app=\"web\"}', or an expression that gives a rate"
    group.add_argument("--query", metavar="PROMQL", help=query)
    group.add_argument("--start", metavar="TIME", help=ALLOWED)
    group.add_argument("--end", metavar="TIME", help="the same (default: now)")
    group.add_argument("--step", metavar="SECONDS", type=float, help="of the trace (default: 60)")
    coverage = "pods that were scraped, such as 'count(count by (pod) (up{app=\"web\"}))': fewer than there were are a gap"
    group.add_argument("--coverage", metavar="PROMQL", help=coverage)
    group.add_argument("--expected", metavar="PROMQL", help="pods there were (default: the most that were scraped at a time)")
    group.add_argument("--token-file", metavar="FILE", help="bearer token")
    group.add_argument("--user", metavar="NAME", help="of HTTP Basic, with --password-file")
    group.add_argument("--password-file", metavar="FILE", help="the user's password")
    group.add_argument("--ca-file", metavar="FILE", help="certificates to check its own against")
    group.add_argument("--header", metavar="NAME=VALUE", action="append", default=[], help="such as X-Scope-OrgID=shop")


def given(arguments: argparse.Namespace) -> list[str]:
    """The options for a Prometheus as they were typed; nothing where it is a file."""
    words = []
    for name in ("prometheus", *_NEEDED, *_OPTIONAL):
        value = getattr(arguments, name, None)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return words + [word for header in getattr(arguments, "header", ()) for word in ("--header", header)]


def check_source(arguments: argparse.Namespace) -> None:
    """Refuse anything but a file, or a Prometheus with what it needs.

    Raises:
        InputError: naming the option.
    """
    if arguments.prometheus is None:
        if arguments.source is None:
            raise InputError("workload import: no source; allowed: a FILE, or --prometheus URL --query … --start …")
        if words := given(arguments):
            raise InputError(f"{words[0]}: is used with --prometheus; allowed: with it, or a FILE alone")
        return
    if arguments.source is not None:
        raise InputError(f"{arguments.source}: is not allowed beside --prometheus; allowed: one of them")
    for name in _NEEDED:
        if getattr(arguments, name) is None:
            raise InputError(f"--{name}: is missing; allowed: --prometheus URL --query … --start … [--end …]")
    for name in _OF_FILES:
        if getattr(arguments, name):
            raise InputError(f"--{name.replace('_', '-')}: is not used with --prometheus; allowed: with a file")
    if arguments.counter_resets != "error":
        raise InputError("--counter-resets: is not used with --prometheus; restarts are counted from zero")


def import_prometheus(arguments: argparse.Namespace, said: Said) -> tuple[Imported, dict[str, str]]:
    """The trace, and what it was made of, for the file it is written to.

    Args:
        arguments: of the command.
        said: what the user says of the numbers.

    Raises:
        InputError: an option, or what is found; RunError: no answer.
    """
    from dataclasses import replace

    from scalepilot.operate.telemetry.client import PrometheusClient
    from scalepilot.operate.telemetry.history import Wanted, read_history
    from scalepilot.progress import Progress
    from scalepilot_envs.workloads.traces.assemble import assemble

    now = time.time()
    step = 60.0 if arguments.step is None else arguments.step
    start, end = moment(arguments.start, "--start", now), moment(arguments.end or "now", "--end", now)
    for option, text, at in (("--start", arguments.start, start), ("--end", arguments.end, end)):
        if at > now + 86_400:
            raise InputError(f"{option}: {text!r} lies in the future; allowed: up to now")
    if said.unit == "events":
        raise InputError("--unit events: a Prometheus holds numbers over time; allowed: rps, rpm, rph, rpd, count, counter")
    is_counter = None if said.unit is None else said.unit == "counter"
    if not (math.isfinite(step) and step >= 1):
        raise InputError(f"--step: {step:g} is not allowed; allowed: seconds from 1")
    # Steps begin at whole multiples, so that days and hours do.
    wanted = Wanted(
        arguments.query,
        math.ceil(start / step) * step,
        end,
        step,
        arguments.coverage,
        arguments.expected,
        is_counter,
        said.sum,
        fills_gaps=said.gaps != "error",
    )
    client = PrometheusClient(_connection(arguments), "--prometheus")
    days = (wanted.end - wanted.start) / 86_400
    progress = Progress("reading", "days")
    progress.begin(math.ceil(days))
    try:
        # The last part is told by what follows.
        parsed = read_history(client, wanted, lambda share: progress.update(int(days * share)) if share < 1 else None)
    finally:
        progress.end()
        client.close()
    unit = None if said.unit == "counter" else said.unit
    imported = assemble(client.url, parsed, replace(said, unit=unit, sum=False))
    return replace(imported, sure=True), _notes(arguments, imported)


def _connection(arguments: argparse.Namespace) -> Connection:
    from scalepilot.operate.telemetry.client import Connection

    headers = {}
    for text in arguments.header:
        name, mark, value = text.partition("=")
        if not (mark and name.strip() and value):
            raise InputError(f"--header: {text!r} is not allowed; allowed: NAME=VALUE")
        headers[name.strip()] = value
    files = {name: getattr(arguments, name) for name in ("token_file", "user", "password_file", "ca_file")}
    try:
        return Connection(arguments.prometheus, headers=headers, **files)
    except ValueError as error:
        raise InputError(f"--prometheus: {error}") from None


def _notes(arguments: argparse.Namespace, imported: Imported) -> dict[str, str]:
    from scalepilot.operate.snapshot import utc

    series = imported.series
    ends = series.start_unix_seconds + len(series) * series.interval_seconds
    notes = {"prometheus": arguments.prometheus, "query": arguments.query}
    notes |= {name: getattr(arguments, name) for name in ("coverage", "expected") if getattr(arguments, name)}
    notes |= {"start": utc(series.start_unix_seconds), "end": utc(ends), "gaps": arguments.gaps}
    return notes


__all__ = ["add_arguments", "check_source", "given", "import_prometheus"]
