"""`:decide`, from the bytes of a request to the answer: pure functions, no HTTP and no Ray.

This is the strict reader, which says of every wrong request what is wrong with it. `fast.py` reads the usual right one in a
tenth of the time and leaves everything else to this module.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ObservationError
from scalepilot.policy import State, observation_row, state_from_json
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.decide.answers import Clipped, answer_rows
from scalepilot.serve.decide.decisions import Outcome, decide_rows
from scalepilot.serve.decide.fast import MAX_OBSERVATIONS
from scalepilot.serve.http.errors import RequestError
from scalepilot_envs.description import MASK_KEY

# Enough to mend a client with; a hostile list of a thousand unknown fields must not cost a thousand look-ups.
_MAX_PROBLEMS = 20
_SHOWN_CHARACTERS = 60
_LONGEST_EXACT_INTEGER = 18
_REQUEST_KEYS = ("observation", "state", MASK_KEY, "explain", "clip")
_ROW_KEYS = 3
_SHAPE = 'an object like {"observation": {field: number, …}}'


@dataclass(frozen=True)
class DecideRequest:
    """What a client asks.

    Attributes:
        observations: one mapping a decision, unchecked.
        states: as many; None where the client sends none.
        many: the client sent a list and gets one.
        explain: the answers are to say what led to them.
        clip: fields out of their range are brought into it, and named in the answer, instead of refused.
    """

    observations: list[Any]
    states: list[Any]
    many: bool
    explain: bool = False
    clip: bool = False


def parse_json(body: bytes) -> Any:
    """Parse a body strictly.

    NaN, Infinity and numbers beyond a float become floats that no bound admits, so that the refusal names their field.

    Raises:
        RequestError: 400 where it is not JSON or nested too deep, 422 for a key given twice.
    """
    try:
        return json.loads(body, object_pairs_hook=_object, parse_int=_integer)
    except RecursionError:
        raise RequestError(400, "body: is nested too deeply; allowed: " + _SHAPE) from None
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
            _check_keys(item, f"[{i}]", _REQUEST_KEYS[:_ROW_KEYS])
        shown = [_with_mask(item["observation"], item.get(MASK_KEY)) for item in parsed]
        return DecideRequest(shown, [item.get("state") for item in parsed], many=True)
    _check_keys(parsed, "body", _REQUEST_KEYS)
    observation, state = parsed["observation"], parsed.get("state")
    flags = {key: _flag(key, parsed.get(key, False)) for key in _REQUEST_KEYS[_ROW_KEYS:]}
    mask = parsed.get(MASK_KEY)
    if not isinstance(observation, list):
        return DecideRequest([_with_mask(observation, mask)], [state], many=False, **flags)
    _check_count(len(observation))
    if mask is not None:
        if not isinstance(mask, list) or len(mask) != len(observation):
            what = f"a list of {len(mask)}" if isinstance(mask, list) else _shown(mask)
            raise _refusal(
                MASK_KEY, f"{MASK_KEY}: {what} is not allowed; allowed: a list of {len(observation)}, one for each observation"
            )
        observation = [_with_mask(one, its) for one, its in zip(observation, mask, strict=True)]
    if state is None:
        return DecideRequest(observation, [None] * len(observation), many=True, **flags)
    if not isinstance(state, list) or len(state) != len(observation):
        what = f"a list of {len(state)}" if isinstance(state, list) else type(state).__name__
        raise _refusal("state", f"state: {what} is not allowed; allowed: a list of {len(observation)}, one for each observation")
    return DecideRequest(observation, state, many=True, **flags)


def _with_mask(observation: Any, mask: Any) -> Any:
    """The valid actions beside an observation as a part of it, where `observation_row` reads them."""
    if mask is None or not isinstance(observation, dict):
        return observation
    if MASK_KEY in observation:
        raise _refusal(MASK_KEY, f"{MASK_KEY}: is given twice, beside and inside the observation; allowed: once")
    return {**observation, MASK_KEY: mask}


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refusal(key, f"{key}: {_shown(value)} is not allowed; allowed: true, false")
    return value


def _check_keys(item: Any, where: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(item, dict):
        raise _refusal(where, f"{where}: {_shown(item)} is not allowed; allowed: {_SHAPE}")
    for key in item:
        if key not in allowed:
            raise _refusal(key, f"{_shown(key)}: unknown key; allowed: {', '.join(allowed)}")
    if "observation" not in item:
        prefix = "" if where == "body" else f"{where}."
        raise _refusal("observation", f"{prefix}observation: is missing; allowed: {_SHAPE}")


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_OBSERVATIONS:
        raise _refusal(
            "observation", f"observation: a list of {count} is not allowed; allowed: 1 to {MAX_OBSERVATIONS} observations"
        )


def check_observations(served: ServedPolicy, request: DecideRequest) -> tuple[NDArray[np.float64], list[Clipped] | None]:
    """Put the named fields of every observation in order.

    Returns:
        (n, num_fields) within the fields' bounds, and what was clipped of each; None where clipping was not asked for.

    Raises:
        RequestError: 422; its problems name each field, unit and range.
    """
    fields = served.spec.observation_fields
    rows: list[list[float]] = []
    clipped: list[Clipped] = [[] for _ in request.observations] if request.clip else []
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
            rows.append(observation_row(fields, values, clipped[i] if request.clip else None))
        except ObservationError as error:
            first = first or (f"{where}: {error}" if request.many else str(error))
            problems += [{**problem, "index": i} if request.many else problem for problem in error.problems]
            if len(problems) >= _MAX_PROBLEMS:
                break
    if problems:
        raise RequestError(422, first, problems)
    return np.array(rows), clipped if request.clip else None


def check_states(served: ServedPolicy, request: DecideRequest) -> State | None:
    """Stack the states, each of exactly the shape this policy gives.

    Raises:
        RequestError: 422 naming the key.
    """
    if all(state is None for state in request.states):
        return None
    shapes = served.state_shapes
    if shapes is None:
        raise _refusal("state", f"state: {served.spec.name} keeps no state; allowed: leave it out")
    for i, state in enumerate(request.states):
        where = f"state[{i}]" if request.many else "state"
        if not isinstance(state, dict) or set(state) != set(shapes):
            raise _refusal(
                where, f"{where}: {_shown(state)} is not allowed; allowed: the state of the last answer, with {', '.join(shapes)}"
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


@dataclass(frozen=True)
class Decided:
    """A request's answer and what the metrics count of it.

    Attributes:
        answers: one object an observation, as `msgspec.json.encode` writes it.
        many: they are answered as a list.
        outcome: the decisions themselves.
        observation: (n, num_fields) as decided on.
        clipped: of each observation; None where that was not asked for.
    """

    answers: list[Any]
    many: bool
    outcome: Outcome
    observation: NDArray[np.float64]
    clipped: list[Clipped] | None = None

    def to_json(self) -> Any:
        """The body of the answer."""
        return self.answers if self.many else self.answers[0]


def decide(served: ServedPolicy, request: DecideRequest) -> Decided:
    """Check a request and answer it.

    Decisions are greedy, as they were evaluated: the same request has the same answer.

    Raises:
        RequestError: 422.
    """
    observation, clipped = check_observations(served, request)
    outcome = decide_rows(served, observation, check_states(served, request))
    answers = answer_rows(served, outcome, len(observation), request.states, explain=request.explain, clipped=clipped)
    return Decided(answers, request.many, outcome, observation, clipped)


def answer(served: ServedPolicy, rows: Sequence[Sequence[float]], many: bool) -> Decided:
    """Answer observations that are checked already, without memory."""
    width = len(served.spec.observation_fields)
    flat = np.fromiter(itertools.chain.from_iterable(rows), np.float64, len(rows) * width)
    observation = flat.reshape(len(rows), width)
    outcome = decide_rows(served, observation)
    quick = None if served.quick is None else served.quick.answers(outcome)
    return Decided(quick or answer_rows(served, outcome, len(observation)), many, outcome, observation)


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
