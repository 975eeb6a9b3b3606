"""`scalepilot operate report`: a page about recorded decisions that answers "deploy it?"."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scalepilot.errors import InputError
from scalepilot.progress import Progress

if TYPE_CHECKING:
    from scalepilot.operate.config import OperateConfig, Service
    from scalepilot.operate.ledger import Entry

PRICES = ("price_per_replica_hour", "price_per_late_request")
REPORT_FILE = "report.html"
_DEFAULT_RECORDS = "operate-records"


def write(words: list[str], arguments: argparse.Namespace) -> int:
    """Write the page and say what it answers.

    Args:
        words: behind `report`: a run, a policy or a rule; without one that of --config.
        arguments: of the command.

    Raises:
        InputError: no records, a policy that does not fit them, or a page that cannot be written.
    """
    from scalepilot.files.atomic import write_bytes
    from scalepilot.operate.config import load_operate_config, operate_config
    from scalepilot.operate.day_json import to_json
    from scalepilot.operate.day_page import render_page
    from scalepilot.operate.day_report import day_report, priced
    from scalepilot.operate.recorded import read_recorded

    if len(words) > 1:
        raise InputError(f"report: takes one policy, {words[1]!r} is given, too; allowed: one run, policy folder or rule")
    if not words and arguments.config is None:
        raise InputError("report: no policy; allowed: the --config that it ran with, a run or policy folder, or a rule")
    config = operate_config({}) if arguments.config is None else load_operate_config(arguments.config)
    records = arguments.records or Path(config.records if arguments.config else _DEFAULT_RECORDS)
    path = arguments.out or (records if records.is_dir() else records.parent) / REPORT_FILE
    if path.is_dir():
        raise InputError(f"--out: {path} is a folder; allowed: an HTML file")
    service = _service(words, config)
    prices = {name: getattr(arguments, name) for name in PRICES if getattr(arguments, name) is not None}
    params = priced(service, prices)
    recorded = read_recorded(_read(records), service, str(records))
    shown = Progress("simulating", "steps")

    def tell(done: int, total: int) -> None:
        if done == 1:
            shown.begin(total)
        shown.update(done)

    report = day_report(recorded, service, params, progress=tell)
    shown.end()
    page = render_page(report, _command(words, records, arguments), shlex.quote(str(records)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, page.encode())
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be written ({error.strerror or error})") from None
    told = to_json(report)
    if arguments.json:
        print(json.dumps({**told, "report": str(path)}, ensure_ascii=False, allow_nan=False))
        return 0
    ask = "Deploy it?" if report.recorded.dry_run else "Keep it?"
    print(f"{ask} {told['answer'].capitalize()}. {told['sentence']}")
    for reason in told["reasons"]:
        print(f"  {'✓' if reason['ok'] else '✗'} {reason['text']}")
    if told["aside"]:
        print(told["aside"])
    print(f"report: {path} ({path.stat().st_size / 1000:,.0f} kB)")
    return 0


def _service(words: list[str], config: OperateConfig) -> Service:
    """The policy that is asked for; a rule in place of the configuration's policy is told of that policy's service."""
    from scalepilot.operate.config import load_service
    from scalepilot.policy.rules import RULES

    if not words:
        return load_service(config)
    own = config.service
    if config.policy and words[0].partition(":")[0] in RULES:
        own = asdict(load_service(config).env.params)
    return load_service(replace(config, policy=words[0], service=own))


def _read(records: Path) -> Iterator[Entry]:
    """The decisions, and how far it is."""
    from scalepilot.operate.ledger import day_files, read_entries

    entries = read_entries(records)
    shown = Progress("reading", "decisions")
    shown.begin(sum(_lines(path) for path in day_files(records)))
    for done, entry in enumerate(entries):
        shown.update(done)
        yield entry
    shown.end()


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _command(words: list[str], records: Path, arguments: argparse.Namespace) -> str:
    parts = ["scalepilot", "operate", "report", *words, "--records", str(records)]
    for name in ("config", *PRICES):
        value = getattr(arguments, name)
        if value is not None:
            parts += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(parts)
