"""What several learners compute together. Each function must be called by all of them; a single learner keeps what it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import distributed


def num_learners() -> int:
    """Learners in step with this one, itself included."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all learners, in place and bit for bit the same for each."""
    if num_learners() > 1:
        distributed.all_reduce(tensor)
    return tensor


def total(count: int, device: torch.device) -> int:
    """A number summed over all learners.

    Args:
        count: of this learner.
        device: that the learners talk through.
    """
    return count if num_learners() == 1 else int(summed(torch.tensor(count, device=device)))


def mean(tensor: torch.Tensor) -> torch.Tensor:
    """The mean over all learners, in place."""
    learners = num_learners()
    return tensor if learners == 1 else summed(tensor).div_(learners)


def largest(tensor: torch.Tensor) -> torch.Tensor:
    """The largest of all learners' values, in place."""
    if num_learners() > 1:
        distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
    return tensor


def equalise(tensors: Iterable[torch.Tensor]) -> None:
    """Give every learner the first one's values."""
    if num_learners() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def weighted_mean(gradients: Sequence[torch.Tensor], weight: torch.Tensor) -> None:
    """Replace each learner's gradients by their mean over all learners, weighted.

    With the rows that count in a minibatch as weights, this is the gradient of one learner on all those rows. A value that is
    not finite at one learner is at none afterwards: what to do about it is everybody's decision.

    Args:
        gradients: vectors, of the same lengths at each learner.
        weight: scalar, a number of rows; 0 everywhere gives gradients of 0.
    """
    if num_learners() == 1:
        return
    flat = torch.cat([*gradients, weight.reshape(1).to(gradients[0].dtype)])
    flat[:-1] *= flat[-1]
    summed(flat)
    flat[:-1] /= flat[-1].clamp_min(1.0)
    for gradient, part in zip(gradients, torch.split(flat[:-1], [len(gradient) for gradient in gradients]), strict=True):
        gradient.copy_(part)
