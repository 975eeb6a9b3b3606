"""PPO's loss: RLlib's own, term by term (a test holds it to that), in a few fused operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from scalepilot.learn.rllib.distributions import Distribution

# Columns of the states in which every action was tried.
ALL_ADVANTAGES, LOG_PROBABILITY, COUNTS = "all_advantages", "log_probability", "counts"


@dataclass(frozen=True)
class PPOLoss:
    """The loss of one minibatch and what its metrics are made from.

    Attributes:
        total: scalar to minimise.
        surrogate, value_error, entropy, divergence, value, value_target: (n,) per transition; the divergence is from the policy
            that sampled.
        mask: (n,) bool; None when all rows count.
        policy_mask: of surrogate, entropy and divergence, where these are of other rows.
    """

    total: torch.Tensor
    surrogate: torch.Tensor
    value_error: torch.Tensor
    entropy: torch.Tensor
    divergence: torch.Tensor
    value: torch.Tensor
    value_target: torch.Tensor
    mask: torch.Tensor | None
    policy_mask: torch.Tensor | None

    @torch.no_grad()
    def kl(self) -> torch.Tensor:
        """Scalar mean divergence from the policy that sampled."""
        return (self.divergence if self.policy_mask is None else self.divergence[self.policy_mask]).mean()

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Under RLlib's names."""
        rows, policy_rows = (slice(None) if mask is None else mask for mask in (self.mask, self.policy_mask))
        target, value = self.value_target[rows], self.value[rows]
        spread = target.var(unbiased=False)
        explained = 1.0 - (target - value).var(unbiased=False) / spread if float(spread) > 0 else torch.tensor(0.0)
        return {
            "total_loss": float(self.total.detach()),
            "policy_loss": -float(self.surrogate[policy_rows].mean()),
            "vf_loss": float(self.value_error[rows].mean()),
            "vf_explained_var": float(explained),
            "entropy": float(self.entropy[policy_rows].mean()),
            "mean_kl_loss": float(self.kl()),
        }


def ppo_loss(
    inputs: torch.Tensor,
    value: torch.Tensor,
    batch: dict[str, Any],
    distribution: Distribution,
    *,
    clip: float,
    value_clip: float,
    value_coefficient: float,
    entropy_coefficient: float | torch.Tensor,
) -> PPOLoss:
    """The clipped surrogate, the clipped squared value error and the entropy bonus.

    Args:
        inputs: (n, num_inputs) of the current policy's distribution.
        value: (n,) current values.
        batch: columns ACTIONS (n,) or (n, k), ACTION_LOGP, ADVANTAGES, VALUE_TARGETS, each (n,), and LOSS_MASK where rows are
            masked.
        distribution: of the actions.
        clip: ε of the probability ratio.
        value_clip: the squared value error is cut here.
        value_coefficient: weight of the value error.
        entropy_coefficient: weight of the entropy bonus.

    Source:
        Schulman et al., "Proximal policy optimization algorithms" (2017), eq. 7 and 9.
    """
    log_probability, entropy = distribution.judge(inputs, batch[Columns.ACTIONS])
    log_ratio = log_probability - batch[Columns.ACTION_LOGP]
    ratio = log_ratio.exp()
    advantage, target = batch[Postprocessing.ADVANTAGES], batch[Postprocessing.VALUE_TARGETS]
    surrogate = torch.minimum(advantage * ratio, advantage * ratio.clamp(1.0 - clip, 1.0 + clip))
    value_error = (value - target).square().clamp(max=value_clip)
    mask = batch.get(Columns.LOSS_MASK)
    total = _mean(value_coefficient * value_error - surrogate - entropy_coefficient * entropy, mask)
    # Schulman, "Approximating KL divergence" (2020), estimator k3.
    divergence = torch.expm1(log_ratio.detach()) - log_ratio.detach()
    return PPOLoss(total, surrogate, value_error, entropy, divergence, value, target, mask, mask)


def tried_loss(
    inputs: torch.Tensor,
    value: torch.Tensor,
    batch: dict[str, Any],
    tried: dict[str, torch.Tensor],
    *,
    temperature: float,
    value_clip: float,
    value_coefficient: float,
    entropy_coefficient: float | torch.Tensor,
) -> PPOLoss:
    """Where every action was tried, what the policy is expected to gain, less its divergence; elsewhere the value error.

    It is linear in the advantages, so that over many states the luck of the one future in which they were measured cancels.
    A cross-entropy towards softmax(A / temperature) is not: it learns to bet on calm traffic, which is what most futures bring.

    Args:
        inputs: (m, num_actions) logits of the current policy where every action was tried.
        value: (n,) current values.
        batch: columns VALUE_TARGETS (n,), and LOSS_MASK where rows are masked.
        tried: columns ALL_ADVANTAGES and LOG_PROBABILITY, of the policy that acted, (m, num_actions), COUNTS (m,) bool.
        temperature: weight of the divergence: with exact advantages, π exp(A / temperature) would be the best.
        value_clip: the squared value error is cut here.
        value_coefficient: weight of the value error.
        entropy_coefficient: weight of the entropy bonus.

    Source:
        Abdolmaleki et al., "Maximum a posteriori policy optimisation" (ICLR 2018), eq. 5, with the values of all actions.
    """
    log_probability = torch.log_softmax(inputs, dim=-1)
    probability = log_probability.exp()
    entropy = -(probability * log_probability).sum(dim=-1)
    divergence = (probability * (log_probability - tried[LOG_PROBABILITY])).sum(dim=-1)
    surrogate = (probability * tried[ALL_ADVANTAGES]).sum(dim=-1) - temperature * divergence
    target, mask, counts = batch[Postprocessing.VALUE_TARGETS], batch.get(Columns.LOSS_MASK), tried[COUNTS]
    value_error = (value - target).square().clamp(max=value_clip)
    total = _mean(-surrogate - entropy_coefficient * entropy, counts) + value_coefficient * _mean(value_error, mask)
    return PPOLoss(total, surrogate, value_error, entropy, divergence.detach(), value, target, mask, counts)


def _mean(per_row: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Of the rows that count; 0 where none does: one of several learners may meet a minibatch of resets only."""
    return per_row.mean() if mask is None else (per_row * mask).sum() / mask.sum().clamp_min(1)
