"""One policy as a server holds it: loaded, tried, and with what every request to it needs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.files.ownership import check_own_tree
from scalepilot.policy import (
    ActionEntry,
    ComponentEntry,
    FieldView,
    Policy,
    PolicySpec,
    describe_env,
    env_components,
    find_policy_folder,
    read_packed,
)
from scalepilot.policy.artifact import refused_in_a_line
from scalepilot.policy.rules import make_rule
from scalepilot.policy.signature import PublicKeys
from scalepilot.serve.decide.example import example_observation
from scalepilot.serve.decide.fast import FastReader
from scalepilot.serve.decide.quick import QuickDecider, quick_decider
from scalepilot_envs.description import Action, EnvDescription

# A client sends the state back with every request; a first decision is slower than those that follow.
_MOST_REMEMBERED, _MOST_SECONDS = 10_000, 5.0


@dataclass(frozen=True, eq=False)
class ServedPolicy:
    """A policy with what every request to it needs.

    Attributes:
        policy: the loaded artifact.
        folder: where it came from.
        view: named access to columns of its observation.
        move_labels: one for each action; unique.
        action_values: what the environment takes for each.
        components: of a continuous action; a rule's are those of its environment.
        state_shapes: key → shape of one observation's state; None where nothing is remembered.
        example: field → value of a plausible observation.
        replica_bounds: fewest and most replicas it may ask for, infinite where nobody says; None where there are no replicas.
        fallback: decides where this policy gives no finite numbers; None holds the replicas.
    """

    policy: Policy
    folder: Path
    view: FieldView
    move_labels: tuple[str, ...]
    state_shapes: dict[str, tuple[int, ...]] | None
    example: dict[str, float]
    replica_bounds: tuple[float, float] | None
    fallback: Policy | None = None
    action_values: tuple[Any, ...] = ()
    components: tuple[ComponentEntry, ...] = ()

    @cached_property
    def _whole_values(self) -> NDArray[np.int64] | None:
        """(num_actions,) or (num_actions, k) where every action is a whole number or k of them, else None."""
        try:
            values = np.array(self.action_values)
        except ValueError:
            return None
        return values.astype(np.int64) if values.dtype.kind in "iub" and values.ndim in (1, 2) and len(values) else None

    @property
    def action_width(self) -> int:
        """Whole numbers that one action is; 0 where it is a single one."""
        values = self._whole_values
        return 0 if values is None or values.ndim == 1 else values.shape[1]

    def whole_actions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) or (n, k) whole numbers that the environment takes, the index where it takes others; −1 where none was chosen."""
        values = self._whole_values
        if values is None:
            return index
        chosen = index >= 0
        shape = (-1, *[1] * (values.ndim - 1))
        taken: NDArray[np.int64] = np.where(chosen.reshape(shape), values[np.maximum(index, 0)], -1)
        return taken

    @property
    def spec(self) -> PolicySpec:
        """Name, version, fields and provenance."""
        return self.policy.spec

    @property
    def reference(self) -> str:
        """name@version."""
        return f"{self.spec.name}@{self.spec.version}"

    @property
    def shows_replicas(self) -> bool:
        """Whether its observation says how many replicas there are."""
        return self.replica_bounds is not None

    @classmethod
    def load(cls, path: Path, *, fallback: str = "hpa", keys: PublicKeys | None = None) -> ServedPolicy:
        """Load an artifact and let it decide once, so that a policy that cannot decide is refused before it is served.

        Args:
            path: a policy folder, or a run folder.
            fallback: who decides where it gives no finite scores: "hpa" or "hold".
            keys: one of them must have signed it; None takes unsigned ones, too.

        Raises:
            ArtifactError: it does not load, does not decide, or is not signed.
        """
        with refused_in_a_line(str(path)):
            folder = check_own_tree(find_policy_folder(path), "policies")
            return cls._of(read_packed(folder, keys).unpack(str(folder)), folder, fallback)

    @classmethod
    def _of(cls, policy: Policy, folder: Path, fallback: str) -> ServedPolicy:
        spec = policy.spec
        if spec.image is not None:
            raise ArtifactError(f"{folder}: observes images; allowed: policies that observe numbers")
        env = describe_env(spec, str(folder))
        shows_replicas = "total_replicas" in env.signals
        actions: Sequence[ActionEntry | Action] = spec.actions or _env_actions(env)
        served = cls(
            policy=policy,
            folder=folder,
            view=FieldView(spec.observation_fields, env.signals),
            move_labels=_unique_labels([action.label for action in actions]),
            components=spec.components or env_components(env),
            action_values=tuple(i if a.value is None else a.value for i, a in enumerate(actions)),
            state_shapes=None,
            example=example_observation(spec),
            replica_bounds=env.replica_bounds if shows_replicas else None,
            fallback=_fallback(spec, env) if fallback == "hpa" and spec.kind != "rule" else None,
        )
        return served._tried()

    def _tried(self) -> ServedPolicy:
        """The same after a first decision, which also makes everything ready that is made on first use."""
        began = time.monotonic()
        try:
            with np.errstate(all="ignore"):
                decision, state = self.policy.act(self.example_rows(1))
        except ArtifactError:
            raise
        except Exception as error:  # noqa: BLE001 - onnxruntime and numpy raise a dozen types of their own
            raise ArtifactError(f"{self.folder}: fails on an observation within its bounds: {str(error)[:200]}") from None
        seconds = time.monotonic() - began
        if seconds > _MOST_SECONDS:
            # Of one process's time: everybody else would wait.
            raise ArtifactError(f"{self.folder}: needs {seconds:.0f} s for a decision; allowed: up to {_MOST_SECONDS:g} s")
        said = (decision.scores, decision.desired_replicas, decision.action)
        if all(part is None for part in said):
            raise ArtifactError(f"{self.folder}: returns no decision; allowed: policies that return an action or replicas")
        if not all(np.isfinite(part).all() for part in said if part is not None):
            raise ArtifactError(
                f"{self.folder}: returns NaN or infinity for an observation within its bounds; allowed: finite scores"
            )
        shapes = None if state is None else {name: column.shape[1:] for name, column in state.items()}
        served = replace(self, state_shapes=shapes)
        count = sum(math.prod(shape) for shape in (shapes or {}).values())
        if count > _MOST_REMEMBERED:
            raise ArtifactError(f"{self.folder}: remembers {count} numbers; allowed: up to {_MOST_REMEMBERED}")
        # Made on first use otherwise: by a request.
        _ = served.reader, served.bounds, served.quick
        return served

    @cached_property
    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(num_fields,) smallest and largest values of the observation."""
        fields = self.spec.observation_fields
        return np.array([f.low for f in fields]), np.array([f.high for f in fields])

    @cached_property
    def reader(self) -> FastReader:
        """Reads the usual request."""
        return FastReader(self.spec.observation_fields)

    @cached_property
    def quick(self) -> QuickDecider | None:
        """Decides the usual single request; None where this policy has no short way."""
        fields = self.spec.observation_fields
        edges = [[f.low for f in fields], [f.high for f in fields], [f.low + 0.37 * (f.high - f.low) for f in fields]]
        rows = np.concatenate([self.example_rows(1), np.array(edges)])
        return quick_decider(self.policy, self.move_labels, self.view, rows) if self.shows_replicas else None

    def example_rows(self, count: int) -> NDArray[np.float64]:
        """(count, num_fields) plausible observations."""
        return np.array([list(self.example.values())] * count, dtype=np.float64)


def _env_actions(env: EnvDescription) -> tuple[Action, ...]:
    """A rule has no table of its own; where it chooses an action, that is one of its environment's."""
    return () if env.commands_targets else env.actions


def _fallback(spec: PolicySpec, env: EnvDescription) -> Policy | None:
    """The HPA for the same observation, if its environment can be scaled with one."""
    if not env.commands_targets:
        return None
    try:
        rule = make_rule("hpa", env).without_memory()
    except ArtifactError:
        return None
    return rule if [f.name for f in rule.spec.observation_fields] == [f.name for f in spec.observation_fields] else None


def _unique_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Two moves may round to the same words; an answer keyed by them needs each once."""
    return tuple(f"{label} (action {i})" if labels.count(label) > 1 else label for i, label in enumerate(labels))
