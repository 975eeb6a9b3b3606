"""One policy, its whole front: what it costs where the price of a late request that it is shown is turned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.comparison import Comparison, Contender, FrontPoint, Member
from scalepilot.evaluate.statistics.intervals import block_bootstrap
from scalepilot.policy import Policy, Shown
from scalepilot.simulate import Cell, CellResult, Scenario, TrafficEpisodes
from scalepilot_envs.autoscale import PRICE_FIELD

# What is really charged stays as it is; once is the policy's own row.
FACTORS = (0.25, 0.5, 2.0, 4.0)


@dataclass(frozen=True)
class TurnedEpisodes(TrafficEpisodes):
    """Episodes in equal parts, in each of which the price that the policy is shown is multiplied by another factor.

    Attributes:
        factors: one a part.
    """

    factors: tuple[float, ...] = FACTORS

    @classmethod
    def of(cls, test: TrafficEpisodes) -> TurnedEpisodes:
        """All parts side by side: a batch costs little more than one of them."""
        return cls(test.episodes.repeated(len(FACTORS)), test.params)

    @property
    def playback_of(self) -> int | None:
        """None: the policy's own row is played back."""
        return None

    def run(self, actor: Any, *, playback: bool = False, step_log: bool = False) -> CellResult:
        """As `Episodes`."""
        column = [f.name for f in actor.spec.observation_fields].index(PRICE_FIELD)
        factor = np.repeat(self.factors, len(self) // len(self.factors))

        def show(observation: NDArray[Any]) -> NDArray[Any]:
            shown = observation.copy()
            shown[:, column] *= factor.astype(shown.dtype)
            return shown

        return super().run(Shown(actor, show))

    def digest(self) -> str:
        """As `Episodes`."""
        return f"{super().digest()} × {self.factors}"


def front_cell(name: str, actor: Any, scenario: Scenario) -> Cell | None:
    """The test episodes with other prices shown; None for whom they are nothing: rules, and policies that do not see one.

    Args:
        name: of the policy, for messages.
        actor: policy or plan.
        scenario: whose test episodes are run.
    """
    test = scenario.test
    if not isinstance(actor, Policy) or actor.spec.kind == "rule" or not isinstance(test, TrafficEpisodes):
        return None
    sees_it = any(f.name == PRICE_FIELD for f in actor.spec.observation_fields)
    return Cell.of(f"{name}, other prices", actor, TurnedEpisodes.of(test)) if sees_it else None


def with_fronts(comparison: Comparison, scenario: Scenario, found: Mapping[str, Sequence[CellResult]]) -> Comparison:
    """The comparison with the fronts of its policies.

    Args:
        comparison: of the scenario.
        scenario: says what is charged.
        found: contender → what came of its `front_cell`, one a training seed.
    """
    fronts = {c.name: _front(comparison, c, found[c.name], scenario) for c in comparison.contenders if found.get(c.name)}
    return replace(comparison, fronts=fronts) if fronts else comparison


def _front(
    comparison: Comparison, contender: Contender, cells: Sequence[CellResult], scenario: Scenario
) -> tuple[FrontPoint, ...]:
    params, blocks = scenario.env.params, comparison.episodes.blocks
    price = params.price_per_late_request / max(params.price_per_replica_hour, 1e-9)
    figures = {1.0: {name: interval.mean for name, interval in comparison.rows[contender.name].items()}}
    metrics = comparison.objective.metrics_of(contender.results.columns)
    for part, factor in enumerate(FACTORS):
        rows = np.arange(part * len(blocks), (part + 1) * len(blocks))
        members = [Member(str(i), i, cell.results.at(rows)) for i, cell in enumerate(cells)]
        turned = Contender.of_members(contender.name, contender.role, "", members)
        sums = {name: turned.sums(metrics[name]) for name in ("cost", "late_share", "J")}
        figures[factor] = {
            name: block_bootstrap(values, blocks, weights=weights, samples=1).mean for name, (values, weights) in sums.items()
        }
    return tuple(
        FrontPoint(factor, factor * price, found["cost"], found["late_share"], found["J"])
        for factor, found in sorted(figures.items())
    )
