"""The replay of a study's orders: its rule by hand, what is refused, and how near the simulator comes to the cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks.reality import page
from benchmarks.reality.__main__ import main
from benchmarks.reality.figures import Compared
from benchmarks.reality.replay import BEFORE, NOW
from benchmarks.reality.study import ATTRIBUTION, CONDITIONS, orders_of, read_study


@pytest.fixture(scope="module")
def folder(repo) -> Path:
    found = repo.parent / "shared" / "reality"
    if not found.is_dir():
        pytest.skip("../shared/reality is absent: this check needs the study's data")
    return found


@pytest.fixture(scope="module")
def compared(folder) -> Compared:
    return Compared(folder)


def test_the_rule_looks_six_seconds_ahead_and_holds_its_peak_for_thirty():
    rates = np.array([25.0] * 20 + [60.0] * 10 + [25.0] * 50)
    orders = orders_of(rates)
    # Forecast from second 14 on; the last decision for four pods is at 23, held until 53, then one pod a second.
    assert orders[:14].tolist() == [1.0] * 14
    assert orders[14:53].tolist() == [4.0] * 39
    assert orders[53:57].tolist() == [3.0, 2.0, 1.0, 1.0]
    assert orders_of(np.array([30.0] * 20)).max() == 1.0, "its limit is enough"


def test_a_missing_file_is_one_clear_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{tmp_path}/data/workloads.csv: No such file or directory; allowed: the study's folder" in said


def test_orders_that_are_not_those_of_the_runs_are_refused(folder, tmp_path, capsys):
    shutil.copytree(folder / "data", tmp_path / "data")
    (tmp_path / "data").chmod(0o700)
    runs = tmp_path / "data" / "runs.csv"
    runs.chmod(0o600)
    runs.write_text(runs.read_text().replace(",360,", ",361,"))
    assert main([str(tmp_path)]) == 2
    assert "spike: oracle ordered 361 replica-seconds, the replay 360" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("workloads.csv", "requests_per_second", "rate", "requests_per_second is missing"),
        ("workloads.csv", "25.000000", "many", "could not convert string to float: 'many'"),
        ("timelines.csv", "final-p03-b-r05-s1", "another", "final-p03-b-r05-s1 is missing"),
        ("runs.csv", "late_event", "early", "has no run of narrow-spike-v1, late_event"),
    ],
)
def test_other_files_are_refused_in_one_line(folder, tmp_path, capsys, file, old, new, said):
    (tmp_path / "data").mkdir()
    for name in ("workloads.csv", "runs.csv", "timelines.csv"):
        text = (folder / "data" / name).read_text(encoding="utf-8")
        (tmp_path / "data" / name).write_text(text.replace(old, new) if name == file else text, encoding="utf-8")
    assert main([str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_every_run_ordered_what_is_replayed(folder):
    study = read_study(folder)
    assert sum(len(r.p99_ms) for r in study.recorded) == 137
    assert len(study.timelines) == 4
    assert len({c.label for c in CONDITIONS}) == 19


@pytest.mark.slow
def test_the_simulator_is_over_the_slo_when_the_cluster_is(compared):
    assert np.abs(compared.simulated(NOW, "replica_seconds") - compared.cluster("replica_seconds")).max() == 0
    apart = np.abs(compared.simulated(NOW, "late_seconds") - compared.cluster("late_seconds"))
    assert apart.mean() < 1.0
    assert apart.max() < 5.0
    assert np.abs(compared.simulated(BEFORE, "late_seconds") - compared.cluster("late_seconds")).mean() > 100, "a control"
    failed = np.abs(compared.simulated(NOW, "failed") - compared.cluster("failed")) / compared.requests
    assert failed.max() < 0.02
    # Which forecast errors hurt, and by the order of magnitude how much.
    hurt = compared.cluster("p99_ms") > 300
    assert ((compared.simulated(NOW, "p99_ms") > 300) == hurt).all()
    ratio = compared.simulated(NOW, "p99_ms")[hurt] / compared.cluster("p99_ms")[hurt]
    assert 0.4 < ratio.min() < ratio.max() < 1.2


@pytest.mark.slow
def test_the_page_holds_what_the_replay_says_and_names_its_source(compared, repo):
    text = (repo / "docs" / "reality.md").read_text(encoding="utf-8")
    for table in (page.side_by_side, page.parts, page.differences):
        assert table(compared) in text, "python -m benchmarks reality writes it"
    assert ATTRIBUTION in text.replace("\n> ", " ")


@pytest.mark.slow
def test_the_figures_are_plain_numbers_of_every_variant(compared):
    told = json.loads(json.dumps(compared.summary(), allow_nan=False))
    missed = told["conditions"]["spike: missed"]
    assert missed["cluster"]["replica_seconds"] == [180, 180, 180]
    assert set(missed) == {"cluster", "before", "evenly spaced arrivals", "readiness probes", "queues that stay"}
