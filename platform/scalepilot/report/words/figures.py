"""How figures are shown: what each is called and how many digits it has, in one table for terminal, page and documents."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot_envs.episode_metrics import MEANINGS
from scalepilot_envs.objective import Objective

DASH = "–"
# Currency: costs below it are those of fractions of a request.
_NEXT_TO_NOTHING = 1e-4


def fixed(value: float, digits: int) -> str:
    """With so many decimals."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "-"


def money(value: float) -> str:
    """Two decimals; more where the sums are small, but none that nobody will ever pay."""
    if not math.isfinite(value):
        return "-"
    if abs(value) < _NEXT_TO_NOTHING:
        return "0.00"
    return f"{value:,.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def percent(share: float) -> str:
    """A share as a percentage without the sign: three decimals below 0.1, two below 10."""
    value = 100 * share
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if 0 < value < 0.1 else f"{value:.2f}"


def number(value: float) -> str:
    """Four digits."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2}f}"


def two_decimals(value: float) -> str:
    """Of a return."""
    return fixed(value, 2)


@dataclass(frozen=True)
class Shown:
    """How a figure is shown.

    Attributes:
        heading: above its column in the terminal; empty for what only pages show.
        label: on a page.
        show: a value as text.
        unit: behind it on a page.
    """

    heading: str
    label: str
    show: Callable[[float], str] = number
    unit: str = ""

    def on_a_page(self, value: float) -> str:
        """With a real minus."""
        return self.show(value).replace("-", "−")


_SHOWN = {
    "J": Shown("J/h", "Cost J per hour", money),
    "cost": Shown("", "of which replicas", money),
    "penalty": Shown("", "of which late", money),
    "replicas": Shown("replicas", "Replicas", two_decimals),
    "late_share": Shown("late %", "Late requests", percent, " %"),
    "latency_p95_seconds": Shown("p95 ms", "p95 latency", lambda x: fixed(1000 * x, 0), " ms"),
    "actions": Shown("moves", "Moves per window", lambda x: fixed(x, 0)),
    "return": Shown("return", "Return", two_decimals),
    "length": Shown("length", "Length", lambda x: fixed(x, 1)),
}


def shown_figures(objective: Objective, known: frozenset[str]) -> dict[str, Shown]:
    """Metric → how it is shown, what decides first.

    Args:
        objective: of the comparison.
        known: metrics that its contenders have.
    """
    found = {name: _SHOWN.get(name, shown(objective) if name == objective.metric else None) for name in objective.metrics}
    if objective.takes_all:
        found |= {name: Shown("", name.replace("_", " ").capitalize()) for name in MEANINGS}
    return {name: how for name, how in found.items() if how is not None and name in known}


def amount(objective: Objective, value: float) -> str:
    """What decides, as a phrase: "costs 12.11 an hour"."""
    if objective.metric == "J":
        return f"costs {money(value)} an hour"
    return f"has a {objective.short_label} of {shown(objective).show(value)}"


def shown(objective: Objective) -> Shown:
    """How that which decides is shown."""
    return _SHOWN.get(objective.metric, Shown(objective.short_label, objective.label.capitalize()))


def signed(value: float, show: Callable[[float], str] = money) -> str:
    """With + or a real minus."""
    return f"{'−' if value < 0 else '+'}{show(abs(value))}"


def interval_text(interval: Interval, show: Callable[[float], str] = money) -> str:
    """Plain ASCII, such as "15.21 - 17.30"; "to" between numbers that may be negative."""
    if not interval.is_known:
        return "-"
    return f"{show(interval.low)} {'to' if interval.low < 0 else '-'} {show(interval.high)}"
