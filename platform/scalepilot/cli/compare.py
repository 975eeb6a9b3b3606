"""`scalepilot compare POLICY…`: policies on held-out episodes, beside default and tuned rules and the clairvoyant optimum."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scalepilot.cli.streams import note

if TYPE_CHECKING:
    from scalepilot.evaluate.lineup import Gathered
    from scalepilot.evaluate.suite import SuiteComparison
    from scalepilot.simulate import Executor

HELP = "compare policies on episodes they were not trained on, against default and tuned rules and the optimum"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `compare`."""
    parser.add_argument(
        "policies",
        nargs="*",
        metavar="POLICY",
        help="policy or run folders, folders or patterns of runs (training seeds of one experiment become one row),"
        " or rules by name: kpa, hpa-tuned, forecast_mpc, hpa:target=0.8,down=600 …",
    )
    parser.add_argument(
        "--baseline",
        action="append",
        metavar="NAME",
        help="baselines to compare against: hpa-default, hpa-tuned, kpa-tuned, general …, all or none; repeatable"
        " (default: hpa-default, hpa-tuned and general; on other environments every rule that fits)",
    )
    parser.add_argument(
        "--workload",
        action="append",
        default=[],
        metavar="W",
        help="a kind such as spike or diurnal, a trace (CSV, Parquet, JSON) or an experiment's YAML; repeatable"
        " (default: what the policies were trained for)",
    )
    parser.add_argument("--arrival-seeds", type=int, metavar="N", help="arrival seeds of each test window (default: 3)")
    parser.add_argument("--episodes", type=int, metavar="N", help="test episodes of other environments (default: as trained)")
    # The name of both before.
    parser.add_argument("--seeds", type=int, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, metavar="N", help="steps of a window (default: 1920, 8 hours of 15 s)")
    parser.add_argument("--windows", default="all", metavar="N", help="test windows of each workload, or all (default)")
    parser.add_argument("--config", type=Path, metavar="CONFIG", help="experiment YAML that names environment and workload")
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
    parser.add_argument("--no-optimum", action="store_true", help="leave out the clairvoyant optimum")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write summary.json, episodes.parquet, report.html and finished results here",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="keep tuned rules and optima here and reuse them (default: OUT/cache)",
    )
    parser.add_argument("--resume", action="store_true", help="use the finished results that --out holds already")
    parser.add_argument(
        "--plot-only", type=Path, metavar="FOLDER", help="only print what is stored there and draw report.html again"
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
    from scalepilot.evaluate.lineup import gather

    gathered = gather(arguments.policies)
    for problem in gathered.failed.values():
        note("compare", f"left out: {problem}")
    if gathered.failed and not gathered.rows and not gathered.rules:
        note("compare", "no policy is left to compare")
        return 1
    gathered.check_one_environment()
    try:
        with _executor(arguments) as executor:
            comparison, notes = _compete(arguments, gathered, executor)
        if arguments.out:
            _write(comparison, gathered, notes, arguments)
    except OSError as error:
        raise InputError(f"{error.filename or arguments.out}: cannot be written ({error.strerror or error})") from None
    for name, problem in comparison.failed.items():
        if name not in gathered.failed:
            note("compare", f"left out: {problem}")
    _show(comparison, arguments)
    return 1 if comparison.failed else 0


def _check(arguments: argparse.Namespace) -> None:
    from scalepilot.errors import InputError

    if arguments.windows != "all" and not (arguments.windows.isdecimal() and int(arguments.windows)):
        raise InputError(f"--windows: {arguments.windows!r} is not allowed; allowed: whole numbers from 1, or all")
    if arguments.steps is not None and arguments.steps < 2:
        raise InputError(f"--steps: {arguments.steps} is not allowed; allowed: whole numbers from 2")
    rps = arguments.peak_rps
    if rps is not None and not 0 <= rps < math.inf:
        raise InputError(f"--peak-rps: {rps:g} is not allowed; allowed: finite requests/s from 0")
    for name in ("resume", "step_log"):
        if getattr(arguments, name) and arguments.out is None:
            raise InputError(f"--{name.replace('_', '-')}: needs --out, the folder that holds the results")


def _compete(arguments: argparse.Namespace, gathered: Gathered, executor: Executor) -> tuple[SuiteComparison, list[str]]:
    """The comparison, and what its reader must know of the policies."""
    from scalepilot.experiments.compare import Effort, Extent, run_comparison, scenarios
    from scalepilot.simulate import CellStore

    if arguments.seeds is not None:
        note("compare", "--seeds is now --arrival-seeds, or --episodes on other environments; it goes with the next release")
    extent = Extent(
        windows=None if arguments.windows == "all" else int(arguments.windows),
        steps=arguments.steps,
        arrival_seeds=arguments.arrival_seeds,
        episodes=arguments.episodes,
        seeds_of_either=arguments.seeds,
        peak_rps=arguments.peak_rps,
    )
    on = scenarios(gathered, arguments.workload, config=arguments.config, overrides=arguments.set, extent=extent)
    notes = gathered.other_parameters(on)
    for line in notes:
        note("compare", f"note: {line}")
    comparison = run_comparison(
        gathered,
        on,
        baselines=arguments.baseline,
        effort=Effort(arguments.evaluations, not arguments.no_optimum, arguments.step_log),
        executor=executor,
        store=CellStore(arguments.out, arguments.resume) if arguments.out else None,
        cache=arguments.cache or (arguments.out / "cache" if arguments.out else None),
    )
    return comparison, notes


@contextlib.contextmanager
def _executor(arguments: argparse.Namespace) -> Iterator[Executor]:
    if arguments.address is not None:
        from scalepilot.cluster.connection import connected
        from scalepilot.cluster.executor import RayExecutor
        from scalepilot.config.running import ResourcesConfig

        with connected(ResourcesConfig(address=arguments.address)):
            yield RayExecutor()
        return
    from scalepilot.simulate import ProcessExecutor, usable_cores

    with ProcessExecutor(arguments.jobs or usable_cores(), partial(note, "compare")) as processes:
        yield processes


def _write(comparison: SuiteComparison, gathered: Gathered, notes: list[str], arguments: argparse.Namespace) -> None:
    """The evaluation, what else its report shows, and the report."""
    from scalepilot.evaluate.store import write_evaluation
    from scalepilot.report.html.report import ReportData
    from scalepilot.report.run_report import learning_curve_of, store_about, write_comparison_report
    from scalepilot.runs.folder import git_sha, hardware, library_versions

    write_evaluation(comparison, arguments.out)
    curves = [learning_curve_of(path, name) for name, path in gathered.folders]
    noted = {f"note {i}": line for i, line in enumerate(notes, 1)}
    about = ReportData(
        title=" · ".join(name.rpartition("/")[2] for name in comparison.workloads),
        comparison=comparison,
        learning_curves=[curve for curve in curves if curve is not None],
        provenance={**noted, "git sha": git_sha(), **{f"version of {n}": v for n, v in library_versions().items()}, **hardware()},
        reproduce=[shlex.join(["scalepilot", *arguments.given]), f"scalepilot compare --plot-only {arguments.out}"],
    )
    store_about(about, arguments.out)
    write_comparison_report(arguments.out)


def _plot(arguments: argparse.Namespace) -> int:
    from scalepilot.errors import InputError
    from scalepilot.evaluate.comparison import Comparison
    from scalepilot.evaluate.store import read_evaluation
    from scalepilot.evaluate.suite import compare_suite
    from scalepilot.report.run_report import write_comparison_report

    if arguments.policies:
        raise InputError(f"POLICY: {arguments.policies[0]} does not go with --plot-only, which runs nothing; allowed: none")
    stored = read_evaluation(arguments.plot_only)
    write_comparison_report(arguments.plot_only)
    _show(compare_suite([stored]) if isinstance(stored, Comparison) else stored, arguments)
    return 0


def _show(comparison: SuiteComparison, arguments: argparse.Namespace) -> None:
    from scalepilot.cli.output import print_suite
    from scalepilot.evaluate.store import summary
    from scalepilot.report.words.markdown import markdown_table

    if arguments.json:
        print(json.dumps(summary(comparison), indent=1, ensure_ascii=False, allow_nan=False))
    elif arguments.markdown:
        print(markdown_table(comparison.comparisons))
    else:
        print_suite(comparison)
        folder = arguments.out or arguments.plot_only
        if folder:
            print(f"written: {folder}")
