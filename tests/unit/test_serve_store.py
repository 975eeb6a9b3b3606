"""Which policies a server takes, and how it speaks of those it does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scalepilot.errors import ArtifactError
from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule, rules_for
from scalepilot.serve import PolicyStore, RequestError, ServedPolicy
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe

AUTOSCALE_RULES = rules_for(describe())


@pytest.fixture
def store(tmp_path: Path, tiny_artifact: Path) -> PolicyStore:
    save_policy(make_rule("hpa", AutoscaleParams()), tmp_path / "run" / "policy")
    return PolicyStore.load([tiny_artifact, tmp_path / "run"])


def test_policy_folders_and_run_folders_are_served_by_name(store: PolicyStore, tmp_path: Path) -> None:
    assert [served.spec.name for served in store] == ["tiny", "hpa"]
    assert store.get("hpa").folder == tmp_path / "run" / "policy"


def test_two_policies_of_one_name_are_refused_with_both_folders(store: PolicyStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run.*tiny@1 is also in .*tiny"):
        PolicyStore([store.get("tiny"), ServedPolicy.load(_renamed(tmp_path))])


def _renamed(tmp_path: Path) -> Path:
    save_policy(make_rule("hpa", AutoscaleParams(), name="tiny"), tmp_path / "run" / "policy")
    return tmp_path / "run"


def test_a_store_of_nothing_is_refused() -> None:
    with pytest.raises(ArtifactError, match="none given"):
        PolicyStore([])


@pytest.mark.parametrize("name", ["tin", "../../etc/passwd", "\0", "x" * 300, "", "TINY", "tiny\n"])
def test_an_unknown_name_is_a_404_in_one_short_line(store: PolicyStore, name: str) -> None:
    with pytest.raises(RequestError) as refusal:
        store.get(name)
    assert refusal.value.status == 404
    assert "allowed: tiny, hpa" in str(refusal.value)
    assert len(str(refusal.value)) < 200
    assert "\n" not in str(refusal.value)


def test_a_near_name_is_suggested(store: PolicyStore) -> None:
    with pytest.raises(RequestError, match="did you mean tiny"):
        store.get("tinny")


def test_a_network_that_gives_nan_is_not_served(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> None:
    policy = tiny_network()
    broken = policy.model.replace(_some_weight(policy.model), np.float32(np.nan).tobytes(), 1)
    save_policy(NetworkPolicy(policy.spec, broken), tmp_path / "broken")
    with pytest.raises(ArtifactError, match="NaN"):
        ServedPolicy.load(tmp_path / "broken")


def _some_weight(model: bytes) -> bytes:
    from onnx import ModelProto, numpy_helper

    weights = numpy_helper.to_array(ModelProto.FromString(model).graph.initializer[0])
    return bytes(weights[0, 0].tobytes())


@pytest.mark.parametrize("rule", sorted(AUTOSCALE_RULES))
def test_every_rule_is_served_with_an_example_within_its_bounds(tmp_path: Path, rule: str) -> None:
    for i, params in enumerate((AutoscaleParams(), AutoscaleParams(max_replicas=2, observe_clock=True, history_steps=1))):
        save_policy(make_rule(rule, params), tmp_path / f"{rule}{i}")
        served = ServedPolicy.load(tmp_path / f"{rule}{i}")
        fields = served.spec.observation_fields
        assert list(served.example) == [field.name for field in fields]
        assert all(field.low <= served.example[field.name] <= field.high for field in fields)
        PolicyStore([served]).check()
