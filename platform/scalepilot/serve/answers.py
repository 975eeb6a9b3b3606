"""From decisions to what `:decide` answers: plain data, one object an observation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scalepilot.serve.decisions import Outcome
from scalepilot.serve.shown import DIGITS, rounded, shown_scores
from scalepilot.serve.store import ServedPolicy

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
    name, version, labels = spec.name, spec.version, served.move_labels
    desired = None if outcome.desired_replicas is None else outcome.desired_replicas.tolist()
    total = None if outcome.total_replicas is None else outcome.total_replicas.tolist()
    action = None if outcome.action is None else outcome.action.tolist()
    score_key = "q_values" if spec.decision_rule == "argmax_q" else "probabilities"
    scores = None if outcome.scores is None else shown_scores(spec.decision_rule, outcome.scores)
    memories = None if outcome.state is None else {key: column.tolist() for key, column in outcome.state.items()}
    answers = []
    for i in range(count):
        answer: dict[str, Any] = {"policy": name, "version": version}
        fell_back = outcome.fell_back is not None and bool(outcome.fell_back[i])
        if spec.components:
            values = dict.fromkeys(c.name for c in spec.components) if fell_back else _components(served, action, i)
            answer["action"] = values
        elif action is not None and not fell_back:
            answer["action"] = action[i]
            answer["move"] = labels[action[i]]
        if desired is not None:
            if "move" not in answer:
                answer["move"] = "hold" if total is None else move_label(desired[i] - total[i])
            answer["desired_replicas"] = desired[i]
        if scores is not None and not fell_back:
            answer[score_key] = dict(zip(labels, scores[i], strict=True))
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
    names = [component.name for component in served.spec.components]
    return dict(zip(names, rounded(np.array([action[row]], dtype=np.float32))[0], strict=True))


def _why(served: ServedPolicy) -> str:
    name = served.spec.name
    if served.replica_bounds is None:
        return f"{name} gave no finite number for this observation: it chooses nothing"
    if served.fallback is None:
        return f"{name} gave no finite number for this observation: the replicas are held"
    return f"{name} gave no finite number for this observation: the rule {served.fallback.spec.name} decided"


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
    if outcome.scores is not None and "fallback" not in answer and len(served.move_labels) > 1:
        order = np.argsort(outcome.scores[row])[::-1]
        first, second = outcome.scores[row][order[:2]].tolist()
        explanation |= {
            "scores": dict(zip(served.move_labels, rounded(outcome.scores[row : row + 1])[0], strict=True)),
            "runner_up": {"move": served.move_labels[order[1]], "margin": round(first - second, DIGITS)},
        }
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


def finite(value: float) -> float | None:
    """A number that JSON has, None for an infinite one; whole ones without a point."""
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value
