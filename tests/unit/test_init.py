"""`scalepilot init`: a file to start from that is right as it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.commands import refused, said

from scalepilot.cli.init import KINDS
from scalepilot.config import json_schema, load_config, read_yaml
from scalepilot.experiments.sweep.config import checked_sweep
from scalepilot.operate.config import load_operate_config, load_service
from scalepilot.operate.telemetry import TelemetryContext, make_telemetry


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_allowed_and_names_its_schema(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    said(capsys, "init", "mine", "--for", kind)
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "# yaml-language-server: $schema=mine.schema.json"
    schema = json.loads((tmp_path / "mine.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"]["policy" if kind == "operate" else "name"]["description"]
    if kind == "operate":
        config = load_operate_config(tmp_path / "mine.yaml")
        service = load_service(config)
        assert config.records == str(tmp_path / "mine-records")
        make_telemetry(config.telemetry, TelemetryContext(service.env, service.deciders.fields)).close()
    elif kind == "sweep":
        assert checked_sweep(read_yaml(tmp_path / "mine.yaml"), "mine").name == "mine"
    else:
        assert schema == json.loads(json.dumps(json_schema()))
        assert load_config(tmp_path / "mine.yaml").name == "mine"


def test_the_environment_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    said(capsys, "init", "room", "--for", "environment")
    small = ["algorithm=dqn", "dqn.total_env_steps=64", "evaluation.validation_episodes=2", "evaluation.test_episodes=2"]
    text = (tmp_path / "room.yaml").read_text(encoding="utf-8")
    before, _, after = text.partition("ppo:\n")
    (tmp_path / "room.yaml").write_text(before + after[after.index("evaluation:") :], encoding="utf-8")
    config = load_config(tmp_path / "room.yaml", small)
    assert config.env.id == "room_env:room-v0"
    assert config.env.description.fields[0].high == 60.0


def test_nothing_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.schema.json").write_text("kept")
    assert "mine.schema.json: exists already" in refused(capsys, "init", "mine")
    assert not (tmp_path / "mine.yaml").exists()
    assert "NAME: '../x' is not allowed" in refused(capsys, "init", "../x")
