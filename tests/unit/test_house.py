"""The code's own order: the size of modules, the picture of the rooms, and links between pages."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 400
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_no_module_is_longer_than_a_person_reads_at_once() -> None:
    sources = [path for room in ("platform", "envs") for path in (ROOT / room).rglob("*.py")]
    lines = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert not {str(path): count for path, count in lines.items() if count > MOST_LINES}


def test_the_picture_of_the_rooms_shows_those_that_import_linter_holds() -> None:
    spec = importlib.util.spec_from_file_location("layers", ROOT / "docs/develop/layers.py")
    assert spec is not None
    assert spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    drawn = re.findall(r'font-weight="bold"[^>]*>(\w+)<', (ROOT / "docs/develop/layers.svg").read_text())
    assert drawn == [room for row in layers.layers() for room in row], "run make docs"
    assert layers.draw().count("<rect") == len(drawn) + 1


def test_no_module_imports_itself_round_a_corner() -> None:
    graph = grimp.build_graph("scalepilot", "scalepilot_envs", cache_dir=None, exclude_type_checking_imports=True)
    left = {module: {*graph.find_modules_directly_imported_by(module)} for module in graph.modules}
    while leaves := {module for module, imports in left.items() if not imports}:
        left = {module: imports - leaves for module, imports in left.items() if module not in leaves}
    assert not left, "in a circle, or importing one"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
