"""Autoscale against runs of a real cluster: the orders of a study through the simulator, side by side with what the cluster did.

Prints with `python -m benchmarks.reality FOLDER`; as a benchmark it writes the tables and the picture of docs/reality.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Where the data lies beside a clone; it is not a part of the project.
FOLDER = Path(__file__).resolve().parents[2] / "../shared/reality"


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Replay, compare, write the page; figures are those of the tables."""
    from benchmarks.reality import figures, page

    if not FOLDER.is_dir():
        print(f"  {FOLDER} is absent: nothing is replayed, docs/reality.md stays as it is")
        return {}, {}
    compared = figures.Compared(FOLDER)
    page.write(compared)
    return compared.summary(), {}
