"""PPO: RLlib's loss and optimiser, values and advantages as tensors on the learner's device."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPO as RLlibPPO
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_MODULE_STEPS_TRAINED_LIFETIME

from scalepilot.learn.rllib.algorithm import NoHomeFolder, RolloutAlgorithm
from scalepilot.learn.rllib.module import FEATURES, ActorCriticModule
from scalepilot.learn.rllib.rollout import Rollout

_MIN_ADVANTAGE_STD = 1e-4
_MIN_VALUE_SCALE = 1e-3


def generalised_advantages(
    reward: torch.Tensor,
    value: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    valid: torch.Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> torch.Tensor:
    """Advantages of T steps; a truncation bootstraps from its true last observation, a termination from nothing.

    Args:
        reward: (T, num_envs).
        value: (T + 1, num_envs), of the observations before each step and after the last.
        terminated: (T, num_envs) bool.
        truncated: (T, num_envs) bool.
        valid: (T, num_envs) bool; false where the step only reset: its reward and value belong to no transition.
        gamma: discount.
        gae_lambda: λ.

    Returns:
        (T, num_envs), 0 where not valid.

    Source:
        Schulman et al., "High-dimensional continuous control using generalized advantage estimation" (2016), eq. 16.
    """
    bootstrap = gamma * (~terminated).to(value.dtype)
    carry = gamma * gae_lambda * (~(terminated | truncated)).to(value.dtype)
    weight = valid.to(value.dtype)
    delta = (reward + bootstrap * value[1:] - value[:-1]) * weight
    advantage = torch.empty_like(reward)
    last = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        # A reset step carries nothing across: what follows it belongs to the next episode.
        last = (delta[t] + carry[t] * last) * weight[t]
        advantage[t] = last
    return advantage


def without_shared_luck(advantage: torch.Tensor, valid: torch.Tensor, envs_per_input: int) -> torch.Tensor:
    """Subtract from each advantage the mean of the others that met the same traffic at the same time.

    Traffic does not depend on actions, so what a flash crowd costs everybody says nothing about anybody's action. The
    baseline is of the others only, which keeps the policy gradient unbiased.

    Args:
        advantage: (T, num_envs); each `envs_per_input` neighbours share their traffic.
        valid: (T, num_envs) bool.
        envs_per_input: size of a group; 1 changes nothing.

    Returns:
        (T, num_envs), 0 where not valid.

    Source:
        Mao et al., "Variance reduction for reinforcement learning in input-driven environments" (ICLR 2019): baselines
        that depend on the input; here its multi-value form, by leaving one out.
    """
    if envs_per_input == 1:
        return advantage
    grouped = (len(advantage), -1, envs_per_input)
    weight = valid.to(advantage.dtype).reshape(grouped)
    values = advantage.reshape(grouped) * weight
    others = weight.sum(dim=2, keepdim=True) - weight
    baseline = (values.sum(dim=2, keepdim=True) - values) / others.clamp_min(1.0)
    return ((values - baseline) * weight).reshape(advantage.shape)


class RolloutPPOLearner(PPOTorchLearner):
    """PPO's learner over `Rollout`s.

    `config.learner_config_dict`: {"reward_clip": …, "envs_per_input": …}. Rewards are scaled by 1 − γ so that values stay near the size of
    one reward whatever the horizon; advantages are normalised, so the policy does not notice.
    """

    def build(self) -> None:
        """Build, with a stream of its own for shuffling."""
        super().build()
        self._shuffle = torch.Generator(device=self._device).manual_seed(int(self.config.seed or 0))

    @property
    def value_scale(self) -> float:
        """Factor between returns of raw rewards and the values learnt."""
        return max(1.0 - float(self.config.gamma), _MIN_VALUE_SCALE)

    def update(
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, Any] | None = None,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Some epochs of minibatches over the rollouts.

        Args:
            training_data: one rollout (`batch`) or references to several (`batch_refs`), equal in length.
            timesteps: environment steps so far, for the schedules.
            num_epochs: passes.
            minibatch_size: transitions of a gradient step; all if None.
            **kwargs: what else RLlib hands to its own learners; not needed here.
        """
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps or {})
        training_data.validate()
        training_data.solve_refs()
        rollouts = training_data.batches if training_data.batches is not None else [training_data.batch]
        self._weights_seq_no += 1
        columns, raw_features = self._prepare(Rollout.concatenate(rollouts))
        num_rows = len(columns[Columns.ACTIONS])
        size = min(minibatch_size or num_rows, num_rows)
        losses: dict[str, torch.Tensor] = {}
        for _ in range(num_epochs):
            order = torch.randperm(num_rows, generator=self._shuffle, device=self._device)
            shuffled = {name: column[order] for name, column in columns.items()}
            # A last, smaller minibatch would weigh its rows more; it is left out and other rows meet that next epoch.
            for first in range(0, num_rows - size + 1, size):
                minibatch = {name: column[first : first + size] for name, column in shuffled.items()}
                _, losses, _ = self._update({DEFAULT_MODULE_ID: minibatch})
        self._module_of_learner().normaliser.update(raw_features)
        self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), num_epochs * num_rows, reduce="lifetime_sum")
        for module_id, loss in losses.items():
            self.metrics.log_value((module_id, self.TOTAL_LOSS_KEY), loss, window=1)
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()

    def postprocess_gradients_for_module(self, *, module_id: str, config: Any, module_gradients_dict: Any) -> Any:
        """Clip policy and value gradients apart: the value of a rare disaster must not stop the policy from learning."""
        if not config.grad_clip:
            return module_gradients_dict
        # Named parameters come in the order in which the optimiser knows them.
        groups: dict[str, list[torch.Tensor]] = {"policy_head": [], "value_head": []}
        for name, parameter in self._module_of_learner().named_parameters():
            if parameter.grad is not None:
                groups[name.split(".")[0]].append(parameter)
        for parameters in groups.values():
            torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        return {reference: parameter.grad for reference, parameter in self._params.items() if reference in module_gradients_dict}

    def _module_of_learner(self) -> ActorCriticModule:
        module: ActorCriticModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        return module

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Columns (T·num_envs, …) for the loss, and the features before normalisation."""
        module, config, device = self._module_of_learner(), self.config, self._device

        def tensor(name: str) -> torch.Tensor:
            return torch.from_numpy(getattr(rollout, name)).to(device)

        steps, envs = rollout.num_steps, rollout.num_envs
        observation = tensor("observation")
        raw = module.encoder(observation.reshape(-1, *observation.shape[2:]))
        features = module.normaliser(raw)
        value = module.compute_values({FEATURES: features}).reshape(steps + 1, envs)
        valid = tensor("valid")
        clip = float(config.learner_config_dict.get("reward_clip", float("inf")))
        reward = tensor("reward").clamp(-clip, clip) * self.value_scale
        advantage = generalised_advantages(
            reward,
            value,
            tensor("terminated"),
            tensor("truncated"),
            valid,
            gamma=config.gamma,
            gae_lambda=config.lambda_,
        )
        compared = without_shared_luck(advantage, valid, int(config.learner_config_dict.get("envs_per_input", 1)))
        rows = steps * envs
        columns = {
            FEATURES: features[:rows],
            Columns.ACTIONS: tensor("action").reshape(rows),
            Columns.ACTION_LOGP: tensor("action_logp").reshape(rows),
            Columns.ACTION_DIST_INPUTS: tensor("action_dist_inputs").reshape(rows, -1),
            Postprocessing.ADVANTAGES: self._normalised(compared, valid).reshape(rows),
            Postprocessing.VALUE_TARGETS: (advantage + value[:-1]).reshape(rows),
        }
        if not bool(valid.all()):
            # Masked rows weigh nothing but stay: the number of minibatches must not depend on the data.
            columns[Columns.LOSS_MASK] = valid.reshape(rows)
        return columns, raw[:rows][valid.reshape(rows)]

    @staticmethod
    def _normalised(advantage: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Zero mean and unit deviation over the valid rows of all learners."""
        weight = valid.to(advantage.dtype)
        moments = torch.stack([weight.sum(), (advantage * weight).sum(), (advantage.square() * weight).sum()])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(moments)
        count, total, squares = moments
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0.0).sqrt().clamp_min(_MIN_ADVANTAGE_STD)
        normalised: torch.Tensor = (advantage - mean) / std * weight
        return normalised


class StockPPO(NoHomeFolder, RLlibPPO):
    """RLlib's PPO with its own sampling, for comparison."""


class RolloutPPO(RolloutAlgorithm, RLlibPPO):
    """RLlib's PPO, fed with rollouts."""

    def update_arguments(self) -> dict[str, Any]:
        """Epochs and minibatches."""
        return {"num_epochs": self.config.num_epochs, "minibatch_size": self.config.minibatch_size}
