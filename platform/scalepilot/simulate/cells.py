"""Cells: one policy on one workload's episodes; flown by any executor, kept as they end, never flown twice."""

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
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import scalepilot.policy
import scalepilot.simulate.episodes as simulator
import scalepilot_envs.autoscale
from scalepilot.errors import ArtifactError, InputError
from scalepilot.files.atomic import write_bytes
from scalepilot.files.stored import read_arrays, table_schema
from scalepilot.policy import PackedPolicy, Planner, Policy, pack_policy
from scalepilot.simulate.episodes import EpisodeResults, EpisodeSet, Playback, run_episodes
from scalepilot.simulate.executor import Executor
from scalepilot.simulate.step_log import StepLog, step_columns
from scalepilot_envs.autoscale import AutoscaleParams

_KEY = b"cell"


@dataclass(frozen=True)
class Cell:
    """One policy on one workload.

    Attributes:
        name: of the policy, for messages.
        actor: the policy, packed for another process, or a planner.
        episodes: what to fly through.
        params: the service.
        playback_of: episode whose steps to keep.
        step_log: keep every step of every episode.
    """

    name: str
    actor: PackedPolicy | Policy | Planner
    episodes: EpisodeSet
    params: AutoscaleParams
    playback_of: int | None = None
    step_log: bool = False

    @classmethod
    def of(cls, name: str, actor: Policy | Planner, *where: Any, **options: Any) -> Cell:
        """A cell whose policy is packed, so that any process can fly it; one of a foreign kind stays as it is."""
        return cls(name, packed(actor) if isinstance(actor, Policy) else actor, *where, **options)

    def __str__(self) -> str:
        return f"{self.name} on {self.episodes.workload}"

    @property
    def key(self) -> str | None:
        """What its results depend on, as 64 hexadecimal digits; None for a policy whose content is not known."""
        actor, episodes = self.actor, self.episodes
        if isinstance(actor, PackedPolicy):
            # What a policy is called and how it came to be does not change what it does.
            spec = {k: v for k, v in asdict(actor.spec).items() if k not in ("name", "version", "provenance", "evaluation")}
            digest = hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode())
        elif isinstance(actor, Planner):
            targets = actor.plan(episodes.rates_rps, self.params.replica_capacity_rps, self.params.startup_steps)
            digest = hashlib.sha256(_bytes_of(targets))
        else:
            return None
        digest.update(json.dumps([code_version(), asdict(self.params), self.playback_of], sort_keys=True).encode())
        for column in fields(EpisodeSet)[1:]:
            digest.update(_bytes_of(getattr(episodes, column.name)))
        return digest.hexdigest()


@dataclass(frozen=True)
class FlownCell:
    """What came of a cell.

    Attributes:
        results: one row an episode.
        playback: the episode asked for.
        steps: (columns of `StepLog`, n, num_steps) where asked for.
    """

    results: EpisodeResults
    playback: Playback | None = None
    steps: NDArray[np.float32] | None = None


def packed(policy: Policy) -> PackedPolicy | Policy:
    """A policy that any process can take; one of a foreign kind stays as it is."""
    try:
        return pack_policy(policy)
    except ArtifactError:
        return policy


def fly(cell: Cell) -> FlownCell | InputError:
    """Fly one cell; a policy that cannot be used is a result, too: the others go on."""
    try:
        actor = cell.actor.unpack() if isinstance(cell.actor, PackedPolicy) else cell.actor
        log = StepLog(len(cell.episodes), cell.episodes.num_steps) if cell.step_log else None
        results, playback = run_episodes(actor, cell.episodes, cell.params, playback_of=cell.playback_of, on_step=log)
    except InputError as error:
        return error
    return FlownCell(results, playback, log.steps if log else None)


@dataclass(frozen=True)
class CellStore:
    """Files of finished cells in a folder; each is there in full or not at all.

    Attributes:
        folder: holds `cells/KEY.npz`, and `steps/WORKLOAD/NAME.parquet` of cells with step logs.
        reuse: believe what lies there already.
    """

    folder: Path
    reuse: bool = False

    def load(self, cell: Cell) -> FlownCell | None:
        """A finished cell; None where there is none, or a file that is damaged, foreign or lacks its step log."""
        key = cell.key
        if not self.reuse or key is None or (cell.step_log and not self._has_steps(cell, key)):
            return None
        try:
            arrays = read_arrays(self._file(key))
            if arrays["key"].tobytes() != key.encode():
                return None
            parts = [{f.name: arrays[f"{part}.{f.name}"] for f in fields(kind)} for part, kind in self._parts(cell)]
        except (InputError, KeyError):
            return None
        n, steps = len(cell.episodes), cell.episodes.num_steps
        shapes = [{array.shape for array in part.values()} for part in parts]
        if shapes != [{(n,)}, {(steps,)}][: len(shapes)]:
            return None
        results = EpisodeResults(**parts[0])
        if not np.array_equal(results.window, cell.episodes.window) or not np.array_equal(results.seed, cell.episodes.seed):
            return None
        return FlownCell(results, Playback(**parts[1]) if len(parts) > 1 else None)

    def store(self, cell: Cell, flown: FlownCell) -> None:
        """Write a cell; its step log first, so that a cell is never without.

        Raises:
            OSError: it cannot be written.
        """
        key = cell.key
        if flown.steps is not None:
            self._store_steps(cell, flown.steps, key)
        if key is None:
            return
        arrays = {"key": np.frombuffer(key.encode(), np.uint8)}
        for (part, kind), value in zip(self._parts(cell), (flown.results, flown.playback), strict=False):
            arrays |= {f"{part}.{f.name}": np.asarray(getattr(value, f.name)) for f in fields(kind)}
        data = io.BytesIO()
        np.savez(data, **arrays)  # type: ignore[arg-type]
        self._write(self._file(key), data.getvalue())

    def _store_steps(self, cell: Cell, steps: NDArray[np.float32], key: str | None) -> None:
        table = pa.table(step_columns(cell.episodes, cell.params, steps))
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({_KEY: (key or "").encode()}), sink, compression="zstd")
        self._write(self._steps_file(cell), sink.getvalue().to_pybytes())

    def _has_steps(self, cell: Cell, key: str) -> bool:
        try:
            metadata = table_schema(self._steps_file(cell)).metadata or {}
        except InputError:
            return False
        return bool(metadata.get(_KEY) == key.encode())

    @staticmethod
    def _parts(cell: Cell) -> list[tuple[str, type]]:
        return [("results", EpisodeResults), ("playback", Playback)][: 1 if cell.playback_of is None else 2]

    def _file(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.npz"

    def _steps_file(self, cell: Cell) -> Path:
        names = (_file_name(cell.episodes.workload), f"{_file_name(cell.name)}.parquet")
        return self.folder / "steps" / names[0] / names[1]

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)


def fly_cells(
    cells: Sequence[Cell],
    executor: Executor,
    *,
    store: CellStore | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[FlownCell | InputError]:
    """Fly every cell that is not there yet.

    Args:
        cells: independent of each other.
        executor: does them.
        store: where finished cells are kept; None keeps nothing.
        progress: called with the number of episodes done.

    Returns:
        One entry a cell, in their order: what came of it, or why its policy cannot be used.
    """
    found: dict[int, FlownCell | InputError] = {}
    for i, cell in enumerate(cells):
        stored = store.load(cell) if store else None
        if stored is not None:
            found[i] = stored
    missing = [i for i in range(len(cells)) if i not in found]

    def tell() -> None:
        if progress:
            progress(sum(len(cells[i].episodes) for i in found))

    tell()
    for index, flown in executor.run(fly, [cells[i] for i in missing]):
        cell = cells[missing[index]]
        if store is not None and isinstance(flown, FlownCell):
            store.store(cell, flown)
        found[missing[index]] = flown
        tell()
    return [found[i] for i in range(len(cells))]


@cache
def code_version() -> str:
    """Changes with every change of what decides results: the simulator, the policies, and the libraries that compute them."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.name.encode() + path.read_bytes())
    for library in ("numpy", "onnxruntime"):
        digest.update(importlib.metadata.version(library).encode())
    return digest.hexdigest()


def _sources() -> Iterable[Path]:
    packages = [Path(p) for module in (scalepilot_envs.autoscale, scalepilot.policy) for p in module.__path__]
    return sorted([*(path for package in packages for path in package.rglob("*.py")), Path(simulator.__file__)])


def _bytes_of(array: NDArray[Any]) -> bytes:
    return repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes()


def _file_name(text: str) -> str:
    """A label as a file name: nothing in it leaves the folder."""
    return "".join(c if c.isalnum() or c in "._-·#" else "_" for c in text).lstrip(".") or "_"
