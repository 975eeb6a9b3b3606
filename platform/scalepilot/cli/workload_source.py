"""The workload that a word on the command line names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scalepilot.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from scalepilot_envs.workloads import AnyWorkload


def described(source: str, settings: Sequence[str]) -> AnyWorkload | None:
    """The workload that a kind's name or an experiment's YAML describes; None for a trace's file.

    Args:
        source: as it was typed.
        settings: KEY=VALUE, of the kind or the YAML.

    Raises:
        InputError: neither, or settings where they have no say.
    """
    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        from scalepilot.config import load_config

        return load_config(path, settings).workload
    if path.suffix or path.exists():
        if settings:
            raise InputError(f"--set {settings[0]}: {source} is a trace's file; allowed: with a kind or an experiment's YAML")
        return None

    from scalepilot.config import config_from_mapping
    from scalepilot_envs.workloads import WORKLOADS

    if source not in WORKLOADS:
        hint = did_you_mean(source, WORKLOADS)
        raise InputError(f"{source}: is neither a file nor a kind; allowed: a file, or {', '.join(WORKLOADS)}{hint}")
    for setting in settings:
        if "=" not in setting:
            raise InputError(f"--set {setting}: allowed: key=value, such as num_steps=500")
    overrides = [f"workload.{setting.removeprefix('workload.')}" for setting in settings]
    return config_from_mapping({"workload": {"kind": source}}, overrides, source=source).workload
