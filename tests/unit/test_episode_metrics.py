"""Numbers of episodes: from the infos of steps, in every environment, however it resets; and their documented names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from scalepilot.runs.metrics import METRICS, TABLE, TIME_COLUMNS, episode_column, markdown
from scalepilot_envs.episode_metrics import MEANINGS, METADATA_KEY, EpisodeMeter, EpisodeMetric
from scalepilot_envs.registration import ENVS, find_env

EPISODE = 12
SCALING = sorted(env_id for env_id in ENVS if "GridWorld" not in env_id)


def played(env_id: str, mode: AutoresetMode, num_envs: int = 3) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """What the meter says of two rounds of episodes, and the steps' infos as (t, env) rows for a slow second look."""
    envs: Any = find_env(env_id).vector_maker()(num_envs=num_envs, autoreset_mode=mode, episode_steps=EPISODE)
    envs.reset(seed=3)
    meter, rng = EpisodeMeter(envs), np.random.default_rng(0)
    lengths, resets = np.zeros(num_envs, np.int64), np.zeros(num_envs, bool)
    steps: list[list[dict[str, float]]] = [[] for _ in range(num_envs)]
    episodes: list[dict[str, np.ndarray]] = []
    for _ in range(2 * EPISODE + 2):
        _, _, terminated, truncated, info = envs.step(rng.integers(0, envs.single_action_space.n, num_envs))
        lengths += ~resets
        ended = terminated | truncated
        meter.step(info, lengths, ended)
        source = info.get("final_info", {})
        for i in np.flatnonzero(~resets):
            columns = source if ended[i] and source else info
            steps[i].append({name: float(c[i]) for name, c in columns.items() if isinstance(c, np.ndarray) and name[0] != "_"})
        for i in np.flatnonzero(ended):
            episodes.append({name: np.array([step[name] for step in steps[i]]) for name in steps[i][0] if name != "final_obs"})
            steps[i] = []
        lengths[ended] = 0
        resets = ended if mode is AutoresetMode.NEXT_STEP else np.zeros_like(ended)
    envs.close()
    return meter.take(), episodes


def reduced(metric: EpisodeMetric, episode: dict[str, np.ndarray]) -> float:
    column = episode[metric.column]
    if metric.per is not None:
        return float(column.sum() / episode[metric.per].sum()) if episode[metric.per].sum() else 0.0
    reductions = {
        "mean": column.mean,
        "sum": column.sum,
        "max": column.max,
        "last": lambda: column[-1],
        "changes": lambda: np.count_nonzero(column),
        "unchanged": lambda: len(column) - np.count_nonzero(column),
    }
    return float(reductions[metric.reduction]())


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("env_id", SCALING)
def test_every_metric_of_an_episode_is_what_its_steps_say(env_id: str, mode: AutoresetMode):
    metrics = find_env(env_id).vector_maker()(num_envs=1, episode_steps=EPISODE).metadata[METADATA_KEY]
    taken, episodes = played(env_id, mode)
    assert set(taken) == set(metrics)
    assert len(episodes) >= 6
    for name, metric in metrics.items():
        np.testing.assert_allclose(taken[name], [reduced(metric, episode) for episode in episodes], rtol=1e-12, err_msg=name)
    assert np.all(taken["moves"] + taken["no_ops"] == [len(next(iter(e.values()))) for e in episodes])
    assert np.all(taken["peak_replicas"] >= taken["replicas"])
    assert any(np.ptp(values) > 0 for values in taken.values()), "episodes differ"


def test_nothing_ended_gives_nothing_and_each_episode_counts_once():
    taken, _ = played("scalepilot/QueueScaling-v0", AutoresetMode.NEXT_STEP)
    assert len({len(values) for values in taken.values()}) == 1
    envs: Any = find_env("scalepilot/QueueScaling-v0").vector_maker()(num_envs=2)
    meter = EpisodeMeter(envs)
    assert meter.take() == {}


def test_an_environment_without_metrics_costs_nothing_and_undocumented_names_are_left_out():
    class Plain:
        metadata: dict[str, Any] = {}  # noqa: RUF012
        num_envs = 2

    class Own(Plain):
        metadata = {METADATA_KEY: {"moves": EpisodeMetric("change", "changes"), "made_up": EpisodeMetric("change")}}  # noqa: RUF012

    ended = np.array([True, False])
    for env, names in ((Plain, set()), (Own, {"moves"})):
        meter = EpisodeMeter(env())
        meter.step({"change": np.array([2.0, 0.0])}, np.array([1, 1]), ended)
        assert set(meter.take()) == names


def test_every_environments_metrics_have_a_documented_column():
    named = {"failed_writes"}
    for env_id in SCALING:
        named |= set(find_env(env_id).vector_maker()(num_envs=1).metadata[METADATA_KEY])
    assert named == set(MEANINGS), "each documented name is some environment's, or a live one's, and the other way round"
    assert {episode_column(name) for name in named} < set(METRICS)


def test_columns_are_unique_and_those_that_differ_between_runs_are_times_and_loads():
    assert len(set(METRICS)) == len(METRICS)
    assert {m.unit for m in TABLE if m.name in TIME_COLUMNS} == {"s", "transitions/s", "%", "MB"}


def test_the_page_of_metrics_is_the_table(repo: Path):
    page = (repo / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: python -m scalepilot.runs.metrics > docs/metrics.md"
