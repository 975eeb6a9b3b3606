"""Episodes of any environment: what a policy collects, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.policy import PackedPolicy, Policy
from scalepilot_envs.registration import find_env

Array = NDArray[np.float64]
# Far beyond any episode: an environment that never ends must not hold an evaluation for ever.
_MOST_STEPS = 1_000_000
LAST_PREFIX = "last_"


@dataclass(frozen=True)
class EpisodeReturns:
    """One row an episode, each column (n,).

    Attributes:
        seed: of the environment.
        episode_return: sum of its rewards.
        length: its steps.
        info: mean over the episode of each column the environment reports, and `last_…` its value in the end.
    """

    seed: NDArray[np.int64]
    episode_return: Array
    length: NDArray[np.int64]
    info: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def mean_of(cls, results: Sequence[EpisodeReturns]) -> EpisodeReturns:
        """Episode by episode the mean of several policies' results; lengths rounded to whole steps."""
        shared = [name for name in results[0].info if all(name in r.info for r in results)]
        return cls(
            results[0].seed,
            np.mean([r.episode_return for r in results], axis=0),
            np.rint(np.mean([r.length for r in results], axis=0)).astype(np.int64),
            {name: np.mean([r.info[name] for r in results], axis=0) for name in shared},
        )


@dataclass(frozen=True)
class ReturnsJob:
    """A policy's episodes of one environment, as another process can fly them.

    Attributes:
        name: of the policy, for messages.
        actor: the policy, packed for another process.
        env_id, num_episodes, arguments, first_seed: as `run_returns` takes them.
    """

    name: str
    actor: PackedPolicy | Policy
    env_id: str
    num_episodes: int
    arguments: Mapping[str, Any]
    first_seed: int

    def __str__(self) -> str:
        return f"{self.name} on {self.env_id}"


def fly_returns(job: ReturnsJob) -> EpisodeReturns | InputError:
    """Fly one policy's episodes; a policy that cannot be used is a result, too: the others go on."""
    try:
        actor = job.actor.unpack() if isinstance(job.actor, PackedPolicy) else job.actor
        return run_returns(actor, job.env_id, job.num_episodes, arguments=job.arguments, first_seed=job.first_seed)
    except InputError as error:
        return error


def as_rows(observation: NDArray[Any]) -> NDArray[Any]:
    """(n, num_fields): numbered states (n,) become one column, more than two dimensions are kept."""
    return observation[:, None] if observation.ndim == 1 else observation


def run_returns(
    policy: Policy, env_id: str, num_episodes: int, *, arguments: Mapping[str, Any] | None = None, first_seed: int = 0
) -> EpisodeReturns:
    """Fly a policy, greedily, through the first episode of `num_episodes` environments side by side.

    Args:
        policy: chooses actions; one that commands targets has them taken where the environment takes targets.
        env_id: of the environment.
        num_episodes: how many.
        arguments: what the environment is made with.
        first_seed: environment i has seed first_seed + i.
    """
    envs = find_env(env_id).vector_maker()(num_envs=num_episodes, **dict(arguments or {}))
    observation, _ = envs.reset(seed=first_seed)
    running = np.ones(num_episodes, dtype=np.bool_)
    returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, dtype=np.int64)
    sums: dict[str, Array] = {}
    last: dict[str, Array] = {}
    state, rng = None, np.random.default_rng(first_seed)
    for _ in range(_MOST_STEPS):
        decision, state = policy.act(as_rows(observation), state, rng=rng)
        takes: Any = envs
        step = takes.step(decision.action) if decision.action is not None else takes.step_targets(decision.desired_replicas)
        observation, reward, terminated, truncated, info = step
        returns += np.where(running, reward, 0.0)
        lengths += running
        for name, column in info.items():
            if not name.startswith("_") and isinstance(column, np.ndarray) and column.dtype.kind in "fiub" and column.ndim == 1:
                sums[name] = sums.get(name, np.zeros(num_episodes)) + np.where(running, column, 0.0)
                last[name] = np.where(running, column, last.get(name, 0.0))
        running &= ~(terminated | truncated)
        if not running.any():
            break
    envs.close()
    info_columns = {name: total / np.maximum(lengths, 1) for name, total in sums.items()}
    info_columns |= {f"{LAST_PREFIX}{name}": values for name, values in last.items()}
    return EpisodeReturns(first_seed + np.arange(num_episodes), returns, lengths, info_columns)
