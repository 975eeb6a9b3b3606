"""JSON Schemas of requests, answers and errors; a policy's own where its fields and actions decide."""

from __future__ import annotations

from typing import Any

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.decide.fast import MAX_OBSERVATIONS
from scalepilot.serve.decide.oip import DATATYPES
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
    "description": "Which actions are valid; all if left out",
}
# Beyond so many they are not listed.
_LISTED_ACTIONS = 64
_ANYTHING: Schema = {}
_MOVE: Schema = _TEXT | {"description": "What changes, for a person: hold, +2, −25 %"}
_REPLICAS: Schema = _WHOLE | {"description": "How many replicas to run"}
_CLIP = "Bring fields out of their range into it, and name them in the answer, instead of refusing"


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def component_schemas(catalogue: Catalogue) -> dict[str, Schema]:
    """Every schema the document refers to, by name."""
    schemas = _descriptions()
    schemas["Request"] = _request(_NUMBERS, _NUMBERS, _ANY)
    optional = {"action": _ANYTHING, "probabilities": _NUMBERS, "q_values": _SCORES, "state": _ANY}
    schemas["Answer"] = _answer({"policy": _TEXT, "version": _TEXT}, optional | {"move": _MOVE, "desired_replicas": _REPLICAS})
    schemas["Answers"] = _one_or_many("Answer")
    schemas |= _inference_schemas()
    for served in catalogue:
        schemas |= _policy_schemas(served)
    return schemas


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
    optional = optional | {"explain": _FLAG | {"description": "Say what led to the answer"}}
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
    fallback = _TEXT | {"description": "Only where the policy gave no finite number: who decided instead"}
    clipped = _object({"field": _TEXT, "value": _NUMBER, "used": _NUMBER, "unit": _TEXT, "low": _NUMBER, "high": _NUMBER})
    extra = {"fallback": fallback, "clipped": {"type": "array", "items": clipped}, "explanation": ref("Explanation")}
    return _object(required, optional | extra)


def _inference_schemas() -> dict[str, Schema]:
    """Of the Open Inference Protocol v2. Its clients may send more keys than are listed here; they do not matter."""
    shape = {"type": "array", "items": _WHOLE}
    parameters = {"type": "object"}
    flag: Schema = {"type": "boolean"}
    tensor: Schema = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": _TEXT | {"enum": ["observation"]},
            "shape": shape,
            "datatype": _TEXT | {"enum": list(DATATYPES)},
            "data": {
                "type": "array",
                "items": {"oneOf": [_NUMBER, flag, {"type": "array", "items": {"oneOf": [_NUMBER, flag]}}]},
            },
            "parameters": parameters,
        },
    }
    wanted = {"type": "object", "required": ["name"], "properties": {"name": _TEXT, "parameters": parameters}}
    request: Schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _TEXT,
            "parameters": parameters,
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "outputs": {"type": "array", "items": wanted},
        },
    }
    output = _object(
        {"name": _TEXT, "shape": shape, "datatype": _TEXT},
        {"data": {"type": "array", "items": _NUMBER}, "parameters": parameters},
    )
    response = _object(
        {"model_name": _TEXT, "model_version": _TEXT, "outputs": {"type": "array", "items": output}},
        {"id": _TEXT, "parameters": parameters},
    )
    described = {"type": "array", "items": _object({"name": _TEXT, "datatype": _TEXT, "shape": shape})}
    texts = {"type": "array", "items": _TEXT}
    return {
        "InferRequest": request,
        "InferResponse": response,
        "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": texts}),
        "ModelMetadata": _object(
            {"name": _TEXT, "versions": texts, "platform": _TEXT, "inputs": described, "outputs": described}
        ),
        "ModelReady": _object({"name": _TEXT, "ready": _FLAG}),
        "ServerLive": _object({"live": _FLAG}),
    }


def _one_or_many(name: str) -> Schema:
    return {"oneOf": [ref(name), {"type": "array", "items": ref(name)}]}


def _descriptions() -> dict[str, Schema]:
    field = _object({"name": _TEXT, "unit": _TEXT, "low": _NUMBER, "high": _NUMBER, "description": _TEXT, "promql": _TEXT})
    component = _object({"name": _TEXT, "unit": _TEXT, "low": _NUMBER, "high": _NUMBER})
    action = _object(
        {"index": _WHOLE, "kind": _one_of("absolute", "relative", "plain"), "size": _NUMBER, "label": _TEXT},
        {"value": {"description": "What the environment takes, where that is not the index"}},
    )
    policy: dict[str, Schema] = {
        "name": _TEXT,
        "version": _TEXT,
        "default": _FLAG | {"description": "This version answers where a request names none"},
        "versions": {"type": "array", "items": _TEXT, "description": "All that are served of this name"},
        "route": {"description": "Default version, canary and shadow of this name; null where nothing is set"},
        "kind": _one_of("network", "table", "rule"),
        "env_id": _TEXT,
        "decide_url": _TEXT,
        "observation_fields": {"type": "array", "items": field},
        "actions": {"type": "array", "items": action, "description": "Empty for rules, which choose any number of replicas"},
        "moves": {"type": "array", "items": _TEXT, "description": "Label of every action, each once"},
        "components": {"type": "array", "items": component, "description": "Of a continuous action; empty for all others"},
        "decision_rule": _one_of("target", "argmax_p", "argmax_q", "sample", "box"),
        "replicas": {"description": "Fewest and most it may ask for, {min, max}; null where there are no replicas"},
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
        "Health": _object({"status": _TEXT}, {"policies": _WHOLE, "ready": _FLAG}),
        "Explanation": _object(
            {"words": _TEXT},
            {
                "observed_replicas": _WHOLE | {"description": "Ready and starting, as observed"},
                "change": _WHOLE,
                "bounds": _object({"min": _ANYTHING, "max": _ANYTHING}),
                "at_bound": {"description": "min or max where the answer is a bound, else null"},
                "scores": _SCORES | {"description": "Logits or Q-values, by move; null where the action is not valid"},
                "valid_actions": {"type": "object", "additionalProperties": _FLAG, "description": "By move"},
                "runner_up": _object({"move": _TEXT, "margin": _NUMBER}),
            },
        ),
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
