"""Training into a run folder: what `train`, studies, cross-checks and the trials of sweeps have in common.

A run's state is its folder: training that begins in a folder with checkpoints can go on from the newest.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scalepilot.cluster.connection import connected
from scalepilot.config import ALGORITHMS, ExperimentConfig
from scalepilot.files.atomic import write_bytes
from scalepilot.learn.algorithms import make_trainer, policy_spec
from scalepilot.learn.callbacks import Beside, Callback, LivePlots, Videos, trackers
from scalepilot.learn.initial_weights import weights_of
from scalepilot.learn.task import Task
from scalepilot.learn.trainer import TrainingOutcome
from scalepilot.policy import Policy
from scalepilot.progress import Progress
from scalepilot.report.charts.live_chart import live_chart
from scalepilot.report.run_plots import can_be_filmed, film
from scalepilot.runs.folder import RunFolder

if TYPE_CHECKING:
    from scalepilot.learn.loop import TrainingLoop

logger = logging.getLogger("scalepilot.training")


def run_training(
    config: ExperimentConfig,
    folder: RunFolder,
    task: Task,
    stop: Callable[[], bool],
    *,
    resume: bool = False,
    parent: Policy | None = None,
) -> TrainingOutcome:
    """Train until the budget is used up or a signal asks for the end.

    Args:
        config: the experiment; of a resumed run it may be a changed one, which is stored then.
        folder: its run folder, whose log is open.
        task: what it trains on.
        stop: asked after each iteration; true ends training early.
        resume: continue from the newest checkpoint.
        parent: a policy whose weights training starts from, or began with.
    """
    with connected(config.resources) if ALGORITHMS[config.algorithm].needs_ray else contextlib.nullcontext():
        progress = Progress(f"training {config.algorithm}", value_label=task.value_label)
        loop = open_loop(config, folder, task, progress, resume=resume, parent=parent)
        try:
            if resume and RunFolder.open(folder.path)[1] != config:
                write_bytes(folder.config_file, config.to_yaml().encode())
            outcome = loop.run(stop)
        finally:
            loop.trainer.close()
    folder.write_metrics_parquet()
    return outcome


def open_loop(
    config: ExperimentConfig,
    folder: RunFolder,
    task: Task,
    progress: Progress,
    *,
    resume: bool | Path = False,
    parent: Policy | None = None,
) -> TrainingLoop:
    """Everything that trains, ready to go on; for an algorithm on Ray, Ray must be up.

    Args:
        config: the experiment.
        folder: its run folder.
        task: what it trains on.
        progress: the line a person watches.
        resume: continue from the newest checkpoint, or from the one given.
        parent: a policy whose weights training starts from, or began with: a resumed run may have no checkpoint yet.
    """
    # Only who trains imports torch.
    from scalepilot.learn.loop import TrainingLoop

    remake = partial(make_trainer, config, task)
    trainer = remake()
    loop: TrainingLoop | None = None
    try:
        spec, callbacks = policy_spec(config, folder, task), make_callbacks(config, folder, task)
        loop = TrainingLoop(config, trainer, folder, task, spec, progress, callbacks, remake)
        if parent is not None:
            # Reading a network's weights needs the onnx package, which training has.
            loop.start_from(weights_of(parent))
            logger.info("starts from %s %s", parent.spec.name, parent.spec.version)
        if isinstance(resume, Path):
            loop.resume_from(resume)
        elif resume:
            loop.resume()
    except BaseException:
        (trainer if loop is None else loop.trainer).close()
        raise
    return loop


def make_callbacks(config: ExperimentConfig, folder: RunFolder, task: Task) -> list[Callback]:
    """What watches a run beside progress.csv and TensorBoard."""
    callbacks: list[Callback] = [*trackers(config, config.tracking, folder.path)]
    if task.is_live:
        callbacks = [Beside(callback, logger.warning) for callback in callbacks]
    if task.is_live and config.tracking.plot_decisions:
        title = f"{config.name}: {config.algorithm} on a live deployment"
        plots = folder.plots / "live.svg"
        callbacks.append(LivePlots(plots, config.tracking.plot_decisions, partial(live_chart, title=title)))
    if ALGORITHMS[config.algorithm].needs_ray:
        from scalepilot.learn.rllib.prometheus import RayMetrics

        callbacks.append(RayMetrics(folder.run_id, config.name, config.algorithm))
    if config.evaluation.videos and can_be_filmed(task):
        videos = Videos(folder.videos, config.evaluation.videos, config.learning.env_steps, partial(film, task))
        callbacks.append(videos)
    return callbacks
