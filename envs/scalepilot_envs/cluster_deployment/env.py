"""ClusterDeployment-v0: pods of a deployment on nodes, scaled one at a time.

Observation, each as it is shown (float32):

| field | unit | range |
|---|---|---|
| cpu_share | share of a pod's CPU | 0 to 1 |
| memory_share | share of a pod's 500 MB | 0 to 1 |
| latency_seconds | s | 0 to 10 |
| swap_share | share of a pod's 200 MB of swap | 0 to 1 |
| node_share | nodes in use (8 ready pods each), of 5 | 0 to ⌈max_pods / 8⌉ / 5 |
| load_mean_5000_requests | mean load of the last 10 steps, in 5,000 requests a step; clipped to its range | 0 to max_pods / 10 |
| throughput_1000_requests | load served, in 1,000 requests a step | 0 to max_pods / 2 |

Actions: Discrete(3): 0 nothing, 1 one pod more, 2 one pod less (a pod still starting goes first, the youngest). A request
that would leave [min_pods, max_pods] or fails (5 %) changes nothing and costs what it costs.
Reward: in [−1, 1]. Scaling up is rewarded when CPU or memory is high, down when CPU is below 0.3, nothing when it is in
0.3 to 0.7; +0.3 for the pods that carry the load at 60 %, ±0.3 for scaling with or against a load that moves by over 10 %;
less for CPU or memory above 0.9, for swap, 0.1 a step, and 0.05 or 0.02 for a request. The step that ends overloaded: −5.
Load: 500 requests a step (a pod carries as many) with a daily sine of 30 % over 1,440 steps, spikes and noise, at least 50.
Start: 5 ready pods, none starting. End: terminated after 3 steps in a row with CPU or memory above 0.9 or swap above 0.8;
truncated after `episode_steps`.
Arguments: `params` (`ClusterDeploymentParams` or its mapping), `episode_steps`, `weekend_day` (0, 1, 2 or "random"),
`random_phase` (the day starts anywhere), `events` ((start_step, steps, factor), …).
`reset(options={"loads": (num_envs, episode_steps + 1), "cpu_noise", "memory_noise", "failed": (num_envs, episode_steps)})`
runs given inputs; what is left out is zero (nothing fails).
History: v0, the first version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.batch_env import BatchStep, BoolArray, entry_points
from scalepilot_envs.checks import check_count, check_injected, check_options
from scalepilot_envs.cluster_deployment.description import EPISODE_STEPS, observation_fields
from scalepilot_envs.cluster_deployment.exogenous import Event, Exogenous, WeekendDay, events_of
from scalepilot_envs.cluster_deployment.measurement import (
    CPU,
    LATENCY,
    LOAD_MEAN,
    LOAD_SCALE,
    MEMORY,
    NODES,
    NUM_FIELDS,
    SWAP,
    ZERO,
    measure,
    node_share,
)
from scalepilot_envs.cluster_deployment.params import (
    MAX_LOAD_REQUESTS,
    POD_LOAD_REQUESTS,
    ClusterDeploymentParams,
)
from scalepilot_envs.cluster_deployment.reward import NUM_ACTIONS, DeploymentReward
from scalepilot_envs.description import params_from_mapping
from scalepilot_envs.drawing import MUTED, VERMILION, Canvas, Chart, History, Series, draw_charts
from scalepilot_envs.episode_metrics import METADATA_KEY, EpisodeMetric, of_moves
from scalepilot_envs.scaling import ScalingEnv, ScalingVectorEnv, UnitMoveBatch, check_actions

LOAD_WINDOW_STEPS = 10
_EPISODE_METRICS = {"overloaded_steps": EpisodeMetric("overloaded_steps", "last"), **of_moves("change_pods", "pods")}


class ClusterDeploymentBatch(UnitMoveBatch):
    """`num_envs` deployments.

    Args:
        num_envs: deployments stepped together.
        params: bounds, start-up and noise, or their mapping.
        episode_steps: steps until truncation.
        weekend_day: 0 a weekday, 1 and 2 a weekend's days (× 0.4, × 0.3); "random" draws a day of the week each episode.
        random_phase: draw the time of day at which an episode starts.
        events: (start_step, steps, factor): windows in which the daily load is multiplied.

    Raises:
        ValueError: an argument is out of range.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4, METADATA_KEY: _EPISODE_METRICS}  # noqa: RUF012
    move_of_action = np.array([0, 1, -1])

    def __init__(
        self,
        num_envs: int,
        *,
        params: ClusterDeploymentParams | Mapping[str, Any] | None = None,
        episode_steps: int = EPISODE_STEPS,
        weekend_day: WeekendDay = 0,
        random_phase: bool = False,
        events: Sequence[Event | Sequence[float]] = (),
    ) -> None:
        self.num_envs = check_count("num_envs", num_envs)
        self.episode_steps = check_count("episode_steps", episode_steps)
        self.params: ClusterDeploymentParams = params_from_mapping(ClusterDeploymentParams, params)
        self.exogenous = Exogenous(self.params, num_envs, episode_steps, weekend_day, random_phase, events_of(events))
        self.fields = observation_fields(self.params)
        self.single_observation_space = gym.spaces.Box(
            np.array([f.low for f in self.fields], dtype=np.float32),
            np.array([f.high for f in self.fields], dtype=np.float32),
            dtype=np.float32,
        )
        self.single_action_space: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(NUM_ACTIONS)
        self._highest_load_mean = np.float32(self.fields[LOAD_MEAN].high)
        self._moves = self.move_of_action.astype(np.float64)
        self._reward = DeploymentReward(self.params)
        self._least, self._most = np.array(float(self.params.min_pods)), np.array(float(self.params.max_pods))
        self.ready = np.zeros(num_envs)
        self.pods = np.zeros(num_envs)
        self.starting = np.zeros((self.params.startup_steps, num_envs))
        self.overloaded_steps = np.zeros(num_envs)
        self.step_index = np.zeros(num_envs, dtype=np.int64)
        self.measured = np.zeros((NUM_FIELDS, num_envs))
        self.load_requests = np.zeros(num_envs)
        # The newest loads, a ring; its newest row is shared by all.
        self._loads, self._newest = np.zeros((LOAD_WINDOW_STEPS, num_envs)), 0
        self._observation = np.zeros((num_envs, NUM_FIELDS), dtype=np.float32)
        self._history = History(num_envs)

    @property
    def total_replicas(self) -> NDArray[Any]:
        """(num_envs,) pods, ready and starting."""
        return self.pods

    def seed_streams(self, seeds: Sequence[int | None]) -> None:
        """New streams for environment i from `seeds[i]`; None keeps its own."""
        self.exogenous.seed(seeds)

    def reset_batch(self, mask: BoolArray | None = None, options: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Start episodes where `mask` is true.

        Args:
            mask: (num_envs,) which to reset; all if None.
            options: loads, cpu_noise, memory_noise and failed, as the module says.

        Raises:
            ValueError: an option is unknown, has another shape or is not finite, or a load is negative.
        """
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        given_inputs = check_options(options, ("loads", "cpu_noise", "memory_noise", "failed"))
        if given_inputs:
            self.exogenous.inject(rows, self._checked(given_inputs))
        else:
            self.exogenous.next_episodes(rows)
        start = np.full(len(rows), float(self.params.start_pods))
        load = self.exogenous.first_load(rows)
        self._loads[:, rows] = load
        fields = measure(load, start)
        fields[NODES] = node_share(start)
        fields[LOAD_MEAN] = load / LOAD_SCALE
        self.starting[:, rows] = 0.0
        self.step_index[rows] = 0
        # Into copies: what a step returned belongs to its caller.
        self.ready, self.pods = _with(self.ready, rows, start), _with(self.pods, rows, start)
        self.overloaded_steps = _with(self.overloaded_steps, rows, 0.0)
        self.load_requests = _with(self.load_requests, rows, load)
        self.measured[:, rows] = fields
        self._observation = _with(self._observation, rows, self._shown(fields))
        self._history.clear(mask)
        self._history.add(*self._drawn_columns(), mask=mask)
        return self._observation

    def _checked(self, options: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
        n, steps = self.num_envs, self.episode_steps
        if "loads" not in options:
            raise ValueError("options.loads: missing; give it together with cpu_noise, memory_noise or failed")
        loads = check_injected("options.loads", options["loads"], n, steps + 1)
        if loads.max() > MAX_LOAD_REQUESTS:
            raise ValueError(f"options.loads: {loads.max():g} is not allowed; allowed: up to {MAX_LOAD_REQUESTS:g} requests")
        given = {"loads": loads}
        for name in ("cpu_noise", "memory_noise", "failed"):
            values = np.asarray(options.get(name, np.zeros((n, steps))), dtype=np.float64)
            # Noise may be negative; only its size is checked where the others' are.
            check_injected(f"options.{name}", np.abs(values), n, steps)
            given[name] = values.reshape(n, steps)
        if not np.isin(given["failed"], (0.0, 1.0)).all():
            raise ValueError("options.failed: holds other values than true and false; allowed: true, false")
        return given

    def step_batch(self, actions: NDArray[Any]) -> BatchStep:
        """Scale, serve a step's load, and let what is starting come closer.

        Args:
            actions: (num_envs,) 0 nothing, 1 one pod more, 2 one pod less.

        Raises:
            ValueError: another shape or dtype, or an index out of range.

        Source:
            shared specification `golden/cluster_deployment.py`, replayed by the tests to 1e-9.
        """
        actions = check_actions(actions, self.num_envs, NUM_ACTIONS)
        # An ended episode may be stepped once more before its reset (NEXT_STEP): it sees its last step again.
        self.step_index = np.minimum(self.step_index, self.episode_steps - 1) + 1
        given = self.exogenous.at(self.step_index)
        change = self._scale(actions, given.succeeds)
        fields = measure(given.load, self.ready, given.cpu_noise, given.memory_noise)
        reward, terminated = self._judge(actions, given.load, fields)
        # Ordered pods come one step closer; row 0 serves from the next step.
        self.ready = self.ready + self.starting[0]
        self.starting[:-1] = self.starting[1:]
        self.starting[-1] = 0.0
        fields[NODES] = node_share(self.ready)
        self._newest = (self._newest + 1) % LOAD_WINDOW_STEPS
        self._loads[self._newest] = given.load
        fields[LOAD_MEAN] = self._load_mean()
        self.measured, self.load_requests = fields, given.load
        self._observation = self._shown(fields)
        if self._history:
            self._history.add(*self._drawn_columns())
        info = {
            "load_requests": self.load_requests,
            "pods": self.pods,
            "ready_pods": self.ready,
            "change_pods": change,
            "overloaded_steps": self.overloaded_steps,
        }
        return BatchStep(self._observation, reward, terminated, self.step_index >= self.episode_steps, info)

    def _scale(self, actions: NDArray[Any], succeeds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Order or cancel a pod; the change in pods, 0 where the request failed or a bound stopped it."""
        change = self.pods + self._moves.take(actions)
        np.minimum(change, self._most, out=change)
        np.maximum(change, self._least, out=change)
        change -= self.pods
        change *= succeeds
        self.pods = self.pods + change
        # The newest row is empty here: all rows came closer since the last order.
        ordered = np.maximum(change, ZERO, out=self.starting[-1])
        surplus = ordered - change
        for row in self.starting[-2::-1]:
            cancelled = np.minimum(row, surplus)
            row -= cancelled
            surplus -= cancelled
        self.ready = self.ready - surplus
        return change

    def _judge(
        self, actions: NDArray[Any], load: NDArray[np.float64], fields: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], BoolArray]:
        """Reward and end of the step, from its actions, its load and what was measured."""
        reward, terminated, self.overloaded_steps = self._reward(
            actions, load, self.load_requests, self.pods, fields, self.overloaded_steps
        )
        return reward, terminated

    def _load_mean(self) -> NDArray[np.float64]:
        """(num_envs,) mean load of the last steps, scaled."""
        total: NDArray[np.float64] = self._loads[(self._newest + 1) % LOAD_WINDOW_STEPS].copy()
        # From the oldest to the newest, one by one: sums round alike in every batch, and as the reference's do.
        for age in range(2, LOAD_WINDOW_STEPS + 1):
            total += self._loads[(self._newest + age) % LOAD_WINDOW_STEPS]
        total /= LOAD_WINDOW_STEPS
        total /= LOAD_SCALE
        return total

    def _shown(self, fields: NDArray[np.float64]) -> NDArray[np.float32]:
        """(environments, NUM_FIELDS) float32; the mean load is clipped to its bound, the rest is inside its own."""
        shown = fields.T.astype(np.float32, order="C")
        mean = shown[:, LOAD_MEAN]
        np.minimum(mean, self._highest_load_mean, out=mean)
        return shown

    def _drawn_columns(self) -> tuple[NDArray[Any], ...]:
        return self.load_requests, self.ready, self.measured[CPU], self.measured[MEMORY], self.pods

    def render_one(self, index: int, mode: str = "ansi") -> Any:
        """A line of text, or the episode so far: load beside what the ready pods carry, CPU and memory, and pods."""
        heading = f"step {self.step_index[index]} of {self.episode_steps}"
        overloaded = f"overloaded {self.overloaded_steps[index]:.0f} of {self.params.patience} steps"
        if mode == "ansi":
            m = self.measured[:, index]
            return (
                f"{heading}  load {self.load_requests[index]:,.0f} requests  pods {self.ready[index]:.0f} ready"
                f" + {self.pods[index] - self.ready[index]:.0f} starting  cpu {m[CPU]:.0%}  memory {m[MEMORY]:.0%}"
                f"  swap {m[SWAP]:.0%}  latency {m[LATENCY]:.2f} s  {overloaded}"
            )
        load, ready, cpu, memory, pods = self._history.of(index, *self._drawn_columns())
        canvas = Canvas()
        canvas.text((16, 20), f"ClusterDeployment-v0 · {heading}", size=15)
        colour = VERMILION if self.overloaded_steps[index] else MUTED
        canvas.text((canvas.width - 16, 20), overloaded, colour, size=15, align="right")
        charts = [
            Chart(
                [Series("load", np.rint(load)), Series("capacity of ready pods", POD_LOAD_REQUESTS * ready)], "requests a step"
            ),
            Chart([Series("pods", pods), Series("ready", ready)], ""),
            Chart(
                [Series("CPU", np.rint(100 * cpu)), Series("memory", np.rint(100 * memory))], "%", high=100.0, band=(30.0, 70.0)
            ),
        ]
        draw_charts(canvas, charts, num_steps=self.episode_steps, step=int(self.step_index[index]))
        return canvas.array()


def _with(values: NDArray[Any], rows: NDArray[np.int64], new: Any) -> NDArray[Any]:
    values = values.copy()
    values[rows] = new
    return values


class ClusterDeploymentVectorEnv(ScalingVectorEnv[ClusterDeploymentBatch]):
    """Native vector environment of ClusterDeployment-v0."""


class ClusterDeploymentEnv(ScalingEnv[ClusterDeploymentBatch]):
    """ClusterDeployment-v0 as a `gymnasium.Env`."""


make_env, make_vector_env = entry_points(ClusterDeploymentBatch, ClusterDeploymentEnv, ClusterDeploymentVectorEnv)
