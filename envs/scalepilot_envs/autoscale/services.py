"""Constants in which one service differs from another: the same for all environments of a batch, or drawn for each episode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.params import AutoscaleParams, ServiceRanges

Array = NDArray[np.float64]


class Services:
    """The constants of `num_envs` services, under the names of `AutoscaleParams`; those that may differ are (num_envs,) arrays.

    Args:
        params: what holds until others are drawn.
        num_envs: services.
    """

    _DRAWN = (
        "interval_seconds",
        "replica_capacity_rps",
        "startup_seconds",
        "wait_slo_seconds",
        "price_per_late_request",
        "min_replicas",
        "max_replicas",
    )

    def __init__(self, params: AutoscaleParams, num_envs: int) -> None:
        self._params = params
        self._values = {name: np.full(num_envs, float(getattr(params, name))) for name in self._DRAWN}
        self.multiple = np.ones(num_envs, dtype=np.int64)

    def __getattr__(self, name: str) -> Any:
        # While it is unpickled or copied there is nothing to look into yet.
        if "_params" not in self.__dict__:
            raise AttributeError(name)
        values = self.__dict__.get("_values", {})
        return values[name] if name in values else getattr(self.__dict__["_params"], name)

    def of(self, columns: NDArray[np.intp]) -> Services:
        """The constants of copies of services `columns`, (n,)."""
        copies = Services(self._params, len(columns))
        copies._values = {name: values[columns] for name, values in self._values.items()}
        copies.multiple = self.multiple[columns]
        return copies

    def draw(self, index: int, ranges: ServiceRanges, rng: np.random.Generator) -> None:
        """Draw the constants of one service; the number of draws does not depend on what is asked for."""
        for name in self._DRAWN:
            share = rng.random()
            if name == "interval_seconds":
                low, high = ranges.interval_multiples or (1, 1)
                # Whole numbers, each as likely as its share of the logarithmic scale.
                self.multiple[index] = min(high, int(low * ((high + 1) / low) ** share))
                self._values[name][index] = self._params.interval_seconds * self.multiple[index]
                continue
            drawn = getattr(ranges, name)
            if drawn is None:
                continue
            value = drawn[0] * (drawn[1] / drawn[0]) ** share
            self._values[name][index] = round(value) if name.endswith("_replicas") else value

    def one(self, index: int) -> AutoscaleParams:
        """The constants of one service, as numbers under the names of `AutoscaleParams`."""
        own: dict[str, Any] = {name: _plain(name, values[index]) for name, values in self._values.items()}
        return replace(self._params, **own)

    def restore(self, mask: NDArray[np.bool_]) -> None:
        """Make the services where `mask` is true the parameters' own."""
        for name, values in self._values.items():
            values[mask] = getattr(self._params, name)
        self.multiple[mask] = 1


def _plain(name: str, value: float) -> float | int:
    return int(value) if name.endswith("_replicas") else float(value)
