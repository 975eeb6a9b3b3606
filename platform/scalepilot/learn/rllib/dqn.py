"""RLlib's DQN, fed with rollouts: its learner owns the replay ring, on its own device."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.dqn import DQN as RLlibDQN
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
)

from scalepilot.config import DQNConfig
from scalepilot.learn.rllib.algorithm import RolloutAlgorithm
from scalepilot.learn.rllib.exploration import EpsilonSchedule
from scalepilot.learn.rllib.learner import JointLearner
from scalepilot.learn.rllib.q_learning import QLearner
from scalepilot.learn.rllib.settings import learning_of

EPSILON = "epsilon"


class RolloutDQNLearner(JointLearner, DQNTorchLearner):
    """DQN's learner over `Rollout`s.

    RLlib's update takes one ready minibatch and spends most of its time around the gradient; this one takes experience and
    does all gradient steps that are due for it.
    """

    own_state_name = "replay"
    q: QLearner

    @classmethod
    def rl_module_required_apis(cls) -> list[type]:
        """None of RLlib's: the target network belongs to `QModule` and is updated by `QLearner`."""
        return []

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Adam over the Q-network as one vector."""
        module = self.module[module_id].unwrapped()
        self.q = QLearner(module, learning_of(self.config, DQNConfig), self._device, int(self.config.seed or 0))
        self.register_optimizer(
            module_id=module_id, optimizer=self.q.optimizer, params=[self.q.online.vector], lr_or_lr_schedule=config.lr
        )

    def update(self, *, training_data: TrainingData, timesteps: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Remember the rollouts, then take the gradient steps due.

        Args:
            training_data: see `collect`.
            timesteps: environment steps so far.
            **kwargs: what else RLlib hands to its own learners; not needed here.
        """
        self._check_is_built()
        rollout, timesteps = self.collect(training_data), timesteps or {}
        self.before_gradient_based_update(timesteps=timesteps)
        self._weights_seq_no += 1
        self.q.add(rollout)
        before = self.q.gradient_updates
        metrics = self.q.learn(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0) / self.q.settings.total_env_steps)
        trained = (self.q.gradient_updates - before) * self.q.batch_size
        self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), trained, reduce="lifetime_sum")
        self.metrics.log_dict({**metrics, **self.q.said()}, key=DEFAULT_MODULE_ID, window=1)
        self.after_gradient_based_update(timesteps=timesteps)
        return self.metrics.reduce()

    def own_state(self) -> Any:
        """The replay ring, the random stream and all counters."""
        return self.q.get_state()

    def set_own_state(self, state: Any) -> None:
        """What `own_state` gave."""
        self.q.set_state(state)


class RolloutDQN(RolloutAlgorithm, RLlibDQN):
    """RLlib's DQN, fed with rollouts."""

    def sample_arguments(self) -> dict[str, Any]:
        """ε by the steps and episodes sampled so far; it stays for one rollout."""
        settings = learning_of(self.config, DQNConfig)
        schedule = EpsilonSchedule(
            settings.epsilon_start,
            settings.epsilon_end,
            settings.epsilon_decay_share * settings.total_env_steps,
            settings.epsilon_decay_per_episode,
        )
        epsilon = schedule.at(
            self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0),
            self.metrics.peek((ENV_RUNNER_RESULTS, NUM_EPISODES_LIFETIME), default=0),
        )
        self.metrics.log_value(EPSILON, epsilon, window=1)
        return {EPSILON: epsilon}
