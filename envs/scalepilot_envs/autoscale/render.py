"""Autoscale-v0 as a line of text or a picture of the episode so far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.dynamics import AutoscaleState
from scalepilot_envs.drawing import Canvas, Chart, Series, draw_charts

_PICTURED_STEPS = 240


def drawn_columns(state: AutoscaleState) -> tuple[NDArray[np.float64], ...]:
    """What a picture shows of each step, (num_envs,) each: rate, capacity, ready and all replicas, late share."""
    return state.newest_rate_rps, state.serving * state.capacity_rps, state.serving, state.total, state.late_share


def as_text(state: AutoscaleState, index: int, step: int) -> str:
    """One line: time, rate, replicas, late share."""
    return (
        f"step {step:4d}  rate {state.newest_rate_rps[index]:7.1f} rps  ready {state.serving[index]:3.0f}"
        f"  starting {state.starting[:, index].sum():3.0f}  late {state.late_share[index]:7.3%}"
    )


def as_picture(past: NDArray[np.float64], step: int, interval_seconds: float, cost_per_hour: float) -> NDArray[np.uint8]:
    """Rate beside capacity, replicas and late share; of a long episode its newest hour or so.

    Args:
        past: (5, steps) of `drawn_columns`, newest last.
        step: steps taken.
        interval_seconds: length of a step.
        cost_per_hour: J of the newest interval, per hour.
    """
    rate, capacity, ready, total, late = past[:, -_PICTURED_STEPS:]
    canvas = Canvas()
    hours = step * interval_seconds / 3600.0
    canvas.text((16, 20), f"Autoscale-v0 · step {step} ({hours:.1f} h)", size=15)
    canvas.text((canvas.width - 16, 20), f"J {cost_per_hour:.2f} an hour", size=15, align="right")
    charts = [
        Chart([Series("rate", rate), Series("capacity of ready replicas", capacity)], "rps"),
        Chart([Series("ready and starting", total), Series("ready", ready)], "replicas"),
        Chart([Series("late", 100.0 * late)], "%", high=100.0),
    ]
    draw_charts(canvas, charts, num_steps=max(len(rate), 20), first_step=step + 1 - len(rate))
    return canvas.array()
