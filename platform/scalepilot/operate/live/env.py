"""LiveScaling-v0: a real deployment as an environment, an interval a step.

It stands in for a simulated environment (`like`): the same fields, the same actions by the same table, the same reward, from what
is measured. Every action passes the limits of `scalepilot operate`, and every decision leaves the same record.

Observation, action, reward: of the environment it stands in for. A number above or below the bounds of its field is cut there.
Start: `reset` looks and never scales; a seed decides which tasks are put in, where the environment does that (`tasks`). It waits
for fields that are unknown, and raises `LiveUnknownError` where it waits in vain. Step: the action is carried out as far as the
limits let it, then the next moment of the grid is waited for. End: terminated as the simulated environment is, truncated after
`episode_steps`.
A write that fails, or that is refused, ends no episode: the step goes on with the replicas there are.
Unknown: while a field that the reward or a decision needs is unknown, the replicas are held and the step waits, `wait_intervals`
more moments. If that does not help, the episode is truncated, and the step is no transition: `info["env_failure"]` says why, the
fields that are unknown show what they showed last, and the reward is 0 because none is known. Scalepilot's own algorithms leave
such a step out. Fields that something stands in for (`assume`, or a resting value) are listed in `info["record"]`, and the mode
is `degraded`.
Info: the columns of the simulated environment; `limited`, `failed_write`, `waited` (moments), `missed` (moments); `record`, what
`scalepilot operate explain` shows of the decision.
History: v0, the first version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import RunError
from scalepilot.operate.ledger import Entry
from scalepilot.operate.live.outcome import Judge, Lived
from scalepilot.operate.live.system import LiveSystem
from scalepilot.operate.numbers import not_done, numbers_of
from scalepilot.operate.snapshot import Snapshot
from scalepilot.operate.tick import listed
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.episode_metrics import METADATA_KEY, EpisodeMetric
from scalepilot_envs.restarting import ENV_FAILURE

# Of environments that do not say how far their fields look back.
_HISTORY_STEPS = 12
# Told of every step: numbers by name, and the observation it was decided on.
FOLLOWERS: list[Callable[[Mapping[str, float], Any], None]] = []
_LOG = logging.getLogger("scalepilot.operate")


class LiveUnknownError(RunError):
    """An episode that cannot begin: what is needed is unknown."""


class LiveScalingEnv(gym.Env[NDArray[np.float32], Any]):
    """A deployment, one step an interval.

    Args:
        description: of the environment that it stands in for.
        judge: its objective.
        interval_seconds: of a step.
        take: opens the deployment for an environment, or gives the one that is open.
        leave: lets go of it.
        episode_steps: steps of an episode.
        wait_intervals: further moments for which a step waits while something is unknown.
        pace: its seconds in a second of the wall.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's own name and type

    def __init__(
        self,
        description: EnvDescription,
        judge: Judge,
        interval_seconds: float,
        take: Callable[[object], LiveSystem],
        leave: Callable[[object], None] = lambda env: None,
        *,
        episode_steps: int,
        wait_intervals: int = 3,
        pace: float = 1.0,
    ) -> None:
        self.description, self._judge, self._take, self._leave = description, judge, take, leave
        self.interval_seconds, self.pace = interval_seconds, pace
        self.episode_steps, self._wait_intervals = episode_steps, wait_intervals
        self._metrics = {**judge.metrics, "failed_writes": EpisodeMetric("failed_write", "sum")}
        self.metadata = {**self.metadata, METADATA_KEY: self._metrics}
        low, high = (np.array([getattr(f, side) for f in description.fields], np.float32) for side in ("low", "high"))
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gym.spaces.Discrete(len(description.actions))
        self.system: LiveSystem | None = None
        self._values: dict[str, float] = {}
        # Of fields that count: what they say now, and what they said when the episode began.
        self._counts: dict[str, float] = {}
        self._base: dict[str, float] = {}
        self._begun, self._return, self._said = 0.0, 0.0, False
        # A source that began with us has none of what fields look back on.
        self._history = int(getattr(description.params, "window_steps", _HISTORY_STEPS))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Look, and begin an episode with what is there.

        Raises:
            LiveUnknownError: something that is needed is unknown, also after waiting.
            InputError: the target may not be explored on, or something stands in the way.
        """
        super().reset(seed=seed)
        if options:
            raise ValueError(f"options: {next(iter(options))!r} is not allowed; allowed: none")
        if self.system is None:
            self.system = self._take(self)
        system, load = self.system, self.system.load
        if load is not None:
            load.clear()
        snapshot, waited, why = self._known(system, self._wait_intervals + self._history, hold=False)
        if why:
            raise LiveUnknownError(f"reset: {why}, for {waited + 1} moments")
        # Whoever has changed the replicas meanwhile: an episode begins with what there is.
        system.controller.acknowledge()
        system.episode_of, self._return = self, 0.0
        self._base = dict(self._counts)
        self._values |= {name: self._since(name) for name in self._counts}
        # The nearest moment of the grid: what is decided late in an interval gets the whole next one.
        self._begun = round(snapshot.time / self.interval_seconds) * self.interval_seconds
        self._judge.begin(self._values, snapshot.extra, load)
        if load is not None:
            # From the moment of the grid, as steps are.
            load.begin(seed, self._begun)
        return self._observation(), {**dict.fromkeys(self._columns(), 0.0), "waited": waited}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Carry an action out and wait for what it brings.

        Args:
            action: index of the action table.

        Raises:
            ValueError: there is no such action.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action: {action!r} is not allowed; allowed: 0 to {len(self.description.actions) - 1}")
        return self._step(int(action), None)

    def step_targets(self, target: float) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Likewise with a target in replicas, where the environment takes any; else the action that leads nearest to it."""
        return self._step(None, float(target))

    def _step(self, action: int | None, target: float | None) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        system = self.system
        if system is None or system.newest is None:
            raise gym.error.ResetNeeded("step() before reset()")
        if system.episode_of is not self:
            return self._no_transition("another episode ran on this deployment in between", {}, waited=0)
        missed, seen = system.missed, self._observation()
        if target is not None and not self.description.commands_targets:
            action, target = system.towards(target, system.spec(system.newest)), None
        entry = system.act(action, target)
        before = system.spec(entry.record.snapshot)
        system.wait()
        snapshot, waited, why = self._known(system, self._wait_intervals, hold=True)
        info = {
            "record": entry.to_json(),
            "limited": float(bool(entry.record.steps)),
            "failed_write": float(not_done(entry.record)),
            "missed": float(system.missed - missed),
        }
        if why:
            return self._no_transition(why, info, waited)
        # By the clock: moments that were missed or waited for have passed all the same.
        truncated = round((snapshot.time - self._begun) / self.interval_seconds) >= self.episode_steps
        after = _after(entry, before)
        counted = {name: count - self._base.get(name, 0.0) for name, count in self._counts.items()}
        lived = Lived(action, after, after - before, self._values | counted, snapshot.extra, is_last=truncated)
        try:
            outcome = self._judge.outcome(lived)
        except RunError as error:
            return self._no_transition(str(error), info, waited)
        info |= {**{name: float(value) for name, value in outcome.columns.items()}, "waited": float(waited)}
        self._return += outcome.reward
        row = {**numbers_of(entry), "train/reward": outcome.reward, "train/episode_reward": self._return}
        for told in tuple(FOLLOWERS):
            told(row, seen)
        return self._observation(), outcome.reward, outcome.terminated, truncated, info

    def _known(self, system: LiveSystem, most: int, *, hold: bool) -> tuple[Snapshot, int, str]:
        """The first snapshot of now and `most` moments in which all is known, how many were waited for, and what is not."""
        for waited in range(most + 1):
            if waited:
                system.wait()
            snapshot = system.look()
            values, missing, _ = system.known(snapshot)
            rest = system.service.deciders.at_rest
            self._values = {f.name: values.get(f.name, rest.get(f.name, self._last(f.name))) for f in self.description.fields}
            self._counts = {name: raw for name in self._judge.counted if (raw := _raw(snapshot, name)) is not None}
            self._values |= {name: self._since(name) for name in self._judge.counted & self._counts.keys()}
            why = listed(missing) or self._judge.unknown(snapshot.extra) or ("" if hold else _not_ready(snapshot))
            if not why:
                self._said = False
                return snapshot, waited, ""
            if not self._said:
                # Once; why it is so changes from moment to moment.
                self._said = True
                _LOG.warning("unknown, nothing is scaled: %s", why)
            if hold:
                system.hold(snapshot)
        return snapshot, most, why

    def _since(self, name: str) -> float:
        """What a field has counted in this episode, as it is shown."""
        f = next(f for f in self.description.fields if f.name == name)
        return min(max(self._counts[name] - self._base.get(name, 0.0), f.low), f.high)

    def _last(self, name: str) -> float:
        return self._values.get(name, float("nan"))

    def _no_transition(
        self, why: str, info: Mapping[str, Any], waited: int
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        columns = dict.fromkeys(self._columns(), 0.0)
        return self._observation(), 0.0, False, True, {**columns, **info, "waited": float(waited), ENV_FAILURE: why}

    def _columns(self) -> list[str]:
        """Of the judge's metrics, for what has no step."""
        return sorted({name for metric in self._metrics.values() for name in (metric.column, metric.per) if name})

    def _observation(self) -> NDArray[np.float32]:
        return np.array([self._values[f.name] for f in self.description.fields], np.float32)

    def close(self) -> None:
        """Let go of the deployment, which stays as it is."""
        if self.system is not None:
            self.system = None
            self._leave(self)


def _not_ready(snapshot: Snapshot) -> str:
    """Why no episode can begin although everything is measured; "" where one can."""
    replicas = snapshot.replicas
    if replicas.spec is None:
        return f"replicas: {replicas.problem or 'unknown'}"
    return "" if replicas.leading else f"another process holds the lease{f' ({replicas.problem})' if replicas.problem else ''}"


def _raw(snapshot: Snapshot, name: str) -> float | None:
    reading = snapshot.readings.get(name)
    return None if reading is None else reading.value


def _after(entry: Entry, before: int) -> int:
    """Replicas asked for after a decision, as far as is known."""
    if entry.record.outcome == "written":
        return before if entry.state.asked is None else entry.state.asked
    return before
