"""Which device learns."""

from __future__ import annotations

import torch


def describe_devices() -> str:
    """What torch sees, and what training uses: CUDA where a learner is given a GPU, else the CPU."""
    parts = [f"CPU, {torch.get_num_threads()} threads"]
    parts += [f"CUDA {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        parts.append("MPS (not used)")
    return "; ".join(parts)
