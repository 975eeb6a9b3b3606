"""A file that holds a number of replicas, for whatever reads it: a script, the twin, a system without an API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Section
from scalepilot.errors import InputError
from scalepilot.files.atomic import write_bytes
from scalepilot.files.ownership import check_own
from scalepilot.files.stored import read_text
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import TargetContext, Written
from scalepilot_envs.autoscale.params import MAX_REPLICAS

_MAX_BYTES = 64


@dataclass(frozen=True)
class FileSettings(Section):
    """Keys of `target` with `kind: file`.

    Attributes:
        path: of a file with one whole number: the replicas asked for. It is written in one step.
        ready_path: of a file with the replicas that serve; null where all that are asked for do.
    """

    path: str
    ready_path: str | None = None


_SETTINGS: TypeAdapter[FileSettings] = TypeAdapter(FileSettings)


class FileTarget:
    """Replicas in a file.

    Args:
        settings: which.
    """

    def __init__(self, settings: FileSettings) -> None:
        self._path = Path(settings.path)
        self._ready_path = None if settings.ready_path is None else Path(settings.ready_path)

    @property
    def name(self) -> str:
        """The file."""
        return f"file {self._path}"

    def read(self, now: float) -> Replicas:
        """What the file says."""
        try:
            spec = _number(self._path)
        except InputError as error:
            return Replicas(None, problem=str(error))
        if self._ready_path is None:
            return Replicas(spec, spec, ())
        try:
            return Replicas(spec, _number(self._ready_path))
        except InputError as error:
            return Replicas(spec, problem=str(error))

    def write(self, replicas: int, expected: int) -> Written:
        """Replace the number, if it is still the expected one."""
        try:
            found = _number(self._path)
            if found != expected:
                return Written("refused", found, f"{self._path} holds {found}, not {expected}")
            write_bytes(self._path, f"{replicas}\n".encode())
        except InputError as error:
            return Written("unknown", detail=str(error))
        except OSError as error:
            return Written("forbidden", detail=f"{self._path}: {error.strerror}")
        return Written("written", replicas)

    def tell(self, reason: str, message: str) -> None:
        """A file has no place for notes."""

    def check(self, *, dry_run: bool) -> list[str]:
        """Whether it can be read, and belongs to us alone where it is written."""
        try:
            _number(self._path)
            if not dry_run:
                check_own(self._path, "target.path")
        except InputError as error:
            return [str(error)]
        return []

    def close(self) -> None:
        """Nothing to let go."""


def _number(path: Path) -> int:
    text = read_text(path, _MAX_BYTES).strip()
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_REPLICAS):
        raise InputError(f"{path}: {text[:20]!r} is not allowed; allowed: one whole number of replicas, to {MAX_REPLICAS}")
    return int(text)


def make(settings: Mapping[str, Any], context: TargetContext) -> FileTarget:
    """The target of these settings.

    Raises:
        ConfigError: a key or value that is not allowed.
    """
    return FileTarget(checked(FileSettings, _SETTINGS, dict(settings), "target"))
