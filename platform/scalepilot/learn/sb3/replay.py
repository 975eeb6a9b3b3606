"""Stable-Baselines3's replay buffer as plain arrays: resuming needs it, and its own pickle would run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.files.stored import read_arrays

_COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
# A million transitions of a hundred fields, twice.
_MOST_BYTES = 2_000_000_000


def save_replay(buffer: Any, file: Path) -> None:
    """Write what is filled."""
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: getattr(buffer, name)[:filled] for name in _COLUMNS}
    np.savez(file, position=np.array([buffer.pos, int(buffer.full)]), **arrays)


def load_replay(buffer: Any, file: Path) -> None:
    """Read it back into a buffer of the same size.

    Raises:
        ValueError: it was larger.
    """
    stored = read_arrays(file, _MOST_BYTES)
    for name in _COLUMNS:
        column = getattr(buffer, name)
        if len(stored[name]) > len(column):
            raise ValueError(f"{file}: {len(stored[name])} transitions; allowed: up to {len(column)}, dqn.buffer_size")
        column[: len(stored[name])] = stored[name]
    position, full = stored["position"].tolist()
    buffer.pos, buffer.full = int(position), bool(full)


def newest_observations(buffer: Any, steps: int) -> NDArray[np.float32]:
    """(steps × num_envs, num_fields) of the last `steps` steps."""
    rows = (buffer.pos - 1 - np.arange(min(steps, buffer.buffer_size))) % buffer.buffer_size
    observations: NDArray[np.float32] = buffer.observations[rows]
    return observations.reshape(-1, observations.shape[-1])
