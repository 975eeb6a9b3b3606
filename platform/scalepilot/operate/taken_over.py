"""A policy that takes a recorded service over: for the simulator, with the limits that hold when it runs live."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.operate.guard import GuardState, Limits, Situation, guarded, moved
from scalepilot.policy import Policy
from scalepilot.policy.fields import FieldView
from scalepilot.policy.protocol import Decision, State
from scalepilot.policy.spec import PolicySpec
from scalepilot_envs.description import EnvDescription

Array = NDArray[np.float64]


class TakenOver:
    """A policy that takes the service over as it really was, and then does what it wants, within limits.

    It counts its own steps: to be run once.

    Args:
        policy: decides.
        asked: (n, num_steps) replicas that really ran.
        forced: (n,) steps at the beginning in which they are kept.
        env: says how the total of replicas is computed.
        start: (n,) Unix seconds of the first step.
        limits: what the policy may do in one decision; None for anything.
    """

    def __init__(
        self, policy: Policy, asked: Array, forced: NDArray[np.int64], env: EnvDescription, start: Array, limits: Limits | None
    ) -> None:
        self._policy, self._asked, self._forced, self._start, self._limits = policy, asked, forced, start, limits
        self._interval, self._step = env.interval_seconds, 0
        self._view = FieldView(policy.spec.observation_fields, env.signals)
        self._has_shares = {"late_share", "error_share"} <= {f.name for f in policy.spec.observation_fields}
        self._memories = [GuardState()] * len(asked)

    @property
    def spec(self) -> PolicySpec:
        """The policy's."""
        return self._policy.spec

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """See `Policy.act`."""
        decision, state = self._policy.act(observation, state, deterministic=deterministic, rng=rng)
        assert decision.desired_replicas is not None
        step, total = min(self._step, self._asked.shape[1] - 1), self._view.total(observation)
        self._step += 1
        forced = step < self._forced
        wanted = np.where(np.isfinite(decision.desired_replicas), decision.desired_replicas, total)
        if self._limits is not None:
            wanted = self._limited(observation, wanted, total, forced, step)
        return Decision(desired_replicas=np.where(forced, self._asked[:, step], wanted)), state

    def _limited(self, observation: NDArray[Any], wanted: Array, total: Array, forced: NDArray[np.bool_], step: int) -> Array:
        assert self._limits is not None
        shares: list[Any] = [np.full(len(total), np.nan)] * 2
        if self._has_shares:
            shares = [self._view.column(observation, name) for name in ("late_share", "error_share")]
        found = wanted.copy()
        for i in np.flatnonzero(~forced).tolist():
            late, errors = (None if math.isnan(share[i]) else float(share[i]) for share in shares)
            now = Situation(float(self._start[i]) + step * self._interval, int(total[i]), late, errors)
            target, _, memory = guarded(int(wanted[i]), now, self._memories[i], self._limits)
            self._memories[i] = moved(memory, now, target)
            found[i] = target
        return found
