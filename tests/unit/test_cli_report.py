import json

import numpy as np
import pytest

from scalepilot.cli import main
from scalepilot.evaluate import Contender, compare, read_evaluation, summary, write_evaluation
from scalepilot.evaluate.lineup import gather
from scalepilot.policy import save_policy
from scalepilot.policy.rules import Hpa, HpaParameters, make_rule
from scalepilot.report.html.report import LearningCurve, ReportData
from scalepilot.report.run_report import learning_curve_of, store_about
from scalepilot.simulate import SeededEpisodes, protocol_v1, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.registration import find_env
from scalepilot_envs.workloads import DiurnalWorkload

PARAMS = AutoscaleParams()
CONFIG = "name: tiny\nalgorithm: q_learning\nenv: {id: GridWorld-v0}\n"


@pytest.fixture(scope="module")
def comparison():
    test = protocol_v1("shop", DiurnalWorkload(days=3), PARAMS, window_steps=240, drawn_windows=1, test_seeds=(0,)).test
    results, playback = run_episodes(Hpa(HpaParameters(), PARAMS), test, PARAMS, playback_of=0)
    return compare("shop", test, [Contender("mine", "policy", "", results, playback)], bootstrap_samples=20)


@pytest.fixture(scope="module")
def returns():
    env = find_env("GridWorld-v0").describe({})
    episodes = SeededEpisodes("GridWorld-v0", "GridWorld-v0", 4, {}, first_seed=0)
    results = episodes.run(make_rule("random", env)).results
    rows = [Contender("mine", "policy", "", results), Contender("random", "baseline", "any", results)]
    return compare("GridWorld-v0", episodes, rows, bootstrap_samples=20)


@pytest.fixture
def run_folder(tmp_path, returns):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(CONFIG)
    (run / "progress.csv").write_text("iteration,env_steps,validation_return\n1,100,-20.0\n2,200,-10.0\n")
    write_evaluation(returns, run / "evaluation")
    return run


def test_a_folder_of_a_comparison_has_its_page_written_anew_with_what_was_kept_beside_it(comparison, tmp_path, capsys):
    write_evaluation(comparison, tmp_path)
    rows = [{"env_steps": 10.0, "validation_J_per_hour": 20.0}]
    kept = ReportData(
        "Kept title", comparison, [LearningCurve("mine", 3, rows)], {"hpa": 21.0}, reproduce=["scalepilot compare x"]
    )
    store_about(kept, tmp_path)
    assert main(["report", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert said == {"report": str(tmp_path / "report.html"), "bytes": len(page.encode())}
    for text in ("Kept title", "scalepilot compare x", '"seeds":[3]', '{"name":"hpa","value":21}'):
        assert text in page


def test_a_run_judged_by_return_has_a_page_with_its_curve_and_configuration(run_folder, tmp_path):
    out = tmp_path / "elsewhere" / "page.html"
    assert main(["report", str(run_folder), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    for text in ("tiny · q_learning on GridWorld-v0", '"mean":[-20,-10]', "Against each baseline", "algorithm: q_learning"):
        assert text in page
    assert not (run_folder / "report.html").exists()


def test_returns_are_read_as_they_were_written(returns, tmp_path):
    write_evaluation(returns, tmp_path)
    read = read_evaluation(tmp_path)
    assert summary(read) == summary(returns)
    for one, other in zip(returns.contenders, read.contenders, strict=True):
        np.testing.assert_array_equal(one.results["return"], other.results["return"])
        np.testing.assert_array_equal(one.results["length"], other.results["length"])
        assert (one.name, one.role, one.detail) == (other.name, other.role, other.detail)


def test_the_learning_curve_of_a_policy_is_found_in_its_run_and_nowhere_else(run_folder, tmp_path):
    curve = learning_curve_of(run_folder / "policy", "mine")
    assert (curve.name, curve.training_seed, len(curve.rows)) == ("mine", 0, 2)
    assert learning_curve_of(tmp_path, "mine") is None
    (run_folder / "config.yaml").write_text("name: tiny\nof_another_version: 1\n")
    assert learning_curve_of(run_folder, "mine") is None


def test_a_comparison_knows_which_folder_each_of_its_policies_is_from(tmp_path):
    save_policy(Hpa(HpaParameters(), PARAMS, name="a"), tmp_path / "one")
    save_policy(Hpa(HpaParameters("rps"), PARAMS, name="b"), tmp_path / "two")
    gathered = gather([str(tmp_path / "one"), str(tmp_path / "two")])
    assert gathered.folders == (("a", tmp_path / "one"), ("b", tmp_path / "two"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "summary.json").unlink(), "holds neither config.yaml nor summary.json"),
        (lambda folder: (folder / "summary.json").write_text("{}"), "summary.json: workloads: is missing"),
        (lambda folder: (folder / "episodes.parquet").write_bytes(b"PAR1"), "episodes.parquet: is not Parquet, or is cut off"),
        (lambda folder: (folder / "report.json").write_text('{"title": 1}'), "not a stored report"),
    ],
)
def test_a_damaged_folder_is_named_in_one_line(comparison, tmp_path, capsys, spoil, words):
    write_evaluation(comparison, tmp_path)
    spoil(tmp_path)
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert str(tmp_path) in error


def test_a_run_that_was_not_judged_says_how_to_finish_it(run_folder, capsys):
    for file in (run_folder / "evaluation").iterdir():
        file.unlink()
    (run_folder / "evaluation").rmdir()
    assert main(["report", str(run_folder)]) == 2
    assert "has not been evaluated yet" in capsys.readouterr().err
