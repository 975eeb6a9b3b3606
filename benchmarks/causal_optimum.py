"""How far the learners are above the best causal policy, on three Markov-modulated workloads where it is known exactly.

PPO as `tune_configs/markov-*.yaml` have it, DQN with the settings of `tune_configs/markov-dqn.yaml` on the same workloads, three
training seeds each; the HPA tuned on the training part beside them. Shares are of the cost of the causal optimum over the same
test windows, with 95 % intervals over training seeds and days. `python -m benchmarks.causal_optimum --seeds 0 --only
markov-warning` measures less; finished runs under `runs/causal-optimum` are taken as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalepilot.config import ExperimentConfig

ROOT = Path(__file__).resolve().parents[1]
WORKLOADS = ("markov-warning", "markov-spikes", "markov-lulls")
ALGORITHMS = ("ppo", "dqn")
SEEDS = (0, 1, 2)
RULES = ("hpa-tuned-rps", "kpa-tuned")
RUNS = Path("runs") / "causal-optimum"


def experiment(workload: str, algorithm: str, seed: int, budget: float = 1.0) -> ExperimentConfig:
    """A learner on one of the workloads, with its preset's budget or a share of it."""
    from scalepilot.config import load_config

    config = load_config(ROOT / "tune_configs" / f"{workload}.yaml")
    if algorithm == "dqn":
        config = replace(config, algorithm="dqn", dqn=load_config(ROOT / "tune_configs" / "markov-dqn.yaml").dqn)
    learning = replace(config.learning, total_env_steps=round(budget * config.learning.total_env_steps))
    return replace(config, seed=seed, **{algorithm: learning})


def trained(config: ExperimentConfig, runs: Path) -> tuple[Path, float]:
    """Its run, and the seconds of processor time that training took; trained where it is not there yet."""
    from scalepilot.experiments.run import run_experiment
    from scalepilot.runs.folder import RunFolder

    folder = RunFolder(runs / config.name / f"{config.algorithm}-{config.seed}")
    spent = folder.path / "processor_seconds.json"
    if not spent.is_file():
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.config_file.write_text(config.to_yaml(), encoding="utf-8")
        began = time.process_time()
        run_experiment(config, folder, evaluate=False)
        spent.write_text(json.dumps(round(time.process_time() - began)), encoding="utf-8")
    return folder.path, float(json.loads(spent.read_text(encoding="utf-8")))


def compared(
    workload: str,
    algorithms: Sequence[str],
    seeds: Sequence[int],
    runs: Path,
    *,
    budget: float = 1.0,
    rules: Sequence[str] = RULES,
) -> dict[str, Any]:
    """Train all on one workload and run them through its test windows, beside tuned rules and the causal optimum."""
    from scalepilot.cluster.connection import connected
    from scalepilot.evaluate.baselines import find_rules, rules_folder
    from scalepilot.evaluate.causal import CAUSAL_OPTIMUM, above_causal
    from scalepilot.evaluate.evaluation import Lineup, LineupRow, Trained, causal_row, evaluate_lineups
    from scalepilot.policy import load_policy
    from scalepilot.simulate import SerialExecutor, scenario_of

    config = experiment(workload, "ppo", 0)
    rows, spent = [], {}
    with connected(config.resources):
        for algorithm in algorithms:
            found = [trained(experiment(workload, algorithm, seed, budget), runs) for seed in seeds]
            members = [
                Trained(f"{algorithm}-{seed}", seed, load_policy(run / "policy"))
                for seed, (run, _) in zip(seeds, found, strict=True)
            ]
            rows.append(LineupRow(algorithm, "policy", f"{len(seeds)} seeds", tuple(members)))
            spent[algorithm] = max(seconds for _, seconds in found)
    scenario, executor = scenario_of(config), SerialExecutor()
    effort = config.evaluation.tuning_evaluations
    kept = [rules_folder(scenario, effort, runs / "cache")]
    for name, rule in zip(rules, find_rules(rules, [scenario], effort, executor, kept)[0], strict=True):
        rows.append(LineupRow.single(name, "baseline", rule))
    assert scenario.traffic is not None
    best = causal_row(scenario.traffic, scenario.env.params)
    assert best is not None
    comparisons, _ = evaluate_lineups([Lineup(scenario, (*rows, best))], executor, bootstrap_samples=2000)
    figures: dict[str, Any] = {"optimum_J_per_hour": comparisons[0].figure(CAUSAL_OPTIMUM).mean, "optimum": best.detail}
    for name, share in above_causal(comparisons[0]).items():
        figures[f"{name}_percent_above"] = [round(100 * x, 2) for x in (share.mean, share.low, share.high)]
    least = float(comparisons[0].contenders[-1].results["J_per_hour"].sum())
    for contender in comparisons[0].of_role("policy"):
        # A single seed is a row without members.
        of_seeds = [m.results for m in contender.members] or [contender.results]
        for seed, results in zip(seeds, of_seeds, strict=True):
            above = float(results["J_per_hour"].sum()) / least - 1
            figures[f"{contender.name}-{seed}_percent_above"] = round(100 * above, 2)
    return figures | {f"{algorithm}_processor_seconds": seconds for algorithm, seconds in spent.items()}


def run(
    workloads: Sequence[str] = WORKLOADS,
    algorithms: Sequence[str] = ALGORITHMS,
    seeds: Sequence[int] = SEEDS,
    runs: Path = RUNS,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Figures by workload; ratios are costs over that of the causal optimum."""
    figures = {workload: compared(workload, algorithms, seeds, runs) for workload in workloads}
    ratios = {
        f"{workload}_{name}": round(1 + found[f"{name}_percent_above"][0] / 100, 4)
        for workload, found in figures.items()
        for name in (*algorithms, *RULES)
    }
    return figures, ratios


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.causal_optimum", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=WORKLOADS, metavar="WORKLOAD")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS, metavar="ALGORITHM")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="FOLDER", help="where finished runs are kept")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.only, arguments.algorithms, arguments.seeds, arguments.runs)[0], indent=1))
