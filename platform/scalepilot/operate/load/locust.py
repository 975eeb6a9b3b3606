"""A workload as a Locust file that stands alone."""

from __future__ import annotations

import numpy as np

from scalepilot.operate.load.schedule import Schedule

# Numbers in the file: one a second of a day would be too many to look at.
_MOST_POINTS, _SHORTEST_SECONDS = 5000, 1.0
# Each user sends at a constant rate; with fewer users a rate cannot be met finely.
_FEWEST_USERS_AT_PEAK = 100

_FILE = '''"""{source}: {requests:,.0f} requests in {seconds} s, at most {peak:g} requests/s.

    locust --headless -f FILE --host http://127.0.0.1:8000

Locust's users wait for their answers: a service that is too slow is sent less than the workload says.
`scalepilot workload replay` sends on, whether or not answers come.
"""

import random
import time

import gevent
from locust import HttpUser, LoadTestShape, task

SECONDS = {seconds!r}
# Mean requests/s of each {interval:g} s.
INTERVAL_SECONDS = {interval!r}
RATES_RPS = [
{rates}
]
# Requests/s of one user: the number of users follows the rate.
USER_RPS = {user_rps!r}


class WorkloadUser(HttpUser):
    """Sends USER_RPS requests a second. Write your own requests into `request`."""

    def on_start(self):
        # Users that begin together do not send together.
        self.due = time.monotonic() + random.random() / USER_RPS
        gevent.sleep(max(0.0, self.due - time.monotonic()))

    def wait_time(self):
        self.due = max(self.due + 1.0 / USER_RPS, time.monotonic())
        return self.due - time.monotonic()

    @task
    def request(self):
        self.client.get("/")


class WorkloadShape(LoadTestShape):
    """As many users as the workload's rate takes; Locust asks once a second."""

    def tick(self):
        now = self.get_run_time()
        if now >= SECONDS:
            return None
        users = round(RATES_RPS[min(int(now / INTERVAL_SECONDS), len(RATES_RPS) - 1)] / USER_RPS)
        return users, max(1, abs(users - self.get_current_user_count()))
'''


def locustfile(schedule: Schedule, source: str) -> str:
    """The file's text.

    Args:
        schedule: what it sends.
        source: said in its first line.
    """
    step = max(schedule.interval_seconds, _SHORTEST_SECONDS, schedule.seconds / _MOST_POINTS)
    edges = np.append(np.arange(0.0, schedule.seconds - 1e-9, step), schedule.seconds)
    rates = np.diff(schedule.cumulated(edges)) / np.diff(edges)
    peak = float(rates.max())
    user_rps = float(f"{min(1.0, peak / _FEWEST_USERS_AT_PEAK) or 1.0:.3g}")
    numbers = [f"{rate:.4g}" for rate in rates.tolist()]
    lines = [f"    {', '.join(numbers[first : first + 15])}," for first in range(0, len(numbers), 15)]
    said = source.encode("unicode_escape").decode().replace('"', "'")
    return _FILE.format(
        source=said,
        requests=schedule.expected,
        seconds=round(schedule.seconds, 3),
        peak=peak,
        interval=float(step),
        rates="\n".join(lines),
        user_rps=user_rps,
    )
