"""Runs, comparisons and a sweep that commit 7beec26 wrote are read by every command that reads such things."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.commands import said

from scalepilot.serve import PolicyStore

STORED = Path(__file__).parent.parent / "data/7beec26"
RUNS = ("run-autoscale", "run-queue")
COMPARISONS = ("comparison-autoscale", "comparison-queue")
TRIALS = sorted(path.name for path in (STORED / "sweep/trials").iterdir())


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A copy, for commands that write beside what they read."""
    return Path(shutil.copytree(STORED, tmp_path / "stored"))


def figures(folder: Path) -> dict[str, dict[str, float]]:
    """Policy → metric → mean, of a stored comparison."""
    summary = json.loads((folder / "summary.json").read_text())
    return {
        policy: {metric: value["mean"] for metric, value in metrics.items() if isinstance(value, dict) and "mean" in value}
        for policy, metrics in summary["policies"].items()
    }


def test_a_run_a_comparison_and_a_sweep_have_reports(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*RUNS, *COMPARISONS):
        page = stored / name / "report.html"
        assert json.loads(said(capsys, "report", stored / name, "--json"))["report"] == str(page)
        shown = page.read_text()
        assert all(policy in shown for policy in figures(stored / name / "evaluation" if name in RUNS else stored / name)), name


def test_their_stored_figures_come_out_again(capsys: pytest.CaptureFixture[str]) -> None:
    """`verify` runs test episodes again: what a policy of then decides and costs is what it does now."""
    folders = [STORED / name for name in RUNS] + [STORED / "sweep/trials" / name for name in TRIALS]
    verdicts = json.loads(said(capsys, "verify", *folders, "--json"))["verified"]
    assert [verdict["sound"] for verdict in verdicts] == [True] * 4
    assert [verdict["kind"] for verdict in verdicts] == ["run"] * 4


def test_a_comparison_made_again_has_the_figures_of_then(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ("--baseline", "hpa-default", "--workload", "spike", "--seeds", "1", "--steps", "120", "--windows", "2")
    said(capsys, "compare", stored / "run-autoscale", *drawn, "--out", stored / "again", "--jobs", "1")
    assert figures(stored / "again") == figures(stored / "comparison-autoscale")


def test_a_stored_comparison_is_printed(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, better in zip(COMPARISONS, ("optimum", "tracking"), strict=True):
        assert better in said(capsys, "compare", "--plot-only", stored / name)
    assert "tracking" in said(capsys, "compare", "--plot-only", stored / "sweep/evaluation")


def test_a_run_and_a_sweep_are_compared(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "compare", stored / "run-queue", stored / "sweep", "--seeds", "1", "--jobs", "1", "--out", stored / "both")
    assert {"queue-q_learning", "sweep-q_learning", "tracking", "random"} <= {*figures(stored / "both")}


def test_runs_and_policies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = said(capsys, "runs", STORED)
    assert listed.count("finished") == 3
    assert "59.04 J/h" in listed
    assert "of 2 trials" in listed
    assert said(capsys, "policy", "list", STORED).count("q_learning") >= 4


def test_their_policies_are_served_with_what_they_reached() -> None:
    served = {one.spec.name: one for one in PolicyStore.load([STORED / name for name in (*RUNS, "sweep")])}
    assert {*served} == {"autoscale-ppo", "queue-q_learning", "sweep-q_learning"}
    for one in served.values():
        assert one.spec.evaluation
