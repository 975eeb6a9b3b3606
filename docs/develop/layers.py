"""Draws the rooms of `scalepilot`, their layers and what each imports: `make docs` writes layers.svg from the code.

usage: python docs/develop/layers.py > docs/develop/layers.svg
"""

from __future__ import annotations

import importlib.util
import textwrap
import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
ENVS = "scalepilot_envs"
WIDTH, GAP, MARGIN = 1080, 26, 20
# A room that has a row to itself needs fewer lines.
ALONE_HEIGHT, SHARED_HEIGHT = 76, 112
CHARACTER = 6.1


def layers() -> list[list[str]]:
    """The rows of rooms, top first, as import-linter holds them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rows,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [*([name.strip() for name in row.split("|")] for row in rows), [ENVS]]


def module_of(room: str) -> str:
    """The package of a room."""
    return room if room == ENVS else f"scalepilot.{room}"


def about(room: str) -> str:
    """The first sentence of a room's docstring."""
    spec = importlib.util.find_spec(module_of(room))
    assert spec is not None
    assert spec.origin is not None
    first = Path(spec.origin).read_text().split('"""')[1].strip()
    return first.partition(". ")[0].partition("\n")[0].rstrip(".")


def box(room: str, x: float, y: float, width: float, height: float, imports: list[str], modules: int) -> str:
    """A room: its name, what it is for, and which rooms it imports."""
    per_line = int((width - 20) / CHARACTER)
    lines = textwrap.wrap(about(room), per_line)[:3]
    uses = textwrap.wrap(f"imports {', '.join(imports)}" if imports else "imports no other room", per_line)[:2]
    counted = f"{modules} module{'s' * (modules > 1)}"
    parts = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height}" rx="6" fill="#f5f8fb" stroke="#30567d"/>',
        f'<text x="{x + 10:.0f}" y="{y + 22:.0f}" font-size="16" font-weight="bold" fill="#17324d">{room}</text>',
        f'<text x="{x + width - 10:.0f}" y="{y + 22:.0f}" text-anchor="end" fill="#667">{counted}</text>',
    ]
    parts += [
        f'<text x="{x + 10:.0f}" y="{y + 40 + 15 * i:.0f}" fill="#222">{escape(line)}</text>' for i, line in enumerate(lines)
    ]
    base = y + height - 10 - 14 * (len(uses) - 1)
    parts += [f'<text x="{x + 10:.0f}" y="{base + 14 * i:.0f}" fill="#30567d">{line}</text>' for i, line in enumerate(uses)]
    return "\n".join(parts)


def draw() -> str:
    """The picture as SVG."""
    rows = layers()
    rooms = [room for row in rows for room in row]
    graph = grimp.build_graph("scalepilot", ENVS, cache_dir=None)
    inside = {room: {module_of(room), *graph.find_descendants(module_of(room))} for room in rooms}
    owner = {module: room for room, modules in inside.items() for module in modules}
    uses: dict[str, set[str]] = {room: set() for room in rooms}
    for room, modules in inside.items():
        for module in modules:
            uses[room] |= {owner[other] for other in graph.find_modules_directly_imported_by(module) if other in owner} - {room}
    heights = [ALONE_HEIGHT if len(row) == 1 else SHARED_HEIGHT for row in rows]
    height = MARGIN * 2 + sum(heights) + (len(rows) - 1) * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="DejaVu Sans, Verdana, sans-serif" font-size="11">',
        "<title>Rooms of Scalepilot: each imports only from rooms below it</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, row in enumerate(rows):
        y = MARGIN + sum(heights[:number]) + number * GAP
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        for i, room in enumerate(row):
            imports = [other for other in rooms if other in uses[room]]
            parts.append(box(room, MARGIN + i * (width + GAP), y, width, heights[number], imports, len(inside[room])))
        if number:
            parts.append(f'<path d="M{WIDTH / 2:.0f} {y - GAP + 3}v{GAP - 10}m-5 -6l5 7l5 -7" fill="none" stroke="#30567d"/>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    print(draw(), end="")
