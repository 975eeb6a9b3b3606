"""A sweep from its plan to its folder: Ray Tune runs the trials, the best points train again on the other seeds."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from scalepilot.cluster.connection import connected, cpus_of, on_each_node
from scalepilot.config import ExperimentConfig
from scalepilot.errors import InputError, RunError
from scalepilot.experiments.sweep.board import ranked, read_trials
from scalepilot.experiments.sweep.config import SweepConfig
from scalepilot.experiments.sweep.plan import PLAN, SEED, PlannedSweep, Point, load_sweep, trial_folder, whole_mapping
from scalepilot.experiments.sweep.view import SweepView
from scalepilot.files.atomic import write_bytes
from scalepilot.files.ownership import check_own_tree
from scalepilot.files.stop import StopFlag
from scalepilot.report.run_list import SWEEP_FILE
from scalepilot.runs.folder import find_modules, new_folder
from scalepilot.simulate import usable_cores

TRIALS, CONFIRMATION = "trials", "confirmation"
_PERCENT = "percent"


@dataclass(frozen=True)
class _Stage:
    """Trials that are trained together.

    Attributes:
        name: of the folder that holds them.
        trials: (point, seed) of each; empty where they are drawn while searching.
        total: how many there will be.
        search: whether points are still being chosen; otherwise all train to the end.
    """

    name: str
    trials: tuple[tuple[Point, int], ...]
    total: int
    search: bool


def create_folder(plan: PlannedSweep) -> Path:
    """A new folder under the sweep's output, with everything that going on needs in sweep.yaml."""
    folder = new_folder(Path(plan.sweep.output) / plan.sweep.name, "", "sweeps")
    text = yaml.safe_dump(whole_mapping(plan), sort_keys=False, allow_unicode=True)
    write_bytes(folder / SWEEP_FILE, text.encode())
    return folder


def open_folder(folder: Path) -> PlannedSweep:
    """The plan of an existing sweep.

    Raises:
        InputError: not a sweep's folder, or one that another user could change: Tune's state holds pickles, which run what is
            in them.
    """
    if not (folder / SWEEP_FILE).is_file():
        raise InputError(
            f"{folder}: holds no {SWEEP_FILE}; allowed: a sweep's folder, such as runs/resource-manager/20261121-120000"
        )
    check_own_tree(folder, "resume")
    find_modules(folder)
    return load_sweep(folder / SWEEP_FILE)


def run_sweep(plan: PlannedSweep, folder: Path) -> bool:
    """Train what is not trained yet.

    Args:
        plan: the sweep.
        folder: its folder; what is finished in it is not trained again.

    Returns:
        Whether everything was trained; False when it was stopped.

    Raises:
        InputError: a trial needs more than the cluster has.
        RunError: every trial failed, and none can be confirmed.
    """
    sweep = plan.sweep
    example = plan.example
    concurrency = sweep.concurrency or max(1, usable_cores() // cpus_of(example.resources))
    with connected(example.resources, num_cpus=concurrency * cpus_of(example.resources)):
        _check_resources(example)
        _check_folder(folder)
        trials = tuple((point, seed) for point in plan.points for seed in sweep.seeds_of_search)
        if not _tune(plan, folder, _Stage(TRIALS, trials, plan.num_trials, True), example, concurrency):
            return False
        if sweep.seeds_of_confirmation:
            found = ranked(read_trials(folder / TRIALS))
            if not found:
                raise RunError(f"{folder}: every trial failed; their run.json and logs/training.log say why")
            best = [standing.point for standing in found[: sweep.num_confirmed]]
            again = tuple((point, seed) for point in best for seed in sweep.seeds_of_confirmation)
            return _tune(plan, folder, _Stage(CONFIRMATION, again, len(again), False), example, concurrency)
    return True


def _tune(plan: PlannedSweep, folder: Path, stage: _Stage, example: ExperimentConfig, concurrency: int) -> bool:
    """Train a stage's trials; False when it was stopped."""
    # Read when Tune begins. Its loggers would write a second progress.csv; its state must not be many seconds old.
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    # Ctrl-C is ours, and so is what is printed.
    os.environ |= {"TUNE_DISABLE_SIGINT_HANDLER": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    from ray import tune

    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from scalepilot.experiments.sweep.trial import Assignment, Trial

    sweep, place = plan.sweep, folder / stage.name
    assignment = Assignment(plan, stage.trials, str(uuid.uuid4()))
    trainable = tune.with_resources(tune.with_parameters(Trial, assignment=assignment), _resources(example))
    where = str(place.resolve())
    # Killed in its first seconds, Tune may have noted trials and not what it has yet to draw; their own folders know more.
    drawn = any(any(place.glob(f"{name}-*.json")) for name in ("basic-variant-state", "search_gen_state"))
    if drawn and tune.Tuner.can_restore(where):
        try:
            tuner = tune.Tuner.restore(where, trainable, resume_unfinished=True, resume_errored=True)
        except (AttributeError, ImportError, EOFError, pickle.UnpicklingError) as error:
            raise RunError(
                f"{place}: Ray Tune's state there cannot be read ({error}); written by another version of Scalepilot, or damaged"
            ) from error
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=_param_space(sweep, stage),
            tune_config=tune.TuneConfig(
                metric="score",
                mode="min",
                search_alg=_search(sweep, stage),
                scheduler=_scheduler(sweep, stage),
                num_samples=1 if stage.trials else stage.total,
                max_concurrent_trials=concurrency,
                reuse_actors=True,
                trial_dirname_creator=partial(_trial_dirname, assignment),
            ),
            run_config=tune.RunConfig(
                name=stage.name,
                storage_path=str(folder.resolve()),
                failure_config=tune.FailureConfig(max_failures=sweep.retries),
                # A trial's state is its run folder's; Tune's own checkpoints are what a population copies.
                checkpoint_config=tune.CheckpointConfig(num_to_keep=4, checkpoint_at_end=False),
                verbose=0,
            ),
        )
    view = SweepView(place, stage.total, sweep.name if stage.search else f"{sweep.name}, other seeds", concurrency)
    # SIGUSR1 is what Tune listens to for the same.
    stop = StopFlag("Stopping: trials write checkpoints", lambda: os.kill(os.getpid(), signal.SIGUSR1))
    theirs = signal.getsignal(signal.SIGUSR1)
    try:
        with view.watching(), stop.listening():
            results = tuner.fit()
    finally:
        signal.signal(signal.SIGUSR1, theirs)
    statuses = [trial.status for trial in results._experiment_analysis.trials]
    return not stop.asked and len(statuses) >= stage.total and not {*statuses} & {"RUNNING", "PENDING", "PAUSED"}


def _resources(config: ExperimentConfig) -> Any:
    """A core for the trial, one for each env runner and each learner; the learners' GPUs where they learn."""
    from ray.tune import PlacementGroupFactory

    from scalepilot.learn.devices import choose_device

    resources = config.resources
    gpus = resources.num_gpus_per_learner
    if not gpus and resources.address is None and choose_device(resources).name == "cuda":
        gpus = 1.0
    learns: Mapping[str, float] = {"GPU": gpus} if gpus else {}
    own = {"CPU": 1, **({} if resources.num_learners else learns)}
    apart = [{"CPU": 1}] * resources.num_env_runners + [{"CPU": 1, **learns}] * resources.num_learners
    return PlacementGroupFactory([own, *apart])


def _check_folder(folder: Path) -> None:
    """Refuse a folder that some node of the cluster does not see: its trials' runs would be lost there.

    Raises:
        InputError: naming the node.
    """
    here, place = str(uuid.uuid4()), folder.resolve() / ".seen"
    write_bytes(place, here.encode())
    where = str(place)

    def look() -> str:
        import pathlib

        path = pathlib.Path(where)
        return path.read_text() if path.is_file() else "nothing"

    try:
        for node, found in on_each_node(look, 60.0):
            if found != here:
                raise InputError(
                    f"output: {folder} is not what node {node} sees there; allowed: a folder on storage that every node shares"
                )
    finally:
        place.unlink(missing_ok=True)


def _check_resources(config: ExperimentConfig) -> None:
    """Refuse at once what would wait for ever."""
    import ray

    have, need = ray.cluster_resources(), _resources(config).required_resources
    for name, amount in need.items():
        # A cluster that grows by itself may have none yet; a local one does not grow.
        if amount > have.get(name, 0) and config.resources.address is None and "RAY_ADDRESS" not in os.environ:
            raise InputError(f"resources: a trial needs {amount:g} {name}; this machine has {have.get(name, 0):g}")


def _param_space(sweep: SweepConfig, stage: _Stage) -> dict[str, Any]:
    """What Tune draws from, or goes through: a trial's configuration shows its point and seed to whoever opens the folder."""
    from ray import tune

    from scalepilot.experiments.sweep.space import domains

    if not stage.trials:
        return domains(sweep.space) | {SEED: sweep.seeds[0]}
    keys = [SEED, *dict.fromkeys(key for point, _ in stage.trials for key in point)]
    shown = {key: tune.sample_from(partial(_planned, stage.trials, key)) for key in keys}
    return {PLAN: tune.grid_search(list(range(len(stage.trials))))} | shown


def _planned(trials: Sequence[tuple[Point, int]], key: str, config: Mapping[str, Any]) -> Any:
    """What a planned trial has for a key; called by Tune with what else is in its configuration."""
    point, seed = trials[config[PLAN]]
    return seed if key == SEED else point.get(key)


def _search(sweep: SweepConfig, stage: _Stage) -> Any:
    if stage.search and sweep.search.kind == "optuna":
        try:
            import optuna
            from ray.tune.search.optuna import OptunaSearch
        except ModuleNotFoundError as error:
            raise InputError(f"search.kind: optuna needs {error.name}: pip install 'scalepilot[optuna]'") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return OptunaSearch(sampler=optuna.samplers.TPESampler(seed=sweep.search.seed))
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=sweep.search.seed)


def _scheduler(sweep: SweepConfig, stage: _Stage) -> Any:
    from ray.tune import schedulers

    from scalepilot.experiments.sweep.space import clipped, mutations

    search = sweep.search
    if stage.search and search.kind == "asha":
        return schedulers.ASHAScheduler(
            time_attr=_PERCENT, max_t=100, grace_period=100 * search.grace_share, reduction_factor=search.reduction_factor
        )
    if stage.search and search.kind == "pbt":
        return schedulers.PopulationBasedTraining(
            time_attr=_PERCENT,
            perturbation_interval=100 * search.perturb_share,
            hyperparam_mutations=mutations(sweep.space),
            quantile_fraction=search.quantile,
            resample_probability=search.resample_probability,
            custom_explore_fn=partial(clipped, sweep.space),
        )
    return schedulers.FIFOScheduler()


def _trial_dirname(assignment: Any, trial: Any) -> str:
    """The same for the same trial, whatever Tune calls it: a restored state that is seconds old finds its folders again."""
    point, seed = assignment.of(trial.config)
    index = trial.config[PLAN] if assignment.trials else int(trial.experiment_tag.split("_")[0])
    return trial_folder(index, point, seed)


__all__ = ["CONFIRMATION", "SWEEP_FILE", "TRIALS", "create_folder", "open_folder", "run_sweep"]
