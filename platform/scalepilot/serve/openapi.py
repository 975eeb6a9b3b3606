"""The OpenAPI 3.1 document of the loaded policies; every example is a real request or a real answer.

Written in what OpenAPI 3.0 and 3.1 share (no lists of types, no `const`): the Swagger UI in `swagger_ui_bundle` reads 3.0 only,
so the page at /docs hands it this document as 3.0.
"""

from __future__ import annotations

from typing import Any

from scalepilot import __version__
from scalepilot.serve.describe import decide_path, describe_all, describe_one, example_answer
from scalepilot.serve.errors import RequestError
from scalepilot.serve.openapi_schemas import component_schemas, ref
from scalepilot.serve.schema import DecideRequest, check_observations, parse_json
from scalepilot.serve.store import PolicyStore, ServedPolicy

_DESCRIPTION = """Autoscaling policies over HTTP: send the named physical fields of one moment, get the number of replicas to run.

The server keeps nothing between requests. What a rule remembers comes back as `state`; send it with the next observation.
Every error has the body `{"error": "one line", "problems": […]}`."""
_TAGS = [
    {"name": "decide", "description": "An observation in, replicas out"},
    {"name": "policies", "description": "What is served: fields with units and bounds, actions, evaluation"},
    {"name": "health", "description": "For probes"},
    {"name": "documentation", "description": "This document"},
]
_ANY_POLICY = "{name}"


def openapi_document(store: PolicyStore, max_body_bytes: int) -> dict[str, Any]:
    """Describe every endpoint.

    Args:
        store: paths, schemas and examples come from its policies.
        max_body_bytes: said in the words of the 413.
    """
    first = next(iter(store))
    paths: dict[str, dict[str, Any]] = {
        decide_path(served.spec.name): {"post": _decide(served, max_body_bytes)} for served in store
    }
    paths[decide_path(_ANY_POLICY)] = {
        "parameters": [_name_parameter(store)],
        "post": _decide_by_name(store, first, max_body_bytes),
    }
    paths |= {
        "/v1/policies": {"get": _get("policies", "list_policies", "All policies", "PolicyList", describe_all(store))},
        "/v1/policies/{name}": {
            "parameters": [_name_parameter(store)],
            "get": _get(
                "policies",
                "get_policy",
                "One policy, with an example",
                "PolicyWithExample",
                describe_one(first),
                _not_found(store),
            ),
        },
        "/health/live": {"get": _get("health", "health_live", "The process answers", "Health", {"status": "live"})},
        "/health/ready": {
            "get": _get("health", "health_ready", "Policies are loaded", "Health", {"status": "ready", "policies": len(store)})
        },
        "/openapi.json": {"get": _get("documentation", "get_openapi", "This document as JSON", "AnyObject", None)},
        "/docs": {
            "get": {
                "tags": ["documentation"],
                "operationId": "get_docs",
                "summary": "This document as a page",
                "responses": {"200": {"description": "OK", "content": {"text/html": {"schema": {"type": "string"}}}}},
            }
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Scalepilot", "version": __version__, "description": _DESCRIPTION},
        "tags": _TAGS,
        "paths": paths,
        "components": {"schemas": component_schemas(store)},
    }


def _get(
    tag: str, operation_id: str, summary: str, schema: str, example: Any, errors: dict[str, Any] | None = None
) -> dict[str, Any]:
    content = {"schema": ref(schema)} | ({} if example is None else {"example": example})
    return {
        "tags": [tag],
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {"application/json": content}}} | (errors or {}),
    }


def _decide(served: ServedPolicy, max_body_bytes: int) -> dict[str, Any]:
    spec = served.spec
    made_by = f"rule {spec.rule['name']}" if spec.rule else spec.kind
    return _decide_operation(
        operation_id=f"decide_{spec.name}",
        summary=f"{spec.name} {spec.version}: {made_by} for {spec.env_id}",
        description=_field_table(served),
        schemas=(f"Request.{spec.name}", f"Answers.{spec.name}"),
        served=served,
        errors=_refusals(served, max_body_bytes),
    )


def _decide_by_name(store: PolicyStore, first: ServedPolicy, max_body_bytes: int) -> dict[str, Any]:
    return _decide_operation(
        operation_id="decide",
        summary="Any policy, by name",
        description="The same for every policy; its fields are in `GET /v1/policies/{name}`.",
        schemas=("Request", "Answers"),
        served=first,
        errors=_refusals(first, max_body_bytes) | _not_found(store),
    )


def _decide_operation(
    *, operation_id: str, summary: str, description: str, schemas: tuple[str, str], served: ServedPolicy, errors: dict[str, Any]
) -> dict[str, Any]:
    answer = example_answer(served)
    requests: dict[str, Any] = {"one": {"summary": "One observation", "value": {"observation": served.example}}}
    answers: dict[str, Any] = {"one": {"summary": "One answer", "value": answer}}
    if "state" in answer:
        again = {"observation": served.example, "state": answer["state"]}
        requests["next"] = {"summary": "The next observation, with the state of the last answer", "value": again}
    requests["list"] = {
        "summary": "A list: one answer each, in order",
        "value": {"observation": [served.example, served.example]},
    }
    answers["list"] = {"summary": "Answers to a list", "value": [answer, answer]}
    return {
        "tags": ["decide"],
        "operationId": operation_id,
        "summary": summary,
        "description": description,
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(schemas[0]), "examples": requests}}},
        "responses": {
            "200": {"description": "Decided", "content": {"application/json": {"schema": ref(schemas[1]), "examples": answers}}}
        }
        | errors,
    }


def _field_table(served: ServedPolicy) -> str:
    rows = [
        f"| `{f.name}` | {f.unit} | {_bound(f.low)} to {_bound(f.high)} | {f.description} |"
        for f in served.spec.observation_fields
    ]
    return "\n".join(["| field | unit | range | what it is |", "|---|---|---|---|", *rows])


def _bound(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.6g}"


def _refusals(served: ServedPolicy, max_body_bytes: int) -> dict[str, Any]:
    too_large = {"error": f"body: more than {max_body_bytes} bytes are not allowed; send fewer observations a request"}
    return {
        "400": _error("Not JSON, or nested too deep", _refusal_of(lambda: parse_json(b'{"observation": {'))),
        "413": _error(f"More than {max_body_bytes} bytes", too_large),
        "422": _error("A field is missing, unknown or out of its range", _refusal_of(lambda: _wrong_observation(served))),
        "503": {
            "description": "Stopping (JSON), or too many requests wait (text): try again; deciding twice does no harm",
            "content": {
                "application/json": {"schema": ref("Error"), "example": {"error": "the server is stopping; try again"}},
                "text/plain": {"schema": {"type": "string"}},
            },
        },
    }


def _wrong_observation(served: ServedPolicy) -> None:
    field = served.spec.observation_fields[0]
    check_observations(served, DecideRequest([served.example | {field.name: field.low - 5}], [None], many=False))


def _not_found(store: PolicyStore) -> dict[str, Any]:
    return {"404": _error("No policy of this name", _refusal_of(lambda: store.get("unknown")))}


def _refusal_of(wrong: Any) -> dict[str, Any]:
    """What a request really is answered: the examples of errors are made by the code that makes them."""
    try:
        wrong()
    except RequestError as error:
        return error.to_json()
    raise AssertionError("an example of an error was accepted")


def _error(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": ref("Error"), "example": example}}}


def _name_parameter(store: PolicyStore) -> dict[str, Any]:
    names = [served.spec.name for served in store]
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": names}, "example": names[0]}
