"""Which device learns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scalepilot.config.running import ResourcesConfig
from scalepilot.errors import InputError


@dataclass(frozen=True)
class LearnerDevice:
    """Where a learner computes.

    Attributes:
        name: cuda, mps or cpu.
        num_gpus: of each learner; 0 unless the name is cuda.
        reason: why, and what else there is, in a line.
    """

    name: str
    num_gpus: float
    reason: str


def choose_device(resources: ResourcesConfig, cluster_gpus: float | None = None) -> LearnerDevice:
    """The device that was asked for, or the best for `auto`: CUDA where there is enough of it, else the CPU.

    Args:
        resources: what was asked for.
        cluster_gpus: GPUs that remote learners may get; None where they run on this machine.

    Raises:
        InputError: what was asked for is not there.
    """
    there = float(torch.cuda.device_count()) if cluster_gpus is None or not resources.num_learners else cluster_gpus
    where = "the cluster" if cluster_gpus is not None and resources.num_learners else "this machine"
    wanted, device = resources.num_gpus_per_learner, resources.device
    each = wanted or float(device in ("auto", "cuda"))
    needed = each * max(1, resources.num_learners)
    if wanted and there < needed:
        has = f"{there:g} CUDA GPUs" if there else "no CUDA GPU"
        allowed = f"0 to {there / max(1, resources.num_learners):g}" if there else "0"
        raise InputError(f"resources.num_gpus_per_learner: {wanted:g} is not allowed, {where} has {has}; allowed: {allowed}")
    if device == "cuda" and there < needed:
        has = f"{there:g} CUDA GPUs for {needed:g} learners" if there else "no CUDA GPU"
        raise InputError(f"resources.device: cuda is not allowed, {where} has {has}; allowed: {_others('cuda')}")
    if device == "mps" and not torch.backends.mps.is_available():
        raise InputError(
            f"resources.device: mps is not allowed, {where} has no Apple GPU that torch can use; allowed: {_others('mps')}"
        )
    if device == "auto":
        device = "cuda" if there >= needed else "cpu"
    reason = f"learning on {device}{' by choice' if resources.device != 'auto' else ''}; {where} also has {_others(device)}"
    return LearnerDevice(device, each if device == "cuda" else 0.0, reason)


def _others(device: str) -> str:
    """The devices besides one that torch can use here, and the choice `auto`."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return ", ".join(name for name, usable in there.items() if usable and name != device) or "nothing else"


def describe_devices() -> str:
    """What torch sees, and what `device: auto` takes of it."""
    parts = [f"CPU, {torch.get_num_threads()} threads"]
    parts += [f"CUDA {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        parts.append("MPS (only by `resources.device: mps`)")
    return "; ".join(parts)
