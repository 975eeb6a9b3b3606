"""What the replicas of a machine counted, added up: each writes a file, and whoever is scraped reads those of the others."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

Labels = tuple[str, ...]
# A file this old is of a replica that ended: what it counted stays, what it was at the moment does not.
_PRESENT_SECONDS = 10.0
_MAX_FILES = 1000


class Counts(msgspec.Struct):
    """Everything a replica counted: plain data, so that it can be written and added.

    Attributes:
        counters: name → (label values, total).
        histograms: name → (label values, values in each bucket, their sum).
        gauges: name → value at the moment of writing.
        replica: whose; a process id.
    """

    counters: dict[str, list[tuple[Labels, float]]] = {}
    histograms: dict[str, list[tuple[Labels, list[int], float]]] = {}
    gauges: dict[str, float] = {}
    replica: str = ""


class Total:
    """Counts of several replicas in one.

    Attributes:
        counters: name → label values → total.
        histograms: name → label values → (values in each bucket, their sum).
    """

    def __init__(self, parts: Sequence[Counts]) -> None:
        self.counters: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, dict[Labels, tuple[list[int], float]]] = {}
        for part in parts:
            for name, totals in part.counters.items():
                into = self.counters.setdefault(name, {})
                for labels, total in totals:
                    into[labels] = into.get(labels, 0) + total
            for name, found in part.histograms.items():
                merged = self.histograms.setdefault(name, {})
                for labels, counts, total in found:
                    before, old_total = merged.get(labels, ([0] * len(counts), 0.0))
                    merged[labels] = ([a + b for a, b in zip(counts, before, strict=True)], total + old_total)


class ReplicaFiles:
    """The folder through which replicas know each other's counts.

    Args:
        folder: shared; this replica's file in it is new, whatever process ids were used before.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / f"replica-{os.getpid()}-{time.time_ns()}.json"
        self._lock = threading.Lock()

    def write(self, counts: Callable[[], Counts]) -> None:
        """Replace this replica's file; from any thread.

        Args:
            counts: gives them, called in turn, so that no older ones replace newer ones.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            aside = self._file.with_suffix(".new")
            aside.write_bytes(msgspec.json.encode(counts()))
            aside.replace(self._file)

    def others(self) -> Iterator[tuple[Counts, bool]]:
        """What every other replica wrote last, and whether it is still there."""
        for file in sorted(self._folder.glob("replica-*.json"))[:_MAX_FILES]:
            if file == self._file:
                continue
            # A file may vanish with its folder while the server ends.
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                present = time.time() - file.stat().st_mtime < _PRESENT_SECONDS
                yield msgspec.json.decode(file.read_bytes(), type=Counts), present
