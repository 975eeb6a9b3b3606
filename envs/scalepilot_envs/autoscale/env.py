"""Autoscale-v0: a replicated HTTP service behind a load balancer, evaluated by what it costs.

Observation (named physical fields; `scalepilot env show Autoscale-v0` prints units, bounds and PromQL):

| fields | unit |
|---|---|
| request_rate_rps_0 … 7 (0 is the newest) | requests/s |
| request_rate_mean_rps, request_rate_std_rps (40 intervals) | requests/s |
| cpu_utilisation, late_share, error_share | share |
| latency_p95_seconds | s |
| backlog_requests | requests |
| ready_replicas, starting_replicas_0 … 3 (by quarter of start-up still to go) | replicas |
| replica_capacity_rps | requests/s |
| clock_day_sin, clock_day_cos, clock_week_sin, clock_week_cos (option `observe_clock`) | 1 |
| clock_hour_sin, clock_hour_cos (option `observe_hour`) | 1 |

With the option `metric_lag_steps` everything measured (all but replicas, capacity and clock) is shown so many steps late; with
`actuation_lag_steps` a target takes effect so many steps late.

Actions: Discrete(8), a move table: −25 %, −2, −1, hold, +1, +2, +25 %, +100 % of ready + starting. Rules and planners
command any target through `step_targets(desired_replicas)`.
Reward: −J of the step (replica, late-request and move cost, in currency) × `reward_per_currency`.
Start: replicas for 70 % utilisation of the first rate, empty pipeline, no backlog. End: truncation after `episode_steps`.
History: v0, the first version.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.action import DEFAULT_MOVES, Move, MoveTable
from scalepilot_envs.autoscale.arrivals import drawn_arrivals
from scalepilot_envs.autoscale.description import ENV_ID as ENV_ID
from scalepilot_envs.autoscale.disturbances import ALL_STREAM_KINDS, Disturbances
from scalepilot_envs.autoscale.dynamics import AutoscaleState, StepOutcome
from scalepilot_envs.autoscale.levels import at_drawn_level
from scalepilot_envs.autoscale.observation import clock_fields, observation_fields
from scalepilot_envs.autoscale.own_or_drawn import DRAWN
from scalepilot_envs.autoscale.params import AutoscaleParams, Randomisation, ServiceRanges
from scalepilot_envs.autoscale.render import as_picture, as_text, drawn_columns
from scalepilot_envs.autoscale.services import Services
from scalepilot_envs.autoscale.surges import with_surges
from scalepilot_envs.batch_env import BatchStep, BoolArray, entry_points
from scalepilot_envs.description import params_from_mapping
from scalepilot_envs.drawing import History
from scalepilot_envs.episode_metrics import METADATA_KEY, EpisodeMetric, of_moves
from scalepilot_envs.scaling import ScalingBatch, ScalingEnv, ScalingVectorEnv, check_actions
from scalepilot_envs.streams import Streams
from scalepilot_envs.workloads import Part, RateSeries, Workload, pool_of, workload_from_mapping

# One stream an environment and kind: a draw of one never shifts another's.
_STREAMS = ("window", "arrivals", "randomisation")
_MORE_STREAMS = ("service", "past", *DRAWN)
EPISODE_STEPS = 1920
# Of `relative_reward`: part of a replica can always be lost; a rule follows at this utilisation; most of its cost is avoided.
_LEAST_RESERVE, _FOLLOWED_AT, _LATE_SHARE = 0.25, 0.7, 0.3
_EPISODE_METRICS = {
    "late_share": EpisodeMetric("late_requests", per="arrived_requests"),
    "dropped_requests": EpisodeMetric("dropped_requests", "sum"),
    "unfinished_requests": EpisodeMetric("backlog_requests", "last"),
    **of_moves("change_replicas", "billed_replicas"),
}


class AutoscaleBatch(ScalingBatch):
    """`num_envs` services over windows of one workload.

    Args:
        num_envs: services stepped together.
        workload: what to serve: a `Workload`, its mapping ({"kind": "trace", …}) or a ready `RateSeries`.
        part: which part of the workload's time: train, validation, test or all.
        params: physical constants, or their mapping.
        moves: the move table.
        randomisation: ranges drawn each episode, or their mapping.
        arrivals: "poisson" draws counts around the rate, spread as `arrival_dispersion` says; "exact" serves rate × interval.
        episode_steps: steps until truncation.

    Raises:
        ValueError: the workload's part is shorter than an episode, or a parameter is out of range.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4, METADATA_KEY: _EPISODE_METRICS}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        *,
        workload: Workload | RateSeries | Mapping[str, Any] | None = None,
        part: Part = "all",
        params: AutoscaleParams | Mapping[str, Any] | None = None,
        moves: Sequence[Move] = DEFAULT_MOVES,
        randomisation: Randomisation | Mapping[str, Any] | None = None,
        arrivals: Literal["poisson", "exact"] = "poisson",
        episode_steps: int = EPISODE_STEPS,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: {num_envs} is not allowed; allowed: whole numbers from 1")
        if episode_steps < 1:
            raise ValueError(f"episode_steps: {episode_steps} is not allowed; allowed: whole numbers from 1")
        if arrivals not in ("poisson", "exact"):
            raise ValueError(f"arrivals: {arrivals!r} is not allowed; allowed: poisson, exact")
        self.num_envs = num_envs
        self.params: AutoscaleParams = params_from_mapping(AutoscaleParams, params)
        self.randomisation = randomisation if isinstance(randomisation, Randomisation) else Randomisation(**(randomisation or {}))
        self.move_table = MoveTable(moves)
        self.arrivals_kind = arrivals
        self.episode_steps = episode_steps
        if not isinstance(workload, RateSeries):
            workload = workload_from_mapping({"kind": "diurnal"} if workload is None else workload)
        self.pool = pool_of(workload, part, self.params.interval_seconds)
        r = self.randomisation
        longest_multiple = (r.services.interval_multiples or (1, 1))[1]
        self.pool.check_length(
            longest_multiple * (episode_steps - 1) + 1,
            lambda steps: (
                f"episode_steps: {episode_steps} is longer than the {part} part of the workload"
                f" ({steps // longest_multiple} steps of {longest_multiple * self.params.interval_seconds:g} s)"
            ),
        )
        self.fields = observation_fields(self.params, self._capacity_scale())
        self.single_observation_space = gym.spaces.Box(
            np.array([f.low for f in self.fields], dtype=np.float32),
            np.array([f.high for f in self.fields], dtype=np.float32),
            dtype=np.float32,
        )
        self.single_action_space: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(len(self.move_table))
        self._low = np.array([f.low for f in self.fields])[:, None]
        self._high = np.array([f.high for f in self.fields])[:, None]
        r.services.check(self.params)
        longest = int(np.ceil(self.params.startup_seconds * r.startup_scale[1] / self.params.interval_seconds))
        self.disturbances = Disturbances(self.params, r, num_envs, episode_steps)
        self.services = Services(self.params, num_envs) if r.services != ServiceRanges() else None
        if self.services is not None:
            longest = int(np.ceil(r.services.longest_startup_steps(self.params) * r.startup_scale[1]))
        self.state = AutoscaleState(self.params, num_envs, longest, self.disturbances, self.services)
        self._past_rps = np.zeros((r.past_steps[1], num_envs)) if r.past_steps[1] else None
        self._rates = np.zeros((episode_steps, num_envs))
        self._arrived = np.zeros((episode_steps, num_envs))
        self._start_seconds = np.zeros(num_envs)
        self._step_index = np.zeros(num_envs, dtype=np.int64)
        self._columns = np.arange(num_envs)
        self._streams = Streams(self._stream_kinds())
        self._history = History(num_envs)
        self._cost_per_hour = np.zeros(num_envs)
        self._is_fork = False
        self._reward_divisor = np.ones(num_envs)

    def _capacity_scale(self) -> tuple[float, float]:
        """(low, high) over the parameters' capacity."""
        r = self.randomisation
        (low, high), (least, most) = r.capacity_scale, r.services.capacity_scale(self.params)
        return low * least, high * most

    def _stream_kinds(self) -> tuple[str, ...]:
        """A kind keeps its place, and with it its draws, when others are asked for."""
        more = self.services is not None or self._past_rps is not None or self.disturbances.service.is_drawn
        return (*_STREAMS, *ALL_STREAM_KINDS, *_MORE_STREAMS) if more else (*_STREAMS, *self.disturbances.stream_kinds)

    def seed_streams(self, seeds: Sequence[int | None]) -> None:
        """One generator an environment and kind of randomness; None keeps an environment's own."""
        self._streams.seed(seeds)

    def reset_batch(self, mask: BoolArray | None = None, options: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Draw a window, its scale and its arrivals for each reset environment.

        Args:
            mask: (num_envs,) which to reset; all if None.
            options: {"rates_rps": (num_envs, episode_steps), "arrived": the same shape, "start_unix_seconds": (num_envs,)}
                replaces the draw; `arrived` alone may be left out. Given episodes are undisturbed: what is drawn for
                training's measurements, targets and orders is left out.
        """
        if self._is_fork:
            raise RuntimeError("a fork is never reset: its tables are those of its original")
        mask = np.ones(self.num_envs, dtype=np.bool_) if mask is None else mask
        past = self._past_rps
        if options and "rates_rps" in options:
            self._load(mask, options)
            capacity, startup, past = None, None, None
        else:
            capacity, startup = self._draw(np.flatnonzero(mask))
        self._step_index[mask] = 0
        self._history.clear(mask)
        self._cost_per_hour[mask] = 0.0
        self.state.reset(mask, self._rates[0], capacity, startup, self.disturbances.first(), past)
        return self.observe()

    def fork(self, of: NDArray[np.intp]) -> AutoscaleBatch:
        """Copies of services as they are now, before the same traffic and disturbances; see `BatchEnv.fork`."""
        fork = copy.copy(self)
        fork.num_envs, fork._is_fork = len(of), True
        # Columns of the tables, which are shared: nothing is written to them before a reset.
        fork._columns = self._columns[of]
        fork._start_seconds, fork._step_index = self._start_seconds[of], self._step_index[of]
        fork._reward_divisor, fork._cost_per_hour = self._reward_divisor[of], self._cost_per_hour[of]
        fork.disturbances = self.disturbances.of(of)
        fork.services = None if self.services is None else self.services.of(of)
        fork.state = self.state.of(of, fork.disturbances, fork.services)
        fork._history = History(fork.num_envs)
        return fork

    def _load(self, mask: BoolArray, options: dict[str, Any]) -> None:
        shape = (self.num_envs, self.episode_steps)
        for name in ("rates_rps", "arrived"):
            values = np.asarray(options.get(name, options["rates_rps"]), dtype=np.float64)
            if values.shape != shape:
                raise ValueError(f"{name}: shape {values.shape} is not allowed; allowed: {shape}")
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ValueError(f"{name}: holds negative or non-finite values; allowed: finite numbers from 0")
            if name == "rates_rps":
                self._rates[:, mask] = values.T[:, mask]
            else:
                scale = 1.0 if "arrived" in options else self.params.interval_seconds
                self._arrived[:, mask] = values.T[:, mask] * scale
        self.disturbances.clear(mask)
        self._reward_divisor[mask] = 1.0
        if self.services is not None:
            self.services.restore(mask)
        begin = np.asarray(options.get("start_unix_seconds", self.pool.members[0].start_unix_seconds), dtype=np.float64)
        self._start_seconds[mask] = np.broadcast_to(begin, (self.num_envs,))[mask]

    def _draw(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        p, steps = self.params, self.episode_steps
        capacity, startup = self.state.capacity_rps.copy(), self.state.startup_steps.copy()
        for i in rows:
            rng = self._streams.of("window", i)
            self.disturbances.draw(i, self._streams)
            dispersion = float(self.disturbances.service.arrival_dispersion[i])
            stride = 1
            if self.services is not None:
                self.services.draw(i, self.randomisation.services, self._streams.of("service", i))
                stride = int(self.services.multiple[i])
            series = self.pool.draw(rng)
            interval_seconds = p.interval_seconds * stride
            start = int(rng.integers(0, len(series) - stride * (steps - 1)))
            past = 0
            if self._past_rps is not None:
                low, high = self.randomisation.past_steps
                past = min(int(self._streams.of("past", i).integers(low, high + 1)), start // stride)
            window = series.rates_rps[start - stride * past : start + stride * (steps - 1) + 1 : stride]
            rng = self._streams.of("randomisation", i)
            rates = at_drawn_level(window, self.randomisation, interval_seconds, rng)
            capacity_scale, startup_scale = (
                rng.uniform(low, high) for low, high in (self.randomisation.capacity_scale, self.randomisation.startup_scale)
            )
            rates = with_surges(rates, self.randomisation, interval_seconds, rng)
            if self._past_rps is not None:
                before, rates = rates[:past], rates[past:]
                # As measured: what came, not the mean.
                came = drawn_arrivals(before * interval_seconds, dispersion, self._streams.of("past", i)) / interval_seconds
                self._past_rps[:, i] = rates[0]
                self._past_rps[len(self._past_rps) - past :, i] = came
                self._past_rps[: len(self._past_rps) - past, i] = came[0] if past else rates[0]
            requests = rates * interval_seconds
            self._rates[:, i] = rates
            self._arrived[:, i] = (
                requests
                if self.arrivals_kind == "exact"
                else drawn_arrivals(requests, dispersion, self._streams.of("arrivals", i))
            )
            self._start_seconds[i] = series.start_unix_seconds + start * p.interval_seconds
            s = p if self.services is None else self.services.one(i)
            capacity[i] = s.replica_capacity_rps * capacity_scale
            if self.randomisation.relative_reward:
                self._reward_divisor[i] = stride * _usual_reserve(rates, s, startup_scale)
            startup[i] = int(np.ceil(s.startup_seconds * startup_scale / interval_seconds))
        return capacity, startup

    def observe(self) -> NDArray[np.float32]:
        """(num_envs, num_fields) float32, clipped to the fields' bounds."""
        interval = self.state.services.interval_seconds
        clock = self._start_seconds + self._step_index * interval if clock_fields(self.params) else None
        columns = self.state.observe(clock)
        np.clip(columns, self._low, self._high, out=columns)
        return np.ascontiguousarray(columns.T, dtype=np.float32)

    def step_batch(self, actions: NDArray[Any]) -> BatchStep:
        """Decode indices of the move table into targets and step.

        Args:
            actions: (num_envs,) integers in [0, len(moves)).

        Raises:
            ValueError: another shape or dtype, or an index outside the table.
        """
        actions = check_actions(actions, self.num_envs, len(self.move_table))
        return self.step_targets(self.move_table.targets(actions, self.state.total))

    def step_targets(self, desired_replicas: NDArray[Any]) -> BatchStep:
        """Step with a target in replicas: what rules, look-ahead and the optimum command.

        Args:
            desired_replicas: (num_envs,) any number; rounded to whole replicas and clipped to [min_replicas, max_replicas].

        Raises:
            ValueError: another shape, or not a number.
        """
        outcome = self.advance(self.check_targets(desired_replicas))
        if self._history:
            self._cost_per_hour = outcome.cost.total * self.params.steps_per_hour
            self._history.add(*drawn_columns(self.state))
        truncated = self._step_index >= self.episode_steps
        total = outcome.cost.total
        info = {
            "J": total,
            "replica_cost": outcome.cost.replica_cost,
            "late_cost": outcome.cost.late_cost,
            "move_cost": outcome.cost.move_cost,
            "arrived_requests": outcome.arrived,
            "late_requests": outcome.late,
            "dropped_requests": outcome.dropped,
            "backlog_requests": self.state.backlog,
            "billed_replicas": outcome.billed_replicas,
            "change_replicas": outcome.change,
        }
        reward = -total * self.params.reward_per_currency
        if self.randomisation.relative_reward:
            reward /= self._reward_divisor
        return BatchStep(self.observe(), reward, np.zeros(self.num_envs, dtype=np.bool_), truncated, info)

    def advance(self, desired_replicas: NDArray[np.float64]) -> StepOutcome:
        """The transition alone, without building an observation; targets are whole numbers."""
        # An ended episode may be stepped once more before its reset (NEXT_STEP): it sees its last interval again.
        at = np.minimum(self._step_index, self.episode_steps - 1)
        # A copy either way: the caller may keep it past the reset that overwrites these rows.
        arrived = self._arrived[at[0]].take(self._columns) if (at == at[0]).all() else self._arrived[at, self._columns]
        outcome = self.state.step(desired_replicas, arrived, self.disturbances.at(at))
        self._step_index += 1
        return outcome

    def render_one(self, index: int, mode: str) -> str | NDArray[np.uint8]:
        """A line of text, or rate, capacity, replicas and late share over time."""
        step = int(self._step_index[index])
        if mode == "ansi":
            return as_text(self.state, index, step)
        past = self._history.of(index, *drawn_columns(self.state))
        return as_picture(past, step, self.params.interval_seconds, float(self._cost_per_hour[index]))


def _usual_reserve(rates_rps: NDArray[np.float64], service: AutoscaleParams, startup_scale: float) -> float:
    """How much there is to lose, in replicas.

    What carries the rate's usual change from an order until it serves, and part of what it costs to follow that much too late.
    """
    steps = min(len(rates_rps) - 1, 1 + int(np.ceil(service.startup_seconds * startup_scale / service.interval_seconds)))
    if not steps:
        return _LEAST_RESERVE
    before, now = rates_rps[:-steps], rates_rps[steps:]
    reserve = float(np.sqrt(np.mean((now - before) ** 2))) / service.replica_capacity_rps
    late_rps = float(np.mean(np.maximum(now - before / _FOLLOWED_AT, 0.0)))
    late = late_rps * 3600.0 * service.price_per_late_request / max(service.price_per_replica_hour, 1e-9)
    return _LEAST_RESERVE + reserve + _LATE_SHARE * late


class AutoscaleVectorEnv(ScalingVectorEnv[AutoscaleBatch]):
    """Native vector environment of Autoscale-v0."""


class AutoscaleEnv(ScalingEnv[AutoscaleBatch]):
    """Autoscale-v0 as a `gymnasium.Env`."""


make_env, make_vector_env = entry_points(AutoscaleBatch, AutoscaleEnv, AutoscaleVectorEnv)
