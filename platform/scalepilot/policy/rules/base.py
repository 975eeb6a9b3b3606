"""What all rules share: parameters that may differ by row, so that a search runs many candidates in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy.fields import FieldView
from scalepilot.policy.protocol import Decision, State
from scalepilot.policy.spec import PolicySpec, env_fields
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.description import EnvDescription

ParametersT = TypeVar("ParametersT")
Array = NDArray[np.float64]
# Readings come as float32. What exceeds a threshold by less than this share meets it: 0.6 / 0.5 × 10 are 12 replicas, not 13.
SLACK = 1e-6


def ceil(replicas: Array) -> Array:
    """⌈replicas⌉, forgiving what rounding added."""
    whole: Array = np.ceil(replicas * (1.0 - SLACK))
    return whole


class Rule(Generic[ParametersT]):
    """A rule over named fields: a pure function of observation and state.

    Where an environment takes targets (Autoscale), a rule commands one; elsewhere it chooses the action that goes one
    replica in its direction.

    Args:
        parameters: one set for all rows, or one a row (then every call must have that many rows).
        env: the environment it scales; `AutoscaleParams` stand for Autoscale-v0.
        name: of the policy; the rule's own name if None.
        version: of the policy.
        provenance: how the parameters were found.

    Class attributes:
        rule_name: key in RULES.
        parameters_type: its frozen dataclass.
        signals: quantities it reads; an environment that does not show one is refused.
        fields: the same for fields read by name.
        revision: counts up when the same parameters decide otherwise than before.
        short_names: what the command line may call a parameter beside its own name.
    """

    rule_name: ClassVar[str]
    parameters_type: ClassVar[type]
    signals: ClassVar[tuple[str, ...]] = ()
    fields: ClassVar[tuple[str, ...]] = ()
    revision: ClassVar[int] = 1
    short_names: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        parameters: ParametersT | Sequence[ParametersT],
        env: EnvDescription | AutoscaleParams,
        *,
        name: str | None = None,
        version: str = "1",
        provenance: dict[str, Any] | None = None,
    ) -> None:
        rows: list[ParametersT] = list(parameters) if isinstance(parameters, list | tuple) else [parameters]  # type: ignore[list-item]
        self.env = env if isinstance(env, EnvDescription) else describe_autoscale(env)
        self.parameters = rows[0]
        self._rows = rows
        self._columns: dict[str, NDArray[Any]] = {}
        self.spec = PolicySpec(
            name=name or self.rule_name,
            version=version,
            kind="rule",
            env_id=self.env.env_id,
            env_params=asdict(self.env.params),
            env_options=dict(self.env.options),
            observation_fields=env_fields(self.env),
            rule={"name": self.rule_name, "parameters": asdict(rows[0])} | self._revised(),  # type: ignore[call-overload]
            provenance=provenance or {},
        )
        self.view = FieldView(self.spec.observation_fields, self.env.signals)
        shown = {*self.env.signals, *(f.name for f in self.env.fields)}
        for needed in (*self.signals, *self.fields):
            if needed not in shown:
                raise ArtifactError(f"rule: {self.rule_name} reads {needed}, which {self.env.env_id} does not show")
        self._bounds = self.env.replica_bounds
        self._action_of_move = {int(a.size): i for i, a in enumerate(self.env.actions) if a.kind == "absolute"}
        if not self.env.commands_targets and not {-1, 0, 1} <= set(self._action_of_move) and self.rule_name != "random":
            raise ArtifactError(f"rule: {self.rule_name} moves replicas, and {self.env.env_id} has none")

    @classmethod
    def _revised(cls) -> dict[str, Any]:
        return {"revision": cls.revision} if cls.revision > 1 else {}

    @staticmethod
    def parameters_from_json(values: dict[str, Any]) -> dict[str, Any]:
        """Stored parameters with nested parts as their own types."""
        return values

    @property
    def made_with_revision(self) -> int:
        """The rule's `revision` when its artifact was stored; today's where it was not."""
        revision = (self.spec.rule or {}).get("revision", 1)
        return revision if isinstance(revision, int) else 1

    @property
    def interval_seconds(self) -> float:
        """Seconds between two decisions."""
        return self.env.interval_seconds

    def by_row(self, name: str) -> NDArray[Any]:
        """A parameter as (1,) or (n,) array."""
        if name not in self._columns:
            self._columns[name] = np.array([getattr(p, name) for p in self._rows])
        return self._columns[name]

    def steps_by_row(self, name: str) -> NDArray[np.int64]:
        """A time parameter in whole decision steps, at least one."""
        return np.maximum(1, (self.by_row(name) / self.interval_seconds * (1 + SLACK)).astype(np.int64))

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """Decide; see `Policy.act`. Rules never sample."""
        self.check_rows(observation)
        return self.decide(observation, state)

    def decide(self, observation: NDArray[Any], state: State | None) -> tuple[Decision, State | None]:
        """Decide for a batch whose rows were checked: here, the target that `desired` names."""
        desired, state = self.desired(observation, state)
        return self.decision(observation, desired), state

    def check_rows(self, observation: NDArray[Any]) -> None:
        """Refuse observations that are not one a parameter set."""
        if len(self._rows) not in (1, len(observation)):
            raise ValueError(f"observation: {len(observation)} rows for {len(self._rows)} parameter sets")

    def decision(self, observation: NDArray[Any], desired: Array) -> Decision:
        """A target where the environment takes one, else the action that goes its way."""
        if self.env.commands_targets:
            return Decision(desired_replicas=np.clip(desired, *self._bounds))
        return self.decision_of_moves(observation, desired - self.view.signal("total_replicas", observation))

    def decision_of_moves(self, observation: NDArray[Any], moves: Array) -> Decision:
        """The decision that moves by so many replicas (n,), one at most where the environment takes actions."""
        if self.env.commands_targets:
            return Decision(desired_replicas=np.clip(self.view.total(observation) + moves, *self._bounds))
        action = np.array([self._action_of_move[move] for move in (-1, 0, 1)])[np.sign(moves).astype(np.int64) + 1]
        if "total_replicas" not in self.env.signals:
            return Decision(action=action)
        return Decision(self.view.signal("total_replicas", observation) + np.sign(moves), action)

    def without_memory(self) -> Rule[ParametersT]:
        """The rule for observations that have no before and after: what it asks for when nothing has to be waited for."""
        return self

    @staticmethod
    def remembered(state: State, name: str, shape: tuple[int, ...]) -> Array:
        """A column of the state, which a client may have sent.

        Raises:
            ValueError: missing, of another shape, or not finite.
        """
        if name not in state:
            raise ValueError(f"state.{name}: is missing; allowed: the state of the last answer, or none")
        column = np.asarray(state[name], dtype=np.float64)
        if column.shape != shape or not np.isfinite(column).all():
            what = f"shape {column.shape}" if column.shape != shape else "a value that is not finite"
            raise ValueError(f"state.{name}: {what} is not allowed; allowed: finite numbers {shape}")
        return column

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[Array, State | None]:
        """Unbounded targets (n,) and the next state."""
        raise NotImplementedError


class MoveRule(Rule[ParametersT]):
    """A rule that only says which way: it needs no count of replicas."""

    def decide(self, observation: NDArray[Any], state: State | None) -> tuple[Decision, State | None]:
        """The way that `moves` names."""
        moves, state = self.moves(observation, state)
        return self.decision_of_moves(observation, moves), state

    def moves(self, observation: NDArray[Any], state: State | None) -> tuple[Array, State | None]:
        """Replicas to add or remove (n,) and the next state."""
        raise NotImplementedError


def parameters_from_json(parameters_type: type, values: Any) -> Any:
    """Build a rule's parameters from an artifact; lists become tuples.

    Raises:
        ArtifactError: unknown, missing or unfit parameters.
    """
    assert is_dataclass(parameters_type)
    allowed = {f.name for f in fields(parameters_type)}
    if not isinstance(values, dict) or set(values) - allowed:
        raise ArtifactError(f"rule.parameters: {values!r} is not allowed; allowed keys: {', '.join(sorted(allowed))}")
    try:
        return parameters_type(**{name: _frozen(value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"rule.parameters: {error}") from None


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
