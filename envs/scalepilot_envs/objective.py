"""How an environment is evaluated: the figure that decides, which way it is better, and the figures that explain it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from scalepilot_envs.episode_metrics import SHARE_COLUMNS

# Lowest and highest value that a quantity can have.
Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-math.inf, math.inf)
FROM_ZERO: Bounds = (0.0, math.inf)
# For what is never 0: an interval that reaches it only says that there are too few blocks for one.
ABOVE_ZERO: Bounds = (math.ulp(0.0), math.inf)
SHARE: Bounds = (0.0, 1.0)
# In front of the name of a column: its value at the end of the episode, not its mean over the steps.
LAST_PREFIX = "last_"


@dataclass(frozen=True)
class Metric:
    """A figure over episodes: a mean of theirs, or a ratio of sums.

    Attributes:
        column: of the episodes' results.
        bounds: of what it can be.
        weight: column that weighs the episodes, at least 1 each; None weighs them alike.
        is_total: the column is a sum over what `weight` counts, such as late requests of those that arrived.
    """

    column: str
    bounds: Bounds = FROM_ZERO
    weight: str | None = None
    is_total: bool = False


@dataclass(frozen=True)
class Objective:
    """How an environment is evaluated.

    Attributes:
        metric: name of the figure that decides, a key of `metrics`.
        lower_is_better: whether a smaller one is better.
        label: what a person reads on an axis.
        short_label: what a person reads above a column or beside a progress bar.
        training_metric, validation_metric: its columns in a run's metrics.
        metrics: name → figure, the deciding one first.
        takes_all: every other column of the results is a figure too, under its own name.
        from_return: the deciding figure of training episodes of a mean return; None where it is the return itself.
    """

    metric: str
    lower_is_better: bool
    label: str
    short_label: str
    training_metric: str
    validation_metric: str
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    takes_all: bool = False
    from_return: Callable[[float, int], float] | None = None

    @property
    def column(self) -> str:
        """Of the episodes' results, that of the deciding figure."""
        return self.metrics[self.metric].column

    @property
    def sign(self) -> float:
        """Turns the figure into a loss: 1 where lower is better, −1 where higher is."""
        return 1.0 if self.lower_is_better else -1.0

    def metrics_of(self, columns: Iterable[str]) -> dict[str, Metric]:
        """The figures of results with these columns."""
        known = {m.column for m in self.metrics.values()}
        others = [name for name in columns if self.takes_all and name not in known]
        return dict(self.metrics) | {
            name: Metric(name, SHARE if name.removeprefix(LAST_PREFIX) in SHARE_COLUMNS else UNBOUNDED) for name in others
        }


def by_return(bounds: Bounds = UNBOUNDED, most_steps: float = math.inf) -> Objective:
    """The return of an episode; what every environment has.

    Args:
        bounds: lowest and highest return of an episode.
        most_steps: of an episode.
    """
    return Objective(
        metric="return",
        lower_is_better=False,
        label="episode return",
        short_label="return",
        training_metric="episode_return_mean",
        validation_metric="validation_return",
        metrics={"return": Metric("return", bounds), "length": Metric("length", (1.0, most_steps))},
        takes_all=True,
    )
