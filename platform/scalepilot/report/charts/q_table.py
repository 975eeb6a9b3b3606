"""A Q-table as a picture: the greedy action and its value over one or two fields, as SVG text."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.policy import TablePolicy

_CELL_WIDTH, _CELL_HEIGHT, _LEFT, _TOP, _FOOT = 46, 24, 120, 64, 64
_MAX_CELLS = 120
# From low to high value; light enough for dark letters, and apart for any colour vision.
_LOW, _HIGH, _UNSEEN = (253, 231, 200), (120, 180, 230), "#f4f4f4"
_LETTERS = 6


def q_table_svg(policy: TablePolicy, fields: Sequence[str] = (), at: Mapping[str, float] | None = None) -> str:
    """The picture alone; see `q_table_picture`."""
    return _drawn(policy, fields, at)[0]


def q_table_picture(
    policy: TablePolicy, path: Path, fields: Sequence[str] = (), at: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Draw a table.

    Two fields: a cell a pair of bins, with the greedy action and, as colour, its value. One field: a column a bin, a row an
    action, with its value. A state whose actions are all worth the same was never learnt and stays blank.

    Args:
        policy: to draw.
        path: the SVG file to write.
        fields: one or two fields of the table, across and up; by default the two (or the one) with the most bins.
        at: values of the others; by default those of the state most is known about: whose plane has most learnt cells.

    Returns:
        Field → value that the others were held at (a value in the middle of their bin).

    Raises:
        InputError: a field that the table does not see.
    """
    svg, values = _drawn(policy, fields, at)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg, encoding="utf-8")
    return values


def _drawn(policy: TablePolicy, fields: Sequence[str], at: Mapping[str, float] | None) -> tuple[str, dict[str, float]]:
    names, shape = _axes(policy)
    most = sorted(range(len(names)), key=lambda i: -shape[i])[:2]
    shown = list(fields) or [names[i] for i in sorted(most)]
    for name in [*shown, *(at or {})]:
        if name not in names:
            raise InputError(f"fields: {name!r} is not allowed; allowed: {', '.join(names)}")
    if not 1 <= len(set(shown)) == len(shown) <= 2:
        raise InputError(f"fields: {shown} is not allowed; allowed: one or two different ones of {', '.join(names)}")
    axes = [names.index(name) for name in shown]
    others = [i for i in range(len(names)) if i not in axes]
    q = policy.q.reshape(*shape, -1)
    learnt = q.max(axis=-1) > q.min(axis=-1)
    held = _held(policy, learnt, axes, others, at or {})
    plane = np.moveaxis(q, [*others, *axes], range(len(names)))[tuple(held.values())]
    known = np.moveaxis(learnt, [*others, *axes], range(len(names)))[tuple(held.values())]
    values = {names[i]: _middle(policy, names[i], k) for i, k in held.items()}
    return _svg(policy, shown, plane, known, values), values


def _axes(policy: TablePolicy) -> tuple[list[str], tuple[int, ...]]:
    d = policy.discretiser
    return list(d.edges) or [d.fields[0].name], d.shape


def _held(
    policy: TablePolicy, learnt: NDArray[np.bool_], axes: list[int], others: list[int], at: Mapping[str, float]
) -> dict[int, int]:
    """Index of the bin at which each of the other fields is held."""
    if not others:
        return {}
    names, _ = _axes(policy)
    counts = learnt.sum(axis=tuple(axes))
    given = {i: int(policy.discretiser.edges[names[i]].searchsorted(np.float32(at[names[i]]), side="right"))
             for i in others if names[i] in at}  # fmt: skip
    for position, i in enumerate(others):
        if i in given:
            kept = np.zeros(counts.shape[position], dtype=np.bool_)
            kept[given[i]] = True
            # A plane without a learnt cell is better than another than asked for.
            counts = np.where(kept.reshape([-1 if p == position else 1 for p in range(counts.ndim)]), counts, -1)
    best = np.unravel_index(int(counts.argmax()), counts.shape)
    return {i: int(best[position]) for position, i in enumerate(others)}


def _bounds(policy: TablePolicy, name: str, k: int) -> tuple[float, float]:
    field = next(f for f in policy.discretiser.fields if f.name == name)
    edges = policy.discretiser.edges.get(name)
    if edges is None:
        return field.low + k, field.low + k
    low = field.low if k == 0 else float(edges[k - 1])
    return low, field.high if k == len(edges) else float(edges[k])


def _middle(policy: TablePolicy, name: str, k: int) -> float:
    low, high = _bounds(policy, name, k)
    return (low + high) / 2


def _svg(
    policy: TablePolicy, shown: Sequence[str], plane: NDArray[np.float64], known: NDArray[np.bool_], held: Mapping[str, float]
) -> str:
    spec, units = policy.spec, {f.name: f.unit for f in policy.discretiser.fields}
    labels = [a.label for a in spec.actions]
    across = range(plane.shape[0])[:_MAX_CELLS]
    if len(shown) == 2:
        up = range(plane.shape[1])[:_MAX_CELLS]
        value = plane.max(axis=-1)
        texts = np.array([[labels[a][:_LETTERS] for a in row] for row in plane.argmax(axis=-1)])
        row_labels = [_bin_label(policy, shown[1], k) for k in up]
        side = f"{shown[1]} ({units[shown[1]]})"
    else:
        up = range(len(labels))
        # The first action on top, as people list them.
        value, known = plane[:, ::-1], np.repeat(known[:, None], len(labels), axis=1)
        texts = np.array([[f"{v:.4g}" for v in row] for row in value])
        row_labels, side = labels[::-1], "action"
    low, high = (float(value[known].min()), float(value[known].max())) if known.any() else (0.0, 0.0)
    width, bottom = _LEFT + _CELL_WIDTH * len(across) + 20, _TOP + _CELL_HEIGHT * len(up)
    title = f"{spec.name} · {spec.env_id.rpartition('/')[2]}"
    others = " · ".join(f"{n} = {v:.4g}" for n, v in held.items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{max(width, 460)}" height="{bottom + _FOOT}" font-family="sans-serif"'
        ' font-size="11" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(10, 20, title, 'font-size="15"'),
        _text(10, 40, f"{'greedy action' if len(shown) == 2 else 'value of each action'}; blank: never learnt"
              + (f"; at {others}" if others else "")),
        _text(10, _TOP - 6, side, 'fill="#6e6e6e"'),
    ]  # fmt: skip
    for row in up:
        y = bottom - _CELL_HEIGHT * (row + 1)
        parts.append(_text(_LEFT - 6, y + 16, row_labels[row], 'text-anchor="end" fill="#6e6e6e"'))
        for column in across:
            x, seen = _LEFT + _CELL_WIDTH * column, bool(known[column, row])
            share = (float(value[column, row]) - low) / (high - low) if seen and high > low else 0.0
            fill = _colour(share) if seen else _UNSEEN
            parts.append(f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH - 1}" height="{_CELL_HEIGHT - 1}" fill="{fill}"/>')
            if seen:
                parts.append(_text(x + _CELL_WIDTH / 2, y + 16, str(texts[column, row]), 'text-anchor="middle"'))
    for column in across:
        parts.append(
            _text(
                _LEFT + _CELL_WIDTH * (column + 0.5),
                bottom + 14,
                _bin_label(policy, shown[0], column),
                'text-anchor="middle" fill="#6e6e6e"',
            )
        )
    parts.append(_text(_LEFT, bottom + 32, f"{shown[0]} ({units[shown[0]]})", 'fill="#6e6e6e"'))
    parts.append(_text(_LEFT, bottom + 52, f"value from {low:.4g}"))
    for step in range(10):
        parts.append(f'<rect x="{_LEFT + 110 + 10 * step}" y="{bottom + 43}" width="10" height="10" fill="{_colour(step / 9)}"/>')
    parts.append(_text(_LEFT + 218, bottom + 52, f"to {high:.4g}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bin_label(policy: TablePolicy, name: str, k: int) -> str:
    low, high = _bounds(policy, name, k)
    return f"{low:.4g}" if low == high or k == 0 else f"≥ {low:.4g}"


def _colour(share: float) -> str:
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_LOW, _HIGH, strict=True))


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {attributes}>{html.escape(text)}</text>'
