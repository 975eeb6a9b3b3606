"""How busy the machine is."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import psutil

from scalepilot.learn.system import EVERY_SECONDS, SystemMonitor
from scalepilot.runs.metrics import METRICS


def no_module(name: str) -> Any:
    raise ModuleNotFoundError(name)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_processor_and_memory_of_the_process_and_its_children_are_measured_every_few_seconds():
    clock = Clock()
    monitor = SystemMonitor(clock, no_module)
    clock.now = EVERY_SECONDS - 0.1
    assert monitor.sample() == {}
    code = "data = bytearray(80_000_000); print(flush=True)\nwhile True: pass"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        deadline = time.monotonic() + 60
        while psutil.Process(child.pid).cpu_times().user < 0.4 and time.monotonic() < deadline:
            time.sleep(0.02)
        clock.now = EVERY_SECONDS
        sample = monitor.sample()
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    assert set(sample) == {"cpu_percent", "memory_megabytes"} < set(METRICS)
    # Two fifths of a core-second at least, of five seconds.
    assert 8.0 <= sample["cpu_percent"] < 1000.0
    assert sample["memory_megabytes"] > 100.0
    clock.now += EVERY_SECONDS
    assert monitor.sample()["cpu_percent"] >= 0.0, "a child that ended takes nothing back"


def test_gpus_are_measured_where_there_are_any_and_a_driver_that_fails_is_left_alone():
    class Nvml:
        fails = False

        def nvmlInit(self):
            pass

        def nvmlDeviceGetCount(self):
            if self.fails:
                raise RuntimeError("driver gone")
            return 2

        def nvmlDeviceGetHandleByIndex(self, i):
            return i

        def nvmlDeviceGetUtilizationRates(self, i):
            return SimpleNamespace(gpu=(30, 70)[i])

        def nvmlDeviceGetMemoryInfo(self, i):
            return SimpleNamespace(used=1e9)

    clock, nvml = Clock(), Nvml()
    monitor = SystemMonitor(clock, {"pynvml": nvml}.__getitem__)
    clock.now = EVERY_SECONDS
    sample = monitor.sample()
    assert (sample["gpu_percent"], sample["gpu_memory_megabytes"]) == (70.0, 2000.0)
    assert set(sample) < set(METRICS)
    nvml.fails = True
    clock.now *= 2
    assert set(monitor.sample()) == {"cpu_percent", "memory_megabytes"}
