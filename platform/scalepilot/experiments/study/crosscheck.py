"""A study of two arms, RLlib and Stable-Baselines3: do they agree on the same test episodes?"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.cluster.connection import connected
from scalepilot.config import ALGORITHMS, ExperimentConfig
from scalepilot.errors import ConfigError, InputError, RunError
from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.evaluate.statistics.nested import nested_mean
from scalepilot.experiments.study.agreement import Agreement, agreement
from scalepilot.experiments.study.jobs import RUNS, train_all
from scalepilot.experiments.sweep.board import Judged, tested
from scalepilot.files.atomic import write_bytes, write_json
from scalepilot.files.lock import locked
from scalepilot.learn.task import Task
from scalepilot.report.charts.curves import curves_svg
from scalepilot.runs.folder import RunFolder, git_sha, hardware, library_versions, new_folder

# The first iterations load and compile.
_WARM_UP = 2


@dataclass(frozen=True)
class EngineResult:
    """One engine over all training seeds.

    Attributes:
        values: (num_seeds, num_episodes) J per hour or return of the kept policies.
        interval: their mean.
        curves: (env steps, validation value) of each seed.
        steps_per_second: median over iterations, then over seeds.
        train_seconds: median over seeds, validation included.
        runs: run folders.
    """

    values: NDArray[np.float64]
    interval: Interval
    curves: tuple[Curve, ...]
    steps_per_second: float
    train_seconds: float
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class CrossCheck:
    """Both engines and the verdict.

    Attributes:
        folder: where it is all written.
        config: the experiment, with our algorithm.
        seeds: training seeds.
        metric: what was compared.
        lower_is_better: of the metric.
        engines: by name.
        verdict: the judgement.
        unmatched: settings Stable-Baselines3 has no counterpart for.
    """

    folder: Path
    config: ExperimentConfig
    seeds: tuple[int, ...]
    metric: str
    lower_is_better: bool
    engines: Mapping[str, EngineResult]
    verdict: Agreement
    unmatched: tuple[str, ...]


def crosscheck(config: ExperimentConfig, seeds: Sequence[int], resume: Path | None = None) -> CrossCheck:
    """Train with both engines on every seed, in turns, and compare.

    Args:
        config: the experiment; its algorithm is one that has a counterpart, or is one.
        seeds: training seeds.
        resume: folder of a stopped cross-check, whose runs are resumed; None begins a new one.

    Raises:
        InputError: seeds that are not allowed, or an algorithm that only one engine has.
        KeyboardInterrupt: stopped early; the runs so far stay.
    """
    ours, theirs = _both(config)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"--seeds: {list(seeds)} is not allowed; allowed: whole numbers from 0, each once")
    if importlib.util.find_spec("stable_baselines3") is None:
        raise InputError("crosscheck: stable-baselines3 is not installed; pip install 'scalepilot[sb3]'")
    from scalepilot.learn.sb3.trainer import unmatched

    task = Task(config)
    if resume is not None and not (resume / RUNS).is_dir():
        raise InputError(f"--out: {resume} holds no {RUNS}/; allowed: a cross-check's folder")
    folder = resume or new_folder(Path(config.output) / f"{config.name}-crosscheck", "", "cross-checks")
    # A film of every run is more than anyone watches.
    unfilmed = replace(config.evaluation, videos=0)
    planned: dict[tuple[str, ...], ExperimentConfig] = {
        (engine, f"seed {seed}"): replace(one, seed=seed, output=str(folder / RUNS), evaluation=unfilmed)
        for seed in seeds
        for engine, one in (("rllib", ours), ("sb3", theirs))
    }
    with locked(folder, "the cross-check"), connected(config.resources):
        # Here, so that no other process is measured beside it.
        try:
            again = f"--resume --out {folder}"
            runs = train_all(planned, folder, what="cross-check", jobs=None, alone=True, resume=again, result=_test_mean)
        except KeyboardInterrupt:
            print(f"\nStopped. Resume: scalepilot study CONFIG --resume --out {folder}")
            raise
    engines = {
        engine: _result([run for (name, _), run in runs.items() if name == engine], task.value_metric)
        for engine in ("rllib", "sb3")
    }
    blocks = _tested(next(iter(runs.values()))).blocks
    lower_is_better = task.objective.lower_is_better
    verdict = agreement(
        engines["rllib"].values,
        engines["sb3"].values,
        blocks,
        lower_is_better=lower_is_better,
        samples=config.evaluation.bootstrap_samples,
    )
    metric, said = "J per hour" if lower_is_better else task.objective.short_label, tuple(unmatched(config))
    check = CrossCheck(folder, ours, tuple(seeds), metric, lower_is_better, engines, verdict, said)
    write_json(folder / "summary.json", summary(check))
    title = f"{config.name}: {ours.algorithm} with both engines, {len(seeds)} seeds"
    drawn = {engine: result.curves for engine, result in engines.items()}
    write_bytes(folder / "plot.svg", curves_svg(drawn, title=title, value_label=task.value_label).encode())
    return check


def _both(config: ExperimentConfig) -> tuple[ExperimentConfig, ExperimentConfig]:
    """The experiment with our algorithm, and with its counterpart of Stable-Baselines3.

    Raises:
        ConfigError: there is no such pair, or one of them does not train on the environment.
    """
    pairs = {a.counterpart: a.name for a in ALGORITHMS.values() if a.extra == "sb3"}
    ours = ALGORITHMS[config.algorithm].counterpart or config.algorithm
    if ours not in pairs:
        raise ConfigError(f"algorithm: {config.algorithm} is not allowed in a cross-check; allowed: {', '.join(pairs)}")
    try:
        return replace(config, algorithm=ours), replace(config, algorithm=pairs[ours])
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _tested(run: RunFolder) -> Judged:
    """What the run's policy came to on the test episodes.

    Raises:
        RunError: its evaluation is missing.
    """
    found = tested(run)
    if found is None:
        raise RunError(f"{run.evaluation}: is missing or damaged; remove it to evaluate the run again")
    return found


def _test_mean(run: RunFolder) -> str:
    return f"test {_tested(run).values.mean():,.2f}"


def _result(runs: Sequence[RunFolder], value_metric: str) -> EngineResult:
    curves, rates, seconds = [], [], []
    for run in runs:
        rows = run.read_metrics()
        validated = [(row["env_steps"], row[value_metric]) for row in rows if row[value_metric] is not None]
        curves.append(Curve(np.array([x for x, _ in validated]), np.array([y for _, y in validated])))
        per_iteration = [row["steps_per_second"] or 0.0 for row in rows]
        rates.append(statistics.median(per_iteration[_WARM_UP:] or per_iteration))
        seconds.append(rows[-1]["time_seconds"] or 0.0)
    judged = [_tested(run) for run in runs]
    values = np.stack([one.values for one in judged])
    return EngineResult(
        values=values,
        interval=nested_mean(values, judged[0].blocks),
        curves=tuple(curves),
        steps_per_second=statistics.median(rates),
        train_seconds=statistics.median(seconds),
        runs=tuple(run.path for run in runs),
    )


def summary(check: CrossCheck) -> dict[str, Any]:
    """The machine-readable result."""
    return {
        "name": check.config.name,
        "env": check.config.env.id,
        "algorithm": check.config.algorithm,
        "seeds": list(check.seeds),
        "env_steps": check.config.learning.env_steps,
        "metric": check.metric,
        "lower_is_better": check.lower_is_better,
        "episodes": int(check.engines["rllib"].values.shape[1]),
        "engines": {
            name: {
                **_json(result.interval),
                "per_seed": [float(x) for x in result.values.mean(axis=1)],
                "steps_per_second": result.steps_per_second,
                "train_seconds": result.train_seconds,
                "runs": [str(path.relative_to(check.folder)) for path in result.runs],
            }
            for name, result in check.engines.items()
        },
        "difference": _json(check.verdict.difference),
        "relative_difference": _json(check.verdict.relative),
        "verdict": check.verdict.outcome,
        "reason": check.verdict.reason,
        "unmatched": list(check.unmatched),
        "config": check.config.to_mapping(),
        "versions": library_versions(),
        "hardware": hardware(),
        "git_sha": git_sha(),
    }


def _json(interval: Interval) -> dict[str, float | None]:
    values = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
