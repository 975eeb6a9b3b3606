"""Cells of a comparison: flown here or elsewhere, kept in full or not at all, believed only if nothing changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from scalepilot.errors import InputError
from scalepilot.policy.rules import Hpa, HpaParameters, LookAhead, Static, StaticParameters
from scalepilot.simulate import (
    Cell,
    CellResult,
    CellStore,
    ProcessExecutor,
    SerialExecutor,
    TrafficEpisodes,
    poisson_episodes,
    run_cells,
    run_episodes,
)
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import RateSeries

PARAMS = AutoscaleParams(max_replicas=20)
STEPS = 60


@pytest.fixture(scope="module")
def episodes():
    series = RateSeries(100 + 50 * np.sin(np.arange(400) / 20), 15.0)
    return poisson_episodes("waves", series, np.array([0, 150]), STEPS, (0, 1))


@pytest.fixture
def cells(episodes, tiny_network):
    actors = {"tiny": tiny_network(), "hpa": Hpa(HpaParameters(), PARAMS), "ahead": LookAhead(0.7)}
    return [Cell.of(name, actor, TrafficEpisodes(episodes, PARAMS), playback=True) for name, actor in actors.items()]


def same(a, b):
    for name, column in a.results.columns.items():
        np.testing.assert_array_equal(column, b.results[name])
    for name in ("replicas", "late_share", "arrival_rate_rps"):
        np.testing.assert_array_equal(getattr(a.playback, name), getattr(b.playback, name))


class Counting:
    """An executor that remembers what it was given."""

    def __init__(self):
        self.done = []

    def run(self, work, jobs):
        self.done += [str(job) for job in jobs]
        yield from SerialExecutor().run(work, jobs)


def test_a_cell_is_flown_as_its_policy_would_be_alone(cells, episodes):
    flown = run_cells(cells, SerialExecutor())
    alone, playback = run_episodes(
        Hpa(HpaParameters(), PARAMS), episodes, PARAMS, playback_of=TrafficEpisodes(episodes, PARAMS).playback_of
    )
    same(flown[1], CellResult(alone, playback))


def test_networks_rules_and_planners_fly_in_other_processes_with_the_same_results(cells):
    here = run_cells(cells, SerialExecutor())
    with ProcessExecutor(2) as executor:
        there = run_cells(cells, executor)
    for a, b in zip(here, there, strict=True):
        same(a, b)


def test_finished_cells_are_not_flown_again_and_read_back_as_they_were(cells, tmp_path):
    first = run_cells(cells, SerialExecutor(), store=CellStore(tmp_path))
    counting = Counting()
    again = run_cells(cells, counting, store=CellStore(tmp_path, reuse=True))
    assert counting.done == []
    for a, b in zip(first, again, strict=True):
        same(a, b)
    run_cells(cells, counting, store=CellStore(tmp_path))
    assert len(counting.done) == 3


def test_only_what_changed_is_flown_again(cells, tmp_path, tiny_network):
    run_cells(cells, SerialExecutor(), store=CellStore(tmp_path))
    counting = Counting()
    others = [replace(cells[0], actor=Cell.of("tiny", tiny_network(seed=1), cells[0].episodes).actor), *cells[1:]]
    run_cells(others, counting, store=CellStore(tmp_path, reuse=True))
    assert counting.done == ["tiny on waves"]


def test_a_key_depends_on_everything_that_decides_and_not_on_names(cells, episodes):
    def key(**changes):
        options = {"episodes": episodes, "params": PARAMS, "target": 0.7, "playback": True, "name": "hpa"} | changes
        rule = Hpa(HpaParameters(target=options["target"]), PARAMS, name=options["name"])
        where = TrafficEpisodes(options["episodes"], options["params"])
        return Cell.of(options["name"], rule, where, playback=options["playback"]).key

    assert key() == key(name="other") == cells[1].key
    changed = [
        key(target=0.6),
        key(params=replace(PARAMS, price_per_move=0.5)),
        key(episodes=replace(episodes, arrived=episodes.arrived + 1)),
        key(episodes=replace(episodes, start_unix_seconds=episodes.start_unix_seconds + 3600)),
        key(playback=False),
    ]
    assert len({key(), *changed}) == 6


@pytest.mark.parametrize("damage", ["cut", "empty", "swapped", "text", "flipped"])
def test_a_damaged_cell_is_never_believed(cells, tmp_path, damage):
    run_cells(cells[1:], SerialExecutor(), store=CellStore(tmp_path))
    path, other = (tmp_path / "cells" / f"{cell.key}.npz" for cell in cells[1:])
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    written = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "swapped": other.read_bytes(),
        "text": b"{}",
        "flipped": bytes(flipped),
    }
    path.write_bytes(written[damage])
    counting = Counting()
    again = run_cells(cells[1:], counting, store=CellStore(tmp_path, reuse=True))
    assert counting.done == ["hpa on waves"]
    assert np.isfinite(again[0].results["J_per_hour"]).all()
    assert path.read_bytes() == data


def test_a_policy_that_does_not_fit_is_a_result_and_the_others_fly(cells, episodes, tiny_network):
    strange = tiny_network(seed=2)
    fields = strange.spec.observation_fields
    spec = replace(strange.spec, observation_fields=(replace(fields[0], name="mood"), *fields[1:]))
    wrong = Cell.of("strange", type(strange)(spec, strange.model), TrafficEpisodes(episodes, PARAMS), playback=True)
    flown = run_cells([wrong, *cells], SerialExecutor())
    assert isinstance(flown[0], InputError)
    assert "mood" in str(flown[0])
    assert all(isinstance(f, CellResult) for f in flown[1:])


def test_the_progress_counts_episodes_finished_ones_included(cells, tmp_path):
    store, told = CellStore(tmp_path, reuse=True), []
    run_cells(cells[:1], SerialExecutor(), store=store)
    run_cells(cells, SerialExecutor(), store=store, progress=told.append)
    assert told == [4, 8, 12]


def test_a_step_log_is_a_row_a_step_and_adds_up_to_the_results(cells, tmp_path):
    cell = replace(cells[1], step_log=True)
    (flown,) = run_cells([cell], SerialExecutor(), store=CellStore(tmp_path))
    log = pq.read_table(tmp_path / "steps" / "waves" / "hpa.parquet").to_pydict()
    assert len(log["step"]) == 4 * STEPS
    row = np.array(log["window"]) == 1
    row &= np.array(log["seed"]) == 0
    which = (flown.results.window == 1) & (flown.results.seed == 0)
    hours = STEPS / PARAMS.steps_per_hour
    cost = sum(np.array(log[name])[row].sum() for name in ("replica_cost", "late_cost", "move_cost"))
    assert cost / hours == pytest.approx(float(flown.results["J_per_hour"][which][0]), rel=1e-5)
    assert np.array(log["late_requests"])[row].sum() == pytest.approx(float(flown.results["late_requests"][which][0]), rel=1e-4)


def test_a_finished_cell_without_its_step_log_is_flown_again(cells, tmp_path):
    run_cells(cells[1:2], SerialExecutor(), store=CellStore(tmp_path))
    counting = Counting()
    logged = [replace(cells[1], step_log=True)]
    run_cells(logged, counting, store=CellStore(tmp_path, reuse=True))
    run_cells(logged, counting, store=CellStore(tmp_path, reuse=True))
    assert counting.done == ["hpa on waves"]


def test_a_policy_of_an_unknown_kind_flies_here_and_is_not_kept(episodes, tmp_path):
    class Stranger:
        spec = Static(StaticParameters(9), PARAMS).spec

        def act(self, observation, state=None, *, deterministic=True, rng=None):
            return Static(StaticParameters(9), PARAMS).act(observation, state)

    cell = Cell.of("stranger", Stranger(), TrafficEpisodes(episodes, PARAMS))
    (flown,) = run_cells([cell], SerialExecutor(), store=CellStore(tmp_path))
    assert (flown.results["replicas_mean"] > 5).all()
    assert cell.key is None
    assert not (tmp_path / "cells").exists()
