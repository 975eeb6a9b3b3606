"""How long `scalepilot --help` takes, beside an interpreter that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROUNDS = 9
GOAL_SECONDS = 0.3


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Alternate both; medians."""
    script = Path(sys.executable).with_name("scalepilot")
    command = [str(script), "--help"] if script.is_file() else [sys.executable, "-m", "scalepilot.cli", "--help"]
    helped, bare = [], []
    for _ in range(ROUNDS):
        helped.append(_seconds(command))
        bare.append(_seconds([sys.executable, "-c", "pass"]))
    figures = {
        "rounds": ROUNDS,
        "help_seconds": round(statistics.median(helped), 4),
        "help_seconds_slowest": round(max(helped), 4),
        "bare_python_seconds": round(statistics.median(bare), 4),
        "goal_seconds": GOAL_SECONDS,
    }
    return figures, {"vs_bare_python": round(statistics.median(helped) / statistics.median(bare), 2)}


def _seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin
