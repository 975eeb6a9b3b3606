"""torch → ONNX: one file, the same bytes for the same weights, the same decisions."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scalepilot.config import config_from_mapping
from scalepilot.errors import RunError
from scalepilot.learn.encoder import RunningNormaliser, ScaleFreeEncoder, ScoresNetwork, mlp
from scalepilot.learn.export import TorchPolicy, export_onnx, exported_policy
from scalepilot.learn.task import Task, sample_observations
from scalepilot.policy import ActionEntry, PolicySpec, autoscale_fields, load_policy, save_policy
from scalepilot_envs.autoscale import DEFAULT_MOVES, ENV_ID, AutoscaleParams, MoveTable

PARAMS = AutoscaleParams()
SPEC = PolicySpec(
    name="test",
    version="1",
    kind="network",
    env_id=ENV_ID,
    env_params=asdict(PARAMS),
    observation_fields=autoscale_fields(PARAMS),
    actions=tuple(ActionEntry(**a) for a in MoveTable(DEFAULT_MOVES).to_json()),
    decision_rule="argmax_p",
)
NAMES = [f.name for f in SPEC.observation_fields]


@pytest.fixture(scope="module")
def observations() -> np.ndarray:
    short = {"window_steps": 200, "drawn_windows": 1}
    config = config_from_mapping({"workload": {"kind": "diurnal", "days": 1}, "env": {"episode_steps": 60}, "evaluation": short})
    return sample_observations(Task(config), ENV_ID, 1000)


@pytest.fixture(scope="module")
def network(observations: np.ndarray) -> ScoresNetwork:
    torch.manual_seed(0)
    encoder = ScaleFreeEncoder(NAMES, PARAMS.interval_seconds, PARAMS.max_replicas)
    normaliser = RunningNormaliser(encoder.num_features)
    normaliser.update(encoder(torch.from_numpy(observations)))
    return ScoresNetwork(encoder, normaliser, mlp(encoder.num_features, [64, 64], len(DEFAULT_MOVES), 1.0))


@pytest.fixture(scope="module")
def model(network: ScoresNetwork) -> bytes:
    return export_onnx(network, (len(NAMES),))


def test_a_thousand_observations_are_decided_alike_before_and_after_export(network, observations, tmp_path: Path):
    assert observations.shape == (1000, len(NAMES))
    save_policy(exported_policy(SPEC, network, observations), tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    native, _ = TorchPolicy(SPEC, network).act(observations)
    served, _ = loaded.act(observations)
    assert np.array_equal(native.action, served.action)
    assert np.array_equal(native.desired_replicas, served.desired_replicas)
    assert len(np.unique(native.action)) > 2, "a network that always says the same proves nothing"


def test_any_batch_size_gives_the_same_scores(network, observations, tmp_path: Path):
    policy = exported_policy(SPEC, network, observations)
    together = policy.scores(observations[:64])
    one_by_one = np.concatenate([policy.scores(row[None]) for row in observations[:64]])
    assert together == pytest.approx(one_by_one, abs=1e-5)


def test_the_same_weights_give_the_same_bytes_and_others_do_not(network: ScoresNetwork, model: bytes):
    assert export_onnx(copy.deepcopy(network), (len(NAMES),)) == model
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head[0].weight[0, 0] += 1e-3
    assert export_onnx(other, (len(NAMES),)) != model


def test_networks_that_differ_in_a_constant_alone_are_told_apart(network: ScoresNetwork, model: bytes, observations: np.ndarray):
    other = copy.deepcopy(network)
    other.encoder = ScaleFreeEncoder(NAMES, PARAMS.interval_seconds, 2 * PARAMS.max_replicas)
    assert export_onnx(other, (len(NAMES),)) != model
    # Each is held to its own decisions here.
    for one in (other, network):
        exported_policy(SPEC, one, observations)


def test_nothing_of_this_machine_is_in_the_file(model: bytes):
    for trace in (b"/work", b"site-packages", b"scalepilot/", b".py", str(Path.home()).encode() + b"/"):
        assert trace not in model


def test_an_export_that_decides_otherwise_is_refused(network: ScoresNetwork, observations: np.ndarray):
    class Drifting(torch.nn.Module):
        """Scores that depend on whether it is being traced: what a parity check is for."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            scores = self.inner(observation)
            return scores if torch.compiler.is_exporting() else -scores

    with pytest.raises(RunError, match="decides otherwise"):
        exported_policy(SPEC, Drifting(), observations)


def test_a_network_that_diverged_is_refused(network: ScoresNetwork, observations: np.ndarray):
    diverged = copy.deepcopy(network)
    with torch.no_grad():
        diverged.head[0].bias[0] = float("nan")
    with pytest.raises(RunError, match="training has diverged"):
        exported_policy(SPEC, diverged, observations)


def test_a_description_with_other_actions_is_refused(network: ScoresNetwork, observations: np.ndarray):
    with pytest.raises(Exception, match=r"8\]\], policy.json has 3 actions"):
        exported_policy(replace(SPEC, actions=SPEC.actions[:3]), network, observations)
