"""ResourceManager-v0: one to five instances, CPU and memory to be kept in a band.

Observation Box(3) float32, with the default parameters:

| field | unit | range |
|---|---|---|
| cpu_percent | % | 0 to 100 |
| memory_percent | % | 0 to 100 |
| request_rate | requests/s (by convention: any unit of load will do) | 20 to 300 |

A usage is request rate / instances × factor (CPU 1.0, memory 0.8), clipped to 100. There is no queue.

Actions: Discrete(3): 0 does nothing, 1 adds an instance, 2 removes one; a bound swallows what would leave it.
Reward: +10 with CPU and memory both in 30–70 %; −5 with either above 90 % or below 10 %; −1 for each action 1 or 2, also one
that a bound swallowed.
Order: act → measure → reward → the request rate moves by U(−20 %, +20 %), within its bounds. The reward judges the usage of
the old rate on the new instances, the observation shows the new rate.
Start: 2 instances, request rate 100.
End: truncation after `episode_steps` (100); it never terminates.
Info: cpu_percent, memory_percent and in_band (a bool) as the reward judged them, request_rate that was served, instances,
change_instances.
Arguments: `params` (`ResourceManagerParams` or a mapping), `episode_steps`.
Reset options: `rate_factors` (num_envs, episode_steps) replaces the drawn factors of the request rate.
History: v0, the first version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.batch_env import BatchStep, BoolArray, entry_points
from scalepilot_envs.checks import check_count, check_injected, check_number, check_options
from scalepilot_envs.description import Action, Columns, EnvDescription, ObservationField, params_from_mapping
from scalepilot_envs.drawing import Canvas, Chart, History, Series, draw_charts
from scalepilot_envs.episode_metrics import METADATA_KEY, EpisodeMetric, of_moves
from scalepilot_envs.episodes import EpisodeClock, EpisodeDraws, uniform, write_columns
from scalepilot_envs.scaling import ScalingEnv, ScalingVectorEnv, UnitMoveBatch, check_actions
from scalepilot_envs.streams import Streams

ENV_ID = "scalepilot/ResourceManager-v0"
EPISODE_STEPS = 100
FULL_PERCENT = 100.0
_ACTIONS = (Action("absolute", 0, "hold"), Action("absolute", 1, "+1"), Action("absolute", -1, "−1"))


@dataclass(frozen=True)
class ResourceManagerParams:
    """Instances, their usage and what the reward asks of it.

    Attributes:
        min_instances: fewest instances.
        max_instances: most instances.
        start_instances: instances at the start of an episode.
        cpu_factor: CPU percent of one instance for each unit of request rate.
        memory_factor: memory percent of one instance for each unit of request rate.
        start_rate: request rate at the start of an episode.
        min_rate: lowest request rate.
        max_rate: highest request rate.
        rate_change: largest relative change of the request rate in a step, up or down.
        band_low_percent: the band begins here.
        band_high_percent: the band ends here.
        idle_percent: a usage below is penalised.
        overload_percent: a usage above is penalised.
        band_reward: for CPU and memory both in the band.
        outside_penalty: for CPU or memory overloaded or idle.
        move_penalty: for an action that adds or removes.
    """

    min_instances: int = 1
    max_instances: int = 5
    start_instances: int = 2
    cpu_factor: float = 1.0
    memory_factor: float = 0.8
    start_rate: float = 100.0
    min_rate: float = 20.0
    max_rate: float = 300.0
    rate_change: float = 0.2
    band_low_percent: float = 30.0
    band_high_percent: float = 70.0
    idle_percent: float = 10.0
    overload_percent: float = 90.0
    band_reward: float = 10.0
    outside_penalty: float = 5.0
    move_penalty: float = 1.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_number(self, "min_instances", 1, whole=True)
        check_number(self, "max_instances", self.min_instances, whole=True)
        check_number(self, "start_instances", self.min_instances, self.max_instances, whole=True)
        for name in ("cpu_factor", "memory_factor", "min_rate", "band_reward", "outside_penalty", "move_penalty"):
            check_number(self, name)
        check_number(self, "max_rate", self.min_rate)
        check_number(self, "start_rate", self.min_rate, self.max_rate)
        check_number(self, "rate_change", 0, 1)
        # In this order a usage is never in the band and penalised at once.
        check_number(self, "idle_percent", 0, FULL_PERCENT)
        check_number(self, "band_low_percent", self.idle_percent, FULL_PERCENT)
        check_number(self, "band_high_percent", self.band_low_percent, FULL_PERCENT)
        check_number(self, "overload_percent", self.band_high_percent, FULL_PERCENT)


_EPISODE_METRICS = {"in_band_share": EpisodeMetric("in_band"), **of_moves("change_instances", "instances")}


class ResourceManagerBatch(UnitMoveBatch):
    """`num_envs` independent services.

    Args:
        num_envs: services stepped together.
        params: constants, or their mapping.
        episode_steps: steps until truncation.

    Attributes:
        instances: (num_envs,) float64, whole numbers.
        rate: (num_envs,) request rate of the next step.

    Raises:
        ValueError: a parameter is unknown or not allowed.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4, METADATA_KEY: _EPISODE_METRICS}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        *,
        params: ResourceManagerParams | Mapping[str, Any] | None = None,
        episode_steps: int = EPISODE_STEPS,
    ) -> None:
        self.num_envs = check_count("num_envs", num_envs)
        self.episode_steps = check_count("episode_steps", episode_steps)
        self.params: ResourceManagerParams = params_from_mapping(ResourceManagerParams, params)
        self.fields = _fields(self.params)
        self.single_observation_space = gym.spaces.Box(
            np.array([f.low for f in self.fields], dtype=np.float32),
            np.array([f.high for f in self.fields], dtype=np.float32),
            dtype=np.float32,
        )
        self.single_action_space = gym.spaces.Discrete(len(_ACTIONS))
        self.move_of_action = np.array([action.size for action in _ACTIONS], dtype=np.int64)
        self._change_of_action = self.move_of_action.astype(np.float64)
        self._penalty_of_action = np.abs(self._change_of_action) * self.params.move_penalty
        # Bounds as whole arrays: beside a plain number numpy's minimum takes twice as long.
        bounds = (self.params.min_instances, self.params.max_instances, self.params.min_rate, self.params.max_rate, FULL_PERCENT)
        self._fewest, self._most, self._lowest_rate, self._highest_rate, self._full = (
            np.full(num_envs, float(bound)) for bound in bounds
        )
        self._cpu_factor, self._memory_factor = float(self.params.cpu_factor), float(self.params.memory_factor)
        self._band_reward, self._outside_penalty = float(self.params.band_reward), float(self.params.outside_penalty)
        self.instances = np.full(num_envs, float(self.params.start_instances))
        self.rate = np.full(num_envs, float(self.params.start_rate))
        self._factors = np.ones((episode_steps, num_envs))
        self._clock = EpisodeClock(num_envs, episode_steps)
        self._streams = Streams(["rate"])
        self._draws = EpisodeDraws(self._streams, "rate", num_envs, episode_steps, uniform)
        self._history = History(num_envs)
        self._reward: NDArray[np.float64] = np.zeros(num_envs)

    @property
    def total_replicas(self) -> NDArray[np.float64]:
        """(num_envs,) instances."""
        return self.instances

    def seed_streams(self, seeds: Sequence[int | None]) -> None:
        """A stream an environment for the changes of its request rate; None keeps its own."""
        self._streams.seed(seeds)
        self._draws.forget(np.flatnonzero([seed is not None for seed in seeds]))

    def reset_batch(self, mask: BoolArray | None = None, options: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Start episodes with new changes of the request rate.

        Args:
            mask: (num_envs,) which to reset; all if None.
            options: {"rate_factors": (num_envs, episode_steps)} replaces the draw.
        """
        given = check_options(options, ("rate_factors",))
        rows = np.arange(self.num_envs) if mask is None else mask.nonzero()[0]
        if "rate_factors" in given:
            factors = check_injected("rate_factors", given["rate_factors"], self.num_envs, self.episode_steps)[rows]
        else:
            factors = self._draws.take(rows) * (2 * self.params.rate_change) + (1 - self.params.rate_change)
        write_columns(self._factors, rows, factors)
        self.instances[rows] = self.params.start_instances
        self.rate[rows] = self.params.start_rate
        self._clock.reset(rows)
        cpu, memory = self.usage()
        self._history.clear(mask)
        self._history.add(cpu, memory, self.rate, self.instances, mask=mask)
        return self._observation(cpu, memory)

    def usage(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(num_envs,) CPU and memory percent of the current rate on the current instances."""
        rate_per_instance = self.rate / self.instances
        cpu = np.minimum(rate_per_instance * self._cpu_factor, self._full)
        return cpu, np.minimum(rate_per_instance * self._memory_factor, self._full)

    def _observation(self, cpu: NDArray[np.float64], memory: NDArray[np.float64]) -> NDArray[np.float32]:
        observation = np.empty((self.num_envs, 3), dtype=np.float32)
        observation[:, 0] = cpu
        observation[:, 1] = memory
        observation[:, 2] = self.rate
        return observation

    def step_batch(self, actions: NDArray[Any]) -> BatchStep:
        """Act, measure, reward, and let the request rate move.

        Args:
            actions: (num_envs,) integers 0 to 2.

        Raises:
            ValueError: another shape or dtype, or an index out of range.

        Source:
            shared specification `golden/resource_manager.py`, replayed by the tests to 1e-9.
        """
        p = self.params
        actions = check_actions(actions, self.num_envs, len(_ACTIONS))
        before = self.instances
        wanted = before + self._change_of_action.take(actions)
        self.instances = np.minimum(np.maximum(wanted, self._fewest), self._most)
        cpu, memory = self.usage()
        lower, upper = np.minimum(cpu, memory), np.maximum(cpu, memory)
        in_band = (lower >= p.band_low_percent) & (upper <= p.band_high_percent)
        outside = (lower < p.idle_percent) | (upper > p.overload_percent)
        reward: NDArray[np.float64] = np.multiply(in_band, self._band_reward)
        reward -= outside * self._outside_penalty
        reward -= self._penalty_of_action.take(actions)
        served_rate = self.rate
        self.rate = np.minimum(np.maximum(served_rate * self._clock.of(self._factors), self._lowest_rate), self._highest_rate)
        truncated = self._clock.advance()
        # Copies of what the next step goes on from: a caller may change what it was given.
        info = {
            "cpu_percent": cpu,
            "memory_percent": memory,
            "in_band": in_band,
            "request_rate": served_rate,
            "instances": self.instances.copy(),
            "change_instances": self.instances - before,
        }
        self._reward = reward
        next_cpu, next_memory = self.usage()
        self._history.add(next_cpu, next_memory, self.rate, self.instances)
        return BatchStep(
            self._observation(next_cpu, next_memory), reward, np.zeros(self.num_envs, dtype=np.bool_), truncated, info
        )

    def render_one(self, index: int, mode: str) -> str | NDArray[np.uint8]:
        """One line of text, or the episode so far: CPU and memory with the band, request rate, instances."""
        cpu, memory = (float(usage[index]) for usage in self.usage())
        reward = float(self._reward[index]) if self._clock.step_index[index] else 0.0
        heading = f"step {self._clock.step_index[index]} of {self.episode_steps}"
        if mode == "ansi":
            return (
                f"{heading}  CPU {cpu:5.1f} %  memory {memory:5.1f} %  request rate {self.rate[index]:5.1f}/s"
                f"  instances {self.instances[index]:.0f}  reward {reward:+.0f}"
            )
        return self._picture(index, heading, reward)

    def _picture(self, index: int, heading: str, reward: float) -> NDArray[np.uint8]:
        p = self.params
        cpu, memory, rate, instances = self._history.of(index, *self.usage(), self.rate, self.instances)
        canvas = Canvas()
        canvas.text((16, 20), f"ResourceManager-v0 · {heading}", size=15)
        canvas.text((canvas.width - 16, 20), f"reward {reward:+.0f}", size=15, align="right")
        band = (p.band_low_percent, p.band_high_percent)
        usage = Chart([Series("CPU", cpu), Series("memory", memory)], "%", high=FULL_PERCENT, band=band)
        demand = Chart([Series("request rate", rate)], "/s", high=p.max_rate)
        replicas = Chart([Series("instances", instances)], "", high=float(p.max_instances))
        draw_charts(canvas, [usage, demand, replicas], num_steps=self.episode_steps, step=int(self._clock.step_index[index]))
        return canvas.array()


def _fields(params: ResourceManagerParams) -> tuple[ObservationField, ...]:
    p = params
    return (
        ObservationField("cpu_percent", "%", 0.0, FULL_PERCENT, "CPU usage of an instance at the current request rate"),
        ObservationField("memory_percent", "%", 0.0, FULL_PERCENT, "memory usage of an instance at the current request rate"),
        ObservationField("request_rate", "requests/s", float(p.min_rate), float(p.max_rate), "request rate of all instances"),
    )


def _utilisation(columns: Columns) -> NDArray[np.float64]:
    return columns("cpu_percent") / FULL_PERCENT


def describe(params: ResourceManagerParams | Mapping[str, Any] | None = None) -> EnvDescription:
    """Fields, actions, reward and parameters of ResourceManager-v0.

    Raises:
        ValueError: a parameter is unknown or not allowed.
    """
    p: ResourceManagerParams = params_from_mapping(ResourceManagerParams, params)
    return EnvDescription(
        env_id=ENV_ID,
        params=p,
        fields=_fields(p),
        actions=_ACTIONS,
        reward=(
            f"+{p.band_reward:g} with CPU and memory both in {p.band_low_percent:g}–{p.band_high_percent:g} %;"
            f" −{p.outside_penalty:g} with either above {p.overload_percent:g} % or below {p.idle_percent:g} %;"
            f" −{p.move_penalty:g} for each action that adds or removes, also one that a bound swallowed."
        ),
        end=f"Truncated after {EPISODE_STEPS} steps unless episode_steps says otherwise; never terminates.",
        signals={"utilisation": _utilisation},
        rule_defaults={"threshold": {"upper": 0.7, "lower": 0.3, "cooldown_seconds": 0.0}},
        reward_bounds=(-float(p.outside_penalty + p.move_penalty), float(p.band_reward)),
        episode_steps=EPISODE_STEPS,
    )


class ResourceManagerVectorEnv(ScalingVectorEnv[ResourceManagerBatch]):
    """Native vector environment of ResourceManager-v0."""


class ResourceManagerEnv(ScalingEnv[ResourceManagerBatch]):
    """ResourceManager-v0 as a `gymnasium.Env`."""


make_env, make_vector_env = entry_points(ResourceManagerBatch, ResourceManagerEnv, ResourceManagerVectorEnv)
