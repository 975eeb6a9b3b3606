"""Tabular updates of several environments at once: errors on shared entries, and eligibility traces."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
MAX_TRACE_STEPS = 10_000


def step_weights(alpha: float, num_envs: int) -> Floats:
    """(num_envs + 1,) what k steps of size α towards one target come to, by k: 1 − (1 − α)^k."""
    weights: Floats = 1.0 - np.power(1.0 - alpha, np.arange(num_envs + 1, dtype=np.float64))
    # α itself, not α rounded twice: one environment learns exactly as the textbook's loop.
    weights[1] = alpha
    return weights


def apply_errors(q: Floats, entries: Ints, errors: Floats, weights: Floats) -> None:
    """Move entries of a flat table along their errors.

    One error on an entry moves it by α times the error. k errors on one entry, all computed from the same table, move it by
    (1 − (1 − α)^k) times their mean: as k steps one after another towards the mean of their targets. Their sum would
    overshoot: sixteen environments in their common first state, α 0.3, would move it by 4.8 times the mean error.

    Args:
        q: (num_entries,), changed in place.
        entries: (m,) indices.
        errors: (m,) one an entry given.
        weights: `step_weights`, at least as many as errors on one entry.
    """
    touched, which, counts = np.unique(entries, return_inverse=True, return_counts=True)
    q[touched] += weights[counts] / counts * np.bincount(which, errors)


class Traces:
    """Accumulating eligibility traces, sparse: the visits of each environment that have not yet faded.

    A visit counts (γλ)^age, and a trace is the sum over the visits of its entry. A visit is dropped when it counts less than
    the threshold, which bounds visits by log(threshold) / log(γλ); a trace is short of the full one by less than
    threshold / (1 − γλ).

    Args:
        num_envs: environments, each with traces of its own.
        decay: γλ a step.
        threshold: visits that count less are dropped.

    Raises:
        ValueError: visits would be kept for more than 10,000 steps.
    """

    def __init__(self, num_envs: int, decay: float, threshold: float) -> None:
        steps = math.inf
        if decay == 0.0 or threshold >= 1.0:
            steps = 1
        elif decay < 1.0 and threshold > 0.0:
            steps = 1 + math.floor(math.log(threshold) / math.log(decay) + 1e-9)
        if steps > MAX_TRACE_STEPS:
            raise ValueError(
                f"trace_threshold: {threshold:g} keeps traces for {steps:,} steps at gamma × trace_decay = {decay:g};"
                f" allowed: a threshold or decay that keeps at most {MAX_TRACE_STEPS:,}"
            )
        self.num_envs, self.num_steps = num_envs, int(steps)
        # By age; a ring of the last visits, the newest at `_newest`.
        self._powers: Floats = decay ** np.arange(self.num_steps, dtype=np.float64)
        self._visits: Ints = np.zeros((self.num_steps, num_envs), dtype=np.int64)
        self._newest = 0
        self._slots = np.arange(self.num_steps)
        self._envs = np.broadcast_to(np.arange(num_envs), self._visits.shape)
        # Visits since the episode began.
        self._depth: Ints = np.zeros(num_envs, dtype=np.int64)

    def reset(self, rows: Ints) -> None:
        """Forget the visits of environments whose episode begins anew."""
        self._depth[rows] = 0

    def visit(self, entries: Ints) -> None:
        """Count a visit of `entries` (num_envs,); everything earlier fades by one step."""
        self._newest = (self._newest + 1) % self.num_steps
        self._visits[self._newest] = entries
        self._depth += 1

    def active(self) -> tuple[Ints, Ints, Floats]:
        """All traces: entry (m,), environment (m,), size (m,), each pair of entry and environment once."""
        ages = (self._newest - self._slots) % self.num_steps
        kept = ages[:, None] < self._depth
        pairs = self._visits[kept] * self.num_envs + self._envs[kept]
        sizes = np.broadcast_to(self._powers[ages][:, None], kept.shape)[kept]
        pairs, which = np.unique(pairs, return_inverse=True)
        entries, envs = np.divmod(pairs, self.num_envs)
        summed: Floats = np.bincount(which, sizes).astype(np.float64, copy=False)
        return entries, envs, summed
