"""What was odd about an environment: counted while it is stepped, and said in a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outside:
    """One observation field outside the bounds that its space declares.

    Attributes:
        count: of how many observations.
        lowest, highest: seen.
        low, high: declared.
    """

    count: int
    lowest: float
    highest: float
    low: float
    high: float

    def __add__(self, other: Outside) -> Outside:
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        return Outside(self.count + other.count, lowest, highest, self.low, self.high)

    @property
    def most(self) -> float:
        """The most extreme value: the one furthest outside."""
        return self.highest if self.highest - self.high >= self.low - self.lowest else self.lowest


@dataclass(frozen=True)
class EnvNotes:
    """What an environment did that a learner or a reader must know of.

    Attributes:
        steps: looked at.
        failures: episodes that ended without a result because a step or reset failed.
        failure: what the first of them said.
        clipped: rewards that were cut before learning.
        clipped_at: ± this.
        largest_reward: in size, of those that were cut.
        outside: observation field (its name, or its number) → where it left its bounds.
    """

    steps: int = 0
    failures: int = 0
    failure: str = ""
    clipped: int = 0
    clipped_at: float = 0.0
    largest_reward: float = 0.0
    outside: Mapping[str, Outside] = field(default_factory=dict)

    def __add__(self, other: EnvNotes) -> EnvNotes:
        outside = dict(self.outside)
        for name, seen in other.outside.items():
            outside[name] = outside[name] + seen if name in outside else seen
        return EnvNotes(
            self.steps + other.steps,
            self.failures + other.failures,
            self.failure or other.failure,
            self.clipped + other.clipped,
            other.clipped_at or self.clipped_at,
            max(self.largest_reward, other.largest_reward),
            outside,
        )

    def named(self, names: Sequence[str]) -> EnvNotes:
        """With the fields' names for their numbers."""
        return replace(self, outside={names[int(at)] if at.isdigit() else at: seen for at, seen in self.outside.items()})

    def lines(self) -> dict[str, str]:
        """Kind → one line each; a field outside its bounds is a kind of its own."""
        said: dict[str, str] = {}
        if self.failures:
            one = self.failures == 1
            episodes = "1 episode failed and does" if one else f"{self.failures} episodes failed and do"
            said["failures"] = f"{episodes} not count; first: {self.failure}"
        if self.clipped:
            said["clipped"] = (
                f"{self._share(self.clipped)} of the rewards are cut at ±{self.clipped_at:g} before learning (up to"
                f" {self.largest_reward:.4g} in size); reward_clip: null cuts none"
            )
        for name, seen in self.outside.items():
            said[f"outside {name}"] = (
                f"observation {name} leaves its declared bounds {seen.low:g} to {seen.high:g} in {self._share(seen.count)} of"
                f" the steps; most extreme value {seen.most:.6g}"
            )
        return said

    def _share(self, count: int) -> str:
        share = 100.0 * count / max(1, self.steps)
        return f"{share:.1f} %" if share >= 0.1 else f"{count} of {self.steps}"

    def to_mapping(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"outside": {name: asdict(seen) for name, seen in self.outside.items()}}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> EnvNotes:
        """What `to_mapping` gave; nothing noted where there is none, or it is damaged."""
        try:
            outside = {name: Outside(**seen) for name, seen in (values or {}).get("outside", {}).items()}
            return cls(**{**(values or {}), "outside": outside})
        except (TypeError, AttributeError):
            return cls()


class SeenRange:
    """Follows the observations of a Box with one dimension; of any other space nothing.

    Args:
        space: of one environment.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self._follows = isinstance(space, gym.spaces.Box) and len(space.shape) == 1
        if isinstance(space, gym.spaces.Box) and self._follows:
            self._low, self._high = space.low, space.high
        self._outside: dict[str, Outside] = {}
        self._steps = 0

    def add(self, observations: NDArray[Any]) -> None:
        """Observations (…, num_fields)."""
        count = observations.size // max(1, observations.shape[-1]) if observations.ndim > 1 else len(observations)
        self._steps += count
        if not self._follows or not count:
            return
        rows = observations.reshape(count, -1)
        lowest, highest = rows.min(axis=0), rows.max(axis=0)
        for i in np.flatnonzero((lowest < self._low) | (highest > self._high)).tolist():
            low, high = self._low[i], self._high[i]
            column = rows[:, i]
            times = int(((column < low) | (column > high)).sum())
            found = Outside(times, float(lowest[i]), float(highest[i]), float(low), float(high))
            self._outside[str(i)] = self._outside[str(i)] + found if str(i) in self._outside else found

    def take(self) -> EnvNotes:
        """What was seen since the last call."""
        taken = EnvNotes(steps=self._steps, outside=self._outside)
        self._outside, self._steps = {}, 0
        return taken
