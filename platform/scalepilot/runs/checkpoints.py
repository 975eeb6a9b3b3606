"""A run's checkpoints: complete or not there, the newest kept, read only by who owns them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, TypeAdapter

from scalepilot.files.atomic import remove_folder, remove_leftovers, replaced_folder
from scalepilot.files.ownership import check_own, check_own_tree
from scalepilot.files.stored import read_record

# The last file to be written: a folder of an older version without it was never finished.
LAST_FILE = "loop.json"


@dataclass(frozen=True)
class LoopState:
    """loop.json: where the training loop was."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    iteration: Annotated[int, Field(ge=0, strict=True)]
    train_seconds: Annotated[float, Field(ge=0, strict=True)]
    best_value: StrictFloat | None
    best_score: Annotated[list[StrictBool | StrictFloat], Field(min_length=2, max_length=2)] | None
    best_env_steps: Annotated[int, Field(ge=0, strict=True)]
    last_value: StrictFloat | None
    last_score: StrictFloat | None = None
    notes: dict[str, Any] | None = None


_LOOP: TypeAdapter[LoopState] = TypeAdapter(LoopState)


def read_loop(checkpoint: Path) -> LoopState:
    """Where the training loop was at a checkpoint.

    Raises:
        InputError: its loop.json is damaged.
    """
    return read_record(checkpoint / LAST_FILE, _LOOP)


class Checkpoints:
    """checkpoints/<iteration>/ of one run; one process writes at a time.

    Args:
        path: of the folder that holds them.
        num_to_keep: the newest stay.
    """

    def __init__(self, path: Path, num_to_keep: int) -> None:
        self.path, self.num_to_keep = path, num_to_keep

    def all(self) -> list[Path]:
        """The complete ones, oldest first."""
        if not self.path.exists():
            return []
        return sorted(
            (p for p in self.path.iterdir() if p.name.isdigit() and os.path.lexists(p / LAST_FILE)), key=lambda p: int(p.name)
        )

    def newest(self) -> Path | None:
        """The newest complete one."""
        return next(reversed(self.all()), None)

    @property
    def newest_iteration(self) -> int:
        """What the newest complete one is of; 0 without one."""
        newest = self.newest()
        return 0 if newest is None else int(newest.name)

    def write(self, iteration: int, fill: Callable[[Path], None]) -> Path:
        """Write one and remove the oldest.

        Args:
            iteration: it is of.
            fill: writes everything into the folder it is given.

        Returns:
            Its place.

        Raises:
            OSError: it cannot be written, such as on a full disk; those before it stay.
        """
        remove_leftovers(self.path)
        place = self.path / f"{iteration:06d}"
        with replaced_folder(place) as aside:
            fill(aside)
        for old in self.all()[: -self.num_to_keep]:
            with contextlib.suppress(OSError):
                remove_folder(old)
        return place

    def check_owner(self) -> None:
        """Refuse checkpoints that another user could change: RLlib's are pickles, and reading one runs what is in it.

        Raises:
            InputError: some file or folder, or the run's own, is within reach of others.
        """
        if self.path.exists():
            check_own_tree(self.path, "resume")
        for name in (".", "config.yaml", "run.json"):
            if (self.path.parent / name).exists():
                check_own(self.path.parent / name, "resume")
