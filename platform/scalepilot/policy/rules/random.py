"""Any action, as likely as any other: the floor under every comparison."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.decoder import ActionDecoder
from scalepilot.policy.protocol import Decision, State
from scalepilot.policy.rules.base import Rule


@dataclass(frozen=True)
class RandomParameters:
    """`seed`: of the draws."""

    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed: {self.seed!r} is not allowed; allowed: whole numbers from 0")


class Random(Rule[RandomParameters]):
    """A uniformly random action, on any environment.

    With a generator it draws from it. Without, it stays a pure function: the draw is a hash of the seed, how many
    decisions came before (`draws` (n,) in the state) and the observation.
    """

    rule_name = "random"
    parameters_type = RandomParameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._decoder = ActionDecoder(self.env, self.view)

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """Draw; `deterministic` changes nothing."""
        self.check_rows(observation)
        n, numbers = len(observation), max(1, len(self.env.components))
        draws = np.zeros(n) if state is None else self.remembered(state, "draws", (n,))
        masked = self.env.num_masked > 0
        if rng is not None and not (self.env.components or masked):
            action = rng.integers(0, len(self.env.actions), n)
        elif rng is not None:
            action = self.env.actions_at(rng.random((n, numbers)), observation)
        else:
            seeds = np.broadcast_to(self.by_row("seed"), (n,))
            rows = np.ascontiguousarray(observation, dtype=np.float32)
            keys = zip(seeds, draws, rows, strict=True)
            hashes = np.array([_hashed(f"{seed}:{draw:.0f}:".encode() + row.tobytes(), numbers) for seed, draw, row in keys])
            drawn = self.env.components or masked
            action = self.env.actions_at(hashes / 2.0**48, observation) if drawn else hashes[:, 0] % len(self.env.actions)
        return self._decoder.decision(observation, action), {"draws": draws + 1}


def _hashed(key: bytes, count: int) -> list[int]:
    """`count` numbers of 48 bits; the first does not depend on how many."""
    digests = [hashlib.blake2b(key, digest_size=6, salt=bytes([i])).digest() for i in range(count)]
    return [int.from_bytes(digest, "little") for digest in digests]
