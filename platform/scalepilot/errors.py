"""Every error a user may cause or meet.

ScalepilotError                what the command line turns into one line and an exit code
├── InputError                 a bad config, file, argument or request: exit 2, HTTP 4xx
│   ├── ConfigError            a key or value of an experiment's YAML
│   ├── ArtifactError          a policy folder that is damaged, foreign or does not fit
│   ├── serve.errors.RequestError   an HTTP request that is not answered with a 200
│   └── ObservationError       an observation with missing, unknown or out-of-range fields
└── RunError                   something failed while running: exit 1
    ├── EnvironmentFailedError  an environment that fails again and again, hangs or never ends: exit 2
    └── LearnerLostError       a learner's process or node died; training can go on from a checkpoint
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScalepilotError(Exception):
    """Base of all; `str()` is the one line a person reads."""

    exit_code = 1


class InputError(ScalepilotError):
    """The caller gave something that is not allowed; the message names field, value and what is allowed."""

    exit_code = 2


class ConfigError(InputError):
    """A key or value of an experiment's configuration."""


class ArtifactError(InputError):
    """A policy artifact that cannot be used as asked."""


class ObservationError(InputError):
    """An observation that does not match the policy's fields.

    Args:
        message: one line.
        problems: one entry a field: {"field", "problem", "unit", "low", "high"}.
    """

    def __init__(self, message: str, problems: list[dict[str, object]] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or []


class RunError(ScalepilotError):
    """A run that could not go on."""


class EnvironmentFailedError(RunError):
    """An environment that fails again and again, hangs or never ends; it is what was given, so the exit code is that of input."""

    exit_code = 2


class LearnerLostError(RunError):
    """The process of a learner, or its node, died."""


__all__ = [
    "ArtifactError",
    "ConfigError",
    "EnvironmentFailedError",
    "InputError",
    "LearnerLostError",
    "ObservationError",
    "RunError",
    "ScalepilotError",
    "did_you_mean",
    "printable",
]


def printable(text: str) -> str:
    """A text as one line that commands no terminal: whoever made a file, a name or an argument may have put escapes in it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(given: object, allowed: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message: "; did you mean kpa?" where a name comes near, else nothing."""
    near = difflib.get_close_matches(str(given), list(allowed), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""
