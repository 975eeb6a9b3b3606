"""A study's pictures as SVG: learning curves, a figure of every arm with its interval and seeds, shares of actions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.evaluate.study_metrics import TaskResult, area, largest_fall
from scalepilot.report.charts.curves import curves_svg
from scalepilot.report.charts.svg import COLOURS, Axes, document, nice_ticks, with_margin

# Narrow enough to be read on a phone.
WIDTH, _CURVES_HEIGHT = 560, 360
_ROW, _BAR = 34, 20
_LETTER_PIXELS, _WIDEST_NAME = 7.2, 250
_GREY = COLOURS[6]
# More curves than colours cannot be told apart.
_MOST_CURVES = 6


@dataclass(frozen=True)
class Dots:
    """One row of a dot plot: its interval, and the value of each seed."""

    name: str
    interval: Interval
    seeds: Sequence[float]


def learning_curves(task: TaskResult, axis: str) -> str:
    """Validation return of every arm (of the best six, where there are more) on one axis."""
    arms = task.arms[:_MOST_CURVES]
    by_time = axis == "time_seconds"
    curves = {
        arm.name: [Curve(run.seconds, run.curve.value) if by_time else run.curve for run in arm.runs]
        for arm in sorted(arms, key=lambda arm: arm.name)
    }
    return curves_svg(
        curves,
        title=f"{task.name}: learning curves",
        value_label="validation return",
        x_label="seconds of training" if by_time else "environment steps",
        reference=("random", task.random),
        threshold=task.success_return,
        width=WIDTH,
        height=_CURVES_HEIGHT,
    )


def dot_plots(task: TaskResult) -> dict[str, str]:
    """File stem → picture of final return, success, area under the curve, and largest fall."""
    arms = sorted(task.arms, key=lambda arm: arm.name)
    final = [Dots(arm.name, arm.iqm, [float(run.test_return.mean()) for run in arm.runs]) for arm in arms]
    plots = {
        "final": dot_plot([*final, Dots("random", task.random, [])], f"{task.name}: final return", "test return"),
        "sample_efficiency": dot_plot(
            [Dots(arm.name, arm.area, [area(run.curve, arm.budget_env_steps) for run in arm.runs]) for arm in arms],
            f"{task.name}: return averaged over the training",
            "area under the learning curve / steps",
        ),
        "stability": dot_plot(
            [Dots(arm.name, arm.largest_fall, [largest_fall(run.curve) for run in arm.runs]) for arm in arms],
            f"{task.name}: largest fall from the best so far",
            "validation return lost; left is steadier",
        ),
    }
    if task.success_return is not None:
        rates = [
            Dots(arm.name, arm.success_rate, [100 * float((run.test_return >= task.success_return).mean()) for run in arm.runs])
            for arm in arms
            if arm.success_rate is not None
        ]
        plots["success"] = dot_plot(
            [Dots(row.name, _times(row.interval, 100), row.seeds) for row in rates],
            f"{task.name}: success rate",
            f"% of test episodes with a return of at least {task.success_return:g}",
        )
    return plots


def dot_plot(rows: Sequence[Dots], title: str, value_label: str) -> str:
    """One row each: the estimate, its 95 % interval as a line, each seed as a small dot.

    Args:
        rows: at least one.
        title: above it.
        value_label: below it.
    """
    values = [x for row in rows for x in (row.interval.mean, *_ends(row.interval), *row.seeds)]
    left, top = _left(row.name for row in rows), 44
    bottom = top + _ROW * len(rows)
    axes = Axes(left, top, WIDTH - 28, bottom, with_margin(min(values), max(values)), (0.0, 1.0))
    for tick in nice_ticks(*axes.x_range):
        axes.parts.append(f'<path class="grid" d="M{axes.x(tick):.1f} {top}V{bottom}"/>')
    axes.x_axis(value_label)
    for i, row in enumerate(rows):
        colour = _GREY if row.name == "random" else COLOURS[i % 6]
        y = top + _ROW * (i + 0.5)
        axes.parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(_shortened(row.name))}</text>')
        axes.parts += [
            f'<circle class="mark" cx="{axes.x(value):.1f}" cy="{y + 9:.1f}" r="2.6" fill="{colour}" fill-opacity="0.6"/>'
            for value in row.seeds
        ]
        if row.interval.is_known:
            low, high = (axes.x(x) for x in _ends(row.interval))
            axes.parts.append(f'<path class="mark" d="M{low:.1f} {y:.1f}H{high:.1f}" stroke="{colour}" stroke-width="3"/>')
        axes.parts.append(f'<circle class="mark" cx="{axes.x(row.interval.mean):.1f}" cy="{y:.1f}" r="6" fill="{colour}"/>')
    return document(WIDTH, bottom + 58, title, axes.parts)


def action_shares(task: TaskResult) -> str | None:
    """Stacked bars of each arm's greedy decisions; None where actions are not numbered."""
    if not task.actions:
        return None
    arms = sorted(task.arms, key=lambda arm: arm.name)
    left = _left(arm.name for arm in arms)
    step = 44 + _LETTER_PIXELS * max(len(label) for label in task.actions)
    per_row = max(1, int((WIDTH - left) // step))
    key_rows = -(-len(task.actions) // per_row)
    top = 40 + 18 * key_rows + 10
    bottom = top + _ROW * len(arms)
    axes = Axes(left, top, WIDTH - 28, bottom, (0.0, 100.0), (0.0, 1.0))
    colours = [COLOURS[a % len(COLOURS)] for a in range(len(task.actions))]
    entries = list(zip(task.actions, colours, strict=True))
    for i in range(key_rows):
        axes.key(entries[i * per_row : (i + 1) * per_row], y=50 + 18 * i, step=step)
    axes.x_axis("% of greedy decisions")
    for i, arm in enumerate(arms):
        y, at = top + _ROW * i + (_ROW - _BAR) / 2, 0.0
        axes.parts.append(
            f'<text x="{left - 10}" y="{y + _BAR / 2 + 4:.1f}" text-anchor="end">{escape(_shortened(arm.name))}</text>'
        )
        for share, colour in zip(arm.action_share, colours, strict=True):
            x, end = axes.x(100 * at), axes.x(100 * (at + share))
            axes.parts.append(
                f'<rect class="mark" x="{x:.1f}" y="{y:.1f}" width="{end - x:.1f}" height="{_BAR}" fill="{colour}"/>'
            )
            if share >= 0.1:
                axes.parts.append(
                    f'<text x="{(x + end) / 2:.1f}" y="{y + _BAR / 2 + 4:.1f}" text-anchor="middle" style="fill:#fff"'
                    f' stroke="#000" stroke-width="2.5" stroke-opacity="0.45" paint-order="stroke">{share:.0%}</text>'
                )
            at += float(share)
    return document(WIDTH, bottom + 58, f"{task.name}: what the kept policies do", axes.parts)


def _left(names: Iterable[str]) -> int:
    """Where the box begins: room for the longest name."""
    longest = max(len(_shortened(name)) for name in names)
    return int(24 + min(_WIDEST_NAME, max(60.0, _LETTER_PIXELS * longest)))


def _shortened(name: str) -> str:
    letters = int(_WIDEST_NAME / _LETTER_PIXELS)
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _ends(interval: Interval) -> tuple[float, float]:
    return (interval.low, interval.high) if interval.is_known else (interval.mean, interval.mean)


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(factor * interval.mean, factor * interval.low, factor * interval.high)


__all__ = ["WIDTH", "Dots", "action_shares", "dot_plot", "dot_plots", "learning_curves"]
