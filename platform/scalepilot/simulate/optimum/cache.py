"""Optima found before, one file an episode, in a folder the caller names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.files.atomic import replaced_file
from scalepilot.files.stored import read_arrays
from scalepilot.simulate.optimum.ready_replicas import BACKLOG_POINTS, ReadyPlan
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.params import VIEW_PARAMS

Array = NDArray[np.float64]

# To be raised with every change of `ready_replicas` that changes a bound or a plan.
ALGORITHM_VERSION = 1
# What is shown to a policy and how it is rewarded costs a service nothing; what is stored is planned without an actuation lag.
_WITHOUT_A_PRICE = (
    *VIEW_PARAMS,
    *("metric_lag_steps", "actuation_lag_steps", "reward_per_currency"),
)


def cache_key(params: AutoscaleParams, arrived: Array, first_rate_rps: float) -> str:
    """What an optimum depends on, as 64 hexadecimal digits.

    Args:
        params: the service.
        arrived: (num_steps,) requests.
        first_rate_rps: the rate that the simulator's reset sees.
    """
    physics = {name: value for name, value in asdict(params).items() if name not in _WITHOUT_A_PRICE}
    description = {
        "algorithm": [ALGORITHM_VERSION, BACKLOG_POINTS],
        "params": physics,
        "first_rate_rps": float(first_rate_rps),
        "num_steps": len(arrived),
    }
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(arrived, dtype="<f8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class OptimumCache:
    """Files `KEY.npz` in a folder, made when the first is stored. Processes may share it: files are renamed into place."""

    folder: Path

    def load(self, key: str, num_steps: int) -> ReadyPlan | None:
        """The plan stored under a key; None where there is none, or a file that holds something else.

        Args:
            key: of `cache_key`.
            num_steps: length of its plan.
        """
        try:
            arrays = read_arrays(self.folder / f"{key}.npz")
            lower, upper, ready = (arrays[name] for name in ("lower_J", "upper_J", "ready"))
        except (InputError, KeyError):
            return None
        numbers = all(array.dtype.kind in "fiu" and np.isfinite(array).all() for array in (lower, upper, ready))
        if not numbers or (lower.shape, upper.shape, ready.shape) != ((), (), (num_steps,)):
            return None
        if (ready < 1).any() or lower > upper:
            return None
        return ReadyPlan(float(lower), float(upper), ready.astype(np.float64))

    def store(self, key: str, plan: ReadyPlan) -> None:
        """Write a plan, aside first and then renamed.

        Args:
            key: of `cache_key`.
            plan: of one episode.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with replaced_file(self.folder / f"{key}.npz") as aside, aside.open("wb") as file:
            np.savez(file, lower_J=plan.lower_J, upper_J=plan.upper_J, ready=plan.ready.astype(np.int32))
