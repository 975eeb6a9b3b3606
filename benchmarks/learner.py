"""What PPO's learner costs beside a bare torch loop that does the same: same networks, loss, minibatches of 2,048 and epochs.

The bare loop is what a person would write without a framework: `torch.nn.Tanh`, `torch.optim.Adam`, one gather a minibatch,
`clip_grad_norm_` on policy and value. It starts from ready columns; ours starts from a rollout, so that encoding, values,
advantages and the normaliser are in its time. Both alternate on one rollout of CartPole (512 environments, 32 steps), in one
process, on the machine's default number of threads. The parts that the bare loop does not have are timed apart.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.train_ppo_cartpole import EPOCHS, config
from benchmarks.train_ppo_large import OURS
from scalepilot.cluster.connection import connected
from scalepilot.config.running import ResourcesConfig

ROUNDS, WARM_UP = 40, 5
NUM_FEATURES, NUM_ACTIONS, HIDDEN = 4, 2, 64


class BareLoop:
    """PPO's gradient steps in plain torch."""

    def __init__(self) -> None:
        import torch
        from torch import nn

        def network(outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(NUM_FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs)
            )

        self.policy, self.value = network(NUM_ACTIONS), network(1)
        self.optimizer = torch.optim.Adam([*self.policy.parameters(), *self.value.parameters()], lr=3e-4)

    def update(self, columns: dict[str, Any]) -> None:
        """Four epochs of minibatches over the columns."""
        import torch

        size = OURS.minibatch_size
        for _ in range(EPOCHS):
            order = torch.randperm(OURS.size)
            for first in range(0, OURS.size, size):
                rows = order[first : first + size]
                self.step({name: column[rows] for name, column in columns.items()})

    def step(self, batch: dict[str, Any]) -> None:
        """One gradient step."""
        import torch

        log_probabilities = torch.log_softmax(self.policy(batch["features"]), dim=-1)
        log_probability = log_probabilities.gather(1, batch["action"][:, None]).squeeze(1)
        ratio = (log_probability - batch["action_logp"]).exp()
        advantage = batch["advantage"]
        surrogate = torch.minimum(advantage * ratio, advantage * ratio.clamp(0.8, 1.2))
        entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=-1)
        value_error = (self.value(batch["features"]).squeeze(-1) - batch["value_target"]).square().clamp(max=1e6)
        loss = ((0.5 * value_error - surrogate - 0.005 * entropy) * batch["valid"]).sum() / batch["valid"].sum()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 0.5)
        torch.nn.utils.clip_grad_norm_(self.value.parameters(), 0.5)
        self.optimizer.step()


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Seconds an update, and the ratio of the medians."""
    import torch
    from ray.rllib.core.learner.training_data import TrainingData

    from scalepilot.learn.rllib.trainer import RLlibTrainer
    from scalepilot.learn.task import Task

    experiment = config("rllib", OURS, 0)
    with connected(ResourcesConfig()):
        trainer = RLlibTrainer(experiment, Task(experiment))
        try:
            algorithm = trainer.algorithm
            learner = algorithm.learner_group._learner
            assert learner is not None
            rollout: Any = algorithm.env_runner_group.local_env_runner.sample()
            shape = (OURS.size,)
            columns = {
                "features": torch.from_numpy(rollout.observation[:-1].reshape(OURS.size, -1)).clone(),
                "action": torch.from_numpy(rollout.action.reshape(shape)),
                "action_logp": torch.from_numpy(rollout.action_logp.reshape(shape)),
                "advantage": torch.randn(shape),
                "value_target": torch.randn(shape),
                "valid": torch.from_numpy(rollout.valid.reshape(shape)).float(),
            }
            bare = BareLoop()
            times: dict[str, list[float]] = {"ours": [], "bare": [], "preparation": []}

            def timed(name: str, function: Any, *args: Any, **kwargs: Any) -> None:
                began = time.perf_counter()
                function(*args, **kwargs)
                times[name].append(time.perf_counter() - began)

            data = TrainingData(batch=rollout)
            update = {"num_epochs": EPOCHS, "minibatch_size": OURS.minibatch_size, "timesteps": {}}
            for _ in range(ROUNDS + WARM_UP):
                timed("ours", learner.update, training_data=data, **update)
                timed("bare", bare.update, columns)
                timed("preparation", learner._prepare, rollout)
        finally:
            trainer.close()
    medians = {name: statistics.median(measured[WARM_UP:]) for name, measured in times.items()}
    figures = {f"{name}_seconds": value for name, value in medians.items()}
    figures["env_steps_per_second_of_learning"] = OURS.size / medians["ours"]
    return figures, {"vs_bare_torch": medians["ours"] / medians["bare"]}
