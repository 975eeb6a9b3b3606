"""Autoscale's latency model against a simulation of every request; writes the tables and the picture of docs/latency.md.

Steady state: 95 % waiting time for loads 0.3 to 0.95 and 1 to 50 replicas. Traces: late share of every 15 s interval in
three 8-hour test windows of NASA July and WorldCup, flown by three HPAs. Both under central and random balancing.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.latency_model import late_share, page, steady_state, variability

WORKERS = 2


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Simulate, compare, write the page; figures are errors in per cent and in points."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        flights = late_share.flights()
        pending = [pool.submit(late_share.compare, flight) for flight in flights]
        cells = list(pool.map(steady_state.measure, steady_state.cells()))
        windows = [future.result() for future in pending]
    if not windows:
        print(f"  {late_share.TRACES} is absent: late shares on traces are skipped, their table and the picture stay as they are")
    varied = variability.measure_all()
    figures: dict[str, Any] = {"p95_wait": steady_state.summary(cells), "variability": variability.summary(varied)}
    if windows:
        figures["late_share"] = late_share.summary(windows)
    page.write(cells, windows, varied)
    return figures, {}
