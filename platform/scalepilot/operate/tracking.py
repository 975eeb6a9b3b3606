"""What a controller tells TensorBoard, Weights & Biases and MLflow of every decision. None of it is a reason to stop."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scalepilot.config.running import TrackingConfig
from scalepilot.errors import ConfigError
from scalepilot.files.ownership import private_folder
from scalepilot.learn.callbacks import Beside, Callback, LivePlots, TensorBoard, check_tracking, trackers
from scalepilot.operate.ledger import Entry
from scalepilot.operate.numbers import numbers_of

# The next leader waits until this one has ended.
_END_SECONDS = 5.0
_LOG = logging.getLogger("scalepilot.operate")


@dataclass(frozen=True)
class OperateTracking(TrackingConfig):
    """Keys of `tracking`.

    Attributes:
        tensorboard: whether decisions are written for TensorBoard (`pip install tensorboard`), into `tracking` in the folder of
            records.
    """

    tensorboard: bool = False


@dataclass(frozen=True)
class _Controlled:
    """What is tracked: the name and settings of a controller."""

    name: str
    settings: dict[str, Any]

    def to_mapping(self) -> dict[str, Any]:
        """The settings."""
        return self.settings


@contextlib.contextmanager
def tracked(tracking: OperateTracking, name: str, settings: dict[str, Any], records: Path) -> Iterator[Callable[[Entry], None]]:
    """Follow a controller for the length of a `with` block.

    Args:
        tracking: where to.
        name: of the policy and what it runs.
        settings: of the configuration.
        records: folder of the decisions; `tracking` in it gets the files of each start, and `plots` the newest plot.

    Yields:
        What is to be told of each decision.

    Raises:
        ConfigError: a tracker is not installed.
    """
    check_tracking(tracking)
    if tracking.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("tracking.tensorboard: tensorboard is not installed; pip install tensorboard, or leave the key out")
    wanted = tracking.tensorboard or tracking.wandb_project is not None or tracking.mlflow_experiment is not None
    if not wanted:
        yield lambda entry: None
        return
    # A run of its own there for every start: its steps count from 1.
    folder = private_folder(private_folder(records / "tracking") / time.strftime("%Y%m%d-%H%M%S"))
    callbacks: list[Callback] = [*trackers(_Controlled(name, settings), tracking, folder)]
    if tracking.tensorboard:
        callbacks.append(TensorBoard(folder / "tensorboard"))
    if tracking.plot_decisions:
        # The charts take a moment to import, and are wanted here alone.
        from scalepilot.report.charts.live_chart import live_chart

        callbacks.append(LivePlots(records / "plots" / "live.svg", tracking.plot_decisions, partial(live_chart, title=name)))
    followers = [Beside(callback, _LOG.warning, _END_SECONDS) for callback in callbacks]
    decisions = 0

    def told(entry: Entry) -> None:
        nonlocal decisions
        decisions += 1
        row = numbers_of(entry)
        for callback in followers:
            callback.on_decision(decisions, row)

    for callback in followers:
        callback.on_begin(0)
    try:
        yield told
    finally:
        for callback in followers:
            callback.on_end(True)
