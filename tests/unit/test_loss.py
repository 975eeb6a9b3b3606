"""PPO's loss in fused operations is RLlib's own loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.evaluation.postprocessing import Postprocessing

from scalepilot.learn.rllib.loss import ppo_loss

ROWS, ACTIONS = 64, 5
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


def rllib_loss(logits: torch.Tensor, value: torch.Tensor, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    """RLlib's own method, on a learner that holds nothing but what the method reads."""
    logged: dict[str, Any] = {}
    module = SimpleNamespace(
        get_train_action_dist_cls=lambda: TorchCategorical,
        get_exploration_action_dist_cls=lambda: TorchCategorical,
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
        learner, module_id="default_policy", config=config, batch=batch, fwd_out={Columns.ACTION_DIST_INPUTS: logits}
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
            computed = ppo_loss(logits, value, batch, **SETTINGS)
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


def test_masked_rows_have_no_gradient():
    batch = minibatch(masked=True)
    logits = torch.zeros((ROWS, ACTIONS), requires_grad=True)
    value = torch.zeros(ROWS, requires_grad=True)
    ppo_loss(logits, value, batch, **SETTINGS).total.backward()
    out = ~batch[Columns.LOSS_MASK]
    assert not logits.grad[out].any()
    assert not value.grad[out].any()
    assert logits.grad[~out].any()
