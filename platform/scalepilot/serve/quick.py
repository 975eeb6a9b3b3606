"""One observation, decided without arrays around the network: for a single row numpy's own calls cost more than the arithmetic.

Only for policies that choose from an action table, and only for what needs no explanation: everything else goes through
`decisions.py` and `answers.py`. `tests/unit/test_serve_quick.py` holds both ways to the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy import FieldView, NetworkPolicy, Policy
from scalepilot.policy.decoder import MoveDecoder

# Beyond this many replicas the table of targets would be larger than it is worth.
_MAX_REPLICAS = 20_000
_DIGITS = 6
_SCALE = 10.0**_DIGITS


class QuickDecider:
    """Answers one observation of a policy with an action table.

    Args:
        policy: a network.
        labels: of its moves.
        view: of its observation.
        rows: (n, num_fields) observations to try the short cuts on.

    Raises:
        ArtifactError: this policy has no short way.
    """

    def __init__(self, policy: NetworkPolicy, labels: Sequence[str], view: FieldView, rows: NDArray[np.float64]) -> None:
        spec = policy.spec
        decoder = MoveDecoder(spec)
        if spec.components or not decoder.actions.moves_replicas:
            raise ArtifactError(f"{spec.name}: moves no replicas by an action table")
        self._scores: Callable[[NDArray[Any]], NDArray[np.float32]] = policy.scores
        self._labels, self._total = tuple(labels), view.total_of_row
        self._q = spec.decision_rule == "argmax_q"
        self._head = {"policy": spec.name, "version": spec.version}
        self._most = int(min(_MAX_REPLICAS, sum(f.high for f in spec.observation_fields if "replicas" in f.name) + 1))
        totals = np.arange(self._most + 1, dtype=np.float64)
        self._targets: list[list[int]] = [
            decoder.actions.targets(np.full(len(totals), action), totals).astype(np.int64).tolist()
            for action in range(len(labels))
        ]
        try:
            same = all(self._total(row) == total for row, total in zip(rows.tolist(), view.total(rows), strict=True))
        except (TypeError, ValueError, IndexError, AttributeError):
            same = False
        if not same:
            raise ArtifactError(f"{spec.name}: its total of replicas is not computed from plain numbers")

    def answer(self, row: tuple[float, ...]) -> dict[str, Any] | None:
        """Answer one observation.

        Args:
            row: checked values in the order of the fields.

        Returns:
            The answer; None for what the long way must look at.
        """
        scores: list[float] = self._scores(np.array([row], dtype=np.float32))[0].tolist()
        total = self._total(row)
        # Not finite: NaN and infinity are not equal to themselves less nothing.
        if not math.isfinite(sum(scores)) or not 0 <= total <= self._most:
            return None
        best = max(scores)
        action = scores.index(best)
        answer = self._head | {
            "action": action,
            "move": self._labels[action],
            "desired_replicas": self._targets[action][int(total)],
        }
        if self._q:
            largest = max(best, -min(scores))
            scale = 10.0 ** (_DIGITS - (math.floor(math.log10(largest)) if largest > 0 else 0))
            answer["q_values"] = dict(zip(self._labels, [round(score * scale) / scale for score in scores], strict=True))
        else:
            odds = [math.exp(score - best) for score in scores]
            whole = sum(odds)
            answer["probabilities"] = dict(zip(self._labels, [round(odd / whole * _SCALE) / _SCALE for odd in odds], strict=True))
        return answer


def quick_decider(policy: Policy, labels: Sequence[str], view: FieldView, rows: NDArray[np.float64]) -> QuickDecider | None:
    """The short way of a policy; None where it has none."""
    if not isinstance(policy, NetworkPolicy):
        return None
    try:
        return QuickDecider(policy, labels, view, rows)
    except ArtifactError:
        return None
