"""From checked observations to decisions, for every endpoint: arrays in, arrays out, never a number that is not finite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy import State
from scalepilot.serve.catalogue.served import ServedPolicy


@dataclass(frozen=True)
class Outcome:
    """What a policy decided for n observations.

    Attributes:
        desired_replicas: (n,) int64; None where the environment has no replicas.
        total_replicas: (n,) int64 ready + starting, as observed; None likewise.
        action: (n,) int64 indices of the action table, −1 where none was chosen, or (n, k) float32 continuous actions; None for
            policies that command replicas.
        scores: (n, num_actions) float32, NaN in the rows that fell back; None for rules.
        state: for the next call, worth nothing in rows that fell back; None where nothing is remembered.
        invalid: (n, num_actions) bool: actions that the observation says are not valid; None where it says nothing of them.
        fell_back: (n,) bool: the policy gave no finite number here, and the fallback decided; None where that is nowhere.
    """

    desired_replicas: NDArray[np.int64] | None
    total_replicas: NDArray[np.int64] | None
    action: NDArray[Any] | None
    scores: NDArray[np.float32] | None
    state: State | None
    fell_back: NDArray[np.bool_] | None = None
    invalid: NDArray[np.bool_] | None = None


def decide_rows(served: ServedPolicy, observation: NDArray[np.float64], state: State | None = None) -> Outcome:
    """Decide greedily, as the policy was evaluated: the same observation and state have the same decision.

    Args:
        served: who decides.
        observation: (n, num_fields) within the fields' bounds.
        state: of all n observations, or None.
    """
    # Within bounds a rule may still divide by a field that is 0; what comes of it is caught below, row by row.
    with np.errstate(all="ignore"):
        decision, next_state = served.policy.act(observation, state)
    desired, action, scores = decision.desired_replicas, decision.action, decision.scores
    total = served.view.total(observation) if served.shows_replicas else None
    num_masked = served.spec.num_masked
    invalid = observation[:, -num_masked:] <= 0.5 if num_masked else None
    decisive = [part for part in (scores, desired, action) if part is not None and part.dtype.kind == "f"]
    if next_state is not None:
        decisive += list(next_state.values())
    # One sum is finite where every number is (or overflows, and then the rows are looked at one by one to no effect).
    with np.errstate(all="ignore"):
        finite = all(np.isfinite(part.sum()) for part in decisive)
    if finite:
        whole = None if desired is None else desired.astype(np.int64)
        return Outcome(whole, None if total is None else total.astype(np.int64), action, scores, next_state, invalid=invalid)
    broken = ~np.all([np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in decisive], axis=0)
    outcome = Outcome(
        None if desired is None else np.where(np.isfinite(desired), desired, 0).astype(np.int64),
        None if total is None else total.astype(np.int64),
        action,
        scores,
        next_state,
        invalid=invalid,
    )
    return _with_fallback(served, observation, outcome, broken) if broken.any() else outcome


def _with_fallback(
    served: ServedPolicy, observation: NDArray[np.float64], outcome: Outcome, broken: NDArray[np.bool_]
) -> Outcome:
    desired, action, scores = outcome.desired_replicas, outcome.action, outcome.scores
    if desired is not None:
        desired = np.where(broken, _safe_replicas(served, observation), desired)
    if action is not None:
        action = np.where(broken.reshape(-1, *[1] * (action.ndim - 1)), -1 if action.dtype.kind == "i" else np.nan, action)
    if scores is not None:
        scores = np.where(broken[:, None], np.float32(np.nan), scores)
    return replace(outcome, desired_replicas=desired, action=action, scores=scores, fell_back=broken)


def _safe_replicas(served: ServedPolicy, observation: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) replicas of the fallback rule, the present ones where it has none or no finite number either."""
    held = served.view.total(observation)
    wanted = held
    if served.fallback is not None:
        with np.errstate(all="ignore"):
            ruled = served.fallback.act(observation)[0].desired_replicas
        if ruled is not None:
            wanted = np.where(np.isfinite(ruled), ruled, held)
    low, high = served.replica_bounds or (-np.inf, np.inf)
    return np.clip(wanted, low, high).astype(np.int64)
