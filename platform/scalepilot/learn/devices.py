"""Which device learns."""

from __future__ import annotations

import torch

from scalepilot.errors import InputError


def check_gpus(num_gpus: float) -> None:
    """Refuse to train without the GPUs that were asked for.

    Raises:
        InputError: some were, and this machine has none.
    """
    if num_gpus and not torch.cuda.is_available():
        raise InputError(f"resources.num_gpus_per_learner: {num_gpus:g} is not allowed, this machine has no CUDA GPU; allowed: 0")


def describe_devices() -> str:
    """What torch sees, and what training uses: CUDA where a learner is given a GPU, else the CPU."""
    parts = [f"CPU, {torch.get_num_threads()} threads"]
    parts += [f"CUDA {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        parts.append("MPS (not used)")
    return "; ".join(parts)
