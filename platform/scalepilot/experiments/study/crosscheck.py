"""Training with both engines and flying what they learnt through the same test episodes."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.cluster.connection import connected
from scalepilot.config import EnvConfig, ExperimentConfig, OtherEnvConfig
from scalepilot.errors import ConfigError, InputError
from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.evaluate.statistics.nested import nested_mean
from scalepilot.experiments.run import INTERRUPTED, make_task
from scalepilot.experiments.study.agreement import Agreement, agreement
from scalepilot.files.atomic import write_json
from scalepilot.files.stop import StopFlag
from scalepilot.learn.algorithms import make_trainer, policy_spec
from scalepilot.learn.task import TEST_SEED, Task
from scalepilot.policy import load_policy
from scalepilot.progress import Progress
from scalepilot.report.charts.curves import curves_svg
from scalepilot.runs.folder import RunFolder, git_sha, hardware, library_versions, new_folder
from scalepilot.simulate import ProtocolData, run_episodes, run_returns
from scalepilot.simulate.workload_data import load_data

# Name → prefix of the algorithm.
ENGINES = {"rllib": "", "sb3": "sb3_"}
BOTH = ("ppo", "dqn")
_SECONDS_PER_DAY = 86400
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
        config: the experiment.
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


def crosscheck(config: ExperimentConfig, seeds: Sequence[int]) -> CrossCheck:
    """Train with both engines on every seed, in turns, and judge.

    Args:
        config: the experiment; `algorithm` is ppo or dqn, of either engine.
        seeds: training seeds.

    Raises:
        InputError: seeds that are not allowed, or an algorithm that only one engine has.
        KeyboardInterrupt: stopped early; the runs so far stay.
    """
    algorithm = config.algorithm.removeprefix(ENGINES["sb3"])
    if algorithm not in BOTH:
        raise ConfigError(f"algorithm: {config.algorithm} is not allowed in a cross-check; allowed: {', '.join(BOTH)}")
    try:
        replace(config, algorithm=ENGINES["sb3"] + algorithm)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"--seeds: {list(seeds)} is not allowed; allowed: whole numbers from 0, each once")
    if importlib.util.find_spec("stable_baselines3") is None:
        raise InputError("crosscheck: stable-baselines3 is not installed; pip install 'scalepilot[sb3]'")
    from scalepilot.learn.sb3.trainer import unmatched

    data = load_data(config) if isinstance(config.env, EnvConfig) else None
    task = make_task(config, data)
    folder = new_folder(Path(config.output) / f"{config.name}-crosscheck", "", "cross-checks")
    finished: dict[str, list[tuple[RunFolder, float]]] = {engine: [] for engine in ENGINES}
    stop = StopFlag()
    with connected(config.resources), stop.listening():
        for seed in seeds:
            for engine, prefix in ENGINES.items():
                one = replace(config, algorithm=prefix + algorithm, seed=seed, output=str(folder / engine))
                finished[engine].append(_train(one, data, f"{engine} seed {seed}", stop))
    fly, blocks = _flights(config, task, data)
    engines = {
        engine: _result(runs, np.stack([fly(run.policy) for run, _ in runs]), blocks, task.value_metric)
        for engine, runs in finished.items()
    }
    verdict = agreement(
        engines["rllib"].values,
        engines["sb3"].values,
        blocks,
        lower_is_better=data is not None,
        samples=config.evaluation.bootstrap_samples,
    )
    metric = "J per hour" if data is not None else "return"
    check = CrossCheck(folder, config, tuple(seeds), metric, data is not None, engines, verdict, tuple(unmatched(config)))
    write_json(folder / "summary.json", summary(check))
    title = f"{config.name}: {algorithm} with both engines, {len(seeds)} seeds"
    drawn = {engine: result.curves for engine, result in engines.items()}
    (folder / "plot.svg").write_text(curves_svg(drawn, title=title, value_label=task.value_label), encoding="utf-8")
    return check


def _train(config: ExperimentConfig, data: ProtocolData | None, label: str, stop: StopFlag) -> tuple[RunFolder, float]:
    """One run folder with its policies; (folder, seconds of training)."""
    from scalepilot.learn.loop import TrainingLoop

    folder = RunFolder.create(config)
    folder.start_logging()
    folder.write_status("running")
    try:
        # Anew for each run: what an engine leaves in a task must not reach the next.
        task = make_task(config, data)
        trainer = make_trainer(config, task)
        try:
            progress = Progress(label, value_label=task.value_label)
            outcome = TrainingLoop(config, trainer, folder, task, policy_spec(config, folder, task), progress).run(stop)
        finally:
            trainer.close()
        folder.write_metrics_parquet()
        folder.write_status("finished" if outcome.finished else INTERRUPTED, training=asdict(outcome))
    except Exception as error:
        folder.write_status("failed", error=str(error))
        raise
    finally:
        folder.close()
    if not outcome.finished:
        raise KeyboardInterrupt
    return folder, outcome.train_seconds


def _flights(
    config: ExperimentConfig, task: Task, data: ProtocolData | None
) -> tuple[Callable[[Path], NDArray[np.float64]], NDArray[np.int64]]:
    """How a policy is flown through the test episodes, (n,) values each, and the blocks (n,) of chance among them."""
    if data is not None:
        params, test = config.autoscale.params, data.test
        day = np.floor(test.start_unix_seconds / _SECONDS_PER_DAY).astype(np.int64)
        blocks = day if len(np.unique(day)) > 1 else test.window
        return lambda folder: run_episodes(load_policy(folder), test, params)[0].J_per_hour, blocks
    assert isinstance(config.env, OtherEnvConfig)
    arguments, episodes, env_id = config.env.arguments, config.evaluation.test_episodes, task.description.env_id

    def fly(folder: Path) -> NDArray[np.float64]:
        return run_returns(load_policy(folder), env_id, episodes, arguments=arguments, first_seed=TEST_SEED).episode_return

    return fly, np.arange(episodes)


def _result(
    runs: Sequence[tuple[RunFolder, float]], values: NDArray[np.float64], blocks: NDArray[np.int64], value_metric: str
) -> EngineResult:
    curves, rates = [], []
    for folder, _ in runs:
        rows = folder.read_metrics()
        validated = [(row["env_steps"], row[value_metric]) for row in rows if row[value_metric] is not None]
        curves.append(Curve(np.array([x for x, _ in validated]), np.array([y for _, y in validated])))
        per_iteration = [row["steps_per_second"] or 0.0 for row in rows]
        rates.append(statistics.median(per_iteration[_WARM_UP:] or per_iteration))
    seconds = statistics.median(seconds for _, seconds in runs)
    paths = tuple(folder.path for folder, _ in runs)
    return EngineResult(values, nested_mean(values, blocks), tuple(curves), statistics.median(rates), seconds, paths)


def summary(check: CrossCheck) -> dict[str, Any]:
    """The machine-readable result."""
    return {
        "name": check.config.name,
        "env": check.config.env.id,
        "algorithm": check.config.algorithm.removeprefix(ENGINES["sb3"]),
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
