"""The controller's page at /: one file with its own style and script alone, which asks this controller and changes nothing."""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Any

from scalepilot.operate.controller import Controller
from scalepilot.operate.ledger import Entry, sentence

_HERE, _PACKAGE = Path(__file__).parent, Path(__file__).parents[2]
# The reports' colours and measures, and the server page's ways with numbers: all of them are one product.
_STYLES = (_PACKAGE / "report" / "html" / "templates" / "report.css", _HERE / "page.css")
_SCRIPTS = (_PACKAGE / "serve" / "page" / "dom.js", _HERE / "plot.js", _HERE / "page.js")
COLUMNS = ("time", "rate_rps", "late_share", "spec", "ready", "wanted", "target", "mode", "outcome", "sentence")
# Where an environment names its newest rate otherwise.
_RATES = ("request_rate_rps_0", "arrival_rate_per_second")


@cache
def page() -> tuple[bytes, str]:
    """The page, and what its Content-Security-Policy says."""
    style = "".join(path.read_text(encoding="utf-8") for path in _STYLES)
    # Modules of each other; here they are one.
    lines = [
        line for path in _SCRIPTS for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("import ")
    ]
    script = "\n".join(line.removeprefix("export ") for line in lines)
    script = f'"use strict";\n{script}\n'
    text = (_HERE / "page.html").read_text(encoding="utf-8").replace("{{style}}", style).replace("{{script}}", script)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


def history(controller: Controller, since: float) -> dict[str, Any]:
    """What the page asks for again and again.

    Args:
        controller: whose.
        since: Unix seconds; decisions up to then are known.
    """
    entries = list(controller.entries)
    newest = entries[-1].to_json() if entries else None
    return {
        "policy": controller.service.policy,
        "target": controller.target.name,
        "dry_run": controller.dry_run,
        "interval_seconds": controller.interval,
        "pace": controller.pace,
        "paused": controller.state.pause,
        "now": controller.clock(),
        "columns": COLUMNS,
        "rows": [_row(entry) for entry in _in_order(entries) if entry.record.snapshot.time > since],
        "reason": "" if newest is None else newest["reason"],
        "fields": {} if newest is None else newest["fields"],
    }


def _in_order(entries: list[Entry]) -> list[Entry]:
    """Without those that a later decision comes before: the clock was set back."""
    kept: list[Entry] = []
    for entry in reversed(entries):
        if not kept or entry.record.snapshot.time < kept[-1].record.snapshot.time:
            kept.append(entry)
    return kept[::-1]


def _row(entry: Entry) -> list[Any]:
    record, snapshot = entry.record, entry.record.snapshot
    readings, counted = snapshot.readings, snapshot.extra.get("requests")
    rate = next((readings[name].value for name in _RATES if name in readings), None)
    if rate is None and counted is not None and counted.value is not None:
        rate = counted.value / entry.interval_seconds
    late = readings.get("late_share")
    values = (
        *(snapshot.time, rate, None if late is None else late.value),
        *(snapshot.replicas.spec, snapshot.replicas.ready, record.wanted, record.target),
        *(record.mode, record.outcome, sentence(record)),
    )
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
