"""The actor-critic network as RLlib's module: encoder, normaliser, policy head, value head."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from scalepilot.learn.encoder import BoxOutput, ScoresNetwork, make_encoder, make_normaliser, masked, mlp, valid_of
from scalepilot.learn.images import ImageEncoder
from scalepilot.learn.rllib.advantages import AdvantageScale

# Column that holds features already encoded and normalised: the learner computes them once an update, not once a minibatch.
FEATURES = "features"
# Column beside it: which actions are valid, (n, num_actions) bool.
VALID_ACTIONS = "valid_actions"
_POLICY_GAIN, _VALUE_GAIN = 0.01, 1.0


class ActorCriticModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):
    """Policy and value networks apart, behind one encoder without weights; on images, linear heads behind one that learns.

    `model_config`: what `make_encoder` takes, and "hidden": […].
    """

    log_deviation: nn.Parameter | None

    def setup(self) -> None:
        """Build the networks."""
        config = self.model_config
        self.encoder = make_encoder(config)
        self.normaliser = make_normaliser(self.encoder)
        box = isinstance(self.action_space, gym.spaces.Box)
        num_outputs = self.action_space.shape[0] if box else int(self.action_space.n)
        hidden = [] if self.learns_features else config["hidden"]
        self.policy_head = mlp(self.encoder.num_features, hidden, num_outputs, _POLICY_GAIN)
        self.log_deviation = nn.Parameter(torch.zeros(num_outputs)) if box else None
        self.value_head = mlp(self.encoder.num_features, hidden, 1, _VALUE_GAIN)
        self.advantage_scale = AdvantageScale()
        self.num_masked = 0 if box else int(config.get("num_masked", 0))

    @property
    def learns_features(self) -> bool:
        """Whether the encoder has weights: then features change with every minibatch."""
        return isinstance(self.encoder, ImageEncoder)

    def gradient_groups(self) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together: policy and value apart, unless they share an encoder."""
        value = list(self.value_head.parameters())
        if self.learns_features:
            return [list(self.parameters())]
        return [[p for p in self.parameters() if not any(p is q for q in value)], value]

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
        return {Columns.ACTION_DIST_INPUTS: self._valid(self._policy(self.features(batch)), batch)}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        # The value of the same minibatch needs the same features.
        features = self.features(batch)
        return {Columns.ACTION_DIST_INPUTS: self._valid(self._policy(features), batch), Columns.EMBEDDINGS: features}

    def _valid(self, outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """Logits of probability 0 where an action is not valid: then neither its log-probability nor the entropy knows it."""
        if not self.num_masked:
            return outputs
        valid = batch.get(VALID_ACTIONS)
        return masked(outputs, valid_of(batch[Columns.OBS], self.num_masked) if valid is None else valid)

    def _policy(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.policy_head(features)
        return outputs if self.log_deviation is None else torch.cat([outputs, self.log_deviation.expand_as(outputs)], dim=-1)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """(n,) state values, from `embeddings` (n, num_features) where they are known."""
        values: torch.Tensor = self.value_head(self.features(batch) if embeddings is None else embeddings)
        return values.squeeze(-1)

    def scores_network(self) -> ScoresNetwork:
        """The part that acts."""
        output = None if self.log_deviation is None else BoxOutput(self.action_space.low, self.action_space.high)
        return ScoresNetwork(self.encoder, self.normaliser, self.policy_head, output, self.num_masked)
