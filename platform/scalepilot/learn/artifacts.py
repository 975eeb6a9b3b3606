"""The policies that a run leaves, as artifacts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalepilot.learn.task import Task, parity_observations
from scalepilot.learn.trainer import Snapshot, Trainer
from scalepilot.policy import PolicySpec, save_policy
from scalepilot.runs.folder import RunFolder

_PARITY_OBSERVATIONS = 1000


@dataclass(frozen=True)
class Left:
    """One of them.

    Attributes:
        path: where to.
        snapshot: the policy.
        env_steps: where training stood.
        value: what validation said; None if it was not asked.
    """

    path: Path
    snapshot: Snapshot
    env_steps: int
    value: float | None


def write_policies(task: Task, folder: RunFolder, spec: PolicySpec, several: tuple[Left, ...], trainer: Trainer) -> None:
    """Write policies as artifacts.

    Args:
        task: what they were trained on.
        folder: the run's.
        spec: what they say of themselves.
        several: the policies.
        trainer: that made them.

    Raises:
        RunError: they cannot be written, or decide otherwise than what was trained.
    """
    observations = parity_observations(task, task.env_id, _PARITY_OBSERVATIONS)
    for left in several:
        provenance: dict[str, Any] = {**spec.provenance, "env_steps": left.env_steps, task.value_metric: left.value}
        if "init" in provenance:
            provenance["init"] = {**provenance["init"], "unchanged": not left.env_steps}
        if (scale := getattr(trainer, "reward_scale", 1.0)) != 1.0:
            provenance["reward_scale"] = scale
        exported = left.snapshot.exported(replace(spec, provenance=provenance), observations)
        try:
            save_policy(exported, left.path)
        except OSError as error:
            raise folder.cannot_write(left.path, error) from error
