"""What Ray Tune costs: a sweep's wall time × its trials at once, against the same trials trained one after the other.

Eight of the 18 trials of `tune_configs/sweeps/resource-manager.yaml` (its larger minibatches), two at once, as `scalepilot tune`
runs them, report and all; then each by `scalepilot train --no-evaluation`. Every command is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from scalepilot.experiments.sweep.plan import load_sweep

SWEEP = Path(__file__).parents[1] / "tune_configs" / "sweeps" / "resource-manager.yaml"
CONCURRENCY, MOST = 2, 1.25


def timed(*words: str) -> float:
    """Seconds of a command that must succeed."""
    began = time.perf_counter()
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "scalepilot.cli", *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {done.stderr}")
    return time.perf_counter() - began


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Seconds, and the ratio, which is to be at most 1.25."""
    with tempfile.TemporaryDirectory(prefix="sp") as temporary:
        folder = Path(temporary)
        values = yaml.safe_load(SWEEP.read_text())
        values |= {
            "experiment": str(SWEEP.parent / values["experiment"]),
            "concurrency": CONCURRENCY,
            "output": str(folder / "sweeps"),
        }
        values["space"] = {**values["space"], "ppo.lr": [3.0e-4, 1.0e-3], "ppo.minibatch_size": [64, 128]}
        path = folder / "sweep.yaml"
        path.write_text(yaml.safe_dump(values))
        plan = load_sweep(path)
        sweep = timed("tune", str(path))
        alone = []
        for i, point in enumerate(plan.points):
            config = folder / f"{i}.yaml"
            config.write_text(plan.config(point, 0).to_yaml())
            alone.append(timed("train", str(config), "--no-evaluation", "--set", f"output={folder / 'runs'}"))
    figures = {
        "sweep_seconds": sweep,
        "trials": float(len(alone)),
        "concurrency": float(CONCURRENCY),
        "alone_seconds": sum(alone),
    }
    return figures, {"tune_overhead": sweep * CONCURRENCY / sum(alone)}
