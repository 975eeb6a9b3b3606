"""The report of recorded decisions in a browser: it fits any screen, in light and in dark, and nothing in it overlaps."""

import base64
from pathlib import Path

import pytest
from tests.recorded_day import Cluster, dark, decisions, service_of

from scalepilot.operate.day_page import render_page
from scalepilot.operate.day_report import day_report, priced
from scalepilot.operate.recorded import read_recorded
from scalepilot_envs.autoscale import AutoscaleParams

STEP = {"interval_seconds": 300.0, "startup_seconds": 300.0}
# The boxes of all letters of a picture, and pairs of them that overlap.
OVERLAPS = """
svg => {
  const texts = [...svg.querySelectorAll("text")].filter((t) => t.textContent);
  const boxes = texts.map((t) => [t.textContent, t.getBoundingClientRect()]);
  const found = [];
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    const x = Math.min(p.right, q.right) - Math.max(p.left, q.left), y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (x > 1 && y > 3) found.push(`${a} | ${b}`);
  }));
  return found;
}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    service = service_of("kpa", STEP)
    cluster = Cluster(AutoscaleParams(**STEP), changed=dark(3, 4))
    recorded = read_recorded((e for i, e in enumerate(decisions(cluster, service, 30.0)) if not 200 < i < 212), service)
    report = day_report(recorded, service, priced(service, {}))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_page(report, "scalepilot operate report --config " + "a-long-folder/" * 12, "operate-records"))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (400, "light"), (1400, "light"), (1400, "dark")])
def test_the_page_fits_the_screen_and_its_picture_can_be_read(opened, written: Path, width: int, scheme: str):
    page = opened(written, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    shown = page.locator("picture img").evaluate("image => [image.naturalWidth, image.clientWidth, image.currentSrc]")
    # Not shrunk by more than a twentieth: its letters stay as large as they were made.
    assert shown[1] >= 0.95 * min(shown[0], width)
    picture = written.with_name(f"{width}.html")
    picture.write_bytes(base64.b64decode(shown[2].partition("base64,")[2]))
    assert opened(picture, width=width).locator("svg").evaluate(OVERLAPS) == []


@pytest.mark.slow
def test_every_table_is_read_on_a_phone_without_scrolling(opened, written: Path):
    page = opened(written, width=400)
    wide = page.locator("table, pre").evaluate_all(
        "all => all.filter((t) => t.tagName === 'TABLE' && t.scrollWidth > t.clientWidth).map((t) => t.innerText.slice(0, 80))"
    )
    assert wide == []
