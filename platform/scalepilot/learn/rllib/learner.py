"""What RLlib's learners need to learn from rollouts, on any device, one or many in step."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData

from scalepilot.errors import RunError, ScalepilotError
from scalepilot.learn.reward_scale import RewardScale
from scalepilot.learn.rllib import joint
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot.learn.rllib.settings import EngineSettings

_FETCH_TIMEOUT_SECONDS, _DEATH_SHOWS_SECONDS = 60.0, 10.0
# Among a learner's results: time to fetch the rollouts of an iteration.
FETCH_SECONDS = "fetch_seconds"


class RolloutsLostError(RunError):
    """Rollouts went with the process or the node that held them; no learner has learnt from the batch.

    Args:
        positions: which of the references handed to each learner.
    """

    def __init__(self, positions: list[int]) -> None:
        super().__init__(f"rollouts {positions} were lost before they were learnt from")
        self.positions = positions

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.positions,)


def _fetched(reference: ray.ObjectRef) -> Rollout | None:
    try:
        rollout: Rollout = ray.get(reference, timeout=_FETCH_TIMEOUT_SECONDS)
    except RayError:
        return None
    return rollout


# Among a learner's results: what was done to the rewards before they were learnt from.
REWARDS_CLIPPED, LARGEST_REWARD, REWARD_SCALE = "rewards_clipped", "largest_reward", "reward_scale"


def clipped_rewards(reward: torch.Tensor, valid: torch.Tensor, clip: float) -> tuple[torch.Tensor, dict[str, float]]:
    """Rewards cut at ± `clip`, and what of it is to be said.

    Args:
        reward: (T, num_envs).
        valid: (T, num_envs) bool.
        clip: infinity cuts none.

    Returns:
        (T, num_envs), and the share cut and the largest in size of those; nothing where none can be.
    """
    if clip == float("inf"):
        return reward, {}
    over = (reward.abs() > clip) & valid
    clipped = reward.clamp(-clip, clip)
    if not bool(over.any()):
        # Said each time: RLlib repeats what it was told last.
        return clipped, {REWARDS_CLIPPED: 0.0, LARGEST_REWARD: 0.0}
    share = float(over.sum()) / max(1, int(valid.sum()))
    return clipped, {REWARDS_CLIPPED: share, LARGEST_REWARD: float(reward.abs()[over].max())}


def followed_scale(scale: RewardScale, reward: torch.Tensor, valid: torch.Tensor) -> float:
    """The scale after these rewards (T, num_envs), the same for all learners."""
    counted = reward.double()[valid] if reward.device.type != "mps" else reward[valid].cpu().double()
    sums = torch.stack([counted.new_tensor(float(counted.numel())), counted.square().sum()])
    count, squares = joint.summed(sums.to(reward.device) if reward.device.type != "mps" else sums).tolist()
    return scale.update(count, squares)


class JointLearner:
    """Mixin over RLlib's `TorchLearner`s.

    RLlib wraps modules for DDP, whose hooks run in the wrapper's `forward`; values and Q-values are computed past it. So nothing
    is wrapped: learners start from equal weights and average their gradients explicitly.
    """

    config: Any
    module: Any
    metrics: Any
    # Key of `own_state` in the learner's state.
    own_state_name: str
    _chosen_device: Any = None

    # RLlib knows CUDA and the CPU, and sets this in `build`.
    @property
    def _device(self) -> Any:
        return self._chosen_device

    @_device.setter
    def _device(self, device: Any) -> None:
        by_choice = device is not None and EngineSettings.of(self.config).device == "mps"
        self._chosen_device = torch.device("mps") if by_choice else device

    def build(self) -> None:
        """Build with the weights of the first learner."""
        threads = EngineSettings.of(self.config).resources.torch_threads
        if threads is not None:
            torch.set_num_threads(threads)
        super().build()  # type: ignore[misc]
        joint.equalise(self.module[DEFAULT_MODULE_ID].state_dict().values())

    def _make_modules_ddp_if_necessary(self) -> None:
        """Nothing; see the class."""

    def own_state(self) -> Any:
        """What it has beside RLlib's state, as arrays and numbers; RLlib's checkpoints hold that of the first learner only."""
        raise NotImplementedError

    def set_own_state(self, state: Any) -> None:
        """What `own_state` gave."""
        raise NotImplementedError

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state and, where everything is asked for, the learner's own."""
        state: dict[str, Any] = super().get_state(components, not_components=not_components, **kwargs)  # type: ignore[misc]
        if self._check_component(self.own_state_name, components, not_components):  # type: ignore[attr-defined]
            state[self.own_state_name] = self.own_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` gave."""
        super().set_state(state)  # type: ignore[misc]
        if self.own_state_name in state:
            self.set_own_state(state[self.own_state_name])

    def collect(self, training_data: TrainingData) -> Rollout:
        """The rollouts side by side; those of references are fetched from where they were sampled.

        Args:
            training_data: one rollout (`batch`) or references to several (`batch_refs`), equal in length.

        Raises:
            RolloutsLostError: at one learner at least; raised by all.
        """
        training_data.validate()
        if training_data.batch_refs is None:
            given: list[Rollout] = [training_data.batch] if training_data.batches is None else training_data.batches
            return Rollout.concatenate(given)
        began = time.perf_counter()
        fetched = [_fetched(reference) for reference in training_data.batch_refs]
        self.metrics.log_dict({FETCH_SECONDS: time.perf_counter() - began}, key=DEFAULT_MODULE_ID, window=1)
        lost = joint.summed(torch.tensor([float(rollout is None) for rollout in fetched], device=self._device))
        positions = lost.nonzero().flatten().tolist()
        if positions:
            raise RolloutsLostError(positions)
        rollouts = [rollout for rollout in fetched if rollout is not None]
        # What lies in the object store is read-only, and torch shares memory with arrays that are not.
        return rollouts[0].copy() if len(rollouts) == 1 else Rollout.concatenate(rollouts)


class LearnerCalls:
    """Updates of all learners at once.

    RLlib's own waits for every learner; when one dies in the middle of a sum over all of them, the others may wait for it.

    Args:
        group: RLlib's learners.
    """

    def __init__(self, group: Any) -> None:
        self.group = group

    @property
    def _actors(self) -> list[Any]:
        return list(self.group._worker_manager.actors().values())

    def own_states(self) -> list[Any]:
        """Of each remote learner."""
        states: list[Any] = ray.get([actor.apply.remote(_own_state) for actor in self._actors])
        return states

    def set_own_states(self, states: list[Any]) -> None:
        """What `own_states` gave, with as many learners."""
        ray.get([actor.apply.remote(_set_own_state, state) for actor, state in zip(self._actors, states, strict=True)])

    def end(self) -> None:
        """Kill remote learners; RLlib would wait for each that does not answer."""
        if not self.group.is_local:
            for actor in self._actors:
                ray.kill(actor)

    def update(self, shares: list[list[Any]], **arguments: Any) -> list[Any]:
        """Learn; returns each learner's results.

        Args:
            shares: of each learner: rollouts where it is in this process, else references; as many each.
            **arguments: of the learner's `update`.

        Raises:
            RolloutsLostError: nobody has learnt.
            RayActorError: one died.
        """
        if self.group.is_local:
            data = TrainingData(**({"batches": shares[0]} if isinstance(shares[0][0], Rollout) else {"batch_refs": shares[0]}))
            return [self.group._learner.update(training_data=data, **arguments)]
        update = partial(_update, **arguments)
        calls = [actor.apply.remote(update, share) for actor, share in zip(self._actors, shares, strict=True)]
        waiting, error = calls, None
        while waiting:
            # Where one died, the others fail because of it: its death is the reason to give, if it shows soon.
            ready, waiting = ray.wait(waiting, timeout=None if error is None else _DEATH_SHOWS_SECONDS)
            if not ready:
                break
            try:
                ray.get(ready)
            except RayTaskError as failure:
                error = failure
        if error is not None:
            raise error.cause if isinstance(error.cause, ScalepilotError) else error
        return ray.get(calls)  # type: ignore[no-any-return]


def _own_state(learner: Any) -> Any:
    return learner.own_state()


def _set_own_state(learner: Any, state: Any) -> None:
    learner.set_own_state(state)


def _update(learner: Any, references: list[ray.ObjectRef], **arguments: Any) -> Any:
    return learner.update(training_data=TrainingData(batch_refs=references), **arguments)
