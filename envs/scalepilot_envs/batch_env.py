"""One transition function over a batch of environments, and the two gymnasium faces of it.

A `BatchEnv` steps `num_envs` independent environments as arrays. `BatchVectorEnv` shows it as a native
`gymnasium.vector.VectorEnv`, `SingleEnv` as a `gymnasium.Env` that is a batch of one. Environment i of a batch reset
with seed s draws from the same streams as a single environment reset with seed s + i, whatever the batch size.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from scalepilot_envs.terminal_frame import TerminalFrame

ObsArray = NDArray[Any]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class BatchStep:
    """What one step of a batch returns.

    Attributes:
        observation: (num_envs, *observation_shape), dtype of the observation space; the true successor, also where
            the episode ended.
        reward: (num_envs,) float64.
        terminated: (num_envs,) the episode ended in a terminal state.
        truncated: (num_envs,) the episode was cut by its time limit.
        info: name → (num_envs,) column of the step's physical quantities.
    """

    observation: ObsArray
    reward: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    info: dict[str, NDArray[Any]] = field(default_factory=dict)


class BatchEnv(abc.ABC):
    """A batch of independent environments behind one transition function.

    Subclasses set `single_observation_space`, `single_action_space` and `num_envs` in their constructor, and implement
    `reset_batch` and `step_batch`. They never reset on their own: that is the wrapper's work.
    """

    num_envs: int
    single_observation_space: gym.Space[Any]
    single_action_space: gym.Space[Any]
    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's own name and type

    @abc.abstractmethod
    def seed_streams(self, seeds: Sequence[int | None]) -> None:
        """Give environment i its own random streams, derived from `seeds[i]`.

        Args:
            seeds: one non-negative integer an environment; None keeps the streams it has.
        """

    @abc.abstractmethod
    def reset_batch(self, mask: BoolArray | None = None, options: dict[str, Any] | None = None) -> ObsArray:
        """Start new episodes where `mask` is true (everywhere when None).

        Args:
            mask: (num_envs,) which environments to reset.
            options: what gymnasium's `reset(options=…)` was given.

        Returns:
            (num_envs, *observation_shape): the first observation where reset, the current one elsewhere.
        """

    @abc.abstractmethod
    def step_batch(self, actions: NDArray[Any]) -> BatchStep:
        """Advance every environment by one step.

        Args:
            actions: (num_envs, *action_shape).
        """

    def fork(self, of: NDArray[np.intp]) -> BatchEnv:
        """Copies of environments as they are now, to try actions on: what comes to them from outside is the same for all.

        They go on until their episodes end; a fork is never reset, and neither side notices the other.

        Args:
            of: (n,) which environment each copy is of; any may be asked for several times.

        Returns:
            A batch of n environments.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot fork")

    def close(self) -> None:  # noqa: B027 - optional
        """Release what the batch holds; nothing by default."""

    def render_one(self, index: int, mode: str) -> Any:
        """Render environment `index` as `mode` says: text for "ansi", (height, width, 3) uint8 for "rgb_array"."""
        return None


BatchT = TypeVar("BatchT", bound=BatchEnv)
EnvT = TypeVar("EnvT")
VectorEnvT = TypeVar("VectorEnvT")


def seeds_of(seed: int | list[int | None] | None, num_envs: int, *, fresh: bool) -> list[int | None]:
    """Expand gymnasium's seed argument to one seed an environment: s, s + 1 and so on.

    Args:
        seed: of `reset`.
        num_envs: environments.
        fresh: draw a seed where none is given; otherwise None stays None.

    Raises:
        ValueError: a list of the wrong length, or a negative seed.
    """
    seeds: list[int | None]
    if seed is None:
        seeds = [None] * num_envs
    elif isinstance(seed, int | np.integer):
        seeds = [int(seed) + i for i in range(num_envs)]
    else:
        seeds = [None if s is None else int(s) for s in seed]
    if len(seeds) != num_envs:
        raise ValueError(f"seed: {len(seeds)} given for {num_envs} environments; give one an environment")
    lowest = min((s for s in seeds if s is not None), default=0)
    if lowest < 0:
        raise ValueError(f"seed: {lowest} is negative; allowed: integers from 0")
    if fresh:
        drawn = np.random.SeedSequence().generate_state(num_envs)
        seeds = [int(drawn[i]) if s is None else s for i, s in enumerate(seeds)]
    return seeds


# Room below 2^31 for a count of environments.
_FOREIGN_SEEDS = 2**31 - 2**20


def _zeroed(column: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """A copy with zeros in `rows`: the batch may still hold the column itself."""
    column = column.copy()
    column[rows] = 0
    return column


def _masked(columns: dict[str, NDArray[Any]], mask: BoolArray) -> dict[str, Any]:
    """Gymnasium's form of a vector info: zeros where the mask is false, and the mask itself under "_name"."""
    if np.count_nonzero(mask) < len(mask):
        (rows,) = (~mask).nonzero()
        if len({column.dtype for column in columns.values()}) == 1:
            # One copy and one assignment for all columns: half the time of one each.
            together = np.array(list(columns.values()))
            together[:, rows] = 0
            columns = dict(zip(columns, together, strict=True))
        else:
            columns = {name: _zeroed(column, rows) for name, column in columns.items()}
    return {**columns, **{f"_{name}": mask for name in columns}}


class BatchVectorEnv(gym.vector.VectorEnv[ObsArray, ObsArray, NDArray[Any]], Generic[BatchT]):
    """A `BatchEnv` as gymnasium's native vector environment.

    Args:
        batch: the environments.
        autoreset_mode: NEXT_STEP (gymnasium's default: the step after an end only resets, its action is ignored, its
            reward 0), SAME_STEP (reset at once; the last observation and the step's info in `info["final_obs"]` and
            `info["final_info"]`) or DISABLED (the caller passes `options={"reset_mask": …}` before the next step).

    Column `info[name]` holds where mask `info["_" + name]` is true.
    """

    def __init__(self, batch: BatchT, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP) -> None:
        self.batch = batch
        self.num_envs = batch.num_envs
        self.single_observation_space = batch.single_observation_space
        self.single_action_space = batch.single_action_space
        self.observation_space = batch_space(batch.single_observation_space, self.num_envs)
        self.action_space = batch_space(batch.single_action_space, self.num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**batch.metadata, "autoreset_mode": self.autoreset_mode}
        self._next_step = self.autoreset_mode is AutoresetMode.NEXT_STEP
        self._same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        self._seeded = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsArray, dict[str, Any]]:
        """Reset all environments, or those of `options["reset_mask"]`."""
        mask = None
        if options is not None and "reset_mask" in options:
            options = dict(options)
            mask = np.asarray(options.pop("reset_mask"))
            if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
                raise ValueError(f"reset_mask: {mask.dtype} {mask.shape} is not allowed; allowed: bool ({self.num_envs},)")
            if not self._seeded and not mask.all():
                raise gym.error.ResetNeeded("reset_mask before the first reset() of all environments")
        seeds = seeds_of(seed, self.num_envs, fresh=not self._seeded)
        if mask is not None:
            seeds = [s if chosen else None for s, chosen in zip(seeds, mask, strict=True)]
        self.batch.seed_streams(seeds)
        self._seeded = True
        observation = self.batch.reset_batch(mask, options)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_) if mask is None else self._ended & ~mask
        return observation, {}

    def step(self, actions: NDArray[Any]) -> tuple[ObsArray, NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]:
        """Step every environment; ended ones are reset as `autoreset_mode` says."""
        self.require_reset()
        return self._finish(self.batch.step_batch(np.asarray(actions)))

    def require_reset(self) -> None:
        """Refuse to step what was never reset, or has ended where nobody resets it.

        Raises:
            gymnasium.error.ResetNeeded: reset first.
        """
        if not self._seeded:
            raise gym.error.ResetNeeded("step() before reset()")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            ended = np.flatnonzero(self._ended).tolist()
            raise gym.error.ResetNeeded(f"environments {ended} have ended; reset them with options={{'reset_mask': …}}")

    def _finish(self, step: BatchStep) -> tuple[ObsArray, NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]:
        observation, reward, terminated, truncated = step.observation, step.reward, step.terminated, step.truncated
        # Where an environment was reset in this call, `info` is the reset's (empty), as gymnasium's own vector envs have it.
        stepped: BoolArray | None = None
        # Counting is several times as fast as any() on arrays of this size.
        if self._next_step and np.count_nonzero(self._ended):
            observation = self.batch.reset_batch(self._ended)
            stepped = ~self._ended
            reward = _zeroed(reward, self._ended.nonzero()[0])
            terminated, truncated = terminated & stepped, truncated & stepped
        ended = terminated | truncated
        final: dict[str, Any] = {}
        if self._same_step and np.count_nonzero(ended):
            stepped = ~ended
            final = {"final_obs": observation, "_final_obs": ended}
            final |= {"final_info": _masked(step.info, ended), "_final_info": ended}
            observation = self.batch.reset_batch(ended)
        self._ended = np.zeros_like(ended) if self._same_step else ended
        if not step.info:
            return observation, reward, terminated, truncated, final
        stepped = np.ones(self.num_envs, dtype=np.bool_) if stepped is None else stepped
        return observation, reward, terminated, truncated, _masked(step.info, stepped) | final

    def close_extras(self, **kwargs: Any) -> None:
        """Close the batch."""
        self.batch.close()


def reset_seeded(envs: gym.vector.VectorEnv[Any, Any, Any], seeds: Sequence[int]) -> tuple[ObsArray, dict[str, Any]]:
    """Reset a vector environment with one seed an environment.

    Native ones of others, which take a single one, get the first; some (ale_py's) take 31 bits and count up from it.
    """
    one_each = isinstance(envs.unwrapped, BatchVectorEnv | gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv)
    given: Any = list(seeds) if one_each else seeds[0] % _FOREIGN_SEEDS
    return envs.reset(seed=given)


class SingleEnv(gym.Env[ObsArray, Any], Generic[BatchT]):
    """A batch of one as a plain `gymnasium.Env`."""

    def __init__(self, batch: BatchT, render_mode: str | None = None) -> None:
        if batch.num_envs != 1:
            raise ValueError(f"num_envs: {batch.num_envs}; a single environment is a batch of 1")
        # What can be drawn as text can be shown to a person, on the terminal.
        modes = batch.metadata["render_modes"] + (["human"] if "ansi" in batch.metadata["render_modes"] else [])
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"render_mode: {render_mode!r}; allowed: {modes} or None")
        self.batch = batch
        self.metadata = batch.metadata | {"render_modes": modes}
        self._terminal = TerminalFrame(self.metadata.get("render_fps")) if render_mode == "human" else None
        self.render_mode = render_mode
        self.observation_space = batch.single_observation_space
        self.action_space = batch.single_action_space
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[ObsArray, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self.batch.seed_streams(seeds_of(seed, 1, fresh=not self._seeded))
        self._seeded = True
        observation = self.batch.reset_batch(None, options)[0]
        self._show()
        return observation, {}

    def step(self, action: Any) -> tuple[ObsArray, float, bool, bool, dict[str, Any]]:
        """Take one step with `action`."""
        self.require_reset()
        return self._single(self.batch.step_batch(np.asarray(action)[None]))

    def _show(self) -> None:
        """Draw for a person after every reset and step, as gymnasium's `human` asks."""
        if self._terminal is not None:
            self._terminal.show(self.batch.render_one(0, "ansi"))

    def require_reset(self) -> None:
        """Refuse to step what was never reset.

        Raises:
            gymnasium.error.ResetNeeded: reset first.
        """
        if not self._seeded:
            raise gym.error.ResetNeeded("step() before reset()")

    def _single(self, step: BatchStep) -> tuple[ObsArray, float, bool, bool, dict[str, Any]]:
        self._show()
        info = {name: column[0].item() for name, column in step.info.items()}
        return step.observation[0], float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), info

    def render(self) -> Any:
        """Draw the environment as `render_mode` says; None for "human", who has seen it already."""
        return None if self.render_mode in (None, "human") else self.batch.render_one(0, self.render_mode)

    def close(self) -> None:
        """Close the batch."""
        self.batch.close()


def entry_points(
    batch: Callable[..., Any], env: Callable[..., EnvT], vector_env: Callable[..., VectorEnvT]
) -> tuple[Callable[..., EnvT], Callable[..., VectorEnvT]]:
    """An environment's entry points: for `gymnasium.make`, and for `make_vec(…, vectorization_mode="vector_entry_point")`.

    Args:
        batch: its `BatchEnv`, called with the number of environments and the user's arguments, which are its own.
        env: its `SingleEnv`.
        vector_env: its `BatchVectorEnv`.
    """

    def make_env(render_mode: str | None = None, **kwargs: Any) -> EnvT:
        return env(batch(1, **kwargs), render_mode)

    def make_vector_env(
        num_envs: int = 1, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP, **kwargs: Any
    ) -> VectorEnvT:
        return vector_env(batch(num_envs, **kwargs), autoreset_mode)

    return make_env, make_vector_env
