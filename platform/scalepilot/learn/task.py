"""What is trained on: how its environments are made, how a policy is validated, and what the policy says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.config import ExperimentConfig
from scalepilot.errors import EnvironmentFailedError
from scalepilot.files.stop import StepLimit, Stopped, at_once
from scalepilot.policy import Policy
from scalepilot.policy.spec import image_scale
from scalepilot.simulate import Scenario, as_rows, scenario_of
from scalepilot.simulate.env_notes import EnvNotes
from scalepilot.simulate.scenario import TrafficEpisodes
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.registration import find_env
from scalepilot_envs.workloads import PoolWorkload

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


class Task:
    """One environment with everything that training and choosing need.

    Args:
        config: the experiment.
        scenario: what it is trained for; made from the config if None.

    Attributes:
        description: fields, actions, parameters.
    """

    def __init__(self, config: ExperimentConfig, scenario: Scenario | None = None) -> None:
        self.config = config
        self.scenario = scenario or scenario_of(config)
        self.description: EnvDescription = self.scenario.env
        self.objective = self.scenario.objective

    @property
    def env_id(self) -> str:
        """Of what is stepped; a live environment's policies are made for the one that it stands in for, `description`'s."""
        return find_env(self.config.env.id).env_id

    @property
    def is_live(self) -> bool:
        """Whether every step acts on something real."""
        return find_env(self.config.env.id).is_live

    @property
    def value_label(self) -> str:
        """What `Measured.value` is called beside a progress bar."""
        return f"validation {self.objective.short_label}"

    @property
    def value_metric(self) -> str:
        """Its documented column in metrics."""
        return self.objective.validation_metric

    def training_arguments(self) -> dict[str, Any]:
        """What the environment is made with for training."""
        return self.config.env.training_arguments(self.config.workload)

    def network_inputs(self) -> dict[str, Any]:
        """What the encoder must know: field_names, num_states where states are numbered, image, and more for Autoscale."""
        return network_inputs_of(self.description, self.num_states)

    @cached_property
    def num_states(self) -> int | None:
        """Where one integer is the whole observation (but for the mask), how many there are."""
        if self.description.num_states is not None or len(self.description.fields) > 1:
            return self.description.num_states
        space = find_env(self.env_id).maker()(**self.training_arguments()).observation_space
        return int(space.n) if hasattr(space, "n") else None

    def measure(self, policy: Policy, *, again: bool = False) -> Measured:
        """Validate; test episodes are not touched. Of Autoscale the training windows, with other arrivals, count as much.

        Args:
            policy: to be measured.
            again: on fresh episodes, by which nothing was chosen yet; of Autoscale other arrivals in the same windows.
        """
        episodes = self.scenario.validation
        results = (episodes.fresh() if again else episodes).run(policy).results
        values, shown = results[self.objective.column] * self._weights, self.scenario.num_validation
        value = float(values[:shown].mean())
        chosen_by = value if shown == len(values) else (value + float(values[shown:].mean())) / 2
        return Measured(value, self.objective.sign * chosen_by, results.notes)

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        """(n,) of the validation episodes, mean 1: in a pool a small service counts as much as a large one."""
        episodes = self.scenario.validation
        if not (isinstance(self.config.workload, PoolWorkload) and isinstance(episodes, TrafficEpisodes)):
            return np.ones(1)
        shares = 1.0 / np.maximum(episodes.episodes.rates_rps.mean(axis=1), 1e-9)
        return np.asarray(shares / shares.mean(), dtype=np.float64)

    def train_metrics(self, episode_return: float) -> dict[str, float]:
        """What decides, from the mean return of training episodes; nothing where that is the return itself."""
        if self.objective.from_return is None:
            return {}
        steps = int(self.training_arguments()["episode_steps"])
        return {self.objective.training_metric: self.objective.from_return(episode_return, steps)}


def parity_observations(task: Task, env_id: str, count: int) -> NDArray[Any]:
    """Observations for the parity of exports: of random play; drawn within the fields' bounds where it fails or is live.

    Args:
        task: names the environment and its arguments.
        env_id: of the environment.
        count: a multiple of 25.
    """
    try:
        if task.is_live:
            raise EnvironmentFailedError("nothing is tried out on it")
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
