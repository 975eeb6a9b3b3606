"""Every request of a service whose replicas come and go: a readable SimPy model, and the same in a fast recursion.

Both take requests drawn beforehand (arrival, service time, a number that routes it) and the replicas that serve in each
interval, so that they agree request by request. Exponential service makes them M/M/c ("central") and c × M/M/1 ("random").
Replicas are numbered from 0; when there are fewer, those with the highest numbers leave: each ends the request it serves and
hands its queue back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LoadBalancing = Literal["central", "random"]
DROPPED = float("inf")
# A request handed back is routed by its number moved on by the golden ratio.
_NEXT_ROUTE = 0.6180339887498949


@dataclass(frozen=True)
class Requests:
    """Requests in the order of arrival, each (n,).

    Attributes:
        arrival_seconds: since the beginning.
        service_seconds: how long a replica serves it.
        route: in [0, 1), the replica it goes to under random balancing, as a share of those ready.
    """

    arrival_seconds: Array
    service_seconds: Array
    route: Array

    def __len__(self) -> int:
        return len(self.arrival_seconds)


def poisson_requests(
    counts: NDArray[np.int64], interval_seconds: float, mean_service_seconds: float, rng: np.random.Generator
) -> Requests:
    """Given counts an interval, uniform within it (a Poisson process, given its counts); exponential service.

    Args:
        counts: (num_intervals,) requests that arrive in each.
        interval_seconds: their length.
        mean_service_seconds: 1 / capacity of a replica.
        rng: where they are drawn from.
    """
    counts = np.asarray(counts, dtype=np.int64)
    arrival = (np.repeat(np.arange(len(counts)), counts) + rng.random(counts.sum())) * interval_seconds
    arrival.sort()
    return Requests(arrival, rng.exponential(mean_service_seconds, len(arrival)), rng.random(len(arrival)))


def simulate(
    requests: Requests,
    ready: NDArray[np.int64],
    *,
    interval_seconds: float,
    load_balancing: LoadBalancing,
    max_waiting_per_replica: float = float("inf"),
) -> Array:
    """How long each request waits before its service begins.

    Args:
        requests: in the order of arrival.
        ready: (num_intervals,) replicas that serve in each interval, at least 1; the last interval goes on until all is served.
        interval_seconds: length of an interval.
        load_balancing: one queue before all replicas, or one before each and a random choice.
        max_waiting_per_replica: an arrival that finds so many waiting (× ready, before a central queue) is dropped.

    Returns:
        (n,) seconds, `DROPPED` where the queue was full.
    """
    serve = _serve_central if load_balancing == "central" else _serve_random
    return serve(requests, np.asarray(ready, dtype=np.int64).tolist(), interval_seconds, max_waiting_per_replica)


def _intervals(requests: Requests, num_intervals: int, interval_seconds: float) -> list[int]:
    """Index of each interval's first request, and the number of requests at the end."""
    edges = np.searchsorted(requests.arrival_seconds, np.arange(num_intervals) * interval_seconds)
    return [*edges.tolist(), len(requests)]


def _serve_central(requests: Requests, ready: list[int], interval_seconds: float, max_waiting: float) -> Array:
    """Kiefer–Wolfowitz: the head of the queue starts when the first replica is free; a start is fixed within its interval."""
    edges = _intervals(requests, len(ready), interval_seconds)
    starts: list[float] = []  # of all that were accepted and have started, which is the order of arrival
    accepted: list[int] = []
    queue: deque[tuple[float, float]] = deque()
    free: list[tuple[float, int]] = []  # (free from, number) of each replica
    for t, count in enumerate(ready):
        begin = t * interval_seconds
        end = begin + interval_seconds if t + 1 < len(ready) else float("inf")
        if count != len(free):
            known = {number for _, number in free}
            free = [entry for entry in free if entry[1] < count] + [(begin, i) for i in range(count) if i not in known]
            heapify(free)
        while queue:
            first, number = free[0]
            arrived, service = queue[0]
            start = first if first > arrived else arrived
            if start >= end:
                break
            queue.popleft()
            starts.append(start)
            heapreplace(free, (start + service, number))
        limit = math.ceil(min(max_waiting * count, len(requests)))
        here = slice(edges[t], edges[t + 1])
        for index, arrived, service in zip(
            range(edges[t], edges[t + 1]),
            requests.arrival_seconds[here].tolist(),
            requests.service_seconds[here].tolist(),
            strict=True,
        ):
            if len(accepted) >= limit:
                # The queue is full if the request that is `limit` before this one among the accepted has not started.
                at = len(accepted) - limit
                if at >= len(starts) or starts[at] > arrived:
                    continue
            accepted.append(index)
            first, number = free[0]
            start = first if first > arrived else arrived
            if queue or start >= end:
                queue.append((arrived, service))
            else:
                starts.append(start)
                heapreplace(free, (start + service, number))
    waits = np.full(len(requests), DROPPED)
    waits[accepted] = np.array(starts) - requests.arrival_seconds[accepted]
    return waits


def _serve_random(requests: Requests, ready: list[int], interval_seconds: float, max_waiting: float) -> Array:
    """Lindley's recursion for each replica; what waits before one that leaves is routed again."""
    edges = _intervals(requests, len(ready), interval_seconds)
    start_of = np.full(len(requests), DROPPED)
    free: list[float] = []
    waiting: list[list[tuple[float, int]]] = []  # (start, index) before each replica, in the order of arrival
    limit = math.ceil(min(max_waiting, len(requests)))
    routes = requests.route.copy()
    for t, count in enumerate(ready):
        begin = t * interval_seconds
        handed_back = sorted(index for line in waiting[count:] for start, index in line if start > begin)
        waiting = [[entry for entry in line if entry[0] > begin] for line in waiting[:count]]
        waiting += [[] for _ in range(count - len(waiting))]
        free = free[:count] + [begin] * (count - len(free))
        for index in handed_back:
            routes[index] = (routes[index] + _NEXT_ROUTE) % 1.0
            replica = int(routes[index] * count)
            start = free[replica]
            start = start if start > begin else begin
            free[replica] = start + float(requests.service_seconds[index])
            waiting[replica].append((start, index))
            start_of[index] = start
        first, last = edges[t], edges[t + 1]
        replicas = (routes[first:last] * count).astype(np.int64).tolist()
        arrivals, services = requests.arrival_seconds[first:last].tolist(), requests.service_seconds[first:last].tolist()
        begun: list[float] = []
        for index, replica, arrived, service in zip(range(first, last), replicas, arrivals, services, strict=True):
            start = free[replica]
            if start <= arrived:
                start = arrived
            else:
                line = waiting[replica]
                if len(line) >= limit and line[len(line) - limit][0] > arrived:
                    begun.append(DROPPED)
                    continue
                line.append((start, index))
            free[replica] = start + service
            begun.append(start)
        start_of[first:last] = begun
    return start_of - requests.arrival_seconds


def lindley(arrival_seconds: Array, service_seconds: Array) -> Array:
    """(n,) waits before one replica that serves in the order of arrival.

    Source:
        D. V. Lindley, "The theory of queues with a single server", Proc. Cambridge Philosophical Society 48 (1952).
    """
    if not len(arrival_seconds):
        return np.zeros(0)
    steps = np.concatenate([[0.0], service_seconds[:-1] - np.diff(arrival_seconds)]).cumsum()
    waits: Array = steps - np.minimum.accumulate(steps)
    return waits


def simulate_with_simpy(
    requests: Requests,
    ready: NDArray[np.int64],
    *,
    interval_seconds: float,
    load_balancing: LoadBalancing,
    max_waiting_per_replica: float = float("inf"),
) -> Array:
    """`simulate`, as a process for each replica in SimPy: ten to thirty times slower, and what the recursions must agree with."""
    import simpy

    env = simpy.Environment()
    waits = np.full(len(requests), DROPPED)
    shared: simpy.Store = simpy.Store(env)
    routes = requests.route.copy()
    central = load_balancing == "central"

    class Replica:
        """Takes the head of its queue, serves it, and again, until told to leave."""

        def __init__(self) -> None:
            self.queue = shared if central else simpy.Store(env)
            self.leaving = False
            self.idle_until: Any = None
            env.process(self.run())

        def run(self) -> Generator[Any, Any, None]:
            while not self.leaving:
                self.idle_until = self.queue.get()
                index = yield self.idle_until
                self.idle_until = None
                if index is None:
                    return
                waits[index] = env.now - requests.arrival_seconds[index]
                yield env.timeout(requests.service_seconds[index])

        def leave(self) -> list[int]:
            """Stop after the request in service; returns the numbers of those that wait here alone."""
            self.leaving = True
            if self.idle_until is not None:
                self.idle_until.cancel()
            return [] if central else list(self.queue.items)

    replicas: list[Replica] = []

    def scale() -> Generator[Any, Any, None]:
        for count in np.asarray(ready).tolist():
            handed_back = sorted(index for replica in replicas[count:] for index in replica.leave())
            del replicas[count:]
            replicas.extend(Replica() for _ in range(count - len(replicas)))
            for index in handed_back:
                routes[index] = (routes[index] + _NEXT_ROUTE) % 1.0
                replicas[int(routes[index] * count)].queue.put(index)
            yield env.timeout(interval_seconds)

    def arrive() -> Generator[Any, Any, None]:
        for index, arrived in enumerate(requests.arrival_seconds):
            yield env.timeout(arrived - env.now)
            queue = shared if central else replicas[int(routes[index] * len(replicas))].queue
            limit = max_waiting_per_replica * (len(replicas) if central else 1)
            if len(queue.items) < limit:
                queue.put(index)

    env.process(scale())
    env.process(arrive())
    env.run()
    return waits
