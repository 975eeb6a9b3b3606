"""JSON Schemas of requests, answers and errors; a policy's own where its fields and actions decide."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.decide.fast import MAX_OBSERVATIONS
from scalepilot.serve.http.errors import ERROR
from scalepilot_envs.description import MASK_KEY, is_mask

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_WHOLE: Schema = {"type": "integer"}
_ANY: Schema = {"type": "object"}
_NUMBERS: Schema = {"type": "object", "additionalProperties": _NUMBER}
_FLAG: Schema = {"type": "boolean"}
# A Q-value is null where its action is not valid.
_SCORE: Schema = {"type": ["number", "null"]}
_SCORES: Schema = {"type": "object", "additionalProperties": _SCORE}
_MASK: Schema = {
    "type": "array",
    "items": {"enum": [0, 1, True, False]},
    "description": "Valid actions; all if left out",
}
# Beyond so many they are not listed.
_LISTED_ACTIONS = 64
_ANYTHING: Schema = {}
_MOVE: Schema = _TEXT | {"description": "The change in words: hold, +2, −25 %"}
_REPLICAS: Schema = _WHOLE | {"description": "How many replicas to run"}
_EXPLANATION = {
    "words": str,
    "observed_replicas?": (int, "Ready and starting, as observed"),
    "change?": int,
    "bounds?": {"min": Any, "max": Any},
    "at_bound?": (Any, "min or max if the answer is at a bound, else null"),
    "scores?": (dict[str, float | None], "Logits or Q-values, by move; null for invalid actions"),
    "valid_actions?": (dict[str, bool], "By move"),
    "runner_up?": {"move": str, "margin": float},
}
_CLIP = "Clip out-of-range fields and list them in the answer instead of refusing the request"


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


class Schemas:
    """Schemas of what the endpoints' records say, and those that the policies make.

    Args:
        catalogue: whose policies have their own.

    Attributes:
        components: name → schema, of all that the document refers to.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        optional = {"action": _ANYTHING, "probabilities": _NUMBERS, "q_values": _SCORES, "state": _ANY}
        self.components: dict[str, Schema] = {}
        self.components |= {
            "Error": self.of(ERROR),
            "Explanation": self.of(_EXPLANATION),
            "Request": _request(_NUMBERS, _NUMBERS, _ANY),
            "Answer": _answer({"policy": _TEXT, "version": _TEXT}, optional | {"move": _MOVE, "desired_replicas": _REPLICAS}),
            "Answers": _one_or_many("Answer"),
        }
        for served in catalogue:
            self.components |= _policy_schemas(served)

    def of(self, kind: Any) -> Schema:
        """The schema of what a record says.

        Args:
            kind: a type that msgspec knows; the name of a component; keys and what they hold, `?` behind those that may be
                missing; a list of one kind; or a kind and words about it.
        """
        match kind:
            case str():
                return ref(kind)
            case dict():
                required = {key: self.of(value) for key, value in kind.items() if not key.endswith("?")}
                return _object(required, {key[:-1]: self.of(value) for key, value in kind.items() if key.endswith("?")})
            case [one]:
                return {"type": "array", "items": self.of(one)}
            case (one, words):
                return self.of(one) | {"description": words}
        schema, found = _of_type(kind)
        self.components |= found
        return schema


@cache
def _of_type(kind: Any) -> tuple[Schema, dict[str, Schema]]:
    """A type's schema, and those that it refers to."""
    (schema,), found = msgspec.json.schema_components((kind,), ref_template=ref("{name}")["$ref"])
    return schema, found


def _policy_schemas(served: ServedPolicy) -> dict[str, Schema]:
    name, fields = served.spec.name, served.spec.observation_fields
    described = {
        f.name: _NUMBER | {"minimum": f.low, "maximum": f.high, "description": f"{f.description} ({f.unit})"} for f in fields
    }
    # What is not said to be invalid is valid.
    mask = {f.name: described.pop(f.name) for f in fields if is_mask(f.name)}
    its_mask = {MASK_KEY: _MASK | {"minItems": len(mask), "maxItems": len(mask)}} if mask else {}
    observation = _object(described, mask | its_mask)
    unbounded = _object(dict.fromkeys(described, _NUMBER), mask | its_mask)
    shapes = served.state_shapes
    state = None if shapes is None else _object({key: _array(shape) for key, shape in shapes.items()})
    moves = _object(dict.fromkeys(served.move_labels, _SCORE if mask else _NUMBER))
    required: dict[str, Schema] = {"policy": _TEXT | {"enum": [name]}, "version": _TEXT}
    answer: dict[str, Schema] = {}
    if served.shows_replicas:
        required |= {"move": _MOVE, "desired_replicas": _REPLICAS}
    if served.components:
        answer["action"] = _object({c.name: {"description": f"{c.name} ({c.unit}), a number"} for c in served.components})
    elif served.move_labels:
        answer |= {"action": _action(served.action_values), "move": _MOVE}
        if served.spec.actions:
            answer["q_values" if served.spec.decision_rule == "argmax_q" else "probabilities"] = moves
    if state is not None:
        answer["state"] = ref(f"State.{name}")
    return {
        f"Observation.{name}": observation | {"example": served.example},
        f"Request.{name}": _request(
            ref(f"Observation.{name}"), unbounded, None if state is None else ref(f"State.{name}"), its_mask
        ),
        f"Answer.{name}": _answer(required, {key: value for key, value in answer.items() if key not in required}),
        f"Answers.{name}": _one_or_many(f"Answer.{name}"),
    } | ({} if state is None else {f"State.{name}": state})


def _action(values: tuple[Any, ...]) -> Schema:
    """What the environment takes: a whole number, or one of a list of others."""
    if values == tuple(range(len(values))):
        return _WHOLE | {"minimum": 0, "maximum": len(values) - 1}
    listed = {"enum": list(values)} if len(values) <= _LISTED_ACTIONS else {}
    return listed | {"description": "What the environment takes"}


def _request(observation: Schema, unbounded: Schema, state: Schema | None, mask: dict[str, Schema] | None = None) -> Schema:
    """One observation, a list of them, or a list of whole requests; with `clip` the fields may lie out of their range."""
    mask = mask or {}
    # Each with its state, or none with one.
    remembering = [] if state is None else [_object({"observation": observation, "state": state}, mask)]
    items = [_object({"observation": observation}, _states(None) | mask), *remembering]
    whole = {"anyOf": [{"type": "array", "items": item, "minItems": 1, "maxItems": MAX_OBSERVATIONS} for item in items]}
    asked = [_asked(observation, state, {"clip": _FLAG | {"enum": [False]}}, mask=mask)]
    clipping = _asked(unbounded, state, {}, mask=mask, required={"clip": _FLAG | {"enum": [True], "description": _CLIP}})
    return {"anyOf": [*asked, clipping, whole]}


def _asked(
    observation: Schema,
    state: Schema | None,
    optional: dict[str, Schema],
    *,
    mask: dict[str, Schema],
    required: dict[str, Schema] | None = None,
) -> Schema:
    optional = optional | {"explain": _FLAG | {"description": "Explain the answer"}}
    many = {"type": "array", "items": observation, "minItems": 1, "maxItems": MAX_OBSERVATIONS}
    several = _states(None if state is None else {"type": "array", "items": state})
    masks = {name: {"type": "array", "items": schema} for name, schema in mask.items()}
    one = _object({"observation": observation} | (required or {}), _states(state) | optional | mask)
    return {"anyOf": [one, _object({"observation": many} | (required or {}), several | optional | masks)]}


def _states(state: Schema | None) -> dict[str, Schema]:
    """`state` may always be null: nothing is remembered yet."""
    nothing: Schema = {"enum": [None]}
    return {"state": nothing if state is None else {"anyOf": [state, nothing]}}


def _answer(required: dict[str, Schema], optional: dict[str, Schema]) -> Schema:
    fallback = _TEXT | {"description": "Only where the policy returned no finite number: who decided instead"}
    clipped = _object({"field": _TEXT, "value": _NUMBER, "used": _NUMBER, "unit": _TEXT, "low": _NUMBER, "high": _NUMBER})
    extra = {"fallback": fallback, "clipped": {"type": "array", "items": clipped}, "explanation": ref("Explanation")}
    return _object(required, optional | extra)


def _one_or_many(name: str) -> Schema:
    return {"oneOf": [ref(name), {"type": "array", "items": ref(name)}]}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def _array(shape: tuple[int, ...]) -> Schema:
    if not shape:
        return _NUMBER
    return {"type": "array", "items": _array(shape[1:]), "minItems": shape[0], "maxItems": shape[0]}
