"""Transfer: what was learnt or tuned on each workload, evaluated on all of them.

Every policy and every calibrated rule is one row for each workload it comes from; what is the same everywhere is one row.
On each tested workload the first calibrated rule, tuned on that very workload, counts as 1.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scalepilot.errors import InputError
from scalepilot.evaluate.comparison import Comparison, Role, outcome_of
from scalepilot.evaluate.statistics.intervals import Interval, paired_difference
from scalepilot.evaluate.store import interval_json, json_number

# What is told apart: money in all, of it the replicas, and the share of late requests.
METRICS = ("J", "cost", "late_share")


@dataclass(frozen=True)
class Source:
    """A row: who, and what it was learnt or tuned on.

    Attributes:
        label: of the arm or rule; the same for all workloads it comes from.
        role: policy or baseline.
        learnt_on: the workload; None for what is the same everywhere.
    """

    label: str
    role: Role
    learnt_on: str | None

    @property
    def name(self) -> str:
        """Unique; the contender's in each comparison."""
        return self.label if self.learnt_on is None else f"{self.label} from {self.learnt_on}"


@dataclass(frozen=True)
class Transfer:
    """The whole table.

    Attributes:
        sources: rows.
        comparisons: one a tested workload, each with a contender a source.
        yardstick: label of the calibrated rule that counts as 1.
    """

    sources: tuple[Source, ...]
    comparisons: tuple[Comparison, ...]
    yardstick: str

    @property
    def workloads(self) -> tuple[str, ...]:
        """Those tested on, and learnt on."""
        return tuple(c.workload for c in self.comparisons)

    @property
    def labels(self) -> tuple[str, ...]:
        """Arms and rules, each once."""
        return tuple(dict.fromkeys(source.label for source in self.sources))

    def of_label(self, label: str) -> tuple[Source, ...]:
        """The rows of an arm or a rule."""
        return tuple(source for source in self.sources if source.label == label)

    def figure(self, source: Source, workload: str, metric: str) -> Interval:
        """A metric of a row on a tested workload."""
        return self._on(workload).rows[source.name][metric]

    def relative(self, source: Source, workload: str) -> float:
        """J as a multiple of the yardstick's, tuned on the tested workload."""
        return self.figure(source, workload, "J").mean / self.figure(self.own(self.yardstick, workload), workload, "J").mean

    def own(self, label: str, workload: str) -> Source:
        """The row that comes from the tested workload itself, or is the same everywhere."""
        return next(s for s in self.of_label(label) if s.learnt_on in (workload, None))

    def home(self, workload: str) -> tuple[Source, ...]:
        """Of every arm and rule the row of its own workload."""
        return tuple(self.own(label, workload) for label in self.labels)

    def difference(self, first: Source, second: Source, workload: str, metric: str) -> Interval:
        """First minus second over the same episodes, in J or cost an hour."""
        comparison = self._on(workload)
        column = comparison.objective.metrics[metric].column
        one, other = (next(c for c in comparison.contenders if c.name == s.name) for s in (first, second))
        return paired_difference(one.by_member(column), other.results[column], comparison.episodes.blocks).difference

    def away(self, label: str, workload: str) -> float | None:
        """Median J, relative, of a label's rows from all other workloads; None for what is the same everywhere."""
        others = [self.relative(s, workload) for s in self.of_label(label) if s.learnt_on not in (workload, None)]
        return statistics.median(others) if others else None

    def _on(self, workload: str) -> Comparison:
        return next(c for c in self.comparisons if c.workload == workload)


def transfer_of(sources: Sequence[Source], comparisons: Sequence[Comparison], yardstick: str) -> Transfer:
    """Check and build the table.

    Raises:
        InputError: a row is missing in a comparison.
    """
    for comparison in comparisons:
        missing = [s.name for s in sources if s.name not in comparison.rows]
        if missing:
            raise InputError(f"transfer: {missing[0]} could not be evaluated on {comparison.workload}")
    return Transfer(tuple(sources), tuple(comparisons), yardstick)


def transfer_json(transfer: Transfer) -> dict[str, Any]:
    """Everything as plain data; what is unknown is null."""
    return {
        "yardstick": transfer.yardstick,
        "workloads": list(transfer.workloads),
        "cheapest": {workload: cheapest_json(transfer, workload) for workload in transfer.workloads},
        "rows": [
            {
                "label": source.label,
                "role": source.role,
                "learnt_on": source.learnt_on,
                "detail": _details(transfer, source),
                "on": {
                    workload: {metric: interval_json(transfer.figure(source, workload, metric)) for metric in METRICS}
                    | {"relative_J": json_number(transfer.relative(source, workload))}
                    for workload in transfer.workloads
                },
            }
            for source in transfer.sources
        ],
    }


def cheapest_json(transfer: Transfer, workload: str) -> dict[str, Any]:
    """Who has least of each metric on a workload, among those that come from it; and how sure that is for J and the replicas."""
    found: dict[str, Any] = {}
    for metric in METRICS:
        first, second = ranked(transfer, workload, metric)
        found[metric] = {"name": first.label, "role": first.role}
        if second is not None and metric != "late_share":
            versus = transfer.difference(*_policy_first(first, second), workload, metric)
            found[metric] |= {"next": second.label, "policy_minus_baseline": interval_json(versus)}
    return found


def ranked(transfer: Transfer, workload: str, metric: str) -> tuple[Source, Source | None]:
    """(least of a metric among those that come from the workload, least of the other role: rule or policy)."""
    rows = sorted(transfer.home(workload), key=lambda s: transfer.figure(s, workload, metric).mean)
    return rows[0], next((s for s in rows if s.role != rows[0].role), None)


def policy_is_cheaper(transfer: Transfer, workload: str, metric: str) -> bool | None:
    """Whether the best policy has less than the best rule, both from the workload; None where the interval spans 0."""
    first, second = ranked(transfer, workload, metric)
    if second is None:
        return None
    found = transfer.difference(*_policy_first(first, second), workload, metric)
    outcome = outcome_of(found, transfer.comparisons[0].objective)
    return {"better": True, "worse": False}.get(outcome)


def _policy_first(first: Source, second: Source) -> tuple[Source, Source]:
    return (first, second) if first.role == "policy" else (second, first)


def _details(transfer: Transfer, source: Source) -> str:
    return next(c.detail for c in transfer.comparisons[0].contenders if c.name == source.name)
