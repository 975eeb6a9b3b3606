"""QueueScaling-v0: instances that work off a queue, five minutes a step.

Observation Box(5) float32, with the default parameters:

| field | unit | range |
|---|---|---|
| instances_share | share of the most instances | 0.02 to 1 |
| load_share | share of the capacity of the step just served, in whole percents | 0 to 1 |
| capacity_requests | requests a step, of the instances that served it | 174 to 8,700 |
| influx_requests | requests that came in the step | 0 to 4,350, clipped |
| queue_requests | requests that wait | 0 to 47,850, clipped |

`bounded_observation=True` scales every field to [0, 1] for neural policies: shares as they are, capacity over that of the most
instances, influx over `max_influx_requests`, queue as log(1 + queue) over that of its bound.

Actions: Discrete(3): 0 removes an instance, 1 holds, 2 adds one; it is applied one step later. A change that would leave
[2, 100] is not made and costs 0.1.
Order of step s = 1, 2, …: influx f(s) arrives → the instances serve influx + queue → the action chosen in the *previous* step
changes the instances. Reward: −(1 − load) · instances/100 − 0.1 · [change refused] − queue/(1 + queue), with the load of the step
served and the instances and the queue after it.
Start: 50 instances, no queue, load 0; the first observation shows f(0).
End: terminates when the queue exceeds 10 · `max_influx_requests`; truncation after `episode_steps` (200).
Info: cost (price × instances that served, billed once a step), influx_requests, queue_requests, load_percent,
instances, change_instances, refused_changes.
Arguments: `workload` (a kind such as "sine_curve", a mapping, a `Workload` or a `RateSeries`; influx = rate × interval, rounded;
poisson, random and random_walk draw a new series each episode; of a longer story, such as diurnal, mixture or trace, there is
one), `random_phase` (each episode begins at a random step of the series),
`params` (`QueueScalingParams` or a mapping), `episode_steps`, `bounded_observation`.
Reset options: `influx` (num_envs, episode_steps + 1) requests, rounded, replaces the workload.
Source: the "Smart AutoScaler" project on adobe/gym-scaling; its $87 per instance-hour, charged again for the whole age at each
step, is a price per instance-hour here.
History: v0, the first version.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.batch_env import BatchStep, BoolArray, entry_points
from scalepilot_envs.checks import check_count, check_injected, check_options
from scalepilot_envs.description import params_from_mapping
from scalepilot_envs.drawing import Canvas, Chart, History, Series, draw_charts
from scalepilot_envs.episode_metrics import METADATA_KEY, EpisodeMetric, of_moves
from scalepilot_envs.episodes import EpisodeClock, EpisodeDraws, integers, write_columns
from scalepilot_envs.queue_scaling.description import ACTIONS, EPISODE_STEPS, observation_fields
from scalepilot_envs.queue_scaling.params import QueueScalingParams
from scalepilot_envs.scaling import ScalingEnv, ScalingVectorEnv, UnitMoveBatch, check_actions
from scalepilot_envs.streams import Streams
from scalepilot_envs.workloads import RateSeries, Workload, workload_from_mapping

DEFAULT_WORKLOAD = "sine_curve"
_HOUR_SECONDS = 3600.0
_SEEDS = 1 << 31

WorkloadLike = str | Mapping[str, Any] | Workload | RateSeries
_EPISODE_METRICS = {
    "queue_requests": EpisodeMetric("queue_requests"),
    "unfinished_requests": EpisodeMetric("queue_requests", "last"),
    "refused_changes": EpisodeMetric("refused_changes", "sum"),
    **of_moves("change_instances", "instances"),
}


class QueueScalingBatch(UnitMoveBatch):
    """`num_envs` independent queues.

    Args:
        num_envs: queues stepped together.
        workload: a kind, a workload, its mapping or a ready series; on another grid it is resampled.
        params: constants, or their mapping.
        episode_steps: steps until truncation.
        random_phase: begin each episode at a random step of the series instead of its first.
        bounded_observation: scale every field to [0, 1].

    Attributes:
        instances, queue, load, capacity, influx: (num_envs,) float64, whole numbers; load in percent.
        pending: (num_envs,) change that the next step applies.

    Raises:
        ValueError: a parameter is unknown or not allowed, or the workload is shorter than an episode.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4, METADATA_KEY: _EPISODE_METRICS}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        *,
        workload: WorkloadLike = DEFAULT_WORKLOAD,
        params: QueueScalingParams | Mapping[str, Any] | None = None,
        episode_steps: int = EPISODE_STEPS,
        random_phase: bool = False,
        bounded_observation: bool = False,
    ) -> None:
        self.num_envs = check_count("num_envs", num_envs)
        self.episode_steps = check_count("episode_steps", episode_steps)
        self.params: QueueScalingParams = params_from_mapping(QueueScalingParams, params)
        self.random_phase, self.bounded_observation = random_phase, bounded_observation
        if not isinstance(workload, RateSeries):
            workload = workload_from_mapping({"kind": workload} if isinstance(workload, str) else workload)
        self.workload: Any = workload
        names = {f.name for f in dataclasses.fields(workload)} if dataclasses.is_dataclass(workload) else set()
        # Kinds that are nothing but draws, one a step: cheap enough to draw anew each episode.
        self._seeded = {"seed", "num_steps"} <= names
        self._series = self._influx_of(workload)

        self.fields = observation_fields(self.params, bounded_observation)
        self.single_observation_space = gym.spaces.Box(
            np.array([f.low for f in self.fields], dtype=np.float32),
            np.array([f.high for f in self.fields], dtype=np.float32),
            dtype=np.float32,
        )
        self.single_action_space = gym.spaces.Discrete(len(ACTIONS))
        self.move_of_action = np.array([action.size for action in ACTIONS], dtype=np.int64)
        self._change_of_action = self.move_of_action.astype(np.float64)

        # Bounds as whole arrays: beside a plain number numpy's minimum takes twice as long.
        self._fewest, self._most, self._most_influx, self._most_queue = (
            np.full(num_envs, float(bound))
            for bound in (
                self.params.min_instances,
                self.params.max_instances,
                self.params.max_influx_requests,
                self.params.max_queue_requests,
            )
        )
        self._cost_of_one = self.params.price_per_instance_hour * self.params.interval_seconds / _HOUR_SECONDS
        self._share_of_one, self._capacity = 1.0 / self.params.max_instances, float(self.params.capacity_requests)
        self._overflow = float(self.params.overflow_requests)
        self._streams = Streams(("phase", "workload"))
        phases = len(self._series) - episode_steps
        self._phases = EpisodeDraws(self._streams, "phase", num_envs, 1, partial(integers, high=phases), np.int64)
        self._seeds = EpisodeDraws(self._streams, "workload", num_envs, 1, partial(integers, high=_SEEDS), np.int64)
        self._clock = EpisodeClock(num_envs, episode_steps)
        # The influx of the running episodes, (episode_steps + 1, num_envs); None while all have `_fixed`.
        self._table: NDArray[np.float64] | None = None
        self._fixed = self._series[: episode_steps + 1].copy()
        # Whether an influx may have to be clipped to the documented maximum.
        self._exceeds = bool(self._fixed.max() > self.params.max_influx_requests)
        self._history = History(num_envs)
        self.instances, self.queue, self.load, self.capacity, self.influx, self.pending, self._reward = np.zeros((7, num_envs))

    def _influx_of(self, workload: Workload | RateSeries) -> NDArray[np.float64]:
        """(num_steps,) requests a step, whole numbers.

        Raises:
            ValueError: too short for an episode.
        """
        series = workload if isinstance(workload, RateSeries) else workload.series()
        if series.interval_seconds != self.params.interval_seconds:
            series = series.resampled(self.params.interval_seconds)
        if len(series) < self.episode_steps + 1:
            raise ValueError(
                f"workload: its {len(series)} steps of {self.params.interval_seconds:g} s are fewer than the"
                f" {self.episode_steps + 1} of an episode (episode_steps {self.episode_steps} and the first observation)"
            )
        influx: NDArray[np.float64] = np.rint(series.rates_rps * self.params.interval_seconds)
        return influx

    @property
    def total_replicas(self) -> NDArray[np.float64]:
        """(num_envs,) instances after the pending change."""
        total: NDArray[np.float64] = np.minimum(np.maximum(self.instances + self.pending, self._fewest), self._most)
        return total

    def seed_streams(self, seeds: Sequence[int | None]) -> None:
        """A stream an environment for phases and one for workloads; None keeps its own."""
        self._streams.seed(seeds)
        rows = np.flatnonzero([seed is not None for seed in seeds])
        self._phases.forget(rows)
        self._seeds.forget(rows)

    def reset_batch(self, mask: BoolArray | None = None, options: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Start episodes.

        Args:
            mask: (num_envs,) which to reset; all if None.
            options: {"influx": (num_envs, episode_steps + 1) requests} replaces the workload; values are rounded.
        """
        given = check_options(options, ("influx",))
        rows = np.arange(self.num_envs) if mask is None else mask.nonzero()[0]
        is_fixed = not (self._seeded or self.random_phase)
        if "influx" in given:
            influx = np.rint(check_injected("influx", given["influx"], self.num_envs, self.episode_steps + 1))
            self._load_table(rows, influx[rows])
        elif is_fixed and len(rows) == self.num_envs:
            self._table = None
        elif self._table is not None or not is_fixed:
            self._load_table(rows, self._drawn(rows))
        start = float(self.params.start_instances)
        self.instances[rows] = start
        self.capacity[rows] = start * self._capacity
        self.queue[rows] = self.pending[rows] = 0.0
        # Copies: the caller may still hold these two as the last step's info.
        self.influx, self.load = self.influx.copy(), self.load.copy()
        self.influx[rows] = self._fixed[0] if self._table is None else self._table[0, rows]
        self.load[rows] = 0.0
        self._clock.reset(rows)
        self._history.clear(mask)
        self._history.add(*self._drawn_columns(), mask=mask)
        return self._observation(self.instances * self._share_of_one, self.load / 100.0)

    def _load_table(self, rows: NDArray[np.int64], influx: NDArray[np.float64]) -> None:
        if self._table is None:
            self._table = np.tile(self._fixed[:, None], self.num_envs)
        write_columns(self._table, rows, influx)
        self._exceeds = self._exceeds or bool(influx.max(initial=0.0) > self.params.max_influx_requests)

    def _drawn(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(len(rows), episode_steps + 1) requests of new episodes."""
        steps = np.arange(self.episode_steps + 1)
        first: NDArray[np.int64] = np.zeros(len(rows), dtype=np.int64)
        if self.random_phase:
            first = self._phases.take(rows)[:, 0]
        if not self._seeded:
            windows: NDArray[np.float64] = self._series[first[:, None] + steps]
            return windows
        # Only as many steps as are run, where no scale depends on the others.
        changes = {"num_steps": self.episode_steps + 1} if self.workload.peak_rps is None and not self.random_phase else {}
        influx = np.empty((len(rows), self.episode_steps + 1))
        for k, seed in enumerate(self._seeds.take(rows)[:, 0].tolist()):
            series = self._influx_of(dataclasses.replace(self.workload, seed=seed, **changes))
            influx[k] = series[first[k] : first[k] + self.episode_steps + 1]
        return influx

    def step_batch(self, actions: NDArray[Any]) -> BatchStep:
        """Serve a step, apply the action chosen before, and keep this one for the next.

        Args:
            actions: (num_envs,) integers 0 to 2.

        Raises:
            ValueError: another shape or dtype, or an index out of range.

        Source:
            shared specification `golden/queue_scaling.py`, replayed by the tests to 1e-9.
        """
        p = self.params
        actions = check_actions(actions, self.num_envs, len(ACTIONS))
        truncated = self._clock.advance()
        self.influx = self._clock.of(self._fixed if self._table is None else self._table)
        work = self.influx + self.queue
        served_instances = self.instances
        self.capacity = served_instances * self._capacity
        processed = np.minimum(work, self.capacity)
        load = processed / self.capacity
        load *= 100.0
        self.load = np.ceil(load, out=load)
        self.queue = work - processed
        wanted = served_instances + self.pending
        self.instances = np.minimum(np.maximum(wanted, self._fewest), self._most)
        refused = wanted != self.instances
        self.pending = self._change_of_action.take(actions)

        load_share = load / 100.0
        share = self.instances * self._share_of_one
        reward = load_share - 1.0
        reward *= share
        if np.count_nonzero(refused):
            reward -= refused * p.refused_penalty
        reward -= self.queue / (self.queue + 1.0)
        self._reward = reward
        # Copies of what the next step goes on from: a caller may change what it was given.
        info = {
            "cost": served_instances * self._cost_of_one,
            "influx_requests": self.influx,
            "queue_requests": self.queue.copy(),
            "load_percent": self.load,
            "instances": self.instances.copy(),
            "change_instances": self.instances - served_instances,
            "refused_changes": refused,
        }
        if self._history:
            self._history.add(*self._drawn_columns())
        terminated = self.queue > self._overflow
        observation = self._observation(share, load_share, clip_queue=bool(np.count_nonzero(terminated)))
        return BatchStep(observation, reward, terminated, truncated, info)

    def _observation(
        self, share: NDArray[np.float64], load_share: NDArray[np.float64], *, clip_queue: bool = True
    ) -> NDArray[np.float32]:
        """The fields as they are shown; a queue that has not overflowed need not be clipped."""
        influx = np.minimum(self.influx, self._most_influx) if self._exceeds else self.influx
        queue = np.minimum(self.queue, self._most_queue) if clip_queue else self.queue
        observation = np.empty((self.num_envs, 5), dtype=np.float32)
        observation[:, 0] = share
        observation[:, 1] = load_share
        if self.bounded_observation:
            p = self.params
            observation[:, 2] = self.capacity / p.max_capacity_requests
            observation[:, 3] = influx / p.max_influx_requests
            observation[:, 4] = np.log1p(queue) / np.log1p(p.max_queue_requests)
        else:
            observation[:, 2] = self.capacity
            observation[:, 3] = influx
            observation[:, 4] = queue
        return observation

    def _drawn_columns(self) -> tuple[NDArray[np.float64], ...]:
        return self.influx, self.capacity, self.queue, self.load

    def render_one(self, index: int, mode: str) -> str | NDArray[np.uint8]:
        """One line of text, or the episode so far: influx beside capacity, queue and load."""
        reward = self._reward[index] if self._clock.step_index[index] else 0.0
        heading = f"step {self._clock.step_index[index]} of {self.episode_steps}"
        if mode == "ansi":
            return (
                f"{heading}  instances {self.instances[index]:.0f} ({self.pending[index]:+.0f} pending)"
                f"  load {self.load[index]:.0f} %  influx {self.influx[index]:,.0f} of {self.capacity[index]:,.0f} requests"
                f"  queue {self.queue[index]:,.0f}  reward {reward:+.4f}"
            )
        influx, capacity, queue, load = self._history.of(index, *self._drawn_columns())
        canvas = Canvas()
        canvas.text((16, 20), f"QueueScaling-v0 · {heading} · {self.instances[index]:.0f} instances", size=15)
        canvas.text((canvas.width - 16, 20), f"reward {reward:+.3f}", size=15, align="right")
        charts = [
            Chart([Series("influx", influx), Series("capacity", capacity)], "requests a step"),
            Chart([Series("queue", queue)], "requests"),
            Chart([Series("load", load)], "%", high=100.0),
        ]
        draw_charts(canvas, charts, num_steps=self.episode_steps, step=int(self._clock.step_index[index]))
        return canvas.array()


class QueueScalingVectorEnv(ScalingVectorEnv[QueueScalingBatch]):
    """Native vector environment of QueueScaling-v0."""


class QueueScalingEnv(ScalingEnv[QueueScalingBatch]):
    """QueueScaling-v0 as a `gymnasium.Env`."""


make_env, make_vector_env = entry_points(QueueScalingBatch, QueueScalingEnv, QueueScalingVectorEnv)
