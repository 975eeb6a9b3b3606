"""JSON Schemas of requests, answers and errors; a policy's own where its fields and actions decide."""

from __future__ import annotations

from typing import Any

from scalepilot.serve.schema import MAX_OBSERVATIONS
from scalepilot.serve.store import PolicyStore, ServedPolicy

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_WHOLE: Schema = {"type": "integer"}
_ANY: Schema = {"type": "object"}
_NUMBERS: Schema = {"type": "object", "additionalProperties": _NUMBER}


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def component_schemas(store: PolicyStore) -> dict[str, Schema]:
    """Every schema the document refers to, by name."""
    schemas = _descriptions()
    schemas["Request"] = _request(_NUMBERS, _ANY)
    schemas["Answer"] = _answer(optional={"action": _WHOLE, "probabilities": _NUMBERS, "q_values": _NUMBERS, "state": _ANY})
    schemas["Answers"] = _one_or_many("Answer")
    for served in store:
        schemas |= _policy_schemas(served)
    return schemas


def _policy_schemas(served: ServedPolicy) -> dict[str, Schema]:
    name, fields = served.spec.name, served.spec.observation_fields
    observation = _object(
        {f.name: _NUMBER | {"minimum": f.low, "maximum": f.high, "description": f"{f.description} ({f.unit})"} for f in fields}
    )
    shapes = served.state_shapes
    state = None if shapes is None else _object({key: _array(shape) for key, shape in shapes.items()})
    moves = _object(dict.fromkeys(served.move_labels, _NUMBER))
    answer: dict[str, Schema] = {}
    if served.spec.actions:
        low_high = {"minimum": 0, "maximum": len(served.spec.actions) - 1}
        answer = {"action": _WHOLE | low_high, "q_values" if served.spec.decision_rule == "argmax_q" else "probabilities": moves}
    if state is not None:
        answer["state"] = ref(f"State.{name}")
    return {
        f"Observation.{name}": observation | {"example": served.example},
        f"Request.{name}": _request(ref(f"Observation.{name}"), None if state is None else ref(f"State.{name}")),
        f"Answer.{name}": _answer(optional=answer),
        f"Answers.{name}": _one_or_many(f"Answer.{name}"),
    } | ({} if state is None else {f"State.{name}": state})


def _request(observation: Schema, state: Schema | None) -> Schema:
    many = {"type": "array", "items": observation, "minItems": 1, "maxItems": MAX_OBSERVATIONS}
    single = _object({"observation": observation}, {} if state is None else {"state": state})
    several = _object({"observation": many}, {} if state is None else {"state": {"type": "array", "items": state}})
    whole = {"type": "array", "items": single, "minItems": 1, "maxItems": MAX_OBSERVATIONS}
    return {"oneOf": [single, several, whole]}


def _answer(optional: dict[str, Schema]) -> Schema:
    required = {
        "policy": _TEXT,
        "version": _TEXT,
        "move": _TEXT | {"description": "What changes, for a person: hold, +2, −25 %"},
        "desired_replicas": _WHOLE | {"description": "How many replicas to run"},
    }
    fallback = _TEXT | {"description": "Only where the policy gave no finite number: why the replicas are held"}
    return _object(required, optional | {"fallback": fallback})


def _one_or_many(name: str) -> Schema:
    return {"oneOf": [ref(name), {"type": "array", "items": ref(name)}]}


def _descriptions() -> dict[str, Schema]:
    field = _object({"name": _TEXT, "unit": _TEXT, "low": _NUMBER, "high": _NUMBER, "description": _TEXT, "promql": _TEXT})
    action = _object({"index": _WHOLE, "kind": _one_of("absolute", "relative"), "size": _NUMBER, "label": _TEXT})
    policy: dict[str, Schema] = {
        "name": _TEXT,
        "version": _TEXT,
        "kind": _one_of("network", "table", "rule"),
        "env_id": _TEXT,
        "decide_url": _TEXT,
        "observation_fields": {"type": "array", "items": field},
        "actions": {"type": "array", "items": action, "description": "Empty for rules, which choose any number of replicas"},
        "decision_rule": _one_of("target", "argmax_p", "argmax_q", "sample"),
        "replicas": _object({"min": _WHOLE, "max": _WHOLE}),
        "state": {"description": "Shape of every key a rule remembers; null where nothing is remembered"},
        "evaluation": _ANY,
    }
    problem = _object(
        {
            "field": _TEXT,
            "problem": _TEXT,
            "unit": {"description": "Of the field; null where it is none of the observation's"},
            "low": {"description": "Smallest value allowed, or null"},
            "high": {"description": "Largest value allowed, or null"},
        },
        {"index": _WHOLE | {"description": "Which observation of a list"}},
    )
    return {
        "Policy": _object(policy),
        "PolicyList": _object({"policies": {"type": "array", "items": ref("Policy")}}),
        "PolicyWithExample": _object(policy | {"provenance": _ANY, "example": _NUMBERS}),
        "Health": _object({"status": _TEXT}, {"policies": _WHOLE}),
        "AnyObject": _ANY,
        "Error": _object({"error": _TEXT}, {"problems": {"type": "array", "items": problem}}),
    }


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def _array(shape: tuple[int, ...]) -> Schema:
    if not shape:
        return _NUMBER
    return {"type": "array", "items": _array(shape[1:]), "minItems": shape[0], "maxItems": shape[0]}


def _one_of(*values: str) -> Schema:
    return _TEXT | {"enum": list(values)}
