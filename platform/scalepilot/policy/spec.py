"""The description of a policy: what `policy.json` holds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.description import Action, ActionComponent, EnvDescription, ObservationField, is_mask
from scalepilot_envs.foreign import ForeignParams
from scalepilot_envs.registration import find_env, is_own

SCHEMA_VERSION = 1
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What a network multiplies the bytes of an image by, first of all.
IMAGE_SCALE = 1.0 / 255.0
# Wider bounds are those of a number format.
_WIDE = 1e30
DecisionRule = Literal["target", "argmax_p", "argmax_q", "sample", "box"]
Kind = Literal["network", "table", "rule"]


@dataclass(frozen=True)
class ActionEntry:
    """One row of the action table.

    Attributes:
        index: of the row.
        kind, size, label: the move it means ("plain": none) and what a person reads; as in `Action`.
        value: what the environment takes; None where that is the index.
    """

    index: int
    kind: Literal["absolute", "relative", "plain"]
    size: float
    label: str
    value: Any = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not math.isfinite(self.size):
            raise ValueError(f"action {self.index}: size {self.size} is not allowed; allowed: finite numbers")


@dataclass(frozen=True)
class FieldEntry:
    """One observation field with unit and bounds.

    Attributes:
        name, unit, low, high, description, promql, dtype, shape, axes: as in `ObservationField`.
        scale: what the network multiplies it by, first of all.
    """

    name: str
    unit: str
    low: float
    high: float
    description: str = ""
    promql: str = ""
    dtype: Literal["float32", "uint8"] = "float32"
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    scale: float = 1.0

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"observation field {self.name}: bounds {self.low} to {self.high}; allowed: finite, low <= high")
        lengths = (len(self.shape), len(self.axes))
        if lengths not in ({(3, 3)} if self.dtype == "uint8" else {(0, 0), (3, 3)}):
            raise ValueError(
                f"observation field {self.name}: dtype {self.dtype} with shape {list(self.shape)} and axes {list(self.axes)};"
                " allowed: a float32 number without either, or a uint8 or float32 image with three of each"
            )

    @classmethod
    def of(cls, observed: ObservationField) -> FieldEntry:
        """From the environment's field."""
        return cls(**observed.to_json(), scale=image_scale(observed) if observed.shape else 1.0)


def image_scale(image: ObservationField) -> float:
    """What brings an image's values to a size of 1: bytes by 1/255, numbers by their bounds where they have any."""
    largest = max(abs(image.low), abs(image.high))
    return IMAGE_SCALE if image.dtype == "uint8" else 1.0 / largest if 0.0 < largest < _WIDE else 1.0


def unmasked(fields: Sequence[FieldEntry]) -> tuple[FieldEntry, ...]:
    """The fields but those that say which actions are valid."""
    return tuple(f for f in fields if not is_mask(f.name))


@dataclass(frozen=True)
class ComponentEntry:
    """One number of a continuous action with unit and bounds."""

    name: str
    unit: str
    low: float
    high: float

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"action component {self.name}: bounds {self.low} to {self.high}; allowed: finite, low < high")


@dataclass(frozen=True)
class PolicySpec:
    """Everything about a policy but its weights.

    Attributes:
        name: letters, digits, '.', '_', '-'.
        version: likewise.
        kind: network (model.onnx), table (table.npz) or rule (nothing else).
        env_id: the environment it was made for.
        env_params: that environment's full parameters.
        observation_fields: in the order of the observation vector, or one image.
        actions: the action table; empty for rules and continuous actions.
        decision_rule: how scores become a decision; "target" for rules; "box": the network's output is the action.
        rule: {"name", "parameters"} for rules.
        provenance: algorithm, config, seed, steps, versions, date.
        evaluation: summary of the evaluation, if any.
        files: name → sha256 of every other file in the folder.
        components: of a continuous action; empty for all others.
        env_options: the environment's other arguments, where they change what it shows.
        signature: {"algorithm": "ed25519", "value": base64} over everything else here; None where nobody signed.
    """

    name: str
    version: str
    kind: Kind
    env_id: str
    env_params: dict[str, Any]
    observation_fields: tuple[FieldEntry, ...]
    actions: tuple[ActionEntry, ...] = ()
    decision_rule: DecisionRule = "target"
    rule: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    components: tuple[ComponentEntry, ...] = ()
    env_options: dict[str, Any] = field(default_factory=dict)
    signature: dict[str, str] | None = None
    schema_version: int = SCHEMA_VERSION

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        for what, value in (("name", self.name), ("version", self.version)):
            if not NAME_PATTERN.fullmatch(value):
                raise ValueError(f"{what}: {value[:80]!r} is not allowed; allowed: 1–64 letters, digits, '.', '_', '-'")
        names = [f.name for f in self.observation_fields]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"observation_fields: {twice[:80]!r} is given twice; allowed: every field once")
        if [a.index for a in self.actions] != list(range(len(self.actions))):
            raise ValueError(f"actions: indices {[a.index for a in self.actions]} are not allowed; allowed: 0, 1, 2 … in order")
        if (self.decision_rule == "box") != bool(self.components) or (self.components and self.actions):
            raise ValueError(
                f"decision_rule: {self.decision_rule!r} with {len(self.components)} components and {len(self.actions)} actions;"
                " allowed: 'box' with components alone, any other without"
            )
        if self.num_masked not in (0, len(self.actions)) and self.kind != "rule":
            raise ValueError(f"observation_fields: {self.num_masked} of an action mask; allowed: none, or {len(self.actions)}")
        if not all(is_mask(f.name) for f in self.observation_fields[len(self.observation_fields) - self.num_masked :]):
            raise ValueError("observation_fields: those of the action mask are not the last; allowed: one an action, in the end")
        if self.image is None and any(f.shape for f in self.observation_fields):
            raise ValueError("observation_fields: an image beside other fields; allowed: one image, or numbers")
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version: {self.schema_version} is not allowed; allowed: {SCHEMA_VERSION}")

    # Asked for at every decision; a frozen dataclass does not change.
    @cached_property
    def num_masked(self) -> int:
        """Actions of which the observation says whether they are valid, in its last fields; 0 where it says nothing."""
        return sum(is_mask(f.name) for f in self.observation_fields)

    @property
    def image(self) -> FieldEntry | None:
        """The field of a policy that looks at images."""
        fields = self.observation_fields
        return fields[0] if len(fields) == 1 and fields[0].shape else None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Of one observation: (num_fields,), or an image's."""
        return (len(self.observation_fields),) if self.image is None else self.image.shape

    @property
    def observation_dtype(self) -> str:
        """What the network takes: float32, or uint8 for an image of bytes."""
        return "float32" if self.image is None else self.image.dtype

    @property
    def num_outputs(self) -> int:
        """Scores of actions, or components of one."""
        return len(self.components or self.actions)

    def with_evaluation(self, evaluation: dict[str, Any]) -> PolicySpec:
        """The same description with another evaluation summary; a signature would no longer hold."""
        return replace(self, evaluation=evaluation, signature=None)


def env_fields(env: EnvDescription) -> tuple[FieldEntry, ...]:
    """An environment's fields as a policy stores them."""
    return tuple(FieldEntry.of(f) for f in env.fields)


def env_actions(env: EnvDescription) -> tuple[ActionEntry, ...]:
    """An environment's actions as a policy stores them."""
    return tuple(ActionEntry(i, a.kind, a.size, a.label, a.value) for i, a in enumerate(env.actions))


def env_components(env: EnvDescription) -> tuple[ComponentEntry, ...]:
    """The components of an environment's continuous action as a policy stores them."""
    return tuple(_component(c) for c in env.components)


def _component(component: ActionComponent) -> ComponentEntry:
    return ComponentEntry(component.name, component.unit, component.low, component.high)


def env_of(spec: PolicySpec) -> EnvDescription:
    """What a policy knows of the environment it was made for.

    Ours has signals and bounds that no artifact holds. Of another one a network or a table says all there is to know, so that
    it acts where the environment is not installed, and loading an artifact imports nothing that it names.

    Raises:
        ValueError: there is no such environment.
        TypeError: it does not take these parameters.
    """
    if not is_own(spec.env_id) and spec.kind != "rule":
        return EnvDescription(
            spec.env_id,
            ForeignParams(),
            tuple(_observed(f) for f in spec.observation_fields),
            tuple(Action(a.kind, a.size, a.label, a.value) for a in spec.actions),
            "as the environment gives it",
            "as it says itself",
            components=tuple(ActionComponent(c.name, c.unit, c.low, c.high) for c in spec.components),
            options=spec.env_options,
        )
    return find_env(spec.env_id).describe(spec.env_params, **spec.env_options)


def _observed(f: FieldEntry) -> ObservationField:
    return ObservationField(f.name, f.unit, f.low, f.high, f.description, f.promql, f.dtype, f.shape, f.axes)


def autoscale_fields(params: AutoscaleParams) -> tuple[FieldEntry, ...]:
    """The fields of Autoscale-v0 as a policy stores them."""
    return env_fields(describe_autoscale(params))
