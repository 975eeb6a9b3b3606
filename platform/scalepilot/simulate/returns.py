"""Episodes of any environment: what a policy collects, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scalepilot.errors import InputError
from scalepilot.policy import PackedPolicy, Policy
from scalepilot.simulate.episode_runner import LAST_PREFIX, EpisodeLimits, EpisodeReturns, EpisodeRunner, as_rows

__all__ = ["LAST_PREFIX", "EpisodeLimits", "EpisodeReturns", "ReturnsJob", "as_rows", "fly_returns", "run_returns"]


@dataclass(frozen=True)
class ReturnsJob:
    """A policy's episodes of one environment, as another process can fly them.

    Attributes:
        name: of the policy, for messages.
        actor: the policy, packed for another process.
        env_id, num_episodes, arguments, first_seed, limits: as `run_returns` takes them.
    """

    name: str
    actor: PackedPolicy | Policy
    env_id: str
    num_episodes: int
    arguments: Mapping[str, Any]
    first_seed: int
    limits: EpisodeLimits = field(default_factory=EpisodeLimits)

    def __str__(self) -> str:
        return f"{self.name} on {self.env_id}"


def fly_returns(job: ReturnsJob) -> EpisodeReturns | InputError:
    """Fly one policy's episodes; a policy that cannot be used is a result, too: the others go on."""
    try:
        actor = job.actor.unpack() if isinstance(job.actor, PackedPolicy) else job.actor
        return run_returns(
            actor, job.env_id, job.num_episodes, arguments=job.arguments, first_seed=job.first_seed, limits=job.limits
        )
    except InputError as error:
        return error


def run_returns(
    policy: Policy,
    env_id: str,
    num_episodes: int,
    *,
    arguments: Mapping[str, Any] | None = None,
    first_seed: int = 0,
    limits: EpisodeLimits | None = None,
) -> EpisodeReturns:
    """Run a policy, greedily, through `num_episodes` episodes side by side.

    Args:
        policy: chooses actions; one that commands targets has them taken where the environment takes targets.
        env_id: of the environment.
        num_episodes: how many.
        arguments: what the environment is made with.
        first_seed: episode i has seed first_seed + i; where it fails it is repeated with it once, then with seeds that follow
            from it.
        limits: what is given up; the defaults if None.

    Raises:
        EnvironmentFailedError: an episode fails again and again, or does not end.
    """
    return EpisodeRunner(env_id, dict(arguments or {}), limits or EpisodeLimits()).run(policy, num_episodes, first_seed)
