"""Advantages of rollouts: generalised, and free of the luck that environments share."""

from __future__ import annotations

import torch
from torch import nn

from scalepilot.learn.rllib import joint

_MIN_ADVANTAGE_STD = 1e-4
_SCALE_DECAY = 0.99


def generalised_advantages(
    reward: torch.Tensor,
    value: torch.Tensor,
    next_value: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    valid: torch.Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> torch.Tensor:
    """Advantages of T steps; a truncation bootstraps from its true last observation, a termination from nothing.

    Args:
        reward: (T, num_envs).
        value: (T, num_envs), of the observations before each step.
        next_value: (T, num_envs), of their true successors, the last observation of an episode included.
        terminated: (T, num_envs) bool.
        truncated: (T, num_envs) bool.
        valid: (T, num_envs) bool; false where the step only reset: its reward and value belong to no transition.
        gamma: discount.
        gae_lambda: λ.

    Returns:
        (T, num_envs), 0 where not valid.

    Source:
        Schulman et al., "High-dimensional continuous control using generalized advantage estimation" (2016), eq. 16.
    """
    bootstrap = gamma * (~terminated).to(value.dtype)
    carry = gamma * gae_lambda * (~(terminated | truncated)).to(value.dtype)
    weight = valid.to(value.dtype)
    delta = (reward + bootstrap * next_value - value) * weight
    advantage = torch.empty_like(reward)
    last = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        # A reset step carries nothing across: what follows it belongs to the next episode.
        last = (delta[t] + carry[t] * last) * weight[t]
        advantage[t] = last
    return advantage


def without_shared_luck(advantage: torch.Tensor, valid: torch.Tensor, envs_per_input: int) -> torch.Tensor:
    """Subtract from each advantage the mean of the others that met the same traffic at the same time.

    Traffic does not depend on actions, so what a flash crowd costs everybody says nothing about anybody's action. The
    baseline is of the others only, which keeps the policy gradient unbiased.

    Args:
        advantage: (T, num_envs); each `envs_per_input` neighbours share their traffic.
        valid: (T, num_envs) bool.
        envs_per_input: size of a group; 1 changes nothing.

    Returns:
        (T, num_envs), 0 where not valid.

    Source:
        Mao et al., "Variance reduction for reinforcement learning in input-driven environments" (ICLR 2019): baselines
        that depend on the input; here its multi-value form, by leaving one out.
    """
    if envs_per_input == 1:
        return advantage
    grouped = (len(advantage), -1, envs_per_input)
    weight = valid.to(advantage.dtype).reshape(grouped)
    values = advantage.reshape(grouped) * weight
    others = weight.sum(dim=2, keepdim=True) - weight
    baseline = (values.sum(dim=2, keepdim=True) - values) / others.clamp_min(1.0)
    return ((values - baseline) * weight).reshape(advantage.shape)


class AdvantageScale(nn.Module):
    """The running size of advantages, as buffers that travel with the weights.

    Dividing each batch by its own deviation, as is usual, makes a quiet hour count as much as a flash crowd that costs a
    hundred times more: the policy then learns to save replicas between crowds. A running deviation keeps proportions.
    """

    variance: torch.Tensor
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("variance", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def normalise(self, advantage: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Zero mean over this batch, unit deviation over the last hundred or so, of all learners.

        Args:
            advantage: (T, num_envs), 0 where not valid.
            valid: (T, num_envs) bool.
        """
        counted = valid.to(advantage.dtype)
        moments = torch.stack([counted.sum(), (advantage * counted).sum(), (advantage.square() * counted).sum()])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(moments)
        count, total, squares = moments
        mean = total / count
        deviation = self._deviation((squares / count - mean.square()).clamp_min(0.0))
        scaled: torch.Tensor = (advantage - mean) / deviation * counted
        return scaled

    @torch.no_grad()
    def follow(self, mean_square: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Scalar deviation over the last hundred batches or so, of all learners, where all actions' advantages are known.

        Args:
            mean_square: (n,) of a state's advantages.
            counts: (n,) bool.
        """
        count, squares = joint.summed(torch.stack([counts.sum().to(mean_square.dtype), (mean_square * counts).sum()]))
        return self._deviation(squares / count.clamp_min(1.0))

    def _deviation(self, batch_variance: torch.Tensor) -> torch.Tensor:
        self.variance.mul_(_SCALE_DECAY).add_(batch_variance * (1.0 - _SCALE_DECAY))
        self.weight.mul_(_SCALE_DECAY).add_(1.0 - _SCALE_DECAY)
        return (self.variance / self.weight).sqrt().clamp_min(_MIN_ADVANTAGE_STD)
