"""Train → evaluate → report: one experiment from its config to a verdict."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scalepilot.config import ExperimentConfig
from scalepilot.evaluate.baselines import HPA_DEFAULT
from scalepilot.evaluate.compare import Comparison, write_evaluation
from scalepilot.evaluate.evaluation import OptimumOptions, evaluate
from scalepilot.evaluate.store import summary
from scalepilot.experiments.beside import prepared, tuned_baselines
from scalepilot.experiments.deploy import beside_trained, candidates, evaluation_of, given_beside, recommendation, write_deploy
from scalepilot.experiments.training import run_training
from scalepilot.files.lock import locked
from scalepilot.files.stop import StopFlag, Stopped, at_once
from scalepilot.learn.algorithms import policy_spec
from scalepilot.learn.callbacks import check_tracking
from scalepilot.learn.initial_weights import check_fits, load_parent, parent_of
from scalepilot.learn.preflight import check_environment
from scalepilot.learn.task import Task
from scalepilot.policy import Policy, find_policy_folder, load_policy, read_packed
from scalepilot.policy.rules import Rule
from scalepilot.report.run_plots import draw_run
from scalepilot.report.run_report import write_run_report
from scalepilot.runs.checkpoints import Checkpoints, read_loop
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import Episodes, ProcessExecutor, SerialExecutor, usable_cores

logger = logging.getLogger("scalepilot.training")
INTERRUPTED = "interrupted"
# Steps of all test episodes. Fewer are over before other processes have started.
_WORTH_PROCESSES = 5_000
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ExperimentResult:
    """What a run left behind; `comparison` is None where it was not evaluated."""

    folder: RunFolder
    finished: bool
    comparison: Comparison | None


def run_experiment(
    config: ExperimentConfig,
    folder: RunFolder,
    *,
    resume: bool = False,
    evaluate: bool = True,
    alone: bool = False,
    init: Path | None = None,
    others: Sequence[Path] = (),
) -> ExperimentResult:
    """Train (or go on training), then evaluate and report.

    Args:
        config: the experiment; of a resumed run it may be a changed one (see `resumed_with`), which is stored then.
        folder: its run folder.
        resume: continue from the newest checkpoint.
        init: folder of a policy whose weights training starts from; of a resumed run what it began with is known.
        evaluate: evaluate the policy on the test episodes and write the report.
        alone: without baselines: what it is compared with comes later.
        others: other policies to evaluate, which may be what is deployed.

    Raises:
        InputError: the folder is another process's, or a file in it is damaged.
    """
    with locked(folder.path, "the run"):
        return _run(config, folder, resume=resume, judged=evaluate, alone=alone, init=init, others=others)


def _run(
    config: ExperimentConfig,
    folder: RunFolder,
    *,
    resume: bool,
    judged: bool,
    alone: bool,
    init: Path | None,
    others: Sequence[Path],
) -> ExperimentResult:
    if resume:
        _check_stored(folder, config)
    task = Task(config)
    check_environment(task.env_id, task.training_arguments())
    check_tracking(config.tracking)
    parent = _parent(config, folder, task, init)
    # What cannot be loaded is said before anything is trained.
    given_beside(others)
    folder.start_logging()
    folder.write_status("running")
    stop = StopFlag()
    listening = contextlib.ExitStack()
    try:
        listening.enter_context(stop.listening())
        beside = listening.enter_context(prepared(config, task.scenario, folder)) if judged and not alone else None
        asked = stop if beside is None else beside.or_stop(stop)
        trained = run_training(config, folder, task, asked, resume=resume, parent=parent)
        json_outcome = asdict(trained)
        if not trained.finished:
            # What needs no step of an environment is drawn.
            with contextlib.suppress(Stopped):
                draw_run(config, folder, task)
            folder.write_status(INTERRUPTED, training=json_outcome)
            return ExperimentResult(folder, False, None)
        if not judged:
            folder.write_status("finished", training=json_outcome)
            return ExperimentResult(folder, True, None)
        folder.write_status("evaluating", training=json_outcome)
        with at_once():
            baselines, optima = list[Rule[Any]](), None
            if beside is not None:
                beside.wait()
                baselines, optima = tuned_baselines(config, task.scenario, folder), beside.optima
            comparison = evaluate_run(task, folder, baselines, alone=alone, optima=optima, others=others)
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


def _parent(config: ExperimentConfig, folder: RunFolder, task: Task, init: Path | None) -> Policy | None:
    """The policy that training starts from, or began with: the run keeps a copy, untouched.

    Raises:
        InputError: it does not fit.
    """
    if init is None:
        return load_parent(folder.init, config.algorithm) if folder.init.exists() else None
    parent = load_parent(init, config.algorithm)
    check_fits(parent.spec, policy_spec(config, folder, task))
    read_packed(find_policy_folder(init)).save(folder.init)
    folder.write_status("running", init=parent_of(parent, init))
    return parent


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
    task: Task,
    folder: RunFolder,
    baselines: Sequence[Rule[Any]],
    *,
    alone: bool = False,
    optima: Path | None = None,
    others: Sequence[Path] = (),
) -> Comparison:
    """Evaluate the run's policy on the test episodes, write evaluation/.

    Args:
        task: what it was trained on.
        folder: of the run.
        baselines: to compare against.
        alone: leave out the references, which know the future.
        optima: folder of plans of the optimum made before.
        others: other policies that take part.
    """
    policy, evaluation, scenario = load_policy(folder.policy), task.config.evaluation, task.scenario
    choices = candidates(policy, [] if alone else beside_trained(task, folder, others), baselines)
    here = alone or task.is_live or _test_steps(scenario.test, folder) < _WORTH_PROCESSES
    with contextlib.nullcontext(SerialExecutor()) if here else ProcessExecutor(usable_cores()) as executor:
        comparison = evaluate(
            scenario,
            [(choice.name, choice.policy) for choice in choices if choice.origin != "rule"],
            baselines,
            bootstrap_samples=evaluation.bootstrap_samples,
            optimum=OptimumOptions(optima) if evaluation.optimum else None,
            references=not alone,
            executor=executor,
        )
        found = None if alone else recommendation(task, choices, executor)
    for contender in comparison.contenders:
        for line in contender.notes:
            logger.warning("test: %s: %s", contender.name, line)
    told = summary(comparison)
    own = evaluation_of(told, choices[0], task)
    packed = read_packed(folder.policy)
    replace(packed, spec=packed.spec.with_evaluation(own)).save(folder.policy)
    deploy = None if alone else write_deploy(task, folder, found, choices, told, own)
    write_evaluation(comparison, folder.evaluation, None if deploy is None else {"deploy": deploy})
    details: dict[str, Any] = {} if deploy is None else {"deploy": deploy}
    default = next((rule for rule in baselines if rule.spec.name == HPA_DEFAULT), None)
    if default is not None:
        details["validation_J_per_hour"] = {HPA_DEFAULT: task.measure(default).value}
    if details:
        folder.write_status("evaluating", **details)
    return comparison


def _test_steps(episodes: Episodes, folder: RunFolder) -> float:
    """About how many steps they have; where they end as they like, as many as the newest of training."""
    lengths = [float(length) for row in folder.read_metrics() if (length := row.get("episode_length_mean")) is not None]
    return len(episodes) * (episodes.num_steps or (lengths[-1] if lengths else math.inf))
