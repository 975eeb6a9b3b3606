"""What a step on a live deployment has brought: the reward of the environment that it stands in for, from what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from scalepilot.operate.live.tasks import Load
from scalepilot.operate.snapshot import Reading
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.objective import step_cost
from scalepilot_envs.cluster_deployment import ClusterDeploymentParams
from scalepilot_envs.cluster_deployment.measurement import NUM_FIELDS
from scalepilot_envs.cluster_deployment.reward import NOTHING, DeploymentReward
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.episode_metrics import EpisodeMetric, of_moves
from scalepilot_envs.function_workflow import FunctionWorkflowParams
from scalepilot_envs.function_workflow.reward import WorkflowStep, reward_of


@dataclass(frozen=True)
class Lived:
    """One step.

    Attributes:
        action: index that was chosen; None where it was a target.
        replicas: asked for after it.
        change: in them.
        values: field → what is known of it.
        extra: what is measured beside the fields: `requests` of the interval.
        is_last: the episode's time is over.
    """

    action: int | None
    replicas: int
    change: int
    values: Mapping[str, float]
    extra: Mapping[str, Reading] = field(default_factory=dict)
    is_last: bool = False

    def requests(self) -> float | None:
        """Of the interval; None where nothing counts them."""
        reading = self.extra.get("requests")
        return None if reading is None else reading.value


@dataclass(frozen=True)
class Outcome:
    """What the step is worth.

    Attributes:
        reward: as the simulated environment has it.
        terminated: the episode is over, as there.
        columns: name → number, as there.
    """

    reward: float
    terminated: bool
    columns: Mapping[str, float]


class Judge(Protocol):
    """The objective of one environment, on measurements.

    Attributes:
        needs: fields without which there is no reward, whatever stands in for them.
        counted: fields that count from the beginning of the episode; it is given them uncut.
        metrics: of an episode, from the columns.
    """

    needs: frozenset[str]
    counted: frozenset[str]
    metrics: Mapping[str, EpisodeMetric]

    def begin(self, values: Mapping[str, float], extra: Mapping[str, Reading], load: Load | None) -> None:
        """An episode begins; nothing is known of what was before.

        Args:
            values: field → what is known of it.
            extra: beside the fields.
            load: what the environment itself brings to the deployment.
        """
        ...

    def unknown(self, extra: Mapping[str, Reading]) -> str:
        """What of `extra` is missing and needed, with its reason; "" where nothing is."""
        ...

    def outcome(self, step: Lived) -> Outcome:
        """Of a step whose needs are known."""
        ...


def judge_of(env: EnvDescription) -> Judge:
    """The objective of an environment.

    Raises:
        ValueError: it has no live counterpart.
    """
    make = JUDGES.get(type(env.params))
    if make is None:
        raise ValueError(f"options.like: {env.env_id} has no live counterpart; allowed: {', '.join(NAMES)}")
    return make(env.params)


class _Counting:
    """What an objective does that counts requests."""

    counted: frozenset[str] = frozenset()

    def begin(self, values: Mapping[str, float], extra: Mapping[str, Reading], load: Load | None) -> None:
        """As `Judge`."""

    def unknown(self, extra: Mapping[str, Reading]) -> str:
        """As `Judge`."""
        reading = extra.get("requests")
        if reading is None:
            return "requests: nothing counts them (telemetry.requests)"
        return "" if reading.value is not None else f"requests: {reading.problem or 'unknown'}"


class TrafficJudge(_Counting):
    """Autoscale-v0: −J of the interval."""

    needs = frozenset({"late_share"})
    metrics: Mapping[str, EpisodeMetric] = {
        "late_share": EpisodeMetric("late_requests", "sum", per="arrived_requests"),
        **of_moves("change_replicas", "replicas"),
    }

    def __init__(self, params: AutoscaleParams) -> None:
        self._params = params

    def outcome(self, step: Lived) -> Outcome:
        """As `Judge`."""
        arrived = step.requests()
        assert arrived is not None
        counted = step.extra.get("late_requests")
        late = counted.value if counted is not None and counted.value is not None else arrived * step.values["late_share"]
        columns = {"replicas": step.replicas, "late_requests": late, "change_replicas": step.change}
        cost = step_cost(self._params, *(np.array([float(number)]) for number in columns.values()))
        money = {f"{name}_per_hour": float(part[0]) * self._params.steps_per_hour for name, part in cost._asdict().items()}
        J = float(cost.total[0])
        return Outcome(
            -J * self._params.reward_per_currency,
            False,
            {**columns, "arrived_requests": arrived, "J_per_hour": J * self._params.steps_per_hour, **money},
        )


class PodsJudge(_Counting):
    """ClusterDeployment-v0: its table, from the load that was counted."""

    needs = frozenset({"cpu_share", "memory_share", "swap_share"})
    metrics: Mapping[str, EpisodeMetric] = {
        "overloaded_steps": EpisodeMetric("overloaded_steps", "last"),
        **of_moves("change_pods", "pods"),
    }

    def __init__(self, params: ClusterDeploymentParams) -> None:
        self._reward = DeploymentReward(params)
        self._load, self._overloaded = np.zeros(1), np.zeros(1)

    def begin(self, values: Mapping[str, float], extra: Mapping[str, Reading], load: Load | None) -> None:
        """As `Judge`."""
        self._load, self._overloaded = np.array([extra["requests"].value or 0.0]), np.zeros(1)

    def outcome(self, step: Lived) -> Outcome:
        """As `Judge`."""
        load, pods, fields = np.array([step.requests()]), np.array([float(step.replicas)]), np.zeros((NUM_FIELDS, 1))
        # Rows in the order of the observation.
        fields[:, 0] = list(step.values.values())
        reward, terminated, self._overloaded = self._reward(
            np.array([NOTHING if step.action is None else step.action]), load, self._load, pods, fields, self._overloaded
        )
        self._load = load
        columns = {"load_requests": load[0], "pods": step.replicas, "change_pods": step.change}
        return Outcome(float(reward[0]), bool(terminated[0]), {**columns, "overloaded_steps": self._overloaded[0]})


class WorkflowJudge(_Counting):
    """FunctionWorkflow-v0: tasks are followed by how many came in and how many are done since the episode began."""

    needs = frozenset({"worker_queue", "output_queue", "qos"})
    counted = frozenset({"output_queue"})
    metrics: Mapping[str, EpisodeMetric] = {
        "on_time_share": EpisodeMetric("final_qos", "last"),
        "queue_requests": EpisodeMetric("queue"),
        "unfinished_requests": EpisodeMetric("unfinished", "last"),
        **of_moves("change", "workers"),
    }

    def __init__(self, params: FunctionWorkflowParams) -> None:
        self._params = params
        self._load: Load | None = None
        self._arrived = self._completed = self._on_time = 0.0

    def begin(self, values: Mapping[str, float], extra: Mapping[str, Reading], load: Load | None) -> None:
        """As `Judge`."""
        self._load = load
        self._arrived, self._completed, self._on_time = values["worker_queue"], 0.0, 0.0

    def outcome(self, step: Lived) -> Outcome:
        """As `Judge`."""
        qos, queue, load = step.values["qos"], step.values["worker_queue"], self._load
        completed = max(step.values["output_queue"], self._completed)
        done, self._completed = completed - self._completed, completed
        late = round((1.0 - qos) * done)
        self._on_time += done - late
        self._arrived = self._arrived + (step.requests() or 0.0) if load is None else float(load.put)
        pending = max(0.0, self._arrived - completed)
        terminated = load is not None and not step.is_last and completed >= load.total
        queued, workers, change, unfinished, behind = np.array(
            [[round(n)] for n in (queue, step.replicas, step.change, pending, late)]
        )
        ended = np.array([[terminated], [step.is_last]])
        reward = reward_of(self._params, WorkflowStep(np.array([qos]), queued, workers, change, unfinished, behind, *ended))
        of_all = max(1.0, self._arrived if load is None else float(load.total))
        return Outcome(
            float(reward[0]),
            terminated,
            {
                "qos": qos,
                "workers": step.replicas,
                "change": step.change,
                "completed": completed,
                "on_time": self._on_time,
                "final_qos": self._on_time / of_all,
                "queue": queue,
                "unfinished": of_all - completed,
            },
        )


JUDGES: dict[type, Callable[[Any], Judge]] = {
    AutoscaleParams: TrafficJudge,
    ClusterDeploymentParams: PodsJudge,
    FunctionWorkflowParams: WorkflowJudge,
}
NAMES = tuple(f"{kind.__name__.removesuffix('Params')}-v0" for kind in JUDGES)

__all__ = ["Judge", "Lived", "Outcome", "judge_of"]
