"""What the platform must know of an algorithm; which there are: `scalepilot.config.algorithms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scalepilot.config.sections import LearningConfig

Trait = Literal["masks", "images", "continuous"]


@dataclass(frozen=True)
class Algorithm:
    """One algorithm.

    Attributes:
        name: in `algorithm:` of a configuration.
        section: key of its hyperparameters; algorithms with the same section have the same settings.
        settings: class of that section.
        trainer: "module:callable", called with the experiment and its task, gives a `scalepilot.learn.trainer.Trainer`.
        policy_kind: of what it exports.
        decision_rule: by which the exported policy chooses among discrete actions.
        needs_ray: trains on Ray, here or on a cluster.
        extra: optional dependencies of Scalepilot that it needs; empty for none.
        takes: what it trains on beside fields and discrete actions: action masks, images, continuous actions.
        engines: that it can train with.
        starts_from_policy: training may begin with the weights of an exported policy.
        ignored: keys of its section that it does not use.
        changeable: keys of its section that may change while it trains.
        counterpart: our algorithm that a cross-check compares this one, of Stable-Baselines3, with; empty for others.
        metrics: documented metrics (`scalepilot.runs.metrics`) that its trainer measures.
        own_metrics: name → (unit, meaning) of metrics that no other has.
    """

    name: str
    section: str
    settings: type[LearningConfig]
    trainer: str
    policy_kind: Literal["network", "table"]
    decision_rule: Literal["argmax_p", "argmax_q"]
    needs_ray: bool = False
    extra: str = ""
    takes: frozenset[Trait] = frozenset()
    engines: tuple[str, ...] = ("rllib",)
    starts_from_policy: bool = False
    ignored: tuple[str, ...] = ()
    changeable: tuple[str, ...] = ()
    counterpart: str = ""
    metrics: tuple[str, ...] = ()
    own_metrics: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def starting_rules(self) -> tuple[str, ...]:
        """Decision rules of the policies whose weights it can start from."""
        return ("argmax_p", "sample", "box") if self.decision_rule == "argmax_p" else ("argmax_q",)
