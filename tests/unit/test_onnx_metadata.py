"""What a model.onnx says of itself, and the page on using it alone."""

from __future__ import annotations

import json
import re

import numpy as np
import onnxruntime
import pytest

from scalepilot.cli import main
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.network import NetworkPolicy
from scalepilot.policy.onnx_metadata import model_metadata, with_metadata


def told(model: bytes) -> dict[str, str]:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map


@pytest.fixture
def described(tiny_network):
    policy = tiny_network()
    return NetworkPolicy(policy.spec, with_metadata(policy.model, model_metadata(policy.spec)))


def test_a_model_says_its_fields_actions_rule_and_version(described):
    about, spec = told(described.model), described.spec
    assert [f["name"] for f in json.loads(about["scalepilot.fields"])] == [f.name for f in spec.observation_fields]
    assert [a["label"] for a in json.loads(about["scalepilot.actions"])] == [a.label for a in spec.actions]
    assert json.loads(about["scalepilot.fields"])[0].keys() >= {"name", "unit", "low", "high"}
    plain = {name: about[f"scalepilot.{name}"] for name in ("name", "version", "env_id", "decision_rule")}
    assert plain == {"name": spec.name, "version": spec.version, "env_id": spec.env_id, "decision_rule": spec.decision_rule}


def test_metadata_changes_nothing_else_and_is_the_same_bytes_every_time(tiny_network, described):
    plain = tiny_network()
    again = with_metadata(with_metadata(plain.model, {"other": "x"}), model_metadata(plain.spec))
    assert again == described.model
    assert with_metadata(again, {}) == with_metadata(plain.model, {})
    assert told(with_metadata(again, {})) == {}
    rows = np.random.default_rng(0).random((50, len(plain.spec.observation_fields)))
    np.testing.assert_array_equal(described.scores(rows), plain.scores(rows))
    for cut in (1, len(again) // 2, len(again) - 1):
        with pytest.raises(ValueError, match=r"cut off|wire type"):
            with_metadata(again[:cut], {})


def test_an_export_under_another_name_says_it_in_the_model_too(described, tmp_path, capsys):
    save_policy(described, tmp_path / "old")
    assert main(["policy", "export", str(tmp_path / "old"), str(tmp_path / "new"), "--name", "shop", "--version", "2"]) == 0
    capsys.readouterr()
    renamed = load_policy(tmp_path / "new")
    about = told(renamed.model)
    assert (about["scalepilot.name"], about["scalepilot.version"]) == ("shop", "2")
    assert main(["policy", "export", str(tmp_path / "old"), str(tmp_path / "same")]) == 0
    assert (tmp_path / "same" / "model.onnx").read_bytes() == described.model


def test_the_pages_python_decides_as_the_policy_does(described, tmp_path, repo, monkeypatch, capsys):
    save_policy(described, tmp_path)
    page = (repo / "docs" / "onnx.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/onnx.md", "exec"), {})
    decision, _ = described.act(np.zeros((1, len(described.spec.observation_fields))))
    label = described.spec.actions[int(decision.action[0])].label
    assert capsys.readouterr().out.split(maxsplit=2) == [described.spec.name, described.spec.version, f"{label}\n"]
