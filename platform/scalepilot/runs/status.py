"""run.json: what a run, a trial or a sweep says of itself, as a typed record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StrictFloat, TypeAdapter

from scalepilot.files.stored import checked_record, read_mapping

STATUS_FILE = "run.json"
# What comes later may know more keys; of those that are read here the types are certain.
_TYPED = ConfigDict(extra="ignore")
Count = Annotated[int, Field(ge=0, strict=True)]
Seconds = Annotated[float, Field(ge=0, strict=True)]


@dataclass(frozen=True)
class TrainingStatus:
    """What training came to."""

    __pydantic_config__: ClassVar[ConfigDict] = _TYPED

    env_steps: Count | None = None
    train_seconds: Seconds | None = None
    best_value: StrictFloat | None = None


@dataclass(frozen=True)
class ProcessStatus:
    """Who wrote it last."""

    __pydantic_config__: ClassVar[ConfigDict] = _TYPED

    pid: Annotated[int, Field(ge=1, strict=True)]
    host: str


@dataclass(frozen=True)
class TrialStatus:
    """A trial's place in its sweep."""

    __pydantic_config__: ClassVar[ConfigDict] = _TYPED

    point: dict[str, Any]
    seed: Count
    attempts: Count = 1
    total_env_steps: Count | None = None


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to: the score is minimised, the value is the same as a person reads it."""

    __pydantic_config__: ClassVar[ConfigDict] = _TYPED

    score: StrictFloat | None = None
    value: StrictFloat | None = None


@dataclass(frozen=True)
class TrialChange:
    """A change of a trial's settings while it trained."""

    __pydantic_config__: ClassVar[ConfigDict] = _TYPED

    env_steps: Count
    point: dict[str, Any]


@dataclass(frozen=True)
class DeployStatus:
    """What the run recommends to deploy."""

    __pydantic_config__: ClassVar[ConfigDict] = _TYPED

    name: str
    origin: str = ""
    reason: str = ""


@dataclass(frozen=True)
class RunStatus:
    """Everything that is read of a run.json."""

    __pydantic_config__: ClassVar[ConfigDict] = _TYPED

    status: Literal["running", "evaluating", "interrupted", "failed", "stopped", "finished"]
    training: TrainingStatus | None = None
    process: ProcessStatus | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    git_sha: str | None = None
    modules: dict[str, str] = field(default_factory=dict)
    error: str = ""
    resumed: list[dict[str, Any]] = field(default_factory=list)
    deploy: DeployStatus | None = None
    validation_J_per_hour: dict[str, StrictFloat] = field(default_factory=dict)
    sweep: TrialStatus | None = None
    result: TrialResult | None = None
    changes: list[TrialChange] = field(default_factory=list)


_STATUS: TypeAdapter[RunStatus] = TypeAdapter(RunStatus)


def read_status(folder: Path) -> Mapping[str, Any]:
    """What a folder's run.json holds, the types of `RunStatus` checked; {} where there is none.

    Raises:
        InputError: it is damaged.
    """
    path = folder / STATUS_FILE
    if not os.path.lexists(path):
        return {}
    values = read_mapping(path)
    checked_record(values, _STATUS, str(path))
    return values


def read_run_status(folder: Path) -> RunStatus | None:
    """The same as a record; None where there is none.

    Raises:
        InputError: it is damaged.
    """
    values = read_status(folder)
    return checked_record(values, _STATUS, str(folder / STATUS_FILE)) if values else None
