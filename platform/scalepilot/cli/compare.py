"""`scalepilot compare POLICY…`: any policies on any workloads, beside default and tuned rules and the clairvoyant optimum."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalepilot.evaluate.suite import SuiteComparison
    from scalepilot.simulate import Executor

HELP = "compare policies on workloads they were not trained on, against default and tuned rules and the optimum"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `compare`."""
    parser.add_argument(
        "policies",
        nargs="*",
        metavar="POLICY",
        help="policy or run folders, folders or patterns of runs (training seeds of one experiment become one row),"
        " or rules by name: kpa, hpa-tuned, forecast_mpc …",
    )
    parser.add_argument(
        "--baseline",
        action="append",
        metavar="NAME",
        help="who is to be beaten: hpa-default, hpa-tuned, kpa-tuned, forecast_mpc-default …, all or none; repeatable"
        " (default: hpa-default and hpa-tuned)",
    )
    parser.add_argument(
        "--workload",
        action="append",
        default=[],
        metavar="W",
        help="a kind such as spike or diurnal, a trace (CSV, Parquet, JSON) or an experiment's YAML; repeatable"
        " (default: what the policies were trained for)",
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="arrival seeds of each test window (default: 3)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of a window (default: 1920, 8 hours of 15 s)")
    parser.add_argument("--windows", default="all", metavar="N", help="test windows of each workload, or all (default)")
    parser.add_argument("--config", type=Path, metavar="CONFIG", help="experiment YAML that names service and workload")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the config; repeatable"
    )
    parser.add_argument(
        "--peak-rps",
        type=float,
        metavar="RPS",
        help="scale kinds and traces so that their 99.5 %% quantile is this (default: 500; 0 keeps the rates)",
    )
    parser.add_argument("--evaluations", type=int, default=600, help="random-search evaluations of a tuned rule (default: 600)")
    parser.add_argument("--no-optimum", action="store_true", help="leave the clairvoyant optimum out")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write summary.json, episodes.parquet, report.html and finished cells here"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep tuned rules and optima here and use those there (default: OUT/cache)"
    )
    parser.add_argument("--reuse", action="store_true", help="go on from the cells that --out holds already")
    parser.add_argument(
        "--plot-only", type=Path, metavar="FOLDER", help="only print, and draw report.html again, from what is stored there"
    )
    parser.add_argument("--step-log", action="store_true", help="write every step of every episode to OUT/steps (Parquet)")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--address", metavar="RAY", help="share the work on this Ray cluster instead (auto, ray://…)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print summary.json instead of the tables")
    shown.add_argument("--markdown", action="store_true", help="print one Markdown table of everything instead")


def run(arguments: argparse.Namespace) -> int:
    """Compare, print and write; 1 where a policy had to be left out."""
    from scalepilot.errors import InputError

    _check(arguments)
    if arguments.plot_only is not None:
        return _plot(arguments)
    from scalepilot.entrants import gather

    gathered = gather(arguments.policies)
    for problem in gathered.failed.values():
        print(f"scalepilot compare: left out: {problem}", file=sys.stderr)
    if gathered.failed and not gathered.entrants and not gathered.rules:
        print("scalepilot compare: no policy is left to compare", file=sys.stderr)
        return 1
    gathered.check_one_environment()
    try:
        suite = _compete(arguments, gathered)
    except OSError as error:
        raise InputError(f"{error.filename or arguments.out}: cannot be written ({error.strerror or error})") from None
    for name, problem in suite.failed.items():
        if name not in gathered.failed:
            print(f"scalepilot compare: left out: {problem}", file=sys.stderr)
    if arguments.out:
        _write(suite, arguments.out)
    _show(suite, arguments)
    return 1 if suite.failed else 0


def _check(arguments: argparse.Namespace) -> None:
    from scalepilot.errors import InputError

    if arguments.windows != "all" and not (arguments.windows.isdecimal() and int(arguments.windows)):
        raise InputError(f"--windows: {arguments.windows!r} is not allowed; allowed: whole numbers from 1, or all")
    for name, lowest in (("seeds", 1), ("steps", 2), ("jobs", 1), ("evaluations", 2)):
        value = getattr(arguments, name)
        if value is not None and value < lowest:
            raise InputError(f"--{name}: {value} is not allowed; allowed: whole numbers from {lowest}")
    for name in ("reuse", "step_log"):
        if getattr(arguments, name) and arguments.out is None:
            raise InputError(f"--{name.replace('_', '-')}: needs --out, the folder that holds the cells")


def _compete(arguments: argparse.Namespace, gathered: object) -> SuiteComparison:
    from scalepilot.entrants import Gathered
    from scalepilot.rivals import USUAL
    from scalepilot.simulate import CellStore
    from scalepilot.tournament import Effort, arenas, compete

    assert isinstance(gathered, Gathered)
    overrides = list(arguments.set)
    if arguments.steps is not None:
        overrides.append(f"evaluation.window_steps={arguments.steps}")
    if arguments.seeds is not None:
        overrides.append(f"evaluation.test_seeds={list(range(arguments.seeds))}")
    on = arenas(gathered, arguments.workload, config=arguments.config, overrides=overrides, peak_rps=arguments.peak_rps)
    effort = Effort(
        evaluations=arguments.evaluations,
        windows=None if arguments.windows == "all" else int(arguments.windows),
        optimum=not arguments.no_optimum,
        step_log=arguments.step_log,
    )
    with _executor(arguments) as executor:
        return compete(
            gathered,
            on,
            baselines=USUAL if arguments.baseline is None else arguments.baseline,
            effort=effort,
            executor=executor,
            store=CellStore(arguments.out, arguments.reuse) if arguments.out else None,
            cache=arguments.cache or (arguments.out / "cache" if arguments.out else None),
        )


@contextlib.contextmanager
def _executor(arguments: argparse.Namespace) -> Iterator[Executor]:
    from scalepilot.simulate import ProcessExecutor, usable_cores

    def note(line: str) -> None:
        print(f"scalepilot compare: {line}", file=sys.stderr)

    with ProcessExecutor(arguments.jobs or usable_cores(), note) as processes:
        yield processes


def _write(suite: SuiteComparison, folder: Path) -> None:
    from scalepilot.evaluate.files import write_evaluation

    write_evaluation(suite, folder)


def _plot(arguments: argparse.Namespace) -> int:
    from scalepilot.errors import InputError
    from scalepilot.evaluate.files import read_evaluation
    from scalepilot.evaluate.suite import SuiteComparison, compare_suite

    if arguments.policies:
        raise InputError(f"POLICY: {arguments.policies[0]} does not go with --plot-only, which flies nothing; allowed: none")
    stored = read_evaluation(arguments.plot_only)
    suite = stored if isinstance(stored, SuiteComparison) else compare_suite([stored])
    _show(suite, arguments)
    return 0


def _show(suite: SuiteComparison, arguments: argparse.Namespace) -> None:
    from scalepilot.cli.output import print_suite
    from scalepilot.evaluate.files import summary
    from scalepilot.evaluate.markdown import markdown_table

    if arguments.json:
        print(json.dumps(summary(suite), indent=1, ensure_ascii=False, allow_nan=False))
    elif arguments.markdown:
        print(markdown_table(suite.comparisons))
    else:
        print_suite(suite)
        if arguments.out:
            print(f"written: {arguments.out}")
