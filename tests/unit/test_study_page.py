"""The page of a study: whole in one file, and deaf to what its names say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from tests.unit.study_results import arm, task

from scalepilot.report.charts.study_charts import action_shares, dot_plots, learning_curves
from scalepilot.report.html.study_page import HEADINGS, StudyPage, render_markdown, render_page
from scalepilot.report.words.study_text import analysis, verdict

EVIL = "<script>alert(1)</script>"


def page(*arms: str) -> StudyPage:
    found = task("Task", *(arm(name, 300.0 + 50 * i, draw=i) for i, name in enumerate(arms)))
    plots = {"Task": {f"curves of {arms[0]}": ("plots/curves.svg", learning_curves(found, "env_steps"))}}
    return StudyPage(
        "study", [0, 1, 2, 3, 4], [found], plots, {}, f"name: {EVIL}", "scalepilot study s.yaml", [("git sha", EVIL)]
    )


def test_the_page_loads_nothing_and_runs_nothing():
    html = render_page(page("DQN", "PPO"))
    assert "default-src &#39;none&#39;" in html
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="(?!data:image/svg\+xml;base64,)', html)
    assert len(html) < 2_000_000


def test_names_are_text_whatever_they_hold():
    html = render_page(page(EVIL, "PPO"))
    assert EVIL not in html
    assert "&lt;script&gt;" in html


def test_page_and_markdown_hold_every_figure_and_every_paragraph():
    shown = page("DQN", "PPO")
    html, markdown = render_page(shown), render_markdown(shown)
    found = shown.tasks[0]
    for text in (verdict(found), *(p.text for p in analysis(found))):
        assert text in markdown
        assert text.replace("'", "&#39;").replace("<", "&lt;") in html
    rows = [line for line in markdown.splitlines() if line.startswith("| **")]
    assert len(rows) == len(found.arms) + 1
    assert {row.count("|") for row in rows} == {len(HEADINGS) + 1}


@pytest.mark.parametrize("names", [("DQN",), ("a", "b", "c"), (EVIL, "x" * 60, *"abcdefgh")])
def test_pictures_are_sound_xml_for_one_arm_or_many_and_any_name(names: tuple[str, ...]):
    found = task("Task", *(arm(name, 300.0 + i, draw=i) for i, name in enumerate(names)))
    pictures = [learning_curves(found, "env_steps"), learning_curves(found, "time_seconds"), *dot_plots(found).values()]
    shares = action_shares(found)
    assert shares is not None
    for svg in (*pictures, shares):
        ET.fromstring(svg)
        assert "nan" not in svg.lower().replace("nance", "")


def test_one_seed_can_be_drawn():
    found = task("Task", arm("DQN", 300.0, seeds=1), arm("PPO", 200.0, seeds=1, draw=1))
    for svg in (learning_curves(found, "env_steps"), *dot_plots(found).values()):
        ET.fromstring(svg)
        assert "nan" not in svg
