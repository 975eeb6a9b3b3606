"""`scalepilot study STUDY`: algorithms side by side on several seeds, with an analysis written from the numbers."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalepilot.evaluate.study_metrics import TaskResult
    from scalepilot.evaluate.transfer import Transfer

HELP = "compare several algorithms on several seeds; or, of an experiment, RLlib with Stable-Baselines3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `study`."""
    parser.add_argument(
        "study",
        nargs="?",
        type=Path,
        metavar="STUDY",
        help="study YAML, such as tune_configs/studies/dqn-against-ppo.yaml; or an experiment's, which is trained with RLlib"
        " and with Stable-Baselines3 to see whether they agree",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="SEED",
        help="training seeds (default: those of the study; an experiment: 0 to 4)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of an experiment; repeatable"
    )
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="of a study: these arms alone (default: all)")
    parser.add_argument(
        "--budget", type=float, metavar="SHARE", help="of a study: train each arm for this share of its steps, for a first look"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (default: 1)")
    parser.add_argument(
        "--resume", action="store_true", help="resume in --out, or in the newest folder: finished runs are not repeated"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: runs/NAME-study/DATE-TIME)")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the tables")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a study and exit")


def run(arguments: argparse.Namespace) -> int:
    """Train, measure, write, print."""
    from scalepilot.errors import InputError

    if arguments.schema:
        from scalepilot.experiments.study.config import json_schema

        print(json.dumps(json_schema(), indent=1))
        return 0
    if arguments.study is None:
        raise InputError("STUDY: is missing; allowed: a study's YAML, or an experiment's")
    if not 1 <= arguments.jobs <= 1000:
        raise InputError(f"--jobs: {arguments.jobs} is not allowed; allowed: 1 to 1000")
    if is_experiment(arguments.study):
        if arguments.arms is not None:
            raise InputError("--arms: is of a study; an experiment has none")
        if arguments.budget is not None:
            raise InputError("--budget: is of a study; of an experiment set its steps, such as --set ppo.total_env_steps=10000")
        from scalepilot.cli.crosscheck import check

        return check(arguments)
    if arguments.set:
        raise InputError("--set: a study has its own `set`; allowed with an experiment's YAML")
    from scalepilot.experiments.study.config import load_study, with_arms, with_budget, with_seeds
    from scalepilot.files.lock import locked
    from scalepilot.files.stored import read_text

    study, tasks = load_study(arguments.study)
    if arguments.seeds is not None:
        study = with_seeds(study, arguments.seeds)
    if arguments.arms is not None:
        tasks = with_arms(tasks, arguments.arms)
    budget = 1.0 if arguments.budget is None else arguments.budget
    tasks = with_budget(tasks, budget) if budget != 1 else tasks
    from scalepilot.experiments.study import run_study, study_folder, write_study

    folder = study_folder(study, arguments.out, reuse=arguments.resume)
    with locked(folder, "the study"):
        try:
            runs = run_study(study, tasks, folder, jobs=arguments.jobs)
        except KeyboardInterrupt:
            print(f"\nStopped. Resume: scalepilot study {arguments.study} --resume --out {folder}")
            raise
        write_study(study, runs, arguments.study, shlex.join(["scalepilot", *arguments.given]))
    if arguments.json:
        print(read_text(folder / "summary.json"))
        return 0
    for task in runs.tasks:
        _print(task)
    from scalepilot.cli.output import console
    from scalepilot.report.words.study_text import conclusion

    if runs.transfer is not None:
        _print_transfer(runs.transfer)
    closing = conclusion(runs.tasks)
    if closing:
        console().print(closing)
    print(f"page:     {folder / 'study.html'}")
    print(f"analysis: {folder / 'analysis.md'}")
    return 0


def is_experiment(path: Path) -> bool:
    """Whether a YAML file is an experiment's: it says what trains, and no tasks."""
    from scalepilot.config import read_yaml

    values = read_yaml(path)
    return isinstance(values, dict) and "tasks" not in values and bool({"algorithm", "env", "ppo", "dqn"} & {*values})


def _print_transfer(transfer: Transfer) -> None:
    from rich.text import Text

    from scalepilot.cli.output import console
    from scalepilot.report.words.tables import plain_table
    from scalepilot.report.words.transfer_text import HOW, claims, tables

    out = console()
    for told in tables(transfer):
        out.print(told.title)
        table = plain_table("", "")
        table.add_column("", overflow="fold")
        for heading in told.headings[1:]:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in told.rows:
            table.add_row(*map(Text, row))
        out.print(table)
    out.print(HOW)
    out.print("\n".join(claims(transfer)))
    out.print()


def _print(task: TaskResult) -> None:
    from rich.text import Text

    from scalepilot.cli.output import console
    from scalepilot.report.html.study_page import figure
    from scalepilot.report.words.study_text import verdict
    from scalepilot.report.words.tables import plain_table

    seeds, episodes = task.arms[0].values.shape
    table = plain_table(
        f"{task.name}: {seeds} training seed{'s' if seeds > 1 else ''} an arm, {episodes} test episodes each",
        "95 % intervals: bootstrap over seeds and episodes.",
    )
    table.add_column("", overflow="fold")
    for heading in ("return (IQM)", "95 % interval", "mean", "success", "area", "largest fall"):
        table.add_column(heading, justify="right", no_wrap=True)
    for arm in task.arms:
        span = f"{figure(arm.iqm.low)} to {figure(arm.iqm.high)}" if arm.iqm.is_known else "-"
        success = "-" if arm.success_rate is None else f"{arm.success_rate.mean:.0%}"
        table.add_row(
            Text(arm.name),
            figure(arm.iqm.mean),
            span,
            figure(arm.mean.mean),
            success,
            figure(arm.area.mean),
            figure(arm.largest_fall.mean),
        )
    success = "-" if task.random_success_rate is None else f"{task.random_success_rate:.0%}"
    table.add_row("random", "-", "-", figure(task.random.mean), success, "-", "-")
    out = console()
    out.print(table)
    out.print(verdict(task))
    out.print()
