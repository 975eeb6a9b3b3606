"""The report in a browser: what a person clicks, drags and reads, and that nothing leaves the page or breaks it."""

from dataclasses import replace

import pytest

from scalepilot.evaluate import Contender, compare
from scalepilot.evaluate.suite import compare_suite
from scalepilot.policy.rules import Hpa, HpaParameters, LookAhead, Static, StaticParameters
from scalepilot.report.html.report import LearningCurve, Picture, ReportData, write_report
from scalepilot.simulate import protocol_v1, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload

PARAMS = AutoscaleParams()
# Markup, quotes, the end of a script element, and a character that turns the direction of what follows.
ATTACK = "<script>alert(1)</script>\"'</script><img src=x onerror=alert(2)>\u202e"
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="80" height="40" onload="alert(3)"><script>alert(4)</script>'
    '<style>h1 { display: none }</style><rect width="80" height="40" fill="#07c"/></svg>'
)


def comparison_of(name, seed, prefix=""):
    workload = DiurnalWorkload(days=10, low_rps=20 + 20 * seed, high_rps=200, seed=seed)
    test = protocol_v1(f"{prefix}{name}", workload, PARAMS, window_steps=480, drawn_windows=2, test_seeds=(0,)).test
    entries = [
        (f"{prefix}ppo", "policy", Hpa(HpaParameters("rps", 0.6), PARAMS)),
        (f"{prefix}hpa-default", "baseline", Hpa(HpaParameters(), PARAMS)),
        (f"{prefix}static", "baseline", Static(StaticParameters(12), PARAMS)),
        (f"{prefix}look-ahead", "reference", LookAhead(0.8)),
    ]
    flown = [(n, role, run_episodes(rule, test, PARAMS, playback_of=1)) for n, role, rule in entries]
    contenders = [Contender(n, role, f"{prefix}detail", *outcome) for n, role, outcome in flown]
    return compare(test.workload, test, contenders, bootstrap_samples=50)


def data_of(comparison, prefix=""):
    rows = [{"env_steps": 1000.0 * i, "time_seconds": 1.0 * i, "validation_J_per_hour": 20.0 + 30 / i} for i in range(1, 20)]
    return ReportData(
        title=f"{prefix}a small comparison",
        comparison=comparison,
        learning_curves=[LearningCurve(f"{prefix}ppo", seed, rows) for seed in (0, 1)],
        reference_lines={f"{prefix}hpa-default": 24.0},
        pictures=[Picture(f"{prefix}map", f"{prefix}caption", PICTURE)],
        stills=[Picture(f"{prefix}still", f"{prefix}caption", PICTURE)],
        config_yaml=f"name: {prefix}x\n",
        provenance={"git sha": "abc", "versions": {f"{prefix}numpy": "2"}},
        reproduce=[f"scalepilot train {prefix}x.yaml"],
    )


@pytest.fixture(scope="module")
def suite():
    return compare_suite([comparison_of("shop", 0), comparison_of("night", 1)], bootstrap_samples=50)


@pytest.fixture(scope="module")
def report(suite, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(data_of(suite), path)
    return path


def first_names(table):
    return table.locator("tbody tr .name").all_inner_texts()


def test_a_click_on_a_heading_sorts_the_table_and_another_turns_it_round(opened, report):
    page = opened(report)
    table = page.locator("#workload-0 table.sortable")
    heading = table.locator("th", has=page.get_by_role("button", name="Late requests"))

    def shares():
        cells = table.locator('td[data-label="Late requests"]')
        return [float(x) for x in cells.evaluate_all("cells => cells.map(c => c.dataset.sort)")]

    before = first_names(table)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert shares() == sorted(shares())
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert shares() == sorted(shares(), reverse=True)
    assert len(set(shares())) > 1
    assert sorted(first_names(table)) == sorted(before)


def test_the_scrubber_moves_the_readout_by_drag_by_key_and_by_play(opened, report):
    page = opened(report)
    panel = page.locator("#workload-0")
    scrubber, readout = panel.locator('input[type="range"]'), panel.locator(".readout")
    shown = [readout.inner_text()]
    scrubber.fill("10")
    shown.append(readout.inner_text())
    scrubber.press("End")
    shown.append(readout.inner_text())
    chart = panel.locator(".playback .chart svg")
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    shown.append(readout.inner_text())
    assert len(set(shown)) == len(shown)
    panel.get_by_role("button", name="Play").click()
    page.wait_for_function("before => document.querySelector('#workload-0 .readout').innerText !== before", arg=shown[-1])
    panel.get_by_role("button", name="Pause").click()
    still = readout.inner_text()
    page.wait_for_timeout(150)
    assert readout.inner_text() == still


def test_a_chip_shows_and_hides_a_contender(opened, report):
    page = opened(report)
    panel = page.locator("#workload-0")

    def curves():
        return panel.locator(".playback path.curve").count()

    before = curves()
    chip = panel.locator(".chip", has_text="static")
    hidden = chip.get_attribute("aria-pressed") == "false"
    chip.click()
    assert curves() == before + (2 if hidden else -2)
    assert ("static" in panel.locator(".readout").inner_text()) == hidden


def test_the_tabs_switch_the_workload_by_click_and_by_key(opened, report):
    page = opened(report)
    first, second = page.get_by_role("tab", name="shop"), page.get_by_role("tab", name="night")
    assert page.locator("#workload-0").is_visible()
    second.click()
    assert page.locator("#workload-1").is_visible()
    assert page.locator("#workload-0").is_hidden()
    assert page.locator("#workload-1 .chart svg").count() == 2
    second.press("ArrowLeft")
    assert first.get_attribute("aria-selected") == "true"
    assert page.locator("#workload-0").is_visible()


def test_a_point_says_what_it_is_to_pointer_and_keyboard(opened, report):
    page = opened(report)
    mark = page.locator("#workload-0 .mark.policy").first
    mark.hover()
    assert "J " in page.locator("#tip").inner_text()
    page.mouse.move(1, 1)
    assert page.locator("#tip").is_hidden()
    mark.focus()
    assert "ppo" in page.locator("#tip").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_screen_and_no_two_labels_overlap(opened, report, width, scheme):
    page = opened(report, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    boxes = page.locator('#workload-0 [data-chart="scatter"] text.label').evaluate_all(
        "nodes => nodes.map(n => { const b = n.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })"
    )
    assert len(boxes) == 4
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            overlap = (min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1]))
            assert min(overlap) < 4, "labels cover each other"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


def test_on_paper_all_workloads_are_there_and_no_buttons_are(opened, report):
    page = opened(report)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#workload-0").is_visible()
    assert page.locator("#workload-1").is_visible()
    assert page.locator("#workload-1 .chart svg").count() == 2
    for control in (".scrub", ".tabs", ".copy"):
        assert page.locator(control).first.is_hidden()


def test_without_javascript_verdict_tables_and_pictures_are_there(opened, report):
    page = opened(report, java_script_enabled=False)
    assert page.locator(".verdict").first.is_visible()
    assert page.locator("#workload-1 table").first.is_visible()
    assert [img.is_visible() for img in page.locator(".pictures img").all()] == [True, True]
    assert "need JavaScript" in page.locator("noscript").inner_text()


def test_a_name_that_is_a_script_is_only_text(opened, suite, tmp_path):
    first = comparison_of("shop", 0, prefix=ATTACK)
    second = replace(first, workload=f"{ATTACK}night")
    hostile = compare_suite([first, second], failed={ATTACK: ATTACK}, bootstrap_samples=20)
    path = tmp_path / "report.html"
    write_report(data_of(hostile, ATTACK), path)
    page = opened(path)
    for tab in page.get_by_role("tab").all():
        tab.click()
    for button in page.locator("#workload-1 th button, #workload-1 .chip").all():
        button.click()
    page.locator("#workload-1 .mark.policy").first.hover()
    assert "<script>alert(1)</script>" in page.locator("#tip").inner_text()
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 1
    assert "\u202e" not in page.locator("main").inner_text()
    assert "⟨U+202E⟩" in page.locator("h1").inner_text()
    # What the picture's own style asks for stays in the picture.
    assert page.locator("h1").is_visible()
