"""`scalepilot crosscheck CONFIG`: RLlib and Stable-Baselines3 on the same experiment."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalepilot.evaluate.statistics.intervals import Interval
    from scalepilot.experiments.study.crosscheck import CrossCheck

HELP = "train with RLlib and with Stable-Baselines3 on the same budget and say whether they agree"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `crosscheck`."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="experiment YAML with an algorithm of both engines")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(range(5)), metavar="SEED", help="training seeds (default: 0 1 2 3 4)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, such as ppo.lr=3e-4; repeatable"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FOLDER", help="resume a stopped cross-check: finished runs are not repeated"
    )
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Train, compare, print."""
    from scalepilot.config import load_config

    config = load_config(arguments.config, arguments.set)
    from scalepilot.experiments.study.crosscheck import crosscheck
    from scalepilot.files.stored import read_text

    check = crosscheck(config, arguments.seeds, arguments.resume)
    if arguments.json:
        print(read_text(check.folder / "summary.json"))
    else:
        _print(check)
    return 0


def _print(check: CrossCheck) -> None:
    from scalepilot.cli.output import console
    from scalepilot.report.words.tables import plain_table

    table = plain_table(
        f"{check.config.name}: {len(check.seeds)} training seed{'s' if len(check.seeds) > 1 else ''} an engine",
        f"{check.metric} on the same test episodes. 95 % intervals: bootstrap over seeds and episodes.",
    )
    table.add_column("")
    for heading in (check.metric, "95 % interval", "lowest seed", "highest seed", "steps/s", "training s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, result in check.engines.items():
        seeds = result.values.mean(axis=1)
        table.add_row(
            name,
            f"{result.interval.mean:,.3f}",
            _span(result.interval),
            f"{seeds.min():,.3f}",
            f"{seeds.max():,.3f}",
            f"{result.steps_per_second:,.0f}",
            f"{result.train_seconds:,.1f}",
        )
    verdict, out = check.verdict, console()
    out.print(table)
    out.print(f"[bold]{verdict.outcome}[/bold]: {verdict.reason}")
    share = f" ({verdict.relative.mean:+.1%} of the mean)" if check.verdict.relative.mean == verdict.relative.mean else ""
    out.print(f"RLlib − SB3: {verdict.difference.mean:+,.3f}{share}, 95 % interval {_span(verdict.difference)}")
    if check.unmatched:
        out.print(f"left out by Stable-Baselines3: {', '.join(check.unmatched)}")
    out.print(f"written: {check.folder}", soft_wrap=True)


def _span(interval: Interval) -> str:
    return f"{interval.low:,.3f} to {interval.high:,.3f}" if interval.is_known else "-"
