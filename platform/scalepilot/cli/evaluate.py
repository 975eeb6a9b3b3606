"""`scalepilot evaluate POLICY…`: judge policies under protocol v1, beside default and tuned rules."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from scalepilot.cli.streams import note

if TYPE_CHECKING:
    from scalepilot.config import ExperimentConfig
    from scalepilot.evaluate.compare import Comparison
    from scalepilot.policy import Policy

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
    parser.add_argument(
        "--trace",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="evaluate on this recorded traffic (what workload import takes without options), one after the other",
    )
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
    parser.add_argument(
        "--rules",
        choices=["hpa", "all"],
        default="hpa",
        help="rivals: HPA default and tuned, or every rule default and tuned (minutes a trace)",
    )
    parser.add_argument("--no-optimum", action="store_true", help="leave the clairvoyant optimum out")
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep tuned rules and optima here and use what is there already"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write summary.json and episodes.parquet here (a folder a trace with several)"
    )
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the table (a list with several)")
    parser.add_argument("--markdown", action="store_true", help="print one Markdown table of everything instead")


def run(arguments: argparse.Namespace) -> int:
    """Judge and print."""
    from scalepilot import config as configuration
    from scalepilot.errors import InputError
    from scalepilot.evaluate.compare import write_evaluation
    from scalepilot.evaluate.lineup import other_services
    from scalepilot.evaluate.store import summary
    from scalepilot.policy import load_policy
    from scalepilot.runs.folder import find_modules
    from scalepilot.simulate.workload_data import workload_name

    if arguments.evaluations < 2:
        raise InputError(f"--evaluations: {arguments.evaluations} is not allowed; allowed: whole numbers from 2")
    names = [path.stem for path in arguments.trace]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--trace: {name} is given twice; allowed: files with different names")
    for path in arguments.policies:
        find_modules(path)
    policies = [load_policy(path) for path in arguments.policies]
    base = _config(arguments, configuration.config_from_mapping({}))
    labels = _labels([p.spec.name for p in policies], [str(p.spec.provenance.get("seed", p.spec.version)) for p in policies])
    configs = [configuration.with_trace(base, path, arguments.peak_rps) for path in arguments.trace] or [base]
    comparisons = []
    named = list(zip(labels, policies, strict=True))
    for line in other_services(named, [(workload_name(c), c.autoscale.params) for c in configs]):
        note("evaluate", f"note: {line}")
    for config in configs:
        comparison = _judged(config, named, arguments)
        comparisons.append(comparison)
        if arguments.out:
            write_evaluation(comparison, arguments.out / comparison.workload if len(configs) > 1 else arguments.out)
        if not arguments.json and not arguments.markdown:
            _print(comparison)
    if arguments.json:
        summaries = [summary(comparison) for comparison in comparisons]
        print(json.dumps(summaries if len(configs) > 1 else summaries[0], indent=1, ensure_ascii=False, allow_nan=False))
    elif arguments.markdown:
        from scalepilot.report.words.markdown import markdown_table

        print(markdown_table(comparisons))
    elif arguments.out:
        print(f"written: {arguments.out}")
    return 0


def _judged(config: ExperimentConfig, policies: list[tuple[str, Policy]], arguments: argparse.Namespace) -> Comparison:
    from scalepilot.evaluate.baselines import HPA_DEFAULT, Ground, baseline_names, find_rules
    from scalepilot.evaluate.run_comparison import OptimumOptions, judge
    from scalepilot.simulate import ProcessExecutor, usable_cores
    from scalepilot.simulate.workload_data import load_data

    data, params, cache = load_data(config), config.autoscale.params, arguments.cache
    names = baseline_names(["all"] if arguments.rules == "all" else ["hpa-tuned"])
    ground = Ground.cached(data, params, arguments.evaluations, cache)
    with ProcessExecutor(usable_cores()) as executor:
        rivals = find_rules([name for name in names if name != HPA_DEFAULT], [ground], arguments.evaluations, executor)[0]
        return judge(
            data,
            params,
            policies,
            rivals,
            bootstrap_samples=config.evaluation.bootstrap_samples,
            optimum=None if arguments.no_optimum else OptimumOptions(cache / "optimum" if cache else None),
            executor=executor,
        )


def _print(comparison: Comparison) -> None:
    from scalepilot.cli.output import print_comparison

    print_comparison(comparison)
    _print_median(comparison)


def _config(arguments: argparse.Namespace, default: ExperimentConfig) -> ExperimentConfig:
    """What names workload and service: --config, else a policy's own, else the defaults."""
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
    return config


def _labels(names: list[str], seeds: list[str]) -> list[str]:
    """Row labels that differ: the name, with the training seed or version where a name comes twice, numbered if still equal."""
    seeded = [name if names.count(name) == 1 else f"{name}·{seed}" for name, seed in zip(names, seeds, strict=True)]
    earlier = [seeded[:i].count(label) for i, label in enumerate(seeded)]
    return [label if not count else f"{label}#{count + 1}" for label, count in zip(seeded, earlier, strict=True)]


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
