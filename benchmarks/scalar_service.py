"""One autoscaled service in plain Python, step by step: what `env_step` is measured against where the specification is absent.

Written from the prose of Autoscale-v0; the product never imports it. Same work a step: move, serve, price, observe.
"""

from __future__ import annotations

import math
from collections import deque

MOVES = ((True, -0.25), (False, -2), (False, -1), (False, 0), (False, 1), (False, 2), (True, 0.25), (True, 1.0))
INTERVAL, CAPACITY, SERVICE, SLO, MAX_WAIT, STARTUP_STEPS, MOST = 15.0, 20.0, 0.05, 0.2, 30.0, 4, 60


class Autoscale:
    """A single service with the default parameters."""

    def reset(self, rate_rps: float) -> dict[str, float]:
        """Start at 70 % utilisation."""
        self.ready = min(MOST, max(1, math.ceil(rate_rps / (0.7 * CAPACITY))))
        self.orders = [0] * STARTUP_STEPS
        self.rates = deque([rate_rps] * 40, maxlen=40)
        self.backlog = self.late_share = self.error_share = 0.0
        self.cpu, self.latency = min(1.0, rate_rps / (self.ready * CAPACITY)), SERVICE
        return self.observe()

    def target_of(self, action: int) -> int:
        """Decode an index of the move table."""
        relative, size = MOVES[action]
        total = self.ready + sum(self.orders)
        return total + (int(math.copysign(math.ceil(abs(size) * total), size)) if relative else int(size))

    def step(self, target: int, rate_rps: float, arrived: float) -> dict[str, object]:
        """Serve one interval."""
        target = min(MOST, max(1, target))
        change = target - self.ready - sum(self.orders)
        if change > 0:
            self.orders[-1] += change
        for i in reversed(range(STARTUP_STEPS)):
            cancelled = min(max(0, -change), self.orders[i])
            self.orders[i] -= cancelled
            change += cancelled
        self.ready += min(change, 0)
        served, arrival = self.ready * CAPACITY, arrived / INTERVAL
        work = self.backlog + arrived
        left = max(0.0, work - served * INTERVAL)
        backlog = min(left, MAX_WAIT * served)
        slope, room = arrival - served, SLO * served - self.backlog
        crossing = min(1.0, max(0.0, room / (slope * INTERVAL))) if slope else 0.0
        fluid = crossing if slope < 0 else 1.0 - crossing if slope > 0 else float(room < 0)
        waits = min(arrival / served, 0.999) ** (math.sqrt(2 * (self.ready + 1)) - 1)
        drain = max(-slope, 0.0)
        late = fluid + (1 - fluid) * waits * math.exp(-drain * SLO)
        wait_p95 = math.log(waits / 0.05) / max(drain, 0.05 * served) if waits > 0.05 else 0.0
        cost = target * INTERVAL / 3600 + late * arrived * 0.001
        self.cpu, self.late_share = min(1.0, work / (served * INTERVAL)), late
        self.error_share = (left - backlog) / max(arrived, 1.0)
        self.latency, self.backlog = SERVICE + wait_p95 + backlog / served, backlog
        self.rates.append(arrival)
        self.ready += self.orders[0]
        self.orders = [*self.orders[1:], 0]
        return {"observation": self.observe(), "J": cost}

    def observe(self) -> dict[str, float]:
        """The named fields."""
        rates = list(self.rates)
        mean = sum(rates) / len(rates)
        fields = {f"request_rate_rps_{i}": rates[-1 - i] for i in range(8)}
        fields |= {"mean": mean, "std": math.sqrt(sum((r - mean) ** 2 for r in rates) / len(rates))}
        fields |= {"cpu": self.cpu, "latency": self.latency, "late": self.late_share, "error": self.error_share}
        fields |= {"backlog": self.backlog, "ready": self.ready, "capacity": CAPACITY}
        return fields | {f"starting_{i}": n for i, n in enumerate(self.orders)}
