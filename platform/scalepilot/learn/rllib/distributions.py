"""How a network's outputs become actions: drawn for a whole rollout with noise made beforehand, and judged in the loss."""

from __future__ import annotations

import math
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class Distribution(Protocol):
    """Of actions; `inputs` (…, num_inputs) come from the network."""

    num_inputs: int

    def noise(self, num_steps: int, num_envs: int, generator: torch.Generator) -> torch.Tensor:
        """Everything random of a rollout: (num_steps, num_envs, …)."""
        ...

    def draw(self, inputs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Actions (n,) or (n, k) for inputs (n, num_inputs) and the noise of one step."""
        ...

    def to_env(self, action: NDArray[Any]) -> NDArray[Any]:
        """Drawn actions as the environment takes them."""
        ...

    def judge(self, inputs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of the actions drawn and entropy, each (…,)."""
        ...


class Categorical:
    """Numbered actions; the inputs are logits.

    Args:
        space: of one environment.
    """

    def __init__(self, space: gym.spaces.Discrete[Any]) -> None:
        self.num_inputs = int(space.n)

    def noise(self, num_steps: int, num_envs: int, generator: torch.Generator) -> torch.Tensor:
        """For the Gumbel-max trick: an argmax a step instead of distribution objects."""
        return torch.empty((num_steps, num_envs, self.num_inputs)).exponential_(generator=generator).log_()

    def draw(self, inputs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """(n,) indices."""
        return (inputs - noise).argmax(dim=-1)

    def to_env(self, action: NDArray[Any]) -> NDArray[Any]:
        """The same."""
        return action

    def judge(self, inputs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Distribution`."""
        log_probabilities = torch.log_softmax(inputs, dim=-1)
        taken = log_probabilities.gather(-1, action[..., None]).squeeze(-1)
        return taken, -(log_probabilities.exp() * log_probabilities).sum(dim=-1)


class DiagonalGaussian:
    """Continuous actions; the inputs are k means and k logarithms of deviations, in units in which the bounds are ± 1.

    What is drawn may lie beyond the bounds: it is cut only on its way to the environment; its probability is that of the draw.

    Args:
        space: of one environment, (k,) with finite bounds.
    """

    def __init__(self, space: gym.spaces.Box) -> None:
        self.num_inputs = 2 * space.shape[0]
        self._space = space

    def noise(self, num_steps: int, num_envs: int, generator: torch.Generator) -> torch.Tensor:
        """Standard normal (num_steps, num_envs, k)."""
        return torch.randn((num_steps, num_envs, self.num_inputs // 2), generator=generator)

    def draw(self, inputs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """(n, k)."""
        mean, log_deviation = inputs.chunk(2, dim=-1)
        return torch.addcmul(mean, log_deviation.exp(), noise)

    def to_env(self, action: NDArray[Any]) -> NDArray[Any]:
        """Cut at ± 1 and stretched over the bounds."""
        low, high = self._space.low, self._space.high
        stretched: NDArray[Any] = (low + (np.clip(action, -1.0, 1.0) + 1.0) * (0.5 * (high - low))).astype(self._space.dtype)
        return stretched

    def judge(self, inputs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Distribution`."""
        mean, log_deviation = inputs.chunk(2, dim=-1)
        distance = (action - mean) * torch.exp(-log_deviation)
        log_probability = (-0.5 * distance.square() - log_deviation - _HALF_LOG_2PI).sum(dim=-1)
        return log_probability, (log_deviation + 0.5 + _HALF_LOG_2PI).sum(dim=-1)


def distribution_of(space: gym.Space[Any]) -> Distribution:
    """The distribution over an action space, Discrete or Box."""
    if isinstance(space, gym.spaces.Box):
        return DiagonalGaussian(space)
    assert isinstance(space, gym.spaces.Discrete)
    return Categorical(space)
