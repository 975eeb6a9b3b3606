"""The generators Stable-Baselines3 draws from, which are global ones, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalepilot.files.atomic import write_json
from scalepilot.files.stored import read_mapping


def save_randomness(model: Any, file: Path) -> None:
    """Write the states of torch's and numpy's global generators and of the action space's own."""
    name, keys, *rest = tuple[Any, ...](np.random.get_state(legacy=True))  # noqa: NPY002 - theirs
    state = {
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "numpy": [name, keys.tolist(), *rest],
        "action_space": model.action_space.np_random.bit_generator.state,
    }
    if model.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(model.device).numpy().tobytes().hex()
    write_json(file, state)


def load_randomness(model: Any, file: Path) -> None:
    """Draw on from what `save_randomness` wrote."""
    state = read_mapping(file, any_whole=True)
    torch.set_rng_state(_bytes(state["torch"]))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002 - theirs
    model.action_space.np_random.bit_generator.state = state["action_space"]
    if "cuda" in state and model.device.type == "cuda":
        torch.cuda.set_rng_state(_bytes(state["cuda"]), model.device)


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
