"""PPO's loss in fused operations is RLlib's own loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian
from ray.rllib.evaluation.postprocessing import Postprocessing

from scalepilot.learn.rllib.distributions import Categorical, DiagonalGaussian
from scalepilot.learn.rllib.loss import ppo_loss

ROWS, ACTIONS = 64, 5
CATEGORICAL = Categorical(spaces.Discrete(ACTIONS))
SETTINGS = {"clip": 0.2, "value_clip": 2.0, "value_coefficient": 0.5, "entropy_coefficient": 0.01}


def minibatch(*, masked: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)

    behaviour = tensor(rng.normal(size=(ROWS, ACTIONS)))
    action = torch.tensor(rng.integers(0, ACTIONS, ROWS))
    batch = {
        Columns.ACTIONS: action,
        Columns.ACTION_DIST_INPUTS: behaviour,
        Columns.ACTION_LOGP: torch.log_softmax(behaviour, -1).gather(1, action[:, None])[:, 0],
        Postprocessing.ADVANTAGES: tensor(rng.normal(size=ROWS)),
        Postprocessing.VALUE_TARGETS: tensor(rng.normal(0, 2, ROWS)),
    }
    if masked:
        batch[Columns.LOSS_MASK] = torch.tensor(rng.random(ROWS) < 0.7)
    return batch


def rllib_loss(
    inputs: torch.Tensor, value: torch.Tensor, batch: dict[str, torch.Tensor], distribution: type = TorchCategorical
) -> tuple[torch.Tensor, dict[str, Any]]:
    """RLlib's own method, on a learner that holds nothing but what the method reads."""
    logged: dict[str, Any] = {}
    module = SimpleNamespace(
        get_train_action_dist_cls=lambda: distribution,
        get_exploration_action_dist_cls=lambda: distribution,
        compute_values=lambda batch, embeddings=None: value,
    )
    learner = SimpleNamespace(
        module={"default_policy": SimpleNamespace(unwrapped=lambda: module)},
        entropy_coeff_schedulers_per_module={
            "default_policy": SimpleNamespace(get_current_value=lambda: SETTINGS["entropy_coefficient"])
        },
        metrics=SimpleNamespace(log_dict=lambda values, key, window: logged.update(values)),
    )
    config = SimpleNamespace(
        use_kl_loss=False,
        use_critic=True,
        clip_param=SETTINGS["clip"],
        vf_clip_param=SETTINGS["value_clip"],
        vf_loss_coeff=SETTINGS["value_coefficient"],
    )
    loss = PPOTorchLearner.compute_loss_for_module(
        learner, module_id="default_policy", config=config, batch=batch, fwd_out={Columns.ACTION_DIST_INPUTS: inputs}
    )
    return loss, logged


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_loss_gradients_and_metrics_are_rllibs(masked: bool, seed: int):
    batch = minibatch(masked=masked, seed=seed)
    rng = np.random.default_rng(100 + seed)
    start = batch[Columns.ACTION_DIST_INPUTS].numpy() + rng.normal(0, 0.3, (ROWS, ACTIONS))
    results = []
    for ours in (True, False):
        logits = torch.tensor(start, dtype=torch.float32, requires_grad=True)
        value = torch.tensor(np.random.default_rng(seed).normal(size=ROWS), dtype=torch.float32, requires_grad=True)
        if ours:
            computed = ppo_loss(logits, value, batch, CATEGORICAL, **SETTINGS)
            loss, metrics = computed.total, computed.metrics()
        else:
            loss, metrics = rllib_loss(logits, value, batch)
        loss.backward()
        results.append((loss.item(), logits.grad, value.grad, metrics))
    (our_loss, our_logits, our_value, our_metrics), (their_loss, their_logits, their_value, their_metrics) = results
    assert our_loss == pytest.approx(their_loss, abs=1e-6)
    assert torch.allclose(our_logits, their_logits, atol=1e-7)
    assert torch.allclose(our_value, their_value, atol=1e-7)
    for name in ("policy_loss", "vf_loss", "entropy"):
        assert our_metrics[name] == pytest.approx(float(their_metrics[name].detach()), abs=1e-6), name


@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_of_continuous_actions_is_rllibs(masked: bool):
    components, rng = 3, np.random.default_rng(0)
    batch = minibatch(masked=masked)
    behaviour = torch.tensor(rng.normal(0, 0.5, (ROWS, 2 * components)), dtype=torch.float32)
    action = torch.tensor(rng.normal(0, 2, (ROWS, components)), dtype=torch.float32)
    ours = DiagonalGaussian(spaces.Box(-1, 1, (components,)))
    log_probability, entropy = ours.judge(behaviour, action)
    theirs = TorchDiagGaussian.from_logits(behaviour)
    assert torch.allclose(log_probability, theirs.logp(action), atol=1e-5)
    assert torch.allclose(entropy, theirs.entropy(), atol=1e-5)
    batch |= {Columns.ACTION_DIST_INPUTS: behaviour, Columns.ACTIONS: action, Columns.ACTION_LOGP: log_probability}
    start = behaviour + torch.tensor(rng.normal(0, 0.1, behaviour.shape), dtype=torch.float32)
    results = []
    for compute in (
        lambda inputs, value: ppo_loss(inputs, value, batch, ours, **SETTINGS).total,
        lambda inputs, value: rllib_loss(inputs, value, batch, TorchDiagGaussian)[0],
    ):
        inputs, value = start.clone().requires_grad_(), torch.linspace(-1, 1, ROWS, requires_grad=True)
        loss = compute(inputs, value)
        loss.backward()
        results.append((loss.detach(), inputs.grad, value.grad))
    for mine, rllibs in zip(*results, strict=True):
        assert torch.allclose(mine, rllibs, rtol=1e-4, atol=1e-5)


def test_masked_rows_have_no_gradient():
    batch = minibatch(masked=True)
    logits = torch.zeros((ROWS, ACTIONS), requires_grad=True)
    value = torch.zeros(ROWS, requires_grad=True)
    ppo_loss(logits, value, batch, CATEGORICAL, **SETTINGS).total.backward()
    out = ~batch[Columns.LOSS_MASK]
    assert not logits.grad[out].any()
    assert not value.grad[out].any()
    assert logits.grad[~out].any()
