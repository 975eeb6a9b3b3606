"""The env runners of an algorithm as one source of whole batches, whatever happens to some of them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError
from ray.rllib.core import COMPONENT_RL_MODULE

from scalepilot.errors import EnvironmentFailedError, RunError, ScalepilotError
from scalepilot.files.stop import check_stop
from scalepilot.simulate.env_notes import EnvNotes

logger = logging.getLogger("scalepilot.training")
# Deaths of one env runner without a rollout in between; far apart they may be as many as they like.
_DEATHS_IN_A_ROW = 3
_HANGS_IN_A_ROW = 2
_START_SECONDS = 120.0
_LOOK_SECONDS = 0.1


class Sampled(NamedTuple):
    """One rollout, left where it was sampled.

    Attributes:
        runner: id of the env runner.
        pieces: a reference for each learner.
        metrics: of the env runner since its last rollout.
        put_seconds: time to put the pieces into the object store.
        notes: what was odd about its environments.
    """

    runner: int
    pieces: list[ray.ObjectRef]
    metrics: Any
    put_seconds: float
    notes: EnvNotes


def sample_by_reference(
    runner: Any, num_pieces: int, **arguments: Any
) -> tuple[list[ray.ObjectRef], Any, float, EnvNotes] | ScalepilotError:
    """On a remote runner: leave the rollout in its node's object store, return what `Sampled` holds but for the runner.

    Args:
        runner: the env runner.
        num_pieces: learners that share the rollout.
        **arguments: of its `sample`.
    """
    try:
        rollout = runner.sample(**arguments)
    except ScalepilotError as error:
        # What ends the run should say so; any other exception ends the process, and RLlib's actor logs it.
        return error
    began = time.perf_counter()
    pieces = [ray.put(piece) for piece in rollout.split(num_pieces)]
    return pieces, runner.get_metrics(), time.perf_counter() - began, runner.take_notes()


@dataclass
class _Runner:
    """What is known of one env runner.

    Attributes:
        requests: rollouts asked for and not answered.
        busy_since: when the oldest of them could begin.
        down: it died and has not answered since.
        deaths, hangs: in a row.
        probe: asked of it since it died; answered when it is up again.
        down_since: when it died.
        reason: why it was killed.
    """

    requests: int = 0
    busy_since: float = 0.0
    down: bool = False
    deaths: int = 0
    hangs: int = 0
    probe: ray.ObjectRef | None = None
    down_since: float = 0.0
    reason: str = ""


class RunnerPool:
    """Samples with those that are well; the others come back in the background, with new weights, when they can.

    Args:
        group: RLlib's env runners, remote ones.
        env_id: for messages.
        timeout_seconds: a rollout that takes longer hangs.
        num_pieces: learners that share each rollout.
    """

    def __init__(self, group: Any, env_id: str, timeout_seconds: float, num_pieces: int) -> None:
        self.group, self.env_id, self.timeout_seconds, self.num_pieces = group, env_id, timeout_seconds, num_pieces
        self.manager = group._worker_manager
        self.restarts = 0
        self._runners: dict[int, _Runner] = {runner: _Runner() for runner in self.manager.actor_ids()}

    def sample(self, count: int, **arguments: Any) -> list[Sampled]:
        """So many rollouts, in the order of the runners; where one is missing, another samples twice.

        Args:
            count: rollouts.
            **arguments: what exploration needs to know now.

        Raises:
            EnvironmentFailedError: an environment cannot be gone on with.
            RunError: an env runner cannot be started, or dies again and again.
            Stopped: a signal asks for the end.
        """
        request = partial(sample_by_reference, num_pieces=self.num_pieces, **arguments)
        done: list[Sampled] = []
        flying: dict[ray.ObjectRef, int] = {}
        while len(done) < count:
            check_stop()
            self._revive()
            flying |= self._ask(request, count - len(done) - len(flying))
            if not flying:
                time.sleep(_LOOK_SECONDS)
                continue
            ready, _ = ray.wait(list(flying), num_returns=1, timeout=_LOOK_SECONDS)
            ready, _ = ray.wait(list(flying), num_returns=len(flying), timeout=0) if ready else ([], [])
            for reference in ready:
                sampled = self._answer(flying.pop(reference), reference)
                if sampled is not None:
                    done.append(sampled)
            self._end_hangs(set(flying.values()))
        return sorted(done, key=lambda sampled: sampled.runner)

    def _ask(self, request: Any, missing: int) -> dict[ray.ObjectRef, int]:
        """Ask for the rollouts that are missing, of the least busy first."""
        asked: dict[ray.ObjectRef, int] = {}
        well = [runner for runner, state in self._runners.items() if not state.down]
        for _ in range(missing if well else 0):
            chosen = min(well, key=lambda runner: self._runners[runner].requests)
            state = self._runners[chosen]
            if not state.requests:
                state.busy_since = time.monotonic()
            state.requests += 1
            asked[self.manager.actors()[chosen].apply.remote(request)] = chosen
        return asked

    def _answer(self, runner: int, reference: ray.ObjectRef) -> Sampled | None:
        state = self._runners[runner]
        state.requests, state.busy_since = max(0, state.requests - 1), time.monotonic()
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            raise RunError(f"env runner {runner}: {_cause(error)}") from None
        except RayError as error:
            self._lost(runner, f"died ({_cause(error)})")
            return None
        if isinstance(answer, ScalepilotError):
            raise answer
        state.deaths = state.hangs = 0
        return Sampled(runner, *answer)

    def _lost(self, runner: int, reason: str) -> None:
        """Take a runner out until it answers again."""
        state = self._runners[runner]
        if state.down:
            return
        self.manager.set_actor_state(runner, healthy=False)
        state.down, state.down_since, state.requests = True, time.monotonic(), 0
        logger.warning("env runner %d %s; it is restarted", runner, state.reason or reason)
        self._count_death(runner, state.reason or reason)
        state.reason = ""

    def _count_death(self, runner: int, reason: str) -> None:
        state = self._runners[runner]
        state.deaths += 1
        if state.deaths > _DEATHS_IN_A_ROW:
            raise RunError(f"env runner {runner} {reason} {state.deaths} times in a row")

    def _end_hangs(self, busy: set[int]) -> None:
        """Kill the runners whose environment does not come back; Ray starts them anew."""
        now = time.monotonic()
        for runner in busy:
            state = self._runners[runner]
            if state.reason or not state.requests or now - state.busy_since <= self.timeout_seconds:
                continue
            state.hangs += 1
            problem = f"hangs: a rollout takes more than resources.env_timeout_seconds, {self.timeout_seconds:g} s"
            if state.hangs >= _HANGS_IN_A_ROW:
                raise EnvironmentFailedError(f"env {self.env_id}: {problem}, again after env runner {runner} was restarted")
            state.reason = f"has an environment, {self.env_id}, that {problem}"
            ray.kill(self.manager.actors()[runner], no_restart=False)

    def _revive(self) -> None:
        """Look, without waiting, whether those that died are up again."""
        for runner, state in self._runners.items():
            if not state.down:
                if not self.manager.is_actor_healthy(runner):
                    self._lost(runner, "died")
                continue
            actor = self.manager.actors()[runner]
            if state.probe is None:
                state.probe = actor.apply.remote(_is_up)
            if not ray.wait([state.probe], timeout=0)[0]:
                if time.monotonic() - state.down_since > _START_SECONDS and all(other.down for other in self._runners.values()):
                    raise RunError(f"env runner {runner}: not up after {_START_SECONDS:g} s, nor is any other; enough free CPUs?")
                continue
            probe, state.probe = state.probe, None
            try:
                ray.get(probe)
            except (RayTaskError, ActorDiedError) as error:
                if isinstance(error, RayTaskError) or error.actor_init_failed:
                    raise RunError(f"env runner {runner}: cannot be started ({_cause(error)})") from None
                self._count_death(runner, "died while it was started")
            except RayError:
                continue
            else:
                actor.set_state.remote(ray.put(self._weights()))
                self.manager.set_actor_state(runner, healthy=True)
                state.down = False
                self.restarts += 1
                logger.info("env runner %d is back", runner)

    def _weights(self) -> dict[str, Any]:
        state: dict[str, Any] = self.group.local_env_runner.get_state(components=[COMPONENT_RL_MODULE])
        return state

    def take_restarts(self) -> int:
        """Restarts since the last call."""
        taken, self.restarts = self.restarts, 0
        return taken

    def forsake(self) -> None:
        """Kill what would keep the end waiting: runners that are not well, or still sample."""
        for runner, state in self._runners.items():
            if state.requests or state.down:
                ray.kill(self.manager.remove_actor(runner))


def _is_up(runner: Any) -> bool:
    runner.assert_healthy()
    return True


def _cause(error: BaseException) -> str:
    """The last line of a Ray error: what was raised, behind all the traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
