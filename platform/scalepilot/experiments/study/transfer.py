"""A study's policies on every task of it, beside rules tuned on each and rules that are the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from scalepilot.evaluate.baselines import find_rules, rules_folder
from scalepilot.evaluate.evaluation import Lineup, LineupRow, Trained, evaluate_lineups
from scalepilot.evaluate.transfer import Source, Transfer, transfer_of
from scalepilot.experiments.study.config import PlannedTask, StudyConfig, TransferConfig
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import CellStore, ProcessExecutor, SerialExecutor, scenario_of

CACHE = "cache"


def run_transfer(
    study: StudyConfig,
    options: TransferConfig,
    tasks: Sequence[PlannedTask],
    runs: Mapping[tuple[str, ...], RunFolder],
    folder: Path,
    *,
    jobs: int = 1,
    samples: int = 2000,
) -> Transfer:
    """Tune the rules on each task, run everyone on all tasks, and compare; what is in the folder already is not run again.

    Args:
        study: seeds.
        options: which rules, and which policies that were trained elsewhere.
        tasks: their traffic is tuned, trained and tested on.
        runs: (task, arm, "seed N") → its finished run.
        folder: of the study: keeps tuned rules and finished episodes.
        jobs: processes.
        samples: resamples behind the intervals.

    Raises:
        InputError: a policy or rule cannot be run.
    """
    on = [scenario_of(task.config, name=task.name) for task in tasks]
    effort = options.tuning_evaluations
    # The rules are those of the traffic and the service, whichever study asks.
    kept = [rules_folder(scenario, effort, folder / CACHE) for scenario in on]
    with nullcontext(SerialExecutor()) if jobs == 1 else ProcessExecutor(jobs) as executor:
        calibrated = find_rules(options.calibrated, on, effort, executor, kept)
        fixed = find_rules(options.fixed, on[:1], effort, executor)[0]
        rows: dict[Source, LineupRow] = {}
        for task, rules in zip(tasks, calibrated, strict=True):
            for arm in task.arms:
                source = Source(arm, "policy", task.name)
                members = tuple(
                    Trained(f"{source.name}·{seed}", seed, load_policy(runs[task.name, arm, f"seed {seed}"].policy))
                    for seed in study.seeds
                )
                provenance = members[0].actor.spec.provenance
                detail = f"{provenance.get('algorithm', '?')}, {len(members)} seeds"
                rows[source] = LineupRow(source.name, "policy", detail, members)
            for label, rule in zip(options.calibrated, rules, strict=True):
                source = Source(label, "baseline", task.name)
                rows[source] = LineupRow.single(source.name, "baseline", rule)
        for label in options.policies:
            source = Source(label, "policy", None)
            rows[source] = LineupRow.single(source.name, "policy", load_policy(label))
        for label, rule in zip(options.fixed, fixed, strict=True):
            source = Source(label, "baseline", None)
            rows[source] = LineupRow.single(source.name, "baseline", rule)
        lineups = [Lineup(scenario, tuple(rows.values())) for scenario in on]
        store = CellStore(folder / CACHE, reuse=True)
        comparisons, _ = evaluate_lineups(lineups, executor, bootstrap_samples=samples, store=store)
    return transfer_of(tuple(rows), comparisons, options.calibrated[0])
