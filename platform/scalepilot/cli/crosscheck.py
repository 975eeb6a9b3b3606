"""`scalepilot study EXPERIMENT`: RLlib and Stable-Baselines3 on the same experiment."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalepilot.evaluate.statistics.intervals import Interval
    from scalepilot.experiments.study.crosscheck import CrossCheck


def check(arguments: argparse.Namespace) -> int:
    """Train, compare, print.

    Args:
        arguments: of `study`, with an experiment's YAML.

    Raises:
        InputError: an option that only a study has.
    """
    from scalepilot.errors import InputError

    if arguments.jobs != 1:
        raise InputError("--jobs: is not used with an experiment, whose engines are timed one after the other")
    if (arguments.out is None) == arguments.resume:
        raise InputError("--out: with an experiment allowed with --resume, which needs it: the folder of a stopped cross-check")
    from scalepilot.config import load_config

    config = load_config(arguments.study, arguments.set)
    from scalepilot.experiments.study.crosscheck import crosscheck
    from scalepilot.files.stored import read_text

    found = crosscheck(config, list(range(5)) if arguments.seeds is None else arguments.seeds, arguments.out)
    if arguments.json:
        print(read_text(found.folder / "summary.json"))
    else:
        _print(found)
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
