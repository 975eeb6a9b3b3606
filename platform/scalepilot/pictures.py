"""What a run leaves to look at: learning curve, what the policy thinks along an episode, its Q-table, videos."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot.config import ExperimentConfig
from scalepilot.durable import write_bytes
from scalepilot.evaluate.action_chart import action_chart
from scalepilot.evaluate.compare import Comparison
from scalepilot.evaluate.learning_curve import learning_curve
from scalepilot.evaluate.policy_map import (
    observed_ranges,
    policy_map,
    policy_map_picture,
    telling_fields,
    typical_observation,
)
from scalepilot.evaluate.q_table import q_table_picture
from scalepilot.evaluate.recording import Recording, record_episode
from scalepilot.evaluate.returns import ReturnComparison
from scalepilot.evaluate.statistics import Interval
from scalepilot.evaluate.video import gif
from scalepilot.learn.run_folder import RunFolder
from scalepilot.learn.task import AutoscaleTask, Task
from scalepilot.policy import Policy, TablePolicy, load_policy
from scalepilot_envs.registration import find_env

logger = logging.getLogger("scalepilot.training")
# Neither training's, which are drawn from all of 32 bits, nor those of validation (1,000,000 …) and test (2,000,000 …).
VIDEO_SEED = 3_000_000


def can_be_filmed(task: Task) -> bool:
    """Whether the environment can be drawn here; the log says why not."""
    try:
        env: Any = find_env(task.description.env_id).maker()(render_mode="rgb_array", **task.training_arguments())
        env.reset(seed=VIDEO_SEED)
        frame = np.asarray(env.render())
        env.close()
    except Exception as error:  # noqa: BLE001 - an environment may raise anything
        logger.info("no videos: %s: %s", type(error).__name__, error)
        return False
    drawn = frame.ndim == 3 and frame.dtype == np.uint8
    if not drawn:
        logger.info(
            "no videos: %s draws %s %s; needed: (height, width, 3) uint8", task.description.env_id, frame.dtype, frame.shape
        )
    return drawn


def film(task: Task, policy: Policy, path: Path) -> None:
    """Write a video of one greedy episode."""
    recording = record_episode(policy, task.description.env_id, task.training_arguments(), VIDEO_SEED, film=True)
    write_bytes(path, gif(recording.frames, recording.frames_per_second))


def draw_run(
    config: ExperimentConfig, folder: RunFolder, task: Task, comparison: Comparison | ReturnComparison | None = None
) -> None:
    """Draw what the run has so far into plots/ and videos/; what cannot be drawn is logged and ends nothing.

    Args:
        config: the experiment.
        folder: its run.
        task: what it trains on.
        comparison: the judgement, where there is one.
    """
    try:
        folder.plots.mkdir(exist_ok=True)
        _draw_curve(config, folder, task, comparison)
        if folder.policy.exists():
            _draw_policy(config, folder, task)
    except Exception:
        logger.exception("pictures: not all could be drawn")


def _draw_curve(
    config: ExperimentConfig, folder: RunFolder, task: Task, comparison: Comparison | ReturnComparison | None
) -> None:
    rows = folder.read_metrics()
    if not rows:
        return
    autoscale = isinstance(task, AutoscaleTask)
    picture = learning_curve(
        rows,
        training="train_J_per_hour" if autoscale else "episode_return_mean",
        validation=task.value_metric,
        value_label="J per hour (lower is better)" if autoscale else "episode return",
        title=f"{config.name} · {config.algorithm} on {task.description.env_id.rpartition('/')[2]}",
        test=_test_interval(comparison),
    )
    write_bytes(folder.plots / "learning_curve.svg", picture.encode())


def _test_interval(comparison: Comparison | ReturnComparison | None) -> Interval | None:
    """What the test episodes say of the kept policy."""
    if isinstance(comparison, Comparison):
        judged = comparison.best("policy")
        return None if judged is None else comparison.rows[judged.name]["J"]
    collected = None if comparison is None else comparison.best("policy")
    return None if collected is None else collected.figures["return"]


def _draw_policy(config: ExperimentConfig, folder: RunFolder, task: Task) -> None:
    policy = load_policy(folder.policy)
    if isinstance(policy, TablePolicy):
        q_table_picture(policy, folder.plots / "q_table.svg")
    recording = record_episode(policy, task.description.env_id, task.training_arguments(), VIDEO_SEED)
    picture = action_chart(recording, policy.spec)
    if picture is not None:
        write_bytes(folder.plots / "action_probabilities.svg", picture.encode())
    _draw_map(policy, recording, folder.plots / "policy_map.svg")
    if config.evaluation.videos and can_be_filmed(task):
        folder.videos.mkdir(exist_ok=True)
        film(task, policy, folder.videos / "policy.gif")


def _draw_map(policy: Policy, recording: Recording, path: Path) -> None:
    """What the policy does over the two most telling fields, the others as they were in a typical moment of the episode."""
    seen = recording.observation
    fields = None if seen is None else telling_fields(policy, seen)
    if seen is None or fields is None:
        return
    ranges = observed_ranges(policy, seen)
    found = policy_map(policy, *fields, base=typical_observation(seen), ranges=ranges)
    write_bytes(path, policy_map_picture(found, f"{policy.spec.name}: what it does over {fields[0]} and {fields[1]}").encode())
