"""The best causal policy of Autoscale-v0 on a Markov-modulated workload: what can be had without knowing what comes.

Levels are far enough apart for the newest rate to show the phase, so that a decision depends on the phase i of the newest
interval, the replicas c (ready, and starting by steps to go) and the backlog q, and on nothing else:

    V_t(i, c, q) = min_n [ c_r·n + c_s·|n − |c|| + Σ_j P_ij E_A ( c_v·late(A, y, q) + V_{t+1}(j, c', q'(A, y, q)) ) ]

over all targets n, with y replicas that serve and c' at the next decision as the simulator has it, and A Poisson arrivals of
phase j. It is solved backwards over the episode. The backlog lies on a grid: rounded down it gives a bound that no causal
policy breaks, interpolated the value and the policy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.policy import Decision
from scalepilot.policy.fields import FieldView
from scalepilot.policy.spec import PolicySpec, env_fields
from scalepilot.simulate.optimum.autoscale import check_one_queue, ready_at_start
from scalepilot.simulate.optimum.causal_interval import interval_model, poisson
from scalepilot.simulate.optimum.causal_process import Choices, Process
from scalepilot.simulate.optimum.ready_replicas import BacklogGrid
from scalepilot.simulate.optimum.replica_states import ReplicaStates
from scalepilot_envs.autoscale import AutoscaleParams, MoveTable
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.autoscale.observation import NUM_STARTING_QUARTERS
from scalepilot_envs.workloads import MarkovWorkload

Array = NDArray[np.float64]
Arrivals = Literal["poisson", "exact"]

_BACKLOG_POINTS = 128
# Decisions, over all states of the replicas: more take minutes. Phases taken for each other more often than this are hidden.
_MOST_CHOICES, _MOST_MISTAKEN = 10_000, 1e-3


@dataclass(frozen=True)
class CausalOptimum:
    """The best that can be done without knowing what comes, over an episode from a reset.

    Attributes:
        lower_J_per_hour: (num_phases,) by the phase of the first interval: no causal policy is expected to cost less.
        expected_J_per_hour: (num_phases,) what `policy` is expected to cost.
        policy: decides from observations; an episode of the length it was made for.
    """

    lower_J_per_hour: Array
    expected_J_per_hour: Array
    policy: CausalPolicy

    def by_episode(self, J_per_hour: Array, first_rates_rps: Array) -> Array:
        """(n,) figures by phase for episodes whose first rates (n,) are known."""
        requests = first_rates_rps * self.policy.interval_seconds
        found: Array = J_per_hour[self.policy.phase_of(requests)]
        return found


class CausalPolicy:
    """Looks the target up by the step, the phase that the newest rate shows, the replicas and the backlog.

    Args:
        name: row label in tables.
        params: the service.
        replicas: its states.
        points: (num_points,) of the backlog.
        thresholds: (num_phases − 1,) requests of an interval between two phases, by level.
        by_level: (num_phases,) phases by level.
        first: (num_phases,) targets of the first step, when the observation shows the coming interval's level.
        tables: targets (num_phases, num_states, num_points) of the later steps.
        table_of_step: (num_steps,) which table.
    """

    def __init__(
        self,
        name: str,
        params: AutoscaleParams,
        *,
        replicas: ReplicaStates,
        points: Array,
        thresholds: Array,
        by_level: NDArray[np.int64],
        first: Array,
        tables: list[Choices],
        table_of_step: NDArray[np.int64],
    ) -> None:
        env = describe_autoscale(params)
        self.spec = PolicySpec(name, "1", "rule", env.env_id, asdict(params), env_fields(env))
        self.interval_seconds = params.interval_seconds
        self._replicas, self._first, self._tables, self._table_of_step = replicas, first, np.stack(tables), table_of_step
        self._thresholds, self._by_level = thresholds, by_level
        self._between = (points[1:] + points[:-1]) / 2
        self._view = FieldView(self.spec.observation_fields)
        steps = np.arange(replicas.startup_steps - 1)
        self._quarters = np.minimum(NUM_STARTING_QUARTERS - 1, NUM_STARTING_QUARTERS * steps // replicas.startup_steps)

    def phase_of(self, requests: Array) -> NDArray[np.int64]:
        """(n,) the phase that most probably brought so many requests in an interval."""
        found: NDArray[np.int64] = self._by_level[np.searchsorted(self._thresholds, requests, side="right")]
        return found

    def act(
        self, observation: NDArray[Any], state: Any = None, *, deterministic: bool = True, rng: np.random.Generator | None = None
    ) -> tuple[Decision, Any]:
        """See `Policy.act`; the state is the step."""
        column = self._view.column
        phase = self.phase_of(np.rint(column(observation, "request_rate_rps_0") * self.interval_seconds))
        if state is None:
            return Decision(desired_replicas=self._first[phase]), {"step": np.ones(len(observation), dtype=np.int64)}
        names = ("ready_replicas", *(f"starting_replicas_{quarter}" for quarter in self._quarters))
        at = self._replicas.index(np.stack([np.rint(column(observation, name)).astype(np.int64) for name in names], axis=1))
        backlog = np.searchsorted(self._between, column(observation, "backlog_requests"))
        step = np.asarray(state["step"], dtype=np.int64)
        table = self._table_of_step[np.minimum(step, len(self._table_of_step) - 1)]
        return Decision(desired_replicas=self._tables[table, phase, at, backlog].astype(np.float64)), {"step": step + 1}


def causal_optimum(
    workload: MarkovWorkload,
    params: AutoscaleParams,
    num_steps: int,
    *,
    arrivals: Arrivals = "poisson",
    moves: MoveTable | None = None,
    name: str = "optimum-causal",
) -> CausalOptimum:
    """Solve the decision process of an episode.

    Args:
        workload: on the grid of the decision interval.
        params: the service; few replicas, a short start-up, everything shown and applied without a lag.
        num_steps: of an episode.
        arrivals: as `AutoscaleBatch` has them.
        moves: only targets that these moves reach: what a learner with this table can hope for; any target if None.
        name: of the policy.

    Raises:
        InputError: the best causal policy cannot be computed: phases that the newest rate does not tell apart, a lag, another
            grid, or too many states.
    """
    levels = workload.scaled_levels_rps()
    means = levels * params.interval_seconds
    thresholds, by_level = _told_apart(workload, params, means, arrivals)
    replicas = _replica_states(params)
    most = params.max_wait_seconds * params.max_replicas * params.replica_capacity_rps
    grid = BacklogGrid(most, params.replica_capacity_rps * params.interval_seconds, _BACKLOG_POINTS)
    serving = np.arange(params.min_replicas, params.max_replicas + 1.0)
    at_start = np.array([ready_at_start(params, rate) for rate in levels])
    model = interval_model(params, means, serving, grid, exact=arrivals == "exact")
    lower, best = (
        Process(params, replicas, workload.transition_matrix, model.late, left, moves).solve(num_steps, at_start)
        for left in (model.left_rounded_down, model.left)
    )
    hours = num_steps / params.steps_per_hour
    policy = CausalPolicy(
        name,
        params,
        replicas=replicas,
        points=grid.points,
        thresholds=thresholds,
        by_level=by_level,
        first=best.first,
        tables=best.tables,
        table_of_step=best.table_of_step,
    )
    return CausalOptimum(lower.values / hours, best.values / hours, policy)


def _replica_states(params: AutoscaleParams) -> ReplicaStates:
    """The replicas' states, where there are few enough."""
    low, high, steps = params.min_replicas, params.max_replicas, params.startup_steps
    for field in ("metric_lag_steps", "actuation_lag_steps"):
        if getattr(params, field):
            raise InputError(f"env.params.{field}: {getattr(params, field)} is not allowed for the causal optimum; allowed: 0")
    check_one_queue(params, "causal optimum")
    if steps > NUM_STARTING_QUARTERS:
        allowed = f"up to {NUM_STARTING_QUARTERS * params.interval_seconds:g}"
        raise InputError(
            f"env.params.startup_seconds: {params.startup_seconds:g} is not allowed for the causal optimum; allowed: {allowed}"
        )
    if ReplicaStates.count(low, high, steps) * (high - low + 1) > _MOST_CHOICES or (high + 1) ** (steps - 1) > _MOST_CHOICES:
        raise InputError(
            f"env.params.max_replicas: {high} with a start-up of {steps} steps has too many states for the causal optimum;"
            " allowed: fewer replicas or a shorter start-up"
        )
    return ReplicaStates(low, high, steps)


def _told_apart(
    workload: MarkovWorkload, params: AutoscaleParams, means: Array, arrivals: Arrivals
) -> tuple[Array, NDArray[np.int64]]:
    """Counts between the phases, by level, and the phases in that order.

    Raises:
        InputError: the newest rate does not tell which phase it is.
    """
    if workload.interval_seconds != params.interval_seconds:
        raise InputError(
            f"workload.interval_seconds: {workload.interval_seconds:g} is not allowed for the causal optimum; allowed:"
            f" the decision interval, {params.interval_seconds:g}"
        )
    if arrivals == "poisson" and params.arrival_dispersion != 1:
        told = f"{params.arrival_dispersion:g} is not allowed for the causal optimum with Poisson arrivals"
        raise InputError(f"env.params.arrival_dispersion: {told}; allowed: 1")
    by_level = np.argsort(means, kind="stable")
    low, high = means[by_level][:-1], means[by_level][1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where both are equally probable.
        between = np.where(low > 0, (high - low) / np.log(high / np.where(low > 0, low, 1.0)), 0.5)
    if arrivals == "exact":
        between, mistaken = (low + high) / 2, np.where(low == high, 1.0, 0.0)
    else:
        mistaken = np.array([_mistaken(a, b, at) for a, b, at in zip(low, high, between, strict=True)])
    if mistaken.max() > _MOST_MISTAKEN:
        a, b = (float(workload.levels_rps[by_level[int(mistaken.argmax()) + i]]) for i in (0, 1))
        raise InputError(
            f"workload.levels_rps: {a:g} and {b:g} cannot be told apart by the rate of one interval, which the causal optimum"
            " needs; allowed: levels farther apart"
        )
    return between, by_level


def _mistaken(low: float, high: float, between: float) -> float:
    """The larger probability that one of two phases is taken for the other."""
    if low == high:
        return 1.0
    (few, of_few), (many, of_many) = poisson(low), poisson(high)
    return float(max(of_few[few >= between].sum(), of_many[many < between].sum()))
