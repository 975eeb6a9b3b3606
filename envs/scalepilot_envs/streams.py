"""Random streams: one generator an environment and kind of randomness, so that a draw of one never shifts another's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Streams:
    """Generators by kind and environment.

    Args:
        kinds: what is drawn, in a fixed order: kind k of seed s is SeedSequence(s, spawn_key=(k,)).
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._generators: dict[str, dict[int, np.random.Generator]] = {kind: {} for kind in kinds}

    def seed(self, seeds: Sequence[int | None]) -> None:
        """New streams for environment i from `seeds[i]`; None keeps its own."""
        for k, generators in enumerate(self._generators.values()):
            for i, seed in enumerate(seeds):
                if seed is not None:
                    generators[i] = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,)))

    def of(self, kind: str, index: int) -> np.random.Generator:
        """The generator of one kind and environment."""
        return self._generators[kind][index]
