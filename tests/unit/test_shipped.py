"""Policies that come with Scalepilot: their addresses, and that they are what a user may rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalepilot.cli import main
from scalepilot.errors import InputError
from scalepilot.policy import load_policy, located, shipped_names, shipped_policies


def test_any_other_path_stays_as_it_is():
    assert located("runs/demo") == Path("runs/demo")
    assert located(Path("/a/b")) == Path("/a/b")


def test_an_address_is_understood_as_text_and_as_a_path():
    for address, folder in shipped_policies().items():
        assert located(address) == located(Path(address)) == folder


@pytest.mark.parametrize("text", ["scalepilot://generl", "scalepilot://", "scalepilot://general/..", "scalepilot://../policy"])
def test_another_name_is_refused_with_those_there_are(text):
    with pytest.raises(InputError, match=r"no such policy is shipped; allowed: "):
        load_policy(text)


@pytest.mark.skipif(not shipped_names(), reason="no policy is shipped")
@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_policy_is_small_sees_its_service_and_says_how_it_was_made(name):
    spec = load_policy(f"scalepilot://{name}").spec
    folder = shipped_policies()[f"scalepilot://{name}"]
    assert spec.name == name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 600_000
    fields = {f.name for f in spec.observation_fields}
    assert {"startup_seconds", "wait_slo_seconds", "late_request_replica_hours", "min_replicas", "max_replicas"} <= fields
    assert {"config", "seed", "env_steps"} <= set(spec.provenance)


@pytest.mark.skipif(not shipped_names(), reason="no policy is shipped")
def test_a_shipped_policy_is_sound(capsys: pytest.CaptureFixture[str]):
    assert main(["verify", "scalepilot://general"]) == 0
    assert "error" not in capsys.readouterr().out
