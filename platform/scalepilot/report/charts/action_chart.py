"""What a policy thinks of each action along an episode, as SVG, and which one it took."""

from __future__ import annotations

from html import escape

import numpy as np

from scalepilot.policy import PolicySpec
from scalepilot.report.charts.svg import COLOURS, WIDTH, Array, Axes, document, with_margin
from scalepilot.report.replay.recording import Recording

# Beyond it single steps cannot be told apart.
_MAX_STEPS = 150
_CURVES_HEIGHT, _ROW_HEIGHT, _LEFT, _TOP = 280, 18, 84, 72
_KEY_STEP = 120.0


def action_chart(recording: Recording, spec: PolicySpec) -> str | None:
    """Probabilities or Q-values of the first steps above, the actions taken below; None for a policy without scores.

    Args:
        recording: of the policy.
        spec: names the actions and says what the scores are.
    """
    if recording.scores is None or recording.action is None or recording.action.ndim != 1:
        return None
    scores, action = recording.scores[:_MAX_STEPS].astype(np.float64), recording.action[:_MAX_STEPS]
    num_steps, num_actions = scores.shape
    probabilities = spec.decision_rule != "argmax_q"
    values = _softmax(scores) if probabilities else scores
    labels = [entry.label for entry in spec.actions]
    per_row = int((WIDTH - _LEFT) // _KEY_STEP)
    key_rows = -(-num_actions // per_row)
    top = _TOP + 18 * (key_rows - 1)
    bounds = (0.0, 1.0) if probabilities else with_margin(float(values.min()), float(values.max()))
    span = (0.0, float(max(1, num_steps)))
    above = Axes(_LEFT, top, WIDTH - 24, top + _CURVES_HEIGHT, span, bounds)
    above.y_axis("probability" if probabilities else "Q-value")
    steps = np.arange(num_steps, dtype=np.float64)
    colours = [COLOURS[a % len(COLOURS)] for a in range(num_actions)]
    for a in range(num_actions):
        above.line(steps + 0.5, values[:, a], colours[a], width=1.6)
    for row in range(key_rows):
        entries = list(zip(labels, colours, strict=True))[row * per_row : (row + 1) * per_row]
        above.key(entries, y=50 + 18 * row, step=_KEY_STEP)
    strip_top = top + _CURVES_HEIGHT + 26
    bottom = strip_top + _ROW_HEIGHT * num_actions
    below = Axes(_LEFT, strip_top, WIDTH - 24, bottom, span, (0.0, float(num_actions)))
    below.x_axis("step")
    parts = [*above.parts, *_taken(below, action, labels, colours)]
    shown = f"{num_steps} of {len(recording.reward)} steps" if len(recording.reward) > num_steps else f"{num_steps} steps"
    title = f"{spec.name} along a greedy episode ({shown}, return {recording.reward.sum():,.4g})"
    return document(WIDTH, int(bottom + 60), title, parts)


def _taken(axes: Axes, action: Array, labels: list[str], colours: list[str]) -> list[str]:
    """A row an action, filled where it was taken."""
    axes.y_label("taken")
    for a, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        y = axes.top + _ROW_HEIGHT * a
        axes.parts.append(f'<path class="grid" d="M{axes.left} {y + _ROW_HEIGHT / 2:.1f}H{axes.right}"/>')
        axes.parts.append(f'<text x="{axes.left - 8}" y="{y + 13:.1f}" text-anchor="end" font-size="11">{escape(label)}</text>')
        for first, last in _runs(action == a):
            x, width = axes.x(first), axes.x(last) - axes.x(first)
            axes.parts.append(
                f'<rect class="mark" x="{x:.1f}" y="{y + 3:.1f}" width="{width:.1f}" height="{_ROW_HEIGHT - 6}" fill="{colour}"/>'
            )
    return axes.parts


def _runs(chosen: Array) -> list[tuple[int, int]]:
    """[first, last) of each unbroken stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _softmax(scores: Array) -> Array:
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Array = exponents / exponents.sum(axis=1, keepdims=True)
    return shares
