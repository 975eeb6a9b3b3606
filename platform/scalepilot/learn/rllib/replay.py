"""A ring of transitions on the learner's device, drawn from uniformly or by priority."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scalepilot.learn.rllib.transitions import Transitions

_MIN_PRIORITY = 1e-6


class ReplayRing:
    """The last `capacity` transitions, in columns allocated when the first arrive.

    Memory, and size of its state in a checkpoint: 2 × the bytes of an observation + 16 for each transition
    (CartPole, 100,000 transitions: 5 MB; 84 × 84 × 4 bytes: 5.6 GB).

    Args:
        capacity: transitions.
        device: where they lie.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.size = self.position = 0
        self.columns: Transitions | None = None

    def add(self, transitions: Transitions) -> torch.Tensor:
        """Write over the oldest; returns the indices (n,) written to. More than fit: the newest stay."""
        newest = Transitions(*(column[-self.capacity :] for column in transitions))
        count = len(newest.reward)
        if self.columns is None:
            self.columns = Transitions(
                *(torch.empty((self.capacity, *c.shape[1:]), dtype=c.dtype, device=self.device) for c in newest)
            )
        first = min(count, self.capacity - self.position)
        for ring, column in zip(self.columns, newest, strict=True):
            ring[self.position : self.position + first] = column[:first]
            ring[: count - first] = column[first:]
        indices = (self.position + torch.arange(count, device=self.device)) % self.capacity
        self.position = (self.position + count) % self.capacity
        self.size = min(self.size + count, self.capacity)
        return indices

    def __getitem__(self, indices: torch.Tensor) -> Transitions:
        """Copies of the transitions at (n,) indices."""
        assert self.columns is not None
        return Transitions(*(column.index_select(0, indices) for column in self.columns))

    def get_state(self) -> dict[str, Any]:
        """The filled part as arrays."""
        columns = [] if self.columns is None else [column[: self.size].cpu().numpy() for column in self.columns]
        return {"position": self.position, "columns": columns}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """What a ring of the same capacity gave."""
        self.size = self.position = 0
        self.columns = None
        if state["columns"]:
            self.add(Transitions(*(torch.from_numpy(column.copy()).to(self.device) for column in state["columns"])))
        self.position = int(state["position"])


class Priorities:
    """Draws indices in proportion to their priorities.

    Sums in two levels of √capacity: a draw takes two short cumulative sums and a change one row of them, each the same few
    tensor operations for the whole batch. A binary sum-tree takes log₂(capacity) rounds of them.

    Args:
        capacity: indices.
        alpha: exponent; 0 would be uniform.
        device: where they lie.

    Source:
        Schaul et al., "Prioritized experience replay" (2016), proportional variant.
    """

    def __init__(self, capacity: int, alpha: float, device: torch.device) -> None:
        self.alpha = alpha
        self.width = max(1, round(capacity**0.5))
        blocks = -(-capacity // self.width)
        # Apple's GPUs know no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._powers = torch.zeros((blocks, self.width), dtype=dtype, device=device)
        self._sums = torch.zeros(blocks, dtype=dtype, device=device)
        self._largest = torch.ones((), dtype=dtype, device=device)

    def add(self, indices: torch.Tensor) -> None:
        """New ones get the largest priority seen: everything is learnt from at least once."""
        self._powers.view(-1)[indices] = self._largest
        torch.sum(self._powers, dim=1, out=self._sums)

    def update(self, indices: torch.Tensor, errors: torch.Tensor) -> None:
        """Set priorities from absolute errors, both (n,); an index that occurs twice has the same error twice."""
        powers = (errors.to(self._powers.dtype) + _MIN_PRIORITY).pow_(self.alpha)
        self._largest = torch.maximum(self._largest, powers.max())
        self._powers.view(-1)[indices] = powers
        blocks = indices.div(self.width, rounding_mode="floor")
        self._sums[blocks] = self._powers[blocks].sum(dim=1)

    def draw(self, count: int, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (count,) below `size`, one from each of `count` equal shares of the sum, and their probabilities."""
        device = self._sums.device
        cumulative = self._sums.cumsum(dim=0)
        total = cumulative[-1]
        shares = torch.arange(count, dtype=self._sums.dtype, device=device)
        shares += torch.rand(count, dtype=self._sums.dtype, device=device, generator=generator)
        wanted = shares * (total / count)
        # Rounding may put the last share a hair beyond the sum, or at its very edge in an empty block.
        filled = (size - 1) // self.width
        block = torch.searchsorted(cumulative, wanted, right=True).clamp_(max=filled)
        rest = wanted - (cumulative[block] - self._sums[block])
        within = torch.searchsorted(self._powers[block].cumsum(dim=1), rest[:, None], right=True).squeeze(1)
        indices = (block * self.width + within.clamp_(max=self.width - 1)).clamp_(max=size - 1)
        return indices, self._powers.view(-1)[indices] / total

    def get_state(self) -> dict[str, Any]:
        """As arrays."""
        return {"powers": self._powers.cpu().numpy(), "sums": self._sums.cpu().numpy(), "largest": float(self._largest)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """What `get_state` gave."""
        self._powers.copy_(torch.from_numpy(state["powers"].copy()))
        self._sums.copy_(torch.from_numpy(state["sums"].copy()))
        self._largest.fill_(state["largest"])
