"""What is known of a farm at one moment, and what follows from it: how many workers there are, and who has gone."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalepilot.operate.targets.workers import Worker, Workers
from scalepilot.operate.workflow.queues import OWN_KEYS, STARTED_KEY, Queues, message, started_of

# A worker that was made and is not listed may still come; one that was called and says nothing is told of.
_COMES_SECONDS, _SILENT_SECONDS = 15.0, 60.0
_STATES = ("made", "called", "started", "gone", "lost")


@dataclass(frozen=True)
class FarmKeys:
    """Our own keys in Redis, beside a farm's lists.

    Attributes:
        orders: hash of the orders that were given and not acknowledged: id → Unix seconds.
        workers: hash of the workers that were made: name → state and Unix seconds. "made", "called" and "started" follow each
            other, "gone" is one that was acknowledged, "lost" one that vanished without it.
        writes: counts them.
        program: the start of the program.
    """

    orders: str
    workers: str
    writes: str
    program: str = STARTED_KEY


def keys_of(queues: Queues) -> FarmKeys:
    """Those of the farm on some lists."""
    return FarmKeys(*(f"{OWN_KEYS}{queues.worker}:{name}" for name in ("orders", "workers", "writes")))


@dataclass(frozen=True)
class Acknowledged:
    """A worker that says that it has gone.

    Attributes:
        raw: the message.
        worker: its name; "" of one that is not known.
        order: id of the order it has taken; None where it takes none with it.
    """

    raw: bytes
    worker: str
    order: str | None


@dataclass(frozen=True)
class Farm:
    """A farm at one moment.

    Attributes:
        listed: workers there are, by name.
        states: name → state and since when, of those that were started here.
        open_orders: id → when it was given, of orders that are not acknowledged.
        waiting: orders that no worker has taken.
        untaken: message and id of those of them that were given here.
        acknowledged: workers that have gone, in order.
        start_signals: message and worker of those that say that they have started.
        program_started: Unix seconds of the start of the program; None where nobody has said so.
        says_started: whether workers say so.
        drain_seconds: how long one may take for its task.
        now: Unix seconds.
        writes: that there were.
    """

    listed: Mapping[str, Worker]
    states: Mapping[str, tuple[str, float]]
    open_orders: Mapping[str, float]
    waiting: int
    untaken: Sequence[tuple[bytes, str]]
    acknowledged: Sequence[Acknowledged]
    start_signals: Sequence[tuple[bytes, str]]
    program_started: float | None
    says_started: bool
    drain_seconds: float
    now: float
    writes: str

    @property
    def _alive(self) -> list[str]:
        """Workers there are or will be, and that have not gone."""
        gone = {ack.worker for ack in self.acknowledged} | {name for name, (state, _) in self.states.items() if state == "gone"}
        coming = [name for name, (state, _) in self.states.items() if state != "gone" and name not in self.listed]
        return [name for name in (*self.listed, *coming) if name not in gone]

    @property
    def spec(self) -> int:
        """Workers asked for."""
        return max(0, self.balance)

    @property
    def balance(self) -> int:
        """Workers less orders to go; below zero where workers that were to go have vanished."""
        return len(self._alive) - len(self.open_orders)

    @property
    def _serving(self) -> list[str]:
        begun = {name for _, name in self.start_signals}
        return [
            name
            for name in self._alive
            if name in self.listed
            and self.listed[name].is_up
            and (name in begun or name not in self.states or self.states[name][0] == "started" or not self.says_started)
        ]

    @property
    def ready(self) -> int:
        """Workers that take tasks, but for those that were ordered to go."""
        return max(0, min(len(self._serving) - len(self.open_orders), self.spec))

    def starting_ages(self) -> tuple[float, ...]:
        """Since each worker that does not serve yet was made, the oldest first."""
        serving = set(self._serving)
        ages = [self.now - self.states[name][1] for name in self._alive if name not in serving and name in self.states]
        return tuple(sorted((max(0.0, age) for age in ages), reverse=True))

    @property
    def strangers(self) -> set[str]:
        """Workers that were not started here."""
        return {name for name in self.listed if name not in self.states}

    def uncalled(self) -> list[str]:
        """Workers that are up, and wait for their call."""
        return [name for name in self._alive if self.states.get(name, ("",))[0] == "made" and self._up(name)]

    def _up(self, name: str) -> bool:
        return name in self.listed and self.listed[name].is_up

    def _absent(self, *states: str) -> list[str]:
        """Workers in one of some states that are not there, and have not gone."""
        return [name for name in self._alive if name not in self.listed and self.states[name][0] in states]

    def missing(self) -> list[str]:
        """Workers that have not been there for a while."""
        return [n for n in self._absent("made", "lost") if not 0 <= self.now - self.states[n][1] < _COMES_SECONDS]

    def changed(self) -> dict[str, str]:
        """Name → its new state, of workers that have vanished, or are there again."""
        again = [name for name, (state, _) in self.states.items() if state == "lost" and name in self.listed]
        return dict.fromkeys(self._absent("called", "started"), "lost") | dict.fromkeys(again, "started")

    def forgotten(self) -> list[str]:
        """Names of workers that have gone, and are no longer there."""
        return [name for name, (state, _) in self.states.items() if name not in self.listed and state == "gone"]

    def given_up(self) -> list[str]:
        """Orders that were taken so long ago that whoever took them is not there any more."""
        taken = len(self.open_orders) - self.waiting
        oldest = sorted(self.open_orders, key=lambda name: self.open_orders[name])
        return [name for name in oldest[: max(0, taken)] if abs(self.now - self.open_orders[name]) > self.drain_seconds]

    def problems(self) -> list[str]:
        """What people should know of, a line each."""
        lines = []
        if self.waiting > len(self.open_orders):
            lines.append(f"{self.waiting - len(self.open_orders)} orders to go were not given here")
        if vanished := [name for name, (state, _) in self.states.items() if state == "lost"]:
            lines.append(f"{len(vanished)} workers have vanished, and are started again: {', '.join(sorted(vanished)[:3])}")
        if lost := len(self.given_up()):
            lines.append(f"{lost} orders to go were taken more than {self.drain_seconds:g} s ago and never acknowledged")
        begun = {name for _, name in self.start_signals}
        silent = sorted(
            name
            for name, (state, since) in self.states.items()
            if self.says_started and state == "called" and name not in begun and self.now - since > _SILENT_SECONDS
        )
        if silent:
            lines.append(f"{len(silent)} workers were called and do not say that they have started: {', '.join(silent[:3])}")
        return lines


def farm_of(found: Sequence[Any], workers: Workers, queues: Queues, drain_seconds: float, now: float) -> Farm:
    """What Redis has answered, and the workers there are, put together.

    Args:
        found: orders, workers, the orders' list, acknowledgements, start signals, start of the program, writes.
        workers: lists them.
        queues: the lists' names.
        drain_seconds: how long a worker may take for its task.
        now: Unix seconds.

    Raises:
        NotDoneError: the workers cannot be listed.
    """
    raw_orders, raw_states, raw_waiting, raw_acks, raw_starts, program, writes = found
    listed = {worker.name: worker for worker in workers.all()}
    orders = {name: float(since) for name, since in _texts(raw_orders).items() if _is_time(since)}
    states = {name: state for name, text in _texts(raw_states).items() if (state := _state(text)) is not None}
    known = {*listed, *states}
    acks, left = [], dict(sorted(orders.items(), key=lambda entry: entry[1]))
    # The oldest are at the tail.
    for raw in reversed(raw_acks):
        ack = _acknowledged(raw, known, left)
        if ack is not None:
            acks.append(ack)
            left.pop(ack.order or "", None)
    waiting = [(raw, message(raw).get("task_id")) for raw in raw_waiting]
    untaken = [(raw, name) for raw, name in waiting if isinstance(name, str) and name in left]
    starts = [(raw, _named(message(raw).get("pod_name"), states)) for raw in raw_starts]
    signals = [(raw, name) for raw, name in starts if name]
    says = queues.started is not None
    told = started_of(program), says, drain_seconds, now, (writes or b"0").decode()
    return Farm(listed, states, left, len(waiting), untaken, acks, signals, *told)


def _acknowledged(raw: bytes, known: Container[str], left: Mapping[str, float]) -> Acknowledged | None:
    body = message(raw)
    if body.get("type") != "SCALE_DOWN" or body.get("action") != "ACK":
        return None
    taken = body.get("task_id")
    if not isinstance(taken, str):
        # Of a worker that does not say which: the oldest.
        taken = next(iter(left), None)
    return Acknowledged(raw, _named(body.get("pod_name"), known), taken)


def _named(pod: Any, names: Container[str]) -> str:
    """The worker whose pod it is: its name, or that of its Deployment, whose pods are NAME-HASH-HASH; "" of none."""
    if not isinstance(pod, str):
        return ""
    return pod if pod in names else next((name for name in (pod.rsplit("-", 2)[0], pod.rsplit("-", 1)[0]) if name in names), "")


def _state(text: str) -> tuple[str, float] | None:
    """None of what others have put there."""
    state, _, since = text.partition(" ")
    return (state, float(since)) if state in _STATES and _is_time(since) else None


def _is_time(text: str) -> bool:
    try:
        return 0 <= float(text) < 1e12
    except ValueError:
        return False


def _texts(raw: Any) -> dict[str, str]:
    """A hash as RESP2 has it, a list of keys and values, or as a mapping."""
    pairs = raw.items() if isinstance(raw, Mapping) else zip(raw[::2], raw[1::2], strict=False)
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in pairs}
