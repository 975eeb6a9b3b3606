"""The actor-critic network as RLlib's module: encoder, normaliser, policy head, value head."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

from scalepilot.learn.encoder import RunningNormaliser, ScoresNetwork, make_encoder, mlp
from scalepilot.learn.rllib.advantages import AdvantageScale

# Column that holds features already encoded and normalised: the learner computes them once an update, not once a minibatch.
FEATURES = "features"
_POLICY_GAIN, _VALUE_GAIN = 0.01, 1.0


class ActorCriticModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):
    """Policy and value networks apart, behind one encoder without weights.

    `model_config`: what `make_encoder` takes, and "hidden": […].
    """

    def setup(self) -> None:
        """Build the networks."""
        config = self.model_config
        self.encoder = make_encoder(config)
        self.normaliser = RunningNormaliser(self.encoder.num_features)
        self.policy_head = mlp(self.encoder.num_features, config["hidden"], int(self.action_space.n), _POLICY_GAIN)
        self.value_head = mlp(self.encoder.num_features, config["hidden"], 1, _VALUE_GAIN)
        self.advantage_scale = AdvantageScale()

    def get_non_inference_attributes(self) -> list[str]:
        """What env runners do without."""
        return ["value_head", "advantage_scale"]

    def features(self, batch: dict[str, Any]) -> torch.Tensor:
        """(n, num_features): those given, or from the raw observations."""
        given: torch.Tensor | None = batch.get(FEATURES)
        if given is not None:
            return given
        features: torch.Tensor = self.normaliser(self.encoder(batch[Columns.OBS]))
        return features

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy_head(self.features(batch))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """(n,) state values."""
        values: torch.Tensor = self.value_head(self.features(batch))
        return values.squeeze(-1)

    def scores_network(self) -> ScoresNetwork:
        """The part that acts."""
        return ScoresNetwork(self.encoder, self.normaliser, self.policy_head)
