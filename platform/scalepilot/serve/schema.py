"""`:decide`, from the bytes of a request to the answer: pure functions, no HTTP and no Ray."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ObservationError
from scalepilot.policy import Decision, State, observation_row, state_from_json, state_to_json
from scalepilot.serve.errors import RequestError
from scalepilot.serve.store import ServedPolicy

MAX_OBSERVATIONS = 4096
# Enough to mend a client with; a hostile list of a thousand unknown fields must not cost a thousand look-ups.
_MAX_PROBLEMS = 20
_SHOWN_CHARACTERS = 60
_LONGEST_EXACT_INTEGER = 18
_REQUEST_KEYS = ("observation", "state")
_SHAPE = 'an object like {"observation": {field: number, …}}'


@dataclass(frozen=True)
class DecideRequest:
    """What a client asks.

    Attributes:
        observations: one mapping a decision, unchecked.
        states: as many; None where the client sends none.
        many: the client sent a list and gets one.
    """

    observations: list[Any]
    states: list[Any]
    many: bool


def parse_json(body: bytes) -> Any:
    """Parse a body strictly.

    NaN, Infinity and numbers beyond a float become floats that no bound admits, so that the refusal names their field.

    Raises:
        RequestError: 400 where it is not JSON or nested too deep, 422 for a key given twice.
    """
    try:
        return json.loads(body, object_pairs_hook=_object, parse_int=_integer)
    except RecursionError:
        raise RequestError(400, "body: is nested too deep; allowed: " + _SHAPE) from None
    except UnicodeDecodeError as error:
        raise RequestError(400, f"body: is not UTF-8 (byte {error.start}); allowed: JSON in UTF-8") from None
    except ValueError as error:
        raise RequestError(400, f"body: is not JSON ({str(error)[:_SHOWN_CHARACTERS]}); allowed: {_SHAPE}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)[:_SHOWN_CHARACTERS]
        raise _refusal(twice, f"{twice}: is given twice; allowed: once")
    return values


def _integer(digits: str) -> int | float:
    # Python's integers have no end, and `math.isfinite` of one beyond a float raises.
    return int(digits) if len(digits) <= _LONGEST_EXACT_INTEGER else float(digits)


def parse_request(body: bytes) -> DecideRequest:
    """Read a request: one observation, a list of them under one key, or a list of whole requests.

    Raises:
        RequestError: 400 or 422.
    """
    parsed = parse_json(body)
    if isinstance(parsed, list):
        _check_count(len(parsed))
        for i, item in enumerate(parsed):
            _check_keys(item, f"[{i}]")
        return DecideRequest([item["observation"] for item in parsed], [item.get("state") for item in parsed], many=True)
    _check_keys(parsed, "body")
    observation, state = parsed["observation"], parsed.get("state")
    if not isinstance(observation, list):
        return DecideRequest([observation], [state], many=False)
    _check_count(len(observation))
    if state is None:
        return DecideRequest(observation, [None] * len(observation), many=True)
    if not isinstance(state, list) or len(state) != len(observation):
        what = f"a list of {len(state)}" if isinstance(state, list) else type(state).__name__
        raise _refusal("state", f"state: {what} is not allowed; allowed: a list of {len(observation)}, one for each observation")
    return DecideRequest(observation, state, many=True)


def _check_keys(item: Any, where: str) -> None:
    if not isinstance(item, dict):
        raise _refusal(where, f"{where}: {_shown(item)} is not allowed; allowed: {_SHAPE}")
    for key in item:
        if key not in _REQUEST_KEYS:
            raise _refusal(key, f"{_shown(key)}: unknown key; allowed: observation, state")
    if "observation" not in item:
        prefix = "" if where == "body" else f"{where}."
        raise _refusal("observation", f"{prefix}observation: is missing; allowed: {_SHAPE}")


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_OBSERVATIONS:
        raise _refusal(
            "observation", f"observation: a list of {count} is not allowed; allowed: 1 to {MAX_OBSERVATIONS} observations"
        )


def check_observations(served: ServedPolicy, request: DecideRequest) -> NDArray[np.float64]:
    """Put the named fields of every observation in order.

    Returns:
        (n, num_fields) within the fields' bounds.

    Raises:
        RequestError: 422; its problems name each field, unit and range.
    """
    fields = served.spec.observation_fields
    rows: list[list[float]] = []
    problems: list[dict[str, Any]] = []
    first = ""
    for i, values in enumerate(request.observations):
        where = f"observation[{i}]" if request.many else "observation"
        if not isinstance(values, dict):
            raise _refusal(
                where, f"{where}: {_shown(values)} is not allowed; allowed: an object with the fields of {served.spec.name}"
            )
        if len(values) > len(fields) + _MAX_PROBLEMS:
            raise _refusal(
                where, f"{where}: {len(values)} fields are not allowed; allowed: the {len(fields)} of {served.spec.name}"
            )
        try:
            rows.append(observation_row(fields, values))
        except ObservationError as error:
            first = first or (f"{where}: {error}" if request.many else str(error))
            problems += [{**problem, "index": i} if request.many else problem for problem in error.problems]
            if len(problems) >= _MAX_PROBLEMS:
                break
    if problems:
        raise RequestError(422, first, problems)
    return np.array(rows)


def check_states(served: ServedPolicy, request: DecideRequest) -> State | None:
    """Stack the states, each of exactly the shape this policy gives.

    Raises:
        RequestError: 422 naming the key.
    """
    if all(state is None for state in request.states):
        return None
    shapes = served.state_shapes
    if shapes is None:
        raise _refusal("state", f"state: {served.spec.name} remembers nothing; allowed: leave it out")
    for i, state in enumerate(request.states):
        where = f"state[{i}]" if request.many else "state"
        if not isinstance(state, dict) or set(state) != set(shapes):
            raise _refusal(
                where, f"{where}: {_shown(state)} is not allowed; allowed: what the last answer gave, with {', '.join(shapes)}"
            )
        for name, shape in shapes.items():
            _check_state_value(f"{where}.{name}", state[name], shape)
    try:
        return state_from_json(request.states)
    except ValueError as error:
        raise _refusal("state", str(error)) from None


def _check_state_value(where: str, value: Any, shape: tuple[int, ...]) -> None:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            what = f"a list of {len(value)}" if isinstance(value, list) else _shown(value)
            raise _refusal(where, f"{where}: {what} is not allowed; allowed: a list of {shape[0]}")
        for i, item in enumerate(value):
            _check_state_value(f"{where}[{i}]", item, shape[1:])
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refusal(where, f"{where}: {_shown(value)} is not allowed; allowed: a finite number")


def decide(served: ServedPolicy, request: DecideRequest) -> dict[str, Any] | list[dict[str, Any]]:
    """Check a request and answer it.

    Decisions are greedy, as they were evaluated: the same request has the same answer.

    Raises:
        RequestError: 422.
    """
    observation = check_observations(served, request)
    state = check_states(served, request)
    # Within bounds a rule may still divide by a field that is 0; what comes of it is caught below, row by row.
    with np.errstate(all="ignore"):
        decision, next_state = served.policy.act(observation, state)
    total = served.view.total(observation)
    answers = [
        _answer(served, decision, i, float(total[i]), _row_state(next_state, i), request.states[i])
        for i in range(len(request.observations))
    ]
    return answers if request.many else answers[0]


def _row_state(state: State | None, row: int) -> State | None:
    return None if state is None else {name: column[row : row + 1] for name, column in state.items()}


def _answer(
    served: ServedPolicy,
    decision: Decision,
    row: int,
    total_replicas: float,
    next_state: State | None,
    state: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The answer for one observation; where a policy gives no finite numbers the replicas are held, never a 500."""
    spec = served.spec
    answer: dict[str, Any] = {"policy": spec.name, "version": spec.version}
    assert decision.desired_replicas is not None
    desired = float(decision.desired_replicas[row])
    numbers = [np.float64(desired)] if decision.scores is None else [decision.scores[row]]
    numbers += [] if next_state is None else list(next_state.values())
    if not all(np.isfinite(part).all() for part in numbers):
        low, high = served.replica_bounds
        answer |= {"move": "hold", "desired_replicas": round(min(max(total_replicas, low), high))}
        answer["fallback"] = f"{spec.name} gave no finite number for this observation: the replicas are held"
        return answer if state is None else answer | {"state": state}
    if decision.action is not None and decision.scores is not None:
        action = int(decision.action[row])
        answer |= {"action": action, "move": served.move_labels[action], "desired_replicas": round(desired)}
        answer |= _scores(spec.decision_rule, served.move_labels, decision.scores[row])
    else:
        answer |= {"move": _move_label(round(desired - total_replicas)), "desired_replicas": round(desired)}
    if next_state is not None:
        answer["state"] = state_to_json(next_state)
    return answer


def _scores(decision_rule: str, labels: Sequence[str], scores: NDArray[np.float32]) -> dict[str, dict[str, float]]:
    if decision_rule == "argmax_q":
        return {"q_values": dict(zip(labels, _shortest(scores), strict=True))}
    odds = np.exp(scores - scores.max())
    return {"probabilities": dict(zip(labels, _shortest(odds / odds.sum()), strict=True))}


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """The fewest digits that mean the same float32: 0.3, not 0.30000001192092896."""
    return [float(str(value)) for value in values.astype(np.float32)]


def _move_label(change: int) -> str:
    return "hold" if change == 0 else f"{'+' if change > 0 else '−'}{abs(change)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list) and len(value) > 3:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    try:
        return repr(value)[:_SHOWN_CHARACTERS]
    except RecursionError:
        return "a deeply nested value"


def _refusal(field: str, message: str) -> RequestError:
    where = field[:_SHOWN_CHARACTERS]
    return RequestError(422, message, [{"field": where, "problem": message, "unit": None, "low": None, "high": None}])
