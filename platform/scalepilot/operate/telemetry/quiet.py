"""A service that never had a request: its counter has no series yet, which must be told from a counter that is gone."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from scalepilot.operate.telemetry.asking import Asking, Problem
from scalepilot.operate.telemetry.client import Client
from scalepilot.operate.telemetry.counters import Samples
from scalepilot.operate.telemetry.selectors import joined
from scalepilot.operate.telemetry.settings import CounterSource


def quiet_series(
    client: Client, asking: Asking, wanted: CounterSource, now: float, span_seconds: float, seconds: float
) -> list[Samples]:
    """Zeros at every scrape of the targets that declare a counter and have counted nothing.

    A wrong name or label must not read as no traffic. So it takes both: the selector finds targets that are up, and these
    targets themselves tell of the counter (`# TYPE`), without a value.

    Args:
        client: of the Prometheus.
        asking: in which threads.
        wanted: the counter, of which there is no series.
        now: Unix seconds.
        span_seconds: that are looked back on.
        seconds: for the answers.

    Returns:
        A series a target; none where that is not known.
    """
    selector = joined(wanted.selector)
    if not selector:
        return []
    # OpenMetrics declares a counter without its ending.
    names = dict.fromkeys((wanted.counter, wanted.counter.removesuffix("_total")))
    questions: dict[str, Any] = {
        name: partial(client.ask, "targets/metadata", {"match_target": f"{{{selector}}}", "metric": name}) for name in names
    }
    questions["up"] = partial(client.ranges, f"up{{{selector}}}[{1000 * span_seconds:.0f}ms]", now)
    answers = asking.ask(questions, seconds)
    declared = any(not isinstance(answers[name], Problem) and answers[name].result for name in names)
    if not declared or isinstance(answers["up"], Problem):
        return []
    found = []
    for one in answers["up"]:
        is_up = one.values == 1
        if is_up[-1]:
            found.append(Samples(one.labels, one.times[is_up], np.zeros(int(is_up.sum()))))
    return found


__all__ = ["quiet_series"]
