"""PPO: values and advantages as tensors on the learner's device, then gradient steps, minibatch by minibatch."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPO as RLlibPPO
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, NUM_MODULE_STEPS_TRAINED_LIFETIME
from ray.rllib.utils.schedules.scheduler import Scheduler

from scalepilot.config import PPOConfig
from scalepilot.files.stop import stop_asked
from scalepilot.learn.encoder import MAX_NORMALISED, valid_of
from scalepilot.learn.reward_scale import RewardScale
from scalepilot.learn.rllib import joint
from scalepilot.learn.rllib.advantages import generalised_advantages, without_shared_luck
from scalepilot.learn.rllib.algorithm import NoHomeFolder, RolloutAlgorithm
from scalepilot.learn.rllib.counterfactuals import advantages_of_all
from scalepilot.learn.rllib.distributions import distribution_of
from scalepilot.learn.rllib.flat_parameters import FlatParameters
from scalepilot.learn.rllib.learner import REWARD_SCALE, JointLearner, clipped_rewards, followed_scale
from scalepilot.learn.rllib.loss import ALL_ADVANTAGES, COUNTS, LOG_PROBABILITY, PPOLoss, ppo_loss, tried_loss
from scalepilot.learn.rllib.module import FEATURES, VALID_ACTIONS, ActorCriticModule
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot.learn.rllib.settings import learning_of

logger = logging.getLogger(__name__)
_MIN_VALUE_SCALE = 1e-3
_IMAGES_AT_ONCE = 1024
# As in torch's clip_grad_norm_.
_CLIP_EPSILON = 1e-6


class RolloutPPOLearner(JointLearner, PPOTorchLearner):
    """PPO's learner over `Rollout`s.

    Rewards are scaled by 1 − γ so that values stay near the size of one reward whatever the horizon; advantages are normalised,
    so the policy does not notice.
    """

    own_state_name = "shuffle"

    def build(self) -> None:
        """Build, with a stream of its own for shuffling."""
        super().build()
        self._shuffle = torch.Generator(device=self._device).manual_seed(int(self.config.seed or 0))
        self._last_loss: PPOLoss | None = None
        # Columns of the states in which every action was tried; empty where none was.
        self._tried: dict[str, torch.Tensor] = {}
        # Among the results: shares of what was cut on the way from a rollout to a gradient step.
        self._cut: dict[str, float] = {}
        self._value_cut: list[torch.Tensor] = []
        self._grad_cut: list[torch.Tensor] = []
        self._skipped_minibatches = 0
        ppo = self._ppo = learning_of(self.config, PPOConfig)
        self._reward_scale = RewardScale(ppo.reward_scale)
        schedule = [[0, ppo.clip], [ppo.env_steps, ppo.clip * ppo.clip_final_share]]
        self._clip_schedule = Scheduler(schedule, framework="torch")
        self._clip, self._policy_waits = ppo.clip, False
        self._distribution = distribution_of(self._module_of_learner().action_space)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Adam over one vector a head: on networks this small, time goes into the number of operations."""
        module = self.module[module_id].unwrapped()
        self._heads = [FlatParameters(torch.nn.ParameterList(group)) for group in module.gradient_groups()]
        vectors = [head.vector for head in self._heads]
        optimizer = torch.optim.Adam(vectors, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=vectors, lr_or_lr_schedule=config.lr)

    def own_state(self) -> Any:
        """The stream of shuffles and the scale of rewards."""
        return {"shuffle": self._shuffle.get_state().numpy(), "reward_scale": self._reward_scale.get_state()}

    def set_own_state(self, state: Any) -> None:
        """What `own_state` gave; runs from before rewards had a scale stored the stream alone."""
        if isinstance(state, dict):
            self._reward_scale.set_state(state["reward_scale"])
            state = state["shuffle"]
        else:
            self._reward_scale.stay()
        self._shuffle.set_state(torch.from_numpy(state.copy()))

    @property
    def value_scale(self) -> float:
        """Factor between returns of raw rewards and the values learnt; 1 where values help to shape the policy's features."""
        if self._module_of_learner().learns_features:
            return 1.0
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
            training_data: see `collect`; as many transitions at each learner.
            timesteps: environment steps so far, for the schedules.
            num_epochs: passes.
            minibatch_size: this learner's transitions of a gradient step; all if None.
            **kwargs: what else RLlib hands to its own learners; not needed here.
        """
        self._check_is_built()
        rollout = self.collect(training_data)
        self.before_gradient_based_update(timesteps=timesteps or {})
        self._weights_seq_no += 1
        columns, raw_features = self._prepare(rollout)
        tried = self._tried
        num_rows = len(columns[Columns.ACTIONS])
        size = min(minibatch_size or num_rows, num_rows)
        tried_size = len(tried[COUNTS]) // (num_rows // size) if tried else 0
        self._follow_schedules((timesteps or {}).get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0), num_rows)
        epochs = 0
        while epochs < num_epochs:
            epochs += 1
            divergences: list[torch.Tensor] = []
            order = torch.randperm(num_rows, generator=self._shuffle, device=self._device)
            shuffled = {name: column.index_select(0, order) for name, column in columns.items()}
            if tried:
                order = torch.randperm(len(tried[COUNTS]), generator=self._shuffle, device=self._device)
                tried = {name: column.index_select(0, order) for name, column in tried.items()}
            # A last, smaller minibatch would weigh its rows more; it is left out and other rows meet that next epoch.
            for first in range(0, num_rows - size + 1, size):
                if epochs > 1 and stop_asked():
                    # Fewer passes, as where the divergence ends them: what was learnt is whole.
                    break
                at = first // size * tried_size
                self._learn_from(
                    {name: column[first : first + size] for name, column in shuffled.items()},
                    {name: column[at : at + tried_size] for name, column in tried.items()},
                )
                if self._ppo.target_kl is not None and self._last_loss is not None:
                    divergences.append(self._last_loss.kl())
            if epochs > 1 and stop_asked():
                break
            if self._ppo.target_kl is not None and joint.mean(torch.stack(divergences).mean()) > self._ppo.target_kl:
                break
        self._module_of_learner().normaliser.update(raw_features)
        self._log_update(epochs, num_rows)
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()

    def _loss(self, minibatch: dict[str, torch.Tensor], tried: dict[str, torch.Tensor]) -> PPOLoss:
        """Of the actions taken, or of all that were tried."""
        module, config = self._module_of_learner(), self.config
        weights = {
            "value_clip": config.vf_clip_param,
            "value_coefficient": config.vf_loss_coeff,
            "entropy_coefficient": self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].get_current_value(),
        }
        if tried:
            inputs = module._forward_train(tried)[Columns.ACTION_DIST_INPUTS]
            temperature = self._ppo.counterfactual_temperature
            return tried_loss(inputs, module.compute_values(minibatch), minibatch, tried, temperature=temperature, **weights)
        outputs = module._forward_train(minibatch)
        return ppo_loss(
            outputs[Columns.ACTION_DIST_INPUTS],
            module.compute_values(minibatch, outputs[Columns.EMBEDDINGS]),
            minibatch,
            self._distribution,
            clip=self._clip,
            **weights,
        )

    def _learn_from(self, minibatch: dict[str, torch.Tensor], tried: dict[str, torch.Tensor]) -> None:
        """One gradient step. RLlib's own would spend half its time around the gradient.

        Policy and value gradients are clipped apart, unless they share an encoder: the value of a rare disaster must not stop
        the policy from learning. A minibatch whose gradient is not finite is skipped and counted.
        """
        config, loss = self.config, self._loss(minibatch, tried)
        for head in self._heads:
            head.gradient.zero_()
        loss.total.backward()  # type: ignore[no-untyped-call]
        self._last_loss = loss
        # Each row that counts weighs the same, whichever learner has it.
        mask, surrogate = loss.mask, loss.surrogate
        counted = surrogate.new_tensor(len(surrogate)) if mask is None else mask.sum()
        joint.weighted_mean([head.gradient for head in self._heads], counted)
        if self._policy_waits:
            # Adam leaves a vector as it is whose gradients have all been zero.
            self._heads[0].gradient.zero_()
        norms = [torch.linalg.vector_norm(head.gradient) for head in self._heads]
        if not all(bool(torch.isfinite(norm)) for norm in norms):
            self._skipped_minibatches += 1
            return
        self._value_cut.append((loss.value_error.detach() >= config.vf_clip_param).float().mean())
        if config.grad_clip:
            self._grad_cut.append(torch.stack(norms).gt(config.grad_clip).float().mean())
            for head, norm in zip(self._heads, norms, strict=True):
                head.gradient.mul_((config.grad_clip / (norm + _CLIP_EPSILON)).clamp_(max=1.0))
        for optimizer in self._named_optimizers.values():
            optimizer.step()

    def _follow_schedules(self, env_steps: int, num_rows: int) -> None:
        """Set clip and entropy weight to where they stood before this rollout: RLlib sets them after, and forgets on resuming."""
        before = max(0, env_steps - num_rows * max(1, self.config.num_learners))
        self._policy_waits = before < self._ppo.policy_waits_share * self._ppo.env_steps and len(self._heads) > 1
        self._clip = float(self._clip_schedule.update(timestep=before))
        self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].update(timestep=before)

    def _log_update(self, epochs: int, num_rows: int) -> None:
        self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), epochs * num_rows, reduce="lifetime_sum")
        if self._skipped_minibatches:
            logger.warning("%d minibatches skipped: their gradients were not finite", self._skipped_minibatches)
            self._skipped_minibatches = 0
        if self._last_loss is not None:
            cut = {name: float(torch.stack(shares).mean()) for name, shares in self._shares_cut().items() if shares}
            logged = {**self._last_loss.metrics(), "clip": self._clip, "epochs": float(epochs), **self._cut, **cut}
            self.metrics.log_dict(logged, key=DEFAULT_MODULE_ID, window=1)

    def _shares_cut(self) -> dict[str, list[torch.Tensor]]:
        taken = {"value_clipped_share": self._value_cut, "grad_clipped_share": self._grad_cut}
        self._value_cut, self._grad_cut = [], []
        return taken

    def _module_of_learner(self) -> ActorCriticModule:
        module: ActorCriticModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        return module

    def _values(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(n,) values, some rows at a time: activations of many images would not fit."""
        ((name, rows),) = inputs.items()
        size = _IMAGES_AT_ONCE if self._module_of_learner().learns_features else max(1, len(rows))
        return torch.cat([self._module_of_learner().compute_values({name: part}) for part in torch.split(rows, size)])

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Columns (T·num_envs, …) for the loss, and the valid rows' features before normalisation (images as they are)."""
        module, config, device = self._module_of_learner(), self.config, self._device

        def tensor(name: str) -> torch.Tensor:
            column = torch.from_numpy(getattr(rollout, name))
            # From pinned memory the copy to a GPU goes on beside what follows.
            return column.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else column.to(device)

        steps, envs = rollout.num_steps, rollout.num_envs
        observation = tensor("observation")
        observation = observation.reshape(-1, *observation.shape[2:])
        if module.learns_features:
            raw, inputs = observation, {Columns.OBS: observation}
        else:
            raw = module.encoder(observation)
            inputs = {FEATURES: module.normaliser(raw)}
        value = self._values(inputs).reshape(steps + 1, envs)
        next_value = value[1:].clone()
        if len(rollout.final_index):
            at, last = tensor("final_index"), tensor("final_observation")
            next_value[at[:, 0], at[:, 1]] = self._values({Columns.OBS: last})
        valid = tensor("valid")
        clip = math.inf if self._ppo.reward_clip is None else self._ppo.reward_clip
        reward, self._cut = clipped_rewards(tensor("reward"), valid, clip)
        scale = followed_scale(self._reward_scale, reward, valid)
        self._cut[REWARD_SCALE] = scale
        if not module.learns_features:
            self._cut["features_clamped_share"] = float((inputs[FEATURES].abs() >= MAX_NORMALISED).float().mean())
        advantage = generalised_advantages(
            (reward if scale == 1.0 else reward / scale) * self.value_scale,
            value[:-1],
            next_value,
            tensor("terminated"),
            tensor("truncated"),
            valid,
            gamma=config.gamma,
            gae_lambda=config.lambda_,
        )
        self._tried = self._compare_actions(rollout, inputs, valid, scale) if rollout.tried_at is not None else {}
        rows = steps * envs
        if module.num_masked:
            inputs[VALID_ACTIONS] = valid_of(observation, module.num_masked)
        columns = {
            **{name: column[:rows] for name, column in inputs.items()},
            Columns.ACTIONS: tensor("action").flatten(0, 1),
            Columns.ACTION_LOGP: tensor("action_logp").reshape(rows),
            Postprocessing.VALUE_TARGETS: (advantage + value[:-1]).reshape(rows),
        }
        if not self._tried:
            compared = without_shared_luck(advantage, valid, self._ppo.envs_per_input)
            columns[Postprocessing.ADVANTAGES] = module.advantage_scale.normalise(compared, valid).reshape(rows)
        if bool(valid.all()):
            return columns, raw[:rows]
        # Masked rows weigh nothing but stay: the number of minibatches must not depend on the data.
        columns[Columns.LOSS_MASK] = valid.reshape(rows)
        return columns, raw[:rows][valid.reshape(rows)]

    def _compare_actions(
        self, rollout: Rollout, inputs: dict[str, torch.Tensor], valid: torch.Tensor, scale: float
    ) -> dict[str, torch.Tensor]:
        """Columns (F·num_envs, …) of the states in which every action was tried."""
        module, device = self._module_of_learner(), self._device
        assert rollout.tried_reward is not None
        assert rollout.tried_discount is not None
        assert rollout.tried_observation is not None
        assert rollout.action_dist_inputs is not None
        num_actions = rollout.tried_reward.shape[2]
        reward, discount, last = (
            torch.from_numpy(column).to(device)
            for column in (rollout.tried_reward, rollout.tried_discount, rollout.tried_observation)
        )
        value = self._values({Columns.OBS: last.reshape(-1, *last.shape[3:])}).reshape(discount.shape)
        action_value = (reward * (self.value_scale / scale) + discount * value).reshape(-1, num_actions)
        at = torch.from_numpy(rollout.tried_at).to(device)
        logits = torch.from_numpy(rollout.action_dist_inputs).to(device)[at].reshape(-1, num_actions)
        log_probability, counts = torch.log_softmax(logits, dim=-1), valid[at].reshape(-1)
        advantage = advantages_of_all(log_probability, action_value)
        deviation = module.advantage_scale.follow((log_probability.exp() * advantage.square()).sum(dim=-1), counts)
        rows = (at[:, None] * rollout.num_envs + torch.arange(rollout.num_envs, device=device)).reshape(-1)
        return {
            **{name: column.index_select(0, rows) for name, column in inputs.items()},
            ALL_ADVANTAGES: advantage / deviation,
            LOG_PROBABILITY: log_probability,
            COUNTS: counts,
        }


class StockPPO(NoHomeFolder, RLlibPPO):
    """RLlib's PPO with its own sampling, for comparison."""


class RolloutPPO(RolloutAlgorithm, RLlibPPO):
    """RLlib's PPO, fed with rollouts."""

    def update_arguments(self) -> dict[str, Any]:
        """Epochs and minibatches."""
        return {"num_epochs": self.config.num_epochs, "minibatch_size": self.config.minibatch_size}
