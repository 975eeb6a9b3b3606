"""A copied network as a `Snapshot`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scalepilot.learn.encoder import ScoresNetwork
from scalepilot.learn.export import TorchPolicy, exported_policy
from scalepilot.policy import Policy, PolicySpec


class NetworkSnapshot:
    """A copied network, raw observation → scores, on the CPU."""

    def __init__(self, network: ScoresNetwork) -> None:
        self.network = network

    def policy(self, spec: PolicySpec) -> Policy:
        """The network itself."""
        return TorchPolicy(spec, self.network)

    def exported(self, spec: PolicySpec, observations: NDArray[np.float32]) -> Policy:
        """As one ONNX file."""
        return exported_policy(spec, self.network, observations)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights, normaliser included."""
        return {name: value.numpy() for name, value in self.network.state_dict().items()}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Weights back."""
        self.network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
