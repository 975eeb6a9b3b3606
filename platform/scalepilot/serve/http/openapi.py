"""The OpenAPI 3.1 document of the loaded policies; every example is a real request or a real answer.

Written in what OpenAPI 3.0 and 3.1 share (no lists of types, no `const`): the Swagger UI in `swagger_ui_bundle` reads 3.0 only,
so the page at /docs hands it this document as 3.0.
"""

from __future__ import annotations

import json
from typing import Any

from scalepilot import __version__
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.decide import oip
from scalepilot.serve.decide.strict import DecideRequest, check_observations, parse_json
from scalepilot.serve.http.describe import decide_path, describe_all, describe_one, example_answer
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.openapi_schemas import component_schemas, ref

_DESCRIPTION = """Autoscaling policies over HTTP: send the named physical fields of one moment, get the number of replicas to run.

The server keeps nothing between requests. What a rule remembers comes back as `state`; send it with the next observation.
Every error has the body `{"error": "one line", "problems": […]}`."""
_TAGS = [
    {"name": "decide", "description": "An observation in, replicas out"},
    {"name": "inference", "description": "Open Inference Protocol v2, for KServe and Triton clients"},
    {"name": "policies", "description": "What is served: fields with units and bounds, actions, evaluation"},
    {"name": "health", "description": "For probes"},
    {"name": "documentation", "description": "This document, and pages for people"},
]
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_ANY_POLICY = "{name}"


def openapi_document(catalogue: Catalogue, max_body_bytes: int, *, with_keys: bool = False) -> dict[str, Any]:
    """Describe every endpoint.

    Args:
        catalogue: paths, schemas and examples come from its policies.
        max_body_bytes: said in the words of the 413.
        with_keys: requests need an API key.

    Raises:
        RequestError: 503 as long as nothing is served.
    """
    defaults = catalogue.defaults()
    if not defaults:
        raise RequestError(503, "no policy is loaded yet; try again", headers=[("retry-after", "1")])
    first = defaults[0]
    paths: dict[str, dict[str, Any]] = {
        decide_path(served.spec.name): {"post": _decide(served, max_body_bytes)} for served in defaults
    }
    paths[decide_path(_ANY_POLICY)] = {
        "parameters": [_name_parameter(catalogue)],
        "post": _decide_by_name(catalogue, first, max_body_bytes),
    }
    paths |= {
        "/v1/policies": {"get": _get("policies", "list_policies", "All policies", "PolicyList", describe_all(catalogue))},
        "/v1/policies/{name}": {
            "parameters": [_name_parameter(catalogue)],
            "get": _get(
                "policies",
                "get_policy",
                "One policy, with an example",
                "PolicyWithExample",
                describe_one(first, catalogue),
                _not_found(catalogue),
            ),
        },
    }
    paths |= _inference_paths(catalogue, first, max_body_bytes) | _other_paths(len(catalogue))
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Scalepilot", "version": __version__, "description": _DESCRIPTION},
        "tags": _TAGS,
        "paths": paths,
        "components": {"schemas": component_schemas(catalogue)},
    }
    if with_keys:
        document["components"]["securitySchemes"] = _KEYS
        document["security"] = [{name: []} for name in _KEYS]
        refused = _error("No API key, or a wrong one", {"error": "API key: is missing; allowed: Authorization: Bearer KEY, …"})
        for path, operations in paths.items():
            for method, operation in operations.items():
                if method != "parameters" and "/health/" not in path:
                    operation["responses"]["401"] = refused
                elif method != "parameters":
                    operation["security"] = []
    return document


def _inference_paths(catalogue: Catalogue, first: ServedPolicy, max_body_bytes: int) -> dict[str, dict[str, Any]]:
    """Open Inference Protocol v2; the example is that of a policy without memory, if there is one."""
    stateless = next((served for served in catalogue.defaults() if served.state_shapes is None), None)
    name, version = _name_parameter(catalogue), _version_parameter(catalogue)
    gone = _not_found(catalogue)
    ready = _get(
        "inference", "model_ready", "Whether a model answers", "ModelReady", {"name": first.spec.name, "ready": True}, gone
    )
    metadata = oip.model_metadata(first, list(catalogue.versions[first.spec.name]))
    described = _get("inference", "model_metadata", "Inputs and outputs of a model", "ModelMetadata", metadata, gone)
    infer = _infer(stateless, max_body_bytes, gone)
    paths: dict[str, dict[str, Any]] = {
        "/v2": {"get": _get("inference", "server_metadata", "This server", "ServerMetadata", oip.server_metadata())},
        "/v2/health/live": {"get": _get("health", "server_live", "The process answers", "ServerLive", {"live": True})},
        "/v2/health/ready": {"get": _ready("server_ready", len(catalogue))},
    }
    for at, parameters, suffix in (("", [name], ""), ("/versions/{version}", [name, version], "_of_version")):
        for rest, method, operation in (("", "get", described), ("/ready", "get", ready), ("/infer", "post", infer)):
            named = operation | {"operationId": operation["operationId"] + suffix}
            paths[f"/v2/models/{{name}}{at}{rest}"] = {"parameters": parameters, method: named}
    return paths


def _infer(served: ServedPolicy | None, max_body_bytes: int, gone: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": ref("InferRequest")}
    answer: dict[str, Any] = {"schema": ref("InferResponse")}
    if served is not None:
        row = list(served.example.values())
        tensor = {"name": oip.INPUT, "shape": [1, len(row)], "datatype": "FP32", "data": row}
        request = {"id": "1", "inputs": [tensor]}
        content["example"] = request
        answer["example"] = json.loads(oip.infer(served, json.dumps(request).encode()).body)
    allowed = ", ".join(oip.DATATYPES)
    told = {"error": f"observation.datatype: 'BYTES' is not allowed; allowed: {allowed}"}
    wrong = _error("What the protocol does not allow", told)
    return {
        "tags": ["inference"],
        "operationId": "infer",
        "summary": "Decide for rows of observations",
        "description": "One input, `observation`: the policy's fields in their order. Binary tensors are understood, too.",
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {"200": {"description": "Decided", "content": {"application/json": answer}}, "400": wrong}
        | _body_refusals(max_body_bytes)
        | gone,
    }


def _other_paths(count: int) -> dict[str, dict[str, Any]]:
    return {
        "/health/live": {"get": _get("health", "health_live", "The process answers", "Health", {"status": "live"})},
        "/health/ready": {"get": _ready("health_ready", count)},
        "/openapi.json": {"get": _get("documentation", "get_openapi", "This document as JSON", "AnyObject", None)},
        "/metrics": {"get": _text("health", "get_metrics", "Counts and times, for Prometheus", "text/plain")},
        "/docs": {"get": _text("documentation", "get_docs", "This document as a page", "text/html")},
        "/": {"get": _text("documentation", "get_page", "A page to try the policies on", "text/html")},
    }


def _ready(operation_id: str, count: int) -> dict[str, Any]:
    example = {"status": "ready", "ready": True, "policies": count}
    return _get("health", operation_id, "Policies are loaded, and the server is not stopping", "Health", example, _busy())


def _text(tag: str, operation_id: str, summary: str, kind: str) -> dict[str, Any]:
    return {
        "tags": [tag],
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {kind: {"schema": {"type": "string"}}}}},
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


def _decide_by_name(catalogue: Catalogue, first: ServedPolicy, max_body_bytes: int) -> dict[str, Any]:
    return _decide_operation(
        operation_id="decide",
        summary="Any policy, by name",
        description="The same for every policy; its fields are in `GET /v1/policies/{name}`.",
        schemas=("Request", "Answers"),
        served=first,
        errors=_refusals(first, max_body_bytes) | _not_found(catalogue),
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
    return {
        "400": _error("Not JSON, or nested too deep", _refusal_of(lambda: parse_json(b'{"observation": {'))),
        "422": _error("A field is missing, unknown or out of its range", _refusal_of(lambda: _wrong_observation(served))),
    } | _body_refusals(max_body_bytes)


def _body_refusals(max_body_bytes: int) -> dict[str, Any]:
    too_large = {"error": f"body: more than {max_body_bytes} bytes are not allowed; send fewer observations a request"}
    compressed = {"error": "content-encoding: 'br' is not allowed; allowed: gzip, deflate, identity"}
    return {
        "408": _error("The body did not arrive in time", {"error": "body: did not arrive within 10 s; send it faster"}),
        "413": _error(f"More than {max_body_bytes} bytes", too_large),
        "415": _error("A compression other than gzip and deflate", compressed),
    } | _busy()


def _busy() -> dict[str, Any]:
    example = {"error": "the server is stopping; try again"}
    told = _error("Stopping, loading, or too many requests wait: try again; deciding twice does no harm", example)
    return {"503": told | {"headers": {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}}}


def _wrong_observation(served: ServedPolicy) -> None:
    field = served.spec.observation_fields[0]
    check_observations(served, DecideRequest([served.example | {field.name: field.low - 5}], [None], many=False))


def _not_found(catalogue: Catalogue) -> dict[str, Any]:
    return {"404": _error("No policy of this name", _refusal_of(lambda: catalogue.get("unknown")))}


def _refusal_of(wrong: Any) -> dict[str, Any]:
    """What a request really is answered: the examples of errors are made by the code that makes them."""
    try:
        wrong()
    except RequestError as error:
        return error.to_json()
    raise AssertionError("an example of an error was accepted")


def _error(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": ref("Error"), "example": example}}}


def _version_parameter(catalogue: Catalogue) -> dict[str, Any]:
    versions = sorted({served.spec.version for served in catalogue})
    return {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}, "example": versions[0]}


def _name_parameter(catalogue: Catalogue) -> dict[str, Any]:
    names = list(catalogue.versions)
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": names}, "example": names[0]}
