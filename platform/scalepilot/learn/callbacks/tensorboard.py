"""The metrics as TensorBoard's scalars."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from scalepilot.learn.callbacks.base import Callback, PolicyNow, Row
from scalepilot.runs.metrics import TAGS

_NO_SCALARS = ("iteration", "env_steps")
_VERSION = "brain.Event:2"
# Where an event file's first iteration is found, behind its hyperparameters.
_HEAD_BYTES = 2**20
# What the HParams page shows beside the hyperparameters; a run has those that its environment has.
_RESULTS = ("validation_J_per_hour", "validation_return", "episode_return_mean")
# Sections that say where and how a run is kept, not what is trained.
_NOT_TRAINED = ("name", "output", "resources", "checkpoints", "tracking", "evaluation")


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an experiment as TensorBoard's HParams page takes them: dotted keys, numbers, words and flags."""
    found: dict[str, Any] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                add(f"{key}.{name}", inner)
        elif isinstance(value, bool | int | float | str):
            found[key] = value
        elif value is not None:
            found[key] = str(value)

    for section, value in config.items():
        if section not in _NOT_TRAINED:
            add(section, value)
    return found


class TensorBoard(Callback):
    """Writes one event an iteration, env_steps as its step.

    Only TensorBoard's formats are used: the packages' writers have a thread each, which on a full disk dies with a traceback.

    Args:
        folder: where.
        config: the experiment's settings, for the HParams page; None shows none.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self._hyperparameters = hyperparameters(config or {})
        self._file: BinaryIO | None = None
        self._tags: Mapping[str, str] = TAGS

    def on_begin(self, env_steps: int) -> None:
        """Open a file; what an earlier one holds beyond `env_steps` is hidden, for it is done again."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self.folder.mkdir(exist_ok=True)
        # A curve that changed its name half way would be two.
        self._tags = {} if _has_no_groups(self.folder) else TAGS
        name = f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (self.folder / name).open("wb", buffering=0)
        self._write(file_version=_VERSION)
        if env_steps:
            self._write(step=env_steps + 1, session_log=SessionLog(status=SessionLog.START))
        if self._hyperparameters:
            # Only who trains: tensorboardX imports torch where it is installed.
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboardX.summary import hparams

            for summary in hparams(self._hyperparameters, {self._tags.get(name, name): 0.0 for name in _RESULTS}):
                self._write(summary=Summary.FromString(summary.SerializeToString()))

    def on_iteration(self, row: Row, policy: PolicyNow) -> None:
        """One scalar a value."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=self._tags.get(name, name), simple_value=value)
            for name, value in row.items()
            if value is not None and name not in _NO_SCALARS
        ]
        self._write(step=int(row["env_steps"] or 0), summary=Summary(value=values))

    def on_decision(self, env_steps: int, row: Mapping[str, float]) -> None:
        """The same of one step on a live environment."""
        self.on_iteration({**row, "env_steps": env_steps}, _no_policy)

    def on_end(self, finished: bool) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, **event: Any) -> None:
        """One record: length, its checksum, the event, its checksum (TFRecord)."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

        assert self._file is not None
        data = Event(wall_time=time.time(), **event).SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.write(length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data)))


def _no_policy() -> Any:
    raise AssertionError


def _has_no_groups(folder: Path) -> bool:
    """Whether a run was begun by a version that wrote the names alone."""
    rate = "steps_per_second"
    for path in sorted(path for path in folder.glob("events.out.tfevents.*") if path.is_file()):
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if rate.encode() in head:
            return TAGS[rate].encode() not in head
    return False
