"""How often the 95 % intervals of a comparison hold the truth, on simulated episodes whose days and training seeds share chance.

Of every setting (means or the gap closed; normal, skewed or heavily skewed; one policy or three training seeds; 2 to 30 days)
many comparisons are drawn and judged as `scalepilot compare` judges them. With 1,000 a share is uncertain by 1.4 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DAYS = (2, 3, 5, 8, 15, 30)
SEEDS = (1, 3)
EPISODES_PER_DAY, COMPARISONS, RESAMPLES = 6, 1000, 400
# Spread of what the episodes of a day share, of what those of a training seed share, and of what is their own.
OF_DAY, OF_SEED, OWN = 1.0, 0.5, 0.5
# Of the costs' logarithm: with 0.5 a day in twenty costs twice the mean, with 1 three times; their skewness is 1.7 and 6.
LOG_SPREAD = {"skewed": 0.5, "heavy": 1.0}
MEAN, GAP_CLOSED = 10.0, 0.6


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        figure: the mean of a cost, or the gap closed.
        shape: of the costs: "normal", or log-normal as LOG_SPREAD says.
        seeds: training seeds; 1 for a single policy or a rule.
        days: with EPISODES_PER_DAY episodes each.
    """

    figure: Literal["mean", "gap_closed"]
    shape: Literal["normal", "skewed", "heavy"]
    seeds: int
    days: int

    def __str__(self) -> str:
        return f"{self.figure}, {self.shape}, {self.seeds} seeds, {self.days} days"


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Judge every setting's comparisons, one process a core."""
    from scalepilot.simulate import ProcessExecutor, usable_cores

    settings = [
        Setting(figure, shape, seeds, days)
        for figure in ("mean", "gap_closed")
        for shape in ("normal", "skewed", "heavy")
        for seeds in SEEDS
        for days in DAYS
    ]
    figures: dict[str, Any] = {"comparisons": COMPARISONS, "resamples": RESAMPLES, "episodes_per_day": EPISODES_PER_DAY}
    with ProcessExecutor(usable_cores()) as executor:
        held = dict(executor.run(coverage, settings))
    for index, setting in enumerate(settings):
        row = figures.setdefault(f"{setting.figure}_{setting.shape}_seeds_{setting.seeds}", {})
        row[f"days_{setting.days}"] = round(held[index], 3)
    return figures, {}


def coverage(setting: Setting) -> float:
    """Share of a setting's comparisons whose interval holds the truth."""
    from scalepilot.evaluate import block_bootstrap, gap_closed
    from scalepilot_envs.objective import FROM_ZERO

    rng, held = np.random.default_rng(0), 0
    day = np.repeat(np.arange(setting.days), EPISODES_PER_DAY)
    for comparison in range(COMPARISONS):
        if setting.figure == "mean":
            values, truth = _costs(setting, day, rng), MEAN
            interval = block_bootstrap(values, day, samples=RESAMPLES, seed=comparison, bounds=FROM_ZERO)
        else:
            truth = GAP_CLOSED
            interval = gap_closed(*_with_gap(setting, day, rng), day, samples=RESAMPLES, seed=comparison).share
        held += interval.low <= truth <= interval.high
    return held / COMPARISONS


def _chance(setting: Setting, day: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """(num_seeds, n) or (n,) standard chance: a day's, a training seed's where there are several, an episode's own."""
    chance = OF_DAY * rng.normal(size=setting.days)[day] + OWN * rng.normal(size=(setting.seeds, len(day)))
    return chance + OF_SEED * rng.normal(size=(setting.seeds, 1)) if setting.seeds > 1 else chance[0]


def _costs(setting: Setting, day: NDArray[np.int64], rng: np.random.Generator) -> Array:
    chance = _chance(setting, day, rng)
    if setting.shape == "normal":
        return MEAN + chance
    spread = LOG_SPREAD[setting.shape]
    variance = OF_DAY**2 + OWN**2 + (OF_SEED**2 if setting.seeds > 1 else 0.0)
    return np.asarray(MEAN * np.exp(spread * chance - spread**2 * variance / 2))


def _with_gap(setting: Setting, day: NDArray[np.int64], rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """J of policy, baseline and optimum: the gap is wider on some days than on others, the share closed does not depend on it."""
    reference = MEAN * np.exp(0.3 * rng.normal(size=setting.days)[day])
    spread = LOG_SPREAD.get(setting.shape, 0.1)
    gap = 0.5 * reference * np.exp(spread * rng.normal(size=setting.days)[day])
    share = GAP_CLOSED + 0.2 * _chance(setting, day, rng)
    return reference + gap * (1 - share), reference + gap, reference
