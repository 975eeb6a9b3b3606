"""One live deployment with everything that reads and scales it, however many environments of a process stand on it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ConfigError, InputError
from scalepilot.files.stop import check_stop, in_one_piece
from scalepilot.operate.config import OperateConfig, Service, service_of
from scalepilot.operate.controller import Controller
from scalepilot.operate.ledger import Entry, Ledger
from scalepilot.operate.live.options import LiveOptions
from scalepilot.operate.live.tasks import Load, WorkflowLoad
from scalepilot.operate.numbers import not_done
from scalepilot.operate.snapshot import Snapshot
from scalepilot.operate.targets import WARNING, Target, TargetContext, make_target
from scalepilot.operate.telemetry import Telemetry, TelemetryContext, make_telemetry
from scalepilot.operate.tick import known
from scalepilot.operate.twin import Clock
from scalepilot.policy import PolicySpec, env_actions, env_fields
from scalepilot.policy.protocol import Decision, State
from scalepilot_envs.autoscale import Move, MoveTable
from scalepilot_envs.description import EnvDescription

_LOG = logging.getLogger("scalepilot.operate")
_LOOK_SECONDS = 0.1


class Chosen:
    """What an agent has chosen, as a policy: limits, modes and records of `scalepilot operate` are then the same.

    Args:
        env: whose actions it chooses.
    """

    def __init__(self, env: EnvDescription) -> None:
        self.spec = PolicySpec(
            name="training",
            version="live",
            kind="table",
            env_id=env.env_id,
            env_params={},
            observation_fields=env_fields(env),
            actions=env_actions(env),
            decision_rule="argmax_q",
        )
        self.decision = Decision()

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """The choice, whatever is seen."""
        return self.decision, None


def live_service(config: OperateConfig, env: EnvDescription, needs: frozenset[str]) -> Service:
    """Who decides on a live environment, within which limits.

    Args:
        config: an operate.yaml.
        env: the environment it stands in for.
        needs: fields for which nothing stands in unless `assume` says so.

    Raises:
        ConfigError: limits, fallbacks or assumptions that do not fit.
    """
    if config.feed:
        raise ConfigError("feed: a live environment scales by itself; allowed: a configuration without a feed")
    service = service_of(replace(config, shadows=()), Chosen(env), env)
    at_rest = {f: value for f, value in service.deciders.at_rest.items() if f in config.assume or f not in needs}
    return replace(service, deciders=replace(service.deciders, at_rest=at_rest))


class LiveSystem:
    """A deployment that is observed and scaled at the moments of a grid.

    Args:
        service: who decides, within which limits; its policy is a `Chosen`.
        telemetry: where the fields come from.
        target: what is scaled.
        explore_on: name of the target that may be scaled.
        ledger: where decisions are written down; None for nowhere.
        load: what episodes bring to it; None where that comes by itself.
        clock: Unix seconds.
        pace: the clock's seconds in a second of the wall.

    Raises:
        InputError: something stands in the way, or nobody has said by its name that this target may be explored on.
    """

    def __init__(
        self,
        service: Service,
        telemetry: Telemetry,
        target: Target,
        explore_on: str | None,
        *,
        ledger: Ledger | None = None,
        load: Load | None = None,
        clock: Callable[[], float] = time.time,
        pace: float = 1.0,
    ) -> None:
        self.service, self.interval, self.load = service, service.interval_seconds, load
        problems = target.check(dry_run=False)
        blocking = [line for line in problems if not line.startswith(WARNING)]
        if blocking and not service.limits.takeover:
            raise InputError("; ".join(blocking[:3]))
        if explore_on != target.name:
            said = "none given" if explore_on is None else f"{explore_on!r} is another target"
            raise InputError(
                f"explore_on: {said}; every step would scale {target.name}, which must be allowed by name: "
                f'explore_on: "{target.name}"'
            )
        for line in problems:
            _LOG.warning("%s", line)
        self.controller = Controller(service, telemetry, target, ledger, clock=clock, pace=pace)
        # What a run before left must not be taken for this one's.
        self.controller.acknowledge()
        self._clock, self._pace = clock, pace
        chosen = service.deciders.policy
        assert isinstance(chosen, Chosen)
        self._chosen = chosen
        self._table = MoveTable(Move(a.kind, a.size) for a in service.env.actions)  # type: ignore[arg-type]
        self._told: set[str] = set()
        self.newest: Snapshot | None = None
        self._spec = 0
        # Whose episode runs: what another did in between is no step of it.
        self.episode_of: object = None
        self.missed = 0
        # When it was acted last, or waited for.
        self._acted = clock()

    def look(self) -> Snapshot:
        """What is known now."""
        self.newest = self.controller.look()
        self._spec = self.spec(self.newest)
        return self.newest

    def known(self, snapshot: Snapshot) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
        """Values that are known; why others that are needed are not; and those that something stands in for. All by field."""
        return known(snapshot, self.service.deciders, self.controller.limits, self.interval)

    def spec(self, snapshot: Snapshot) -> int:
        """Replicas asked for; what was asked for last where the target does not say."""
        return self._spec if snapshot.replicas.spec is None else snapshot.replicas.spec

    def towards(self, target: float, spec: int) -> int:
        """The action that leads nearest to a target, from so many replicas."""
        actions = np.arange(len(self.service.env.actions))
        return int(np.abs(self._table.targets(actions, np.full(len(actions), float(spec))) - target).argmin())

    def act(self, action: int | None, target: float | None = None) -> Entry:
        """Carry an action out, or a target, as far as the limits let it.

        Args:
            action: index of the environment's table.
            target: replicas, in its place.
        """
        snapshot, self._acted = self.newest, self._clock()
        assert snapshot is not None
        if self._acted - snapshot.time > 1.5 * self.interval:
            # Learning took so long; the limits must see what is there now.
            snapshot = self.look()
        targets = None if target is None else np.rint(np.array([target], np.float64))
        self._chosen.decision = Decision(targets, None if action is None else np.array([action]))
        return self._decide(snapshot)

    def hold(self, snapshot: Snapshot) -> Entry:
        """A moment at which nothing is chosen; where this lasts, `limits` say what is done."""
        self._chosen.decision = Decision()
        return self._decide(snapshot)

    def _decide(self, snapshot: Snapshot) -> Entry:
        with in_one_piece():
            entry = self.controller.decide(snapshot)
        record = entry.record
        if record.outcome == "written" and entry.state.asked is not None:
            self._spec = entry.state.asked
        # Of a failed write its outcome, and else the mode in which nothing could be asked for.
        kind = (record.outcome or record.mode) if not_done(record) else ""
        if kind and kind not in self._told:
            self._told.add(kind)
            _LOG.warning("%s: %s; the episode goes on", self.controller.target.name, record.detail or record.reason or kind)
        elif record.outcome == "written":
            # Told again when it comes back.
            self._told.clear()
        return entry

    def wait(self) -> None:
        """Until the next moment of the grid. What was decided in the second half of an interval gets the whole next one, too.

        Raises:
            Stopped: a signal asks for the end.
        """
        now, since = self._clock(), self._acted
        moment = (since // self.interval + 1) * self.interval
        if moment - since < 0.5 * self.interval:
            # Just before a moment, that one was meant; else it is passed over.
            self.missed += moment - since > 0.02 * self.interval
            moment += self.interval
        if moment <= now:
            # What was written took so long.
            late = (now - moment) // self.interval + 1
            self.missed, moment = self.missed + int(late), moment + late * self.interval
        self._acted = moment
        end = time.monotonic() + (moment - now) / self._pace
        while (rest := end - time.monotonic()) > 0:
            check_stop()
            time.sleep(min(rest, _LOOK_SECONDS))

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self._clock()


class Systems:
    """The systems that are open in this process: every environment on one configuration stands on the same."""

    def __init__(self) -> None:
        self._open: dict[object, tuple[LiveSystem, contextlib.ExitStack, set[int]]] = {}
        self._lock = threading.Lock()

    def take(self, key: object, user: object, make: Callable[[contextlib.ExitStack], LiveSystem]) -> LiveSystem:
        """The system of a configuration, opened for its first user."""
        with self._lock:
            if key not in self._open:
                with contextlib.ExitStack() as opened:
                    system = make(opened)
                    self._open[key] = system, opened.pop_all(), set()
            system, _, users = self._open[key]
            users.add(id(user))
            return system

    def leave(self, key: object, user: object) -> None:
        """Close it with its last user."""
        with self._lock:
            if key not in self._open:
                return
            _, opened, users = self._open[key]
            users.discard(id(user))
            if not users:
                del self._open[key]
                opened.close()


@dataclass(frozen=True)
class Opening:
    """What a system is opened with.

    Attributes:
        config: an operate.yaml.
        service: as `LiveSystem` takes it.
        options: of the environment.
        episode_steps: steps of an episode.
    """

    config: OperateConfig
    service: Service
    options: LiveOptions
    episode_steps: int

    def __call__(self, opened: contextlib.ExitStack) -> LiveSystem:
        """Connect; what is opened is closed with the stack.

        Raises:
            InputError: see `LiveSystem`; or the folder of records is another process's, which scales the same.
        """
        config, service, pace = self.config, self.service, self.options.pace
        clock: Callable[[], float] = time.time if pace == 1.0 else Clock(pace, 0.0, 0.0)
        ledger = Ledger(Path(config.records))
        opened.enter_context(ledger.held())
        telemetry = make_telemetry(config.telemetry, TelemetryContext(service.env, service.deciders.fields))
        opened.callback(telemetry.close)
        context = TargetContext(f"{socket.gethostname()}-{os.getpid()}", False, service.interval_seconds / pace)
        target = make_target(config.target, context)
        opened.callback(target.close)
        load: Load | None = None
        if self.options.tasks is not None:
            params = service.env.params
            load = WorkflowLoad(self.options.tasks, config.telemetry, params, self.episode_steps, clock, pace)
            opened.callback(load.close)
        on = self.options.explore_on
        return LiveSystem(service, telemetry, target, on, ledger=ledger, load=load, clock=clock, pace=pace)


SYSTEMS = Systems()
