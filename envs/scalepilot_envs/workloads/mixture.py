"""A weighted sum of other workloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np

from scalepilot_envs.checks import did_you_mean
from scalepilot_envs.workloads.checks import Peak, Seed, build, check_declared, parts_of
from scalepilot_envs.workloads.diurnal import DiurnalWorkload
from scalepilot_envs.workloads.drawn import DrawnWorkload
from scalepilot_envs.workloads.draws import PoissonWorkload, RandomWalkWorkload, RandomWorkload
from scalepilot_envs.workloads.markov import MarkovWorkload
from scalepilot_envs.workloads.patterns import SineCurveWorkload, SinusoidalWorkload, SpikeWorkload, SteadyWorkload, Weight
from scalepilot_envs.workloads.phases import PhasesWorkload
from scalepilot_envs.workloads.series import RateSeries
from scalepilot_envs.workloads.trace import TraceWorkload

SimpleWorkload = (
    SteadyWorkload
    | SineCurveWorkload
    | SinusoidalWorkload
    | SpikeWorkload
    | PoissonWorkload
    | RandomWorkload
    | RandomWalkWorkload
    | MarkovWorkload
    | PhasesWorkload
    | DiurnalWorkload
    | TraceWorkload
    | DrawnWorkload
)


def kinds_of(union: Any) -> dict[str, Any]:
    """The classes of a union of workloads by their kind."""
    return {str(next(f.default for f in fields(kind) if f.name == "kind")): kind for kind in get_args(union)}


def workload_of(values: Any, kinds: Mapping[str, Any], prefix: str = "workload.") -> Any:
    """Build one of `kinds` from plain data; a workload of theirs passes through.

    Raises:
        ValueError: unknown kind or key, with the nearest allowed one, or a value the kind refuses.
    """
    if isinstance(values, tuple(kinds.values())):
        return values
    kind = values.get("kind") if isinstance(values, Mapping) else getattr(values, "kind", values)
    if not isinstance(values, Mapping) or not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{prefix}kind: {kind!r} is not allowed; allowed: {', '.join(kinds)}{did_you_mean(kind, list(kinds))}")
    return build(kinds[kind], values, prefix)


def reseeded(workload: Any, seed: int) -> Any:
    """The same workload with other draws.

    Raises:
        ValueError: the kind draws nothing.
    """
    if not hasattr(workload, "seed"):
        raise ValueError(f"seed: a workload of kind {workload.kind} draws nothing; allowed: kinds with a key `seed`")
    return replace(workload, seed=seed)


class ByKind:
    """Tells pydantic, without importing it, that the member of a union is the one whose `kind` is given.

    The same as `pydantic.Field(discriminator="kind")`: one error about the member meant, not one for each member.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        choices = {kind: handler.generate_schema(member) for kind, member in kinds_of(source).items()}
        return {"type": "tagged-union", "choices": choices, "discriminator": "kind"}


@dataclass(frozen=True)
class Component:
    """One part of a mixture.

    Attributes:
        weight: its rates are multiplied by this.
        workload: any kind but a mixture.
    """

    weight: Weight = 1.0
    workload: Annotated[SimpleWorkload, ByKind()] = field(default_factory=DiurnalWorkload)

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_declared(self, "")
        object.__setattr__(self, "workload", workload_of(self.workload, kinds_of(SimpleWorkload)))


@dataclass(frozen=True)
class MixtureWorkload:
    """The weighted sum of workloads on the finest of their grids, as long as the shortest.

    The components begin together, at the moment the first of them begins; coarser ones are interpolated linearly.

    Attributes:
        components: what is summed; no mixtures.
        seed: draws each component again, with a seed derived from this one; None keeps the components' own seeds.
        peak_rps: scale so that the sum's 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["mixture"] = "mixture"
    components: tuple[Component, ...] = (
        Component(0.7, DiurnalWorkload()),
        Component(0.3, DiurnalWorkload(low_rps=100.0, high_rps=200.0, noise_sigma=0.5, seed=1)),
    )
    seed: Seed | None = None
    peak_rps: Peak | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        parts_of(self, "components", Component)
        if not 1 <= len(self.components) <= 100:
            raise ValueError(f"workload.components: {len(self.components)} components are not allowed; allowed: 1 to 100")
        check_declared(self)

    def seeded(self) -> tuple[SimpleWorkload, ...]:
        """The components' workloads, drawn again where the mixture has a seed."""
        workloads = tuple(component.workload for component in self.components)
        if self.seed is None:
            return workloads
        seeds = np.random.SeedSequence(self.seed).generate_state(len(workloads))
        return tuple(
            reseeded(workload, int(seed)) if hasattr(workload, "seed") else workload
            for workload, seed in zip(workloads, seeds, strict=True)
        )

    def series(self) -> RateSeries:
        """The sum.

        Raises:
            ValueError: a component that cannot be read or scaled, named by its place.
        """
        parts = []
        for i, workload in enumerate(self.seeded()):
            try:
                parts.append(workload.series())
            except ValueError as error:
                raise type(error)(f"workload.components.{i}: {error}") from None
        interval = min(part.interval_seconds for part in parts)
        parts = [part if part.interval_seconds == interval else part.resampled(interval) for part in parts]
        length = min(len(part) for part in parts)
        rates = np.zeros(length)
        for component, part in zip(self.components, parts, strict=True):
            rates += component.weight * part.rates_rps[:length]
        series = RateSeries(rates, interval, parts[0].start_unix_seconds)
        return series if self.peak_rps is None else series.scaled_to_peak(self.peak_rps)
