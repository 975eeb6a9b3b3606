"""Every constant of QueueScaling-v0, in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scalepilot_envs.checks import check_number

# A queue above this many times the largest influx ends the episode.
_OVERFLOW = 10


@dataclass(frozen=True)
class QueueScalingParams:
    """Instances, what they serve and what they cost.

    Attributes:
        interval_seconds: time between two decisions.
        capacity_requests: requests one instance serves in a step.
        min_instances: fewest instances.
        max_instances: most instances.
        start_instances: instances at the start of an episode.
        max_influx_requests: the largest influx of a step: observations show no more, and ten times as many waiting end the
            episode.
        refused_penalty: for a change that would leave the bounds.
        price_per_instance_hour: currency for one instance and hour, billed once a step for the instances that served it.
    """

    interval_seconds: float = 300.0
    capacity_requests: int = 87
    min_instances: int = 2
    max_instances: int = 100
    start_instances: int = 50
    max_influx_requests: int = 4350
    refused_penalty: float = 0.1
    price_per_instance_hour: float = 1.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_number(self, "interval_seconds", 1e-3)
        check_number(self, "capacity_requests", 1, whole=True)
        check_number(self, "min_instances", 1, whole=True)
        check_number(self, "max_instances", self.min_instances, whole=True)
        check_number(self, "start_instances", self.min_instances, self.max_instances, whole=True)
        check_number(self, "max_influx_requests", 1, whole=True)
        check_number(self, "refused_penalty")
        check_number(self, "price_per_instance_hour")

    @property
    def max_capacity_requests(self) -> int:
        """Requests the most instances serve in a step."""
        return self.capacity_requests * self.max_instances

    @property
    def overflow_requests(self) -> int:
        """A longer queue ends the episode."""
        return _OVERFLOW * self.max_influx_requests

    @property
    def max_queue_requests(self) -> int:
        """The longest queue there can be: the overflow and one more influx."""
        return self.overflow_requests + self.max_influx_requests
