"""`scalepilot operate --twin`: a policy runs a simulated service for some minutes."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scalepilot.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scalepilot.operate.config import OperateConfig, Service
    from scalepilot.operate.trial import Result

_MINUTES, _PACE = 3.0, 15.0
_MOST_MINUTES, _MOST_PACE = 1440.0, 60.0
_RECORDS = "twin-records"
# A working day with noise and jobs on the half hour, as in the demo.
_BUSY_DAY = {
    "kind": "diurnal",
    "days": 3,
    "low_rps": 40,
    "high_rps": 250,
    "noise_sigma": 0.1,
    "noise_correlation": 0.9,
    "burst_every_minutes": 30,
    "burst_minutes": 5,
    "burst_factor": 2,
    "burst_hours": [8, 20],
    "flash_crowd_every_hours": 0,
}
# Of a named workload: what three in four of the most replicas serve.
_PEAK_SHARE = 0.75


def run_twin(config: OperateConfig, service: Service, arguments: argparse.Namespace) -> int:
    """Run it, and say what it cost beside the HPA.

    Raises:
        InputError: no such workload, an option out of range, or a policy for another environment.
    """
    from scalepilot.cli.operate_show import say
    from scalepilot.files.stop import StopFlag
    from scalepilot.operate.ledger import Ledger
    from scalepilot.operate.pausing import paused_by_signal
    from scalepilot.operate.status import status_server
    from scalepilot.operate.trial import Trial, results, running

    minutes = _number("minutes", arguments.minutes, _MINUTES, 0.02, _MOST_MINUTES)
    pace = _number("pace", arguments.pace, _PACE, 1.0, _MOST_PACE)
    interval = service.interval_seconds
    rates = _rates(arguments.workload, service, max(2, round(minutes * 60 * pace / interval)))
    ledger = Ledger(arguments.records or Path(_RECORDS))
    stop = StopFlag("Stopping after this decision")
    with (
        running(service, Trial(rates, pace), ledger) as (controller, twin, is_over),
        status_server(controller, config.listen) as url,
    ):
        print(
            f"{service.policy} runs a simulated service at {pace:g} times the speed, {len(rates)} decisions; records:"
            f" {ledger.folder}; status: {url}/",
            file=sys.stderr,
            flush=True,
        )
        with stop.listening(), paused_by_signal(controller):
            controller.run(lambda: stop() or is_over(), lambda entry: say(entry, as_json=arguments.json))
    _tell(results(service, twin, controller.entries), config.policy, ledger.folder, as_json=arguments.json)
    return 0


def _number(name: str, given: float | None, default: float, low: float, high: float) -> float:
    value = default if given is None else given
    if not low <= value <= high:
        raise InputError(f"--{name}: {value:g} is not allowed; allowed: {low:g} to {high:g}")
    return value


def _rates(text: str | None, service: Service, steps: int) -> NDArray[np.float64]:
    """(steps,) rates of the liveliest window."""
    from scalepilot.simulate.workload_data import named_workload
    from scalepilot_envs.workloads import part_of, workload_from_mapping

    params = service.env.params
    peak = _PEAK_SHARE * params.max_replicas * params.replica_capacity_rps
    workload = workload_from_mapping(_BUSY_DAY) if text is None else named_workload(text, peak)[1]
    try:
        series = part_of(workload, "all", service.interval_seconds)
    except ValueError as error:
        raise InputError(f"--workload {text}: {error}") from None
    steps = min(steps, len(series))
    start = series.liveliest_start(steps)
    return series.rates_rps[start : start + steps]


def _tell(found: list[Result], policy: str, records: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"results": [asdict(result) for result in found]}))
        return
    from rich.table import Table

    from scalepilot.cli.output import console

    table = Table("same requests", "cost an hour", "replicas", "late", title="What it would have cost", title_justify="left")
    for result in found:
        table.add_row(result.name, f"{result.J_per_hour:.2f}", f"{result.replicas:.1f}", f"{100 * result.late_share:.2f} %")
    out = console()
    out.print(table)
    out.print(f"Next: scalepilot operate log --records {records}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"      scalepilot operate report {policy} --records {records}", markup=False, highlight=False, soft_wrap=True)
