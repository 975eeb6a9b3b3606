"""No target: decisions are made and written down, nothing is scaled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Between, Section
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import TargetContext, Written


@dataclass(frozen=True)
class NoneSettings(Section):
    """Keys of `target` with `kind: none`.

    Attributes:
        replicas: that the deployment is said to have.
    """

    replicas: Annotated[int, Between(0, 1_000_000)] = 1


_SETTINGS: TypeAdapter[NoneSettings] = TypeAdapter(NoneSettings)


class NoTarget:
    """Has what it was last told to have, ready at once.

    Args:
        settings: how many it has at first.
    """

    name = "no target"

    def __init__(self, settings: NoneSettings) -> None:
        self._replicas = settings.replicas

    def read(self, now: float) -> Replicas:
        """What it was told."""
        return Replicas(self._replicas, self._replicas, ())

    def write(self, replicas: int, expected: int) -> Written:
        """Take it."""
        if expected != self._replicas:
            return Written("refused", self._replicas, f"{self._replicas} are asked for, not {expected}")
        self._replicas = replicas
        return Written("written", replicas)

    def tell(self, reason: str, message: str) -> None:
        """Nobody looks."""

    def check(self, *, dry_run: bool) -> list[str]:
        """Nothing stands in the way."""
        return []

    def close(self) -> None:
        """Nothing to let go."""


def make(settings: Mapping[str, Any], context: TargetContext) -> NoTarget:
    """The target of these settings.

    Raises:
        ConfigError: a key or value that is not allowed.
    """
    return NoTarget(checked(NoneSettings, _SETTINGS, dict(settings), "target"))
