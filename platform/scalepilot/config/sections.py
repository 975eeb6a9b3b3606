"""Hyperparameters, one class a section of the configuration; which algorithm has which: `scalepilot.config.algorithms`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field

from scalepilot.config.checks import Between, Count, OneOf, Positive, PositiveShare, Section, Share

# Convolutions over images: (filters, kernel, stride) of each layer.
CNNS = {"nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)), "small": ((16, 8, 4), (32, 4, 2))}
_LARGEST_ROLLOUT, _MOST_LAYERS = 2**25, 64
NumEnvs = Annotated[int, Between(1, 65_536)]


@dataclass(frozen=True)
class LearningConfig(Section):
    """A budget of environment steps, used up a rollout at a time: what every algorithm's section has.

    Attributes:
        total_env_steps: training budget.
        num_envs: environments stepped together.
    """

    # Keys that several learners must be able to share equally, and those that give the network its shape.
    shared_by_learners: ClassVar[tuple[str, ...]] = ()
    shapes_network: ClassVar[tuple[str, ...]] = ()

    total_env_steps: Count = 100_000
    num_envs: NumEnvs = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollout_size > _LARGEST_ROLLOUT:
            # No machine has the memory for it.
            raise ValueError(
                f"num_envs: {self.num_envs} environments collect {self.rollout_size} transitions an iteration; allowed: up to"
                f" {_LARGEST_ROLLOUT}"
            )

    @property
    def rollout_size(self) -> int:
        """Transitions of one iteration: a hundred steps of every environment, unless the algorithm says otherwise."""
        return 100 * self.num_envs

    @property
    def num_iterations(self) -> int:
        """Iterations that use up the budget, the last one whole."""
        return math.ceil(self.total_env_steps / self.rollout_size)

    @property
    def env_steps(self) -> int:
        """Environment steps of these iterations."""
        return self.num_iterations * self.rollout_size

    @property
    def refills_replay(self) -> bool:
        """Whether a resumed run samples again what it had remembered."""
        return False

    def unused(self) -> Iterator[tuple[str, str]]:
        """(key, why it decides nothing) of keys that others of this section leave without a say."""
        return iter(())


@dataclass(frozen=True)
class NetworkConfig(LearningConfig):
    """What every algorithm with a network has.

    Attributes:
        num_envs: environments stepped together, over all env runners.
        rollout_steps: steps of each environment between two updates.
        lr: Adam's learning rate at the start.
        lr_final_share: learning rate at the end as a share of `lr`, linear in between.
        gamma: discount.
        grad_clip: global norm of the gradient.
        reward_clip: rewards are cut at ± this before learning (never in results), counted and said; null cuts none.
        reward_scale: rewards are divided by this before learning (never in results); null: 1 while their root mean square is at
            most 100, else a power of two of about that size.
        hidden: units of the hidden layers.
        cnn: convolutions over images: nature (Mnih et al. 2015) or small (2013).
    """

    shapes_network: ClassVar[tuple[str, ...]] = ("hidden", "cnn")

    rollout_steps: Annotated[int, Between(1, 100_000)] = 64
    lr: PositiveShare = 1e-3
    lr_final_share: Share = 1.0
    gamma: Share = 0.99
    grad_clip: Positive = 0.5
    reward_clip: Positive | None = None
    reward_scale: Positive | None = None
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (64, 64)
    cnn: Annotated[str, OneOf(tuple(CNNS))] = "nature"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden:
            raise ValueError("hidden: is empty; allowed: at least one layer, such as [64, 64]")
        if len(self.hidden) > _MOST_LAYERS:
            raise ValueError(f"hidden: {len(self.hidden)} layers; allowed: up to {_MOST_LAYERS}")

    @property
    def rollout_size(self) -> int:
        """Transitions of one iteration."""
        return self.num_envs * self.rollout_steps


@dataclass(frozen=True)
class PPOConfig(NetworkConfig):
    """Proximal Policy Optimisation (Schulman et al. 2017) on batch-native rollouts.

    Attributes:
        num_epochs: passes over each rollout.
        minibatch_size: transitions of one gradient step; at most num_envs × rollout_steps.
        gae_lambda: λ of generalised advantage estimation.
        clip: of the probability ratio at the start.
        clip_final_share: clip at the end as a share of `clip`, linear in between.
        target_kl: an update ends after the epoch in which the policy's mean KL divergence from the one that sampled exceeds this;
            null: never early.
        entropy_coefficient: weight of the entropy bonus, decayed linearly to 0.
        value_coefficient: weight of the value loss.
        value_clip: the squared value error is cut here.
        policy_waits_share: share of the budget in which only values are learnt: those of a fresh network would spoil a policy
            that training starts from (--init makes it 0.1 where it is 0).
        envs_per_input: environments that meet the same traffic, so that luck with it cancels in their advantages; 1 is plain PPO.
        counterfactual_every: steps of a rollout after which every action is tried again in copies of all environments, before the
            same traffic: the policy then learns from what all of them would have cost, not from the one taken, and only the value
            network from the rest; null: plain PPO. Only on Autoscale-v0, whose traffic does not depend on what is done.
        counterfactual_steps: steps that each copy goes on with the current policy.
        counterfactual_temperature: size of a step of the policy, in deviations of the advantages; smaller is bolder.
        hidden: units of the hidden layers, policy and value apart; on images shared, behind the convolutions.
    """

    shared_by_learners: ClassVar[tuple[str, ...]] = ("minibatch_size",)

    total_env_steps: Count = 4_000_000
    num_envs: NumEnvs = 128
    num_epochs: Annotated[int, Between(1, 1000)] = 4
    minibatch_size: Count = 1024
    lr_final_share: Share = 0.0
    gamma: Share = 0.98
    gae_lambda: Share = 0.95
    clip: Annotated[float, Between(0, 10, above=True)] = 0.2
    clip_final_share: Share = 1.0
    target_kl: Annotated[float, Between(0, 1000, above=True)] | None = None
    entropy_coefficient: Annotated[float, Between(0, 10)] = 0.005
    value_coefficient: Annotated[float, Between(0, 1000)] = 0.5
    value_clip: Positive = 1e6
    policy_waits_share: Share = 0.0
    envs_per_input: Annotated[int, Between(1, 65_536)] = 8
    counterfactual_every: Annotated[int, Between(1, 100_000)] | None = None
    counterfactual_steps: Annotated[int, Between(1, 10_000)] = 8
    counterfactual_temperature: Annotated[float, Between(0, 1000, above=True)] = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minibatch_size > self.batch_size:
            raise ValueError(
                f"minibatch_size: {self.minibatch_size} is larger than the batch, num_envs × rollout_steps ="
                f" {self.batch_size}; allowed: 1 to {self.batch_size}"
            )
        if self.num_envs % self.envs_per_input:
            raise ValueError(
                f"envs_per_input: {self.envs_per_input} does not divide num_envs {self.num_envs}; allowed: its divisors"
            )

    @property
    def batch_size(self) -> int:
        """Transitions of one iteration, all of which are learnt from."""
        return self.rollout_size

    def unused(self) -> Iterator[tuple[str, str]]:
        """(key, why it decides nothing) of keys that others of this section leave without a say."""
        if self.counterfactual_every is None:
            for name in ("counterfactual_steps", "counterfactual_temperature"):
                yield name, "is not used with counterfactual_every: null"
        else:
            for name in ("clip", "clip_final_share"):
                yield name, "is not used with counterfactual_every, where there is no probability ratio"


@dataclass(frozen=True)
class DQNConfig(NetworkConfig):
    """Deep Q-learning (Mnih et al. 2015; double: van Hasselt et al. 2016) on batch-native rollouts.

    Attributes:
        updates_per_step: gradient steps for each environment step.
        batch_size: transitions of one gradient step.
        buffer_size: transitions remembered.
        learning_starts: transitions sampled before the first gradient step.
        save_replay: keep the remembered transitions in checkpoints, so that a resumed run learns on as if never stopped; false
            writes small checkpoints, and a resumed run first samples `learning_starts` transitions again.
        n_step: rewards summed before bootstrapping.
        double: the online network chooses the next action, the target network values it.
        dueling: state value and advantages apart.
        target_update_steps: gradient steps between two updates of the target network.
        tau: share of the online network taken over at each of them; 1 copies it.
        epsilon_start: share of random actions in the beginning.
        epsilon_end: in the end.
        epsilon_decay_share: of the budget, over which it falls linearly.
        epsilon_decay_per_episode: instead, the factor by which each finished episode multiplies it; null for the linear fall.
        prioritised_alpha: exponent of the priorities (Schaul et al. 2016); 0 draws uniformly.
        prioritised_beta: exponent of the weights that make up for it, rising to 1.
    """

    shared_by_learners: ClassVar[tuple[str, ...]] = ("batch_size", "buffer_size")
    shapes_network: ClassVar[tuple[str, ...]] = (*NetworkConfig.shapes_network, "dueling")

    rollout_steps: Annotated[int, Between(1, 100_000)] = 4
    updates_per_step: Annotated[float, Between(0, 1000, above=True)] = 0.25
    batch_size: Count = 64
    buffer_size: Annotated[int, Between(1, 100_000_000)] = 100_000
    learning_starts: Annotated[int, Between(0, 1e12)] = 1000
    save_replay: bool = True
    n_step: Annotated[int, Between(1, 10_000)] = 1
    double: bool = True
    dueling: bool = False
    target_update_steps: Count = 250
    tau: PositiveShare = 1.0
    epsilon_start: Share = 1.0
    epsilon_end: Share = 0.05
    epsilon_decay_share: Share = 0.3
    epsilon_decay_per_episode: Share | None = None
    prioritised_alpha: Share = 0.0
    prioritised_beta: Share = 0.4
    grad_clip: Positive = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size > self.buffer_size:
            raise ValueError(
                f"batch_size: {self.batch_size} is larger than buffer_size {self.buffer_size}; allowed: 1 to {self.buffer_size}"
            )

    @property
    def refills_replay(self) -> bool:
        """Whether a resumed run samples again what it had remembered."""
        return not self.save_replay

    def unused(self) -> Iterator[tuple[str, str]]:
        """(key, why it decides nothing) of keys that others of this section leave without a say."""
        if self.epsilon_decay_per_episode is not None:
            yield "epsilon_decay_share", "is not used with epsilon_decay_per_episode; allowed: one of both"
        if self.prioritised_alpha == 0.0:
            yield "prioritised_beta", "is not used with prioritised_alpha: 0.0"


@dataclass(frozen=True)
class TabularConfig(LearningConfig):
    """Q-learning (Watkins 1989) and SARSA(λ) (Sutton and Barto, 2nd ed., 12.7) on a discretised observation.

    Attributes:
        num_envs: environments stepped together, all on one table.
        rollout_steps: steps of each environment between two lines of metrics.
        alpha: step size.
        gamma: discount.
        trace_decay: λ of SARSA(λ); Q-learning has none.
        trace_threshold: traces smaller than this are dropped.
        epsilon_start: share of random actions in the first episode.
        epsilon_end: never fewer.
        epsilon_decay: factor an episode.
        initial_q: of every entry.
        bins: observation field → equal bins between its bounds; fields left out are not seen. Empty: numbered states.
        edges: observation field → rising edges, instead of bins.
    """

    total_env_steps: Count = 200_000
    num_envs: NumEnvs = 16
    rollout_steps: Annotated[int, Between(1, 100_000)] = 100
    alpha: PositiveShare = 0.1
    gamma: Share = 0.99
    trace_decay: Share = 0.6
    trace_threshold: Share = 1e-3
    epsilon_start: Share = 1.0
    epsilon_end: Share = 0.01
    epsilon_decay: Share = 0.9995
    initial_q: Annotated[float, Between(-1e12, 1e12)] = 0.0
    bins: dict[str, int] = field(default_factory=dict)
    edges: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in self.bins.items():
            if not 1 <= count <= 1000:
                raise ValueError(f"bins.{name}: {count} is not allowed; allowed: 1 to 1000")
        for name, edges in self.edges.items():
            if not edges or not all(math.isfinite(e) for e in edges) or any(b <= a for a, b in pairwise(edges)):
                raise ValueError(f"edges.{name}: {list(edges)} is not allowed; allowed: finite numbers that rise")
            if name in self.bins:
                raise ValueError(f"set either bins or edges for {name}, not both")

    @property
    def rollout_size(self) -> int:
        """Transitions of one iteration."""
        return self.num_envs * self.rollout_steps
