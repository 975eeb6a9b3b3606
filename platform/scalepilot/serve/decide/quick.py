"""The usual answers in a fraction of the time: one observation decided without arrays, many answered without dictionaries.

For a single row numpy's own calls cost more than the arithmetic. Only for policies that choose from an action table, and for what
needs no explanation: everything else goes through `decisions.py` and `answers.py`. `tests/unit/test_serve_fast.py` holds both
ways to the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy import FieldView, NetworkPolicy, Policy
from scalepilot.policy.decoder import MoveDecoder
from scalepilot.policy.fields import BOUNDS
from scalepilot.serve.decide.shown import DIGITS, shown_scores

if TYPE_CHECKING:
    from scalepilot.serve.decide.decisions import Outcome

# Beyond this many replicas the table of targets would be larger than it is worth.
_MAX_REPLICAS = 20_000
_SCALE = 10.0**DIGITS


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
        self._bounds = view.bounds_of_row if view.shows_bounds else None
        self._q = spec.decision_rule == "argmax_q"
        self._name, self._version = spec.name, spec.version
        self._answer, self._shown = _answer_types(self._labels, "q_values" if self._q else "probabilities")
        counted = [f for f in spec.observation_fields if "replicas" in f.name and f.name not in BOUNDS]
        self._most = int(min(_MAX_REPLICAS, sum(f.high for f in counted) + 1))
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

    def answer(self, row: tuple[float, ...]) -> Any:
        """Answer one observation.

        Args:
            row: checked values in the order of the fields.

        Returns:
            The answer, which `msgspec.json.encode` writes as `answers.py` would; None for what the long way must look at.
        """
        scores: list[float] = self._scores(np.array([row], dtype=np.float32))[0].tolist()
        total = self._total(row)
        # Not finite: NaN and infinity are not equal to themselves less nothing.
        if not math.isfinite(sum(scores)) or not 0 <= total <= self._most:
            return None
        best = max(scores)
        action = scores.index(best)
        if self._q:
            largest = max(best, -min(scores))
            scale = 10.0 ** (DIGITS - (math.floor(math.log10(largest)) if largest > 0 else 0))
            shown = [round(score * scale) / scale for score in scores]
        else:
            odds = [math.exp(score - best) for score in scores]
            whole = sum(odds)
            shown = [round(odd / whole * _SCALE) / _SCALE for odd in odds]
        desired = self._targets[action][int(total)]
        if self._bounds is not None:
            low, high = self._bounds(row)
            desired = int(min(max(desired, math.ceil(low)), math.floor(high)))
        return self._answer(self._name, self._version, action, self._labels[action], desired, self._shown(*shown))

    def answers(self, outcome: Outcome) -> list[Any] | None:
        """Answer every row of what was decided already; None where one fell back, which the long way puts into words."""
        if outcome.fell_back is not None or outcome.action is None or outcome.desired_replicas is None or outcome.scores is None:
            return None
        name, version, labels, answer, shown = self._name, self._version, self._labels, self._answer, self._shown
        rows = zip(
            outcome.action.tolist(),
            outcome.desired_replicas.tolist(),
            shown_scores("argmax_q" if self._q else "argmax_p", outcome.scores),
            strict=True,
        )
        return [answer(name, version, action, labels[action], desired, shown(*scores)) for action, desired, scores in rows]


def _answer_types(labels: Sequence[str], score_key: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Classes of an answer and of its scores: msgspec writes them in a third of the time of dictionaries."""
    names = {f"s{i}": label for i, label in enumerate(labels)}
    shown = msgspec.defstruct("Scores", [(name, float) for name in names], rename=names, gc=False)
    texts: list[tuple[str, Any]] = [("policy", str), ("version", str)]
    columns = [*texts, ("action", int), ("move", str), ("desired_replicas", int)]
    return msgspec.defstruct("Answer", [*columns, (score_key, shown)], gc=False), shown


def quick_decider(policy: Policy, labels: Sequence[str], view: FieldView, rows: NDArray[np.float64]) -> QuickDecider | None:
    """The short way of a policy; None where it has none."""
    if not isinstance(policy, NetworkPolicy):
        return None
    try:
        with np.errstate(all="ignore"):
            return QuickDecider(policy, labels, view, rows)
    except Exception:  # noqa: BLE001 - odd names, sizes or numbers, which msgspec and numpy refuse: the long way takes them
        return None
