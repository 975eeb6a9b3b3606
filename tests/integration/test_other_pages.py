"""The pages of demo and study in a browser: they fit any screen, say nothing on the console, and the scrubber scrubs."""

import pytest
from tests.unit.study_results import arm, task

from scalepilot.report.charts.study_charts import dot_plots, learning_curves
from scalepilot.report.html.study_page import StudyPage, render_page
from scalepilot.report.replay.autoscale_replay import finished
from scalepilot.report.replay.lineup import DemoOptions, make_replay
from scalepilot.report.replay.page import replay_page

SCREENS = [(width, scheme) for width in (400, 1400) for scheme in ("light", "dark")]
ATTACK = "<script>alert(1)</script>"


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def is_dark(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    replay = make_replay(DemoOptions(["kpa"], pattern="spike", steps=60, seed=0))
    finished(replay)
    replay.lanes[0].name = ATTACK
    path = tmp_path_factory.mktemp("demo") / "service.html"
    path.write_text(replay_page(replay), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    replay = make_replay(DemoOptions(["random", "threshold"], env="QueueScaling-v0", steps=40, seed=0, filmed=True))
    finished(replay)
    path = tmp_path_factory.mktemp("demo") / "filmed.html"
    path.write_text(replay_page(replay), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    long = "learning rate 0.000125 minibatch 8192 with a very long name"
    found = task("CartPole", *(arm(name, 300.0 + 50 * i, draw=i) for i, name in enumerate(("DQN", long, ATTACK))))
    pictures = {"learning curves": learning_curves(found, "env_steps"), **dot_plots(found)}
    plots = {"CartPole": {name: (f"plots/{i}.svg", svg) for i, (name, svg) in enumerate(pictures.items())}}
    command = f"scalepilot study {'a-long-folder/' * 12}study.yaml"
    shown = StudyPage("study", [0, 1, 2, 3, 4], [found], plots, {}, "name: x\n", command, [("git sha", "0123456789abcdef" * 4)])
    path = tmp_path_factory.mktemp("study") / "study.html"
    path.write_text(render_page(shown), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(400, "dark"), *(pytest.param(*screen, marks=pytest.mark.slow) for screen in SCREENS if screen != (400, "dark"))],
)
@pytest.mark.parametrize("name", ["service", "filmed", "study"])
def test_every_page_fits_the_screen_in_light_and_in_dark(opened, request, name, width, scheme):
    page = opened(request.getfixturevalue(name), width=width, scheme=scheme)
    assert overflow(page) == 0
    assert is_dark(page) == (scheme == "dark")
    if name != "study":
        page.locator("#scrubber").fill("3")
        assert overflow(page) == 0


def test_every_figure_of_a_demo_can_be_read_on_a_phone(opened, service):
    page = opened(service, width=400)
    widths = page.locator("#lanes").evaluate("table => [table.scrollWidth, table.parentElement.clientWidth]")
    assert widths[0] <= widths[1], "columns are out of sight"


@pytest.mark.parametrize("name", ["service", "filmed"])
def test_the_scrubber_moves_clock_and_figures_by_drag_by_key_and_by_play(opened, request, name):
    page = opened(request.getfixturevalue(name))
    scrubber, clock, table = (page.locator(f"#{part}") for part in ("scrubber", "clock", "lanes"))
    at_the_end = (clock.inner_text(), table.inner_text())
    scrubber.fill("10")
    earlier = (clock.inner_text(), table.inner_text())
    assert earlier[0] != at_the_end[0]
    assert earlier[1] != at_the_end[1]
    scrubber.press("ArrowRight")
    assert scrubber.input_value() == "11"
    assert clock.inner_text() != earlier[0]
    page.get_by_role("button", name="play").click()
    # The page's security policy forbids what wait_for_function does.
    for _ in range(100):
        if int(scrubber.input_value()) > 12:
            break
        page.wait_for_timeout(100)
    assert int(scrubber.input_value()) > 12
    page.get_by_role("button", name="play").click()
    stopped = scrubber.input_value()
    page.wait_for_timeout(200)
    assert scrubber.input_value() == stopped
    scrubber.press("End")
    assert (clock.inner_text(), table.inner_text()) == at_the_end


def test_the_pictures_of_a_demo_follow_the_scrubber(opened, filmed):
    page = opened(filmed)
    images = page.locator("#pictures img")
    assert images.count() == 2
    last = images.first.get_attribute("src")
    page.locator("#scrubber").fill("0")
    assert images.first.get_attribute("src") != last
    assert images.first.evaluate("image => image.naturalWidth") > 0
