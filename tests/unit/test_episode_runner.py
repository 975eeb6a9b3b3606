"""Episodes are whole or not counted, whatever their environment does."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from tests import failing_envs

from scalepilot.errors import EnvironmentFailedError
from scalepilot.files.stop import StopFlag, Stopped
from scalepilot.policy.rules import make_rule
from scalepilot.report.replay.recording import record_episode
from scalepilot.simulate import run_returns
from scalepilot.simulate.episode_runner import EpisodeLimits
from scalepilot_envs.registration import find_env

TARGET, SPOILT = "FailingTarget-v0", "Spoilt-v0"


@pytest.fixture(autouse=True)
def _registered() -> None:
    failing_envs.register()


def random_rule() -> Any:
    return make_rule("random", find_env(TARGET).describe())


def run(fault: str, episodes: int = 12, limits: EpisodeLimits | None = None, **options: Any) -> Any:
    return run_returns(random_rule(), TARGET, episodes, arguments={"fault": fault, **options}, first_seed=7, limits=limits)


def test_a_failed_episode_is_discarded_counted_and_repeated_never_glued_to_the_next():
    results = run("flaky", 40)

    assert results["return"].tolist() == [40.0] * 40
    assert results["length"].tolist() == [40] * 40
    assert 20 < results.notes.failures < 150
    assert "raised ConnectionError: simulator gone" in results.notes.failure
    again = run("flaky", 40)
    assert again.notes == results.notes


def test_episodes_without_a_failure_are_those_of_their_seeds_alone():
    together, alone = run("none", 3), run_returns(random_rule(), TARGET, 1, arguments={"fault": "none"}, first_seed=7)

    assert together.notes.failures == 0
    assert together.seed.tolist() == [7, 8, 9]
    assert together["length"][0] == alone["length"][0] == 40


@pytest.mark.parametrize(("fault", "where"), [("reset", r"reset\(\)"), ("raises", "step 1"), ("constructor", "its constructor")])
def test_an_environment_that_always_fails_ends_soon_naming_it_the_step_and_what_was_raised(fault: str, where: str):
    began = time.monotonic()
    with pytest.raises(EnvironmentFailedError, match=rf"^env {TARGET}: {where}.* raised OSError: no licence; \d+ failures, 0 of"):
        run_returns(random_rule(), TARGET, 12, arguments={"fault": fault}, first_seed=7)
    assert time.monotonic() - began < 10


def test_an_environment_that_fails_late_in_every_episode_ends_too():
    with pytest.raises(EnvironmentFailedError, match=r"step 31 of episode 1 from seed 7 raised OSError: no licence"):
        run("raises", at=30)


def test_an_episode_that_never_ends_is_named_and_a_limit_of_its_own_truncates_it():
    with pytest.raises(EnvironmentFailedError, match=r"not ended after 50 steps.*env\.options\.max_episode_steps"):
        run("endless", 2, EpisodeLimits(max_steps=50))
    assert run("endless", 2, EpisodeLimits(max_steps=50), max_episode_steps=60)["length"].tolist() == [60, 60]


def test_a_step_that_hangs_is_given_up_and_named():
    with pytest.raises(EnvironmentFailedError, match=rf"env {TARGET}: hangs: .* resources\.env_timeout_seconds, 0\.3 s"):
        run("hangs", limits=EpisodeLimits(step_seconds=0.3))


@pytest.mark.parametrize("fault", ["hangs", "endless"])
def test_one_signal_ends_it(fault: str):
    stop = StopFlag()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    with stop.listening(), pytest.raises(Stopped):
        run(fault, limits=EpisodeLimits(max_steps=10**9))
    assert time.monotonic() - began < 5


WRONG = [
    ({"reward": float("nan")}, "the reward nan"),
    ({"reward": float("-inf")}, "the reward -inf"),
    ({"reward": 1e39}, "the reward 1e+39"),
    ({"reward": "a lot"}, "the reward 'a lot'"),
    ({"reward": [1.0, 2.0]}, r"the reward [1.0, 2.0]"),
    ({"reward": 1 + 2j}, "the reward (1+2j)"),
    ({"reward": np.array([1.0])}, "the reward array([1.])"),
    ({"observation": np.array([0, np.nan, 0], np.float32)}, "observation_1 = nan"),
    ({"observation": np.array([0, 0, 1e300])}, "observation_2 = 1e+300"),
    ({"observation": np.zeros(4, np.float32)}, "observation of shape (4,); allowed: (3,)"),
    ({"observation": np.array([None, 1, 2], dtype=object)}, "an observation array([None, 1, 2]"),
    ({"observation": "nothing"}, "an observation "),
]


def test_what_is_no_number_fails_its_episode_by_name_whatever_it_is():
    for options, said in WRONG:
        failing_envs.register()
        results = run_returns(random_rule(), SPOILT, 3, arguments={**options, "every": 70}, first_seed=7)
        assert results.notes.failures >= 1
        assert f"env {SPOILT}: step " in results.notes.failure
        assert said in results.notes.failure, (said, results.notes.failure)
        assert np.isfinite(results["return"]).all()


def test_observations_outside_their_space_are_named_with_share_and_most_extreme_value():
    lines = list(run("outside").notes.lines().values())

    assert len(lines) == 3
    assert "observation observation_0 leaves its declared bounds 0 to 1 in " in lines[0]
    assert lines[0].endswith("most extreme value 3")


def test_a_recording_is_of_one_whole_episode():
    recording = record_episode(random_rule(), TARGET, {"fault": "flaky"}, seed=11)
    assert len(recording.reward) == 40
    with pytest.raises(EnvironmentFailedError, match="no licence"):
        record_episode(random_rule(), TARGET, {"fault": "raises"}, seed=11)
