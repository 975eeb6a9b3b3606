"""From decisions to what `:decide` answers: plain data, one object an observation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.decide.decisions import Outcome
from scalepilot.serve.decide.shown import DIGITS, rounded, shown_scores

Clipped = list[dict[str, Any]]


def answer_rows(
    served: ServedPolicy,
    outcome: Outcome,
    count: int,
    states: Sequence[Mapping[str, Any] | None] | None = None,
    *,
    explain: bool = False,
    clipped: Sequence[Clipped] | None = None,
) -> list[dict[str, Any]]:
    """One answer for each observation.

    Args:
        served: who decided.
        outcome: what.
        count: of observations.
        states: what the client sent of each; goes back where a policy fell back, as its own memory is worth nothing then.
        explain: add an `explanation`.
        clipped: for each observation, the fields that were brought within their bounds; None where that was not asked for.
    """
    spec = served.spec
    name, version, labels, values = spec.name, spec.version, served.move_labels, served.action_values
    desired = None if outcome.desired_replicas is None else outcome.desired_replicas.tolist()
    total = None if outcome.total_replicas is None else outcome.total_replicas.tolist()
    action = None if outcome.action is None else outcome.action.tolist()
    q_values = spec.decision_rule == "argmax_q"
    shown = None if outcome.scores is None else _shown_of(outcome) if q_values else outcome.scores
    scores = None if shown is None else shown_scores(spec.decision_rule, shown)
    score_key = "q_values" if q_values else "probabilities"
    memories = None if outcome.state is None else {key: column.tolist() for key, column in outcome.state.items()}
    answers = []
    for i in range(count):
        answer: dict[str, Any] = {"policy": name, "version": version}
        fell_back = outcome.fell_back is not None and bool(outcome.fell_back[i])
        if served.components:
            names = dict.fromkeys(c.name for c in served.components)
            answer["action"] = names if fell_back else _components(served, action, i)
        elif action is not None and not fell_back:
            answer["action"] = values[action[i]]
            answer["move"] = labels[action[i]]
        if desired is not None:
            if "move" not in answer:
                answer["move"] = "hold" if total is None else move_label(desired[i] - total[i])
            answer["desired_replicas"] = desired[i]
        if scores is not None and not fell_back:
            answer[score_key] = dict(zip(labels, scores[i], strict=True))
            if outcome.invalid is not None and score_key == "q_values":
                _forget_invalid(answer[score_key], outcome.invalid[i])
        if fell_back:
            answer["fallback"] = _why(served)
            if states is not None and states[i] is not None:
                answer["state"] = states[i]
        elif memories is not None:
            answer["state"] = {key: column[i] for key, column in memories.items()}
        if clipped is not None:
            answer["clipped"] = clipped[i]
        if explain:
            answer["explanation"] = _explanation(served, answer, outcome, i)
        answers.append(answer)
    return answers


def move_label(change: int) -> str:
    """A change of replicas for a person: hold, +2, −1."""
    return "hold" if change == 0 else f"{'+' if change > 0 else '−'}{abs(change)}"


def _components(served: ServedPolicy, action: Any, row: int) -> dict[str, float]:
    names = [component.name for component in served.components]
    return dict(zip(names, rounded(np.array([action[row]], dtype=np.float32))[0], strict=True))


def _why(served: ServedPolicy) -> str:
    name = served.spec.name
    if served.replica_bounds is None:
        return f"{name} returned no finite number for this observation: no action is chosen"
    if served.fallback is None:
        return f"{name} returned no finite number for this observation: the replica count is kept"
    return f"{name} returned no finite number for this observation: the rule {served.fallback.spec.name} decided"


def _explanation(served: ServedPolicy, answer: Mapping[str, Any], outcome: Outcome, row: int) -> dict[str, Any]:
    """What led to the answer: the replicas seen, the bounds, and how near the next best move was."""
    explanation: dict[str, Any] = {}
    if outcome.total_replicas is not None and outcome.desired_replicas is not None:
        total, desired = int(outcome.total_replicas[row]), int(outcome.desired_replicas[row])
        low, high = served.replica_bounds or (-math.inf, math.inf)
        explanation |= {
            "observed_replicas": total,
            "change": desired - total,
            "bounds": {"min": finite(low), "max": finite(high)},
            "at_bound": "min" if desired == low else "max" if desired == high else None,
        }
    labels = served.move_labels
    if outcome.invalid is not None:
        explanation["valid_actions"] = dict(zip(labels, (~outcome.invalid[row]).tolist(), strict=True))
    if outcome.scores is not None and "fallback" not in answer and len(labels) > 1:
        order = np.argsort(outcome.scores[row])[::-1]
        first, second = outcome.scores[row][order[:2]].tolist()
        scores = dict(zip(labels, rounded(_shown_of(outcome)[row : row + 1])[0], strict=True))
        if outcome.invalid is not None:
            _forget_invalid(scores, outcome.invalid[row])
        explanation["scores"] = scores
        if outcome.invalid is None or not outcome.invalid[row][order[1]]:
            explanation["runner_up"] = {"move": labels[order[1]], "margin": round(first - second, DIGITS)}
    explanation["words"] = _words(served, answer, explanation)
    return explanation


def _words(served: ServedPolicy, answer: Mapping[str, Any], explanation: Mapping[str, Any]) -> str:
    """One sentence for a person."""
    if "fallback" in answer:
        return str(answer["fallback"])
    who = f"rule {served.spec.rule['name']}" if served.spec.rule else served.spec.kind
    parts = [f"The {who} chooses {answer.get('move', 'its action')}"]
    if "observed_replicas" in explanation:
        parts.append(f"from {explanation['observed_replicas']} to {answer['desired_replicas']} replicas")
    if explanation.get("at_bound"):
        limit = "fewest" if explanation["at_bound"] == "min" else "most"
        parts.append(f"(the {limit} allowed)")
    text = " ".join(parts)
    if "runner_up" in explanation:
        text += f"; next best is {explanation['runner_up']['move']}"
    for entry in answer.get("clipped", []):
        text += f"; {entry['field']} was {entry['value']:g}, taken as {entry['used']:g}"
    return text + "."


def _shown_of(outcome: Outcome) -> NDArray[np.float32]:
    """Scores without the size of those of invalid actions, which stands for no value."""
    assert outcome.scores is not None
    return outcome.scores if outcome.invalid is None else np.where(outcome.invalid, np.float32(0.0), outcome.scores)


def _forget_invalid(scores: dict[str, Any], invalid: NDArray[np.bool_]) -> None:
    """What is not valid has no score."""
    for label, is_invalid in zip(scores, invalid.tolist(), strict=True):
        if is_invalid:
            scores[label] = None


def finite(value: float) -> float | None:
    """A number that JSON has, None for an infinite one; whole ones without a point."""
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value
