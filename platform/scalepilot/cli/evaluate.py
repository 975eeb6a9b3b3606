"""`scalepilot evaluate POLICY…`: judge policies under protocol v1, beside default and tuned rules."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalepilot.config import ExperimentConfig
    from scalepilot.evaluate.compare import Comparison

HELP = "judge policies on held-out traffic against default and tuned HPA (protocol v1)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate`."""
    parser.add_argument(
        "policies", nargs="*", type=Path, metavar="POLICY", help="policy or run folders; none judges the rules alone"
    )
    parser.add_argument("--protocol", choices=["v1"], default="v1", help="how windows and seeds are cut (default: v1)")
    parser.add_argument("--config", type=Path, metavar="CONFIG", help="experiment YAML that names workload and service")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the config; repeatable"
    )
    parser.add_argument("--trace", type=Path, metavar="CSV", help="judge on this trace (timestamp,requests_per_second)")
    parser.add_argument(
        "--peak-rps",
        type=float,
        default=None,
        metavar="RPS",
        help="scale the trace's 99.5 %% quantile to this (default: 500; 0 keeps it)",
    )
    parser.add_argument(
        "--evaluations", type=int, default=600, help="random-search evaluations of the tuned rules (default: 600)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write summary.json and episodes.parquet here")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Judge and print."""
    from scalepilot import config as configuration
    from scalepilot.errors import InputError
    from scalepilot.evaluate.compare import write_evaluation
    from scalepilot.experiment import judge, load_data, tuned_rivals
    from scalepilot.policy import load_policy

    if arguments.evaluations < 2:
        raise InputError(f"--evaluations: {arguments.evaluations} is not allowed; allowed: whole numbers from 2")
    policies = [load_policy(path) for path in arguments.policies]
    config = _config(arguments, configuration.config_from_mapping({}))
    data = load_data(config)
    params = config.env.params
    labels = _labels([p.spec.name for p in policies], [str(p.spec.provenance.get("seed", p.spec.version)) for p in policies])
    rivals = tuned_rivals(data, params, arguments.evaluations, None)
    comparison = judge(
        data,
        params,
        list(zip(labels, policies, strict=True)),
        rivals,
        bootstrap_samples=config.evaluation.bootstrap_samples,
    )
    if arguments.out:
        write_evaluation(comparison, arguments.out)
    if arguments.json:
        with tempfile.TemporaryDirectory() as scratch:
            write_evaluation(comparison, Path(scratch) / "evaluation")
            print((Path(scratch) / "evaluation" / "summary.json").read_text(encoding="utf-8"))
        return 0
    from scalepilot.cli.output import print_comparison

    print_comparison(comparison)
    _print_median(comparison)
    if arguments.out:
        print(f"written: {arguments.out / 'summary.json'}, {arguments.out / 'episodes.parquet'}")
    return 0


def _config(arguments: argparse.Namespace, default: ExperimentConfig) -> ExperimentConfig:
    """What names workload and service: --config, else a policy's own, else the defaults; --trace replaces the workload."""
    from scalepilot import config as configuration
    from scalepilot.policy import find_policy_folder, read_spec

    config = default
    if arguments.config is not None:
        config = configuration.load_config(arguments.config, arguments.set)
    elif arguments.policies:
        stored = read_spec(find_policy_folder(arguments.policies[0])).provenance.get("config")
        config = configuration.config_from_mapping(
            stored or {}, arguments.set, source=f"{arguments.policies[0]}: provenance.config"
        )
    elif arguments.set:
        config = configuration.config_from_mapping({}, arguments.set)
    return config if arguments.trace is None else configuration.with_trace(config, arguments.trace, arguments.peak_rps)


def _labels(names: list[str], seeds: list[str]) -> list[str]:
    """Row labels that differ: the name, with the training seed or version where a name comes twice, numbered if still equal."""
    labels: list[str] = []
    for name, seed in zip(names, seeds, strict=True):
        label = name if names.count(name) == 1 else f"{name}·{seed}"
        labels.append(label if label not in labels else f"{label}#{labels.count(label) + 2}")
    return labels


def _print_median(comparison: Comparison) -> None:
    """With several policies: their median beside the best rule's J."""
    means = {row.name: row.results.J_per_hour.mean() for row in comparison.contestants}
    policies = [means[row.name] for row in comparison.contestants if row.role == "policy"]
    rules = {row.name: means[row.name] for row in comparison.contestants if row.role == "baseline"}
    if len(policies) < 2:
        return
    best = min(rules, key=lambda name: rules[name])
    median = statistics.median(policies)
    print(f"median of {len(policies)} policies: J/h {median:.3f}, {median / rules[best]:.3f} × {best} ({rules[best]:.3f})")
