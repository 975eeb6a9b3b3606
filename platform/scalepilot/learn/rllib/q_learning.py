"""Deep Q-learning on a replay ring: a lean loop of gradient steps, everything on one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.nn.functional import huber_loss

from scalepilot.config import DQNConfig
from scalepilot.errors import RunError
from scalepilot.files.stop import stop_asked
from scalepilot.learn.encoder import masked, valid_of
from scalepilot.learn.reward_scale import RewardScale
from scalepilot.learn.rllib import joint
from scalepilot.learn.rllib.flat_parameters import FlatParameters
from scalepilot.learn.rllib.learner import REWARD_SCALE, followed_scale
from scalepilot.learn.rllib.q_module import QModule
from scalepilot.learn.rllib.replay import Priorities, ReplayRing
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot.learn.rllib.transitions import NStepBuilder

# Minibatches are gathered many at a time, up to so many bytes of observations.
_GATHER_BYTES = 32 * 1024**2


class _Minibatches(NamedTuple):
    """Several minibatches: (count, batch_size, …)."""

    features: torch.Tensor
    next_features: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    discount: torch.Tensor
    weight: torch.Tensor | None
    indices: torch.Tensor
    # (count, batch_size, num_actions) actions that are valid next; None where the environment says nothing of them.
    next_valid: torch.Tensor | None


class QLearner:
    """Q-learning's whole state beside the network: replay, target, optimiser, counters, random stream.

    With several learners each has its own part of the replay and of every minibatch; gradients are averaged, and what decides
    how many steps are taken is counted over all of them.

    Args:
        module: the network; trained in place.
        settings: the experiment's hyperparameters, of all learners together.
        device: of the module.
        seed: of the draws from replay.

    Source:
        Mnih et al. 2015 (replay, target network); van Hasselt et al. 2016 (double).
    """

    def __init__(self, module: QModule, settings: DQNConfig, device: torch.device, seed: int) -> None:
        self.module, self.settings, self.device = module, settings, device
        self.online, self.target = FlatParameters(module.q_head), FlatParameters(module.target_head)
        self.optimizer = torch.optim.Adam([self.online.vector], lr=settings.lr, fused=True)
        learners = joint.num_learners()
        self.batch_size, capacity = settings.batch_size // learners, settings.buffer_size // learners
        self.ring = ReplayRing(capacity, device)
        self.priorities = Priorities(capacity, settings.prioritised_alpha, device)
        self.builder = NStepBuilder(settings.n_step, settings.gamma, settings.reward_clip, device)
        # The ring keeps rewards as they are; they are scaled as they are drawn.
        self.reward_scale = RewardScale(settings.reward_scale)
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.transitions = self.gradient_updates = 0
        self._owed_updates = 0.0
        # Transitions that a resumption without the ring has lost.
        self._forgotten = 0

    def add(self, rollout: Rollout) -> None:
        """Remember a rollout's transitions and owe the gradient steps for them."""
        transitions = self.builder(rollout)
        reward = torch.from_numpy(rollout.reward).to(self.device).clamp(-self.builder.reward_clip, self.builder.reward_clip)
        followed_scale(self.reward_scale, reward, torch.from_numpy(rollout.valid).to(self.device))
        count = joint.total(len(transitions.reward), self.device)
        if not count:
            return
        self.module.normaliser.update(self.module.encoder(transitions.observation))
        if len(transitions.reward):
            indices = self.ring.add(transitions)
            if self.settings.prioritised_alpha > 0:
                self.priorities.add(indices)
        self.transitions += count
        if self.transitions - self._forgotten >= self.settings.learning_starts:
            self._owed_updates += self.settings.updates_per_step * count

    def learn(self, budget_share: float) -> dict[str, float]:
        """Take the gradient steps that are owed; a fraction of one is carried over.

        Args:
            budget_share: of the training budget used so far, for the priorities' weights.

        Returns:
            q_loss (mean of the steps), q_mean (of the last minibatch), gradient_updates; empty when none was due.

        Raises:
            RunError: the loss is no longer finite.
        """
        count = int(self._owed_updates)
        if not count or joint.total(self.ring.size == 0, self.device):
            return {}
        self._owed_updates -= count
        settings = self.settings
        prioritised = settings.prioritised_alpha > 0
        beta = settings.prioritised_beta + (1.0 - settings.prioritised_beta) * min(1.0, budget_share)
        losses: list[torch.Tensor] = []
        last_q_mean = torch.zeros(())
        while count:
            if losses and stop_asked():
                # Those left are owed.
                self._owed_updates += count
                break
            # Priorities change with each step, so the next minibatch is drawn after it.
            gathered = 1 if prioritised else min(count, self._gathered_at_once())
            minibatches = self._draw(gathered, beta if prioritised else None)
            last_q_mean = self._learn_from(minibatches, losses)
            count -= gathered
        loss, q_mean = joint.mean(torch.stack([torch.stack(losses).mean(), last_q_mean])).tolist()
        if loss != loss or loss == float("inf"):
            raise RunError("training has diverged: the loss is not finite; a smaller dqn.lr may help")
        return {"q_loss": loss, "q_mean": q_mean * self.reward_scale.scale, "gradient_updates": float(self.gradient_updates)}

    def said(self) -> dict[str, float]:
        """What was done to the last rollout's rewards."""
        return {**self.builder.cut, REWARD_SCALE: self.reward_scale.scale}

    def _gathered_at_once(self) -> int:
        columns = self.ring.columns
        assert columns is not None
        size = columns.observation[0].numel() * columns.observation.element_size()
        return max(1, _GATHER_BYTES // (size * self.batch_size))

    @torch.no_grad()
    def _draw(self, count: int, beta: float | None) -> _Minibatches:
        """Minibatches, uniform if `beta` is None, else by priority and with weights to the power of β that make up for it."""
        size = self.batch_size
        weight = None
        if beta is None:
            indices = torch.randint(self.ring.size, (count * size,), generator=self.generator, device=self.device)
        else:
            indices, probability = self.priorities.draw(size, self.ring.size, self.generator)
            weight = (probability * self.ring.size).pow(-beta)
            weight = (weight / joint.largest(weight.max())).float().reshape(count, size)
        drawn, shape, scale = self.ring[indices], (count, size), self.reward_scale.scale
        num_masked = self.module.num_masked
        next_valid = valid_of(drawn.next_observation, num_masked).reshape(*shape, -1) if num_masked else None
        return _Minibatches(
            self.module.features(drawn.observation).reshape(*shape, -1),
            self.module.features(drawn.next_observation).reshape(*shape, -1),
            drawn.action.reshape(*shape, 1),
            (drawn.reward if scale == 1.0 else drawn.reward / scale).reshape(*shape, 1),
            drawn.discount.reshape(*shape, 1),
            weight,
            indices,
            next_valid,
        )

    def _learn_from(self, minibatches: _Minibatches, losses: list[torch.Tensor]) -> torch.Tensor:
        """One gradient step a minibatch; returns the mean Q-value of the last."""
        interval = self.settings.target_update_steps
        count, first = len(minibatches.reward), 0
        q_value = minibatches.reward
        while first < count:
            # Until the target network changes, it values all minibatches at once.
            end = min(count, first + interval - self.gradient_updates % interval)
            with torch.no_grad():
                next_values = self.module.target_head(minibatches.next_features[first:end])
            for i in range(first, end):
                with torch.no_grad():
                    target = self.td_target(minibatches, i, next_values[i - first])
                q_value = self.module.q_head(minibatches.features[i]).gather(1, minibatches.action[i])
                losses.append(self._step(q_value, target, minibatches, i))
            self.gradient_updates += end - first
            if self.gradient_updates % interval == 0:
                self.target.vector.data.lerp_(self.online.vector.data, self.settings.tau)
            first = end
        return q_value.detach().mean()

    def td_target(self, minibatches: _Minibatches, i: int, next_values: torch.Tensor) -> torch.Tensor:
        """(batch_size, 1) r + γⁿ · Q_target(s', a'), where the online network chooses a' if double, else the target network."""
        valid = None if minibatches.next_valid is None else minibatches.next_valid[i]
        if valid is not None:
            next_values = masked(next_values, valid)
        if self.settings.double:
            scores = self.module.q_head(minibatches.next_features[i])
            chosen = (scores if valid is None else masked(scores, valid)).argmax(dim=1, keepdim=True)
            value = next_values.gather(1, chosen)
        else:
            value = next_values.amax(dim=1, keepdim=True)
        return torch.addcmul(minibatches.reward[i], minibatches.discount[i], value)

    def _step(self, q_value: torch.Tensor, target: torch.Tensor, minibatches: _Minibatches, i: int) -> torch.Tensor:
        """One step down the Huber loss; returns it."""
        weight = minibatches.weight
        if weight is None:
            loss = huber_loss(q_value, target)
        else:
            loss = (huber_loss(q_value, target, reduction="none").squeeze(1) * weight[i]).mean()
            self.priorities.update(minibatches.indices, (q_value.detach() - target).abs().squeeze(1))
        gradient = self.online.gradient
        gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        joint.mean(gradient)
        gradient.mul_((self.settings.grad_clip / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp_(max=1.0))
        self.optimizer.step()
        return loss.detach()

    def get_state(self) -> dict[str, Any]:
        """All but the module and the optimiser, as arrays and numbers; the ring is most of it (see `ReplayRing`)."""
        state: dict[str, Any] = {
            "generator": self.generator.get_state().numpy(),
            "transitions": self.transitions,
            "forgotten": self._forgotten,
            "gradient_updates": self.gradient_updates,
            "owed_updates": self._owed_updates,
            "reward_scale": self.reward_scale.get_state(),
        }
        if self.settings.save_replay:
            state["ring"], state["builder"] = self.ring.get_state(), self.builder.get_state()
            if self.settings.prioritised_alpha > 0:
                state["priorities"] = self.priorities.get_state()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """What `get_state` gave; without the ring nothing is learnt until `learning_starts` transitions are in it again."""
        self.generator.set_state(torch.from_numpy(state["generator"].copy()))
        self.transitions, self.gradient_updates = int(state["transitions"]), int(state["gradient_updates"])
        self._owed_updates, self._forgotten = float(state["owed_updates"]), int(state["forgotten"])
        if "reward_scale" in state:
            self.reward_scale.set_state(state["reward_scale"])
        else:
            self.reward_scale.stay()
        if "ring" not in state:
            self._forgotten = self.transitions
            return
        self.ring.set_state(state["ring"])
        self.builder.set_state(state["builder"])
        if "priorities" in state:
            self.priorities.set_state(state["priorities"])
