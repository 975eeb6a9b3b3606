"""Cells: one policy on one scenario's test episodes; run by any executor, kept as they end, never run twice."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import scalepilot.policy
import scalepilot.simulate.episode_runner as other_simulator
import scalepilot.simulate.episodes as simulator
import scalepilot_envs
from scalepilot.errors import ArtifactError, InputError
from scalepilot.files.atomic import write_bytes
from scalepilot.files.stored import read_arrays, table_schema
from scalepilot.policy import PackedPolicy, Policy, pack_policy
from scalepilot.simulate.env_notes import EnvNotes
from scalepilot.simulate.episodes import EpisodeResults, Playback
from scalepilot.simulate.executor import Executor
from scalepilot.simulate.scenario import CellResult, Episodes

_KEY = b"cell"
_COLUMN = "results."


@dataclass(frozen=True)
class Cell:
    """One policy on one scenario.

    Attributes:
        name: of the policy, for messages.
        actor: the policy, packed for another process, or a plan.
        episodes: to run through.
        playback: keep the steps of one episode where that can be shown.
        step_log: keep every step of every episode.
    """

    name: str
    actor: Any
    episodes: Episodes
    playback: bool = False
    step_log: bool = False

    @classmethod
    def of(cls, name: str, actor: Any, episodes: Episodes, **options: Any) -> Cell:
        """A cell whose policy is packed, so that any process can run it; one of a foreign kind stays as it is."""
        return cls(name, packed(actor) if isinstance(actor, Policy) else actor, episodes, **options)

    def __str__(self) -> str:
        return f"{self.name} on {self.episodes.name}"

    @property
    def key(self) -> str | None:
        """What its results depend on, as 64 hexadecimal digits; None for a policy whose content is not known."""
        if isinstance(self.actor, PackedPolicy):
            # What a policy is called and how it came to be does not change what it does.
            spec = {k: v for k, v in asdict(self.actor.spec).items() if k not in ("name", "version", "provenance", "evaluation")}
            who = json.dumps(spec, sort_keys=True, default=str)
        elif isinstance(self.actor, Policy):
            return None
        else:
            who = self.episodes.plan_digest(self.actor)
        what = [code_version(), who, self.episodes.digest(), self.playback]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def packed(policy: Policy) -> PackedPolicy | Policy:
    """A policy that any process can take; one of a foreign kind stays as it is."""
    try:
        return pack_policy(policy)
    except ArtifactError:
        return policy


def run_cell(cell: Cell) -> CellResult | InputError:
    """Run one cell; a policy that cannot be used is a result, too: the others go on."""
    try:
        actor = cell.actor.unpack() if isinstance(cell.actor, PackedPolicy) else cell.actor
        return cell.episodes.run(actor, playback=cell.playback, step_log=cell.step_log)
    except InputError as error:
        return error


@dataclass(frozen=True)
class CellStore:
    """Files of finished cells in a folder; each is there in full or not at all.

    Attributes:
        folder: holds `cells/KEY.npz`, and `steps/WORKLOAD/NAME.parquet` of cells with step logs.
        reuse: believe what lies there already.
    """

    folder: Path
    reuse: bool = False

    def load(self, cell: Cell) -> CellResult | None:
        """A finished cell; None where there is none, or a file that is damaged, foreign or lacks its step log."""
        key = cell.key
        if not self.reuse or key is None or (cell.step_log and not self._has_steps(cell, key)):
            return None
        index = cell.episodes.index
        try:
            arrays = read_arrays(self._file(key))
            if arrays["key"].tobytes() != key.encode():
                return None
            notes = EnvNotes.from_mapping(json.loads(arrays["notes"].tobytes()))
            columns = {name.removeprefix(_COLUMN): arrays[name] for name in arrays if name.startswith(_COLUMN)}
            results = EpisodeResults(arrays["window"], arrays["seed"], columns, notes)
            shown = cell.playback and cell.episodes.playback_of is not None
            playback = Playback(**{f.name: arrays[f"playback.{f.name}"] for f in fields(Playback)}) if shown else None
        except (InputError, KeyError, ValueError):
            return None
        lengths = {column.shape for column in columns.values()}
        steps = set() if playback is None else {getattr(playback, f.name).shape for f in fields(Playback)}
        if lengths != {(len(index),)} or steps not in (set(), {(cell.episodes.num_steps,)}):
            return None
        if not (np.array_equal(results.window, index.window) and np.array_equal(results.seed, index.seed)):
            return None
        return CellResult(results, playback)

    def store(self, cell: Cell, found: CellResult) -> None:
        """Write a cell; its step log first, so that a cell is never without.

        Raises:
            OSError: it cannot be written.
        """
        key = cell.key
        if found.steps is not None:
            # What runs policies and keeps no steps does not need it.
            import pyarrow as pa
            import pyarrow.parquet as pq

            sink = pa.BufferOutputStream()
            table = pa.table(dict(found.steps))
            pq.write_table(table.replace_schema_metadata({_KEY: (key or "").encode()}), sink, compression="zstd")
            self._write(self._steps_file(cell), sink.getvalue().to_pybytes())
        if key is None:
            return
        notes = json.dumps(found.results.notes.to_mapping()).encode()
        arrays: dict[str, Any] = {"key": np.frombuffer(key.encode(), np.uint8), "notes": np.frombuffer(notes, np.uint8)}
        arrays |= {"window": found.results.window, "seed": found.results.seed}
        arrays |= {f"{_COLUMN}{name}": np.asarray(column) for name, column in found.results.columns.items()}
        if found.playback is not None:
            arrays |= {f"playback.{f.name}": np.asarray(getattr(found.playback, f.name)) for f in fields(Playback)}
        data = io.BytesIO()
        np.savez(data, **arrays)
        self._write(self._file(key), data.getvalue())

    def _has_steps(self, cell: Cell, key: str) -> bool:
        try:
            metadata = table_schema(self._steps_file(cell)).metadata or {}
        except InputError:
            return False
        return bool(metadata.get(_KEY) == key.encode())

    def _file(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.npz"

    def _steps_file(self, cell: Cell) -> Path:
        names = (_file_name(cell.episodes.name), f"{_file_name(cell.name)}.parquet")
        return self.folder / "steps" / names[0] / names[1]

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)


def run_cells(
    cells: Sequence[Cell],
    executor: Executor,
    *,
    store: CellStore | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[CellResult | InputError]:
    """Run every cell that is not there yet.

    Args:
        cells: independent of each other.
        executor: does them.
        store: where finished cells are kept; None keeps nothing.
        progress: called with the number of episodes done.

    Returns:
        One entry a cell, in their order: what came of it, or why its policy cannot be used.
    """
    found: dict[int, CellResult | InputError] = {}
    for i, cell in enumerate(cells):
        stored = store.load(cell) if store else None
        if stored is not None:
            found[i] = stored
    missing = [i for i in range(len(cells)) if i not in found]

    def tell() -> None:
        if progress:
            progress(sum(len(cells[i].episodes) for i in found))

    tell()
    for index, result in executor.run(run_cell, [cells[i] for i in missing]):
        cell = cells[missing[index]]
        if store is not None and isinstance(result, CellResult):
            store.store(cell, result)
        found[missing[index]] = result
        tell()
    return [found[i] for i in range(len(cells))]


@cache
def code_version() -> str:
    """Changes with every change of what decides results: the simulators, the policies, and the libraries that compute them."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.name.encode() + path.read_bytes())
    for library in ("numpy", "onnxruntime"):
        digest.update(importlib.metadata.version(library).encode())
    return digest.hexdigest()


def _sources() -> Iterable[Path]:
    packages = [Path(p) for module in (scalepilot_envs, scalepilot.policy) for p in module.__path__]
    runners = [Path(str(module.__file__)) for module in (simulator, other_simulator)]
    return sorted([*(path for package in packages for path in package.rglob("*.py")), *runners])


def _file_name(text: str) -> str:
    """A label as a file name: nothing in it leaves the folder."""
    return "".join(c if c.isalnum() or c in "._-·#" else "_" for c in text).lstrip(".") or "_"
