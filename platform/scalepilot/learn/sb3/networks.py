"""Our encoder and normaliser as Stable-Baselines3's feature extractor, and what acts as our network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from scalepilot.learn.encoder import RunningNormaliser, ScoresNetwork, make_encoder


class EncodedFeatures(BaseFeaturesExtractor):
    """Raw rows → encoded, normalised features. It has no weights; its statistics change between updates only.

    Args:
        observation_space: of rows.
        inputs: what `make_encoder` takes.
    """

    def __init__(self, observation_space: gym.spaces.Box, inputs: Mapping[str, Any]) -> None:
        encoder = make_encoder(inputs)
        super().__init__(observation_space, encoder.num_features)
        self.encoder, self.normaliser = encoder, RunningNormaliser(encoder.num_features)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(n, num_fields) → (n, num_features)."""
        features: torch.Tensor = self.normaliser(self.encoder(observation))
        return features

    @torch.no_grad()
    def learn_statistics(self, observation: torch.Tensor) -> None:
        """Fold raw rows (n, num_fields) into the normaliser."""
        self.normaliser.update(self.encoder(observation))


def scores_network(features: EncodedFeatures, *layers: torch.nn.Module) -> ScoresNetwork:
    """A copy on the CPU of an extractor and the layers behind it: what is exported."""
    network = ScoresNetwork(features.encoder, features.normaliser, torch.nn.Sequential(*layers))
    return copy.deepcopy(network).cpu()
