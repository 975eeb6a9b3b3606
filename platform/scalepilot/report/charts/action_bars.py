"""How often a policy took each of its actions along an episode, as SVG."""

from __future__ import annotations

from html import escape

import numpy as np

from scalepilot.policy import PolicySpec
from scalepilot.report.charts.svg import COLOURS, document
from scalepilot.report.replay.recording import Recording

_WIDTH, _LEFT, _TOP, _ROW, _BAR = 620, 150, 44, 30, 20
_FIGURE_WIDTH = 64


def action_bars(recording: Recording, spec: PolicySpec) -> str | None:
    """A bar an action; None for continuous actions and policies without an action table.

    Args:
        recording: of the policy.
        spec: names the actions.
    """
    if recording.action is None or recording.action.ndim != 1 or not spec.actions:
        return None
    shares = np.bincount(recording.action.astype(np.int64), minlength=len(spec.actions)) / len(recording.action)
    span = (_WIDTH - _LEFT - _FIGURE_WIDTH - 16) / max(float(shares.max()), 1e-9)
    parts = []
    for a, (entry, share) in enumerate(zip(spec.actions, shares, strict=True)):
        y = _TOP + _ROW * a
        colour = COLOURS[a % len(COLOURS)]
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(entry.label)}</text>')
        parts.append(
            f'<rect class="mark" x="{_LEFT}" y="{y}" width="{max(span * share, 1):.1f}" height="{_BAR}" rx="3" fill="{colour}"/>'
        )
        shown = f"{share:.1%}" if share else "never"
        parts.append(f'<text class="muted" x="{_LEFT + max(span * share, 1) + 8:.1f}" y="{y + 15}">{shown}</text>')
    title = f"{spec.name}: actions of {len(recording.action):,} steps"
    return document(_WIDTH, _TOP + _ROW * len(spec.actions) + 16, title, parts)
