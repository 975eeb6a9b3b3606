"""What is trained on: how its environments are made, how a policy is validated, and what the policy says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scalepilot.config import ExperimentConfig
from scalepilot.config.env import OtherEnvConfig
from scalepilot.errors import EnvironmentFailedError
from scalepilot.files.stop import StepLimit, Stopped, at_once
from scalepilot.policy import Policy
from scalepilot.policy.spec import image_scale
from scalepilot.simulate import ProtocolData, as_rows, run_episodes, run_returns
from scalepilot.simulate.env_notes import EnvNotes
from scalepilot.simulate.episode_runner import EpisodeLimits
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.registration import find_env

# Seeds of validation and test episodes; training draws its own from all of 32 bits.
VALIDATION_SEED, TEST_SEED = 1_000_000, 2_000_000
# Of the observations on which an export is held to its network; 3,000,000 is the videos'.
EXPORT_SEED = 4_000_000
_PARITY_STEPS = 25
_PARITY_SECONDS = 30.0


@dataclass(frozen=True)
class Measured:
    """How good a policy is on what it may be chosen by.

    Attributes:
        value: what a person watches.
        score: what is minimised.
        notes: what was odd about the environment.
    """

    value: float
    score: float
    notes: EnvNotes = field(default_factory=EnvNotes)


class Task(Protocol):
    """One environment with everything that training and choosing need."""

    @property
    def description(self) -> EnvDescription:
        """Fields, actions, parameters."""
        ...

    @property
    def value_label(self) -> str:
        """What `Measured.value` is called beside a progress bar."""
        ...

    @property
    def value_metric(self) -> str:
        """Its documented column in metrics."""
        ...

    def training_arguments(self) -> dict[str, Any]:
        """What the environment is made with for training."""
        ...

    def network_inputs(self) -> dict[str, Any]:
        """What the encoder must know: field_names, num_states where states are numbered, image, and more for Autoscale."""
        ...

    def measure(self, policy: Policy) -> Measured:
        """Validate; test episodes are not touched."""
        ...

    def train_metrics(self, episode_return: float) -> dict[str, float]:
        """Documented columns from the mean return of training episodes."""
        ...


def network_inputs_of(description: EnvDescription, num_states: int | None = None) -> dict[str, Any]:
    """As `Task.network_inputs`; the fields of an action mask are none: they decide by themselves."""
    image = description.image
    seen = description.fields[: len(description.fields) - description.num_masked]
    return {
        "field_names": [f.name for f in seen],
        "image": None if image is None else {"shape": list(image.shape), "axes": list(image.axes), "scale": image_scale(image)},
        "num_states": num_states,
        "first_state": int(seen[0].low) if num_states is not None else 0,
        "num_masked": description.num_masked,
        "interval_seconds": description.interval_seconds,
        "max_replicas": int(getattr(description.params, "max_replicas", 1)),
    }


def episode_limits(config: ExperimentConfig) -> EpisodeLimits:
    """What validation and test give up."""
    return EpisodeLimits(config.evaluation.max_episode_steps, config.resources.env_timeout_seconds)


class AutoscaleTask:
    """Autoscale-v0 on a workload, validated by J under protocol v1."""

    value_label, value_metric = "validation J/h", "validation_J_per_hour"

    def __init__(self, config: ExperimentConfig, data: ProtocolData) -> None:
        self.config, self.env, self.data = config, config.autoscale, data
        self.description = describe_autoscale(self.env.params)
        # Few validation windows hold few of the rare hours that decide: the training windows, with arrivals of their own,
        # steady the choice.
        self.windows, self.num_validation_windows = data.validation.joined(data.train), len(data.validation)

    def training_arguments(self) -> dict[str, Any]:
        """The training part of the workload, randomised."""
        return {
            "workload": self.config.workload,
            "part": "train",
            "params": self.env.params,
            "randomisation": self.env.randomisation,
            "episode_steps": self.env.episode_steps,
        }

    def network_inputs(self) -> dict[str, Any]:
        """As `Task`."""
        return network_inputs_of(self.description)

    def measure(self, policy: Policy) -> Measured:
        """J per hour on validation; chosen by its mean over validation and training windows."""
        results, _ = run_episodes(policy, self.windows, self.env.params)
        validation = float(results.J_per_hour[: self.num_validation_windows].mean())
        train = float(results.J_per_hour[self.num_validation_windows :].mean())
        return Measured(validation, (validation + train) / 2)

    def train_metrics(self, episode_return: float) -> dict[str, float]:
        """J per hour of the training episodes."""
        params = self.env.params
        hours = self.env.episode_steps / params.steps_per_hour
        return {"train_J_per_hour": -episode_return / params.reward_per_currency / hours}


class ReturnTask:
    """Any other environment, validated by the mean return of fixed episodes."""

    value_label, value_metric = "validation return", "validation_return"

    def __init__(self, config: ExperimentConfig) -> None:
        assert isinstance(config.env, OtherEnvConfig)
        self.config, self.env = config, config.env
        entry = find_env(self.env.id)
        self.env_id = entry.env_id
        self.description = self.env.description
        env = entry.maker()(**self.env.arguments)
        known = self.description.num_states
        self.num_states = int(env.observation_space.n) if hasattr(env.observation_space, "n") else known

    def training_arguments(self) -> dict[str, Any]:
        """The environment's own arguments."""
        return self.env.arguments

    def network_inputs(self) -> dict[str, Any]:
        """As `Task`."""
        return network_inputs_of(self.description, self.num_states)

    def measure(self, policy: Policy) -> Measured:
        """Mean return of the validation episodes."""
        episodes = self.config.evaluation.validation_episodes
        results = run_returns(
            policy,
            self.env_id,
            episodes,
            arguments=self.env.arguments,
            first_seed=VALIDATION_SEED,
            limits=episode_limits(self.config),
        )
        value = float(results.episode_return.mean())
        return Measured(value, -value, results.notes)

    def train_metrics(self, episode_return: float) -> dict[str, float]:
        """Nothing beyond the return itself."""
        return {}


def parity_observations(task: Task, env_id: str, count: int) -> NDArray[Any]:
    """Observations for the parity of exports: of random play, or drawn within the fields' bounds where the environment fails.

    Args:
        task: names the environment and its arguments.
        env_id: of the environment.
        count: a multiple of 25.
    """
    try:
        with at_once(), StepLimit(_PARITY_SECONDS, lambda: EnvironmentFailedError("hangs")) as clock:
            clock.step()
            return sample_observations(task, env_id, count)
    except (Exception, Stopped):  # noqa: BLE001 - an environment may raise anything
        description, rng = task.description, np.random.default_rng(0)
        image = description.image
        if image is not None:
            return rng.integers(0, 256, (count, *image.shape)).astype(image.dtype)
        low, high = (np.clip([getattr(f, name) for f in description.fields], -10.0, 10.0) for name in ("low", "high"))
        drawn = rng.uniform(low, high, (count, len(description.fields)))
        return (np.rint(drawn) if task.network_inputs()["num_states"] is not None else drawn).astype(np.float32)


def sample_observations(task: Task, env_id: str, count: int) -> NDArray[Any]:
    """(count, num_fields) or (count, *shape) observations from random play, for the parity of exports.

    Args:
        task: names the environment and its arguments.
        env_id: of the environment.
        count: a multiple of 25.
    """
    num_envs, env = count // _PARITY_STEPS, task.description
    envs = find_env(env_id).vector_maker()(num_envs=num_envs, **task.training_arguments())
    observations = [envs.reset(seed=EXPORT_SEED)[0]]
    rng = np.random.default_rng(0)
    for _ in range(_PARITY_STEPS - 1):
        shares = rng.random((num_envs, max(1, len(env.components))))
        observations.append(envs.step(env.actions_at(shares, observations[-1]))[0])
    envs.close()
    return np.concatenate([as_rows(np.asarray(o)) for o in observations]).astype(
        "float32" if env.image is None else env.image.dtype
    )
