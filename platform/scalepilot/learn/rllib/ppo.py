"""PPO: values and advantages as tensors on the learner's device, then RLlib's update, minibatch by minibatch."""

from __future__ import annotations

import logging
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPO as RLlibPPO
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_MODULE_STEPS_TRAINED_LIFETIME

from scalepilot.learn.rllib.advantages import generalised_advantages, without_shared_luck
from scalepilot.learn.rllib.algorithm import NoHomeFolder, RolloutAlgorithm
from scalepilot.learn.rllib.loss import PPOLoss, ppo_loss
from scalepilot.learn.rllib.module import FEATURES, ActorCriticModule
from scalepilot.learn.rllib.rollout import Rollout

logger = logging.getLogger(__name__)
_MIN_VALUE_SCALE = 1e-3


class RolloutPPOLearner(PPOTorchLearner):
    """PPO's learner over `Rollout`s.

    `config.learner_config_dict`: {"reward_clip": …, "envs_per_input": …}. Rewards are scaled by 1 − γ so that values stay
    near the size of one reward whatever the horizon; advantages are normalised, so the policy does not notice.
    """

    def build(self) -> None:
        """Build, with a stream of its own for shuffling."""
        super().build()
        self._shuffle = torch.Generator(device=self._device).manual_seed(int(self.config.seed or 0))
        self._last_loss: PPOLoss | None = None
        self._skipped_minibatches = 0

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Adam in one fused kernel: on networks this small the stock one spends its time between operations."""
        parameters = self.get_parameters(self._module[module_id])
        optimizer = torch.optim.Adam(parameters, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr)

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
        for _ in range(num_epochs):
            order = torch.randperm(num_rows, generator=self._shuffle, device=self._device)
            # A last, smaller minibatch would weigh its rows more; it is left out and other rows meet that next epoch.
            for first in range(0, num_rows - size + 1, size):
                rows = order[first : first + size]
                self._update({DEFAULT_MODULE_ID: {name: column.index_select(0, rows) for name, column in columns.items()}})
        self._module_of_learner().normaliser.update(raw_features)
        self._log_update(num_epochs * num_rows)
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """RLlib's PPO loss without its distribution objects, its metrics once an update instead of once a minibatch."""
        loss = ppo_loss(
            fwd_out[Columns.ACTION_DIST_INPUTS],
            self._module_of_learner().compute_values(batch),
            batch,
            clip=config.clip_param,
            value_clip=config.vf_clip_param,
            value_coefficient=config.vf_loss_coeff,
            entropy_coefficient=self.entropy_coeff_schedulers_per_module[module_id].get_current_value(),
        )
        self._last_loss = loss
        return loss.total

    def postprocess_gradients(self, gradients_dict: Any) -> Any:
        """Clip policy and value gradients apart: the value of a rare disaster must not stop the policy from learning."""
        module, limit = self._module_of_learner(), self.config.grad_clip or float("inf")
        norms = [torch.nn.utils.clip_grad_norm_(head.parameters(), limit) for head in (module.policy_head, module.value_head)]
        return gradients_dict if all(bool(torch.isfinite(norm)) for norm in norms) else {}

    def apply_gradients(self, gradients_dict: Any) -> None:
        """Step the optimiser; a minibatch whose gradient is not finite is skipped and counted."""
        if not gradients_dict:
            self._skipped_minibatches += 1
            return
        for optimizer in self._named_optimizers.values():
            optimizer.step()

    def _log_update(self, num_rows_trained: int) -> None:
        self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), num_rows_trained, reduce="lifetime_sum")
        if self._skipped_minibatches:
            logger.warning("%d minibatches skipped: their gradients were not finite", self._skipped_minibatches)
            self._skipped_minibatches = 0
        if self._last_loss is not None:
            self.metrics.log_dict(self._last_loss.metrics(), key=DEFAULT_MODULE_ID, window=1)

    def _module_of_learner(self) -> ActorCriticModule:
        module: ActorCriticModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        return module

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Columns (T·num_envs, …) for the loss, and the valid rows' features before normalisation."""
        module, config, device = self._module_of_learner(), self.config, self._device

        def tensor(name: str) -> torch.Tensor:
            return torch.from_numpy(getattr(rollout, name)).to(device)

        steps, envs = rollout.num_steps, rollout.num_envs
        observation = tensor("observation")
        raw = module.encoder(observation.reshape(-1, *observation.shape[2:]))
        features = module.normaliser(raw)
        value = module.compute_values({FEATURES: features}).reshape(steps + 1, envs)
        valid = tensor("valid")
        settings = config.learner_config_dict
        clip = float(settings.get("reward_clip", float("inf")))
        advantage = generalised_advantages(
            tensor("reward").clamp(-clip, clip) * self.value_scale,
            value,
            tensor("terminated"),
            tensor("truncated"),
            valid,
            gamma=config.gamma,
            gae_lambda=config.lambda_,
        )
        compared = without_shared_luck(advantage, valid, int(settings.get("envs_per_input", 1)))
        rows = steps * envs
        columns = {
            FEATURES: features[:rows],
            Columns.ACTIONS: tensor("action").reshape(rows),
            Columns.ACTION_LOGP: tensor("action_logp").reshape(rows),
            Postprocessing.ADVANTAGES: module.advantage_scale.normalise(compared, valid).reshape(rows),
            Postprocessing.VALUE_TARGETS: (advantage + value[:-1]).reshape(rows),
        }
        if bool(valid.all()):
            return columns, raw[:rows]
        # Masked rows weigh nothing but stay: the number of minibatches must not depend on the data.
        columns[Columns.LOSS_MASK] = valid.reshape(rows)
        return columns, raw[:rows][valid.reshape(rows)]


class StockPPO(NoHomeFolder, RLlibPPO):
    """RLlib's PPO with its own sampling, for comparison."""


class RolloutPPO(RolloutAlgorithm, RLlibPPO):
    """RLlib's PPO, fed with rollouts."""

    def update_arguments(self) -> dict[str, Any]:
        """Epochs and minibatches."""
        return {"num_epochs": self.config.num_epochs, "minibatch_size": self.config.minibatch_size}
