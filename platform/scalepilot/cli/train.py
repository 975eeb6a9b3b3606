"""`scalepilot train CONFIG`: train, evaluate, report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from scalepilot.cli.checks import is_kind

if TYPE_CHECKING:
    from scalepilot.config import ExperimentConfig

HELP = "train a policy from a YAML config, evaluate it against tuned rules, write the report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="experiment YAML, such as tune_configs/demo.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, such as ppo.lr=3e-4; repeatable; with --resume the budget, evaluation and resources",
    )
    parser.add_argument(
        "--workload",
        metavar="W",
        help="train on this instead: a traffic file that needs no import options, or a kind such as spike",
    )
    parser.add_argument(
        "--peak-rps",
        type=float,
        default=None,
        metavar="RPS",
        help="scale the trace to this 99.5 %% quantile (default: 500; 0 keeps it)",
    )
    parser.add_argument("--resume", type=Path, metavar="RUN", help="resume a stopped run, or train longer with --set")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="POLICY",
        help="start from the weights of a policy (its folder, or its run's)",
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        type=Path,
        metavar="POLICY",
        help="evaluate this policy, too; it may be what is recommended to deploy; repeatable",
    )
    parser.add_argument("--address", help="Ray cluster to train on (auto, ray://…); a local Ray by default")
    parser.add_argument("--storage", metavar="URI", help="take a copy of the finished run there (s3://…, file:///…)")
    parser.add_argument("--no-evaluation", action="store_true", help="end with the exported policy: no test episodes, no report")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the config and exit")


def run(arguments: argparse.Namespace) -> int:
    """Train; 130 when stopped early."""
    from scalepilot import config as configuration
    from scalepilot.errors import InputError

    if arguments.schema:
        print(json.dumps(configuration.json_schema(), indent=1))
        return 0
    if (arguments.config is None) == (arguments.resume is None):
        raise InputError("give either CONFIG or --resume RUN")
    if arguments.resume is not None and arguments.workload:
        raise InputError("--workload: a resumed run keeps its own workload; allowed with CONFIG only")
    if arguments.resume is not None and arguments.init:
        raise InputError("--init: a resumed run has its own weights; allowed with CONFIG only")
    if arguments.beside and arguments.no_evaluation:
        raise InputError("--beside: is for the evaluation; allowed without --no-evaluation")
    if arguments.json and arguments.no_evaluation:
        raise InputError("--json: prints the evaluation; allowed without --no-evaluation")
    from scalepilot.cluster.storage import check_storage, store
    from scalepilot.experiments.run import run_experiment
    from scalepilot.files.stored import read_text
    from scalepilot.runs.folder import RunFolder

    if arguments.storage:
        check_storage(arguments.storage)
    if arguments.resume is not None:
        folder, config = RunFolder.open(arguments.resume)
        config = configuration.resumed_with(config, arguments.set)
    else:
        overrides = [*arguments.set]
        if arguments.address:
            overrides.append(f"resources.address={arguments.address}")
        kind = is_kind(arguments.workload)
        if kind:
            overrides.append(f"workload={{kind: {arguments.workload}}}")
        config = configuration.load_config(arguments.config, overrides)
        if arguments.workload is not None and not kind:
            config = configuration.with_trace(config, Path(arguments.workload), arguments.peak_rps)
        if arguments.init is not None:
            config = _as_parent(config, arguments.init)
        # What cannot be trained on should not leave an empty run behind.
        from scalepilot.learn.callbacks import check_tracking
        from scalepilot.learn.devices import choose_device
        from scalepilot.simulate import scenario_of

        scenario_of(config)
        check_tracking(config.tracking)
        if config.resources.address is None:
            choose_device(config.resources)
        folder = RunFolder.create(config)
    evaluate, resume = not arguments.no_evaluation, arguments.resume is not None
    result = run_experiment(config, folder, resume=resume, evaluate=evaluate, init=arguments.init, others=arguments.beside)
    if not result.finished:
        print(f"Stopped. Latest policy: {folder.policy}")
        print(f"Resume: scalepilot train --resume {folder.path}")
        return 130
    stored = store(folder.path, arguments.storage) if arguments.storage else None
    if arguments.json:
        print(read_text(folder.evaluation / "summary.json"))
        return 0
    from scalepilot.cli.output import print_comparison

    if result.comparison is not None:
        print_comparison(result.comparison)
        print(f"report:  {folder.report}")
    deploy = folder.read_status().get("deploy")
    if deploy and config.env.takes_workload:
        print(deploy["reason"])
        print(f"deploy:  {folder.deploy}")
    print(f"policy:  {folder.policy}")
    if stored:
        print(f"stored:  {stored}")
    if config.env.takes_workload:
        print(f"serve:   scalepilot serve {folder.deploy if deploy else folder.path}")
    return 0


def _as_parent(config: ExperimentConfig, init: Path) -> ExperimentConfig:
    """The experiment with what the policy that it starts from brings, which is said."""
    from scalepilot.learn.initial_weights import load_parent, taken_over
    from scalepilot.progress import Progress

    parent = load_parent(init, config.algorithm).spec
    config, changed = taken_over(config, parent)
    if changed:
        told = ", ".join(f"{key}: {json.dumps(value)}" for key, value in changed.items())
        Progress("").note(f"--init: taken over from {parent.name}: {told}")
    return config
