"""The controller's own page in a browser: it shows what is decided while it is decided, on any screen, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.recorded_day import Cluster, dark, decisions, service_of

from scalepilot.operate.controller import Controller
from scalepilot.operate.status import status_server
from scalepilot_envs.autoscale import AutoscaleParams

STEP = {"interval_seconds": 300.0, "startup_seconds": 300.0}
OVERLAPS = """
svg => {
  const boxes = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
  const found = [];
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    const x = Math.min(p.right, q.right) - Math.max(p.left, q.left), y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (x > 1 && y > 3) found.push(`${a} | ${b}`);
  }));
  return found;
}
"""
ATTACK = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def live() -> Iterator[SimpleNamespace]:
    """A controller that has decided for twelve hours, an hour of them without telemetry, and goes on when it is told."""
    service = service_of("hpa", STEP)
    cluster = Cluster(AutoscaleParams(**STEP), changed=dark(3, 4))
    decided = decisions(cluster, service, 14.0)
    entries = [next(decided) for _ in range(144)]
    clock = {"now": 0.0}
    controller = Controller(service, cluster, cluster, dry_run=True, clock=lambda: clock["now"], pace=600.0)

    def go_on(entry: Any = None) -> None:
        entry = entry or next(decided)
        controller.entries.append(entry)
        clock["now"] = entry.record.snapshot.time + 4

    for entry in entries:
        go_on(entry)
    with status_server(controller, "127.0.0.1:0") as url:
        yield SimpleNamespace(url=url, controller=controller, go_on=go_on, clock=clock)


@pytest.fixture
def shown(browser: Any, live: SimpleNamespace) -> Iterator[Any]:
    """Opens the page and holds it to silence, and to its own controller."""
    pages, heard = [], []

    def open_page(width: int, scheme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append("dialog"), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith((live.url, "data:")) else heard.append(f"request: {r.url}"))
        page.goto(f"{live.url}/")
        page.wait_for_selector("#live svg")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert heard == []


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (400, "light"), (1400, "light"), (1400, "dark")])
def test_it_fits_any_screen_and_nothing_in_its_plot_overlaps(shown: Any, width: int, scheme: str) -> None:
    page = shown(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)") == (scheme == "dark")
    for text in ("15 min", "1 h", "All"):
        page.get_by_role("button", name=text, exact=True).click()
        assert page.locator("#live svg").evaluate(OVERLAPS) == []
    for line in ("rate", "ready", "wanted", "target", "late"):
        assert len(page.locator(f"#live path.{line}").get_attribute("d")) > 60
    # Wherever the pointer is, what it says stays on the page.
    box = page.locator("#live svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 150)
    assert "replicas" not in page.locator("#tip").inner_text()
    assert "requests/s" in page.locator("#tip").inner_text()
    tip = page.locator("#tip").bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= width


@pytest.mark.slow
def test_it_follows_what_is_decided_and_says_when_nothing_is(shown: Any, live: SimpleNamespace) -> None:
    page = shown(1400)
    assert page.locator("#mode").inner_text() == "Active"
    # An hour without telemetry has its own colours.
    assert page.locator("#live rect.m-holding, #live rect.m-fallback").count() > 0
    live.go_on()
    newest = live.controller.entries[-1]
    page.locator("#sentence", has_text=newest.to_json()["sentence"]).wait_for(timeout=5000)
    assert page.locator("#decisions tr").count() == 12
    readings = newest.record.snapshot.readings
    known = sum(reading.value is not None for reading in readings.values())
    assert page.locator("#fields-title").inner_text() == f"Fields ({known} of {len(readings)} known)"
    # Names are text, whatever they hold.
    live.go_on(replace(newest, record=replace(newest.record, mode="contested", reason=ATTACK, snapshot=replace(
        newest.record.snapshot, time=newest.record.snapshot.time + 300.0))))  # fmt: skip
    page.locator("#mode", has_text="Contested").wait_for(timeout=5000)
    assert page.locator("#reason").inner_text() == ATTACK
    assert "worse" in page.locator("#verdict").get_attribute("class")
    live.clock["now"] += 1000.0
    page.locator("#alert", has_text="No decision for 1,004 s.").wait_for(timeout=5000)
    live.clock["now"] -= 1000.0
    # A clock that is set back leaves nothing old on the page.
    live.go_on(
        replace(
            newest,
            record=replace(newest.record, snapshot=replace(newest.record.snapshot, time=newest.record.snapshot.time - 3000.0)),
        )
    )
    page.locator("#mode", has_text="Active").wait_for(timeout=5000)
    assert (
        page.locator("#decisions tr").nth(1).inner_text().split()[0]
        < page.locator("#decisions tr").nth(0).inner_text().split()[0]
    )
