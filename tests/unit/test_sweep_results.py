"""A leaderboard that says who is best, and what decides."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalepilot.experiments.sweep.board import Judged, TrialEntry, ranked
from scalepilot.experiments.sweep.charts import importance_bars, leaders, parallel_coordinates
from scalepilot.experiments.sweep.config import RangeConfig
from scalepilot.experiments.sweep.importance import importance

RNG = np.random.default_rng(0)


def trial(point: dict[str, Any], score: float | None, *, seed: int = 0, status: str = "finished", test: float | None = None):
    values = RNG.normal(-score if test is None and score is not None else test or 0.0, 1.0, 50)
    tested = Judged(values, np.arange(50)) if status == "finished" else None
    value = None if score is None else -score
    return TrialEntry(Path(f"t{seed}{point}"), point, seed, status, 1, score, value, 100, 1.0, "", (), tested)


def test_the_best_by_validation_leads_and_its_interval_is_of_the_test_episodes():
    board = ranked([trial({"a": 1}, -3.0, test=2.0), trial({"a": 2}, -5.0, test=4.0)])
    assert [s.point for s in board] == [{"a": 2}, {"a": 1}]
    assert board[0].value == 5.0
    assert 3.0 < board[0].tested.low < board[0].tested.mean < board[0].tested.high < 5.0


def test_what_was_confirmed_on_more_seeds_goes_before_a_luckier_single_one_and_what_was_stopped_is_last():
    lucky = trial({"a": 1}, -9.0)
    steady = [trial({"a": 2}, -5.0, seed=seed) for seed in range(3)]
    stopped = trial({"a": 3}, -20.0, status="stopped")
    board = ranked([lucky, *steady, stopped, trial({"a": 4}, None, status="failed"), trial({"a": 5}, math.inf)])
    assert [s.point["a"] for s in board] == [2, 1, 3]
    assert len(board[0].trials) == 3
    assert not board[2].is_finished
    assert not math.isfinite(board[2].tested.mean)


def test_an_interval_over_seeds_is_wider_than_one_over_episodes_where_seeds_differ():
    apart = ranked([trial({"a": 1}, -5.0, seed=seed, test=test) for seed, test in enumerate((1.0, 5.0, 9.0))])[0].tested
    alone = ranked([trial({"a": 1}, -5.0, test=5.0)])[0].tested
    assert apart.high - apart.low > 5 * (alone.high - alone.low)
    bounded = ranked([trial({"a": 1}, -5.0, seed=seed, test=test) for seed, test in enumerate((1.0, 9.0))], (0.0, 10.0))
    assert bounded[0].tested.high <= 10.0


def grid(effect_of_b: float, noise: float = 0.0) -> tuple[list[dict[str, Any]], list[float]]:
    rng = np.random.default_rng(1)
    points = [{"a": a, "b": b, "c": c} for a in (1, 2, 3) for b in ("x", "y") for c in (0.1, 0.2, 0.3)]
    return points, [10 * p["a"] + effect_of_b * (p["b"] == "y") + noise * rng.normal() for p in points]


SPACE: dict[str, Any] = {"a": [1, 2, 3], "b": ["x", "y"], "c": [0.1, 0.2, 0.3]}


def test_the_key_that_decides_has_the_share_and_one_without_effect_has_none():
    found = importance(SPACE, *grid(0.0))
    assert found.shares["a"] > 0.95
    assert found.shares["b"] < 0.02
    assert found.shares["c"] < 0.02
    assert found.rest == pytest.approx(1 - sum(found.shares.values()), abs=1e-9)


def test_luck_alone_is_no_importance():
    points, _ = grid(0.0)
    shares = [importance(SPACE, points, np.random.default_rng(seed).normal(size=len(points))).shares["a"] for seed in range(200)]
    # An ordinary share of variance would be 2/17 on average.
    assert np.mean(shares) < 0.1
    assert np.median(shares) < 0.05


def test_one_trial_that_learnt_nothing_is_not_all_of_the_variance():
    points, scores = grid(0.0, noise=0.1)
    scores[0] = 1e9
    found = importance(SPACE, points, scores)
    assert found.shares["a"] > 0.4
    assert found.shares["b"] + found.shares["c"] < 0.1


def test_a_range_counts_by_its_quarters_and_too_few_trials_say_nothing():
    rng = np.random.default_rng(0)
    space: dict[str, Any] = {"lr": RangeConfig(0.0, 1.0), "other": RangeConfig(0.0, 1.0)}
    points = [{"lr": float(rng.random()), "other": float(rng.random())} for _ in range(40)]
    found = importance(space, points, [p["lr"] for p in points])
    assert found.shares["lr"] > 0.8 > 0.1 > found.shares["other"]
    few = importance(SPACE, *(part[:3] for part in grid(1.0)))
    assert not few.is_known


def test_pictures_name_every_key_and_point():
    points, scores = grid(1.0)
    board = ranked([trial(point, score) for point, score in zip(points, scores, strict=True)])
    svg = parallel_coordinates(SPACE, board, "validation return", higher_is_better=True)
    assert svg.count("<polyline") == len(points)
    assert all(f">{key}<" in svg for key in SPACE)
    assert ">0.3<" in svg
    bars = importance_bars(importance(SPACE, points, scores))
    assert "together, and luck" in bars
    assert leaders(board, "test return").count("<circle") == 12
    log = parallel_coordinates(
        {"a": RangeConfig(1.0, 100.0, log=True)}, ranked([trial({"a": 10.0}, 1.0)]), "J/h", higher_is_better=False
    )
    assert "<polyline" in log
