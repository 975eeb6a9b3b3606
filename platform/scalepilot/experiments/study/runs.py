"""A study from its plan to its measurements: every run trained or found, read, and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalepilot.config import ExperimentConfig
from scalepilot.errors import InputError
from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.store import read_evaluation, read_summary
from scalepilot.evaluate.study_metrics import Arm, SeedRun, TaskResult, compare_arms, measure_arm
from scalepilot.evaluate.suite import SuiteComparison
from scalepilot.evaluate.transfer import Transfer
from scalepilot.experiments.study.config import PlannedTask, StudyConfig
from scalepilot.experiments.study.jobs import RUNS, train_all
from scalepilot.experiments.study.transfer import run_transfer
from scalepilot.policy import Policy, load_policy
from scalepilot.report.charts.policy_map import (
    observed_ranges,
    policy_map,
    policy_map_picture,
    telling_fields,
    typical_observation,
)
from scalepilot.report.replay.recording import Recording, record_episode
from scalepilot.runs.folder import RunFolder, new_folder
from scalepilot.runs.status import STATUS_FILE, read_run_status
from scalepilot.simulate.scenario import TEST_SEED
from scalepilot_envs.objective import Objective

PLOTS = "plots"
# Decisions are counted over so many of the test episodes of each run.
_RECORDED_EPISODES = 10
# More maps than this nobody looks at: those of the best arms.
_MOST_MAPS = 6


@dataclass(frozen=True)
class StudyRuns:
    """What a study measured.

    Attributes:
        folder: of the study.
        tasks: measured.
        maps: task → arm → state → action picture (SVG) of its median seed.
        transfer: every policy on every task; None where the study does not ask for it.
    """

    folder: Path
    tasks: tuple[TaskResult, ...]
    maps: dict[str, dict[str, str]]
    transfer: Transfer | None = None


def study_folder(study: StudyConfig, out: Path | None, *, reuse: bool) -> Path:
    """Where the study is written.

    Args:
        study: names the folder.
        out: the folder itself; None for a new one, or with `reuse` the newest, of this study's name.
        reuse: go on in a folder that has runs.

    Raises:
        InputError: the folder holds runs, and they are not to be used.
    """
    base = Path(study.output) / f"{study.name}-study"
    if out is None:
        found = sorted(path for path in base.glob("*") if (path / RUNS).is_dir()) if reuse else []
        return found[-1] if found else new_folder(base, "", "studies")
    if (out / RUNS).exists() and not reuse:
        raise InputError(f"--out: {out} holds runs; allowed: a new folder, or --resume, which finishes them")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be made ({error.strerror})") from None
    return out


def run_study(study: StudyConfig, tasks: Sequence[PlannedTask], folder: Path, *, jobs: int = 1, samples: int = 2000) -> StudyRuns:
    """Train what is not finished yet, then measure everything.

    Args:
        study: seeds.
        tasks: what to train.
        folder: of the study; finished runs of the same settings in it are used.
        jobs: runs at once.
        samples: resamples behind the intervals.

    Raises:
        RunError: a run failed; the others stay.
        KeyboardInterrupt: stopped early; the runs so far stay.
    """
    planned: dict[tuple[str, ...], ExperimentConfig] = {
        (task.name, arm, f"seed {seed}"): replace(config, seed=seed, output=str(folder / RUNS))
        for task in tasks
        for seed in study.seeds
        for arm, config in task.arms.items()
    }
    runs = train_all(planned, folder, jobs=jobs, resume=f"--resume --out {folder}", result=_test_return)
    measured, maps = [], {}
    for task in tasks:
        result, pictures = _measured(study, task, runs, folder, samples)
        measured.append(result)
        maps[task.name] = pictures
    transfer = None
    if study.transfer is not None:
        transfer = run_transfer(study, study.transfer, tasks, runs, folder, jobs=jobs, samples=samples)
    return StudyRuns(folder, tuple(measured), maps, transfer)


def _test_return(run: RunFolder) -> str:
    summary = read_summary(run.evaluation)
    name = next(name for name, role in summary.roles.items() if role == "policy")
    metric, figure = next(iter(summary.policies[name].items()))
    return f"test {metric} {figure.mean:,.2f}"


def _measured(
    study: StudyConfig, task: PlannedTask, runs: Mapping[tuple[str, ...], RunFolder], folder: Path, samples: int
) -> tuple[TaskResult, dict[str, str]]:
    """A task's result, and a map an arm."""
    env, random = task.config.env, np.zeros(0)
    description, objective = env.description, env.objective
    # Of a cost, the return that a study speaks of is the cost with a minus: higher is better everywhere in it.
    bounds, success = objective.metrics[objective.metric].bounds, task.success_return
    if objective.lower_is_better:
        bounds, success = (-bounds[1], -bounds[0]), None if success is None else -success
    arms, recorded = list[Arm](), dict[str, list[tuple[Policy, list[Recording]]]]()
    for name, config in task.arms.items():
        read, recorded[name] = [], []
        for seed in study.seeds:
            run = runs[task.name, name, f"seed {seed}"]
            policy = load_policy(run.policy)
            recordings = _record(policy, config)
            recorded[name].append((policy, recordings))
            test, random = _tested(run)
            read.append(_read(run, seed, objective, test, recordings, len(description.actions), folder))
        budget = config.learning.env_steps
        arms.append(measure_arm(name, _detail(config), budget, read, success, samples, bounds))
    labels = [entry.label for entry in description.actions]
    result = compare_arms(task.name, description.env_id, success, labels, random, arms, samples, bounds)
    return result, _maps(task, result, recorded)


def _tested(run: RunFolder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(test returns of the kept policy, those of random moves) on the same episodes."""
    stored = read_evaluation(run.evaluation)
    if isinstance(stored, SuiteComparison):
        raise InputError(f"{run.evaluation}: holds several workloads; allowed: the evaluation of a run")
    policy = stored.own
    chance = next((c for c in stored.contenders if c.name == "random"), None)
    if policy is None or chance is None:
        raise InputError(f"{run.evaluation}: holds no {'policy' if policy is None else 'random moves'}")
    sign, column = -stored.objective.sign, stored.objective.column
    return sign * policy.results[column], sign * chance.results[column]


def _read(
    run: RunFolder,
    seed: int,
    objective: Objective,
    test_return: NDArray[np.float64],
    recordings: Sequence[Recording],
    num_actions: int,
    folder: Path,
) -> SeedRun:
    validation = objective.validation_metric
    rows = [row for row in run.read_metrics() if row[validation] is not None]
    taken = np.concatenate([r.action for r in recordings if r.action is not None and r.action.ndim == 1] or [np.zeros(0)])
    share = np.bincount(taken.astype(np.int64), minlength=num_actions) / max(1, len(taken)) if num_actions else np.zeros(0)
    status = read_run_status(run.path)
    training = None if status is None else status.training
    if training is None or training.best_value is None or training.train_seconds is None:
        raise InputError(f"{run.path / STATUS_FILE}: training: is missing; allowed: a finished run's")
    return SeedRun(
        seed=seed,
        curve=Curve(
            np.array([row["env_steps"] for row in rows], dtype=np.float64),
            -objective.sign * np.array([row[validation] for row in rows], dtype=np.float64),
        ),
        seconds=np.array([row["time_seconds"] for row in rows], dtype=np.float64),
        kept_validation=-objective.sign * training.best_value,
        test_return=test_return,
        action_share=share,
        train_seconds=training.train_seconds,
        run=str(run.path.relative_to(folder)),
    )


def _record(policy: Policy, config: ExperimentConfig) -> list[Recording]:
    env_id, arguments = config.env.description.env_id, config.env.test_arguments(config.workload)
    episodes = range(TEST_SEED, TEST_SEED + _RECORDED_EPISODES)
    return [record_episode(policy, env_id, arguments, seed) for seed in episodes]


def _detail(config: ExperimentConfig) -> str:
    """What a reader needs to know of an arm, in a few words."""
    learning = config.learning
    batch = getattr(learning, "minibatch_size", getattr(learning, "batch_size", None))
    lr = getattr(learning, "lr", getattr(learning, "alpha", None))
    rate = "" if lr is None else f"learning rate {lr:g}"
    parts = [config.algorithm, rate, "" if batch is None else f"batch {batch}", f"{learning.num_envs} envs"]
    return ", ".join(part for part in parts if part)


def _maps(task: PlannedTask, result: TaskResult, recorded: dict[str, list[tuple[Policy, list[Recording]]]]) -> dict[str, str]:
    """Arm → map of its median seed; all over the same two fields and the same ranges, so that they can be compared."""
    seen = [r.observation for flown in recorded.values() for _, recordings in flown for r in recordings]
    observations = np.concatenate([rows for rows in seen if rows is not None] or [np.zeros((0, 0))])
    leader = recorded[result.arms[0].name][_median_seed(result.arms[0])][0]
    chosen = (task.map_fields or telling_fields(leader, observations)) if len(observations) else None
    if chosen is None:
        return {}
    x, y = chosen
    ranges, base = observed_ranges(leader, observations), typical_observation(observations)
    names = [f.name for f in leader.spec.observation_fields]
    # Of a history the map shows the newest.
    columns = [names.index(name if name in names else f"{name}_0") for name in (x, y)]
    pictures = {}
    for arm in result.arms[:_MOST_MAPS]:
        policy, recordings = recorded[arm.name][_median_seed(arm)]
        visited = np.concatenate([r.observation for r in recordings if r.observation is not None])[:, columns]
        found = policy_map(policy, x, y, base=base, ranges=ranges)
        seed = arm.runs[_median_seed(arm)].seed
        pictures[arm.name] = policy_map_picture(found, f"{task.name}: {arm.name}, seed {seed}", visited)
    return pictures


def _median_seed(arm: Arm) -> int:
    """Index of the run in the middle by mean test return."""
    return int(np.argsort([run.test_return.mean() for run in arm.runs])[(len(arm.runs) - 1) // 2])
