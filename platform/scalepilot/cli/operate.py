"""`scalepilot operate`: a policy runs a live deployment; `log`, `explain` and `report` read what it has decided."""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from scalepilot.cli import streams
from scalepilot.cli.operate_report import PRICES, write
from scalepilot.cli.operate_show import say
from scalepilot.cli.times import ALLOWED, moment
from scalepilot.errors import InputError, printable

if TYPE_CHECKING:
    from scalepilot.operate.config import OperateConfig, Service
    from scalepilot.operate.controller import Controller
    from scalepilot.operate.feeds import Feed
    from scalepilot.operate.ledger import Entry
    from scalepilot.operate.snapshot import Snapshot
    from scalepilot.operate.targets import Target
    from scalepilot.operate.telemetry import Telemetry

HELP = "run a policy on a live deployment: dry run, limits, and a reason for every decision"
_WORDS = ("log", "explain", "report")
_DIFFERENT, _UNDECIDED, _NOT_READY = 1, 1, 2
# For a field that takes two moments.
_MOST_WAIT_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "what",
        nargs="*",
        metavar="RUN_OR_POLICY",
        help="run or policy folder, or a rule such as hpa:target=0.6; `log` shows the newest decisions, `explain TIME` one,"
        " `report` is a page about all of them: deploy it?",
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="operate.yaml: telemetry, target, limits (docs/operate.md)")
    parser.add_argument("--dry-run", action="store_true", help="decide and record, write nothing; read rights suffice")
    parser.add_argument("--check", action="store_true", help="show every field, its source and age, what is missing, and exit")
    parser.add_argument("--once", action="store_true", help="decide once and exit")
    parser.add_argument(
        "--replay", metavar="RECORDS", type=Path, help="decide recorded moments again, with this or another policy"
    )
    parser.add_argument("--twin", action="store_true", help="try it on a simulated service, three minutes; no cluster is needed")
    parser.add_argument("--workload", metavar="W", help="of --twin: a kind such as spike, or a trace file (default: a busy day)")
    parser.add_argument("--minutes", type=float, metavar="M", help="of --twin: how long (default: 3)")
    parser.add_argument("--pace", type=float, metavar="N", help="of --twin: simulated seconds in a second (default: 15)")
    parser.add_argument(
        "--records", metavar="FOLDER", type=Path, help="of `log`, `explain`, `report` and --twin (default: operate-records)"
    )
    parser.add_argument("--last", type=int, default=20, metavar="N", help="decisions that `log` shows (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="of `report` (default: report.html in the folder of records)")
    for name in PRICES:
        option, what = f"--{name.replace('_', '-')}", name.removeprefix("price_per_").replace("_", " ")
        parser.add_argument(option, metavar="MONEY", type=float, help=f"of `report`: a {what}, in place of the policy's price")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def run(arguments: argparse.Namespace) -> int:
    """Operate until SIGINT or SIGTERM, or look.

    Returns:
        0; of --check 2 where a required field or a right is missing; of --once 1 where nothing could be decided; of --replay
        with the recorded policy 1 where a decision differs.

    Raises:
        InputError: an unfit configuration, policy, limit or record, before anything is scaled.
    """
    words: list[str] = arguments.what
    if words[:1] and words[0] in _WORDS and not Path(words[0]).exists():
        return write(words[1:], arguments) if words[0] == "report" else _look(words, arguments)
    if len(words) > 1:
        raise InputError(f"{words[1]}: one policy too many; allowed: one (others can be shadows in --config)")
    config = _config(words, arguments)
    from scalepilot.operate.config import load_service

    service = load_service(config)
    streams.note_deploy("operate", [config.policy])
    if arguments.replay is not None:
        return _replay(service, arguments)
    if arguments.twin:
        from scalepilot.cli.operate_twin import run_twin

        return run_twin(config, service, arguments)
    return _operate(config, service, arguments)


def _config(words: list[str], arguments: argparse.Namespace) -> OperateConfig:
    from dataclasses import replace

    from scalepilot.operate.config import load_operate_config, operate_config

    if arguments.config is None and arguments.replay is None and not arguments.twin:
        raise InputError("config: none given; allowed: --config FILE with telemetry and target (docs/operate.md)")
    config = operate_config({}) if arguments.config is None else load_operate_config(arguments.config)
    return replace(config, policy=words[0]) if words else config


@contextmanager
def _connected(config: OperateConfig, service: Service, *, dry_run: bool) -> Iterator[tuple[Telemetry, Target]]:
    from scalepilot.operate.targets import TargetContext, make_target
    from scalepilot.operate.telemetry import TelemetryContext, make_telemetry

    identity = f"{socket.gethostname()}-{os.getpid()}"
    context = TargetContext(identity, dry_run, service.interval_seconds, bool(config.feed))
    telemetry = make_telemetry(config.telemetry, TelemetryContext(service.env, service.deciders.fields))
    try:
        target = make_target(config.target, context)
        try:
            yield telemetry, target
        finally:
            target.close()
    finally:
        telemetry.close()


def _operate(config: OperateConfig, service: Service, arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from scalepilot.operate.controller import Controller
    from scalepilot.operate.feeds import feed_of
    from scalepilot.operate.ledger import Ledger
    from scalepilot.operate.targets import WARNING
    from scalepilot.operate.tick import DECIDED
    from scalepilot.operate.tracking import tracked

    logging.basicConfig(format="scalepilot operate: %(message)s", level=logging.WARNING)
    feed = feed_of(config, service.interval_seconds)
    with _connected(config, service, dry_run=arguments.dry_run or arguments.check) as (telemetry, target):
        # They quote servers.
        problems = [printable(line) for line in target.check(dry_run=arguments.dry_run)]
        if arguments.check:
            return _check(service, telemetry, target, problems, as_json=arguments.json)
        blocking = [line for line in problems if not line.startswith(WARNING)]
        if blocking and not config.limits.takeover and not arguments.dry_run:
            raise InputError("; ".join(blocking[:3]))
        for problem in problems:
            print(f"scalepilot operate: {problem}", file=sys.stderr)
        ledger = Ledger(Path(config.records))
        with ledger.held():
            controller = Controller(service, telemetry, target, ledger, arguments.dry_run)
            if arguments.once:
                _seen(telemetry, target, service)
                entry = controller.step()
                say(entry, as_json=arguments.json)
                return 0 if entry.record.mode in DECIDED else _UNDECIDED
            with tracked(config.tracking, service.policy, asdict(config), ledger.folder) as follow:
                _run(controller, config.listen, ledger.folder, feed, follow, as_json=arguments.json)
    print("scalepilot operate: stopped", file=sys.stderr)
    return 0


def _run(
    controller: Controller,
    listen: str | None,
    records: Path,
    feed: Feed | None,
    follow: Callable[[Entry], None],
    *,
    as_json: bool,
) -> None:
    from scalepilot.files.stop import StopFlag
    from scalepilot.operate.feeds import Offers
    from scalepilot.operate.pausing import paused_by_signal
    from scalepilot.operate.status import status_server

    told = True

    def tell(entry: Entry) -> None:
        nonlocal told
        follow(entry)
        try:
            if told:
                say(entry, as_json=as_json)
        except OSError as error:
            # Whoever reads along went away, or has no room: no reason to leave a deployment alone.
            told = False
            streams.abandon()
            print(f"scalepilot operate: no more lines are printed ({error.strerror}); it goes on", file=sys.stderr)

    stop = StopFlag("Stopping after this decision")
    offers = None if feed is None else Offers(controller, feed.max_age_seconds)
    with ExitStack() as stack:
        stack.enter_context(stop.listening())
        stack.enter_context(paused_by_signal(controller))
        url = stack.enter_context(status_server(controller, listen, offers))
        how = " (dry run: nothing is written)" if controller.dry_run else " (others scale it)" if controller.service.feeds else ""
        where = f"; status: {url}/" if url else ""
        if feed is not None and offers is not None:
            where += f"; feed: {stack.enter_context(feed.answering(offers.newest))}"
        print(
            f"{controller.service.policy} runs {printable(controller.target.name)}{how} every {controller.interval:g} s;"
            f" records: {records}{where}",
            file=sys.stderr,
            flush=True,
        )
        controller.run(stop, tell)


def _seen(telemetry: Telemetry, target: Target, service: Service) -> Snapshot:
    """What is known; an interval later, where it takes two moments to know a field."""
    from scalepilot.operate.snapshot import PENDING

    snapshot = telemetry.read(now := time.time(), target.read(now))
    pending = [name for name, reading in snapshot.readings.items() if reading.problem == PENDING]
    if not pending:
        return snapshot
    seconds = min(service.interval_seconds, _MOST_WAIT_SECONDS)
    print(f"scalepilot operate: counting for {seconds:g} s: {', '.join(pending)}", file=sys.stderr)
    time.sleep(seconds)
    return telemetry.read(now := time.time(), target.read(now))


def _check(service: Service, telemetry: Telemetry, target: Target, problems: list[str], *, as_json: bool) -> int:
    """Every field with its value, age, source and verdict, and what stands in the way."""
    from scalepilot.cli.operate_show import rows_of, show_check
    from scalepilot.operate.targets import WARNING

    snapshot = _seen(telemetry, target, service)
    replicas = snapshot.replicas
    advice = telemetry.check(time.time())
    if replicas.problem and replicas.spec is None:
        problems = [printable(replicas.problem), *problems]
    advice += [line.removeprefix(WARNING) for line in problems if line.startswith(WARNING)]
    problems = [line for line in problems if not line.startswith(WARNING)]
    title = f"{service.policy} on {printable(target.name)}"
    ready = show_check(title, rows_of(service, snapshot), replicas, problems, advice, as_json=as_json)
    return 0 if ready else _NOT_READY


def _look(words: list[str], arguments: argparse.Namespace) -> int:
    from scalepilot.operate.ledger import newest_first

    place = arguments.records or Path(_config([], arguments).records if arguments.config else "operate-records")
    if words[0] == "log":
        if len(words) > 1:
            raise InputError(f"log: takes nothing more, {words[1]!r} is given; allowed: --records, --last, --json")
        if not 1 <= arguments.last <= 1_000_000:
            raise InputError(f"last: {arguments.last} is not allowed; allowed: 1 to 1000000")
        newest = list(islice(newest_first(place), arguments.last))
        if not newest:
            raise InputError(f"{place}: holds no decisions")
        for entry in reversed(newest):
            say(entry, as_json=arguments.json)
        return 0
    if len(words) != 2:
        raise InputError(f"explain: needs one time; allowed: {ALLOWED}")
    found = _nearest(place, moment(words[1], "explain", time.time()))
    if found is None:
        raise InputError(f"{place}: holds no decisions")
    if arguments.json:
        say(found, as_json=True)
    else:
        from scalepilot.cli.operate_show import show_decision

        show_decision(found)
    return 0


def _nearest(place: Path, moment: float) -> Entry | None:
    """The decision nearest to a moment; reads back only as far as the first one that is not later."""
    from scalepilot.operate.ledger import newest_first

    found = None
    for entry in newest_first(place):
        at = entry.record.snapshot.time
        if found is None or abs(at - moment) < abs(found.record.snapshot.time - moment):
            found = entry
        if at <= moment:
            break
    return found


def _replay(service: Service, arguments: argparse.Namespace) -> int:
    """Decide every recorded moment again."""
    from scalepilot.operate.replay import replayed

    same = total = changed = 0
    recorded_policy = True
    for entry, again in replayed(arguments.replay, service):
        total += 1
        recorded_policy = recorded_policy and entry.policy == service.policy
        equal = entry.record.target == again.target and entry.record.mode == again.mode
        same += equal
        changed += not equal
        if arguments.json:
            told = {"time": entry.record.snapshot.time, "recorded": entry.record.target, "again": again.target, "same": equal}
            print(json.dumps(told))
        elif not equal:
            from scalepilot.operate.ledger import sentence
            from scalepilot.operate.snapshot import utc

            print(f"{utc(entry.record.snapshot.time)}  recorded {entry.record.target}, now {again.target}: {sentence(again)}")
    if not total:
        raise InputError(f"{arguments.replay}: holds no decisions")
    print(f"{total} decisions, {same} the same, {changed} different ({service.policy})", file=sys.stderr)
    return _DIFFERENT if changed and recorded_policy else 0
