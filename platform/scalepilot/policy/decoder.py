"""From an action index to a decision: the move it means, applied to the replicas shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy.fields import BOUNDS, FieldView
from scalepilot.policy.protocol import Decision
from scalepilot.policy.spec import ActionEntry, PolicySpec, env_of
from scalepilot_envs.autoscale import Move, MoveTable
from scalepilot_envs.description import Action, EnvDescription


class ActionDecoder:
    """What an environment's actions mean.

    Args:
        env: its action table, bounds and signals.
        view: of its observation.

    Raises:
        ValueError: a move of the table does not make sense.
    """

    def __init__(self, env: EnvDescription, view: FieldView) -> None:
        self._view = view
        plain = any(a.kind == "plain" for a in env.actions) or "total_replicas" not in env.signals
        self._table = None if plain else MoveTable(Move(a.kind, a.size) for a in env.actions)  # type: ignore[arg-type]
        self._bounds = env.replica_bounds

    def decision(self, observation: NDArray[Any], action: NDArray[Any]) -> Decision:
        """The decision of actions (n,) or (n, k); without replicas where the environment has none or does not show them."""
        if self._table is None:
            return Decision(action=action)
        desired = self.targets(action, self._view.total(observation))
        if self._view.shows_bounds:
            # A client may say 6.5: replicas are whole, and within what it said.
            low, high = (self._view.column(observation, name) for name in BOUNDS)
            desired = np.clip(desired, np.ceil(low), np.floor(high))
        return Decision(desired, action)

    @property
    def moves_replicas(self) -> bool:
        """Whether an action and the replicas shown name a target."""
        return self._table is not None

    def targets(self, action: NDArray[Any], total_replicas: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) replicas that actions (n,) mean where total_replicas (n,) run or start, within the environment's bounds."""
        assert self._table is not None
        return np.clip(self._table.targets(action, total_replicas), *self._bounds)


def in_replicas(decision: Decision, actions: Sequence[ActionEntry], replicas: int) -> Decision:
    """What a policy's action means where so many replicas are asked for.

    Args:
        decision: as it is where it names replicas already, or its actions move none.
        actions: the policy's table.
        replicas: asked for now.
    """
    chosen = decision.action
    if decision.desired_replicas is not None or chosen is None or chosen.ndim != 1 or not moves(actions):
        return decision
    table = MoveTable(Move(a.kind, a.size) for a in actions)  # type: ignore[arg-type]
    return replace(decision, desired_replicas=np.asarray(table.targets(chosen, np.full(len(chosen), float(replicas)))))


def moves(actions: Sequence[ActionEntry] | Sequence[Action]) -> bool:
    """Whether every action of a table is a move of replicas."""
    return bool(actions) and all(a.kind != "plain" for a in actions)


class MoveDecoder:
    """Turns scores into decisions by a policy's own action table.

    Args:
        spec: its environment, fields and action table.

    Attributes:
        actions: what its actions mean.

    Raises:
        ArtifactError: the action table does not make sense, or the environment's parameters are not allowed.
    """

    def __init__(self, spec: PolicySpec) -> None:
        try:
            env = replace(env_of(spec), actions=tuple(Action(a.kind, a.size, a.label, a.value) for a in spec.actions))
            self.actions = ActionDecoder(env, FieldView(spec.observation_fields, env.signals))
            self._box = [np.array([getattr(c, side) for c in spec.components], np.float32) for side in ("low", "high")]
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{spec.name}: actions: {error}") from None

    def decision(
        self, observation: NDArray[Any], scores: NDArray[np.float32], action: NDArray[np.int64] | None = None
    ) -> Decision:
        """The decision for `action` (n,), the greedy one if None.

        Args:
            observation: (n, num_fields).
            scores: (n, num_actions), or a continuous action (n, k) itself.
            action: (n,) indices of the action table.
        """
        if len(self._box[0]):
            return self.actions.decision(observation, np.clip(scores, *self._box))
        chosen = scores.argmax(axis=1) if action is None else action
        return replace(self.actions.decision(observation, chosen), scores=scores)
