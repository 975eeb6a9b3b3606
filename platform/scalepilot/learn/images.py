"""Convolutions over image observations, from the environment's bytes to features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from scalepilot.config.sections import CNNS
from scalepilot.policy.spec import IMAGE_SCALE


class ImageEncoder(nn.Module):
    """Values scaled to [0, 1] or so → convolutions → fully connected layers, all before a ReLU.

    Args:
        shape: of one observation.
        axes: what its three axes are; convolutions run over "height" and "width".
        cnn: name in `CNNS`: (filters, kernel, stride) of each convolution.
        hidden: units of the fully connected layers.
        scale: what values are multiplied by, first of all.

    Source:
        nature: Mnih et al., "Human-level control through deep reinforcement learning" (2015); small: Mnih et al., "Playing Atari
        with deep reinforcement learning" (2013).
    """

    def __init__(
        self, shape: Sequence[int], axes: Sequence[str], cnn: str, hidden: Sequence[int], scale: float = IMAGE_SCALE
    ) -> None:
        super().__init__()
        self.scale = scale
        self.shape = tuple(shape)
        order = [i for i, axis in enumerate(axes) if axis not in ("height", "width")]
        self.order = (0, *(1 + i for i in (*order, axes.index("height"), axes.index("width"))))
        channels, height, width = (self.shape[i - 1] for i in self.order[1:])
        layers: list[nn.Module] = []
        for filters, kernel, stride in CNNS[cnn]:
            layers += [_initialised(nn.Conv2d(channels, filters, kernel, stride)), nn.ReLU()]
            channels, height, width = filters, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        layers.append(nn.Flatten())
        self.num_features = channels * height * width
        for units in hidden:
            layers += [_initialised(nn.Linear(self.num_features, units)), nn.ReLU()]
            self.num_features = units
        # On a CPU, channels last takes less than half the time.
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(n, *shape) or flattened (…, size) → (n, num_features) or (…, num_features)."""
        images = observation.reshape(-1, *self.shape).permute(self.order)
        features: torch.Tensor = self.layers(images.to(torch.float32, memory_format=torch.channels_last) * self.scale)
        return features.reshape(*observation.shape[:-1], -1) if observation.shape[-1] == math.prod(self.shape) else features


def _initialised(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.orthogonal_(layer.weight, math.sqrt(2.0))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
