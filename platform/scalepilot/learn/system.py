"""How busy the machine is: processor and memory of the process tree, and the GPUs where there are any."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import psutil

EVERY_SECONDS = 5.0
_MEGABYTE = 1e6


class SystemMonitor:
    """Looks every few seconds; Ray's processes are children of this one when it started Ray.

    Args:
        clock: seconds.
        load: imports a module by name.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, load: Callable[[str], Any] = importlib.import_module) -> None:
        self._clock = clock
        self._process = psutil.Process()
        self._seconds, self._at = self._cpu_seconds()[0], clock()
        try:
            self._nvml: Any = load("pynvml")
            self._nvml.nvmlInit()
        except Exception:  # noqa: BLE001 - no package, no driver, no GPU: all the same here
            self._nvml = None

    def sample(self) -> dict[str, float]:
        """The documented metrics; empty when the last look was a moment ago."""
        now = self._clock()
        if now - self._at < EVERY_SECONDS:
            return {}
        seconds, memory = self._cpu_seconds()
        # A process that ended takes its time out of the sum.
        busy = max(0.0, seconds - self._seconds)
        metrics = {"cpu_percent": 100.0 * busy / (now - self._at), "memory_megabytes": memory / _MEGABYTE}
        self._seconds, self._at = seconds, now
        return metrics | self._gpus()

    def _cpu_seconds(self) -> tuple[float, float]:
        """(seconds of processor time so far, bytes resident now) of the process and all below it."""
        seconds = memory = 0.0
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                with process.oneshot():
                    times, resident = process.cpu_times(), process.memory_info().rss
            except psutil.Error:
                continue
            seconds, memory = seconds + times.user + times.system, memory + resident
        return seconds, memory

    def _gpus(self) -> dict[str, float]:
        if self._nvml is None:
            return {}
        try:
            handles = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self._nvml.nvmlDeviceGetCount())]
            busiest = max((float(self._nvml.nvmlDeviceGetUtilizationRates(h).gpu) for h in handles), default=None)
            used = sum(float(self._nvml.nvmlDeviceGetMemoryInfo(h).used) for h in handles)
        except Exception:  # noqa: BLE001 - a driver that goes away must not end training
            self._nvml = None
            return {}
        return {} if busiest is None else {"gpu_percent": busiest, "gpu_memory_megabytes": used / _MEGABYTE}
