"""The network's first layer: what it must not depend on, and its running statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scalepilot.learn.encoder import RunningNormaliser, ScaleFreeEncoder, ScoresNetwork, Tanh, make_encoder, mlp
from scalepilot_envs.autoscale import AutoscaleParams, observation_fields

PARAMS = AutoscaleParams(observe_clock=True)
NAMES = [f.name for f in observation_fields(PARAMS)]
SCALED = [n for n in NAMES if "_rps" in n and n != "replica_capacity_rps"] + ["backlog_requests"]


def observations(count: int = 64, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    columns = {name: rng.uniform(0, 1, count) for name in NAMES}
    for name in SCALED:
        columns[name] = rng.uniform(50, 400, count)
    columns["ready_replicas"] = rng.integers(1, 30, count).astype(float)
    for i in range(4):
        columns[f"starting_replicas_{i}"] = rng.integers(0, 3, count).astype(float)
    columns["replica_capacity_rps"] = np.full(count, 20.0)
    return torch.tensor(np.stack([columns[n] for n in NAMES], axis=1), dtype=torch.float32)


def column(name: str) -> int:
    return NAMES.index(name)


def test_a_service_twice_as_large_looks_the_same_but_for_its_size():
    encoder = ScaleFreeEncoder(NAMES, PARAMS.interval_seconds, PARAMS.max_replicas)
    small = observations()
    large = small.clone()
    for name in [*SCALED, "ready_replicas", *(f"starting_replicas_{i}" for i in range(4))]:
        large[:, column(name)] *= 2
    differing = (encoder(small) - encoder(large)).abs().amax(dim=0) > 1e-5
    assert int(differing.sum()) == 3, "only log(total), the room to grow and the relative size of the noise may differ"


def test_faster_replicas_with_as_much_more_traffic_look_the_same_but_for_the_noise():
    encoder = ScaleFreeEncoder(NAMES, PARAMS.interval_seconds, PARAMS.max_replicas)
    slow = observations()
    fast = slow.clone()
    for name in [*SCALED, "replica_capacity_rps"]:
        fast[:, column(name)] *= 3
    assert int(((encoder(slow) - encoder(fast)).abs().amax(dim=0) > 1e-5).sum()) == 1


def test_features_stay_finite_on_an_empty_service_and_on_extreme_fields():
    encoder = ScaleFreeEncoder(NAMES, PARAMS.interval_seconds, PARAMS.max_replicas)
    high = torch.tensor([[f.high for f in observation_fields(PARAMS)]], dtype=torch.float32)
    for extreme in (torch.zeros_like(high), high):
        assert torch.isfinite(encoder(extreme)).all()


def test_the_declared_number_of_features_is_the_real_one():
    for clock in (True, False):
        params = AutoscaleParams(observe_clock=clock)
        names = [f.name for f in observation_fields(params)]
        inputs = {"field_names": names, "num_states": None, "interval_seconds": 15.0, "max_replicas": params.max_replicas}
        encoder = make_encoder(inputs)
        assert encoder(torch.ones((3, len(names)))).shape == (3, encoder.num_features)


def test_other_environments_get_their_observation_as_it_is():
    encoder = make_encoder({"field_names": ["x", "y"], "num_states": None, "interval_seconds": 1.0, "max_replicas": 1})
    values = torch.tensor([[1.0, -2.0]])
    assert torch.equal(encoder(values), values)


def test_numbered_states_become_one_feature_each():
    encoder = make_encoder({"field_names": ["cell"], "num_states": 4, "interval_seconds": 1.0, "max_replicas": 1})
    expected = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]])
    assert torch.equal(encoder(torch.tensor([2, 0])), expected)
    assert torch.equal(encoder(torch.tensor([[2.0], [0.0]])), expected)


def test_running_statistics_equal_those_of_all_data_at_once():
    rng = np.random.default_rng(1)
    batches = [torch.tensor(rng.normal(5, [1, 10, 0.1], (n, 3)), dtype=torch.float32) for n in (10, 1000, 37)]
    normaliser = RunningNormaliser(3)
    for batch in batches:
        normaliser.update(batch)
    everything = torch.cat(batches).double()
    assert torch.allclose(normaliser.mean.double(), everything.mean(dim=0), rtol=1e-5)
    assert torch.allclose(normaliser.variance.double(), everything.var(dim=0, unbiased=False), rtol=1e-4)
    assert float(normaliser.count) == 1047


def test_before_any_data_the_normaliser_changes_nothing():
    values = torch.tensor([[0.5, -3.0]])
    assert torch.allclose(RunningNormaliser(2)(values), values, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_scores_are_head_of_normaliser_of_encoder(scale: float):
    encoder = ScaleFreeEncoder(NAMES, PARAMS.interval_seconds, PARAMS.max_replicas)
    normaliser, head = RunningNormaliser(encoder.num_features), mlp(encoder.num_features, [8], 4, 1.0)
    values = observations() * scale
    assert torch.equal(ScoresNetwork(encoder, normaliser, head)(values), head(normaliser(encoder(values))))


def test_the_fast_tanh_is_tanh_with_its_gradient():
    values = torch.linspace(-12, 12, 2001)
    fast, exact = values.clone().requires_grad_(), values.clone().requires_grad_()
    ours, theirs = Tanh()(fast), torch.tanh(exact)
    ours.sum().backward()
    theirs.sum().backward()
    assert torch.allclose(ours, theirs, atol=5e-7)
    assert torch.allclose(fast.grad, exact.grad, atol=1e-6)
