"""What a run leaves to look at: learning curve, scores and actions along an episode, videos of a few seconds."""

from __future__ import annotations

import io
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.algorithms import make_trainer, policy_spec
from scalepilot.learn.loop import TrainingLoop
from scalepilot.learn.task import Task
from scalepilot.policy import Decision, Policy
from scalepilot.progress import Progress
from scalepilot.report.charts.action_chart import action_chart
from scalepilot.report.charts.learning_curve import learning_curve
from scalepilot.report.replay.recording import MOST_FRAMES, Recording, record_episode
from scalepilot.report.replay.video import MAX_WIDTH, gif
from scalepilot.report.run_plots import VIDEO_SEED, can_be_filmed, draw_run
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate.scenario import TEST_SEED, VALIDATION_SEED
from scalepilot_envs.registration import ENVS

NAMESPACE = "{http://www.w3.org/2000/svg}"
PLOTS = ["action_probabilities.svg", "action_shares.svg", "learning_curve.svg", "q_table.svg"]


def config(output: Path, **changes: Any) -> ExperimentConfig:
    return config_from_mapping(
        {
            "name": "grid",
            "algorithm": "q_learning",
            "env": {"id": "GridWorld-v0"},
            "tabular": {"total_env_steps": 4000, "num_envs": 2},
            "evaluation": {"validation_episodes": 2, "test_episodes": 4, "bootstrap_samples": 10, "videos": 2},
            "output": str(output),
            **changes,
        }
    )


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{NAMESPACE}text")]


def marks(svg: str, kind: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{NAMESPACE}{kind}"))


def test_a_run_leaves_pictures_and_videos_of_an_environment_that_can_be_drawn(tmp_path: Path):
    experiment = config(tmp_path)
    folder = RunFolder.create(experiment)
    run_experiment(experiment, folder)
    assert sorted(p.name for p in folder.plots.iterdir()) == PLOTS
    assert sorted(p.name for p in folder.videos.iterdir()) == ["1400.gif", "2800.gif", "policy.gif"]
    curve = (folder.plots / "learning_curve.svg").read_text()
    assert {"training", "validation", "test, 95 % interval", "environment steps"} <= set(texts(curve))
    scores = (folder.plots / "action_probabilities.svg").read_text()
    assert {"Q-value", "taken", "up", "left"} <= set(texts(scores))
    with Image.open(folder.videos / "policy.gif") as video:
        # Four steps to the goal, and the end.
        assert video.n_frames == 5
        assert video.info["loop"] == 0


def test_a_stopped_run_leaves_its_pictures_too_without_a_test(tmp_path: Path):
    experiment = config(tmp_path, evaluation={"validation_episodes": 2, "videos": 0})
    folder, task = RunFolder.create(experiment), Task(experiment)
    draw_run(experiment, folder, task)
    assert list(folder.plots.iterdir()) == [], "nothing was trained: nothing to draw, and no error"
    spec, progress = policy_spec(experiment, folder, task), Progress("test", stream=io.StringIO())
    loop = TrainingLoop(experiment, make_trainer(experiment, task), folder, task, spec, progress)
    loop.run(lambda: loop.iteration >= 5)
    draw_run(experiment, folder, task)
    assert sorted(p.name for p in folder.plots.iterdir()) == PLOTS
    assert "test, 95 % interval" not in texts((folder.plots / "learning_curve.svg").read_text())
    assert not folder.videos.exists(), "videos: 0 makes none"


def test_validation_test_and_training_are_not_disturbed_by_videos(tmp_path: Path):
    assert len({VIDEO_SEED, VALIDATION_SEED, TEST_SEED}) == 3
    rows = []
    for videos in (0, 3):
        experiment = config(
            tmp_path, evaluation={"validation_episodes": 2, "test_episodes": 4, "bootstrap_samples": 10, "videos": videos}
        )
        folder = RunFolder.create(experiment)
        comparison = run_experiment(experiment, folder).comparison
        assert comparison is not None
        kept = ("iteration", "validation_return", "episode_return_mean", "q_loss", "epsilon")
        rows.append(([{k: row[k] for k in kept} for row in folder.read_metrics()], (folder.policy / "table.npz").read_bytes()))
    assert rows[0] == rows[1]


@pytest.mark.parametrize("env_id", sorted(env_id.removeprefix("scalepilot/") for env_id in ENVS))
def test_every_environment_of_ours_can_be_filmed(tmp_path: Path, env_id: str):
    env = {"id": env_id, "episode_steps": 60} if env_id == "Autoscale-v0" else {"id": env_id}
    windows = {"window_steps": 240, "drawn_windows": 2}
    assert can_be_filmed(Task(config(tmp_path, env=env, workload={"kind": "diurnal", "days": 2}, evaluation=windows)))


def test_cartpole_can_be_filmed(tmp_path: Path):
    pytest.importorskip("pygame", reason="CartPole draws itself with pygame (extra classic-control)")
    assert can_be_filmed(Task(config(tmp_path, env={"id": "CartPole-v1"})))


def test_an_environment_that_cannot_be_drawn_is_trained_without_videos(tmp_path: Path):
    class Task:
        env_id, is_live = "CartPole-v1", False

        def training_arguments(self) -> dict[str, Any]:
            return {"no_such_argument": 1}

    assert not can_be_filmed(Task())  # type: ignore[arg-type]


class Fixed:
    """Always the same action."""

    def __init__(self, action: int) -> None:
        self.action = action

    def act(self, observation, state=None, *, deterministic=True, rng=None):
        return Decision(action=np.full(len(observation), self.action), scores=np.zeros((len(observation), 3), np.float32)), state


def test_a_recording_is_the_episode_of_its_seed_filmed_or_not():
    policy: Policy = Fixed(2)  # type: ignore[assignment]
    plain = record_episode(policy, "scalepilot/QueueScaling-v0", {}, 5)
    filmed = record_episode(policy, "scalepilot/QueueScaling-v0", {}, 5, film=True)
    np.testing.assert_array_equal(plain.reward, filmed.reward)
    assert plain.frames == []
    assert len(filmed.reward) // 2 < len(filmed.frames) <= MOST_FRAMES + 1
    assert plain.scores is not None
    assert plain.scores.shape == (len(plain.reward), 3)
    cut = record_episode(policy, "scalepilot/QueueScaling-v0", {}, 5, most_steps=7)
    np.testing.assert_array_equal(cut.reward, plain.reward[:7])


def test_a_video_is_narrow_small_and_stops_for_a_moment_at_its_end():
    frames = [np.full((300, 960, 3), 255, np.uint8) for _ in range(5)]
    for i, frame in enumerate(frames):
        frame[:, 100 * i : 100 * (i + 1)] = (200, 40, 0)
    data = gif(frames, 10.0)
    with Image.open(io.BytesIO(data)) as video:
        assert video.size == (MAX_WIDTH, 150)
        durations = []
        for i in range(video.n_frames):
            video.seek(i)
            durations.append(video.info["duration"])
    assert durations == [100, 100, 100, 100, 1000]
    assert len(data) < 20_000


def test_a_curve_shows_what_there_is_and_a_band_for_the_test(tmp_path: Path):
    rows = [
        {"env_steps": 10.0 * i, "v": float(i) if i % 5 == 0 else None, "t": None if i < 3 else 2.0 * i} for i in range(1, 1001)
    ]
    arguments = {"training": "t", "validation": "v", "value_label": "return", "title": "a <b> & c"}
    whole = learning_curve(rows, **arguments, test=Interval(900.0, 800.0, 1000.0))
    assert "a <b> & c" in texts(whole)
    assert len(marks(whole, "polygon")) == 1
    assert max(len(line.attrib["points"].split()) for line in marks(whole, "polyline")) <= 300
    assert "prefers-color-scheme: dark" in whole
    bare = learning_curve(rows, **arguments)
    assert not marks(bare, "polygon")
    assert "test, 95 % interval" not in texts(bare)
    early = learning_curve(rows[:2], **arguments)
    assert {"training", "validation"}.isdisjoint(texts(early)), "nothing measured, nothing drawn"


def recorded(num_steps: int, scores: np.ndarray | None) -> Recording:
    return Recording(np.ones(num_steps), np.arange(num_steps) % 3, scores)


def test_scores_of_a_policy_that_samples_are_drawn_as_probabilities_those_of_values_as_they_are(tmp_path: Path):
    experiment = config(tmp_path, env={"id": "QueueScaling-v0"}, algorithm="ppo")
    folder = RunFolder.create(experiment)
    spec = policy_spec(experiment, folder, Task(experiment))
    scores = np.zeros((400, 3), np.float32)
    scores[:, 1] = np.log(2.0)
    svg = action_chart(recorded(400, scores), spec)
    assert svg is not None
    assert {"probability", "taken", "−1", "hold", "+1"} <= set(texts(svg))
    lines = [[float(point.split(",")[1]) for point in line.attrib["points"].split()] for line in marks(svg, "polyline")]
    assert len(lines) == 3
    # ¼, ½ and ¼ of a box 280 pixels high.
    assert lines[0][0] - lines[1][0] == pytest.approx(70.0, abs=0.2)
    assert any("150 of 400 steps" in text for text in texts(svg))
    assert action_chart(recorded(4, None), spec) is None, "a rule has no scores"


def test_a_tabular_run_needs_no_torch(tmp_path: Path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "import tests.unit.test_pictures as t\n"
        "from scalepilot.experiments.run import run_experiment\n"
        "from scalepilot.runs.folder import RunFolder\n"
        "c = t.config(Path(sys.argv[1])); run_experiment(c, RunFolder.create(c))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
