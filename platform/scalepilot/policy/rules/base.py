"""What all rules share: parameters that may differ by row, so that a search runs many candidates in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy.fields import FieldView
from scalepilot.policy.protocol import Decision, State
from scalepilot.policy.spec import PolicySpec, autoscale_fields
from scalepilot_envs.autoscale import ENV_ID, AutoscaleParams

ParametersT = TypeVar("ParametersT")
# Readings come as float32. What exceeds a threshold by less than this share meets it: 0.6 / 0.5 × 10 are 12 replicas, not 13.
SLACK = 1e-6


def ceil(replicas: NDArray[np.float64]) -> NDArray[np.float64]:
    """⌈replicas⌉, forgiving what rounding added."""
    whole: NDArray[np.float64] = np.ceil(replicas * (1.0 - SLACK))
    return whole


class Rule(Generic[ParametersT]):
    """A rule over named fields: a pure function of observation and state that commands a target.

    Args:
        parameters: one set for all rows, or one a row (then every call must have that many rows).
        env_params: the service it scales.
        name: of the policy; the rule's own name if None.
        version: of the policy.
        provenance: how the parameters were found.

    Class attributes:
        rule_name: key in RULES.
        parameters_type: its frozen dataclass.
    """

    rule_name: ClassVar[str]
    parameters_type: ClassVar[type]

    def __init__(
        self,
        parameters: ParametersT | Sequence[ParametersT],
        env_params: AutoscaleParams,
        *,
        name: str | None = None,
        version: str = "1",
        provenance: dict[str, Any] | None = None,
    ) -> None:
        rows: list[ParametersT] = list(parameters) if isinstance(parameters, list | tuple) else [parameters]  # type: ignore[list-item]
        self.env_params = env_params
        self.parameters = rows[0]
        self._rows = rows
        self.spec = PolicySpec(
            name=name or self.rule_name,
            version=version,
            kind="rule",
            env_id=ENV_ID,
            env_params=asdict(env_params),
            observation_fields=autoscale_fields(env_params),
            rule={"name": self.rule_name, "parameters": asdict(rows[0])},  # type: ignore[call-overload]
            provenance=provenance or {},
        )
        self.view = FieldView(self.spec.observation_fields)

    def by_row(self, name: str) -> NDArray[Any]:
        """A parameter as (1,) or (n,) array."""
        return np.array([getattr(p, name) for p in self._rows])

    def steps_by_row(self, name: str) -> NDArray[np.int64]:
        """A time parameter in whole decision steps, at least one."""
        return np.maximum(1, (self.by_row(name) / self.env_params.interval_seconds).astype(np.int64))

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """Decide; see `Policy.act`. Rules never sample."""
        if len(self._rows) not in (1, len(observation)):
            raise ValueError(f"observation: {len(observation)} rows for {len(self._rows)} parameter sets")
        desired, state = self.desired(observation, state)
        bounded = np.clip(desired, self.env_params.min_replicas, self.env_params.max_replicas)
        return Decision(desired_replicas=bounded), state

    @staticmethod
    def remembered(state: State, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
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

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[NDArray[np.float64], State | None]:
        """Unbounded targets (n,) and the next state."""
        raise NotImplementedError


def parameters_from_json(parameters_type: type, values: Any) -> Any:
    """Build a rule's parameters from an artifact.

    Raises:
        ArtifactError: unknown, missing or unfit parameters.
    """
    assert is_dataclass(parameters_type)
    allowed = {f.name for f in fields(parameters_type)}
    if not isinstance(values, dict) or set(values) - allowed:
        raise ArtifactError(f"rule.parameters: {values!r} is not allowed; allowed keys: {', '.join(sorted(allowed))}")
    try:
        return parameters_type(**values)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"rule.parameters: {error}") from None
