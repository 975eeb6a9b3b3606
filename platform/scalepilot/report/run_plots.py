"""What a run leaves to look at: learning curve, what the policy thinks along an episode, its Q-table, videos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot.config import ALGORITHMS, ExperimentConfig
from scalepilot.errors import EnvironmentFailedError, InputError, ScalepilotError
from scalepilot.evaluate.compare import Comparison
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.files.atomic import write_bytes
from scalepilot.files.stop import StepLimit, at_once
from scalepilot.learn.task import Task
from scalepilot.policy import Policy, TablePolicy, load_policy
from scalepilot.report.charts.action_bars import action_bars
from scalepilot.report.charts.action_chart import action_chart
from scalepilot.report.charts.learning_curve import learning_curve
from scalepilot.report.charts.playback_chart import playback_chart
from scalepilot.report.charts.policy_map import (
    observed_ranges,
    policy_map,
    policy_map_picture,
    telling_fields,
    typical_observation,
)
from scalepilot.report.charts.q_table import q_table_svg
from scalepilot.report.charts.workload_picture import workload_picture
from scalepilot.report.replay.recording import Recording, record_episode
from scalepilot.report.replay.video import gif
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.stored_metrics import stored_metrics
from scalepilot_envs.registration import find_env
from scalepilot_envs.workloads import Part, part_of

logger = logging.getLogger("scalepilot.training")
# Neither training's, which are drawn from all of 32 bits, nor those of validation (1,000,000 …) and test (2,000,000 …).
VIDEO_SEED = 3_000_000
_LOOK_SECONDS = 60.0


def can_be_filmed(task: Task) -> bool:
    """Whether the environment can be drawn here; the log says why not."""
    env_id = task.env_id
    if task.is_live:
        logger.info("no videos: %s is live", env_id)
        return False
    try:
        with at_once(), StepLimit(_LOOK_SECONDS, lambda: EnvironmentFailedError("drawing hangs")) as clock:
            clock.step()
            env: Any = find_env(env_id).maker()(render_mode="rgb_array", **task.training_arguments())
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
    recording = record_episode(policy, task.env_id, task.training_arguments(), VIDEO_SEED, film=True)
    write_bytes(path, gif(recording.frames, recording.frames_per_second))


@dataclass(frozen=True)
class Plot:
    """One picture of a run.

    Attributes:
        name: of the file in plots/.
        svg: the picture; None where it cannot be drawn.
        reason: why not.
    """

    name: str
    svg: str | None
    reason: str = ""


class RunPictures:
    """Draws a run from what it left: metrics, evaluation, policy.

    Args:
        config: the experiment.
        folder: its run.
        make_task: what it trains on; asked for only when the policy is run.
        comparison: the judgement, where there is one.
        fields: across and up of the policy map; None for the two most telling.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        folder: RunFolder,
        make_task: Callable[[], Task],
        comparison: Comparison | None = None,
        fields: tuple[str, str] | None = None,
    ) -> None:
        self.config, self.folder, self.comparison, self.fields = config, folder, comparison, fields
        self._make_task = make_task

    @cached_property
    def task(self) -> Task:
        """What the run trains on."""
        return self._make_task()

    @cached_property
    def policy(self) -> Policy:
        """The kept policy."""
        if not self.folder.policy.exists():
            raise InputError("the run has no policy yet")
        return load_policy(self.folder.policy)

    @cached_property
    def recording(self) -> Recording:
        """One greedy episode of it."""
        if self.task.is_live:
            raise InputError("the environment is live: no episode is run for a picture")
        return record_episode(self.policy, self.task.env_id, self.task.training_arguments(), VIDEO_SEED)

    def plots(self) -> Iterator[Plot]:
        """Every picture, one after the other; what cannot be drawn says why and ends nothing."""
        drawings: dict[str, Callable[[], str]] = {
            "learning_curve.svg": self.learning_curve,
            "action_probabilities.svg": self.action_probabilities,
            "action_shares.svg": self.action_shares,
            "policy_map.svg": self.policy_map,
        }
        if ALGORITHMS[self.config.algorithm].policy_kind == "table":
            drawings["q_table.svg"] = self.q_table
        if self.config.env.takes_workload:
            drawings["playback.svg"] = self.playback
            drawings["workload.svg"] = self.workload
        for name, draw in drawings.items():
            try:
                yield Plot(name, draw())
            except Exception as error:  # noqa: BLE001 - whatever a damaged file or somebody's environment raises
                reason = str(error) if isinstance(error, ScalepilotError) else f"{type(error).__name__}: {error}"
                yield Plot(name, None, reason.splitlines()[0][:200] if reason else type(error).__name__)

    def learning_curve(self) -> str:
        """Training and validation over environment steps; the test of the kept policy as a band."""
        rows, _ = stored_metrics(self.folder, self.config)
        if not rows:
            raise InputError("no metrics: progress.csv, metrics.parquet and logs/training.log are missing, empty or damaged")
        objective = self.config.env.objective
        return learning_curve(
            rows,
            training=objective.training_metric,
            validation=objective.validation_metric,
            value_label=objective.label,
            title=f"{self.config.name} · {self.config.algorithm} on {self.config.env.id.rpartition('/')[2]}",
            test=_test_interval(self.comparison),
        )

    def action_probabilities(self) -> str:
        """What the policy thinks of each action along an episode."""
        picture = action_chart(self.recording, self.policy.spec)
        if picture is None:
            raise InputError("the policy scores no actions (its action is a number)")
        return picture

    def action_shares(self) -> str:
        """How often it takes each."""
        picture = action_bars(self.recording, self.policy.spec)
        if picture is None:
            raise InputError("the policy has no action table (its action is a number)")
        return picture

    def policy_map(self) -> str:
        """What it does over two fields, the others as they were in a typical moment of the episode."""
        seen = self.recording.observation
        fields = None if seen is None else self.fields or telling_fields(self.policy, seen)
        if seen is None or fields is None:
            what = "looks at images" if self.policy.spec.image is not None else "sees a single number"
            raise InputError(f"the policy {what}: there are no two fields to map")
        found = policy_map(self.policy, *fields, base=typical_observation(seen), ranges=observed_ranges(self.policy, seen))
        names = [f.name for f in self.policy.spec.observation_fields]
        visited = None
        if fields[0] in names and fields[1] in names:
            visited = seen[:, [names.index(name) for name in fields]].astype(np.float64)
        elif f"{fields[0]}_0" in names and fields[1] in names:
            visited = seen[:, [names.index(f"{fields[0]}_0"), names.index(fields[1])]].astype(np.float64)
        return policy_map_picture(found, f"{self.policy.spec.name}: what it does in which state", visited)

    def q_table(self) -> str:
        """Greedy action and value of each state."""
        if not isinstance(self.policy, TablePolicy):
            raise InputError("the policy is no table")
        return q_table_svg(self.policy)

    def workload(self) -> str:
        """The traffic of training, validation and test."""
        interval = self.config.autoscale.params.interval_seconds
        parts: dict[str, Part] = {"training": "train", "validation": "validation", "test": "test"}
        series = {name: part_of(self.config.workload, part, interval) for name, part in parts.items()}
        return workload_picture(series, f"{self.config.name}: the traffic, cut by time")

    def playback(self) -> str:
        """The window of the test that is played back."""
        picture = playback_chart(self.comparison) if self.comparison is not None else None
        if picture is None:
            raise InputError("the run has no evaluation yet, or one without a window played back")
        return picture


def draw_run(config: ExperimentConfig, folder: RunFolder, task: Task, comparison: Comparison | None = None) -> None:
    """Draw what the run has so far into plots/ and videos/; what cannot be drawn is logged and ends nothing.

    Args:
        config: the experiment.
        folder: its run.
        task: what it trains on.
        comparison: the judgement, where there is one.
    """
    try:
        folder.plots.mkdir(exist_ok=True)
        pictures = RunPictures(config, folder, lambda: task, comparison)
        for plot in pictures.plots():
            if plot.svg is None:
                logger.info("no plots/%s: %s", plot.name, plot.reason)
            else:
                write_bytes(folder.plots / plot.name, plot.svg.encode())
        if folder.policy.exists() and config.evaluation.videos and can_be_filmed(task):
            folder.videos.mkdir(exist_ok=True)
            film(task, pictures.policy, folder.videos / "policy.gif")
    except Exception:
        logger.exception("pictures: not all could be drawn")


def _test_interval(comparison: Comparison | None) -> Interval | None:
    """What the test episodes say of the kept policy."""
    policy = None if comparison is None else comparison.own
    return None if comparison is None or policy is None else comparison.figure(policy.name)
