"""Weights & Biases and MLflow: optional, imported when asked for, never a reason for a run to end."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from scalepilot.config.running import TrackingConfig
from scalepilot.errors import ConfigError
from scalepilot.files.atomic import write_json
from scalepilot.files.stored import read_mapping
from scalepilot.learn.callbacks.base import Callback, PolicyNow, Row

Import = Callable[[str], Any]
# Each row is a request to a server: a fast run would wait for them.
_EVERY_SECONDS = 1.0
_MLFLOW_FILE = "mlflow.json"
# MLflow refuses longer values.
_MAX_PARAMETER = 500


class Named(Protocol):
    """What a tracker says of what is run: an experiment, or a controller."""

    @property
    def name(self) -> str:
        """Of the group of runs."""
        ...

    def to_mapping(self) -> dict[str, Any]:
        """Its settings as plain data."""
        ...


def check_tracking(
    tracking: TrackingConfig, found: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None
) -> None:
    """Refuse to begin a run whose tracker is not installed.

    Raises:
        ConfigError: naming the package.
    """
    for key, value, package in (
        ("wandb_project", tracking.wandb_project, "wandb"),
        ("mlflow_experiment", tracking.mlflow_experiment, "mlflow"),
    ):
        if value is not None and not found(package):
            raise ConfigError(f"tracking.{key}: {package} is not installed; pip install {package}, or leave the key out")


def trackers(config: Named, tracking: TrackingConfig, run: Path, load: Import = importlib.import_module) -> list[Tracker]:
    """The trackers that a configuration asks for.

    Args:
        config: the experiment.
        tracking: which.
        run: its folder.
        load: imports a module by name.
    """
    found = list[Tracker]()
    if tracking.wandb_project is not None:
        found.append(WandB(tracking.wandb_project, config, run, load))
    if tracking.mlflow_experiment is not None:
        found.append(MLflow(tracking.mlflow_experiment, config, run, load))
    return found


class Tracker(Callback):
    """A service that keeps metrics of many runs.

    Args:
        project: there.
        config: the experiment.
        run: its folder.
        load: imports a module by name.
    """

    def __init__(self, project: str, config: Named, run: Path, load: Import) -> None:
        self.project, self.config, self.run, self.load = project, config, run, load
        self._sent = 0.0

    def on_iteration(self, row: Row, policy: PolicyNow) -> None:
        """Send what was validated, and else a row a second."""
        validated = any(value is not None for name, value in row.items() if name.startswith("validation_"))
        if not validated and time.monotonic() - self._sent < _EVERY_SECONDS:
            return
        self._sent = time.monotonic()
        self.send({name: value for name, value in row.items() if value is not None}, int(row["env_steps"] or 0))

    def on_decision(self, env_steps: int, row: Mapping[str, float]) -> None:
        """Send every step on a live environment, which takes its time."""
        self.send(row, env_steps)

    def send(self, metrics: Mapping[str, float], env_steps: int) -> None:
        """Hand over one row."""
        raise NotImplementedError


class WandB(Tracker):
    """Weights & Biases; WANDB_API_KEY, WANDB_MODE and so on are its own."""

    def on_begin(self, env_steps: int) -> None:
        """Begin a run there, or go on with it."""
        # Its ids allow few characters; a resumed folder has the same id.
        identity = re.sub(r"[^A-Za-z0-9_-]", "-", f"{self.config.name}-{self.run.name}")
        self._run = self.load("wandb").init(
            project=self.project,
            name=self.run.name,
            id=identity,
            group=self.config.name,
            dir=str(self.run),
            config=self.config.to_mapping(),
            resume="allow",
        )

    def send(self, metrics: Mapping[str, float], env_steps: int) -> None:
        """Log."""
        self._run.log(dict(metrics), step=env_steps)

    def on_end(self, finished: bool) -> None:
        """Upload what is left."""
        self._run.finish(exit_code=0 if finished else 1)


class MLflow(Tracker):
    """MLflow; MLFLOW_TRACKING_URI and so on are its own."""

    def on_begin(self, env_steps: int) -> None:
        """Begin a run there, or go on with it."""
        self._mlflow = self.load("mlflow")
        self._mlflow.set_experiment(self.project)
        file = self.run / _MLFLOW_FILE
        known = str(read_mapping(file).get("run_id", "")) or None if os.path.lexists(file) else None
        self._run = self._mlflow.start_run(run_id=known, run_name=None if known else f"{self.config.name}/{self.run.name}")
        if known is None:
            write_json(file, {"run_id": self._run.info.run_id})
            self._mlflow.log_params(_flat(self.config.to_mapping()))

    def send(self, metrics: Mapping[str, float], env_steps: int) -> None:
        """Log."""
        self._mlflow.log_metrics(dict(metrics), step=env_steps)

    def on_end(self, finished: bool) -> None:
        """Say how it ended."""
        self._mlflow.end_run("FINISHED" if finished else "KILLED")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"ppo": {"lr": …}} as {"ppo.lr": "…"}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": str(value)[:_MAX_PARAMETER]}
    return flat
