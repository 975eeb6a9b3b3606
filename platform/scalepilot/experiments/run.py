"""Train → evaluate → report: one experiment from its config to a verdict."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from scalepilot.config import EnvConfig, ExperimentConfig, OtherEnvConfig
from scalepilot.evaluate.compare import Comparison, write_evaluation
from scalepilot.evaluate.returns import ReturnComparison, compare_returns, returns_summary, write_returns
from scalepilot.evaluate.run_comparison import (
    HPA_DEFAULT,
    Entrant,
    Field,
    OptimumOptions,
    describe_policy,
    judge,
    judge_fields,
)
from scalepilot.evaluate.store import summary
from scalepilot.experiments.beside import prepared, tuned_baselines
from scalepilot.experiments.training import run_training
from scalepilot.files.lock import locked
from scalepilot.files.stop import StopFlag, Stopped, at_once
from scalepilot.learn.algorithms import policy_spec
from scalepilot.learn.callbacks import check_tracking
from scalepilot.learn.initial_weights import check_fits, load_parent, parent_of
from scalepilot.learn.preflight import check_environment
from scalepilot.learn.task import TEST_SEED, AutoscaleTask, ReturnTask, Task, episode_limits
from scalepilot.policy import Policy, load_policy, read_packed
from scalepilot.policy.rules import Hpa, HpaParameters, Rule, make_rule, rules_for
from scalepilot.report.run_plots import draw_run
from scalepilot.report.run_report import write_run_report
from scalepilot.report.words.returns_text import returns_notes
from scalepilot.runs.checkpoints import Checkpoints, read_loop
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import ProcessExecutor, ProtocolData, SerialExecutor, run_episodes, usable_cores
from scalepilot.simulate.workload_data import load_data
from scalepilot_envs.autoscale import AutoscaleParams

logger = logging.getLogger("scalepilot.training")
INTERRUPTED = "interrupted"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A row of a comparison by return: name, role, detail, policy.
Entry = tuple[str, Literal["policy", "baseline"], str, Policy]


@dataclass(frozen=True)
class ExperimentResult:
    """What a run left behind; `comparison` is None where it was not evaluated."""

    folder: RunFolder
    finished: bool
    comparison: Comparison | ReturnComparison | None


def make_task(config: ExperimentConfig, data: ProtocolData | None = None) -> Task:
    """What the experiment trains on.

    Args:
        config: the experiment.
        data: of Autoscale's workload; loaded if None.
    """
    if isinstance(config.env, EnvConfig):
        return AutoscaleTask(config, load_data(config) if data is None else data)
    return ReturnTask(config)


def run_experiment(
    config: ExperimentConfig,
    folder: RunFolder,
    *,
    resume: bool = False,
    evaluate: bool = True,
    alone: bool = False,
    init: Path | None = None,
) -> ExperimentResult:
    """Train (or go on training), then evaluate and report.

    Args:
        config: the experiment; of a resumed run it may be a changed one (see `resumed_with`), which is stored then.
        folder: its run folder.
        resume: continue from the newest checkpoint.
        init: folder of a policy whose weights training starts from.
        evaluate: judge the policy on the test episodes and write the report.
        alone: judge it beside nobody: what it is compared with comes later.

    Raises:
        InputError: the folder is another process's, or a file in it is damaged.
    """
    with locked(folder.path, "the run"):
        return _run(config, folder, resume=resume, evaluate=evaluate, alone=alone, init=init)


def _run(
    config: ExperimentConfig, folder: RunFolder, *, resume: bool, evaluate: bool, alone: bool, init: Path | None
) -> ExperimentResult:
    if resume:
        _check_stored(folder, config)
    data = load_data(config) if isinstance(config.env, EnvConfig) else None
    task = make_task(config, data)
    check_environment(task.description.env_id, task.training_arguments())
    check_tracking(config.tracking)
    parent = None if init is None else load_parent(init, config.algorithm)
    if parent is not None and init is not None:
        check_fits(parent.spec, policy_spec(config, folder, task))
        folder.write_status("running", init=parent_of(parent, init))
    folder.start_logging()
    folder.write_status("running")
    stop = StopFlag()
    listening = contextlib.ExitStack()
    try:
        listening.enter_context(stop.listening())
        beside = None
        if data is not None and evaluate and not alone:
            beside = listening.enter_context(prepared(config, data, folder))
        asked = stop if beside is None else beside.or_stop(stop)
        trained = run_training(config, folder, task, asked, resume=resume, parent=parent)
        json_outcome = asdict(trained)
        if not trained.finished:
            # What needs no step of an environment is drawn.
            with contextlib.suppress(Stopped):
                draw_run(config, folder, task)
            folder.write_status(INTERRUPTED, training=json_outcome)
            return ExperimentResult(folder, False, None)
        if not evaluate:
            folder.write_status("finished", training=json_outcome)
            return ExperimentResult(folder, True, None)
        folder.write_status("evaluating", training=json_outcome)
        comparison: Comparison | ReturnComparison
        with at_once():
            if alone:
                comparison = evaluate_alone(config, folder, task)
            elif data is not None and beside is not None:
                beside.wait()
                rivals = tuned_baselines(config, data, folder)
                comparison = evaluate_run(config, folder, data, rivals, beside.optima)
            else:
                comparison = evaluate_returns(config, folder, task)
            draw_run(config, folder, task, comparison)
            write_run_report(folder, config)
        folder.write_status("finished", training=json_outcome)
        return ExperimentResult(folder, True, comparison)
    except KeyboardInterrupt:
        folder.write_status(INTERRUPTED)
        raise
    except Exception as error:
        # On a full disk what went wrong is more telling than that it cannot be noted.
        with contextlib.suppress(OSError):
            folder.write_status("failed", error=str(error))
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise folder.cannot_write(Path(error.filename or folder.path), error) from error
        raise
    finally:
        listening.close()
        folder.close()


def _check_stored(folder: RunFolder, config: ExperimentConfig) -> None:
    """Read what a run is resumed from, before anything is started or written.

    Raises:
        InputError: a file is damaged, or somebody else's.
    """
    checkpoints = Checkpoints(folder.checkpoints, config.checkpoints.num_to_keep)
    checkpoints.check_owner()
    folder.read_status()
    folder.read_metrics()
    newest = checkpoints.newest()
    if newest is not None:
        read_loop(newest)


def evaluate_run(
    config: ExperimentConfig, folder: RunFolder, data: ProtocolData, rivals: list[Rule[Any]], optima: Path | None = None
) -> Comparison:
    """Judge the run's policy on the test windows, write evaluation/.

    Args:
        config: the experiment.
        folder: the run.
        data: the protocol's episodes.
        rivals: baselines beside the default HPA.
        optima: folder of plans of the optimum made before.
    """
    policy = load_policy(folder.policy)
    with ProcessExecutor(usable_cores()) as executor:
        comparison = judge(
            data,
            config.autoscale.params,
            [(policy.spec.name, policy)],
            rivals,
            bootstrap_samples=config.evaluation.bootstrap_samples,
            optimum=OptimumOptions(optima) if config.evaluation.optimum else None,
            executor=executor,
        )
    write_evaluation(comparison, folder.evaluation)
    keep_summary(folder, summary(comparison))
    default = _validation_J(Hpa(HpaParameters(), config.autoscale.params), data, config.autoscale.params)
    folder.write_status("evaluating", validation_J_per_hour={HPA_DEFAULT: default})
    return comparison


def evaluate_returns(config: ExperimentConfig, folder: RunFolder, task: Task) -> ReturnComparison:
    """Judge the run's policy on test episodes beside every rule that fits, write evaluation/."""
    policy, env = load_policy(folder.policy), task.description
    entries: list[Entry] = [(policy.spec.name, "policy", describe_policy(policy), policy)]
    for name in rules_for(env):
        rule = make_rule(name, env)
        entries.append((name, "baseline", describe_policy(rule), rule))
    comparison = _compare_returns(config, task, entries)
    for line in returns_notes(comparison):
        logger.warning("test: %s", line)
    write_returns(comparison, folder.evaluation)
    keep_summary(folder, returns_summary(comparison))
    return comparison


def evaluate_alone(config: ExperimentConfig, folder: RunFolder, task: Task) -> Comparison | ReturnComparison:
    """Fly the run's policy, and nobody else, through the test episodes; write evaluation/."""
    policy = load_policy(folder.policy)
    if isinstance(task, AutoscaleTask):
        field = Field(task.data, config.autoscale.params, (Entrant.single(policy.spec.name, "policy", policy),))
        comparisons, _ = judge_fields([field], SerialExecutor(), bootstrap_samples=config.evaluation.bootstrap_samples)
        write_evaluation(comparisons[0], folder.evaluation)
        keep_summary(folder, summary(comparisons[0]))
        return comparisons[0]
    comparison = _compare_returns(config, task, [(policy.spec.name, "policy", describe_policy(policy), policy)])
    write_returns(comparison, folder.evaluation)
    keep_summary(folder, returns_summary(comparison))
    return comparison


def _compare_returns(config: ExperimentConfig, task: Task, entries: Sequence[Entry]) -> ReturnComparison:
    assert isinstance(config.env, OtherEnvConfig)
    return compare_returns(
        task.description.env_id,
        entries,
        arguments=config.env.arguments,
        num_episodes=config.evaluation.test_episodes,
        first_seed=TEST_SEED,
        bootstrap_samples=config.evaluation.bootstrap_samples,
        limits=episode_limits(config),
    )


def keep_summary(folder: RunFolder, found: Mapping[str, Any]) -> None:
    """Write into the policy's own description how it was judged: who serves it has nothing else of the run.

    Args:
        folder: the run.
        found: what summary.json holds.
    """
    packed = read_packed(folder.policy)
    evaluation = {key: found[key] for key in ("workloads", "episodes", "policies", "roles")}
    evaluation["gap_closed"] = found.get("gap_closed", {}).get(packed.spec.name, {})
    replace(packed, spec=packed.spec.with_evaluation(evaluation)).save(folder.policy)


def _validation_J(rule: Hpa, data: ProtocolData, params: AutoscaleParams) -> float:
    return float(run_episodes(rule, data.validation, params)[0].J_per_hour.mean())
