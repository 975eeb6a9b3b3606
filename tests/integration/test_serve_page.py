"""The server's page in a browser, against a real server: what a person chooses, drags, reads and copies."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import uvicorn
from benchmarks.ports import free_port
from tests.conftest import tiny_model_bytes

from scalepilot.policy import ActionEntry, NetworkPolicy, PolicySpec, autoscale_fields, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyApi, PolicyStore, serve_config
from scalepilot.serve.config import CanaryConfig, RouteConfig
from scalepilot.serve.http.keys import ApiKeys
from scalepilot_envs.autoscale import DEFAULT_MOVES, ENV_ID, AutoscaleParams, MoveTable

KEY = "a-key-for-these-tests-alone"
ATTACK = "<script>alert(1)</script>\"'</script><img src=x onerror=alert(2)>\u202e"
# What each move is worth: the nearest to the replicas that 14 requests/s each would need.
MEANT_CHANGES = np.array([-8.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 12.0])
EVALUATION = {
    "workloads": ["shop"],
    "episodes": 75,
    "policies": {
        "tiny": {
            "J": {"mean": 9.898, "low": 7.326, "high": 12.43},
            "late_share": {"mean": 0.00101, "low": 0.0, "high": 0.0025},
            "replicas": {"mean": 9.46, "low": 7.23, "high": 11.59},
        },
        "hpa-default": {"J": {"mean": 9.458, "low": 6.864, "high": 11.97}},
    },
    "gap_closed": {"tiny": {"hpa-default": {"mean": 0.25, "low": 0.1, "high": 0.4}}},
    "roles": {"tiny": "policy", "hpa-default": "baseline"},
}


def network(name, version="1", *, weight=1.0, **changes):
    params = AutoscaleParams()
    fields = autoscale_fields(params)
    spec = PolicySpec(
        name=name,
        version=version,
        kind="network",
        env_id=ENV_ID,
        env_params=asdict(params),
        observation_fields=fields,
        actions=tuple(ActionEntry(**entry) for entry in MoveTable(DEFAULT_MOVES).to_json()),
        decision_rule="argmax_p",
        provenance={"algorithm": "none", "env_steps": 1000},
    )
    names, weights = [f.name for f in fields], np.zeros((len(fields), len(DEFAULT_MOVES)))
    weights[names.index("request_rate_rps_0")] = 2 * MEANT_CHANGES / 14 * weight
    weights[names.index("ready_replicas")] = -2 * MEANT_CHANGES * weight
    return NetworkPolicy(replace(spec, **changes), tiny_model_bytes(weights, -(MEANT_CHANGES**2) * weight))


class Server:
    """A server of policies on a free loopback port."""

    def __init__(self, store, config=None, keys=None):
        self.store = store
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        api = PolicyApi(store, config, keys=keys)
        self._server = uvicorn.Server(uvicorn.Config(api, host="127.0.0.1", port=self.port, log_level="warning"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(30)


def saved(folder, policy):
    save_policy(policy, folder)
    return folder


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    described = tuple(replace(f, description=ATTACK, unit=ATTACK) for f in autoscale_fields(AutoscaleParams()))
    hostile = {"note": ATTACK, "policies": {ATTACK: {ATTACK: {"mean": 1.0, "low": 0.5, "high": 2.0}}}, "roles": {ATTACK: ATTACK}}
    return SimpleNamespace(
        tiny=network("tiny", "1"),
        newer=network("tiny", "2", evaluation=EVALUATION),
        worth=network("worth", decision_rule="argmax_q"),
        wild=network("wild", weight=1e34),
        hostile=network("hostile", observation_fields=described, evaluation=hostile, provenance={"config": ATTACK, "by": ATTACK}),
        hpa=make_rule("hpa", AutoscaleParams()),
        grid=make_rule("hpa", AutoscaleParams(observe_clock=True), name="by-the-clock"),
        folder=folder,
    )


@pytest.fixture(scope="module")
def server(policies):
    order = ("tiny", "newer", "worth", "wild", "hostile", "hpa", "grid")
    folders = [saved(policies.folder / name, getattr(policies, name)) for name in order]
    routes = {"tiny": RouteConfig(shadow="hpa"), "worth": RouteConfig(canary=CanaryConfig("tiny@1", 0.0))}
    with Server(PolicyStore.load(folders, routes)) as running:
        yield running


@pytest.fixture(scope="module")
def locked(policies, tmp_path_factory):
    """A server whose page is open and whose API needs a key."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    store = PolicyStore.load([saved(policies.folder / "locked", policies.tiny)])
    with Server(store, serve_config({"open": ["page"]}), ApiKeys(path)) as running:
        yield running


@pytest.fixture
def visited(browser):
    """Opens a server's page and holds it to silence; nothing but that server may be asked."""
    contexts, heard, allowed = [], [], []

    def visit(running, fragment="", *, width=1400, scheme="light", failing=()):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        # Chromium itself writes a line for every answer of an error; a test names those that it causes.
        allowed.extend(failing)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        own = (running.url + "/", "data:")
        page.on("request", lambda r: None if r.url.startswith(own) else heard.append(f"request: {r.url}"))
        page.goto(f"{running.url}/{fragment}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [line for line in heard if not any(text in line for text in allowed)] == []


def ready(page):
    page.locator("#map-summary", has_text="decisions:").wait_for()
    return page


def number(page, name):
    return page.locator(f'[data-field="{name}"] input[type="number"]').first


def slider(page, name):
    return page.locator(f'[data-field="{name}"] input[type="range"]').first


def is_decision(request):
    return request.method == "POST" and '"explain":true' in (request.post_data or "")


def is_grid(request):
    return request.method == "POST" and '"observation":[' in (request.post_data or "")


def decided(page, act):
    """The last decision that an act leads to: what was asked, and what the page was answered."""
    with page.expect_response(lambda response: is_decision(response.request)) as found:
        act()
    asked = json.loads(found.value.request.post_data)
    page.wait_for_timeout(150)
    return asked, found.value.json()


def asked_directly(running, reference, body):
    answer = httpx.post(f"{running.url}/v1/policies/{reference}:decide", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_shown(page, answer):
    """The page shows this answer's replicas, move, words and scores."""
    assert page.locator("#desired").inner_text() == str(answer["desired_replicas"])
    assert page.locator("#move").inner_text() == answer["move"]
    assert page.locator("#words").inner_text() == answer["explanation"]["words"]
    scores = answer.get("probabilities") or answer.get("q_values") or {}
    rows = page.locator("#scores tbody tr")
    assert [text.split("\n")[0] for text in rows.locator("th").all_inner_texts()] == list(scores)
    if scores:
        assert page.locator("#scores tr.chosen th").inner_text().split("\n") == [answer["move"], "(chosen)"]


def test_policies_are_listed_with_version_kind_environment_and_routes(visited, server):
    page = ready(visited(server))
    rows = page.locator("#policies tbody tr")
    listed = httpx.get(f"{server.url}/v1/policies").json()["policies"]
    assert rows.locator(".name").all_inner_texts() == list(dict.fromkeys(p["name"] for p in listed))
    tiny = rows.filter(has=page.get_by_text("tiny", exact=True))
    assert tiny.locator("option").all_inner_texts() == ["1", "2 (default)"]
    assert "hpa (shadow)" in tiny.inner_text()
    assert "tiny@1 (canary, 0 %)" in rows.filter(has_text="worth").inner_text()
    assert "rule, remembers" in rows.filter(has=page.get_by_text("hpa", exact=True)).inner_text()
    assert page.title() == f"{listed[0]['name']} · Scalepilot"


def test_another_policy_and_another_version_answer_when_they_are_chosen(visited, server):
    page = ready(visited(server, "#worth"))
    decided(page, lambda: page.get_by_role("radio", name="tiny").check())
    assert "tiny@2" in page.locator("#answered").inner_text()
    with page.expect_response(lambda response: is_decision(response.request)) as found:
        page.get_by_label("Version of tiny").select_option("1")
    assert found.value.url == f"{server.url}/v1/policies/tiny@1:decide"
    page.locator("#answered", has_text="tiny@1").wait_for()
    assert page.url == f"{server.url}/#tiny@1"
    page.reload()
    page.locator("#answered", has_text="tiny@1").wait_for()


def test_the_evaluation_is_a_table_of_means_and_intervals(visited, server):
    page = ready(visited(server, "#tiny"))
    rows = page.locator("#evaluation tbody tr")
    assert rows.locator(".name").all_inner_texts() == ["tiny", "hpa-default"]
    assert rows.nth(0).locator("td").all_inner_texts() == [
        "9.90\n7.33 to 12.43",
        "0.10 %\n0.00 % to 0.25 %",
        "9.46\n7.23 to 11.59",
    ]
    assert rows.nth(1).locator("td").all_inner_texts() == ["9.46\n6.86 to 11.97", "–", "–"]
    assert "Gap to hpa-default closed\n25 % (10 % to 40 %)" in page.locator("#evaluation dl").first.inner_text()
    page.get_by_label("Version of tiny").select_option("1")
    page.locator("#answered", has_text="tiny@1").wait_for()
    assert page.locator("#evaluation").is_hidden()


def test_a_slider_moves_the_decision_and_the_page_shows_the_servers_own_answer(visited, server):
    page = ready(visited(server, "#tiny"))
    before = page.locator("#desired").inner_text()
    slider(page, "request_rate_rps (all)").focus()
    asked, answer = decided(page, lambda: [page.keyboard.press("ArrowRight") for _ in range(20)])
    page.wait_for_timeout(200)
    asked = json.loads(re.search(r"-d '(.*)'", page.locator("#curl").inner_text(), re.DOTALL)[1])
    rates = {value for name, value in asked["observation"].items() if name.startswith("request_rate_rps_")}
    assert rates == {float(number(page, "request_rate_rps (all)").input_value())}
    assert asked["observation"]["request_rate_mean_rps"] in rates
    assert asked["observation"]["cpu_utilisation"] == pytest.approx(min(1.0, rates.pop() / 120), rel=1e-5)
    answer = asked_directly(server, "tiny", asked)
    assert_shown(page, answer)
    assert page.locator("#desired").inner_text() != before


def test_probabilities_and_q_values_are_bars_with_numbers(visited, server):
    page = ready(visited(server, "#tiny"))
    _, answer = decided(page, lambda: number(page, "ready_replicas").fill("8"))
    assert_shown(page, answer)
    shown = page.locator("#scores td.number").all_inner_texts()
    for text, share in zip(shown, answer["probabilities"].values(), strict=True):
        assert text.startswith("<") or abs(float(text.removesuffix(" %")) - 100 * share) <= 0.5
    lengths = page.locator("#scores .bar").evaluate_all("bars => bars.map(b => parseFloat(b.style.getPropertyValue('--length')))")
    assert lengths == pytest.approx([100 * share for share in answer["probabilities"].values()], abs=0.01)

    page = ready(visited(server, "#worth"))
    _, answer = decided(page, lambda: number(page, "ready_replicas").fill("20"))
    assert_shown(page, answer)
    assert "Q-value" in page.locator("#scores caption").inner_text()
    values = [float(text.replace("−", "-").replace(",", "")) for text in page.locator("#scores td.number").all_inner_texts()]
    assert values == pytest.approx(list(answer["q_values"].values()), rel=1e-3)


def test_a_field_out_of_its_range_says_so_at_the_field_and_recovers(visited, server):
    page = ready(visited(server, "#tiny", failing=["422"]))
    late = page.locator('[data-field="late_share"]')
    decided(page, lambda: number(page, "late_share").fill("2"))
    late.locator(".problem", has_text="allowed: 0 to 1").wait_for()
    assert number(page, "late_share").get_attribute("aria-invalid") == "true"
    assert page.locator("#request-problem").is_hidden()
    decided(page, lambda: number(page, "late_share").fill(""))
    late.locator(".problem", has_text="is missing").wait_for()
    _, answer = decided(page, lambda: number(page, "late_share").fill("0.5"))
    assert late.locator(".problem").is_hidden()
    assert_shown(page, answer)


@pytest.mark.slow
def test_a_problem_in_a_folded_group_unfolds_it(visited, server):
    page = ready(visited(server, "#tiny", failing=["422"]))
    decided(page, lambda: number(page, "starting_replicas (all)").fill("999"))
    page.locator('[data-field="starting_replicas_3"] .problem', has_text="allowed: 0 to 60").wait_for()
    page.get_by_role("button", name="Back to the example").click()
    page.locator('[data-field="starting_replicas_3"] .problem').wait_for(state="hidden")


def test_a_policy_that_gives_no_finite_number_is_shown_as_a_fallback(visited, server):
    page = ready(visited(server, "#wild"))
    assert page.locator("#fallback").is_hidden()
    _, answer = decided(page, lambda: number(page, "request_rate_rps (all)").fill("900000"))
    assert "fallback" in answer
    assert answer["fallback"] in page.locator("#fallback").inner_text()
    assert page.locator("#scores").is_hidden()
    assert page.locator("#desired").inner_text() == str(answer["desired_replicas"])


def test_a_rule_that_remembers_gets_its_state_back_only_when_asked(visited, server):
    page = ready(visited(server, "#hpa"))
    assert "recommendations" in page.locator("#memory-note").inner_text()
    asked, first = decided(page, lambda: page.get_by_role("button", name="Decide once more").click())
    assert "state" not in asked
    asked, second = decided(page, lambda: page.get_by_label("Send the last state back").check())
    assert asked["state"] == first["state"]
    asked, _ = decided(page, lambda: number(page, "ready_replicas").fill("9"))
    assert asked["state"] == second["state"]
    assert_shown(page, asked_directly(server, "hpa", asked))
    page.get_by_role("radio", name="tiny").check()
    page.locator("#answered", has_text="tiny@2").wait_for()
    assert page.locator("#memory").is_hidden()


def map_of(page, act):
    """The grid that an act asks for: rows as sent, answers as given."""
    with page.expect_response(lambda response: is_grid(response.request)) as found:
        act()
    answers = found.value.json()
    observations = json.loads(found.value.request.post_data)["observation"]
    page.wait_for_timeout(200)
    return observations, answers


def legend(page):
    """Class → its share of the map, as written."""
    names = page.locator("#legend .entry span:nth-child(2)").all_inner_texts()
    return dict(zip(names, page.locator("#legend .share").all_inner_texts(), strict=True))


def pixels(page, places):
    """Colours of the map's plot at shares of its width and height, from its lower left corner."""
    script = """(places) => {
      const canvas = document.getElementById("map"), ratio = devicePixelRatio;
      const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const width = canvas.width - 76 * ratio, height = canvas.height - 58 * ratio;
      return places.map(([x, y]) => {
        const [column, row] = [62 * ratio + x * width, 12 * ratio + (1 - y) * height].map(Math.floor);
        return [...image.data.slice(4 * (row * canvas.width + column)).slice(0, 3)];
      });
    }"""
    return [tuple(colour) for colour in page.evaluate(script, places)]


def test_the_map_is_what_the_policy_does_over_two_fields(visited, server, policies):
    page = ready(visited(server, "#tiny"))
    observations, _ = map_of(page, lambda: number(page, "late_share").fill("0.1"))
    names = [f.name for f in policies.tiny.spec.observation_fields]
    rates, ready_replicas = (sorted({row[name] for row in observations}) for name in ("request_rate_rps_3", "ready_replicas"))
    assert len(observations) == len(rates) * len(ready_replicas) <= 4096
    assert (rates[0], rates[-1]) == (0, 1000)
    assert (ready_replicas[0], ready_replicas[-1]) == (0, 60)
    assert {row["late_share"] for row in observations} == {0.1}
    grid = np.array([[row[name] for name in names] for row in observations])
    action = policies.tiny.act(grid)[0].action
    labels = [a.label for a in policies.tiny.spec.actions]
    found = {labels[a]: float((action == a).mean()) for a in np.unique(action)}

    shown = legend(page)
    assert list(shown) == [label for label in labels if label in found]
    for label, share in found.items():
        assert shown[label].startswith("<") or abs(float(shown[label].removesuffix(" %")) - 100 * share) <= 0.5
    summary = page.locator("#map-summary").inner_text()
    assert f"{len(rates)} × {len(ready_replicas)} decisions" in summary
    assert f"{max(found, key=found.get)} {shown[max(found, key=found.get)]}" in summary

    # A few cells in the canvas have the colour that the legend gives their action.
    colours = page.locator("#legend .key").evaluate_all("keys => keys.map(k => getComputedStyle(k).backgroundColor)")
    colour_of = {label: tuple(int(x) for x in re.findall(r"\d+", c)) for label, c in zip(shown, colours, strict=True)}
    cells = [(1, len(ready_replicas) - 2), (len(rates) - 2, 1), (len(rates) - 3, len(ready_replicas) - 2), (20, 6)]
    expected = [labels[action[row * len(rates) + column]] for column, row in cells]
    places = [((column + 0.5) / len(rates), (row + 0.2) / len(ready_replicas)) for column, row in cells]
    assert pixels(page, places) == [colour_of[label] for label in expected]
    assert len(set(expected)) >= 2


def test_the_map_says_what_is_under_the_pointer_and_a_click_goes_there(visited, server):
    page = ready(visited(server, "#tiny"))
    canvas = page.locator("#map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    canvas.hover(position={"x": 0.8 * box["width"], "y": 0.2 * box["height"]})
    tip = page.locator("#tip")
    assert tip.is_visible()
    lines = tip.locator("p").all_inner_texts()
    assert lines[1].startswith("request_rate_rps (all) ")
    rate, replicas = (float(line.split()[-2].replace(",", "")) for line in lines[1:3])
    assert " · ".join(lines) == page.locator("#map-reading").inner_text()
    _, answer = decided(page, lambda: canvas.click(position={"x": 0.8 * box["width"], "y": 0.2 * box["height"]}))
    assert float(number(page, "request_rate_rps (all)").input_value()) == rate
    assert float(number(page, "ready_replicas").input_value()) == replicas
    assert lines[0] == f"{answer['move']}: {answer['desired_replicas']} replicas"
    page.mouse.move(0, 0)
    tip.wait_for(state="hidden")


@pytest.mark.slow
def test_the_map_can_be_walked_with_the_keyboard(visited, server):
    page = ready(visited(server, "#tiny"))
    page.locator("#map").focus()
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    reading = page.locator("#map-reading").inner_text()
    replicas = float(re.search(r"ready_replicas (\d+)", reading)[1])
    assert replicas == 12
    _, answer = decided(page, lambda: page.keyboard.press("Enter"))
    assert float(number(page, "ready_replicas").input_value()) == replicas
    assert reading.startswith(f"{answer['move']}: {answer['desired_replicas']} replicas")


@pytest.mark.slow
def test_the_map_of_a_rule_has_classes_of_changes_and_a_scale_of_replicas(visited, server, policies):
    page = ready(visited(server, "#hpa"))
    observations, answers = map_of(page, lambda: number(page, "late_share").fill("0.1"))
    names = [f.name for f in policies.hpa.spec.observation_fields]
    with np.errstate(all="ignore"):
        desired = policies.hpa.act(np.array([[row[name] for name in names] for row in observations]))[0].desired_replicas
    assert [a["desired_replicas"] for a in answers] == desired.tolist()
    shown = legend(page)
    share = np.mean([a["move"] == "hold" for a in answers])
    assert abs(float(shown["hold"].removesuffix(" %")) - 100 * share) <= 0.5
    page.locator("#map-colour").select_option("replicas")
    assert page.locator("#legend .ends span").all_inner_texts() == [f"{desired.min():g}", f"{desired.max():g}"]
    assert f"desired replicas from {desired.min():g} to {desired.max():g}" in page.locator("#map-summary").inner_text()


@pytest.mark.slow
def test_choosing_one_field_twice_makes_the_other_axis_move(visited, server):
    page = ready(visited(server, "#tiny"))
    map_of(page, lambda: page.locator("#map-x").select_option("ready_replicas"))
    assert page.locator("#map-x").input_value() == "ready_replicas"
    assert page.locator("#map-y").input_value() != "ready_replicas"
    map_of(page, lambda: page.locator("#map-y").select_option("request_rate_rps_2"))
    ready(page)


@pytest.mark.slow
def test_the_hour_of_the_week_sets_the_four_numbers_of_the_clock(visited, server):
    page = ready(visited(server, "#by-the-clock"))
    asked, _ = decided(page, lambda: number(page, "clock (hour of the week)").fill("30"))
    clock = {name: value for name, value in asked["observation"].items() if name.startswith("clock_")}
    turns = {"day": 30 / 24, "week": 30 / 168}
    for name, turn in turns.items():
        assert clock[f"clock_{name}_sin"] == pytest.approx(np.sin(2 * np.pi * turn), abs=1e-6)
        assert clock[f"clock_{name}_cos"] == pytest.approx(np.cos(2 * np.pi * turn), abs=1e-6)
    assert number(page, "clock (hour of the week)").input_value() == "30"


def copied(page, button):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name=button).click()
    page.get_by_role("button", name="Copied").wait_for()
    return page.evaluate("navigator.clipboard.readText()")


def test_the_copied_curl_command_gives_the_same_answer_in_a_shell(visited, server):
    if shutil.which("curl") is None:
        pytest.skip("curl is not on the path")
    page = ready(visited(server, "#tiny"))
    _, answer = decided(page, lambda: number(page, "ready_replicas").fill("3"))
    ran = subprocess.run(["/bin/sh", "-c", copied(page, "Copy as curl")], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(ran.stdout) == answer


def test_the_copied_python_code_gives_the_same_answer(visited, server):
    page = ready(visited(server, "#hpa"))
    decided(page, lambda: page.get_by_label("Send the last state back").check())
    asked, answer = decided(page, lambda: number(page, "ready_replicas").fill("3"))
    assert "state" in asked
    ran = subprocess.run([sys.executable, "-c", page.locator("#python").inner_text()], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(answer)


def test_where_keys_are_set_the_page_asks_for_one_and_keeps_it_to_itself(visited, locked):
    page = visited(locked, failing=["401"])
    key = page.get_by_label("API key")
    key.wait_for()
    assert page.locator("#main").is_hidden()
    key.fill("wrong-key-of-many-characters")
    page.get_by_role("button", name="Use this key").click()
    page.locator("#key-problem", has_text="is not valid").wait_for()
    key.fill(KEY)
    page.keyboard.press("Enter")
    ready(page)
    assert page.locator("#key-form").is_hidden()
    _, answer = decided(page, lambda: number(page, "ready_replicas").fill("3"))
    assert_shown(page, answer)
    curl = page.locator("#curl").inner_text()
    assert '-H "X-API-Key: $KEY"' in curl
    kept = page.evaluate(
        "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href, document.body.outerHTML])"
    )
    assert KEY not in kept
    assert key.input_value() == ""
    if shutil.which("curl"):
        ran = subprocess.run(["/bin/sh", "-c", curl], capture_output=True, text=True, timeout=30, check=True, env={"KEY": KEY})
        assert json.loads(ran.stdout) == answer
    code = page.locator("#python").inner_text()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True, env={"KEY": KEY})
    assert ran.stdout.strip() == str(answer)
    page.reload()
    key.wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_hostile_texts_are_text_and_nothing_overflows(visited, server, width, scheme):
    page = ready(visited(server, "#hostile", width=width, scheme=scheme))
    assert ATTACK in page.locator("#evaluation").inner_text()
    assert page.locator(".about", has_text="<script>alert(1)</script>").count() > 10
    assert ATTACK in page.locator("#provenance").inner_text()
    assert page.evaluate("document.querySelectorAll('main script, main img').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 21, 27)"}[scheme]


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 760, 1400])
def test_no_policy_makes_the_page_wider_than_its_window(visited, server, width):
    page = ready(visited(server, "#tiny", width=width))
    for name in ("tiny", "worth", "hpa", "by-the-clock"):
        page.get_by_role("radio", name=name, exact=True).check()
        ready(page)
        for folded in page.locator(".group summary").all():
            folded.click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_a_server_that_cannot_be_reached_is_said_and_tried_again(visited, server):
    page = ready(visited(server, "#tiny", failing=["ERR_INTERNET_DISCONNECTED"]))
    page.context.set_offline(True)
    number(page, "ready_replicas").fill("9")
    alert = page.get_by_role("alert").filter(has_text="The server does not answer. Trying again in 2 s.")
    alert.wait_for()
    assert page.locator("#verdict").get_attribute("data-state") == "stale"
    page.context.set_offline(False)
    with page.expect_response(lambda response: is_decision(response.request)) as found:
        page.get_by_role("button", name="Try now").click()
    assert json.loads(found.value.request.post_data)["observation"]["ready_replicas"] == 9
    alert.wait_for(state="hidden")
    page.locator('#verdict[data-state="fresh"]').wait_for()


@pytest.mark.slow
def test_a_busy_server_is_tried_again_by_itself(visited, server):
    page = ready(visited(server, "#tiny", failing=["503"]))
    busy = {"error": "the server is busy; try again"}
    page.route("**/*:decide", lambda route: route.fulfill(status=503, headers={"retry-after": "1"}, json=busy), times=1)
    with page.expect_response(lambda response: is_decision(response.request) and response.status == 200):
        number(page, "ready_replicas").fill("9")
        page.get_by_role("alert").filter(has_text="the server is busy; try again").wait_for()
    page.locator("#alert").wait_for(state="hidden")


@pytest.mark.slow
def test_a_server_with_a_smaller_limit_gets_a_coarser_map(visited, policies):
    store = PolicyStore.load([saved(policies.folder / "small", policies.tiny)])
    with Server(store, serve_config({"limits": {"body_bytes": 300_000}})) as small:
        page = ready(visited(small, failing=["413"]))
        across, up = re.search(r"(\d+) × (\d+) decisions", page.locator("#map-summary").inner_text()).groups()
        assert 9 <= int(across) * int(up) < 1271


@pytest.mark.slow
def test_the_page_goes_along_when_another_version_becomes_the_default(visited, policies):
    folders = [saved(policies.folder / "old", policies.tiny), saved(policies.folder / "new", policies.newer)]
    with Server(PolicyStore.load(folders[:1])) as growing:
        page = ready(visited(growing, "#tiny"))
        assert "tiny@1" in page.locator("#answered").inner_text()
        growing.store.catalogue = PolicyStore.load(folders).catalogue
        number(page, "ready_replicas").fill("9")
        page.locator("#answered", has_text="tiny@2").wait_for()
        page.locator("option", has_text="2 (default)").wait_for(state="attached")
        assert page.locator("#evaluation").is_visible()
        assert number(page, "ready_replicas").input_value() == "9"


def test_every_control_has_a_name_and_the_decision_is_read_aloud(visited, server):
    page = ready(visited(server, "#hpa"))
    assert page.locator("html").get_attribute("lang") == "en"
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("main input, main select, main button")]
          .filter((c) => !c.labels?.length && !c.ariaLabel && !c.getAttribute("aria-labelledby") && !c.textContent.trim())
          .map((c) => c.outerHTML)"""
    )
    assert nameless == []
    _, answer = decided(page, lambda: number(page, "ready_replicas").fill("3"))
    page.locator("#spoken[aria-live=polite]", has_text=answer["explanation"]["words"]).wait_for(state="attached")
    for path in ("docs", "openapi.json", "metrics"):
        assert page.locator(f'nav a[href="{path}"]').count() == 1
        assert httpx.get(f"{server.url}/{path}").status_code == 200
