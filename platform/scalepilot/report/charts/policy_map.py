"""What a policy does over two fields of its observation, as a grid and as SVG: the state → action map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError, InputError, did_you_mean
from scalepilot.policy import ActionEntry, FieldEntry, Policy, describe_env, env_actions
from scalepilot.policy.rules import Rule
from scalepilot.report.charts.svg import COLOURS, Array, Axes, count, document

POINTS = 41
# Wider bounds are those of a number format, not of a quantity: nothing can be drawn over them.
_WIDEST_RANGE = 1e6
_MOST_VISITED = 400
_SIDE, _LEFT, _TOP, _KEY_WIDTH = 420, 84, 60, 200
# Fewer replicas in blues, more in oranges and reds, from little to much; light enough for dark letters.
_FEWER, _HOLD, _MORE = ("#9ecae9", "#4f9bd0", "#0f6cab", "#0a4a78"), "#d9d9d9", ("#fdd49e", "#fdae61", "#f0733a", "#c23b1e")
_LOW, _HIGH = (253, 237, 200), (15, 90, 150)
_SCALE_STEPS = 24
# A label needs so many cells around its middle.
_LABEL_CELLS = 2


@dataclass(frozen=True)
class PolicyMap:
    """Decisions over a grid of two fields.

    Attributes:
        policy: its name.
        x_field, y_field: what is across and up: a field, or the common name of numbered ones, which move together.
        x_label, y_label: what a person reads: the name, or the meaning of a field that is only numbered.
        x_unit, y_unit: of both.
        x, y: (points,) the grid.
        values: (points, points), a row a value of y: the action's index, the desired replicas, or the action's first component.
        labels: of the actions by index; empty where the values are numbers.
        signs: of the actions by index: −1 removes replicas, 1 adds; empty where actions move none.
        value_label: what the values are.
        held: the other fields' values.
    """

    policy: str
    x_field: str
    y_field: str
    x_label: str
    y_label: str
    x_unit: str
    y_unit: str
    x: Array
    y: Array
    values: Array
    labels: tuple[str, ...]
    signs: tuple[int, ...]
    value_label: str
    held: Mapping[str, float]

    def shares(self) -> dict[str, float]:
        """Label → share of the grid, of the actions that occur."""
        found = {label: float((self.values == a).mean()) for a, label in enumerate(self.labels)}
        return {label: share for label, share in found.items() if share}


def policy_map(
    policy: Policy,
    x_field: str,
    y_field: str,
    *,
    base: NDArray[Any],
    points: int = POINTS,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> PolicyMap:
    """Ask a policy, greedily and without a past, over a grid of two fields.

    Numbered fields move together under their common name (`request_rate_rps` is all of `request_rate_rps_0 …`: a steady
    rate), and what follows from the two is set along: the windowed mean of a steady rate, and the CPU utilisation of the
    ready replicas at that rate.

    Args:
        policy: to ask.
        x_field: across.
        y_field: up.
        base: (num_fields,) a real observation: what the other fields are held at.
        points: of the grid, each way.
        ranges: field → (low, high), where the field's own bounds are not worth drawing.

    Raises:
        InputError: a field that the policy does not see, the same twice, an image, or a field without a finite range.
        ArtifactError: the policy gives numbers that are not finite.
    """
    fields = policy.spec.observation_fields
    if policy.spec.image is not None:
        raise InputError(f"{policy.spec.name}: looks at images; allowed: a policy of named fields")
    x_axis, y_axis = (_columns(fields, name) for name in (x_field, y_field))
    if set(x_axis) & set(y_axis):
        raise InputError(f"fields: {x_field}, {y_field} are not allowed; allowed: two different ones")
    x, y = (np.linspace(*_range(fields[c[0]], n, ranges or {}), points) for n, c in ((x_field, x_axis), (y_field, y_axis)))
    grid = np.tile(np.asarray(base, dtype=np.float64), (points * points, 1))
    grid[:, x_axis] = np.tile(x, points)[:, None]
    grid[:, y_axis] = np.repeat(y, points)[:, None]
    followed = _complete(grid, [f.name for f in fields], {*x_axis, *y_axis})
    decision, _ = _alone(policy).act(grid.astype(np.float32))
    by_index = decision.action is not None and decision.action.ndim == 1
    if decision.action is None:
        assert decision.desired_replicas is not None
        values, label = decision.desired_replicas, "desired replicas"
    elif by_index:
        values, label = decision.action, "action"
    else:
        first = policy.spec.components[0]
        values, label = decision.action[:, 0], f"{first.name} ({first.unit})" if first.unit else first.name
    if not np.isfinite(values).all():
        raise ArtifactError(f"{policy.spec.name}: gives a {label} that is not finite over {x_field} and {y_field}")
    actions = _actions(policy) if by_index else ()
    moves = by_index and all(a.kind != "plain" for a in actions)
    return PolicyMap(
        policy=policy.spec.name,
        x_field=x_field,
        y_field=y_field,
        x_label=field_label(fields[x_axis[0]], x_field),
        y_label=field_label(fields[y_axis[0]], y_field),
        x_unit=fields[x_axis[0]].unit,
        y_unit=fields[y_axis[0]].unit,
        x=x,
        y=y,
        values=np.asarray(values, dtype=np.float64).reshape(points, points),
        labels=tuple(a.label for a in actions),
        signs=tuple(int(np.sign(a.size)) for a in actions) if moves else (),
        value_label=label,
        held={f.name: float(base[i]) for i, f in enumerate(fields) if i not in {*x_axis, *y_axis, *followed}},
    )


def telling_fields(policy: Policy, observations: NDArray[Any]) -> tuple[str, str] | None:
    """The two fields worth drawing: rate and replicas where there are both, else those that decisions hang on most.

    A field matters as much as decisions change when its recorded values are shuffled.

    Args:
        policy: to ask.
        observations: (n, num_fields) recorded ones.

    Returns:
        Across and up; None for a policy of images, or of a single field.
    """
    names = [f.name for f in policy.spec.observation_fields]
    if policy.spec.image is not None or len(names) < 2:
        return None
    if {"request_rate_rps_0", "ready_replicas"} <= set(names):
        return "request_rate_rps", "ready_replicas"
    rng = np.random.default_rng(0)
    usual, changes = _decided(policy, observations), []
    for i in range(len(names)):
        shuffled = observations.copy()
        shuffled[:, i] = rng.permutation(shuffled[:, i])
        changes.append(float(np.abs(_decided(policy, shuffled) - usual).mean()))
    # Fields that change nothing are ranked by how much they vary, so that a rule of one field is drawn over another that lives.
    spread = np.std(observations, axis=0) > 0
    first, second = sorted(sorted(range(len(names)), key=lambda i: (-changes[i], not spread[i], i))[:2])
    return names[first], names[second]


def observed_ranges(policy: Policy, observations: NDArray[Any]) -> dict[str, tuple[float, float]]:
    """Field → 1 % and 99 % quantile of recorded observations (n, num_fields), widened where they are the same."""
    found = {}
    for i, field in enumerate(policy.spec.observation_fields):
        low, high = (float(q) for q in np.quantile(observations[:, i], (0.01, 0.99)))
        if low == high:
            low, high = max(field.low, low - (abs(low) or 1.0)), min(field.high, high + (abs(high) or 1.0))
        found[field.name] = (low, high)
    return found


def typical_observation(observations: NDArray[Any]) -> NDArray[np.float64]:
    """Of recorded observations (n, num_fields), the one nearest to the medians: unlike those, it did occur."""
    rows = np.asarray(observations, dtype=np.float64)
    spread = rows.std(axis=0)
    distance = np.abs(rows - np.median(rows, axis=0)) / np.where(spread > 0, spread, 1.0)
    nearest: Array = rows[int(distance.sum(axis=1).argmin())]
    return nearest


def policy_map_picture(found: PolicyMap, title: str, visited: NDArray[np.float64] | None = None) -> str:
    """The map as SVG text.

    Args:
        found: to draw.
        title: above it.
        visited: (n, 2) recorded values of the two fields, as dots: where the policy really goes.
    """
    box = Axes(_LEFT, _TOP, _LEFT + _SIDE, _TOP + _SIDE, (found.x[0], found.x[-1]), (found.y[0], found.y[-1]))
    fills = _fills(found)
    box.y_axis(f"{found.y_label} ({found.y_unit})")
    box.x_axis(f"{found.x_label} ({found.x_unit})")
    # Over the grid, without seams between the rows.
    cells = ['<g shape-rendering="crispEdges">', *_cells(found, box, fills), "</g>"]
    box.parts += [*cells, *_visited(box, visited), *_names(found, box)]
    box.parts += _key(found, box.right + 24, fills, dots=visited is not None and len(visited) > 0)
    return document(_LEFT + _SIDE + _KEY_WIDTH + 24, _TOP + _SIDE + 62, title, box.parts)


def field_label(field: FieldEntry, name: str | None = None) -> str:
    """What a person reads: the name (its own, or that of its family), or the meaning of a field that is only numbered."""
    numbered = field.name.startswith("observation_")
    return field.description if numbered and field.description else (name or field.name)


def _columns(fields: Sequence[FieldEntry], name: str) -> list[int]:
    names = [f.name for f in fields]
    if name in names:
        return [names.index(name)]
    family = [i for i, n in enumerate(names) if n.rpartition("_")[0] == name and n.rpartition("_")[2].isdigit()]
    if not family:
        raise InputError(f"fields: {name[:60]!r} is not allowed; allowed: {', '.join(names)}{did_you_mean(name, names)}")
    return family


def _range(field: FieldEntry, name: str, ranges: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    low, high = ranges.get(name, ranges.get(field.name, (field.low, field.high)))
    if not 0 < high - low < _WIDEST_RANGE:
        raise InputError(f"fields: {name} reaches from {low:g} to {high:g}; allowed: a range of recorded values for it")
    return low, high


def _complete(grid: Array, names: Sequence[str], moved: set[int]) -> set[int]:
    """Set what follows from the moved columns; which those are."""
    at = {name: i for i, name in enumerate(names)}
    followed = set[int]()
    rates = [i for name, i in at.items() if name.startswith("request_rate_rps_")]
    if rates and set(rates) <= moved and "request_rate_mean_rps" in at:
        grid[:, at["request_rate_mean_rps"]] = grid[:, at["request_rate_rps_0"]]
        followed.add(at["request_rate_mean_rps"])
    needed = ("request_rate_rps_0", "ready_replicas", "replica_capacity_rps", "cpu_utilisation")
    if set(needed) <= set(at) and at["cpu_utilisation"] not in moved and moved & {at[name] for name in needed[:2]}:
        rate, ready, capacity = (grid[:, at[name]] for name in needed[:3])
        grid[:, at["cpu_utilisation"]] = np.minimum(1.0, rate / np.maximum(ready * capacity, 1e-9))
        followed.add(at["cpu_utilisation"])
    return followed


def _actions(policy: Policy) -> tuple[ActionEntry, ...]:
    """A rule that chooses actions has no table of its own: the environment's."""
    return policy.spec.actions or env_actions(describe_env(policy.spec, policy.spec.name))


def _alone(policy: Policy) -> Policy:
    return policy.without_memory() if isinstance(policy, Rule) else policy


def _decided(policy: Policy, observations: NDArray[Any]) -> Array:
    """(n, k) one number or indicator a decision, scaled so that changes of different policies compare."""
    decision, _ = _alone(policy).act(observations)
    if decision.action is not None and decision.action.ndim == 1:
        indicators: Array = np.eye(len(_actions(policy)))[decision.action]
        return indicators
    values = decision.desired_replicas if decision.action is None else decision.action
    assert values is not None
    return np.asarray(values, dtype=np.float64).reshape(len(observations), -1)


def _fills(found: PolicyMap) -> list[str]:
    """A colour an action; for numbers the steps of a scale."""
    if not found.labels:
        shares = np.linspace(0, 1, _SCALE_STEPS)
        return ["#" + "".join(f"{round(a + (b - a) * s):02x}" for a, b in zip(_LOW, _HIGH, strict=True)) for s in shares]
    if not found.signs:
        return [COLOURS[a % len(COLOURS)] for a in range(len(found.labels))]
    fewer, more = ([a for a, sign in enumerate(found.signs) if sign == wanted] for wanted in (-1, 1))
    fills = [_HOLD] * len(found.signs)
    # The table goes from the largest cut to the largest growth.
    for members, shades in ((fewer[::-1], _FEWER), (more, _MORE)):
        for rank, a in enumerate(members):
            fills[a] = shades[min(rank, len(shades) - 1)]
    return fills


def _indices(found: PolicyMap) -> NDArray[np.int64]:
    """(points, points) index of each cell's colour."""
    if found.labels:
        return found.values.astype(np.int64)
    low, high = float(found.values.min()), float(found.values.max())
    shares = (found.values - low) / ((high - low) or 1.0)
    return np.asarray(np.rint(shares * (_SCALE_STEPS - 1)), dtype=np.int64)


def _cells(found: PolicyMap, box: Axes, fills: Sequence[str]) -> list[str]:
    """One rectangle an unbroken stretch of a row: the file stays small."""
    parts, indices, points = [], _indices(found), len(found.x)
    width, height = _SIDE / points, _SIDE / points
    for row in range(points):
        starts = np.flatnonzero(np.diff(indices[row], prepend=-1))
        for first, last in zip(starts, [*starts[1:], points], strict=True):
            x, y = box.left + first * width, box.bottom - (row + 1) * height
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{(last - first) * width + 0.3:.1f}" height="{height + 0.3:.1f}"'
                f' fill="{fills[indices[row, first]]}"/>'
            )
    return parts


def _visited(box: Axes, visited: NDArray[np.float64] | None) -> list[str]:
    if visited is None or not len(visited):
        return []
    every = -(-len(visited) // _MOST_VISITED)
    low, high = ([r[i] for r in (box.x_range, box.y_range)] for i in (0, 1))
    inside = visited[::every][((visited[::every] >= low) & (visited[::every] <= high)).all(axis=1)]
    dots = "".join(f"M{box.x(x):.1f} {box.y(y):.1f}h0" for x, y in inside)
    return [f'<path d="{dots}" stroke="#111" stroke-opacity="0.55" stroke-width="3" stroke-linecap="round" fill="none"/>']


def _names(found: PolicyMap, box: Axes) -> list[str]:
    """Each action's label in the middle of its largest region: colours alone must not carry the meaning."""
    parts, points = [], len(found.x)
    for a, label in enumerate(found.labels):
        inside, depth = found.values == a, np.zeros(found.values.shape)
        while inside.any():
            depth += inside
            padded = np.pad(inside, 1)
            inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[row, column] <= _LABEL_CELLS:
            continue
        x, y = box.left + (column + 0.5) * _SIDE / points, box.bottom - (row + 0.5) * _SIDE / points
        parts.append(
            f'<text x="{x:.1f}" y="{y + 5:.1f}" text-anchor="middle" font-weight="600" style="fill:#111" stroke="#fff"'
            f' stroke-width="3" stroke-linejoin="round" paint-order="stroke">{escape(label)}</text>'
        )
    return parts


def _key(found: PolicyMap, x: float, fills: Sequence[str], *, dots: bool) -> list[str]:
    parts = [f'<text x="{x}" y="{_TOP + 10}" font-weight="600">{escape(found.value_label)}</text>']
    y = _TOP + 22
    if found.labels:
        shares = found.shares()
        for label, fill in zip(found.labels, fills, strict=True):
            parts.append(f'<rect x="{x}" y="{y}" width="16" height="16" rx="3" fill="{fill}"/>')
            parts.append(f'<text x="{x + 24}" y="{y + 13}">{escape(label)}</text>')
            shown = f"{shares[label]:.0%}" if label in shares else "–"
            parts.append(f'<text class="muted" x="{x + _KEY_WIDTH - 24}" y="{y + 13}" text-anchor="end">{shown}</text>')
            y += 24
    else:
        for step, fill in enumerate(fills):
            parts.append(f'<rect x="{x}" y="{y + 8 * (len(fills) - 1 - step)}" width="16" height="8.3" fill="{fill}"/>')
        for value, at in ((found.values.max(), y + 10), (found.values.min(), y + 8 * len(fills))):
            parts.append(f'<text x="{x + 24}" y="{at}">{count(round(float(value), 4))}</text>')
        y += 8 * len(fills) + 16
    if dots:
        parts.append(f'<path d="M{x + 8} {y + 8}h0" stroke="#777" stroke-width="6" stroke-linecap="round"/>')
        parts.append(f'<text class="muted" x="{x + 24}" y="{y + 13}">visited in an episode</text>')
    return parts
