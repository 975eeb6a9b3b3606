"""RLlib's algorithms as a `Trainer`, batch-native or stock."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.exceptions import RayActorError
from ray.rllib.core import DEFAULT_MODULE_ID

from scalepilot.config import ExperimentConfig
from scalepilot.errors import LearnerLostError
from scalepilot.learn.initial_weights import REWARD_SCALE as REWARD_SCALE_OF_POLICY
from scalepilot.learn.initial_weights import completed
from scalepilot.learn.network_snapshot import NetworkSnapshot
from scalepilot.learn.rllib.algorithm import PUT_SECONDS, RolloutAlgorithm
from scalepilot.learn.rllib.configs import algorithm_config
from scalepilot.learn.rllib.env_runner import EPISODE_COUNT, EPISODE_SUMS
from scalepilot.learn.rllib.learner import FETCH_SECONDS, LARGEST_REWARD, REWARD_SCALE, REWARDS_CLIPPED
from scalepilot.learn.rllib.module import ActorCriticModule
from scalepilot.learn.rllib.q_module import QModule
from scalepilot.learn.task import Task
from scalepilot.runs.metrics import episode_column
from scalepilot.simulate.env_notes import EnvNotes

# RLlib's result key → ours.
_LEARNER_METRICS = {
    "policy_loss": "policy_loss",
    "vf_loss": "value_loss",
    "vf_explained_var": "explained_variance",
    "entropy": "entropy",
    "mean_kl_loss": "kl",
    "clip": "clip",
    "epochs": "epochs",
    "q_loss": "q_loss",
    "q_mean": "q_mean",
    "gradient_updates": "gradient_updates",
    "value_clipped_share": "value_clipped_share",
    "grad_clipped_share": "grad_clipped_share",
    "features_clamped_share": "features_clamped_share",
    REWARD_SCALE: "reward_scale",
    "default_optimizer_learning_rate": "learning_rate",
}
_ALGORITHM_METRICS = {name: name for name in ("epsilon", "env_runner_restarts", "lost_rollouts")}
_RUNNER_METRICS = {
    "env_failures": "env_failures",
    "episode_return_mean": "episode_return_mean",
    "episode_len_mean": "episode_length_mean",
}
# In a checkpoint of several learners: what each has of its own.
_EACH_LEARNER = "each_learner.pkl"
_TIMERS = {
    "env_runner_sampling_timer": "sample_seconds",
    "learner_update_timer": "learn_seconds",
    "synch_weights": "sync_seconds",
}


@contextlib.contextmanager
def _learners_alive() -> Iterator[None]:
    """Say in the loop's words that a learner died."""
    try:
        yield
    except RayActorError as error:
        raise LearnerLostError(f"a learner died ({str(error).splitlines()[0]})") from None


def _episodes_of(runners: Mapping[str, Any]) -> dict[str, float]:
    """Means over the episodes that ended in an iteration; empty when none did."""
    sums = runners.get(EPISODE_SUMS, {})
    count = float(sums.get(EPISODE_COUNT, 0.0))
    if not count > 0:
        return {}
    return {episode_column(name): float(total) / count for name, total in sums.items() if name != EPISODE_COUNT}


# Of the normaliser; so many transitions that those to come hardly count.
_COUNT, _KNOWN_WELL = "normaliser.count", 10**12


class RLlibTrainer:
    """One RLlib algorithm in training. Ray must be up.

    Args:
        config: the experiment; `engine` chooses batch-native or stock sampling.
        task: what it trains on.
    """

    def __init__(self, config: ExperimentConfig, task: Task) -> None:
        if config.resources.torch_threads is not None:
            torch.set_num_threads(config.resources.torch_threads)
        # RLlib warns at each start that its new API stack is new.
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)
        # Deaths of env runners are ours to tell, in a line each.
        logging.getLogger("ray.rllib.utils.actor_manager").setLevel(logging.CRITICAL)
        rllib = algorithm_config(config, task)
        self._names = [f.name for f in task.description.fields]
        self._reward_clip: float | None = getattr(config.learning, "reward_clip", None)
        self.reward_scale, self._clipped = 1.0, (0.0, 0.0)
        self._num_learners = config.resources.num_learners if config.engine == "rllib" else 0
        with warnings.catch_warnings():
            # RLlib registers its one environment id anew for every runner in a process, and gymnasium says so.
            warnings.filterwarnings("ignore", message=".*Overriding environment.*")
            self.algorithm = rllib.build_algo()

    def iterate(self) -> dict[str, float]:
        """One `Algorithm.train()`; absent values (no episode ended yet) are left out, never NaN."""
        with _learners_alive():
            result = self.algorithm.train()
        learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
        metrics: dict[str, float] = {}
        for source, names in (
            (result, _ALGORITHM_METRICS),
            (learner, _LEARNER_METRICS),
            (result.get("env_runners", {}), _RUNNER_METRICS),
            (result.get("timers", {}), _TIMERS),
        ):
            for key, name in names.items():
                value = source.get(key)
                if value is not None and math.isfinite(float(value)):
                    metrics[name] = float(value)
        self.reward_scale = metrics.get("reward_scale", self.reward_scale)
        # The learner's shares are of its own rollouts: all of an iteration's steps, over all learners.
        self._clipped = float(learner.get(REWARDS_CLIPPED) or 0.0), float(learner.get(LARGEST_REWARD) or 0.0)
        moved = [float(value) for value in (result.get(PUT_SECONDS), learner.get(FETCH_SECONDS)) if value is not None]
        if moved:
            metrics["transfer_seconds"] = sum(moved)
        return metrics | _episodes_of(result.get("env_runners", {}))

    def take_notes(self) -> EnvNotes:
        """What was odd about the environments since the last call; RLlib's own sampling notes nothing."""
        if not isinstance(self.algorithm, RolloutAlgorithm):
            return EnvNotes()
        notes = self.algorithm.take_notes().named(self._names)
        (share, largest), self._clipped = self._clipped, (0.0, 0.0)
        if not share or self._reward_clip is None:
            return notes
        return notes + EnvNotes(clipped=round(share * notes.steps), clipped_at=self._reward_clip, largest_reward=largest)

    def start_from(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over a policy's weights; the value network and the optimiser begin afresh.

        Raises:
            InputError: they do not fit the network.
        """
        network = self.snapshot().network
        own = {name: value.numpy() for name, value in network.state_dict().items()}
        learnt = {name for name, _ in network.named_parameters()} | {"normaliser.mean", "normaliser.variance"} & set(own)
        module, weights = self._module(), dict(weights)
        scale = float(weights.pop(REWARD_SCALE_OF_POLICY, 1.0))
        given = completed(weights, own, learnt)
        if _COUNT in given:
            # What its features are relative to is part of the policy: other traffic must not shift it.
            given[_COUNT] = np.array(_KNOWN_WELL, dtype=given[_COUNT].dtype)
        if isinstance(module, QModule):
            network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in given.items()})
            network.scale_scores(1.0 / scale)
            given = {name: value.numpy() for name, value in network.state_dict().items()}
        heads = ["q_head", "target_head"] if isinstance(module, QModule) else ["policy_head"]
        state = dict(self._learner_state())
        for name, array in given.items():
            for head in heads if name.startswith("head.") else [""]:
                state[name.replace("head.", f"{head}.", 1) if head else name] = np.array(array)
        self.algorithm.learner_group.set_state({"learner": {"rl_module": {DEFAULT_MODULE_ID: state}}})
        self.algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.algorithm.learner_group, policies=[DEFAULT_MODULE_ID], inference_only=True
        )

    def _learner_state(self) -> Mapping[str, Any]:
        with _learners_alive():
            learner = self.algorithm.learner_group.get_state(components="learner/rl_module")["learner"]
        state: Mapping[str, Any] = learner["rl_module"][DEFAULT_MODULE_ID]
        return state

    def snapshot(self) -> NetworkSnapshot:
        """A copy on the CPU of the learner's policy."""
        state = self._learner_state()
        module = self._module()
        scores = module.scores_network()
        head = next(name for name, child in module.named_children() if child is scores.head)
        network = copy.deepcopy(scores).cpu()
        wanted = {
            name: torch.as_tensor(state[name.replace("head.", f"{head}.", 1) if name.startswith("head.") else name])
            for name in network.state_dict()
        }
        network.load_state_dict(wanted)
        if isinstance(module, QModule):
            # A policy's Q-values are in units of reward.
            network.scale_scores(self.reward_scale)
        return NetworkSnapshot(network)

    def _module(self) -> ActorCriticModule | QModule:
        module: ActorCriticModule | QModule = self.algorithm.env_runner_group.local_env_runner.module
        return module

    def save(self, folder: Path) -> None:
        """RLlib's own checkpoint: weights, optimiser, counters. It holds pickles: only for resuming one's own run."""
        self.algorithm.save_to_path(str(folder.resolve()))
        if self._num_learners:
            # RLlib does not say when the learner that was to write its state is gone; this does.
            with _learners_alive():
                states = self.algorithm.learners.own_states()
            (folder / _EACH_LEARNER).write_bytes(pickle.dumps(states))

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote."""
        self.algorithm.restore_from_path(str(folder.resolve()))
        if self._num_learners:
            self.algorithm.learners.set_own_states(pickle.loads((folder / _EACH_LEARNER).read_bytes()))  # noqa: S301 - as RLlib's

    def close(self) -> None:
        """Stop the algorithm's actors."""
        self.algorithm.stop()
