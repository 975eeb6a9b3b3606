"""The Q-network as RLlib's module: encoder, normaliser, head, and the head's older copy that values targets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from scalepilot.learn.encoder import ScoresNetwork, Unchanged, make_encoder, make_normaliser, masked, valid_of
from scalepilot.learn.images import ImageEncoder


def relu_layers(num_inputs: int, hidden: Sequence[int]) -> list[nn.Module]:
    """Linear layers, each before a ReLU, with torch's own initial weights."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(num_inputs, width), nn.ReLU()]
        num_inputs = width
    return layers


class DuelingHead(nn.Module):
    """Features → Q-values as state value + advantage − mean advantage; the last hidden layer is apart for both.

    Args:
        num_inputs: features.
        hidden: units of the hidden layers.
        num_actions: Q-values.

    Source:
        Wang et al., "Dueling network architectures for deep reinforcement learning" (2016), eq. 9.
    """

    def __init__(self, num_inputs: int, hidden: Sequence[int], num_actions: int) -> None:
        super().__init__()
        # Both streams' hidden layers side by side are one product.
        self.trunk = nn.Sequential(*relu_layers(num_inputs, [*hidden[:-1], 2 * hidden[-1]]))
        self.width = hidden[-1]
        self.value, self.advantage = nn.Linear(hidden[-1], 1), nn.Linear(hidden[-1], num_actions)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(…, num_features) → (…, num_actions)."""
        units = self.trunk(features)
        value: torch.Tensor = self.value(units[..., : self.width])
        advantage: torch.Tensor = self.advantage(units[..., self.width :])
        return value + advantage - advantage.mean(dim=-1, keepdim=True)


def q_head(num_inputs: int, hidden: Sequence[int], num_actions: int, *, dueling: bool) -> nn.Module:
    """Features (n, num_inputs) → Q-values (n, num_actions)."""
    if dueling:
        return DuelingHead(num_inputs, hidden, num_actions)
    return nn.Sequential(*relu_layers(num_inputs, hidden), nn.Linear(hidden[-1], num_actions))


class QModule(TorchRLModule, InferenceOnlyAPI):
    """A Q-network behind an encoder without weights; on images, the learning encoder is part of the head and of its older copy.

    `model_config`: what `make_encoder` takes, "hidden": […] and "dueling": true or false.
    """

    def setup(self) -> None:
        """Build the networks."""
        config = self.model_config
        encoder = make_encoder({**config, "hidden": ()})
        head = q_head(encoder.num_features, config["hidden"], int(self.action_space.n), dueling=bool(config["dueling"]))
        learns = isinstance(encoder, ImageEncoder)
        self.normaliser = make_normaliser(encoder)
        self.encoder: nn.Module = Unchanged() if learns else encoder
        self.q_head: nn.Module = nn.Sequential(encoder, head) if learns else head
        self.num_masked = int(config.get("num_masked", 0))
        self.target_head = copy.deepcopy(self.q_head).requires_grad_(False)

    def get_non_inference_attributes(self) -> list[str]:
        """What env runners do without."""
        return ["target_head"]

    def features(self, observation: torch.Tensor) -> torch.Tensor:
        """(n, *shape) raw observations → (n, num_features), encoded and normalised."""
        features: torch.Tensor = self.normaliser(self.encoder(observation))
        return features

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.valid(self.q_head(self.features(batch[Columns.OBS])), batch[Columns.OBS])}

    def valid(self, q_values: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        """Q-values (n, num_actions) with those of actions that are not valid in (n, *shape) beyond choice."""
        return masked(q_values, valid_of(observation, self.num_masked)) if self.num_masked else q_values

    def scores_network(self) -> ScoresNetwork:
        """The part that acts."""
        return ScoresNetwork(self.encoder, self.normaliser, self.q_head, num_masked=self.num_masked)
