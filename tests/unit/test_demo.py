"""`scalepilot demo`: what it flies is what is judged elsewhere, and what it shows fits, live or piped."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from scalepilot.cli import main
from scalepilot.policy import save_policy
from scalepilot.policy.rules import Hpa, HpaParameters, Kpa, KpaParameters, make_rule
from scalepilot.report.replay.autoscale_replay import AutoscaleReplay, Entry, finished, reason
from scalepilot.report.replay.env_replay import EnvReplay
from scalepilot.report.replay.film import film_frames
from scalepilot.report.replay.lineup import DemoOptions, make_replay
from scalepilot.report.replay.page import replay_page
from scalepilot.report.replay.recording import MOST_FRAMES, record_episode
from scalepilot.report.replay.terminal import autoscale_screen, bars, env_screen, picture
from scalepilot.simulate import autoscale_optimum, poisson_episodes, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.registration import find_env
from scalepilot_envs.workloads import DiurnalWorkload, part_of

PARAMS = AutoscaleParams()
ATTACK = "<script>alert(1)</script>"


def said(capsys, *arguments, code=0):
    """What `scalepilot demo …` prints: on standard output, or one line on standard error where it is refused."""
    assert main(["demo", *[str(a) for a in arguments]]) == code
    out, err = capsys.readouterr()
    if code == 2:
        assert out == ""
        assert err.count("\n") == 1
        return err
    return out


def autoscale_replay(steps=60, names=("hpa", "kpa")):
    made = {"hpa": Hpa(HpaParameters(), PARAMS), "kpa": Kpa(KpaParameters(), PARAMS)}
    series = part_of(DiurnalWorkload(days=2, peak_rps=300), "all", PARAMS.interval_seconds)
    episode = poisson_episodes("shop", series, np.array([100]), steps, [3])
    entries = [Entry(name, "rule", made[name]) for name in names]
    entries.append(Entry("optimum", "clairvoyant", autoscale_optimum(episode, PARAMS).planner("optimum")))
    return AutoscaleReplay(entries, episode, PARAMS), episode, made


def screen_of(replay, width, height):
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    show = env_screen if isinstance(replay, EnvReplay) else autoscale_screen
    console.print(show(replay, width, height))
    return console.export_text().splitlines()


def test_what_is_shown_is_what_is_judged():
    replay, episode, made = autoscale_replay()
    rows = finished(replay)["policies"]
    for row in rows[:2]:
        results, _ = run_episodes(made[row["policy"]], episode, PARAMS)
        assert row["J_per_hour"] == pytest.approx(float(results["J_per_hour"][0]), rel=1e-12)
        assert row["late_share"] == pytest.approx(float(results["late_share"][0]), rel=1e-12)
        assert row["replicas_mean"] == pytest.approx(float(results["replicas_mean"][0]), rel=1e-12)
        assert row["actions"] == results["actions"][0]
    assert rows[2]["J_per_hour"] == pytest.approx(float(autoscale_optimum(episode, PARAMS).upper_J_per_hour[0]))
    assert all(len(values) == 60 for lane in replay.lanes for values in lane.columns.values())
    assert not replay.advance()


def test_the_return_of_another_environment_is_that_of_the_same_episode():
    replay = make_replay(DemoOptions(["threshold"], env="QueueScaling-v0", seed=5, alone=True))
    row = finished(replay)["policies"][0]
    rule = make_rule("threshold", find_env("QueueScaling-v0").describe())
    recording = record_episode(rule, "scalepilot/QueueScaling-v0", {}, 5)
    assert row == {"policy": "threshold", "episode_return": pytest.approx(recording.reward.sum()), "steps": 200, "ended": True}


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (120, 40), (200, 60)])
def test_the_screen_fits_the_terminal_with_every_lane(width, height):
    replay, _, _ = autoscale_replay()
    for _ in range(30):
        replay.advance()
    lines = screen_of(replay, width, height)
    assert max(len(line) for line in lines) <= width
    text = "\n".join(lines)
    for shown in ("hpa", "kpa", "optimum", "step 30 of 60", "utilisation", "knows what will come"):
        assert shown in text
    if (width, height) != (60, 20):
        assert len(lines) <= height
    J = replay.summary()[1]["J_per_hour"]
    assert f"J {J:.2f}/h" in text


def test_bars_fill_as_the_replay_goes_on_and_keep_the_worst_where_asked():
    assert bars([1.0, 1.0], 4, 1, 1.0, 4) == ["██  "]
    assert bars([0.5] * 4, 4, 2, 1.0, 4) == ["    ", "████"]
    assert bars([0.0, 1.0], 1, 1, 1.0, 2) == ["▄"]
    assert bars([0.0, 1.0], 1, 1, 1.0, 2, worst=True) == ["█"]
    assert bars([], 3, 1, 0.0, 10) == ["   "]


def test_a_picture_keeps_thin_lines_and_its_shape():
    frame = np.full((100, 200, 3), 255, np.uint8)
    frame[:, 97] = 0
    console = Console(width=60, file=io.StringIO(), record=True, color_system="truecolor", force_terminal=True)
    console.print(picture(frame, 40, 30))
    lines = console.export_text(clear=False).splitlines()
    assert [len(line) for line in lines] == [40] * 10
    assert "#ccc" in console.export_html().lower() or "#cccccc" in console.export_html().lower()


def test_scores_and_readings_say_why(tiny_network):
    network = tiny_network()
    row = np.ones((1, len(network.spec.observation_fields)), np.float32)
    text = reason(network, network.act(row)[0], row)
    best = network.spec.actions[int(network.act(row)[0].action[0])].label
    assert re.fullmatch(rf"{re.escape(best)} \d+%( · \S+ \d+%){{2}}", text)
    valued = tiny_network(decision_rule="argmax_q")
    assert reason(valued, valued.act(row)[0], row).startswith(f"Q {best} ")
    rule = Hpa(HpaParameters(), PARAMS)
    assert reason(rule, rule.act(row)[0], row) == "utilisation 100%"


def test_the_page_is_safe_and_needs_nothing_from_outside():
    replay, _, _ = autoscale_replay()
    replay.title = ATTACK
    replay.lanes[0].name = ATTACK
    finished(replay)
    html = replay_page(replay)
    assert ATTACK not in html
    assert html.count("<script") == 2
    assert "default-src 'none'" in unescape(html)
    assert "unsafe" not in html
    assert "http://www.w3.org/2000/svg" in html
    assert len(re.findall(r"https?://", html)) == 1
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    assert data["lanes"][0]["name"] == ATTACK
    assert len(data["lanes"][1]["reasons"]) == len(data["steps"]) == 60
    assert len(html) < 150_000


@pytest.mark.slow
def test_a_film_of_a_long_episode_has_some_hundred_and_fifty_pictures():
    replay = make_replay(DemoOptions(["random"], env="ResourceManager-v0", filmed=True))
    finished(replay)
    frames, frames_per_second = film_frames(replay)
    assert len(frames) <= 2 * MOST_FRAMES
    assert len({frame.shape for frame in frames}) == 1
    assert frames[0].shape[1] > frames[0].shape[0], "side by side"
    assert frames_per_second >= 4
    page = replay_page(replay)
    assert page.count("data:image/png;base64,") >= 2 * 50
    assert len(page) < 4_000_000


def test_piped_output_is_a_table_without_cursor_codes(capsys):
    out = said(capsys, "hpa", "--workload", "spike", "--steps", 40)
    assert "\x1b" not in out
    assert "\r" not in out
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["hpa", "optimum"]
    rows = json.loads(said(capsys, "hpa", "--workload", "spike", "--steps", 40, "--json"))["policies"]
    assert f"{rows[0]['J_per_hour']:.3f}" in out
    assert rows[1]["J_per_hour"] <= rows[0]["J_per_hour"]
    again = json.loads(said(capsys, "hpa", "--workload", "spike", "--steps", 40, "--json"))["policies"]
    assert rows == again, "the same window and arrivals every time"


def test_files_are_written_and_named(capsys, tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="MP4 needs the extra video")
    files = [tmp_path / f"film.{kind}" for kind in ("gif", "mp4", "html")]
    options = [part for path in files for part in (f"--{path.suffix[1:]}", path)]
    out = said(capsys, "threshold", "--env", "QueueScaling-v0", "--steps", 12, *options)
    assert [line for line in out.splitlines() if line.startswith("written: ")] == [f"written: {path}" for path in files]
    with Image.open(files[0]) as film:
        assert film.n_frames == 13
    assert files[1].read_bytes()[4:8] == b"ftyp"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.gif", "film.html", "film.mp4"]


def test_a_trained_policy_flies_beside_the_default_hpa(capsys, tiny_artifact):
    rows = json.loads(said(capsys, tiny_artifact, "--steps", 30, "--seed", 1, "--json"))["policies"]
    assert [row["policy"] for row in rows] == ["tiny", "hpa-default", "optimum"]
    alone = json.loads(said(capsys, tiny_artifact, tiny_artifact, "--alone", "--steps", 30, "--seed", 1, "--json"))["policies"]
    assert [row["policy"] for row in alone] == ["tiny", "tiny #2"]
    assert alone[0]["J_per_hour"] == rows[0]["J_per_hour"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense: is neither a folder nor a rule; allowed: a run or policy folder, or random, static"),
        (["hpa", "--steps", "0"], "--steps: 0 is not allowed"),
        (["hpa", "--delay", "-1"], "--delay: -1 is not allowed; allowed: 0 to 60 seconds"),
        (["hpa", "--seed", "-1"], "--seed: -1 is not allowed"),
        (["hpa", "--workload", "waves"], "--workload waves: is neither a file nor a kind; allowed: a trace's file, or"),
        (["hpa", "--env", "Autoscal-v0"], "--env: 'Autoscal-v0' is not allowed"),
        (["random", "--env", "GridWorld-v0", "--workload", "spike"], "has no requests to serve"),
        (["optimum", "--env", "GridWorld-v0"], "optimum: is neither a folder nor a rule"),
    ],
)
def test_what_is_not_allowed_is_one_line(capsys, arguments, message):
    assert message in said(capsys, *arguments, code=2)


def test_policies_of_two_environments_do_not_fly_together(capsys, tiny_artifact, tmp_path):
    rule = make_rule("threshold", find_env("QueueScaling-v0").describe())
    save_policy(rule, tmp_path / "queue")
    line = said(capsys, tiny_artifact, tmp_path / "queue", code=2)
    assert "was made for scalepilot/QueueScaling-v0, the others for scalepilot/Autoscale-v0" in line


def test_a_policy_of_other_fields_is_named(capsys, tiny_network, tmp_path):
    policy = tiny_network()
    fields = policy.spec.observation_fields
    renamed = (replace(fields[0], name="requests"), *fields[1:])
    save_policy(tiny_network(observation_fields=renamed), tmp_path / "other")
    assert "it needs requests" in said(capsys, tmp_path / "other", "--steps", 5, code=2)


def test_ctrl_c_on_a_terminal_ends_with_the_table_so_far():
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "scalepilot.cli", "demo", "hpa", "--workload", "spike", "--steps", "400", "--delay", "0.1"]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm"})
    os.close(follower)
    seen, deadline = b"", time.monotonic() + 120
    while b"step 3 of 400" not in seen and time.monotonic() < deadline:
        if select.select([leader], [], [], 1)[0]:
            seen += os.read(leader, 65536)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            more = os.read(leader, 65536)
        except OSError:
            break
        if not more:
            break
        seen += more
    assert process.wait(30) == 130
    # The terminal's echo of ^C may fall between the bytes of a character.
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).decode(errors="replace")
    assert re.search(r"Autoscale-v0 · spike: \d+ steps", text)
    assert "Traceback" not in text
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l"), "the cursor is shown again"
