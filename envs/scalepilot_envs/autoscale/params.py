"""Every physical constant of Autoscale-v0, in one frozen dataclass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, get_args

from scalepilot_envs.checks import Between, check_declared
from scalepilot_envs.description import params_from_mapping

# An artifact or a config may come from anywhere: what is allocated by them has a bound.
MAX_REPLICAS, MAX_STEPS = 1_000_000, 10_000
_FORBID_UNKNOWN_KEYS = {"extra": "forbid"}
_LONG_WINDOW_BLOCKS = 16
# What a policy is shown, and nothing of the service: it may differ between policies that run the same one.
VIEW_PARAMS = ("history_steps", "window_steps", "observe_clock", "observe_hour", "observe_service", "long_window_steps")

# Of what is drawn for an episode: a longer pipeline, or more crowds, would be allocated.
Factor = Annotated[float, Between(0, 1e6, above=True)]
StartupFactor = Annotated[float, Between(0, 100, above=True)]
Noise = Annotated[float, Between(0, 100)]
SurgeMinutes = Annotated[float, Between(0, 10_080, above=True)]
Minutes = Annotated[float, Between(0, 10_080)]
Share = Annotated[float, Between(0, 1)]
Lag = Annotated[int, Between(0, MAX_STEPS)]
Replicas = Annotated[int, Between(1, MAX_REPLICAS)]
Startup = Annotated[float, Between(0, 86_400, above=True)]
Multiple = Annotated[int, Between(1, 1000)]
Dispersion = Annotated[float, Between(0, 1e6)]
ProbePeriod = Annotated[float, Between(0.1, 3600)]

LoadBalancing = Literal["central", "random"]
WaitingProbability = Literal["sakasegawa", "erlang_c"]

# What the fields of `observe_service`, and the capacity, tell.
SERVICE_PARAMS = (
    *("interval_seconds", "replica_capacity_rps", "startup_seconds", "wait_slo_seconds"),
    *("price_per_replica_hour", "price_per_late_request", "min_replicas", "max_replicas"),
)

Positive = Annotated[float, Between(0, above=True)]
NotNegative = Annotated[float, Between(0)]


@dataclass(frozen=True)
class AutoscaleParams:
    """A replicated HTTP service behind a load balancer, its prices and what monitoring shows of it.

    Attributes:
        interval_seconds: time between two decisions.
        replica_capacity_rps: requests a second one replica serves.
        service_time_seconds: time one request is in service.
        startup_seconds: time from ordering a replica until it serves.
        min_replicas: fewest replicas (ready + starting) a target may ask for; with 0, requests that find none are late and lost.
        max_replicas: most replicas a target may ask for.
        wait_slo_seconds: a request that waits longer is late.
        max_wait_seconds: the backlog holds at most this many seconds of capacity; the rest is dropped.
        price_per_replica_hour: currency for one billed replica (ready or starting) and hour.
        price_per_late_request: currency for one late (or dropped) request.
        price_per_move: currency for one replica ordered or removed.
        history_steps: newest request rates shown one by one.
        window_steps: steps behind the shown mean and standard deviation of the rate.
        observe_clock: append sin and cos of the time of day and of the week.
        observe_hour: append sin and cos of the time within the hour: what is scheduled by the minute can be seen coming.
        observe_service: append what differs between services, so that one policy can serve all of them: start-up time, SLO,
            interval, price of a late request in replica-hours, and bounds.
        long_window_steps: steps of a long window and of a quarter of it over which mean, highest rate, usual change and steepest
            rise are appended: whether traffic is calm or restless; a multiple of 16, 0 for none.
        reward_per_currency: reward = −J of the step × this constant; with 24, ten replicas for 15 s at 1.0 an hour are −1.
        load_balancing: "central": one queue, a free replica takes its head; "random": each request goes to a ready replica
            drawn uniformly and queues there.
        waiting_probability: how a central queue's is computed: "sakasegawa" (the approximation of the specification) or
            "erlang_c" (exact for M/M/c); without a say in random balancing, where it is the load. docs/latency.md has errors.
        metric_lag_steps: steps by which everything measured is shown late (a scrape delay); replica counts are current.
        actuation_lag_steps: steps by which a target takes effect late: with 1, it is applied when its interval is over, as by a
            controller that decides after a measurement and whose order reaches the service at the next one.
        arrival_dispersion: variance over mean of the requests of an interval: 1 for Poisson arrivals, 0 evenly spaced, above 1
            more restless (the mean of each interval varies by itself).
        service_variation: squared coefficient of variation of the service time: 1 for exponential, 0 for always the same.
        readiness_timeout_seconds: a replica whose queue takes longer fails its readiness probe and gets no more traffic until
            one succeeds (`timeoutSeconds` in Kubernetes); None for replicas that stay ready under any load.
        readiness_period_seconds: time between two probes (`periodSeconds`).
        readiness_failures: probes that must fail in a row (`failureThreshold`); one that succeeds ends it.
        backlog_stays: requests that wait stay where they were sent, so that replicas that come later do not help with them; only
            with random balancing.
    """

    interval_seconds: Positive = 15.0
    replica_capacity_rps: Positive = 20.0
    service_time_seconds: Positive = 0.05
    startup_seconds: Positive = 60.0
    min_replicas: Annotated[int, Between(0, MAX_REPLICAS)] = 1
    max_replicas: Annotated[int, Between(1, MAX_REPLICAS)] = 60
    wait_slo_seconds: NotNegative = 0.2
    max_wait_seconds: NotNegative = 30.0
    price_per_replica_hour: NotNegative = 1.0
    price_per_late_request: NotNegative = 0.001
    price_per_move: NotNegative = 0.0
    history_steps: Annotated[int, Between(1, MAX_STEPS)] = 8
    window_steps: Annotated[int, Between(1, MAX_STEPS)] = 40
    observe_clock: bool = False
    observe_hour: bool = False
    observe_service: bool = False
    long_window_steps: Annotated[int, Between(0, MAX_STEPS)] = 0
    reward_per_currency: Positive = 24.0
    load_balancing: LoadBalancing = "central"
    waiting_probability: WaitingProbability = "sakasegawa"
    metric_lag_steps: Lag = 0
    actuation_lag_steps: Lag = 0
    arrival_dispersion: Dispersion = 1.0
    service_variation: Dispersion = 1.0
    readiness_timeout_seconds: Positive | None = None
    readiness_period_seconds: ProbePeriod = 10.0
    readiness_failures: Annotated[int, Between(1, MAX_STEPS)] = 3
    backlog_stays: bool = False

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    def __post_init__(self) -> None:
        check_declared(self)
        for name, allowed in (("load_balancing", LoadBalancing), ("waiting_probability", WaitingProbability)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name}: {getattr(self, name)!r} is not allowed; allowed: {', '.join(get_args(allowed))}")
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas: {self.max_replicas} is below min_replicas {self.min_replicas}; allowed: from {self.min_replicas}"
            )
        if self.startup_seconds > MAX_STEPS * self.interval_seconds:
            raise ValueError(
                f"startup_seconds: {self.startup_seconds!r} is not allowed; allowed: up to {MAX_STEPS} intervals of"
                f" {self.interval_seconds:g} s"
            )
        if self.long_window_steps % _LONG_WINDOW_BLOCKS:
            raise ValueError(
                f"long_window_steps: {self.long_window_steps} is not allowed; allowed: multiples of {_LONG_WINDOW_BLOCKS}"
            )
        if self.history_steps > self.window_steps:
            raise ValueError(
                f"history_steps: {self.history_steps} is not allowed; allowed: 1 to window_steps ({self.window_steps})"
            )
        if self.backlog_stays and self.load_balancing != "random":
            raise ValueError(f"backlog_stays: true is not allowed with load_balancing {self.load_balancing!r}; allowed: random")

    @property
    def may_be_empty(self) -> bool:
        """Whether a target of 0 is allowed, so that nothing may serve."""
        return self.min_replicas == 0

    @property
    def startup_steps(self) -> int:
        """Decision steps from when an order takes effect until the replica serves."""
        return math.ceil(self.startup_seconds / self.interval_seconds)

    @property
    def order_steps(self) -> int:
        """Decision steps from an order to its service: until it takes effect, and its start-up."""
        return self.actuation_lag_steps + self.startup_steps

    @property
    def one_queue(self) -> bool:
        """Whether a single backlog says it all: replicas stay ready and share it. Only then the clairvoyant optimum is known."""
        return self.readiness_timeout_seconds is None and not self.backlog_stays

    @property
    def steps_per_hour(self) -> float:
        """Decision steps in an hour."""
        return 3600.0 / self.interval_seconds

    def seen_as(self, other: AutoscaleParams | Mapping[str, Any]) -> AutoscaleParams:
        """The same service, shown as `other` says: what a policy made with other options needs to see.

        Args:
            other: parameters, or their mapping as stored in an artifact; what it does not say is as by default.
        """
        given = asdict(other) if isinstance(other, AutoscaleParams) else other
        shown: dict[str, Any] = {f.name: given.get(f.name, f.default) for f in fields(AutoscaleParams) if f.name in VIEW_PARAMS}
        return replace(self, **shown)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> AutoscaleParams:
        """Build from a plain mapping, as stored in an artifact.

        Raises:
            ValueError: an unknown key.
        """
        params: AutoscaleParams = params_from_mapping(cls, values)
        return params


@dataclass(frozen=True)
class ServiceRanges:
    """Other services, one drawn for each training episode, log-uniformly; None keeps what the parameters say.

    Attributes:
        replica_capacity_rps: (low, high) requests/s one replica serves.
        startup_seconds: (low, high) from an order until it serves.
        wait_slo_seconds: (low, high) a request that waits longer is late.
        price_per_late_request: (low, high) currency.
        interval_multiples: (low, high) whole numbers: the decision interval is so many of the parameters' intervals.
        min_replicas: (low, high) fewest replicas; the parameters' bound is the least allowed here.
        max_replicas: (low, high) most replicas; the parameters' bound is the most allowed here.
    """

    replica_capacity_rps: tuple[Positive, Positive] | None = None
    startup_seconds: tuple[Startup, Startup] | None = None
    wait_slo_seconds: tuple[Positive, Positive] | None = None
    price_per_late_request: tuple[Positive, Positive] | None = None
    interval_multiples: tuple[Multiple, Multiple] | None = None
    min_replicas: tuple[Replicas, Replicas] | None = None
    max_replicas: tuple[Replicas, Replicas] | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    def __post_init__(self) -> None:
        check_declared(self)

    def check(self, params: AutoscaleParams) -> None:
        """Refuse bounds that the environment's own do not hold.

        Raises:
            ValueError: naming the field.
        """
        most = self.max_replicas or (params.max_replicas,) * 2
        if most[1] > params.max_replicas:
            raise ValueError(
                f"services.max_replicas: {list(most)} is not allowed; allowed: up to params.max_replicas ({params.max_replicas})"
            )
        least = self.min_replicas
        if least is not None and not params.min_replicas <= least[0] <= least[1] <= most[0]:
            raise ValueError(
                f"services.min_replicas: {list(least)} is not allowed; allowed: from params.min_replicas ({params.min_replicas})"
                f" to the least max_replicas ({most[0]})"
            )

    def longest_startup_steps(self, params: AutoscaleParams) -> int:
        """Decision steps from an order until it serves, at most."""
        longest = params.startup_seconds if self.startup_seconds is None else self.startup_seconds[1]
        multiple = 1 if self.interval_multiples is None else self.interval_multiples[0]
        return math.ceil(longest / (params.interval_seconds * multiple))

    def capacity_scale(self, params: AutoscaleParams) -> tuple[float, float]:
        """(low, high) drawn capacity of a replica over the parameters'."""
        low, high = self.replica_capacity_rps or (params.replica_capacity_rps,) * 2
        return low / params.replica_capacity_rps, high / params.replica_capacity_rps


@dataclass(frozen=True)
class Randomisation:
    """Ranges drawn again each episode in training; off by default.

    Attributes:
        workload_scale: (low, high) factor on the request rates, uniform.
        peak_rps: (low, high) requests/s, log-uniform, of the highest mean rate of an episode, in place of the recorded level: a
            service that has been quiet so far may be busy next month; None leaves the level alone.
        peak_share: share of episodes whose level is drawn so; the others keep `workload_scale`.
        smoothing_minutes: (low, high) width, uniform, of the moving average over the rates of those episodes: many users are
            steadier than few.
        capacity_scale: (low, high) factor on `replica_capacity_rps`, uniform; the field shows the drawn capacity.
        startup_scale: (low, high) factor on `startup_seconds`, uniform; the pipeline is as long as the longest.
        surges_per_hour: mean number of flash crowds added to the workload's own (a Poisson process): history holds few of
            them, and a policy that is to survive the next one must have met more.
        surge_factor: (low, high) by which one multiplies the rate, uniform.
        surge_minutes: (low, high) how long one lasts, uniform; it comes and goes within a minute.
        measurement_noise: (low, high) of the relative standard deviation, uniform an episode, of independent lognormal
            factors (mean 1) on each measured rate, CPU utilisation and latency; costs and replica counts stay exact.
        actuation_lag_steps: (low, high) whole steps by which targets take effect late, in place of the service's own; None
            leaves it alone.
        measurement_phase: (low, high) share of an interval, uniform, by which the measured window is behind: it shows so much
            of the interval before and the rest of the newest.
        field_dropout: (low, high) probability, uniform, that latency, late share, error share or backlog, each for itself, is
            missing in a step and shown as of a service at rest: the service time and 0.
        rate_dropout: (low, high) probability, uniform, that the newest rate is missing in a step; the one before is shown again.
        stuck_share: (low, high) probability, uniform, that a replica ordered never serves: it is billed and shown as starting
            until a scale-down removes it, before any other.
        services: constants of other services, drawn in place of the parameters'.
        past_steps: (low, high) whole steps, uniform, of the workload before the episode that its windows show already; where the
            workload has fewer, those.
        relative_reward: divide the rewards of each episode by a constant of its own, by how much there is to lose: the replicas
            that carry the rate's usual change within a start-up time, and part of what following it too late costs. In one batch
            a calm service then counts as much as a restless one; which policy is best for a service does not change.
            `train_J_per_hour` then is no money.
    """

    workload_scale: tuple[Factor, Factor] = (1.0, 1.0)
    peak_rps: tuple[Positive, Positive] | None = None
    peak_share: Share = 0.5
    smoothing_minutes: tuple[Minutes, Minutes] = (0.0, 0.0)
    capacity_scale: tuple[Factor, Factor] = (1.0, 1.0)
    startup_scale: tuple[StartupFactor, StartupFactor] = (1.0, 1.0)
    surges_per_hour: Annotated[float, Between(0, 3600)] = 0.0
    surge_factor: tuple[Factor, Factor] = (1.5, 2.5)
    surge_minutes: tuple[SurgeMinutes, SurgeMinutes] = (5.0, 15.0)
    measurement_noise: tuple[Noise, Noise] = (0.0, 0.0)
    actuation_lag_steps: tuple[Lag, Lag] | None = None
    measurement_phase: tuple[Share, Share] = (0.0, 0.0)
    field_dropout: tuple[Share, Share] = (0.0, 0.0)
    rate_dropout: tuple[Share, Share] = (0.0, 0.0)
    stuck_share: tuple[Share, Share] = (0.0, 0.0)
    services: ServiceRanges = field(default_factory=ServiceRanges)
    past_steps: tuple[Lag, Lag] = (0, 0)
    relative_reward: bool = False
    arrival_dispersion: tuple[Dispersion, Dispersion] | None = None
    readiness_timeout_seconds: tuple[Positive, Positive] | None = None
    readiness_period_seconds: tuple[ProbePeriod, ProbePeriod] | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    def __post_init__(self) -> None:
        check_declared(self)
        object.__setattr__(self, "services", params_from_mapping(ServiceRanges, self.services))
