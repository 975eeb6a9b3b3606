"""A network's parameters as one vector."""

from __future__ import annotations

import torch
from torch import nn


class FlatParameters:
    """All parameters of a network as views of one vector, and their gradients of another.

    Clipping, Adam and the target's update are then one kernel each; on networks this small they would otherwise take longer
    than the gradient itself.

    Args:
        network: its parameters are moved; loading a state copies into them, so they stay views.
    """

    def __init__(self, network: nn.Module) -> None:
        parameters = list(network.parameters())
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
        self.gradient = torch.zeros_like(self.vector)
        self.vector.grad = self.gradient
        at = 0
        for parameter in parameters:
            end = at + parameter.numel()
            parameter.data = self.vector.data[at:end].view_as(parameter)
            if parameter.requires_grad:
                parameter.grad = self.gradient[at:end].view_as(parameter)
            at = end
