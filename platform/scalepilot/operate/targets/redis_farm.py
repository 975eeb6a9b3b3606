"""A farm of workers on a Redis queue, as the workflow system has it: a worker finishes its task before it goes.

To remove workers, as many orders (SYN) are put into a list. The next workers to be free take one each, say so (ACK) and take no
further task; only then are they removed. Nothing else ever removes one, so that no task is lost. One that vanishes by itself is
started again. What was ordered is kept in Redis beside the queues, so that a restart knows it. There is no lease: let one process
scale a farm.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Between
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import WARNING, TargetContext, TargetError, Written
from scalepilot.operate.targets.farm_state import Acknowledged, Farm, farm_of, keys_of
from scalepilot.operate.targets.workers import NotDoneError, Workers, make_workers
from scalepilot.operate.workflow.connection import Command, RedisDoor, RedisError, RedisSettings
from scalepilot.operate.workflow.queues import Queues, order, payload

# For what is done beside reading: the rest waits for the next moment.
_TEND_SECONDS, _START_SECONDS = 1.5, 3.0
_MOST_WORKERS = 10_000
# Of two processes that have seen the same, one does it. Keys: writes, orders, the list of orders, workers.
_SAME = "if (redis.call('GET', KEYS[1]) or '0') ~= ARGV[1] then return -1 end redis.call('INCR', KEYS[1]) "
# For each order its id, when it was given, and the message.
_DRAIN = _SAME + (
    "for i = 2, #ARGV, 3 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])"
    " redis.call('LPUSH', KEYS[3], ARGV[i + 2]) end return 0"
)
# "made" and since when, how many orders may be taken back, id and message of each, and a name for each worker that is wanted.
_GROW = _SAME + (
    "local back, first = 0, 4 + 2 * ARGV[3] for i = 4, first - 1, 2 do if back < #ARGV - first + 1 and"
    " redis.call('LREM', KEYS[3], 1, ARGV[i + 1]) == 1 then redis.call('HDEL', KEYS[2], ARGV[i]) back = back + 1 end end"
    " for i = first + back, #ARGV do redis.call('HSET', KEYS[4], ARGV[i], ARGV[2]) end return back"
)
_CLAIM = (
    "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) return 1"
)


@dataclass(frozen=True)
class RedisFarmSettings(RedisSettings):
    """Keys of `target` with `kind: redis_farm`.

    Attributes:
        queues: the lists' names.
        workers: `kind` (openfaas or command) and what that kind takes: how workers are started.
        drain_seconds: longest a task may take. An order that a worker took that long ago, and never acknowledged, is given up.
    """

    queues: Queues = field(default_factory=Queues)
    workers: Mapping[str, Any] = field(default_factory=dict)
    drain_seconds: Annotated[float, Between(1, 86_400)] = 300.0


_SETTINGS: TypeAdapter[RedisFarmSettings] = TypeAdapter(RedisFarmSettings)


_OTHERS = Written("refused", detail="another process wrote at the same time")


class RedisFarmTarget:
    """The number of workers of one farm.

    Args:
        settings: which.
        context: of this process.

    Raises:
        ConfigError: `workers` holds a key or value that is not allowed.
        InputError: a secret cannot be read, or is within reach of others.
    """

    def __init__(self, settings: RedisFarmSettings, context: TargetContext) -> None:
        self._settings, self._dry_run = settings, context.dry_run
        self._queues, self._keys = settings.queues, keys_of(settings.queues)
        self._workers: Workers = make_workers(settings.workers)
        self._door = RedisDoor(settings, "target")

    @property
    def name(self) -> str:
        """By its queue."""
        return f"workers of {self._queues.worker} in {self._settings.url}"

    def read(self, now: float) -> Replicas:
        """What there is; workers that have gone are removed, and new ones that are up are called."""
        try:
            farm = self._look()
            problems = [] if self._dry_run else self._tend(farm)
        except (RedisError, TargetError) as error:
            return Replicas(None, problem=str(error))
        return Replicas(farm.spec, farm.ready, farm.starting_ages(), problem="; ".join(problems + farm.problems())[:300])

    def write(self, replicas: int, expected: int) -> Written:
        """Start workers, or order as many to go, if there are still as many as were decided on."""
        if self._dry_run:
            return Written("forbidden", detail="dry run: nothing is written")
        try:
            farm = self._look()
        except (RedisError, TargetError) as error:
            return Written("refused", detail=str(error))
        if farm.spec != expected:
            return Written("refused", farm.spec, f"{farm.spec} workers are asked for, not {expected}")
        try:
            return self._drain(farm, replicas) if replicas < farm.spec else self._grow(farm, replicas)
        except RedisError as error:
            return Written("forbidden" if error.is_forbidden else "unknown", detail=str(error))

    def _changed(self, script: str, farm: Farm, *arguments: str | bytes | float) -> int:
        """What a script answers; -1 where others have written since the farm was looked at."""
        keys = self._keys
        (answer,) = self._door.ask(
            ("EVAL", script, 4, keys.writes, keys.orders, self._queues.order, keys.workers, farm.writes, *arguments)
        )
        return int(answer)

    def _drain(self, farm: Farm, left: int) -> Written:
        now = time.time()
        told = [part for name, text in (order(now) for _ in range(farm.spec - left)) for part in (name, now, text)]
        return _OTHERS if self._changed(_DRAIN, farm, *told) < 0 else Written("written", left)

    def _grow(self, farm: Farm, replicas: int) -> Written:
        wanted = replicas - farm.balance
        names = [f"{self._workers.prefix}{secrets.token_hex(4)}" for _ in range(wanted)]
        # Whoever was to go, and has not heard of it yet, stays. The others are put down first, so that one is never called twice.
        back = [part for raw, name in farm.untaken for part in (name, raw)]
        taken_back = self._changed(_GROW, farm, f"made {time.time()}", len(farm.untaken), *back, *names)
        if taken_back < 0:
            return _OTHERS
        new = names[taken_back:]
        deadline, called_with = time.monotonic() + _START_SECONDS, payload(self._queues, farm.program_started, {})
        for at, name in enumerate(new):
            have = max(0, replicas - len(new) + at)
            failed: NotDoneError | None = None
            if time.monotonic() < deadline:
                try:
                    self._workers.start(name, called_with)
                    continue
                except NotDoneError as error:
                    if not error.answered or self._is_there(name):
                        continue
                    failed = error
            self._door.ask(("HDEL", self._keys.workers, *new[at:]))
            if failed is None:
                return Written("written", have, f"{have} of {replicas} in {_START_SECONDS:g} s")
            if have > farm.spec:
                return Written("written", have, str(failed))
            # An answer, and it is not there: nothing was done.
            outcome = "refused" if failed.outcome == "unknown" else failed.outcome
            return Written(outcome, detail=str(failed), retry_after_seconds=1.0)
        return Written("written", replicas)

    def _is_there(self, name: str) -> bool:
        try:
            return any(worker.name == name for worker in self._workers.all())
        except NotDoneError:
            # It may be: it is asked for again if it does not come.
            return True

    def _look(self) -> Farm:
        q, keys = self._queues, self._keys
        asked: list[Command] = [
            ("HGETALL", keys.orders),
            ("HGETALL", keys.workers),
            ("LRANGE", q.order, 0, _MOST_WORKERS),
            ("LRANGE", q.acknowledged, 0, _MOST_WORKERS),
            ("LRANGE", q.started or keys.workers + ":none", 0, _MOST_WORKERS),
            ("GET", keys.program),
            ("GET", keys.writes),
        ]
        found = self._door.ask(*asked)
        return farm_of(found, self._workers, self._queues, self._settings.drain_seconds, time.time())

    def _tend(self, farm: Farm) -> list[str]:
        """Do what workers have asked for by what they say; the problems met."""
        problems: list[str] = []
        deadline = time.monotonic() + _TEND_SECONDS
        now = time.time()
        self._note_started(farm)
        for ack in farm.acknowledged:
            if time.monotonic() > deadline:
                break
            try:
                self._remove(ack, farm, now)
            except NotDoneError as error:
                problems.append(str(error))
        called_with = payload(self._queues, farm.program_started, {})
        due = [(name, "called", self._workers.call) for name in (farm.uncalled() if self._workers.are_called else ())]
        due += [(name, "made", self._workers.start) for name in farm.missing()]
        for name, state, begin in due:
            if time.monotonic() > deadline:
                break
            # First: one that is called twice would have two tasks at a time, and one of them when it is removed.
            if self._door.ask(self._claim(name, farm, f"{state} {now}")) != [1]:
                continue
            try:
                begin(name, called_with)
            except NotDoneError as error:
                problems.append(str(error))
                if state == "called" and error.outcome != "unknown":
                    self._door.ask(("HSET", self._keys.workers, name, f"made {now}"))
        self._put_down(farm, now)
        return problems

    def _claim(self, name: str, farm: Farm, state: str) -> Command:
        """Puts a worker's new state down, unless others were faster; answers 1 where it has."""
        seen, since = farm.states[name]
        return "EVAL", _CLAIM, 1, self._keys.workers, name, f"{seen} {since}", state

    def _note_started(self, farm: Farm) -> None:
        done: list[Command] = []
        for raw, name in farm.start_signals:
            assert self._queues.started is not None
            done += [self._claim(name, farm, f"started {time.time()}"), ("LREM", self._queues.started, 1, raw)]
        if done:
            self._door.ask(*done)

    def _remove(self, ack: Acknowledged, farm: Farm, now: float) -> None:
        if ack.worker in farm.listed:
            self._workers.remove(ack.worker)
        done: list[Command] = [("LREM", self._queues.acknowledged, 1, ack.raw)]
        if ack.order is not None:
            done.append(("HDEL", self._keys.orders, ack.order))
        if ack.worker:
            done.append(("HSET", self._keys.workers, ack.worker, f"gone {now}"))
        self._door.ask(*done)

    def _put_down(self, farm: Farm, now: float) -> None:
        done = [self._claim(name, farm, f"{state} {now}") for name, state in farm.changed().items()]
        if names := farm.forgotten():
            done.append(("HDEL", self._keys.workers, *names))
        if given_up := farm.given_up():
            done.append(("HDEL", self._keys.orders, *given_up))
        if done:
            self._door.ask(*done)

    def tell(self, reason: str, message: str) -> None:
        """A farm has no place for notes."""

    def check(self, *, dry_run: bool) -> list[str]:
        """Whether Redis and whoever starts workers answer, and what stands out."""
        try:
            farm = self._look()
            if not dry_run:
                # Changes nothing, and takes the right to.
                self._door.ask(("HDEL", self._keys.orders, ""), ("LREM", self._queues.order, 0, ""), ("EVAL", "return 1", 0))
        except (RedisError, TargetError) as error:
            return [str(error)]
        lines = [WARNING + problem for problem in farm.problems()]
        if farm.strangers:
            listed = ", ".join(sorted(farm.strangers)[:3])
            lines.append(f"{WARNING}{len(farm.strangers)} workers were not started here, and are taken to run: {listed}")
        return lines

    def close(self) -> None:
        """Let connections go; orders that were given stand."""
        self._workers.close()
        self._door.close()


def make(settings: Mapping[str, Any], context: TargetContext) -> RedisFarmTarget:
    """The target of these settings.

    Raises:
        ConfigError: a key or value that is not allowed.
        InputError: a secret cannot be read, or another user could change a command.
    """
    return RedisFarmTarget(checked(RedisFarmSettings, _SETTINGS, dict(settings), "target"), context)
