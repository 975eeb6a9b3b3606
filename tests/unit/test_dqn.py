"""Q-learning on tiny networks: targets, loss, target network, exploration, determinism, and a value known in advance."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core.columns import Columns

from scalepilot.config import DQNConfig
from scalepilot.errors import RunError
from scalepilot.learn.rllib.exploration import EpsilonSchedule
from scalepilot.learn.rllib.flat_parameters import FlatParameters
from scalepilot.learn.rllib.q_learning import QLearner
from scalepilot.learn.rllib.q_module import DuelingHead, QModule
from scalepilot.learn.rllib.rollout import Rollout

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "hidden": (8,),
    "batch_size": 16,
    "buffer_size": 500,
    "learning_starts": 0,
    "updates_per_step": 0.5,
    "target_update_steps": 7,
}


def module(num_fields: int = 3, num_actions: int = 4, hidden: tuple[int, ...] = (8,), *, dueling: bool = False) -> QModule:
    torch.manual_seed(0)
    model = {
        "field_names": [f"field_{i}" for i in range(num_fields)],
        "num_states": None,
        "hidden": list(hidden),
        "dueling": dueling,
    }
    return QModule(
        observation_space=spaces.Box(-1, 1, (num_fields,)),
        action_space=spaces.Discrete(num_actions),
        inference_only=False,
        model_config=model,
    )


def learner(seed: int = 0, **changes: Any) -> QLearner:
    settings = DQNConfig(**{**SMALL, **changes})
    return QLearner(module(hidden=settings.hidden, dueling=settings.dueling), settings, CPU, seed)


def experience(seed: int, steps: int = 10, envs: int = 4) -> Rollout:
    rng = np.random.default_rng(seed)
    terminated = rng.random((steps, envs)) < 0.1
    valid = np.ones((steps, envs), bool)
    for t in range(1, steps):
        valid[t] = ~terminated[t - 1]
        terminated[t] &= valid[t]
    return Rollout(
        observation=rng.normal(size=(steps + 1, envs, 3)).astype(np.float32),
        action=rng.integers(0, 4, (steps, envs)),
        reward=rng.normal(size=(steps, envs)).astype(np.float32),
        terminated=terminated,
        truncated=np.zeros_like(terminated),
        valid=valid,
    )


def weights(q: QLearner) -> list[torch.Tensor]:
    return [value.clone() for value in q.module.state_dict().values()]


def same(first: QLearner, second: QLearner) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.mark.parametrize("double", [False, True])
def test_targets_and_loss_are_rllibs_own(double: bool):
    q = learner(double=double, target_update_steps=1000)
    for parameter in q.module.target_head.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    q.add(experience(0))
    minibatches = q._draw(1, None)
    with torch.no_grad():
        target_values = q.module.target_head(minibatches.next_features[0])
        online_values = q.module.q_head(minibatches.next_features[0])
        values = q.module.q_head(minibatches.features[0])
        assert not torch.equal(target_values.argmax(1), online_values.argmax(1)), "the case must tell both apart"
        target = q.td_target(minibatches, 0, target_values)
    logged: dict[str, torch.Tensor] = {}

    class Metrics:
        def log_value(self, **kwargs: Any) -> None: ...

        def log_dict(self, values: dict[str, torch.Tensor], **kwargs: Any) -> None:
            logged.update(values)

    class Config:
        double_q, num_atoms, gamma, td_error_loss_fn, burn_in_len = double, 1, q.settings.gamma, "huber", 0

    class Learner:
        metrics, config = Metrics(), Config()

    ended = (minibatches.discount[0] == 0).squeeze(1)
    batch = {
        Columns.ACTIONS: minibatches.action[0].squeeze(1),
        Columns.REWARDS: minibatches.reward[0].squeeze(1),
        Columns.TERMINATEDS: ended,
        "n_step": torch.ones(len(ended)),
        "weights": torch.ones(len(ended)),
    }
    forward = {"qf_preds": values, "qf_next_preds": online_values, "qf_target_next_preds": target_values}
    theirs = DQNTorchLearner.compute_loss_for_module(Learner(), module_id="m", config=Config(), batch=batch, fwd_out=forward)
    losses: list[torch.Tensor] = []
    q._learn_from(minibatches, losses)
    assert float(losses[0]) == pytest.approx(float(theirs), rel=1e-6)
    error = (values.gather(1, minibatches.action[0]) - target).abs().mean()
    assert float(error) == pytest.approx(float(logged["td_error_mean"]), rel=1e-6)


def test_a_flat_step_is_adams_own_after_clipping_by_the_global_norm():
    q = learner(grad_clip=0.01)
    q.add(experience(0))
    plain = copy.deepcopy(q.module.q_head)
    plain = type(plain)(*(copy.deepcopy(layer) for layer in plain))
    minibatches = q._draw(1, None)
    parameters = [p.detach().clone().requires_grad_() for p in plain.parameters()]
    names = [name for name, _ in plain.named_parameters()]
    with torch.no_grad():
        target = q.td_target(minibatches, 0, q.module.target_head(minibatches.next_features[0]))
    values = torch.func.functional_call(plain, dict(zip(names, parameters, strict=True)), (minibatches.features[0],))
    torch.nn.functional.huber_loss(values.gather(1, minibatches.action[0]), target).backward()
    assert float(torch.nn.utils.clip_grad_norm_(parameters, 0.01)) > 0.01
    torch.optim.Adam(parameters, lr=q.settings.lr).step()
    q._learn_from(minibatches, [])
    for ours, theirs in zip(q.module.q_head.parameters(), parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_loaded_state_reaches_the_flat_parameters():
    network = torch.nn.Linear(2, 2)
    flat = FlatParameters(network)
    network.load_state_dict({"weight": torch.full((2, 2), 3.0), "bias": torch.full((2,), 3.0)})
    assert flat.vector.tolist() == [3.0] * 6


@pytest.mark.parametrize(("tau", "interval"), [(1.0, 7), (0.25, 3), (0.005, 1)])
def test_the_target_network_follows_every_so_many_gradient_steps(tau: float, interval: int):
    # Forty steps a rollout at most: never two gradient steps between two looks.
    q = learner(tau=tau, target_update_steps=interval, updates_per_step=1 / 40)
    expected = q.target.vector.detach().clone()
    for seed in range(40):
        before = q.gradient_updates
        q.add(experience(seed))
        q.learn(0.0)
        if q.gradient_updates > before and q.gradient_updates % interval == 0:
            expected += tau * (q.online.vector.detach() - expected)
        torch.testing.assert_close(q.target.vector.detach(), expected)
    assert q.gradient_updates > 30


def test_fractions_of_a_gradient_step_are_carried_over_and_none_is_taken_before_learning_starts():
    q = learner(updates_per_step=0.03, learning_starts=100)
    taken = []
    for seed in range(10):
        rollout = experience(seed)
        q.add(rollout)
        before = q.gradient_updates
        q.learn(0.0)
        taken.append((q.transitions, q.gradient_updates - before))
    assert [updates for transitions, updates in taken if transitions < 100] == [0, 0]
    late = [transitions for transitions, _ in taken if transitions < 100][-1]
    assert q.gradient_updates == int(0.03 * (q.transitions - late) + 1e-9)


def test_a_dueling_head_is_value_plus_centred_advantage():
    head = DuelingHead(3, (6, 5), 4)
    features = torch.randn(10, 3)
    units = head.trunk(features)
    value, advantage = head.value(units[:, :5]), head.advantage(units[:, 5:])
    q = head(features)
    torch.testing.assert_close(q.mean(dim=1, keepdim=True), value)
    torch.testing.assert_close(q - q.mean(dim=1, keepdim=True), advantage - advantage.mean(dim=1, keepdim=True))


def test_priorities_follow_the_errors_and_weights_make_up_for_them():
    q = learner(prioritised_alpha=0.7, prioritised_beta=0.5, updates_per_step=0.05)
    q.add(experience(0))
    q.learn(0.0)
    minibatches = q._draw(1, 0.5)
    assert minibatches.weight is not None
    assert float(minibatches.weight.max()) == 1.0
    powers = q.priorities._powers.view(-1)[minibatches.indices]
    expected = (powers / powers.min()) ** -0.5
    torch.testing.assert_close(minibatches.weight[0].double(), expected, rtol=1e-5, atol=1e-6)
    before = q.priorities._powers.view(-1)[minibatches.indices].clone()
    values = q.module.q_head(minibatches.features[0]).gather(1, minibatches.action[0])
    target = q.td_target(minibatches, 0, q.module.target_head(minibatches.next_features[0]))
    q._learn_from(minibatches, [])
    after = q.priorities._powers.view(-1)[minibatches.indices]
    error = (values - target).abs().squeeze(1).detach().double()
    torch.testing.assert_close(after, (error + 1e-6) ** 0.7)
    assert not torch.equal(before, after)


def test_epsilon_falls_linearly_by_steps_or_by_a_factor_an_episode():
    linear = EpsilonSchedule(1.0, 0.1, 1000)
    assert [linear.at(steps, 50) for steps in (0, 500, 1000, 9999)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    geometric = EpsilonSchedule(0.8, 0.1, 1000, 0.5)
    assert [geometric.at(10**6, episodes) for episodes in (0, 1, 2, 50)] == pytest.approx([0.8, 0.4, 0.2, 0.1])
    assert EpsilonSchedule(1.0, 0.1, 0).at(0, 0) == pytest.approx(0.1)


@pytest.mark.parametrize("changes", [{}, {"prioritised_alpha": 0.6, "n_step": 3, "dueling": True}, {"tau": 0.01}])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(changes: dict[str, Any]):
    learners = [learner(seed, **changes) for seed in (0, 0, 1)]
    for q in learners:
        for seed in range(4):
            q.add(experience(seed))
            q.learn(seed / 4)
    assert same(learners[0], learners[1])
    assert not same(learners[0], learners[2])


@pytest.mark.parametrize("changes", [{}, {"prioritised_alpha": 0.6, "n_step": 3, "buffer_size": 60}])
def test_saved_restored_and_continued_is_uninterrupted(changes: dict[str, Any]):
    whole, restored = learner(**changes), learner(5, **changes)
    for seed in range(3):
        whole.add(experience(seed))
        whole.learn(seed / 6)
    restored.module.load_state_dict(copy.deepcopy(whole.module.state_dict()))
    restored.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    restored.set_state(copy.deepcopy(whole.get_state()))
    for q in (whole, restored):
        for seed in range(3, 6):
            q.add(experience(seed))
            q.learn(seed / 6)
    assert same(whole, restored)
    assert whole.gradient_updates == restored.gradient_updates


def test_a_loss_that_is_not_finite_ends_training():
    q = learner()
    rollout = experience(0)
    rollout.reward[3] = np.nan
    q.add(rollout)
    with pytest.raises(RunError, match=r"dqn\.lr"):
        q.learn(0.0)


def value_of_constant_reward(
    *, as_termination: bool, n_step: int = 1, same_step: bool = False, finals: bool = True
) -> torch.Tensor:
    """Q-values of a service that pays 1 for ever, seen through episodes cut every 5 steps.

    With `same_step` every sixth step begins an episode, in a state that costs 10 and looks different.
    """
    steps, envs, gamma = 30, 4, 0.8
    ends = np.zeros((steps, envs), bool)
    ends[4::6] = True
    valid = np.ones((steps, envs), bool)
    starts, observation = np.zeros_like(valid), np.zeros((steps + 1, envs, 3), np.float32)
    if same_step:
        starts[5::6] = True
        observation[:-1][starts] = 1.0
        at = np.argwhere(ends)
        columns = {"final_index": at, "final_observation": np.zeros((len(at), 3), np.float32)} if finals else {}
    else:
        valid[5::6] = False
        columns = {}
    nothing = np.zeros((steps, envs), bool)
    q = learner(gamma=gamma, n_step=n_step, updates_per_step=3, lr=5e-3, target_update_steps=10, batch_size=64)
    rng = np.random.default_rng(0)
    for _ in range(2):
        q.add(
            Rollout(
                observation=observation,
                action=rng.integers(0, 4, (steps, envs)),
                reward=np.where(valid, np.where(starts, -10.0, 1.0), -100.0).astype(np.float32),
                **columns,
                terminated=ends if as_termination else nothing,
                truncated=nothing if as_termination else ends,
                valid=valid,
            )
        )
        q.learn(0.0)
    with torch.no_grad():
        return q.module.q_head(q.module.features(torch.zeros((1, 3))))[0]


@pytest.mark.parametrize("same_step", [False, True])
@pytest.mark.parametrize("n_step", [1, 3])
def test_a_truncated_service_is_worth_its_infinite_horizon(n_step: int, same_step: bool):
    values = value_of_constant_reward(as_termination=False, n_step=n_step, same_step=same_step)
    assert values.tolist() == pytest.approx([5.0] * 4, abs=0.05)


@pytest.mark.parametrize("same_step", [False, True])
def test_negative_control_a_terminated_service_is_not(same_step: bool):
    # A fifth of the targets is then 1 alone: the mean of them all would be 2.8, Huber's loss leans to the median.
    assert float(value_of_constant_reward(as_termination=True, same_step=same_step).max()) < 4.5


def test_negative_control_nor_one_that_bootstraps_from_the_next_episodes_beginning():
    assert float(value_of_constant_reward(as_termination=False, same_step=True, finals=False).max()) < 4.5
